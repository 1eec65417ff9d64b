#!/usr/bin/env bash
# Run the benchmarks (all, or those named): each prints a table and, last, one JSON object of ratios within one run.
#
#   scripts/bench.sh [NAME ...]
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- $(basename -s .py -a benchmarks/[!_]*.py)
for name in "$@"; do
  echo "== $name"
  .venv/bin/python "benchmarks/$name.py"
done
