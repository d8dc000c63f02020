"""Train, resume or score a network: the same as `t2sda train`."""

import sys

from t2sda.cli.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("train"))
