#!/usr/bin/env bash
# What a CUDA machine must show, in under 9 minutes, with one table last.
#   run_on_device.sh pack FILE.tar.gz   here: after the preset `cuda` is built
#   run_on_device.sh run                there: in the unpacked folder; needs a driver only
#   run_on_device.sh rehearse           in the unpacked folder without a GPU: the same run with
#                                       workers on the CPU; device tests must skip
# The pack holds stripped binaries with the libraries they need, the op tests and the demo
# model, 64 MiB at most. The run writes its log to run.log and leaves nothing running.
# `run` was never run: no machine with a GPU was at hand.
set -euo pipefail

readonly MOST_BYTES=$((64 << 20))
readonly BINARIES=(sauva sauva-coordinator sauva-gateway sauva-worker)
readonly TESTS=(cuda_device_backend_equality_test cuda_device_quantized_equality_test
  cuda_device_attention_test cuda_device_sampler_equality_test)

pack() {
  local out root folder
  out=$(realpath -m "$1")
  root=$(cd "$(dirname "$0")/../.." && pwd)
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  mkdir -p "$folder/bin" "$folder/tests" "$folder/lib" "$folder/models"
  local name
  for name in "${BINARIES[@]}"; do strip -o "$folder/bin/$name" "$root/build/cuda/bin/$name"; done
  for name in "${TESTS[@]}"; do strip -o "$folder/tests/$name" "$root/build/cuda/tests/$name"; done
  # All but the C library, which comes with the machine's loader.
  ldd "$folder"/bin/* "$folder"/tests/* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|libpthread|librt|ld-linux[^/]*)\.so' |
    xargs -I{} cp -L {} "$folder/lib/"
  cp -r "$root/models/prose" "$folder/models/"
  cp "$0" "$folder/run_on_device.sh"
  git -C "$root" rev-parse HEAD >"$folder/commit"
  tar -C "$folder" -czf "$out" .
  local bytes
  bytes=$(stat -c %s "$out")
  echo "$out: $bytes bytes"
  [ "$bytes" -le "$MOST_BYTES" ] || { echo "more than $MOST_BYTES bytes" >&2; exit 1; }
}

TABLE=()
row() { TABLE+=("| $1 | $2 | $3 |"); }

# check NAME SECONDS COMMAND…: runs it, logs it, adds a row.
check() {
  local name=$1 limit=$2 begin=$SECONDS result=passed
  shift 2
  echo "=== $name: $*"
  timeout "$limit" "$@" || result="FAILED ($?)"
  row "$name" "$result" "$((SECONDS - begin)) s"
}

# generate OPTION…: the token ids of ten prompts, one line each, through a cluster that is up.
generate() {
  local i
  for i in 0 1 2 3 4 5 6 7 8 9; do
    bin/sauva generate --gateway "$GATEWAY" --json --max-tokens 64 --temperature 0 \
      "Once upon a time there were $i" | sed -E 's/.*"token_ids":(\[[^]]*\]).*/\1/'
  done
}

# answers FILE UP_OPTION…: starts a cluster, writes what it generates to FILE, stops it.
answers() {
  local out=$1 pid code=0
  shift
  "${SAUVA:-bin/sauva}" up --model models/prose --json --grpc 127.0.0.1:0 --http 127.0.0.1:0 \
    --coordinator 127.0.0.1:0 "$@" >up.json 2>up.err &
  pid=$!
  for _ in $(seq 600); do
    GATEWAY=$(sed -nE 's/.*"event":"ready","grpc":"([^"]*)".*/\1/p' up.json)
    [ -z "$GATEWAY" ] || break
    kill -0 "$pid" 2>/dev/null || { cat up.err; return 1; }
    sleep 0.1
  done
  [ -n "$GATEWAY" ] || { kill "$pid"; cat up.err; return 1; }
  generate >"$out" || code=$?
  kill -TERM "$pid"
  wait "$pid" || true
  return "$code"
}

# Passes when a test ends as one that is skipped does.
skips() {
  local code=0
  "$@" || code=$?
  [ "$code" -eq 77 ]
}

same_answers() {
  answers cpu.txt --stages 2 && answers gpu.txt --stages 2 "$@" && cmp cpu.txt gpu.txt
}

# The libnccl.so.2 of the system, or else of a Python wheel (PyTorch brings one).
find_nccl() {
  ldconfig -p 2>/dev/null | awk '$1 == "libnccl.so.2" { print $NF; found = 1; exit } END { exit !found }' ||
    python3 - <<'END'
import glob, sys
found = [f for p in sys.path for f in glob.glob(p + "/nvidia/nccl/lib/libnccl.so.2")]
print(found[0] if found else "")
END
}

# A folder whose worker gives each process a host id of its own: NCCL then lets two share a GPU.
make_hosts_apart() {
  mkdir -p apart
  cp bin/sauva bin/sauva-coordinator bin/sauva-gateway apart/
  printf '#!/bin/sh\nNCCL_HOSTID=$$ exec "%s/bin/sauva-worker" "$@"\n' "$PWD" >apart/sauva-worker
  chmod +x apart/sauva-worker
}

check_nccl() {
  local name="the same, f32, NCCL on one GPU" nccl
  nccl=$(find_nccl || true)
  if [ "$1" = rehearse ] || [ -z "$nccl" ]; then
    row "$name" "never run: no GPU, or no libnccl.so.2 (found: ${nccl:-none})" "-"
    return
  fi
  make_hosts_apart
  SAUVA=apart/sauva check "$name ($nccl)" 90 bash -euo pipefail -c 'same_answers "$@"' _ \
    "${two[@]}" --link nccl --nccl-library "$nccl"
}

run() {
  cd "$(dirname "$0")"
  export LD_LIBRARY_PATH=$PWD/lib
  export -f answers generate same_answers skips
  exec > >(tee run.log) 2>&1
  local name sanitizer
  local two=(--worker cuda:0:2GiB --worker cuda:0:2GiB)
  if [ "$1" = rehearse ]; then
    two=(--worker cpu:2GiB --worker cpu:2GiB)
    for name in "${TESTS[@]}"; do
      check "$name skips" 30 bash -euo pipefail -c 'skips "$@"' _ "tests/$name"
    done
  else
    nvidia-smi || { echo "no NVIDIA driver here" >&2; exit 1; }
    for name in "${TESTS[@]}"; do check "$name" 120 "tests/$name"; done
  fi
  sanitizer=$(command -v compute-sanitizer || true)
  if [ "$1" = run ] && [ -n "$sanitizer" ]; then
    for name in memcheck racecheck; do
      check "compute-sanitizer $name" 90 "$sanitizer" --tool "$name" --error-exitcode 9 \
        tests/cuda_device_backend_equality_test --gtest_filter='*RopeOf*:*Activations*:*OneWeight*'
    done
  else
    row "compute-sanitizer" "never run: no GPU or no such program on this machine" "-"
  fi
  check "10 x 64 greedy tokens as on the CPU, 2 workers, gRPC" 90 bash -euo pipefail -c \
    'same_answers "$@"' _ "${two[@]}"
  check "the same, no step graphs" 60 bash -euo pipefail -c \
    'same_answers "$@"' _ "${two[@]}" --cuda-graphs off
  check "the same, int8" 60 bash -euo pipefail -c \
    'answers cpu.txt --stages 2 --weights int8 && answers gpu.txt --stages 2 --weights int8 "$@" &&
     cmp cpu.txt gpu.txt' _ "${two[@]}"
  check_nccl "$1"
  row "bandwidth of each matmul" "never run: no benchmark yet" "-"
  echo
  echo "commit $(cat commit), $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader ||
    echo rehearsed without a GPU)"
  echo "| check | result | time |"
  echo "|---|---|---|"
  printf '%s\n' "${TABLE[@]}"
  ! printf '%s\n' "${TABLE[@]}" | grep -q FAILED
}

case "${1:-}" in
  pack) pack "${2:?usage: run_on_device.sh pack FILE.tar.gz}" ;;
  run | rehearse) run "$1" ;;
  *) echo "usage: run_on_device.sh pack FILE.tar.gz | run | rehearse" >&2; exit 2 ;;
esac
