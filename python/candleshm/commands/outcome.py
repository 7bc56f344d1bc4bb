"""How a command ends: exit code 0 or 1, and one line on stderr for what went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from candleshm.errors import CandleShmError

__all__ = ["outcome"]


def outcome(command: Callable[[], None]) -> int:
    """Run `command` and return the exit code. Faults of our own are not caught: their traceback is what helps."""
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. The interpreter flushes once more at its end, to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        pass
    except (CandleShmError, OSError) as error:
        sys.stderr.write(f"candleshm: {_line(error)}\n")
        return 1
    return 0


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, CandleShmError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    return " ".join(str(error).split())
