"""The load: requests with exponential gaps, and the faults of a scenario at their times. Not instrumented.

    load.py PHASES ADMIN_URLS RATE MIX URL...      e.g. payments=http://…,inventory=http://… 7 "POST /order=5,GET /delivery=2"

A line of PHASES is `SECONDS CALLEE MODE [INSTANCE]`, `SECONDS rate FACTOR` or `SECONDS end`; # begins a comment.
"""
import os
import random
import sys
import threading
import time
import urllib.error
import urllib.request

phases, admins, rate, mix = sys.argv[1:5]
factor = 1.0


def pairs(text):
    return [pair.rsplit("=", 1) for pair in text.split(",")]


def send(method, url):
    try:
        urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=20).read()
    except urllib.error.HTTPError:
        pass
    except OSError as e:
        print(method, url, e, file=sys.stderr)


def drive(base):
    requests, weights = zip(*((what.split(" "), float(weight)) for what, weight in pairs(mix)))
    due = time.monotonic()
    while True:
        if factor <= 0:
            time.sleep(0.1)
            due = time.monotonic()
            continue
        due += random.expovariate(float(rate) * factor)
        time.sleep(max(0, due - time.monotonic()))
        [(method, path)] = random.choices(requests, weights)
        threading.Thread(target=send, args=(method, base + path), daemon=True).start()


for base in sys.argv[5:]:
    threading.Thread(target=drive, args=(base,), daemon=True).start()
admin, begin = dict(pairs(admins)), time.monotonic()
for line in open(phases):
    words = line.split("#")[0].split()
    if not words:
        continue
    time.sleep(max(0, begin + float(words[0]) - time.monotonic()))
    if words[1] == "end":
        os._exit(0)
    elif words[1] == "rate":
        factor = float(words[2])
    else:
        send("PUT", f"{admin[words[1]]}/?mode={words[2]}" + (f"&for={words[3]}" if len(words) > 3 else ""))
