"""Check an exported file again: the same as `t2sda verify`."""

import sys

from t2sda.cli.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("verify"))
