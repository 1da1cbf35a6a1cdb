#!/bin/sh
# On a GPU machine without a network: install from the bundle, then prove and measure. Options are those of gpu.py.
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
