#!/usr/bin/env bash
# Install this project with everything it joins into .venv, pinned by constraints.txt.
#
#   scripts/setup.sh [EXTRAS]     extras of pyproject.toml, comma-separated; default: demo
#
# PYTHON names another interpreter. On Linux PyPI's torch brings several GB of CUDA; without a GPU,
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu leaves them out.
set -euo pipefail
cd "$(dirname "$0")/.."
extras="${1:-demo}"
python="${PYTHON:-$(command -v python3.11 || command -v python3.12 || command -v python3 || true)}"

if [ ! -x .venv/bin/python ]; then
  if ! "${python:-false}" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'; then
    echo "setup: Python 3.11 or 3.12 is needed; name one in PYTHON=/path/to/python3.11" >&2
    exit 3
  fi
  "$python" -m venv .venv
fi
# torch first: with it there, no other package's loose requirement brings a second one.
.venv/bin/python -m pip install -q -c constraints.txt torch
.venv/bin/python -m pip install -q -c constraints.txt -e ".[$extras]"
