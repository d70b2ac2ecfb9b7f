#!/usr/bin/env bash
# What a CUDA machine must show, in under 9 minutes, with one table last.
#   run_on_device.sh pack FILE.tar.gz   here: after the preset `cuda` is built
#   run_on_device.sh run                there: in the unpacked folder; needs a driver only
# The pack holds stripped binaries with the libraries they need, the op tests and the demo
# model, 64 MiB at most. The run writes its log to run.log and leaves nothing running.
# Never run so far: no machine with a GPU was at hand.
set -euo pipefail

readonly MOST_BYTES=$((64 << 20))
readonly BINARIES=(sauva sauva-coordinator sauva-gateway sauva-worker)
readonly TESTS=(cuda_device_backend_equality_test cuda_device_quantized_equality_test
  cuda_device_attention_test)

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
  bin/sauva up --model models/prose --json --grpc 127.0.0.1:0 --http 127.0.0.1:0 \
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

same_answers() {
  answers cpu.txt --stages 2 && answers gpu.txt --stages 2 "$@" && cmp cpu.txt gpu.txt
}

run() {
  cd "$(dirname "$0")"
  export LD_LIBRARY_PATH=$PWD/lib
  export -f answers generate same_answers
  exec > >(tee run.log) 2>&1
  nvidia-smi || { echo "no NVIDIA driver here" >&2; exit 1; }
  local name sanitizer
  for name in "${TESTS[@]}"; do check "$name" 120 "tests/$name"; done
  sanitizer=$(command -v compute-sanitizer || true)
  if [ -n "$sanitizer" ]; then
    for name in memcheck racecheck; do
      check "compute-sanitizer $name" 90 "$sanitizer" --tool "$name" --error-exitcode 9 \
        tests/cuda_device_backend_equality_test --gtest_filter='*RopeOf*:*Activations*:*OneWeight*'
    done
  else
    row "compute-sanitizer" "never run: not on this machine" "-"
  fi
  local two=(--worker cuda:0:2GiB --worker cuda:0:2GiB)
  check "10 x 64 greedy tokens as on the CPU, 2 workers, gRPC" 90 bash -euo pipefail -c \
    'same_answers "$@"' _ "${two[@]}"
  check "the same, int8" 60 bash -euo pipefail -c \
    'answers cpu.txt --stages 2 --weights int8 && answers gpu.txt --stages 2 --weights int8 "$@" &&
     cmp cpu.txt gpu.txt' _ "${two[@]}"
  row "2 workers, NCCL" "never run: the link is not wired into the worker" "-"
  row "bandwidth of each matmul" "never run: no benchmark yet" "-"
  echo
  echo "commit $(cat commit), $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader)"
  echo "| check | result | time |"
  echo "|---|---|---|"
  printf '%s\n' "${TABLE[@]}"
  ! printf '%s\n' "${TABLE[@]}" | grep -q FAILED
}

case "${1:-}" in
  pack) pack "${2:?usage: run_on_device.sh pack FILE.tar.gz}" ;;
  run) run ;;
  *) echo "usage: run_on_device.sh pack FILE.tar.gz | run" >&2; exit 2 ;;
esac
