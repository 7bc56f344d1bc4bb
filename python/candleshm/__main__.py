"""`python -m candleshm` is the command line."""

import sys

from candleshm_command.entry import run

sys.exit(run())
