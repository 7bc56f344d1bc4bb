"""How a command ends: its exit code, and one line on stderr for an error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from candleshm.commands.interrupting import interruptible
from candleshm.commands.streams import drop, escape_unwritable, open_missing
from candleshm.errors import (
    BlockInUse,
    CandleShmError,
    ClusterRefused,
    ClusterUnavailable,
    ConfigError,
    ExchangeError,
    MissingExtra,
)
from candleshm.system.log_text import printable, without_credentials
from candleshm_command import INTERRUPTED

__all__ = ["outcome"]

# As sysexits.h has them, so that a service manager can tell a typo from an outage, after which to try again.
CONFIGURATION, TEMPORARY, FAILED = os.EX_CONFIG, os.EX_TEMPFAIL, 1


def outcome(command: Callable[[], None]) -> int:
    """Run `command` and return the exit code. Errors in candleshm itself are not caught: their traceback helps most.

    0 is done, 78 a configuration that cannot be used, 75 something outside that may pass (the exchange, the servers of
    a cluster, the system, another collector), 130 an interruption by Ctrl-C of what does not end in order by it,
    1 everything else.
    """
    open_missing()
    escape_unwritable()
    complaint, code = "", 0
    try:
        with interruptible():
            command()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has left, as `head` does.
        drop(sys.stdout)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (CandleShmError, OSError) as error:
        complaint, code = _line(error), _code(error)
    except MemoryError:
        complaint, code = "out of memory", TEMPORARY
    if complaint:
        _settle_stdout()
        try:
            sys.stderr.write(f"candleshm: {complaint}\n")
            sys.stderr.flush()
        except OSError:
            drop(sys.stderr)
    return code


def _code(error: Exception) -> int:
    if isinstance(error, ConfigError | MissingExtra | ClusterRefused):
        return CONFIGURATION
    if isinstance(error, ExchangeError | BlockInUse | ClusterUnavailable):
        return TEMPORARY
    # A file or block that does not exist is the user's affair, everything else that the system refuses is not.
    return TEMPORARY if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) else FAILED


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
    text = ": ".join([*getattr(error, "__notes__", ()), text])
    return printable(without_credentials(" ".join(text.split())))
