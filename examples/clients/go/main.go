// A service that calls a local HTTP server through net/http, with gobreaker round the call that fails at times.
// Where its spans go is set by OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL alone.
package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

var (
	paymentsDown atomic.Bool
	statuses     = map[string]int{"/items": 200, "/slow": 200, "/payments": 200, "/broken": 500}
	errands      = map[int]string{0: "/missing", 10: "/broken", 40: "/missing", 50: "/broken", 60: "/slow"}
	client       = &http.Client{Transport: otelhttp.NewTransport(http.DefaultTransport), Timeout: time.Second}
	hasty        = &http.Client{Transport: client.Transport, Timeout: 50 * time.Millisecond}
	breaker      = gobreaker.NewCircuitBreaker[any](gobreaker.Settings{Name: "payments", Timeout: 200 * time.Millisecond})
)

func shop(w http.ResponseWriter, r *http.Request) {
	status := cmp.Or(statuses[r.URL.Path], http.StatusNotFound)
	if r.URL.Path == "/slow" {
		time.Sleep(100 * time.Millisecond)
	} else if r.URL.Path == "/payments" && paymentsDown.Load() {
		status = http.StatusServiceUnavailable
	}
	w.WriteHeader(status)
}

func get(ctx context.Context, caller *http.Client, url string) error {
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil) // these URLs are all well formed
	response, err := caller.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() // ends the span
	if response.StatusCode >= 500 {
		return fmt.Errorf("answered %s", response.Status)
	}
	return nil
}

func checkout(ctx context.Context, url string) error {
	ctx, span := otel.Tracer("shop-client").Start(ctx, "checkout")
	defer span.End()
	_, err := breaker.Execute(func() (any, error) { return nil, get(ctx, client, url) })
	if err != nil { // the breaker's refusal too
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	return err
}

func call(ctx context.Context, base string, i int) error {
	if i%2 == 1 {
		return checkout(ctx, fmt.Sprintf("%s/payments?order=%d", base, i))
	} else if i%80 == 20 {
		return get(ctx, hasty, base+"/slow") // times out
	} else if i%80 == 30 {
		return get(ctx, client, "http://127.0.0.1:9/stock") // nothing listens on the discard port
	}
	return get(ctx, client, base+cmp.Or(errands[i%80], fmt.Sprintf("/items?page=%d", i%10)))
}

func main() {
	ctx := context.Background()
	exporter, err := otlptracegrpc.New(ctx)
	if os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL") == "http/protobuf" {
		exporter, err = otlptracehttp.New(ctx)
	}
	if err != nil {
		panic(err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
	otel.SetTracerProvider(provider)
	server := httptest.NewServer(http.HandlerFunc(shop)) // on loopback, any free port
	outcomes := map[string]int{}
	calls, _ := strconv.Atoi(cmp.Or(os.Getenv("CALLS"), "2000"))
	for i := range calls {
		paymentsDown.Store(i%200 >= 150)
		outcomes[fmt.Sprintf("%T", call(ctx, server.URL, i))]++
		time.Sleep(5 * time.Millisecond)
	}
	fmt.Println(outcomes, provider.Shutdown(ctx)) // which sends what is still queued
}
