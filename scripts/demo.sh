#!/usr/bin/env bash
# Installs what is missing, builds the services, starts a cluster of real processes with
# the demo model cut in two, streams a continuation of PROMPT and stops it all again.
# Usage: demo.sh [PROMPT]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
prompt=${1:-"It was a cold evening in December, and the prince"}

scripts/setup.sh
configure_and_build release sauva sauva-gateway sauva-coordinator sauva-worker
bin=build/release/bin

out=$(mktemp)
up=
stop() {
  [ -z "$up" ] || kill "$up" 2>/dev/null || true
  rm -f "$out"
}
trap stop EXIT

echo "starting a cluster with two workers …"
"$bin/sauva" up --model models/prose --workers 2 --stages 2 \
  --grpc 127.0.0.1:0 --http 127.0.0.1:0 --coordinator 127.0.0.1:0 >"$out" &
up=$!
until grep -q '^ready' "$out"; do
  kill -0 "$up" 2>/dev/null || { echo "demo.sh: the cluster did not start" >&2; exit 1; }
  sleep 0.1
done
cat "$out"
gateway=$(sed -nE 's/^ready: gRPC ([^,]+), .*/\1/p' "$out")
coordinator=$(sed -nE 's/^ready: .*coordinator (.+)$/\1/p' "$out")

echo
echo "> $prompt"
"$bin/sauva" generate --gateway "$gateway" --max-tokens 120 --temperature 0.7 --seed 7 "$prompt"
echo
"$bin/sauva" status --coordinator "$coordinator"

kill -TERM "$up"
wait "$up"
up=
echo "the cluster has stopped"
