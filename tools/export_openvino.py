"""Export a network to OpenVINO: the same as `t2sda export openvino`."""

import sys

from t2sda.cli.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("export", ["openvino", *sys.argv[1:]]))
