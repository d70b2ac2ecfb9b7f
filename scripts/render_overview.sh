#!/usr/bin/env bash
# Runs the live test of monitoring and draws what its Prometheus saw: docs/overview.png.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
python=$(python_with monitoring/requirements.txt)
export SAUVA_OVERVIEW_DATA=$PWD/build/overview.json
scripts/check_monitoring.sh build/release/bin live
"$python" monitoring/render_overview.py "$SAUVA_OVERVIEW_DATA" docs/overview.png
