"""Build an engine of an ONNX file: the same as `t2sda export tensorrt`."""

import sys

from t2sda.cli.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("export", ["tensorrt", *sys.argv[1:]]))
