"""The packages of requirements-runtime.txt, and no others, in a fresh environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployed import DYNAMIC, shared_export

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_infer_and_three_lines_of_python(tmp_path_factory: pytest.TempPathFactory) -> None:
    done = subprocess.run(
        [
            *("bash", str(ROOT / "tools/runtime_check.sh")),
            *(str(shared_export(tmp_path_factory, DYNAMIC)), str(ROOT / "docs/demo")),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stderr
    assert "2 images in " in done.stdout
    installed = {line.partition("==")[0] for line in done.stdout.splitlines() if "==" in line}
    assert installed >= {"t2sda", "numpy", "onnxruntime"}
    assert not installed & {"torch", "timm", "rich", "fvcore", "onnx", "PyYAML"}
