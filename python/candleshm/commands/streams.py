"""The standard streams of a command: there, even when who started it had closed them, and droppable when they break."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

__all__ = ["drop", "open_missing", "say"]


def open_missing() -> None:
    """Let standard streams that are closed lead to nowhere.

    Left closed, their numbers would go to the next files that are opened, and a message to "stderr" into one of those:
    into a block, at worst.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                # The lowest free number is taken, which is the missing one.
                os.open(os.devnull, os.O_RDWR)
                setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def drop(stream: TextIO) -> None:
    """Let a stream that broke lead to nowhere, also for what the interpreter flushes at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def say(text: str) -> None:
    """Print what is good to know; that nobody can read it is no reason to stop."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        drop(sys.stdout)
