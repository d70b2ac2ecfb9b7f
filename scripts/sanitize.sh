#!/usr/bin/env bash
# Builds the tests with sanitizers and runs them. Usage: sanitize.sh [asan|tsan|all]
#   asan  address and undefined behaviour, all tests but those labelled no-sanitize
#   tsan  threads: own rooms without suppressions; tests that run gRPC's threads (labels
#         grpc and e2e) with the third parties of scripts/tsan.supp left out, since the
#         packaged libraries are not instrumented
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
what=${1:-all}
case "$what" in asan|tsan|all) ;; *) echo "usage: sanitize.sh [asan|tsan|all]" >&2; exit 2 ;; esac
failed=0
if [ "$what" != tsan ]; then
  configure_and_build asan
  run_tests address+undefined asan -LE 'no-sanitize|tidy' || failed=1
fi
if [ "$what" != asan ]; then
  configure_and_build tsan
  TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 \
    run_tests threads tsan -LE 'no-sanitize|tidy|grpc|e2e' || failed=1
  third_parties=suppressions=$PWD/scripts/tsan.supp:ignore_noninstrumented_modules=1
  TSAN_OPTIONS=halt_on_error=1:$third_parties \
    run_tests threads-with-grpc tsan -L 'grpc|e2e' -LE no-sanitize || failed=1
fi
exit "$failed"
