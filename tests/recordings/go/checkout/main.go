// The caller `checkout`: net/http with otelhttp, one sony/gobreaker for each callee.
//
//	POST /order   inventory, then payments; the error, wrapped, is recorded on the span and answered with 500.
//	              Without -inventory: payments only.
//	GET  /quote   payments only; every error, a rejection too, is swallowed: 200 with a fallback. With -cache that share of
//	              the quotes needs no call.
//	GET  /status  payments, but past the breaker; an error is answered with 503.
//
// Each transition of a breaker is a line of -truth, written in gobreaker's own OnStateChange.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sony/gobreaker/v2"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"recordings/telemetry"
)

var (
	addr      = flag.String("addr", "", "address to listen on")
	instance  = flag.String("instance", "", "name of this instance (service.instance.id, if that is sent)")
	payments  = flag.String("payments", "", "base URL of payments")
	inventory = flag.String("inventory", "", "base URL of inventory, or none")
	truth     = flag.String("truth", "", "file for the transitions of the breakers")
	open      = flag.Duration("open", 5*time.Second, "gobreaker's Timeout")
	failures  = flag.Uint("failures", 5, "failures in a row that trip")
	probes    = flag.Uint("probes", 3, "gobreaker's MaxRequests")
	cache     = flag.Float64("cache", 0, "share of the quotes that need no call")
	wait      = flag.Duration("wait", time.Second, "time limit of a call")
)

var (
	client    *http.Client
	truthFile *os.File
	truthLock sync.Mutex
)

type breaker = gobreaker.CircuitBreaker[[]byte]

func newBreaker(callee string) *breaker {
	state := strings.NewReplacer("-", "_")
	return gobreaker.NewCircuitBreaker[[]byte](gobreaker.Settings{
		Name:        callee,
		MaxRequests: uint32(*probes),
		Timeout:     *open,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= uint32(*failures) },
		OnStateChange: func(name string, from, to gobreaker.State) {
			move := map[string]any{"t_ns": time.Now().UnixNano(), "name": name, "from": state.Replace(from.String()),
				"to": state.Replace(to.String()), "callee": callee, "service": "checkout"}
			if *instance != "" {
				move["instance"] = *instance
			}
			line, _ := json.Marshal(move)
			truthLock.Lock()
			defer truthLock.Unlock()
			truthFile.Write(append(line, '\n'))
		},
	})
}

// call makes one HTTP call; a status of 500 or more is an error.
func call(ctx context.Context, method, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, *wait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Caller", *instance)
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 500 {
		err = errors.New(resp.Status)
	}
	return body, err
}

func guarded(ctx context.Context, b *breaker, method, url string) error {
	_, err := b.Execute(func() ([]byte, error) { return call(ctx, method, url) })
	return err
}

func main() {
	flag.Parse()
	stop := telemetry.Start()
	var err error
	if truthFile, err = os.OpenFile(*truth, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
		log.Fatal(err)
	}
	client = &http.Client{Transport: otelhttp.NewTransport(http.DefaultTransport)}
	pay, reserve := newBreaker("payments"), newBreaker("inventory")

	mux := http.NewServeMux()
	mux.HandleFunc("POST /order", func(w http.ResponseWriter, r *http.Request) {
		var err error
		if *inventory != "" {
			err = guarded(r.Context(), reserve, http.MethodPost, *inventory+"/reservations")
		}
		if err == nil {
			err = guarded(r.Context(), pay, http.MethodPost, *payments+"/charges")
		}
		if err != nil {
			err = fmt.Errorf("order: %w", err)
			span := trace.SpanFromContext(r.Context())
			span.RecordError(err)
			span.SetStatus(codes.Error, err.Error())
			http.Error(w, "order failed", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, `{"order":"accepted"}`)
	})
	mux.HandleFunc("GET /quote", func(w http.ResponseWriter, r *http.Request) {
		if rand.Float64() >= *cache {
			if err := guarded(r.Context(), pay, http.MethodGet, *payments+"/rates"); err != nil {
				fmt.Fprintln(w, `{"quote":"list price"}`)
				return
			}
		}
		fmt.Fprintln(w, `{"quote":"discounted"}`)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		if _, err := call(r.Context(), http.MethodGet, *payments+"/health"); err != nil {
			http.Error(w, "payments unavailable", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, `{"status":"up"}`)
	})
	go func() { log.Fatal(http.ListenAndServe(*addr, otelhttp.NewHandler(mux, "http"))) }()

	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
	stop()
}
