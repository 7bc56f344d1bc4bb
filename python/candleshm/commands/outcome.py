"""How a command ends: exit code 0 or 1, and one line on stderr for an error."""

from __future__ import annotations

import sys
from collections.abc import Callable

from candleshm.commands.streams import drop, escape_unwritable, open_missing
from candleshm.errors import CandleShmError
from candleshm.system.log_text import printable, without_credentials

__all__ = ["outcome"]


def outcome(command: Callable[[], None]) -> int:
    """Run `command` and return the exit code. Errors in candleshm itself are not caught: their traceback helps most."""
    open_missing()
    escape_unwritable()
    complaint = ""
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has left, as `head` does.
        drop(sys.stdout)
    except KeyboardInterrupt:
        pass
    except (CandleShmError, OSError) as error:
        complaint = _line(error)
    except MemoryError:
        complaint = "out of memory"
    if complaint:
        _settle_stdout()
        try:
            sys.stderr.write(f"candleshm: {complaint}\n")
            sys.stderr.flush()
        except OSError:
            drop(sys.stderr)
    return 1 if complaint else 0


def _settle_stdout() -> None:
    """Write out what is left. What cannot be written is dropped, or the interpreter would report it once more."""
    try:
        sys.stdout.flush()
    except OSError:
        drop(sys.stdout)


def _line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, CandleShmError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        text = f"{where}{error.strerror}"
    return printable(without_credentials(" ".join(text.split())))
