"""The caller `checkout`: Flask and requests under opentelemetry-instrument, a breaker for each of three callees.

    POST /order    inventory (pybreaker): every error is caught, recorded on the span and answered with 503;
                   payments (circuitbreaker): an error is left to Flask, which records it on the SERVER span and answers 500;
                   shipping (pybreaker): every error is swallowed, the fallback is `ship later`.
    GET /delivery  shipping, the same.

    checkout.py PORT TRUTH          with BREAKERS=0 in the environment all calls are plain
    PAYMENTS, INVENTORY, SHIPPING   their base URLs; INSTANCE: what it tells its callees in X-Caller

Each transition of a breaker is a line of TRUTH. pybreaker has listeners for that. `circuitbreaker` has none, so a subclass
watches its `_state`; it is half-open by the clock alone, and the line is written when the first call is let through.
"""
import json
import logging
import os
import signal
import sys
import threading
import time

import circuitbreaker
import pybreaker
import requests
from flask import Flask
from opentelemetry import trace
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
port, truth_path = int(sys.argv[1]), sys.argv[2]
app = Flask("checkout")
truth = open(truth_path, "a", buffering=1)
write = threading.Lock()
# The SDK gives every process an instance id of its own (a UUID); the truth has to use the same.
instance = trace.get_tracer_provider().resource.attributes["service.instance.id"]


def moved(name, before, after):
    line = json.dumps({"t_ns": time.time_ns(), "name": name, "from": before.replace("-", "_"), "to": after.replace("-", "_"),
                       "instance": instance, "callee": name, "service": "checkout"})
    with write:
        truth.write(line + "\n")


class Listener(pybreaker.CircuitBreakerListener):
    def state_change(self, cb, old_state, new_state):
        moved(cb.name, old_state.name, new_state.name)


class Watched(circuitbreaker.CircuitBreaker):
    """circuitbreaker.CircuitBreaker that tells of its transitions."""
    told, lock = "closed", threading.Lock()

    def tell(self, now):
        with self.lock:
            before, self.told = self.told, now
            if before != now:
                moved(self.name, before, now)

    def __enter__(self):
        if self.state == circuitbreaker.STATE_HALF_OPEN:
            self.tell("half_open")
        return super().__enter__()

    def __setattr__(self, key, value):
        super().__setattr__(key, value)
        if key == "_state":
            self.tell(value)


def call(method, base, path):
    response = requests.request(method, os.environ[base] + path, timeout=1, headers={"X-Caller": os.environ["INSTANCE"]})
    response.raise_for_status()
    return response.json()


def charge():
    return call("POST", "PAYMENTS", "/charges")


def reserve():
    return call("POST", "INVENTORY", "/reservations")


def ship(method="POST", path="/parcels"):
    return call(method, "SHIPPING", path)


if os.environ.get("BREAKERS") != "0":
    charge = Watched(failure_threshold=5, recovery_timeout=5, name="payments")(charge)
    reserve = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=5, name="inventory", listeners=[Listener()])(reserve)
    ship = pybreaker.CircuitBreaker(fail_max=4, reset_timeout=4, name="shipping", listeners=[Listener()])(ship)


@app.post("/order")
def order():
    try:
        reserve()
    except Exception as e:
        span = trace.get_current_span()
        span.record_exception(e)
        span.set_status(trace.StatusCode.ERROR, str(e))
        return {"error": "out of stock"}, 503
    charge()
    try:
        ship()
    except Exception:
        return {"order": "accepted", "shipping": "later"}
    return {"order": "accepted"}


@app.get("/delivery")
def delivery():
    try:
        return ship("GET", "/options")
    except Exception:
        return {"options": "standard"}


signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # sys.exit lets the SDK flush
make_server("127.0.0.1", port, app, threaded=True).serve_forever()
