#!/usr/bin/env bash
# Runs an exported file in a fresh environment of requirements-runtime.txt alone:
#     tools/runtime_check.sh student.onnx docs/demo
# PYTHON names the interpreter; PIP_CONSTRAINT may pin versions, as pip reads it itself.
set -euo pipefail
model=$(realpath "$1") images=$(realpath "$2")
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet -r requirements-runtime.txt
"$folder/venv/bin/pip" install --quiet --no-deps .
cd "$folder"
venv/bin/pip list --format freeze
venv/bin/t2sda infer --model "$model" --input "$images" --output out --kind overlay,trainid
venv/bin/python - "$model" "$images" <<'PYTHON'
import pathlib
import sys
import time

began = time.perf_counter()
from t2sda import load_model

model = load_model(sys.argv[1])
seconds = time.perf_counter() - began
images = sorted(pathlib.Path(sys.argv[2]).glob("*.*g"))
labels = model.predict(images[0])
ours = sum(name.partition(".")[0] == "t2sda" for name in sys.modules)
print(f"{images[0].name}: labels {labels.shape}; loaded in {seconds:.2f} s, {ours} modules of ours")
assert not {"torch", "timm", "fvcore", "rich", "onnx"} & set(sys.modules)
PYTHON
