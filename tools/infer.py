"""Segment images with a checkpoint or an exported file: the same as `t2sda infer`."""

import sys

from t2sda.cli.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("infer"))
