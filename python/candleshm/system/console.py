"""A log handler for stderr that never holds up the program that logs."""

from __future__ import annotations

import logging
import select
import sys
from typing import TextIO

__all__ = ["Console", "OncePerPlace"]

logger = logging.getLogger(__name__)


class OncePerPlace(logging.Filter):
    """Lets a record pass once per place: several servers of one process may share a console or a directory."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self._place = place

    def filter(self, record: logging.LogRecord) -> bool:
        places: set[str] = record.__dict__.setdefault("candleshm_places", set())
        if self._place in places:
            return False
        places.add(self._place)
        return True


class Console(logging.Handler):
    """Writes to stderr. Where stderr is full, closed or a broken pipe, lines are dropped without a traceback.

    A pipe that nobody empties, or a stopped terminal, would block the thread that logs, and with it the heartbeat, so
    it counts as full. The first line that is written again is preceded by the number of dropped ones; some of them may
    have come through from the buffer.
    """

    def __init__(self) -> None:
        super().__init__()
        self._refused = 0
        self.addFilter(OncePerPlace("console"))

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr
        if stream is None:
            return
        line = f"{self.format(record)}\n"
        if _would_block(stream):
            self._refused += 1
            return
        try:
            if self._refused:
                stream.write(f"{self.format(_refusal(self._refused))}\n")
            try:
                stream.write(line)
            except UnicodeEncodeError:
                # An old locale, and a symbol that is not ASCII.
                encoding = stream.encoding or "ascii"
                stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
            self._refused = 0
        except (OSError, ValueError):  # ValueError: closed
            self._refused += 1


def _refusal(count: int) -> logging.LogRecord:
    return logger.makeRecord(
        logger.name, logging.WARNING, __file__, 0, "stderr refused %d log lines", (count,), exc_info=None
    )


def _would_block(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
    except (AttributeError, OSError, ValueError):
        return False  # no file of the system's, as in a notebook
    # A pipe is ready when it takes 4096 bytes, more than a line has.
    return not poll.poll(0)
