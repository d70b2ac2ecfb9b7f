#!/usr/bin/env bash
# Checks rules and dashboards with promtool, then against a real cluster under a real Prometheus.
# usage: check_monitoring.sh [BIN_DIR [rules|live]]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
bin=${1:-build/release/bin}
SAUVA_PROMETHEUS=$(prometheus_tools)
export SAUVA_PROMETHEUS SAUVA_BIN=$bin
case "${2:-all}" in
  rules) tests=(tests.monitoring.rules_test) ;;
  live) tests=(tests.monitoring.live_test) ;;
  *) tests=(tests.monitoring.rules_test tests.monitoring.live_test) ;;
esac
exec /usr/bin/python3 -B -m unittest -v "${tests[@]}"
