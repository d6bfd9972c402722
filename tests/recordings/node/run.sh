#!/bin/bash
# run.sh SCENARIO OUTDIR: records one scenario of scenarios.json (see the head of its checkout-*.js) to OUTDIR/SCENARIO.jsonl.gz and
# OUTDIR/truth-SCENARIO.jsonl. $FUSEBOARD is the collector, $BASE the first of five free ports. Needs Node 20.
set -eu
scenario=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
base=${BASE:-21000}
cd "$(dirname "$0")"
[ -d node_modules ] || npm ci --no-audit --no-fund
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
export OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:$((base + 1)) OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf OTEL_BSP_SCHEDULE_DELAY=500
export OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none OTEL_NODE_RESOURCE_DETECTORS=env
export SCENARIO=$scenario START=$(($(date +%s) * 1000 + 10000)) TRUTH=$raw/truth.jsonl INSTANCE=checkout-1
export PAYMENTS=http://127.0.0.1:$((base + 3)) INVENTORY=http://127.0.0.1:$((base + 4))
kind=${scenario#node-} sample=
case $kind in sampled*) sample=0.$((${kind#sampled} / 10)) kind=sampled ;; esac

app() { # SERVICE PORT FILE
  OTEL_SERVICE_NAME=$1 OTEL_RESOURCE_ATTRIBUTES=service.instance.id=$1-1 SERVICE=$1 PORT=$2 SAMPLE=$sample \
    node --require ./tracing.js "$3" > "$raw/$1.log" 2>&1 &
  pids+=($!)
}
: > "$TRUTH"
app payments $((base + 3)) callee.js
app inventory $((base + 4)) callee.js
app checkout $((base + 2)) "checkout-$kind.js"
sleep 9
echo "$scenario: recording in $raw"
PORT=$((base + 2)) node load.js | tee "$raw/load.log"
sleep 6
finish
pids=("$collector")
finish
trap - EXIT

sed "s#$PWD#/app#g" "$raw/spans.jsonl" | gzip -9n > "$out/$scenario.jsonl.gz"
node unseen.js "$raw/spans.jsonl" "$TRUTH" > "$out/truth-$scenario.jsonl"
wc -l "$out/truth-$scenario.jsonl"
ls -l "$out/$scenario.jsonl.gz"
