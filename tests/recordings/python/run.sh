#!/usr/bin/env bash
# run.sh SCENARIO OUTDIR: records a scenario of scenarios/ with real processes on loopback. Needs a Python environment with
# requirements.txt installed, its bin/ in front of PATH.
# $FUSEBOARD is the collector's binary, $PORT the first of twenty ports (22400).
# Leaves OUTDIR/SCENARIO.jsonl.gz, the spans, and OUTDIR/truth-SCENARIO.jsonl, the breakers' own log.
set -euo pipefail
: "${FUSEBOARD:?the path of the collector}" "${2:?usage: run.sh SCENARIO OUTDIR}"
name=$1 out=$(realpath -m "$2") port=${PORT:-22400}
cd "$(dirname "$0")"

case $name in
  python-threads) instances=2 rate=7 mix="POST /order=5,GET /delivery=2" breakers=1 ;;
  python-healthy) instances=1 rate=5 mix="POST /order=1,GET /delivery=2" breakers=0 ;;
  *) echo "no such scenario: $name" >&2; exit 2 ;;
esac

mkdir -p "$out/raw"
rm -f "$out/raw/$name.jsonl"
: >"$out/truth-$name.jsonl"
export OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:$((port + 1)) OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf
export OTEL_BSP_SCHEDULE_DELAY=500 OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none BREAKERS=$breakers
pids=()
stop() { for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done; wait "${pids[@]}" 2>/dev/null || true; }
instrumented() { OTEL_SERVICE_NAME=$1 opentelemetry-instrument python3 "${@:2}" & pids+=($!); }

GRPC_PORT=$port HTTP_PORT=$((port + 1)) OUT=$out/raw/$name.jsonl "$FUSEBOARD" --config collect.yaml 2>"$out/raw/$name.log" &
collector=$!
trap 'stop; kill $collector 2>/dev/null || true' EXIT
sleep 1

p=$((port + 10)) admins=
for callee in payments inventory shipping; do
  instrumented $callee callee.py $p $((p + 1))
  export ${callee^^}=http://127.0.0.1:$p
  admins+=${admins:+,}$callee=http://127.0.0.1:$((p + 1))
  p=$((p + 2))
done
targets=()
for i in $(seq $instances); do
  INSTANCE=checkout-$i instrumented checkout checkout.py $((port + 2 + i)) "$out/truth-$name.jsonl"
  targets+=("http://127.0.0.1:$((port + 2 + i))")
done
sleep 6
python3 load.py "scenarios/$name.txt" "$admins" $rate "$mix" "${targets[@]}"
sleep 3
stop
sleep 1
kill $collector
wait $collector || true
trap - EXIT
gzip -9 -c "$out/raw/$name.jsonl" >"$out/$name.jsonl.gz"
