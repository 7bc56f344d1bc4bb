"""`python -m candleshm` is the command line."""

import sys

from candleshm.cli import main

sys.exit(main())
