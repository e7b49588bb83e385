#!/bin/sh
# memcheck, racecheck, synccheck and initcheck of compute-sanitizer on a few steps of a small model.
# Usage: tests/gpu/run_sanitizer.sh [PYTHON]; compute-sanitizer comes with the CUDA toolkit.
set -eu
python=${1:-python}
folder=$(dirname "$0")
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
for tool in memcheck racecheck synccheck initcheck; do
    echo "== $tool"
    "$sanitizer" --tool "$tool" --error-exitcode 1 --require-cuda-init yes "$python" "$folder/sanitize_steps.py"
done
