#!/usr/bin/env bash
# Builds tests with sanitizers and runs them. Usage: sanitize.sh asan|tsan|e2e
#   asan  address, leaks and undefined behaviour: own rooms, the simulator, the fuzz targets
#   tsan  threads: own rooms, without suppressions
#   e2e   both, over real processes and gRPC's threads; the packaged libraries are not
#         instrumented: what orders they keep is told by net/tsan_edges.cc, what they do inside
#         is left out (ignore_noninstrumented_modules), and scripts/tsan.supp names the rest
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

# Leaks are looked for as well; a test may take several times as long as without.
export LSAN_OPTIONS=suppressions=$PWD/scripts/lsan.supp:print_suppressions=0

# Reports go to files: a process that a test starts, and restarts when it dies, must not have
# its report overlooked.
run_tests() {  # NAME PRESET CTEST_ARGUMENT…
  local name=$1 preset=$2 log=build/$2/sanitize-$1.log reports=$PWD/build/$2/reports-$1 status=0
  shift 2
  echo "$name …"
  rm -rf "$reports"
  mkdir -p "$reports"
  local -x ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:log_path=$reports/asan
  local -x UBSAN_OPTIONS=print_stacktrace=1:log_path=$reports/ubsan
  local -x TSAN_OPTIONS=second_deadlock_stack=1:log_path=$reports/tsan${TSAN_EXTRA:+:$TSAN_EXTRA}
  ctest --test-dir "build/$preset" --output-on-failure --timeout 900 "$@" -O "$log" \
    </dev/null >/dev/null || status=$?
  if [ "$status" -ne 0 ]; then
    grep -aE -A 25 'Failure$|\*\*\*' "$log" | head -n 80 >&2 || true
  fi
  if [ -n "$(ls "$reports")" ]; then
    head -n 60 "$reports"/* >&2
    echo "$name: reports in $reports" >&2
    status=1
  fi
  sed -n '/tests passed/,$p' "$log"
  return "$status"
}

scripts/setup.sh
find_shared_data
failed=0
# Own rooms without processes of their own; the rest runs with `e2e`.
own_rooms=(base_test net_test proto_test allocation_test attention_test backend_equality_test
  cuda_backend_equality_test cuda_fast_matmul_test cuda_graphs_test cuda_quantized_equality_test
  cuda_sampler_equality_test emulator_test quantized_equality_test
  host_test reference_test sampler_test thread_pool_test weak_symbols_test model_test
  tokenizer_vectors_test safetensors_test parse_spec_test byte_level_bpe_test tokenizer_json_test
  incremental_decoder_test block_pool_test scheduler_test scheduler_property_test
  same_answer_test block_test no_allocation_test rope_test stage_sequences_test
  local_pipeline_test golden_test worker_sessions_test placement_test coordinator_test
  gateway_session_test stage_test sim_test
  quantized_matrix_test quantized_layout_test chat_template_test group_rounding_test gptq_test
  packing_test
  model_safetensors_fuzz model_quantized_fuzz model_tokenizer_fuzz model_chat_template_fuzz worker_step_header_fuzz)
# What runs threads of its own, or is run by several, without gRPC.
own_threads=(base_test thread_pool_test backend_equality_test attention_test sampler_test
  block_pool_test scheduler_test same_answer_test local_pipeline_test stage_test
  worker_sessions_test coordinator_test)
case "${1:-}" in
  asan)
    configure_and_build asan "${own_rooms[@]}"
    run_tests address+undefined asan -R "^($(IFS='|'; echo "${own_rooms[*]}"))\$" || failed=1
    ;;
  tsan)
    configure_and_build tsan "${own_threads[@]}"
    run_tests threads tsan -R "^($(IFS='|'; echo "${own_threads[*]}"))\$" || failed=1
    ;;
  e2e)
    configure_and_build asan
    # Left out: a test of how much memory the gateway takes, and of how soon 12,800 tokens are
    # made; the sanitizer multiplies both.
    GTEST_FILTER=-ClientTest.AReaderThatStopsReadingCostsNobodyElse \
      run_tests address+undefined-e2e asan -LE 'no-sanitize|tidy' || failed=1
    configure_and_build tsan
    TSAN_EXTRA=suppressions=$PWD/scripts/tsan.supp:ignore_noninstrumented_modules=1 \
      run_tests threads-with-grpc tsan -L 'grpc|e2e|sim' -LE no-sanitize || failed=1
    ;;
  *)
    echo "usage: sanitize.sh asan|tsan|e2e" >&2
    exit 2
    ;;
esac
exit "$failed"
