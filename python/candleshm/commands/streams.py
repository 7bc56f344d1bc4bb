"""The standard streams of a command: there, even when who started it had closed them, able to write every text, and
droppable when they break.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

__all__ = ["drop", "escape_unwritable", "open_missing", "say"]

# Error handlers under which a character that the encoding lacks is an exception. Any other one was somebody's choice.
RAISING = ("strict", "surrogateescape", "surrogatepass")


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


def escape_unwritable() -> None:
    """Let stdout and stderr write what their encoding lacks as `\\xe4` or `\\u5e01`.

    Some symbols are not ASCII, and file names may be no text at all; an old locale is no reason to end a command.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in RAISING:
            stream.reconfigure(errors="backslashreplace")


def drop(stream: TextIO) -> None:
    """Let a stream that broke lead to nowhere, also for what the interpreter flushes at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def say(text: str, stream: TextIO | None = None) -> None:
    """Write what is good to know, to stdout unless told otherwise; that nobody can read it is no reason to stop."""
    stream = sys.stdout if stream is None else stream
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        drop(stream)
