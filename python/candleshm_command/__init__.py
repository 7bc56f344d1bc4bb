"""How the command `candleshm` ends at once. Importing this does nothing; `entry` is where the command begins."""

import os

__all__ = ["INTERRUPTED", "end_at_once"]

# What shells show for a command that Ctrl-C ended.
INTERRUPTED = 130


def end_at_once(_number: int, _frame: object) -> None:
    """End the process, as a handler of a signal: nothing has begun yet, or everything has ended."""
    os._exit(INTERRUPTED)
