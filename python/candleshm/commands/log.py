"""What a command logs, on stderr, and nothing before its start has succeeded."""

from __future__ import annotations

import logging
import os
import sys
from logging.handlers import MemoryHandler
from typing import Literal

from candleshm.system.console import Console
from candleshm.system.log_lines import JournalFormatter, JsonFormatter, TextFormatter

__all__ = ["CLUSTER_LIBRARIES", "ERASE_LINE", "HeldLog", "LogFormat", "log_to_stderr"]

# A progress bar may stand where a log line is to begin.
ERASE_LINE = "\r\x1b[K"
HELD_RECORDS = 10_000
LogFormat = Literal["text", "json"]

# It warns on stderr of each connection with TLS that is lost, as if that were news to its reader.
CLUSTER_LIBRARIES = ("asyncio",)
# The parent of every module's logger.
logger = logging.getLogger("candleshm")


class HeldLog:
    """Keeps what is logged from `level` on until `release`, so that a start that fails leaves only its one line.

    Of `others`, loggers of libraries, errors alone are logged: what clients do wrong is not worth a line.
    """

    def __init__(self, level: str, form: LogFormat, *others: str) -> None:
        self._form = form
        self._held = MemoryHandler(HELD_RECORDS, flushLevel=logging.CRITICAL + 1)
        logger.addHandler(self._held)
        logger.setLevel(level.upper())
        for other in map(logging.getLogger, others):
            other.addHandler(self._held)
            other.setLevel(logging.ERROR)

    def release(self) -> None:
        """Log to stderr: the kept records, and all from now on."""
        self._held.setTarget(_stderr(self._form))
        self._held.flushLevel = logging.NOTSET
        self._held.flush()


def log_to_stderr(level: int = logging.INFO, *, without: str = "") -> None:
    """Log to stderr from now on, without the events of one name."""
    handler = _stderr("text")
    handler.addFilter(lambda record: not without or getattr(record, "event", "") != without)
    logger.addHandler(handler)
    logger.setLevel(level)


def _stderr(form: LogFormat) -> logging.Handler:
    prefix = ERASE_LINE if sys.stderr.isatty() else ""
    console = Console()
    lines = JsonFormatter(prefix) if form == "json" else TextFormatter(prefix)
    console.setFormatter(JournalFormatter(lines) if _is_journal() else lines)
    return console


def _is_journal() -> bool:
    """Whether stderr leads to systemd's journal, which says so in the environment (systemd.exec(5))."""
    try:
        stream = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"
