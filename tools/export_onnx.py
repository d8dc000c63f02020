"""Export a network to ONNX: the same as `t2sda export onnx`."""

import sys

from t2sda.cli.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("export", ["onnx", *sys.argv[1:]]))
