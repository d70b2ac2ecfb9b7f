#!/usr/bin/env bash
# Proves that tests can fail: applies each one-line bug of tests/plants/ to a scratch copy
# of HEAD and expects the test named in the patch to turn red. A plant that stays green is
# a missing test. Usage: plants.sh [NAME…]   (names of patches without .patch; default all)
#
# A patch begins with one line that says what the bug does and one line
#   Found by: PROGRAM [FILTER]
# with a test program and its --gtest_filter.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

# A checkout within this one, built in a place like its own: ccache then knows all that
# `scripts/test.sh` compiled, and each plant costs the files that it touches.
source=$PWD/build/plants
root=$source/build
export SAUVA_SHARED_DATA
find_shared_data

field() { sed -nE "s/^Found by: ([^ ]+) ?(.*)$/\\$2/p" "$1"; }  # PATCH 1|2

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
  for patch in tests/plants/*.patch; do names+=("$(basename "$patch" .patch)"); done
fi
targets=()
for name in "${names[@]}"; do targets+=("$(field "tests/plants/$name.patch" 1)"); done
mapfile -t targets < <(printf '%s\n' "${targets[@]}" | sort -u)

scripts/setup.sh
git worktree prune
[ -d "$source" ] || git worktree add -q --detach "$source" HEAD
git -C "$source" checkout -q --detach --force "$(git rev-parse HEAD)"
git -C "$source" clean -q -fd
mkdir -p "$root"
run_quietly "configure the scratch copy" cmake -S "$source" -B "$root/release" -G Ninja \
  -DCMAKE_BUILD_TYPE=Release
run_quietly "build it without bugs" cmake --build "$root/release" --target "${targets[@]}"

run_test() {  # PROGRAM FILTER
  # In a shell of its own, whose word about a crash is not for the reader.
  (timeout 120 "$root/release/tests/$1" --gtest_filter="${2:-*}" \
    >"$root/test.log" 2>&1 </dev/null; exit $?) 2>/dev/null
}

for name in "${names[@]}"; do
  program=$(field "tests/plants/$name.patch" 1)
  filter=$(field "tests/plants/$name.patch" 2)
  echo "$program $filter"
done | sort -u | while read -r program filter; do
  # A red test proves nothing, and neither does a filter that names no test.
  if ! run_test "$program" "$filter" || grep -q '0 tests from 0' "$root/test.log"; then
    echo "plants.sh: $program $filter is red, or empty, without any planted bug" >&2
    exit 1
  fi
done

found=0
for name in "${names[@]}"; do
  patch=$PWD/tests/plants/$name.patch
  program=$(field "$patch" 1)
  filter=$(field "$patch" 2)
  verdict=
  if ! git -C "$source" apply "$patch"; then
    verdict="does not apply"
  elif ! cmake --build "$root/release" --target "$program" >"$root/build.log" 2>&1 </dev/null; then
    verdict="does not build: $(grep -m 1 'error:' "$root/build.log")"
  else
    code=0
    run_test "$program" "$filter" || code=$?
    case $code in
      0) verdict="MISSED by $program $filter" ;;
      124) verdict="MISSED: $program $filter hangs instead of failing" ;;
    esac
  fi
  if [ -z "$verdict" ]; then
    # The first test that failed; a program that died did so in the last one it began.
    by=$(sed -nE 's/^\[  FAILED  \] ([^ ,]+\.[^ ,]+).*/\1/p' "$root/test.log" | head -n 1)
    [ -n "$by" ] || by=$(sed -nE 's/^\[ RUN      \] //p' "$root/test.log" | tail -n 1)
    verdict="found by $program $by"
    found=$((found + 1))
  fi
  git -C "$source" checkout -q --force .
  printf '%-40s %s\n' "$name" "$verdict"
done
echo "${#names[@]} planted bugs, $found found"
[ "$found" -eq "${#names[@]}" ]
