"""The standard streams of a command: open even if closed by the parent, able to write any text, dropped if broken."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

__all__ = ["drop", "escape_unwritable", "open_missing", "say"]

# Error handlers under which a character outside the encoding is an exception. Any other one was chosen on purpose.
RAISING = ("strict", "surrogateescape", "surrogatepass")


def open_missing() -> None:
    """Open closed standard streams on /dev/null.

    Otherwise the next opened files would get their numbers, and a message to "stderr" would go into one of these files:
    into a block, at worst.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                # The lowest free number is taken, which is the missing one.
                os.open(os.devnull, os.O_RDWR)
                setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def escape_unwritable() -> None:
    """Let stdout and stderr write characters outside their encoding as `\\xe4` or `\\u5e01`.

    Some symbols are not ASCII, and file names may not be valid text; an old locale is no reason to end a command.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in RAISING:
            stream.reconfigure(errors="backslashreplace")


def drop(stream: TextIO) -> None:
    """Redirect a broken stream to /dev/null, also for what the interpreter flushes at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def say(text: str, stream: TextIO | None = None) -> None:
    """Write a message, to stdout by default. A broken stream is dropped: it is no reason to stop."""
    stream = sys.stdout if stream is None else stream
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        drop(stream)
