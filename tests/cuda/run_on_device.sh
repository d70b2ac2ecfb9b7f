#!/usr/bin/env bash
# What a CUDA machine must show, in under 9 minutes, with one table last.
#   run_on_device.sh pack FILE.tar.gz   here: after the preset `cuda` is built
#   run_on_device.sh run                there: in the unpacked folder; needs a driver only
#   run_on_device.sh rehearse           in the unpacked folder without a GPU: the same steps on
#                                       the CPU; what needs a device must say that there is none
# The pack holds stripped binaries with the libraries they need, also the C library for machines
# whose own is older, the op tests, the demo model and the shape of one of 7 billion parameters:
# 64 MiB at most. A step that fails or runs out of time is a row of the table; the others go on.
# The log is run.log, which is also copied to $OUT where that is set; nothing is left running.
# `run` was never run: no machine with a GPU was at hand.
set -euo pipefail

readonly MOST_BYTES=$((64 << 20))
readonly MOST_SECONDS=525 # of all steps together
readonly LAYERS=${LAYERS:-8} # of the 7B shape; all 32 take too long to quantize
readonly BINARIES=(sauva sauva-coordinator sauva-gateway sauva-worker)
readonly TEST=cuda_device_test
readonly OP_TESTS=(BackendEquality QuantizedEquality Attention SamplerEquality FastMatMul)
readonly C_LIBRARY='/(libc|libm|libdl|libpthread|librt|libresolv|ld-linux[^/]*)\.so'

# libraries FILE…: the paths of the shared libraries they need.
libraries() {
  ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\/.*ld-linux/ { print $1 }' | sort -u
}

pack() {
  local out root folder name bytes
  out=$(realpath -m "$1")
  root=$(cd "$(dirname "$0")/../.." && pwd)
  folder=$(mktemp -d)
  # shellcheck disable=SC2064  # the folder's name of now
  trap "rm -rf '$folder'" EXIT
  mkdir -p "$folder"/{bin,lib,libc,models/7b}
  for name in "${BINARIES[@]}"; do strip -o "$folder/bin/$name" "$root/build/cuda/bin/$name"; done
  strip -o "$folder/bin/$TEST" "$root/build/cuda/tests/$TEST"
  libraries "$folder"/bin/* | grep -vE "$C_LIBRARY" |
    xargs -I{} cp -L {} "$folder/lib/"
  libraries "$folder"/bin/* | grep -E "$C_LIBRARY" |
    xargs -I{} cp -L {} "$folder/libc/"
  strip --strip-unneeded "$folder"/lib/*
  cp -r "$root/models/prose" "$folder/models/"
  cat >"$folder/models/7b/config.json" <<END
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
 "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": $LAYERS,
 "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
 "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": false,
 "vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float16"}
END
  cp "$0" "$root/tests/cuda/torch_peer.py" "$folder/"
  git -C "$root" rev-parse HEAD >"$folder/commit"
  tar -C "$folder" -czf "$out" .
  bytes=$(stat -c %s "$out")
  echo "$out: $bytes bytes, at most $MOST_BYTES"
  [ "$bytes" -le "$MOST_BYTES" ] || { echo "the pack is too large" >&2; exit 1; }
}

TABLE=()
row() { TABLE+=("| $1 | $2 | $3 |"); }

# check NAME SECONDS COMMAND…: runs it, logs it, adds a row. The command and what it started are
# ended when the step's time or that of all steps is over.
check() {
  local name=$1 limit=$2 begin=$SECONDS left=$((MOST_SECONDS - SECONDS)) code=0
  shift 2
  [ "$limit" -le "$left" ] || limit=$left
  if [ "$limit" -lt 5 ]; then
    row "$name" "never run: no time left" "-"
    return
  fi
  echo "=== $name: $*"
  timeout --kill-after=10 "$limit" "$@" </dev/null || code=$?
  case $code in
    0) row "$name" passed "$((SECONDS - begin)) s" ;;
    124 | 137) row "$name" "FAILED: not done in $limit s" "$((SECONDS - begin)) s" ;;
    *) row "$name" "FAILED ($code)" "$((SECONDS - begin)) s" ;;
  esac
}

# measure NAME SECONDS PATTERN COMMAND…: the same, and a row for each line of its output that
# matches.
measure() {
  local name=$1 limit=$2 pattern=$3 line
  shift 3
  check "$name" "$limit" bash -c 'set -o pipefail; "$@" 2>&1 | tee measured.txt' _ "$@"
  while IFS= read -r line; do row "$name" "$line" ""; done < <(grep -E "$pattern" measured.txt || true)
  : >measured.txt
}

# Makes the folder STAGE, from which `sauva up` starts its services, and sets OURS, what the
# programs of the pack are called with, and STAGED, the same for those in STAGE. Each worker is a
# host of its own for NCCL: two may then share a GPU.
prepare() {
  local name libc=$PWD/libc
  local path="$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  OURS=(env "LD_LIBRARY_PATH=$path")
  STAGED=("${OURS[@]}")
  STAGE=$PWD/stage
  mkdir -p stage
  if "${OURS[@]}" bin/sauva --help >/dev/null 2>native.txt; then
    for name in "${BINARIES[@]}"; do ln -f "bin/$name" "stage/$name"; done
    printf '#!/bin/sh\nNCCL_HOSTID=$$ exec "%s/bin/sauva-worker" "$@"\n' "$PWD" >stage/worker
  else
    # The machine's C library is older: ours is loaded by its own loader, beside which a program
    # then looks for the others.
    cat native.txt
    OURS=("$libc/ld-linux-x86-64.so.2" --library-path "$libc:$path")
    STAGED=() # they call the loader themselves
    STAGE=$libc
    for name in "${BINARIES[@]}"; do
      printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s/bin/%s" "$@"\n' \
        "$libc/ld-linux-x86-64.so.2" "$libc:$path" "$PWD" "$name" >"$STAGE/$name"
      chmod +x "$STAGE/$name"
    done
    sed 's/^exec/NCCL_HOSTID=$$ exec/' "$STAGE/sauva-worker" >stage/worker
  fi
  rm -f "$STAGE/sauva-worker"
  mv stage/worker "$STAGE/sauva-worker"
  chmod +x "$STAGE/sauva-worker"
  SAUVA=(${STAGED[@]+"${STAGED[@]}"} "$STAGE/sauva")
}

# answers FILE UP_OPTION…: starts a cluster, writes the token ids of ten prompts to FILE, one line
# each, and stops it.
answers() {
  local out=$1 pid code=0 gateway="" i
  shift
  : >up.json # or the line of the cluster before is read
  "${SAUVA[@]}" up --model models/prose --json --grpc 127.0.0.1:0 --http 127.0.0.1:0 \
    --coordinator 127.0.0.1:0 --stages 2 "$@" >up.json 2>up.err &
  pid=$!
  for _ in $(seq 600); do
    gateway=$(sed -nE 's/.*"event":"ready","grpc":"([^"]*)".*/\1/p' up.json)
    [ -z "$gateway" ] || break
    kill -0 "$pid" 2>/dev/null || { cat up.err; return 1; }
    sleep 0.1
  done
  [ -n "$gateway" ] || { kill "$pid"; cat up.err; return 1; }
  for i in 0 1 2 3 4 5 6 7 8 9; do
    "${SAUVA[@]}" generate --gateway "$gateway" --json --max-tokens 64 --temperature 0 \
      "Once upon a time there were $i" | sed -E 's/.*"token_ids":(\[[^]]*\]).*/\1/' || code=$?
  done >"$out"
  [ "$(grep -c '^\[' "$out")" -eq 10 ] || { cat up.err; code=1; }
  kill -TERM "$pid"
  wait "$pid" || true
  return "$code"
}


step() {
  prepare
  case "$1" in
    answers) answers "${@:2}" ;;
    # The tokens of cpu.txt, to the last one.
    same) answers "$2" "${@:3}" && cmp cpu.txt "$2" ;;
    # How many of ten continuations are those of cpu.txt.
    share)
      answers "$2" "${@:3}"
      echo "$(paste -d '\n' cpu.txt "$2" | awk 'NR % 2 { line = $0; next } line == $0 { same++ }
        END { print same + 0 }') of 10 continuations are the CPU's"
      ;;
    # Passes when a test ends as one that is skipped does.
    skips)
      local code=0
      "${OURS[@]}" "$2" || code=$?
      [ "$code" -eq 77 ]
      ;;
    # Passes when a program fails and says what of the device is missing.
    refuses)
      ! ${STAGED[@]+"${STAGED[@]}"} "$STAGE/$2" "${@:3}" >refused.txt 2>&1 && cat refused.txt &&
        grep -qE 'no NVIDIA driver|no GPU can be used' refused.txt
      ;;
    test) "${OURS[@]}" "${@:2}" --gtest_brief=1 ;;
    sauva) "${SAUVA[@]}" "${@:2}" ;;
    sanitizer)
      # The tool starts the program itself, so what it needs is in the environment.
      [ "$STAGE" != "$PWD/libc" ] || { echo "not with a C library of our own"; return 1; }
      "${OURS[@]}" "${@:2}" --gtest_brief=1
      ;;
  esac
}

# The libnccl.so.2 of the system, or else of a Python wheel (PyTorch brings one).
find_nccl() {
  { ldconfig -p 2>/dev/null || true; } |
    awk '$1 == "libnccl.so.2" { print $NF; found = 1; exit } END { exit !found }' && return
  python3 - <<'END' 2>/dev/null || true
import glob, site, sys
folders = sys.path + site.getsitepackages() + [site.getusersitepackages()]
found = [f for p in folders for f in glob.glob(p + "/nvidia/nccl/lib/libnccl.so.2")]
print(found[0] if found else "")
END
}

op_tests() {
  local name
  if [ "$MODE" = rehearse ]; then
    check "$TEST skips" 60 bash run_on_device.sh step skips "bin/$TEST"
    return
  fi
  for name in "${OP_TESTS[@]}"; do
    check "$name" 120 bash run_on_device.sh step test "bin/$TEST" --gtest_filter="*${name}Test.*"
  done
}

sanitizer() {
  local found tool
  found=$(PATH="$PATH:/usr/local/cuda/bin:/opt/cuda/bin" command -v compute-sanitizer || true)
  if [ "$MODE" = rehearse ] || [ -z "$found" ]; then
    row "compute-sanitizer" "never run: no GPU, or no such program (found: ${found:-none})" "-"
    return
  fi
  for tool in memcheck racecheck; do
    check "compute-sanitizer $tool, ops" 60 bash run_on_device.sh step sanitizer "$found" \
      --tool "$tool" --error-exitcode 9 "bin/$TEST" \
      --gtest_filter='*BackendEqualityTest.*RopeOf*:*BackendEqualityTest.Activations*:*OneWeight*'
    check "compute-sanitizer $tool, tiles of the fast mode" 60 bash run_on_device.sh step sanitizer \
      "$found" --tool "$tool" --error-exitcode 9 "bin/$TEST" \
      --gtest_filter='FastMatMulTest.HugeAndTiny*'
  done
}

clusters() {
  local two=(--worker cuda:0:2GiB --worker cuda:0:2GiB) nccl
  [ "$MODE" = run ] || two=(--worker cpu:2GiB --worker cpu:2GiB)
  local same=(bash run_on_device.sh step same gpu.txt "${two[@]}")
  check "10 x 64 greedy tokens on the CPU, 2 workers" 60 bash run_on_device.sh step answers cpu.txt
  check "the same on the GPU, deterministic, gRPC" 60 "${same[@]}" --deterministic --link grpc
  check "the same, no step graphs" 60 "${same[@]}" --deterministic --link grpc --cuda-graphs off
  nccl=$(find_nccl)
  if [ "$MODE" = run ] && [ -n "$nccl" ]; then
    check "the same, NCCL on one GPU ($nccl)" 60 "${same[@]}" --deterministic --link nccl \
      --nccl-library "$nccl"
  else
    row "the same, NCCL on one GPU" "never run: no GPU, or no libnccl.so.2 (found: ${nccl:-none})" "-"
  fi
  measure "fast mode, f16" 60 'of 10' bash run_on_device.sh step share fast.txt "${two[@]}" --link grpc
  check "int8 weights and KV on the CPU" 60 bash run_on_device.sh step answers cpu.txt \
    --weights int8 --kv-type int8
  check "the same on the GPU, deterministic" 60 "${same[@]}" --deterministic --link grpc \
    --weights int8 --kv-type int8
}

benchmarks() {
  local format mode model=models/7b
  if [ "$MODE" = rehearse ]; then
    check "kernel benchmark without a GPU says so" 60 bash run_on_device.sh step refuses sauva \
      bench --kernels --device cuda:0
    check "worker without a GPU says so" 60 bash run_on_device.sh step refuses sauva-worker \
      --model models/prose --device cuda:0 --memory 2GiB
    mkdir -p models/small
    sed -E 's/: (4096|11008),/: 256,/g; s/"vocab_size": [0-9]+/"vocab_size": 512/' \
      "$model/config.json" >models/small/config.json
    measure "model benchmark, CPU, small" 120 'rows' bash run_on_device.sh step sauva bench \
      --model models/small --random-weights --weights int8 --kv-type f16 --prompt 32 --rows 1 --repeats 1
    return
  fi
  measure "kernels" 120 'tokens' bash run_on_device.sh step sauva bench --kernels --device cuda:0 \
    --repeats 3
  for format in native int8 int4 nf4; do
    for mode in "" --deterministic; do
      [ "$format" = native ] || [ -z "$mode" ] || continue
      measure "7B shape, $LAYERS layers, ${format/native/f16} $mode" 80 'rows' \
        bash run_on_device.sh step sauva bench --model "$model" --random-weights --device cuda:0 \
        --weights "$format" --kv-type f16 --prompt 512 --rows 1,8,32,128 --repeats 3 $mode
    done
  done
}

torch_peer() {
  if [ "$MODE" = run ] && timeout 60 python3 -c 'import torch, transformers' 2>/dev/null; then
    measure "7B shape, PyTorch" 120 'tokens/s' python3 torch_peer.py models/7b/config.json
  else
    row "7B shape, PyTorch" "never run: no GPU, or no torch and transformers for python3" "-"
  fi
}

run() {
  cd "$(dirname "$0")"
  MODE=$1
  exec > >(tee run.log) 2>&1
  local card="rehearsed without a GPU"
  if [ "$MODE" = run ]; then
    nvidia-smi || echo "nvidia-smi does not work here; the steps say what they find"
    card=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null ||
      echo "an unknown card")
  fi
  op_tests
  clusters
  benchmarks
  sanitizer
  torch_peer
  {
    echo
    echo "commit $(cat commit), $card, $SECONDS s"
    echo "| step | result | time |"
    echo "|---|---|---|"
    printf '%s\n' "${TABLE[@]}"
  } | tee table.md
  [ -z "${OUT:-}" ] || cp run.log table.md "$OUT/"
  ! grep -q '| FAILED' table.md
}

case "${1:-}" in
  pack) pack "${2:?usage: run_on_device.sh pack FILE.tar.gz}" ;;
  run | rehearse) run "$1" ;;
  step) step "${@:2}" ;;
  *) echo "usage: run_on_device.sh pack FILE.tar.gz | run | rehearse" >&2; exit 2 ;;
esac
