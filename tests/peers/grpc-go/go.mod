module fuseboard/tests/peers/grpc-go

go 1.25.0

require (
	github.com/mostynb/go-grpc-compression v1.2.3
	go.opentelemetry.io/proto/otlp v1.11.0
	google.golang.org/grpc v1.84.0
)
