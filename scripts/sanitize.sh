#!/usr/bin/env bash
# Builds tests with sanitizers and runs them. Usage: sanitize.sh asan|tsan|e2e
#   asan  address, leaks and undefined behaviour: own rooms, without a cluster
#   tsan  threads: own rooms, without suppressions
#   e2e   both, over real processes and gRPC's threads; the packaged libraries are not
#         instrumented, so that thread reports inside them are left out (scripts/tsan.supp)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

# Leaks are looked for as well; a test may take several times as long as without.
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1
export LSAN_OPTIONS=suppressions=$PWD/scripts/lsan.supp:print_suppressions=0

run_tests() {  # NAME PRESET CTEST_ARGUMENT…
  local name=$1 preset=$2 log=build/$2/sanitize-$1.log status=0
  shift 2
  echo "$name …"
  ctest --test-dir "build/$preset" --output-on-failure --timeout 900 "$@" -O "$log" \
    </dev/null >/dev/null || status=$?
  if [ "$status" -ne 0 ]; then
    grep -aE -A 25 'ERROR: |WARNING: ThreadSanitizer|runtime error|Failure$' "$log" |
      head -n 120 >&2 || true
  fi
  sed -n '/tests passed/,$p' "$log"
  return "$status"
}

scripts/setup.sh
find_shared_data
failed=0
# Own rooms without gRPC calls between them; the rest runs with `e2e`.
own_rooms=(base_test net_test proto_test allocation_test attention_test backend_equality_test
  host_test reference_test sampler_test thread_pool_test weak_symbols_test model_test
  tokenizer_vectors_test safetensors_test parse_spec_test byte_level_bpe_test tokenizer_json_test
  incremental_decoder_test block_pool_test scheduler_test scheduler_property_test
  same_answer_test block_test no_allocation_test rope_test stage_sequences_test
  local_pipeline_test golden_test worker_sessions_test placement_test coordinator_test
  gateway_session_test)
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
    TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 \
      run_tests threads tsan -R "^($(IFS='|'; echo "${own_threads[*]}"))\$" || failed=1
    ;;
  e2e)
    configure_and_build asan
    run_tests address+undefined-e2e asan -LE 'no-sanitize|tidy' || failed=1
    configure_and_build tsan
    TSAN_OPTIONS=halt_on_error=1:suppressions=$PWD/scripts/tsan.supp:ignore_noninstrumented_modules=1 \
      run_tests threads-with-grpc tsan -L 'grpc|e2e' -LE no-sanitize || failed=1
    ;;
  *)
    echo "usage: sanitize.sh asan|tsan|e2e" >&2
    exit 2
    ;;
esac
exit "$failed"
