#!/usr/bin/env bash
# What a CUDA machine must show, in under 9 minutes.
#   run_on_device.sh pack [FILE]       here, after the preset `cuda` is built
#   run_on_device.sh run [FILE]        there, in the same tree with that file; needs a driver only
#   run_on_device.sh rehearse [FILE]   without a GPU: the same steps on the CPU; what needs a device
#                                      must say that there is none
# FILE is build/device.tar.xz: stripped programs, the op tests and the libraries they need; model
# and scripts are those of the tree. A step that fails or runs out of time is a row of the table,
# the others go on. run.log and table.md are written to $OUT, or else to build/device.results, as
# the steps go; verdicts are printed last. Nothing is left running.
# `run` was never run: no machine with a GPU was at hand.
set -euo pipefail

SELF=$(realpath "${BASH_SOURCE[0]}")
ROOT=$(cd "$(dirname "$SELF")/../.." && pwd)
readonly SELF ROOT WORK=$ROOT/build/device # where FILE is unpacked
readonly STEP=(bash "$SELF" step)
readonly MOST_BYTES=$((64 << 20))  # of the tree and the pack, so that they can be sent together
readonly MOST_SECONDS=500          # of all steps together
readonly LAYERS=${LAYERS:-8}       # of the 7B shape; all 32 take too long to quantize
readonly BINARIES=(sauva sauva-coordinator sauva-gateway sauva-worker)
readonly TEST=cuda_device_test
readonly OP_TESTS=(BackendEquality QuantizedEquality Attention SamplerEquality FastMatMul)
readonly C_LIBRARY='/(libc|libm|libdl|libpthread|librt|libresolv|ld-linux[^/]*)\.so'
readonly SHAPE_7B=$WORK/models/7b

die() {
  echo "run_on_device.sh: $*" >&2
  exit 1
}

# --- pack

# The newest version of a library's symbols that programs and libraries here ask for.
newest_symbol() { objdump -T bin/* lib/* | grep -oE "\<$1_[0-9.]+" | sort -uV | tail -n 1; }

# Bytes of the files that belong to the tree: tracked ones, others that git does not ignore, shared/.
tree_bytes() {
  {
    git ls-files -z --cached --others --exclude-standard
    if [ -d shared ]; then find shared -type f -print0; fi
  } | sort -zu | { xargs -0 stat -c %s 2>/dev/null || true; } | awk '{ sum += $1 } END { printf "%d\n", sum }'
}

pack() {
  local out folder pack tree name
  out=$(realpath -m "$1")
  cd "$ROOT"
  ninja -C build/cuda -n "${BINARIES[@]}" "$TEST" | grep -qxF 'ninja: no work to do.' ||
    die "build/cuda is not up to date: ninja -C build/cuda ${BINARIES[*]} $TEST"
  folder=$(mktemp -d)
  # shellcheck disable=SC2064  # the folder's name of now
  trap "rm -rf '$folder'" EXIT
  mkdir "$folder"/{bin,lib}
  for name in "${BINARIES[@]}"; do strip -o "$folder/bin/$name" "build/cuda/bin/$name"; done
  strip -o "$folder/bin/$TEST" "build/cuda/tests/$TEST"
  ldd "$folder"/bin/* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE "$C_LIBRARY" | xargs -I{} cp -L {} "$folder/lib/"
  strip --strip-unneeded "$folder"/lib/*
  {
    git rev-parse HEAD
    git status --short
    (cd build/cuda && sha256sum "${BINARIES[@]/#/bin/}" "tests/$TEST")
  } >"$folder/commit"
  (cd "$folder" && newest_symbol GLIBC >libc && newest_symbol GLIBCXX >libstdc++)
  tar -C "$folder" -c . | xz -6 -T1 >"$out"
  pack=$(stat -c %s "$out")
  tree=$(tree_bytes)
  echo "$out: $pack bytes, the tree $tree, together $((pack + tree)) of $MOST_BYTES"
  if [ $((pack + tree)) -gt $MOST_BYTES ]; then
    rm "$out"
    die "together they are $((pack + tree - MOST_BYTES)) bytes too large"
  fi
}

# --- rows of the table, and the time that is left

row() { echo "| $1 | $2 | ${3:-} |" >>"$RESULTS/table.md"; }

# group SECONDS: the steps that follow may take so long together. Once one of them runs out of time
# the rest of the group is skipped.
group() {
  GROUP_END=$((SECONDS + $1))
  GROUP_OVER=""
}

# check NAME SECONDS COMMAND…: runs it and adds a row. The command and what it started are ended
# when the time of the step, of the group or of all steps is over. 77 is the code of a skip.
check() {
  local name=$1 limit begin=$SECONDS code=0
  limit=$(printf '%s\n' "$2" $((GROUP_END - SECONDS)) $((MOST_SECONDS - RESERVED - SECONDS)) |
    sort -n | head -n 1)
  shift 2
  if [ -n "$GROUP_OVER" ]; then
    row "$name" "SKIP: $GROUP_OVER"
    return
  fi
  if [ "$limit" -lt 5 ]; then
    row "$name" "SKIP: no time left"
    return
  fi
  echo "=== $name, at $begin s, at most $limit s: $*"
  timeout --kill-after=5 "$limit" "$@" </dev/null &
  RUNNING=$! # waited for, so that a signal for this script is answered at once
  wait $RUNNING || code=$?
  RUNNING=""
  case $code in
    0) row "$name" PASS "$((SECONDS - begin)) s" ;;
    77) row "$name" "SKIP: what it needs is not there" "$((SECONDS - begin)) s" ;;
    124 | 137)
      row "$name" "FAIL: out of time" "$((SECONDS - begin)) s"
      GROUP_OVER="$name ran out of time"
      ;;
    *) row "$name" "FAIL ($code)" "$((SECONDS - begin)) s" ;;
  esac
}

# Reads a step's output and adds a row for each line that matches; for speeds of a model's shape
# also the time of a step, and that divided by the layers, head and sampling among them.
measured() {
  local name=$1 pattern=$2 line time
  while IFS= read -r line; do
    echo "$line"
    [[ $line =~ $pattern && $line != ===* ]] || continue
    time=""
    if [[ $line =~ ([0-9]+)\ rows\ +([0-9.]+)\ tokens/s ]]; then
      time=$(awk -v rows="${BASH_REMATCH[1]}" -v rate="${BASH_REMATCH[2]}" -v layers="$LAYERS" \
        'BEGIN { ms = 1000 * rows / rate; printf "%.2f ms, a layer %.3f", ms, ms / layers }')
    fi
    row "$name" "$(tr -s ' ' <<<"${line%%  read *}")" "$time"
  done
}

# measure NAME SECONDS PATTERN COMMAND…: `check`, and a row for each line of output that matches.
measure() {
  local reader
  exec 4> >(measured "$1" "$3")
  reader=$!
  check "$1" "$2" "${@:4}" >&4 2>&1 4>&-
  exec 4>&-
  await $reader # all lines are rows
}

# Waits a little for a process that is about to end.
await() { timeout 7 tail --pid="$1" -f /dev/null || true; }

# --- steps: each is a process of its own, in the folder of the pack

# fail REASON [CODE]: ends a step; prints what the cluster's processes said last. 124: out of time.
fail() {
  trap '' TERM
  echo "--- $1"
  tail -n 12 up.err up.json logs/*.log 2>/dev/null || true
  tail -n 12 nccl.*.txt 2>/dev/null || true
  exit "${2:-1}"
}

# cluster UP_OPTION…: starts one of two stages; sets UP, its process, and GATEWAY.
cluster() {
  local until=$((SECONDS + 40))
  rm -rf logs nccl.*.txt
  : >up.json
  NCCL_DEBUG=INFO NCCL_DEBUG_FILE=$WORK/nccl.%p.txt "${OURS[@]}" bin/sauva up \
    --model "$ROOT/models/prose" --stages 2 --json --log-dir logs --grpc 127.0.0.1:0 \
    --http 127.0.0.1:0 --coordinator 127.0.0.1:0 "$@" >up.json 2>up.err &
  UP=$!
  trap 'kill -KILL $UP 2>/dev/null || true' EXIT # its children go with it
  trap 'fail "the time of this step is over" 124' TERM
  GATEWAY=""
  while [ -z "$GATEWAY" ]; do
    kill -0 "$UP" 2>/dev/null || fail "the cluster did not start"
    [ $SECONDS -lt $until ] || fail "the cluster is not ready after 40 s" 124
    sleep 0.1
    GATEWAY=$(sed -nE 's/.*"event":"ready","grpc":"([^"]*)".*/\1/p' up.json)
  done
}

stop_cluster() {
  local code=0
  kill -TERM "$UP"
  wait "$UP" || code=$?
  [ $code -eq 0 ] || fail "the cluster ended with code $code"
}

generate() { "${OURS[@]}" bin/sauva generate --gateway "$GATEWAY" --temperature 0 "$@"; }

# answers FILE UP_OPTION…: writes the token ids of ten continuations to FILE, one line each.
answers() {
  local out=$1 i
  shift
  cluster "$@"
  : >"$out"
  for i in 0 1 2 3 4 5 6 7 8 9; do
    generate --json --timeout 20 --max-tokens 64 "Once upon a time there were $i" |
      sed -nE 's/.*"token_ids":(\[[^]]*\]).*/\1/p' >>"$out" || fail "no answer to prompt $i"
  done
  [ "$(wc -l <"$out")" -eq 10 ] || fail "not ten answers"
  stop_cluster
}

# share FILE UP_OPTION…: how many of ten continuations are those of cpu.txt; 8 at least.
share() {
  local same
  answers "$@"
  same=$(paste -d '\n' cpu.txt "$1" |
    awk 'NR % 2 { line = $0; next } line == $0 { same++ } END { print same + 0 }')
  echo "$same of 10 continuations are the CPU's"
  [ "$same" -ge 8 ]
}

# A long answer, until the context is full.
story() { generate --timeout 60 --max-tokens 0 --ignore-eos "Once upon a time"; }

# loss UP_OPTION…: a worker is killed in mid-answer, the answer is the one without that.
loss() {
  local client worker resumes http
  cluster "$@"
  worker=$(sed -nE 's/.*"event":"ready".*"role":"worker","pid":([0-9]+).*/\1/p' up.json)
  http=$(sed -nE 's/.*"event":"ready".*"http":"([^"]*)".*/\1/p' up.json)
  story >undisturbed.txt || fail "no answer before the loss"
  story >disturbed.txt &
  client=$!
  while [ ! -s disturbed.txt ]; do
    kill -0 $client || fail "the answer ended before it began"
    sleep 0.01
  done
  kill -KILL "$worker"
  echo "killed after $(wc -c <disturbed.txt) of $(wc -c <undisturbed.txt) bytes of the answer"
  wait $client || fail "no answer after the loss"
  cmp undisturbed.txt disturbed.txt || fail "another answer after the loss"
  exec 3<>"/dev/tcp/${http/://}"
  printf 'GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n' >&3
  resumes=$(tr -d '\r' <&3 | awk '$1 ~ /^sauva_resumes_total/ { sum += $2 } END { print sum + 0 }')
  echo "$resumes streams were resumed"
  [ "$resumes" -ge 1 ] || fail "the answer was over when the worker was killed"
  stop_cluster
}

# refuses PROGRAM ARGUMENT…: passes when it fails and says what of the device is missing.
refuses() {
  ! "${OURS[@]}" "$@" >refused.txt 2>&1 || return 1
  cat refused.txt
  grep -qE 'no NVIDIA driver|no GPU can be used' refused.txt
}

# sanitizer PROGRAM ARGUMENT…: 77 on a machine whose GPU the tool cannot watch.
sanitizer() {
  local code=0
  "${OURS[@]}" "$@" --gtest_brief=1 2>&1 | tee sanitizer.txt || code=$?
  if grep -q 'Device not supported' sanitizer.txt; then exit 77; fi
  return $code
}

step() {
  local path=$WORK/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}:/usr/local/nvidia/lib64 code=0
  OURS=(env "LD_LIBRARY_PATH=$path")
  cd "$WORK"
  case "$1" in
    ours) "${OURS[@]}" "${@:2}" ;;
    same) answers "${@:2}" && cmp cpu.txt "$2" ;; # to the last token
    test) "${OURS[@]}" "${@:2}" --gtest_brief=1 || code=1 ;; # also when it is skipped
    skips)
      "${OURS[@]}" "$2" || code=$?
      code=$((code != 77))
      ;;
    *) "$@" ;;
  esac
  return $code
}

# --- the run

# The libnccl.so.2 of the system, or else of a Python wheel (PyTorch brings one).
find_nccl() {
  { ldconfig -p 2>/dev/null || true; } |
    awk '$1 == "libnccl.so.2" { print $NF; found = 1; exit } END { exit !found }' && return
  timeout 20 python3 - <<'END' 2>/dev/null || true
import glob, site, sys
folders = sys.path + site.getsitepackages() + [site.getusersitepackages()]
found = [f for p in folders for f in glob.glob(p + "/nvidia/*/lib/libnccl.so.2")]
print(found[0] if found else "")
END
}

op_tests() {
  local name
  group 110
  if [ "$MODE" = rehearse ]; then
    check "$TEST skips" 40 "${STEP[@]}" skips "bin/$TEST"
    return
  fi
  for name in "${OP_TESTS[@]}"; do
    check "ops: $name" 40 "${STEP[@]}" test "bin/$TEST" --gtest_filter="*${name}Test.*"
  done
}

clusters() {
  local gpus=(--worker cuda:0:2GiB --worker cuda:0:2GiB) nccl
  [ "$MODE" = run ] || gpus=(--worker cpu:2GiB --worker cpu:2GiB)
  local grpc=("${gpus[@]}" --link grpc)
  local same=("${STEP[@]}" same gpu.txt --deterministic)
  group 130
  check "10 x 64 greedy tokens on the CPU, 2 workers" 90 "${STEP[@]}" answers cpu.txt
  check "the same on the GPU, deterministic" 90 "${same[@]}" "${grpc[@]}"
  check "the same, no step graphs" 90 "${same[@]}" "${grpc[@]}" --cuda-graphs off
  measure "fast mode, f16, 8 of 10 at least" 90 'of 10' "${STEP[@]}" share fast.txt "${grpc[@]}"
  measure "kill -9 of a worker in mid-answer" 90 'killed after|resumed' \
    "${STEP[@]}" loss "${grpc[@]}"
  group 90
  nccl=$(find_nccl)
  if [ "$MODE" = run ] && [ -n "$nccl" ]; then
    check "deterministic, NCCL on one GPU ($nccl)" 90 "${same[@]}" "${gpus[@]}" --link nccl \
      --nccl-library "$nccl"
    cat "$WORK"/nccl.*.txt >"$RESULTS/nccl.log" 2>/dev/null || true
  else
    row "deterministic, NCCL on one GPU" "SKIP: no GPU, or no libnccl.so.2 (found: ${nccl:-none})"
  fi
  group 90
  check "int8 weights and KV on the CPU" 90 "${STEP[@]}" answers cpu.txt \
    --weights int8 --kv-type int8
  check "int8 on the GPU, deterministic" 90 "${same[@]}" "${grpc[@]}" \
    --weights int8 --kv-type int8
}

write_7b_shape() {
  mkdir -p "$SHAPE_7B"
  cat >"$SHAPE_7B/config.json" <<END
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
 "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": $LAYERS,
 "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
 "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": false,
 "vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float16"}
END
}

# bench FORMAT OPTION…: a model's shape, weights of a format in memory.
bench() {
  measure "7B shape, $LAYERS layers, ${1/native/f16}${2:+ $2}" 60 'rows' "${STEP[@]}" ours \
    bin/sauva bench --model "$SHAPE_7B" --random-weights --weights "$1" --kv-type f16 \
    --device cuda:0 --prompt 512 --rows 1,8,32,128 --repeats 3 "${@:2}"
}

benchmarks() {
  local small=$WORK/models/small format
  group 130
  if [ "$MODE" = rehearse ]; then
    check "kernel benchmark without a GPU says so" 40 "${STEP[@]}" refuses bin/sauva bench \
      --kernels --device cuda:0
    check "worker without a GPU says so" 40 "${STEP[@]}" refuses bin/sauva-worker \
      --model "$ROOT/models/prose" --device cuda:0 --memory 2GiB
    mkdir -p "$small"
    sed -E 's/: (4096|11008),/: 256,/g; s/"vocab_size": [0-9]+/"vocab_size": 512/' \
      "$SHAPE_7B/config.json" >"$small/config.json"
    measure "small shape on the CPU, $LAYERS layers" 60 'rows' "${STEP[@]}" ours bin/sauva bench \
      --model "$small" --random-weights --weights int8 --kv-type f16 --prompt 32 --rows 1 --repeats 1
    return
  fi
  bench native
  for format in int8 int4 nf4; do bench $format; done
  for format in int8 int4 nf4; do bench $format --deterministic; done
  group 90
  measure "kernels" 90 'tokens' "${STEP[@]}" ours bin/sauva bench --kernels --device cuda:0 \
    --repeats 3
}

sanitizers() {
  local found tool
  group 70
  found=$(PATH="$PATH:/usr/local/cuda/bin:/opt/cuda/bin" command -v compute-sanitizer || true)
  if [ "$MODE" = rehearse ] || [ -z "$found" ]; then
    row "compute-sanitizer" "SKIP: no GPU, or no such program (found: ${found:-none})"
    return
  fi
  for tool in memcheck racecheck; do
    check "compute-sanitizer $tool, ops" 40 "${STEP[@]}" sanitizer "$found" \
      --tool "$tool" --error-exitcode 9 "bin/$TEST" \
      --gtest_filter='*BackendEqualityTest.*RopeOf*:*BackendEqualityTest.Activations*:*OneWeight*'
    check "compute-sanitizer $tool, tiles of the fast mode" 40 "${STEP[@]}" sanitizer "$found" \
      --tool "$tool" --error-exitcode 9 "bin/$TEST" --gtest_filter='FastMatMulTest.HugeAndTiny*'
  done
}

torch_peer() {
  RESERVED=0
  group 140
  if [ "$MODE" = rehearse ]; then
    row "7B shape, PyTorch" "SKIP: no GPU"
    return
  fi
  measure "7B shape, $LAYERS layers, PyTorch" 140 'tokens/s|skipped' \
    python3 "$ROOT/tests/cuda/torch_peer.py" "$SHAPE_7B/config.json"
}

unpack() {
  local system program
  rm -rf "$WORK"
  mkdir -p "$WORK"
  tar -xJf "$PACK" -C "$WORK" 2>/dev/null ||
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' \
      "$PACK" "$WORK" || die "$PACK cannot be unpacked: no xz, and no python3 that can"
  # Libraries of this machine, as NCCL and the sanitizer, may ask for more than ours have.
  system=$({ ldconfig -p || true; } | awk '$1 == "libstdc++.so.6" && /x86-64/ { print $NF; exit }')
  if [ -n "$system" ] && grep -qaF "$(cat "$WORK/libstdc++")" "$system"; then
    rm -f "$WORK"/lib/{libstdc++.so.6,libgcc_s.so.1}
  fi
  # Each worker is a host of its own for NCCL: two may then share a GPU.
  mv "$WORK/bin/sauva-worker" "$WORK/bin/worker"
  printf '#!/bin/sh\nNCCL_HOSTID=$$ exec "%s/bin/worker" "$@"\n' "$WORK" >"$WORK/bin/sauva-worker"
  chmod +x "$WORK/bin/sauva-worker"
  for program in "$WORK"/bin/*; do
    [ "$program" = "$WORK/bin/$TEST" ] || "${STEP[@]}" ours "$program" --version >/dev/null ||
      die "$program does not start; it needs $(cat "$WORK/libc"), here is $(ldd --version | head -n 1)"
  done
}

# Prints the table, verdicts last, and ends what was started; also when the run broke off.
finish() {
  local verdict='\| (PASS|FAIL|SKIP)' kernels='^\| kernels' rows
  if [ -n "$RUNNING" ]; then
    row "the run was ended" FAIL
    kill "$RUNNING"
    await "$RUNNING"
  fi
  [ -z "$WARMING" ] || kill "$WARMING" 2>/dev/null || true
  rows=$(tail -n +3 "$RESULTS/table.md")
  echo
  cat "$WORK/commit" 2>/dev/null || true
  echo "$CARD, $SECONDS s"
  echo "Shares are of what this program's own probes read and multiply at most here, with mma"
  echo "instructions, not of a data sheet. Kernels are launched one by one, without step graphs: for"
  echo "1 token of a small matrix much of the time is that of launches. \"a layer\" is a step's time"
  echo "over the layers, head and sampling among it."
  echo
  head -n 2 "$RESULTS/table.md"
  # Who sees the end of the output alone sees the verdicts, then the models, then the many kernels.
  grep -E "$kernels" <<<"$rows" | grep -vE "$verdict" || true
  grep -vE "$verdict|$kernels" <<<"$rows" || true
  grep -E "$verdict" <<<"$rows" || true
  exec >&- 2>&-
  await "$TEE" # the log's last lines
}

run() {
  MODE=$1
  PACK=$(realpath "$2")
  cd "$ROOT"
  mkdir -p "${OUT:-$WORK.results}"
  RESULTS=$(realpath "${OUT:-$WORK.results}")
  CARD="rehearsed without a GPU" RESERVED=0 WARMING="" RUNNING=""
  printf '| step | result | time |\n|---|---|---|\n' >"$RESULTS/table.md"
  exec > >(trap '' TERM INT && exec tee "$RESULTS/run.log") 2>&1
  TEE=$!
  trap finish EXIT
  trap 'exit 143' TERM INT
  if [ "$MODE" = run ]; then
    RESERVED=100 # for PyTorch
    # The first import takes long: its files are read while the op tests run.
    timeout 200 python3 -c 'import torch, transformers' >/dev/null 2>&1 &
    WARMING=$!
    timeout 20 nvidia-smi || echo "nvidia-smi does not work here; the steps say what they find"
    CARD=$(timeout 20 nvidia-smi --query-gpu=name,driver_version --format=csv,noheader ||
      echo "an unknown card")
  fi
  unpack
  write_7b_shape
  op_tests
  clusters
  benchmarks
  sanitizers
  torch_peer
  ! grep -q '| FAIL' "$RESULTS/table.md"
}

case "${1:-}" in
  pack) pack "${2:-$ROOT/build/device.tar.xz}" ;;
  run | rehearse) run "$1" "${2:-$ROOT/build/device.tar.xz}" ;;
  step) step "${@:2}" ;;
  *) die "usage: run_on_device.sh pack|run|rehearse [FILE]" ;;
esac
