#!/usr/bin/env bash
# run.sh SCENARIO OUTDIR: records a scenario of scenarios/ with real processes on loopback. Needs Go.
# $FUSEBOARD is the collector's binary, $PORT the first of twenty ports (22000).
# Leaves OUTDIR/SCENARIO.jsonl.gz, the spans, and OUTDIR/truth-SCENARIO.jsonl, the breakers' own log.
set -euo pipefail
: "${FUSEBOARD:?the path of the collector}" "${2:?usage: run.sh SCENARIO OUTDIR}"
name=$1 out=$(realpath -m "$2") port=${PORT:-22000}
cd "$(dirname "$0")"

instances=1 rates=(7) mix="POST /order=1" flags=() inventory=1 delay=500 named=1
case $name in
  go-instances)   instances=3 rates=(7 7 7) mix="POST /order=5,GET /quote=2" ;;
  go-beside)      rates=(10) mix="GET /status=3,POST /order=1" inventory=0 delay=5000 named=0 ;;
  go-low)         instances=3 rates=(0.35 0.6 1) inventory=0 flags=(-open 22s -failures 3 -probes 2) ;;
  go-silent-half) rates=(8) mix="GET /quote=1" inventory=0 flags=(-cache 0.5) ;;
  *) echo "no such scenario: $name" >&2; exit 2 ;;
esac

mkdir -p "$out/raw"
rm -f "$out/raw/$name.jsonl" "$out/truth-$name.jsonl"
go build -o bin/ ./checkout ./callee ./load

export OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:$((port + 1)) OTEL_BSP_SCHEDULE_DELAY=$delay
pids=()
stop() { for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done; wait "${pids[@]}" 2>/dev/null || true; }

GRPC_PORT=$port HTTP_PORT=$((port + 1)) OUT=$out/raw/$name.jsonl "$FUSEBOARD" --config collect.yaml 2>"$out/raw/$name.log" &
collector=$!
trap 'stop; kill $collector 2>/dev/null || true' EXIT
sleep 1

admins="payments=http://127.0.0.1:$((port + 11))"
OTEL_SERVICE_NAME=payments bin/callee -addr "127.0.0.1:$((port + 10))" -admin "127.0.0.1:$((port + 11))" & pids+=($!)
flags+=(-payments "http://127.0.0.1:$((port + 10))")
if [ "$inventory" = 1 ]; then
  OTEL_SERVICE_NAME=inventory bin/callee -addr "127.0.0.1:$((port + 12))" -admin "127.0.0.1:$((port + 13))" & pids+=($!)
  flags+=(-inventory "http://127.0.0.1:$((port + 12))")
  admins+=",inventory=http://127.0.0.1:$((port + 13))"
fi
targets=()
for i in $(seq "$instances"); do
  id=checkout-$i
  [ "$named" = 1 ] || id=
  OTEL_SERVICE_NAME=checkout OTEL_RESOURCE_ATTRIBUTES=${id:+service.instance.id=$id} bin/checkout \
    -addr "127.0.0.1:$((port + 2 + i))" -instance "$id" -truth "$out/truth-$name.jsonl" "${flags[@]}" & pids+=($!)
  targets+=("http://127.0.0.1:$((port + 2 + i))=${rates[i - 1]}")
done
sleep 1
bin/load -phases "scenarios/$name.txt" -mix "$mix" -admin "$admins" "${targets[@]}"
sleep 2
stop
sleep 1
kill $collector
wait $collector || true
trap - EXIT
gzip -9 -c "$out/raw/$name.jsonl" >"$out/$name.jsonl.gz"
