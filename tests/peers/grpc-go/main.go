// A backend of OTLP on grpc-go, as the Collector, Jaeger and Tempo embed it: it answers in the encoding of the request.
// It prints its addresses as one line of JSON, counts what it takes, and tells so under /counts. It ends with its
// standard input.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"

	_ "github.com/mostynb/go-grpc-compression/zstd"
	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip"
)

// counts is what was taken.
type counts struct {
	mutex sync.Mutex
	spans int
	// Ids of spans, each once.
	ids     map[string]struct{}
	metrics int
	records int
}

type traces struct {
	coltrace.UnimplementedTraceServiceServer
	*counts
}

func (s traces) Export(_ context.Context, request *coltrace.ExportTraceServiceRequest) (*coltrace.ExportTraceServiceResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, group := range request.ResourceSpans {
		for _, scope := range group.ScopeSpans {
			for _, span := range scope.Spans {
				s.spans++
				s.ids[string(span.TraceId)+string(span.SpanId)] = struct{}{}
			}
		}
	}
	return &coltrace.ExportTraceServiceResponse{}, nil
}

type metrics struct {
	colmetrics.UnimplementedMetricsServiceServer
	*counts
}

func (s metrics) Export(_ context.Context, request *colmetrics.ExportMetricsServiceRequest) (*colmetrics.ExportMetricsServiceResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, group := range request.ResourceMetrics {
		for _, scope := range group.ScopeMetrics {
			s.counts.metrics += len(scope.Metrics)
		}
	}
	return &colmetrics.ExportMetricsServiceResponse{}, nil
}

type logs struct {
	collogs.UnimplementedLogsServiceServer
	*counts
}

func (s logs) Export(_ context.Context, request *collogs.ExportLogsServiceRequest) (*collogs.ExportLogsServiceResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, group := range request.ResourceLogs {
		for _, scope := range group.ScopeLogs {
			s.records += len(scope.LogRecords)
		}
	}
	return &collogs.ExportLogsServiceResponse{}, nil
}

func (c *counts) ServeHTTP(answer http.ResponseWriter, _ *http.Request) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	told := map[string]int{"spans": c.spans, "unique_spans": len(c.ids), "metrics": c.metrics, "records": c.records}
	if err := json.NewEncoder(answer).Encode(told); err != nil {
		log.Print(err)
	}
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func main() {
	taken := &counts{ids: map[string]struct{}{}}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	coltrace.RegisterTraceServiceServer(server, traces{counts: taken})
	colmetrics.RegisterMetricsServiceServer(server, metrics{counts: taken})
	collogs.RegisterLogsServiceServer(server, logs{counts: taken})
	onGrpc, onHTTP := listen(), listen()
	mux := http.NewServeMux()
	mux.Handle("/counts", taken)
	go func() { log.Fatal(http.Serve(onHTTP, mux)) }()
	go func() { log.Fatal(server.Serve(onGrpc)) }()
	addresses := map[string]string{"grpc": onGrpc.Addr().String(), "http": onHTTP.Addr().String()}
	if err := json.NewEncoder(os.Stdout).Encode(addresses); err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		log.Fatal(err)
	}
}
