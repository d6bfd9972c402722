// Package telemetry sets up OpenTelemetry as its manual shows: the OTLP/HTTP exporter, the batch processor and the W3C
// propagator. Everything else comes from the usual OTEL_* variables (service name, resource attributes, batch delay).
package telemetry

import (
	"context"
	"log"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
)

// Start installs the global tracer provider and returns the function that flushes and stops it.
func Start() func() {
	exporter, err := otlptracehttp.New(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	return func() { provider.Shutdown(context.Background()) }
}
