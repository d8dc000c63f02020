"""Label a dataset with a trained network: the same as `t2sda pseudo-label`."""

import sys

from t2sda.cli.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("pseudo-label"))
