"""Derived metrics in a real Prometheus: prometheus.py FUSEBOARD DIRECTORY-OF-PEERS [SECONDS]

Prometheus runs without a window for samples out of order. An application with a breaker that trips, and one that begins
later, send spans for a while: Prometheus refuses nothing, and its names of metrics are those of docs/prometheus.md.
"""

import pathlib
import random
import re
import sys
import time
import urllib.request

from peers import SECOND, Program, attributes, free_port, get, post, run_all, wait_for

FUSEBOARD, PEERS = (str(pathlib.Path(argument).resolve()) for argument in sys.argv[1:3])
DURATION = int(sys.argv[3]) if len(sys.argv) > 3 else 90
DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "prometheus.md"


def span(kind, name, start, millis, trace, parent="", span_id=None, status=None, events=(), **tags):
    return {
        "traceId": trace,
        "spanId": span_id or f"{random.getrandbits(64) | 1:016x}",
        "parentSpanId": parent,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + millis * 1_000_000),
        "attributes": attributes(**tags),
        "events": list(events),
        "status": {"code": status} if status else {},
    }


def order(now, outcome, callee):
    """What an application does to answer an order: a call that goes well, fails, or is refused by its breaker."""
    trace, root = f"{random.getrandbits(128) | 1:032x}", f"{random.getrandbits(64) | 1:016x}"
    spans = []
    if outcome != "refused":
        wrong = {"error__type": random.choice(["timeout", "ConnectionError", "503"])} if outcome == "failed" else {}
        spans.append(span(3, "GET", now, 8, trace, root, status=2 if wrong else None, server__address=callee, **wrong))
    refusal = {
        "timeUnixNano": str(now + 1_000_000),
        "name": "exception",
        "attributes": attributes(
            exception__type="io.github.resilience4j.circuitbreaker.CallNotPermittedException",
            exception__message=f"CircuitBreaker '{callee}' is OPEN and does not permit further calls",
        ),
    }
    events = [refusal] if outcome == "refused" else []
    spans.append(span(2, "POST /order", now - 1_000_000, 10, trace, span_id=root, status=2 if outcome != "well" else None, events=events))
    return spans


def outcome_at(second):
    """A breaker opens after 3 s of failures, refuses for 8 s, and closes."""
    phase = second % 25
    return "failed" if phase in (9, 10, 11) else "refused" if 12 <= phase < 20 else "well"


def feed(port, seconds):
    began = time.monotonic()
    number = 0
    while (second := time.monotonic() - began) < seconds:
        for service, instances, since in (("shop", 2, 0), ("till", 1, 20)):
            if second < since:
                continue
            instance = f"{service}-{number % instances}"
            resource = attributes(
                service__name=service,
                service__namespace="store",
                service__instance__id=instance,
                deployment__environment__name="test",
                host__name="one",
            )
            spans = order(time.time_ns() - SECOND // 50, outcome_at(int(second) - since), "pay" if number % 3 else "stock")
            scopes = [{"scope": {"name": "peers"}, "spans": spans}]
            post(f"http://127.0.0.1:{port}/v1/traces", {"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": scopes}]})
        number += 1
        time.sleep(0.04)


def nothing_is_refused(stack):
    listen, grpc, http = free_port(), free_port(), free_port()
    url = f"http://127.0.0.1:{listen}"
    stack.enter_context(
        Program(
            f"{PEERS}/prometheus",
            "--config.file=CONFIG".replace("CONFIG", "DIRECTORY/config.yaml"),
            "--storage.tsdb.path=DIRECTORY/data",
            f"--web.listen-address=127.0.0.1:{listen}",
            "--web.enable-otlp-receiver",
            ports=(listen,),
            config="otlp:\n  promote_resource_attributes: [deployment.environment.name]\n",
        )
    )
    exporter = {"otlp_http": {"endpoint": f"{url}/api/v1/otlp", "sending_queue": {"num_consumers": 1}}}
    config = {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{grpc}"}, "http": {"endpoint": f"127.0.0.1:{http}"}}}},
        "processors": {"circuit_window": {}},
        "analyzers": {name: {} for name in ("anomaly", "pattern", "trend", "resource", "health")},
        "exporters": {"debug": {}, **exporter},
        "service": {
            "pipelines": {
                "traces": {
                    "receivers": ["otlp"],
                    "processors": ["circuit_window"],
                    "analyzers": ["anomaly", "pattern", "trend", "resource", "health"],
                    "exporters": ["debug"],
                },
                "metrics": {"receivers": ["circuit_window"], "exporters": ["otlp_http"]},
            }
        },
    }
    program = stack.enter_context(Program(FUSEBOARD, "--config", "CONFIG", ports=(grpc, http), config=config))
    feed(http, DURATION)
    wait_for("no trip in Prometheus", lambda: get(f"{url}/api/v1/query?query=circuit_breaker_trips_total")["data"]["result"], 20)
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        own = answer.read().decode()
    codes = dict(re.findall(r'prometheus_http_requests_total\{code="(\d+)",handler="/api/v1/otlp/v1/metrics"\} (\S+)', own))
    refused = sum(float(count) for code, count in codes.items() if not code.startswith("2"))
    dropped = program.said(r"dropped|out of order|partial")
    names = sorted(name for name in get(f"{url}/api/v1/label/__name__/values")["data"] if name.startswith("circuit_breaker"))
    listed = DOCS.read_text() if DOCS.exists() else ""
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    unlisted = sorted(name for name in families if f"`{name}`" not in listed)
    trips = get(f"{url}/api/v1/query?query=sum(increase(circuit_breaker_trips_total[10m]))")["data"]["result"]
    told = f"requests by code {codes}, refused {refused:g}, dropped lines {len(dropped)}, trips by increase() {trips and trips[0]['value'][1]}"
    told += f", names {len(names)}" + (f", not in docs/prometheus.md: {unlisted}" if unlisted else "")
    return refused > 0 or bool(dropped) or bool(unlisted), told + (f": {dropped[0].strip()[:200]}" if dropped else "")


if __name__ == "__main__":
    sys.exit(run_all([(f"derived metrics, {DURATION} s, -> Prometheus", nothing_is_refused)]))
