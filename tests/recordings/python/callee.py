"""A callee (`payments`, `inventory`, `shipping`): a Flask service, run under opentelemetry-instrument, whose faults are set on
a second, uninstrumented port.

    callee.py PORT ADMIN_PORT
    PUT /?mode=MODE[&for=INSTANCE] on the admin port, where MODE is one of
      ok        answers 200 after some 3 to 25 ms (the default)
      500, 503  answers that status
      reset     closes the connection without an answer
      hang      answers after 3 s, later than the caller waits
      busy      answers 200 after 50 to 120 ms
      slow      answers 200 after 250 to 450 ms
      down      does not listen at all (for all instances)
    `for` limits the mode to callers whose X-Caller header is INSTANCE.
"""
import http.server
import logging
import random
import signal
import socket
import sys
import threading
import time
import urllib.parse

from flask import Flask, request
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
port, admin_port = int(sys.argv[1]), int(sys.argv[2])
app = Flask("callee")
modes, server = {"": "ok"}, None
PAUSES = {"busy": (0.05, 0.12), "slow": (0.25, 0.45), "hang": (3, 3.5)}


@app.route("/charges", methods=["POST"])
@app.route("/reservations", methods=["POST"])
@app.route("/parcels", methods=["POST"])
@app.get("/options")
def serve():
    mode = modes.get(request.headers.get("X-Caller"), modes[""])
    time.sleep(random.uniform(*PAUSES.get(mode, (0.003, 0.025))))
    if mode in ("500", "503"):
        return {"error": "database unavailable"}, int(mode)
    if mode == "reset":
        request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return {"ok": True}


def listen():
    global server
    server = make_server("127.0.0.1", port, app, threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()


class Admin(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        global server
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlparse(self.path).query))
        mode, caller = query["mode"], query.get("for", "")
        if mode == "down" and server:
            server.shutdown()
            server.server_close()
            server = None
        elif mode != "down" and not server:
            listen()
        modes[caller] = mode
        if caller and mode == "ok":
            del modes[caller]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # sys.exit lets the SDK flush
listen()
http.server.HTTPServer(("127.0.0.1", admin_port), Admin).serve_forever(0.2)
