#!/usr/bin/env bash
# Installs what is missing, builds everything and runs all tests. Fails too when another
# number of tests is skipped than tests/expected_skips says, so that none vanishes unseen.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

scripts/setup.sh
find_shared_data
configure_and_build release

# Where nvcc is, the CUDA kernels compile for the oldest GPU and for the data centre's.
if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
  run_quietly "CUDA kernels (7.5, 9.0)" scripts/cuda_report.sh 75 90
fi

log=build/release/test.log
status=0
echo "test …"
ctest --test-dir build/release --output-on-failure --verbose --no-tests=error -O "$log" \
  </dev/null >/dev/null || status=$?
sed -n '/tests passed/,$p' "$log"
if [ "$status" -ne 0 ]; then
  # The output of failed programs, without the tests in them that passed. Python tells of a
  # failure below its name.
  grep -aE -A 16 '^[0-9]+: (FAIL|ERROR): ' "$log" | head -n 80 >&2 || true
  grep -aE -A 4 'Failure$|\[  FAILED  \]' "$log" | head -n 80 >&2 || true
fi

kind=without-shared-data
[ -z "$SAUVA_SHARED_DATA" ] || kind=with-shared-data
expected=$(awk -v kind=$kind '$1 == kind { print $2 }' tests/expected_skips)
sed -E 's/^[0-9]+: //' "$log" >"$log.plain"
skipped=$(count_skips "$log.plain")
echo "skipped tests: $skipped (expected $kind: $expected)"
if [ "$skipped" -ne "$expected" ]; then
  grep -aE '^\[  SKIPPED \] [A-Za-z]' "$log.plain" | sort -u >&2 || true
  echo "test.sh: tests/expected_skips says $expected; a test began or ceased to be skipped" >&2
  exit 1
fi
exit "$status"
