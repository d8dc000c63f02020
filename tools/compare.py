"""Compare runs: the same as `t2sda compare`."""

import sys

from t2sda.cli.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("compare"))
