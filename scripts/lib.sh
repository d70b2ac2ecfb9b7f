# shellcheck shell=bash
# What the other scripts share; they source this file and stand in the repository's root.

# run_quietly LABEL COMMAND…: runs a long command with its output in a log, prints its
# progress (ninja's [done/all]) now and then, and the log's end if it fails.
run_quietly() {
  local label=$1 log start pid code=0
  shift
  log=$(mktemp)
  start=$SECONDS
  echo "$label …"
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  local next=$((SECONDS + 30))
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    [ "$SECONDS" -ge "$next" ] || continue
    next=$((SECONDS + 30))
    echo "  $label: $((SECONDS - start)) s $(grep -aoE '^\[[0-9]+/[0-9]+\]' "$log" | tail -n 1)"
  done
  wait "$pid" || code=$?
  if [ "$code" -ne 0 ]; then
    grep -aE -A 12 'error:|FAILED|CMake Error' "$log" | head -n 60 >&2 || true
    echo "--- the last lines of: $*" >&2
    tail -n 15 "$log" >&2
    echo "$label failed with exit code $code" >&2
  else
    echo "$label: done in $((SECONDS - start)) s"
  fi
  rm -f "$log"
  return "$code"
}

# configure_and_build PRESET [TARGET…]
configure_and_build() {
  local preset=$1
  shift
  run_quietly "configure ($preset)" cmake --preset "$preset" || return
  run_quietly "build ($preset)" cmake --build --preset "$preset" ${1:+--target "$@"}
}

# With these, ccache finds what another checkout of the same sources compiled.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime

# Real texts, tokenizers and weights for tests may lie in a folder beside the checkout.
find_shared_data() {
  if [ -z "${SAUVA_SHARED_DATA:-}" ] && [ -d ../shared/data ]; then
    SAUVA_SHARED_DATA=$(cd ../shared/data && pwd)
  fi
  export SAUVA_SHARED_DATA=${SAUVA_SHARED_DATA:-}
}

# count_skips LOG: tests that GoogleTest, unittest or ctest skipped in a ctest log.
count_skips() {
  sed -nE -e 's/^\[  SKIPPED \] ([0-9]+) tests?, listed below:$/\1/p' \
    -e 's/^OK \(skipped=([0-9]+)\)$/\1/p' -e 's/^Test Skipped\.$/1/p' "$1" |
    awk '{ sum += $1 } END { print sum + 0 }'
}

# python_with REQUIREMENTS: prints a Python that has these packages, of a virtual environment
# under build/ that is made once per content of the file.
python_with() {
  local requirements=$1 venv
  venv=build/venv-$(sha256sum "$requirements" | cut -c 1-12)
  if [ ! -e "$venv/complete" ]; then
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" >&2
    touch "$venv/complete"
  fi
  echo "$venv/bin/python"
}

# as_root COMMAND…: runs it as root, through sudo where needed.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# prometheus_tools: prints the folder of prometheus and promtool. Debian's package would start a
# service when it is installed, so it is only unpacked, under build/.
prometheus_tools() {
  local folder=$PWD/build/prometheus found
  if found=$(command -v promtool) && command -v prometheus >/dev/null; then
    dirname "$found"
    return
  fi
  if [ ! -x "$folder/usr/bin/prometheus" ]; then
    mkdir -p "$folder"
    (
      cd "$folder"
      # Without package lists, as on a machine where nothing had to be installed, apt knows none.
      if ! apt-get download prometheus >/dev/null 2>&1; then
        as_root apt-get update -q >/dev/null </dev/null
        apt-get download prometheus >&2
      fi
      dpkg-deb -x prometheus_*.deb .
    )
  fi
  echo "$folder/usr/bin"
}
