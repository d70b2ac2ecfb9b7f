#!/usr/bin/env bash
# Starts the services of an image's root file system as a container engine would: root directory
# changed to it and mounted read-only, not as root, without capabilities; then generates text.
# usage: try_root.sh [FOLDER]    (what build_root.sh left; needs root)
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(realpath "${1:-build/image-cpu}")
exec unshare --mount --pid --fork --kill-child bash -euo pipefail -s -- "$folder" "$PWD/models" <<'INNER'
root=$1/root
mount --bind "$root" "$root"
mount --bind "$2" "$root/models"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root/models"
mount -o remount,bind,ro "$root"
# A change of user drops all capabilities.
run=(chroot --userspec=65532:65532 --groups= "$root")
if touch "$root/written" 2>/dev/null; then echo "the root is not read-only" >&2; exit 1; fi
logs=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$logs"' EXIT
listening() { # NAME: waits for the address it says it listens on
  for _ in $(seq 300); do
    if [ -s "$logs/$1" ]; then
      sed -nE '1s/.*"address":"([^"]*)".*/\1/p' "$logs/$1"
      return
    fi
    sleep 0.1
  done
  cat "$logs/$1.err" >&2
  return 1
}
start() { # NAME PROGRAM FLAG…
  local name=$1 program=$2
  shift 2
  "${run[@]}" "/usr/bin/$program" --metrics 127.0.0.1:0 --listen 127.0.0.1:0 "$@" \
    >"$logs/$name" 2>"$logs/$name.err" &
}
start coordinator sauva-coordinator --model /models/prose --expect-workers 2
coordinator=$(listening coordinator)
for i in 0 1; do
  start "worker$i" sauva-worker --model /models/prose --memory 256MiB --threads 1 \
    --coordinator "$coordinator" --worker-id "w$i"
done
start gateway sauva-gateway --coordinator "$coordinator"
gateway=$(listening gateway)
for process in $(jobs -p); do
  grep -qE '^Uid:\s+65532\s+65532' "$root/proc/$process/status"
  grep -qE '^CapEff:\s+0+$' "$root/proc/$process/status"
done
text=$("${run[@]}" /usr/bin/sauva generate --gateway "$gateway" --seed 1 --max-tokens 24 "The old prince")
echo "generated in the image's root: $text"
[ -n "$text" ]
kill $(jobs -p)
code=0
for process in $(jobs -p); do wait "$process" || code=$?; done
[ "$code" -eq 0 ] || { cat "$logs"/*.err >&2; exit "$code"; }
echo "all services drained with exit code 0"
INNER
