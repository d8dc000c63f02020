"""Print a configuration, resolved and checked: the same as `t2sda show-config`."""

import sys

from t2sda.cli.main import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("show-config"))
