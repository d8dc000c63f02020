"""`python -m t2sda VERB`: the same as the console command."""

import sys

from t2sda.cli.main import main

sys.exit(main())
