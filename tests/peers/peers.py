"""Programs, and what is sent between them, for the tests against real peers. Standard library only."""

import contextlib
import http.server
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

SECOND = 1_000_000_000


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(what, condition, seconds=60):
    """Waits until a condition holds; gives its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise TimeoutError(what)


def is_listening(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 0.2):
            return True
    except OSError:
        return False


class Program:
    """A program that runs until the end of a `with` block; what it prints is kept."""

    def __init__(self, *arguments, ports=(), config=None, env=None):
        self.ports, self.lines = ports, []
        self.directory = tempfile.TemporaryDirectory()
        if config is not None:
            path = pathlib.Path(self.directory.name, "config.yaml")
            path.write_text(config if isinstance(config, str) else json.dumps(config))
            arguments = [str(path) if argument == "CONFIG" else argument for argument in arguments]
        self.arguments = [argument.replace("DIRECTORY", self.directory.name) for argument in arguments]
        self.env = {**os.environ, **(env or {})}

    def __enter__(self):
        self.process = subprocess.Popen(
            self.arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env, cwd=self.directory.name
        )
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self.reader.start()
        try:
            wait_for(f"{self.arguments[0]} does not listen", lambda: all(map(is_listening, self.ports)) or self.process.poll() is not None)
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.arguments[0]} ended: {''.join(self.lines[-20:])}")
        except Exception:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.reader.join(5)
        self.directory.cleanup()

    def said(self, pattern):
        return [line for line in self.lines if re.search(pattern, line)]


class Sink:
    """Takes OTLP/JSON over HTTP, and keeps the ids of spans and the names of metrics and events."""

    def __enter__(self):
        sink = self
        self.spans, self.metrics, self.events, self.lock = [], set(), [], threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                sink.take(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def take(self, request):
        with self.lock:
            for resource in request.get("resourceSpans", []):
                for scope in resource.get("scopeSpans", []):
                    self.spans.extend((span["traceId"], span["spanId"], span["name"]) for span in scope.get("spans", []))
            for resource in request.get("resourceMetrics", []):
                for scope in resource.get("scopeMetrics", []):
                    self.metrics.update(metric["name"] for metric in scope.get("metrics", []))
            for resource in request.get("resourceLogs", []):
                for scope in resource.get("scopeLogs", []):
                    self.events.extend(record.get("eventName", "") for record in scope.get("logRecords", []))

    def sent(self, name):
        with self.lock:
            return [(trace, span) for trace, span, other in self.spans if other == name]


def attributes(**values):
    return [{"key": key.replace("__", "."), "value": {"stringValue": str(value)}} for key, value in values.items()]


def request_of(count, name, service="shop", callee="stock"):
    """OTLP/JSON with so many CLIENT spans of this name."""
    now = time.time_ns()
    spans = [
        {
            "traceId": f"{random.getrandbits(128) | 1:032x}",
            "spanId": f"{random.getrandbits(64) | 1:016x}",
            "name": name,
            "kind": 3,
            "startTimeUnixNano": str(now - 5_000_000),
            "endTimeUnixNano": str(now),
            "attributes": attributes(server__address=callee, url__path="/items"),
        }
        for _ in range(count)
    ]
    resource = {"attributes": attributes(service__name=service, service__instance__id="one")}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "peers"}, "spans": spans}]}]}


def post(url, request, retries=20):
    """Posts OTLP/JSON; comes back when it is told to."""
    body = json.dumps(request).encode()
    for _ in range(retries):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, {"content-type": "application/json"}), timeout=30) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code not in (429, 502, 503, 504):
                raise RuntimeError(f"{error.code}: {error.read()[:300]}") from error
            time.sleep(0.2)
    raise RuntimeError(f"{url} refused {retries} times")


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def run_all(cases):
    """Runs cases, prints a line each, and gives the exit code."""
    failed = 0
    for name, case in cases:
        try:
            with contextlib.ExitStack() as stack:
                wrong, told = case(stack)
        except Exception as error:  # noqa: BLE001
            wrong, told = True, f"{type(error).__name__}: {error}"
        failed += bool(wrong)
        print(f"{'FAIL' if wrong else 'ok  '}  {name:<60} {told}", flush=True)
    return 1 if failed else 0
