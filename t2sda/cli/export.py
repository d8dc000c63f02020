"""`t2sda export FORMAT`: a trained network as a file for other runtimes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from t2sda.cli.common import USER_ERROR

FORMATS = {
    "onnx": ("t2sda.cli.export_onnx", "RUN|CHECKPOINT --output FILE.onnx"),
    "openvino": ("t2sda.cli.export_openvino", "RUN|CHECKPOINT|FILE.onnx --output FILE.xml"),
    "tensorrt": ("t2sda.cli.export_tensorrt", "FILE.onnx --output FILE.engine"),
}
"""Format: module with `command(argv) -> int`, imported when it is asked for; what it takes."""


def command(argv: Sequence[str]) -> int:
    """Export in the format that the first argument names."""
    if argv and argv[0] in FORMATS:
        return importlib.import_module(FORMATS[argv[0]][0]).command(argv[1:])
    asked_for_help = bool(argv) and argv[0] in ("-h", "--help")
    stream = sys.stdout if asked_for_help else sys.stderr
    for name, (_, arguments) in FORMATS.items():
        print(f"usage: t2sda export {name} {arguments} [options]", file=stream)
    print("(t2sda export FORMAT --help)", file=stream)
    return 0 if asked_for_help else USER_ERROR
