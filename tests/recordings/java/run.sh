#!/bin/bash
# run.sh SCENARIO OUTDIR: records one scenario (named, silent, bulkhead, two; see Checkout.java) of Resilience4j in Spring MVC under the
# OpenTelemetry Java agent. $FUSEBOARD is the collector, $BASE the first of ten free ports. Needs Java 17, Maven, Node 20 and Python 3.
set -eu
scenario=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
base=${BASE:-23000}
instances=$([ "$scenario" = named ] || [ "$scenario" = silent ] && echo 2 || echo 1)
callees=$([ "$scenario" = named ] || [ "$scenario" = silent ] && echo payments inventory || echo payments)
cd "$(dirname "$0")"
[ -d node_modules ] || npm ci --no-audit --no-fund
[ -f target/checkout.jar ] || mvn -q -B package
raw=$(mktemp -d)
pids=() collector=
finish() { kill "${pids[@]}" 2>/dev/null || true; wait "${pids[@]}" || true; }
trap 'pids+=($collector); finish' EXIT

cat > "$raw/collect.yaml" <<EOF
receivers:
  otlp:
    protocols:
      grpc: { endpoint: "127.0.0.1:$base" }
      http: { endpoint: "127.0.0.1:$((base + 1))" }
exporters:
  file: { path: "$raw/spans.jsonl" }
service:
  pipelines:
    traces: { receivers: [otlp], exporters: [file] }
EOF
"$FUSEBOARD" --config "$raw/collect.yaml" > "$raw/collector.log" 2>&1 &
collector=$!
export OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:$((base + 1)) OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf
export OTEL_BSP_SCHEDULE_DELAY=500 OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none SCENARIO=$scenario

ports=
for i in $(seq $instances); do
  ports="$ports $((base + 2 + i))"
  OTEL_SERVICE_NAME=checkout OTEL_RESOURCE_ATTRIBUTES=service.instance.id=checkout-$i \
    SPRING_PROFILES_ACTIVE=$scenario SERVER_PORT=$((base + 2 + i)) TRUTH_FILE=$raw/truth-$i.jsonl TRUTH_INSTANCE=checkout-$i \
    PAYMENTS_URL=http://127.0.0.1:$((base + 5)) INVENTORY_URL=http://127.0.0.1:$((base + 6)) \
    java -javaagent:target/agent.jar -Xmx200m -XX:TieredStopAtLevel=1 -jar target/checkout.jar > "$raw/checkout-$i.log" 2>&1 &
  pids+=($!)
done
for port in $ports; do
  for _ in $(seq 90); do curl -sf -o /dev/null "http://127.0.0.1:$port/health" && break || sleep 1; done
done

export START=$(($(date +%s) * 1000 + 2000))
port=$((base + 4))
for callee in $callees; do
  port=$((port + 1))
  OTEL_SERVICE_NAME=$callee OTEL_NODE_ENABLED_INSTRUMENTATIONS=http OTEL_NODE_RESOURCE_DETECTORS=env,serviceinstance SERVICE=$callee PORT=$port \
    node --require @opentelemetry/auto-instrumentations-node/register callee.js > "$raw/$callee.log" 2>&1 &
  pids+=($!)
done
sleep 4
echo "$scenario: recording in $raw"
PORTS="${ports# }" node load.js | tee "$raw/load.log"
sleep 6
finish
pids=("$collector")
finish
trap - EXIT

gzip -9nc "$raw/spans.jsonl" > "$out/java-$scenario.jsonl.gz"
python3 - "$raw" > "$out/truth-java-$scenario.jsonl" <<'EOF'
# Joins the instances' truths; half-open by timer is "unseen" where no call went through within a second and before the next transition.
import glob, json, sys
lines = []
for file in glob.glob(sys.argv[1] + "/truth-*.jsonl"):
    calls = [json.loads(x) for x in open(file + ".calls")]
    mine = [json.loads(x) for x in open(file)]
    for i, d in enumerate(mine):
        until = next((e["t_ns"] for e in mine[i + 1:] if e["name"] == d["name"]), 1 << 63)
        if d["to"] == "half_open" and not any(c["name"] == d["name"] and d["t_ns"] - 2e7 <= c["start_ns"] < min(until, d["t_ns"] + 1e9) for c in calls):
            d["unseen"] = True
        lines.append(d)
for d in sorted(lines, key=lambda d: d["t_ns"]):
    print(json.dumps(d))
EOF
wc -l "$out/truth-java-$scenario.jsonl"
ls -l "$out/java-$scenario.jsonl.gz"
