#!/usr/bin/env bash
# Renders the chart with Helm's own engine for every example and validates what comes out;
# see tests/deploy/chart_test.py. Needs PyPI the first time.
# usage: check_chart.sh [BIN_DIR [TEST…]]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
bin=${1:-build/release/bin}
shift || true
python=$(python_with tests/deploy/requirements.txt)
SAUVA_BIN=$bin exec "$python" -m unittest -v "${@:-tests.deploy.chart_test}"
