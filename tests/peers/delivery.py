"""Delivery through real peers: delivery.py FUSEBOARD DIRECTORY-OF-PEERS

A Collector in front and one behind, and Jaeger behind: every span that was acknowledged arrives once, in every
combination of protocol, compression and batch, and with the shipped configurations.
"""

import itertools
import pathlib
import sys
import time

from peers import Program, Sink, free_port, get, post, request_of, run_all, wait_for

FUSEBOARD, PEERS = (str(pathlib.Path(argument).resolve()) for argument in sys.argv[1:3])
CONFIG = pathlib.Path(__file__).resolve().parents[2] / "config"
REQUESTS, SPANS = 100, 100
NAME = "of the test"


def collector(stack, exporter):
    """A Collector that sends what it takes to an exporter; gives the ports it listens on."""
    grpc, http = free_port(), free_port()
    config = {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{grpc}"}, "http": {"endpoint": f"127.0.0.1:{http}"}}}},
        "exporters": exporter,
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {signal: {"receivers": ["otlp"], "exporters": list(exporter)} for signal in ("traces", "metrics", "logs")},
        },
    }
    program = stack.enter_context(Program(f"{PEERS}/otelcol", "--config", "CONFIG", ports=(grpc, http), config=config))
    return program, grpc, http


def behind(stack):
    """A Collector that hands on what it takes as JSON, and where that goes."""
    sink = stack.enter_context(Sink())
    exporter = {"otlp_http": {"endpoint": f"http://127.0.0.1:{sink.port}", "encoding": "json", "compression": "none"}}
    program, grpc, http = collector(stack, exporter)
    return sink, program, grpc, http


def front(stack, protocol, compression, port):
    """A Collector that sends to Fuseboard; gives the port that it takes OTLP/HTTP on."""
    endpoint = f"127.0.0.1:{port}" if protocol == "otlp_grpc" else f"http://127.0.0.1:{port}"
    exporter = {protocol: {"endpoint": endpoint, "tls": {"insecure": True}, "compression": compression}}
    return collector(stack, exporter)[2]


def fuseboard(stack, exporter, batch, config=None, env=None):
    """Fuseboard, windowing, with one exporter; gives its program and ports."""
    grpc, http = free_port(), free_port()
    if config is None:
        (settings,) = exporter.values()
        settings["sending_queue"] = {"batch": {}} if batch else {}
        config = {
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{grpc}"}, "http": {"endpoint": f"127.0.0.1:{http}"}}}},
            "processors": {"circuit_window": {}},
            "exporters": exporter,
            "service": {
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "processors": ["circuit_window"], "exporters": list(exporter)},
                    "metrics": {"receivers": ["circuit_window"], "exporters": list(exporter)},
                }
            },
        }
        arguments = ("--config", "CONFIG")
    else:
        arguments = ("--config", str(CONFIG / config))
        ports = {"grpc": grpc, "http": http}
        for protocol, port in ports.items():
            arguments += ("--set", f"receivers.otlp.protocols.{protocol}.endpoint=127.0.0.1:{port}")
        config = None
    program = stack.enter_context(Program(FUSEBOARD, *arguments, ports=(grpc, http), config=config, env=env))
    return program, grpc, http


def send(port):
    for _ in range(REQUESTS):
        post(f"http://127.0.0.1:{port}/v1/traces", request_of(SPANS, NAME))


def verdict(program, ids):
    """Whether all came once: the ids that arrived, and lines of Fuseboard that tell of a loss."""
    sent, unique = REQUESTS * SPANS, len(set(ids))
    dropped = program.said(r"dropped|given up|export failed|can't be read|ERROR")
    told = f"sent {sent}, received {len(ids)}, unique {unique}, dropped lines {len(dropped)}"
    return unique != sent or len(ids) != sent or bool(dropped), told + (f": {dropped[0].strip()[:200]}" if dropped else "")


def settled(count):
    """Waits until nothing more arrives; gives what did."""
    wait_for("not all arrived", lambda: len(count()) >= REQUESTS * SPANS, 30)
    time.sleep(1)  # what is doubled comes later
    return count()


def chain(protocol, compression, batch, in_front):
    def case(stack):
        sink, _, grpc, http = behind(stack)
        endpoint = f"127.0.0.1:{grpc}" if protocol == "otlp_grpc" else f"http://127.0.0.1:{http}"
        exporter = {protocol: {"endpoint": endpoint, "tls": {"insecure": True}, "compression": compression}}
        program, own_grpc, own_http = fuseboard(stack, exporter, batch)
        first, first_compression = in_front
        port = own_http
        if first is not None:
            port = front(stack, first, first_compression, own_grpc if first == "otlp_grpc" else own_http)
        send(port)
        try:
            ids = settled(lambda: sink.sent(NAME))
        except TimeoutError:
            ids = sink.sent(NAME)
        return verdict(program, ids)

    return case


def shipped_to_a_collector(stack):
    """config/tempo-prometheus.yaml; a Collector stands for Tempo, Prometheus and Loki."""
    sink, _, grpc, http = behind(stack)
    # Prometheus and Loki take OTLP below a path of their own; a Collector does not.
    env = {"TEMPO_ENDPOINT": f"127.0.0.1:{grpc}"}
    both = [f"exporters.otlp_http/prometheus.endpoint=http://127.0.0.1:{http}", f"exporters.otlp_http/loki.endpoint=http://127.0.0.1:{http}"]
    own_grpc, own_http = free_port(), free_port()
    arguments = [FUSEBOARD, "--config", str(CONFIG / "tempo-prometheus.yaml")]
    for setting in [
        *both,
        f"receivers.otlp.protocols.grpc.endpoint=127.0.0.1:{own_grpc}",
        f"receivers.otlp.protocols.http.endpoint=127.0.0.1:{own_http}",
    ]:
        arguments += ["--set", setting]
    program = stack.enter_context(Program(*arguments, ports=(own_grpc, own_http), env=env))
    send(front(stack, "otlp_grpc", "gzip", own_grpc))
    ids = settled(lambda: sink.sent(NAME))
    # A circuit has series from its second bucket with calls on.
    post(f"http://127.0.0.1:{own_http}/v1/traces", request_of(1, "later"))
    wait_for("no metric of circuits arrived", lambda: "circuit_breaker.requests" in sink.metrics, 60)
    return verdict(program, ids)


def shipped_to_jaeger(stack):
    """config/jaeger.yaml, and Jaeger."""
    grpc, http, query, ask = free_port(), free_port(), free_port(), free_port()
    config = {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query"],
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
        },
        "extensions": {
            "jaeger_query": {
                "storage": {"traces": "memory"},
                "http": {"endpoint": f"127.0.0.1:{query}"},
                "grpc": {"endpoint": f"127.0.0.1:{ask}"},
            },
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 1_000_000}}}},
        },
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{grpc}"}, "http": {"endpoint": f"127.0.0.1:{http}"}}}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
    }
    stack.enter_context(Program(f"{PEERS}/jaeger", "--config", "CONFIG", ports=(grpc, query), config=config))
    sink = stack.enter_context(Sink())
    env = {"JAEGER_ENDPOINT": f"127.0.0.1:{grpc}"}
    own_grpc, own_http = free_port(), free_port()
    arguments = [FUSEBOARD, "--config", str(CONFIG / "jaeger.yaml")]
    for setting in [
        f"exporters.otlp_http/prometheus.endpoint=http://127.0.0.1:{sink.port}",
        "exporters.otlp_http/prometheus.encoding=json",
        "exporters.otlp_http/prometheus.compression=none",
        f"receivers.otlp.protocols.grpc.endpoint=127.0.0.1:{own_grpc}",
        f"receivers.otlp.protocols.http.endpoint=127.0.0.1:{own_http}",
    ]:
        arguments += ["--set", setting]
    program = stack.enter_context(Program(*arguments, ports=(own_grpc, own_http), env=env))
    send(own_http)

    def found():
        traces = get(f"http://127.0.0.1:{query}/api/traces?service=shop&lookback=1h&limit=1000000")["data"] or []
        return [(span["traceID"], span["spanID"]) for trace in traces for span in trace["spans"] if span["operationName"] == NAME]

    return verdict(program, settled(found))


FRONTS = itertools.cycle([(None, None), ("otlp_grpc", "gzip"), ("otlp_http", "zstd"), ("otlp_grpc", "none"), ("otlp_http", "gzip"), ("otlp_grpc", "zstd")])
CASES = [
    (f"{first[0] or 'direct'} {first[1] or ''} -> {protocol} {compression}{' batch' if batch else ''}", chain(protocol, compression, batch, first))
    for (protocol, compression, batch), first in zip(
        itertools.product(["otlp_grpc", "otlp_http"], ["gzip", "zstd", "none"], [False, True]), FRONTS
    )
]
CASES += [("config/tempo-prometheus.yaml -> Collector", shipped_to_a_collector), ("config/jaeger.yaml -> Jaeger", shipped_to_jaeger)]

if __name__ == "__main__":
    sys.exit(run_all(CASES))
