"""A service that calls a local HTTP server through requests, with pybreaker round the call that fails at times.

Where its spans go is set by OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL alone.
"""

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pybreaker
import requests
from opentelemetry import trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc") == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

CALLS = int(os.environ.get("CALLS", "2000"))
UNREACHABLE = "http://127.0.0.1:9"  # nothing listens on the discard port
payments_down = False


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/slow":
            time.sleep(0.1)
        failed_payment = path == "/payments" and payments_down
        status = {"/items": 200, "/slow": 200, "/payments": 503 if failed_payment else 200, "/broken": 500}
        self.send_response(status.get(path, 404))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
RequestsInstrumentor().instrument()
tracer = trace.get_tracer("shop-client")

server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
server.daemon_threads = True
server.handle_error = lambda *args: None  # a caller that timed out has hung up
threading.Thread(target=server.serve_forever, daemon=True).start()
shop = f"http://127.0.0.1:{server.server_port}"

session = requests.Session()
breaker = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=0.2, name="payments")


@breaker
def charge(order):
    session.get(f"{shop}/payments?order={order}", timeout=1).raise_for_status()


def call(i):
    if i % 2:
        with tracer.start_as_current_span("checkout"):  # records what the call raises, the breaker's refusal too
            charge(i)
    elif i % 40 == 0:
        session.get(f"{shop}/missing", timeout=1)
    elif i % 40 == 10:
        session.get(f"{shop}/broken", timeout=1)
    elif i % 40 == 20:
        session.get(f"{shop}/slow", timeout=0.05 if i % 80 == 20 else 1)  # every other one times out
    elif i % 80 == 30:
        session.get(f"{UNREACHABLE}/stock", timeout=1)
    else:
        session.get(f"{shop}/items?page={i % 10}", timeout=1)


outcomes = {}
for i in range(CALLS):
    payments_down = i % 200 >= 150
    try:
        call(i)
        outcome = "returned"
    except (requests.RequestException, pybreaker.CircuitBreakerError) as error:
        outcome = type(error).__name__
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
    time.sleep(0.005)

provider.shutdown()  # sends what is still queued
print(outcomes)
