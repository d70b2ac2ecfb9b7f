#!/usr/bin/env bash
# Checks rules and dashboards with promtool, the pages of a cluster that loads, then all of it against a
# real cluster under a real Prometheus.
# usage: check_monitoring.sh [BIN_DIR [rules|loading|live]]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
bin=${1:-build/release/bin}
SAUVA_PROMETHEUS=$(prometheus_tools)
export SAUVA_PROMETHEUS SAUVA_BIN=$bin
tests=(rules loading live)
[ $# -lt 2 ] || tests=("$2")
tests=("${tests[@]/#/tests.monitoring.}")
exec /usr/bin/python3 -B -m unittest -v "${tests[@]/%/_test}"
