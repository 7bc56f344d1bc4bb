"""How a command ends: exit code 0 or 1, and one line on stderr for what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable

from candleshm.commands.streams import drop, escape_unwritable, open_missing
from candleshm.errors import CandleShmError
from candleshm.system.log_text import printable, without_credentials

__all__ = ["outcome"]


def outcome(command: Callable[[], None]) -> int:
    """Run `command` and return the exit code. Faults of our own are not caught: their traceback is what helps."""
    open_missing()
    escape_unwritable()
    said = ""
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does.
        drop(sys.stdout)
    except KeyboardInterrupt:
        pass
    except (CandleShmError, OSError) as error:
        said = _line(error)
    except MemoryError:
        said = "out of memory"
    if said:
        _settle_stdout()
        try:
            sys.stderr.write(f"candleshm: {said}\n")
            sys.stderr.flush()
        except OSError:
            drop(sys.stderr)
    return 1 if said else 0


def _settle_stdout() -> None:
    """Write out what is left; what cannot be written is not tried again at the end, with a message of its own."""
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
