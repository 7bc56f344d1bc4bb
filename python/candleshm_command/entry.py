"""The beginning of the command `candleshm`: Ctrl-C ends it without a word while its modules are imported.

Imported by the command alone: the import sets what SIGINT does. It is in a package of its own, since importing
`candleshm` takes most of that time. `signal` is not imported for the same reason: Ctrl-C would raise an error
meanwhile. It still does while Python itself starts, in the first 15 ms or so.
"""

import sys
from _signal import SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found]

from candleshm_command import end_at_once

__all__ = ["run"]

# Where SIGINT is ignored, as it is for commands in the background of a script, it stays so.
if getsignal(SIGINT) is default_int_handler:
    signal(SIGINT, end_at_once)


def run() -> int:
    """Run the command that `sys.argv` has, and return its exit code."""
    from candleshm.cli import main

    return main(sys.argv[1:])
