#!/usr/bin/env bash
# Compiles every CUDA kernel for each compute capability, warnings being errors, and prints
# the most registers and spilled bytes of a kernel per file and capability, as a table.
# Fails when a kernel spills. Usage: cuda_report.sh [CAPABILITY…], default 75 80 86 89 90
set -euo pipefail
cd "$(dirname "$0")/.."

nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$nvcc" ] || { echo "cuda_report.sh: no nvcc; set NVCC" >&2; exit 1; }
capabilities=("$@")
[ $# -gt 0 ] || capabilities=(75 80 86 89 90)
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
spilled=0

echo "| file | capability | kernels | most registers | most bytes spilled |"
echo "|---|---|---|---|---|"
for file in kernels/cuda/*.cu; do
  for capability in "${capabilities[@]}"; do
    "$nvcc" -std=c++20 -O3 -fmad=false --expt-relaxed-constexpr -Werror all-warnings \
      -I. -Ikernels/cuda/target -gencode "arch=compute_$capability,code=sm_$capability" \
      -Xptxas -v -c "$file" -o "$objects/kernel.o" 2>"$objects/log" ||
      { cat "$objects/log" >&2; exit 1; }
    row=$(awk -v file="$(basename "$file")" -v capability="$capability" '
      match($0, /Used [0-9]+ registers/) {
        kernels++; used = substr($0, RSTART + 5) + 0; if (used > most) most = used }
      match($0, /[0-9]+ bytes spill stores/) {
        spill = substr($0, RSTART) + 0; if (spill > worst) worst = spill }
      END { printf "| `%s` | %s | %d | %d | %d |", file, capability, kernels, most, worst }
    ' "$objects/log")
    echo "$row"
    case "$row" in *"| 0 |") ;; *) spilled=1 ;; esac
  done
done
[ "$spilled" -eq 0 ] || { echo "cuda_report.sh: a kernel spills registers" >&2; exit 1; }
