"""Scores what `fuseboard replay` finds in the traces of the Nezha dataset (FSE 2023), in which faults were injected.

    git clone https://github.com/IntelligentDDS/Nezha && git -C Nezha checkout d8140101fdb4e7dfb60d3ef9f64706f382b68470
    cargo build --release && python3 benches/nezha.py target/release/fuseboard Nezha/rca_data/*

A day is a directory with `trace/*.csv` (one minute each, three minutes for each fault) and a list of faults. The
traces have no status, kind or attributes: a span with a child in another service counts as a call to that service.
A fault is found when an anomaly of a circuit that its service calls, or is called through, begins within 150 s of it.
"""

import collections
import csv
import datetime
import glob
import json
import os
import subprocess
import sys
import tempfile

WITHIN = 150
SECOND = 1_000_000_000


def service(pod):
    """`checkoutservice-578fcf4766-9csqn` is a pod of `checkoutservice`."""
    return pod.rsplit("-", 2)[0]


def calls(day):
    """The calls of a day, in the order of their ends: (start, end, pod, callee, trace, span)."""
    spans = {}
    for path in sorted(glob.glob(os.path.join(day, "trace", "*.csv"))):
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                spans[row["SpanID"]] = row
    callees = {}
    for row in spans.values():
        parent = spans.get(row["ParentID"])
        if parent and service(parent["PodName"]) != service(row["PodName"]):
            callees[row["ParentID"]] = service(row["PodName"])
    found = []
    for identifier, callee in callees.items():
        row = spans[identifier]
        start, end = int(row["StartTimeUnixNano"]), int(row["EndTimeUnixNano"])
        found.append((start, max(start, end), row["PodName"], callee, row["TraceID"], identifier))
    return sorted(found, key=lambda call: call[1])


def attribute(key, value):
    return {"key": key, "value": {"stringValue": value}}


def request(batch):
    """What an exporter sends each second, as OTLP/JSON."""
    pods = collections.defaultdict(list)
    for start, end, pod, callee, trace, span in batch:
        pods[pod].append({
            "traceId": trace, "spanId": span, "name": callee, "kind": 3,
            "startTimeUnixNano": str(start), "endTimeUnixNano": str(end),
            "attributes": [attribute("server.address", callee)],
        })
    return {"resourceSpans": [{
        "resource": {"attributes": [attribute("service.name", service(pod)), attribute("service.instance.id", pod)]},
        "scopeSpans": [{"scope": {"name": "nezha"}, "spans": spans}],
    } for pod, spans in pods.items()]}


def findings(fuseboard, day):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        batches = collections.defaultdict(list)
        for call in calls(day):
            batches[call[1] // SECOND].append(call)
        for second in sorted(batches):
            file.write(json.dumps(request(batches[second])) + "\n")
        file.flush()
        output = subprocess.run([fuseboard, "replay", file.name], check=True, capture_output=True, text=True).stdout
    lines = [json.loads(line) for line in output.splitlines()]
    begun = [line for line in lines if line.get("finding") == "anomaly" and line["phase"] == "begin"]
    return begun, set(batches)


def main():
    fuseboard, *days = sys.argv[1:]
    table = collections.defaultdict(lambda: [0, 0, 0, []])
    outside, minutes, lacking = 0, 0.0, 0
    for day in days:
        begun, seconds = findings(fuseboard, day)
        with open(glob.glob(os.path.join(day, "*fault_list.json"))[0]) as file:
            faults = [fault for hour in json.load(file).values() for fault in hour]
        inside = set()
        for fault in faults:
            # The list's `inject_timestamp` is eight hours off in 2023.
            at = int(datetime.datetime.fromisoformat(fault["inject_time"] + "+00:00").timestamp())
            window = range(at, at + WITHIN)
            inside.update(window)
            # Minutes may lack, where a copy of the dataset is not whole; and the load pauses at times.
            if any(seconds.isdisjoint(range(start, start + 50)) for start in range(at, at + WITHIN, 50)):
                lacking += 1
                continue
            row = table[os.path.basename(day.rstrip("/"))[:4], fault["inject_type"]]
            row[0] += 1
            told = [line for line in begun if line["time_unix_nano"] // SECOND in window]
            name = service(fault["inject_pod"])
            near = [line for line in told if name in line["circuit"].values()]
            if near:
                row[1] += 1
                row[3].append(min(line["time_unix_nano"] for line in near) / SECOND - at)
                row[2] += max(told, key=lambda line: line["score"]) in near
        outside += sum(line["time_unix_nano"] // SECOND not in inside for line in begun)
        minutes += len(seconds - inside) / 60
    print(f"{'system, fault':<36}{'faults':>8}{'found':>8}{'first by score':>16}{'median delay':>14}")
    for (year, kind), (number, found, first, delays) in sorted(table.items()):
        delay = f"{sorted(delays)[len(delays) // 2]:.0f} s" if delays else "-"
        system = {"2022": "Online Boutique", "2023": "Train Ticket"}.get(year, year)
        print(f"{system + ', ' + kind:<36}{number:>8}{found:>8}{first:>16}{delay:>14}")
    print(f"{outside} more anomalies begin in the {minutes:.0f} minutes outside; {lacking} faults left out: no traces of 50 s or more")


if __name__ == "__main__":
    main()
