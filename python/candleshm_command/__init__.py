"""The beginning of the command `candleshm`: Ctrl-C ends it without a word while its modules are imported.

It is a package of its own, since importing `candleshm` takes most of that time. `signal` is not imported for the same
reason: Ctrl-C would raise an error meanwhile. It still does while Python itself starts, in the first 15 ms or so.
"""

import os
import sys
from _signal import SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found]

__all__ = ["INTERRUPTED", "end_at_once", "run"]

# What shells show for a command that Ctrl-C ended.
INTERRUPTED = 130


def end_at_once(_number: int, _frame: object) -> None:
    """End the process, as a handler of a signal: nothing has begun yet, or everything has ended."""
    os._exit(INTERRUPTED)


# Where SIGINT is ignored, as it is for commands in the background of a script, it stays so.
if getsignal(SIGINT) is default_int_handler:
    signal(SIGINT, end_at_once)


def run() -> int:
    """Run the command that `sys.argv` has, and return its exit code."""
    from candleshm.cli import main

    return main(sys.argv[1:])
