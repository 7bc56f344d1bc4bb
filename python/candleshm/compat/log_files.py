"""Where a `CandleServer` logs: to stderr, and to one file a day in LOG_DIRPATH while it serves.

A place that cannot be written never stops the service: it is named once, its lines are dropped, and every further line
tries it again.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from candleshm._core import Zone
from candleshm.compat.known_lines import KnownLines
from candleshm.system.atomic_file import open_plain
from candleshm.system.console import Console, OncePerPlace
from candleshm.system.log_lines import TextFormatter

__all__ = ["RuleLog"]

HELD_RECORDS = 1000

# The parent of every module's logger. Nothing but an open RuleLog sets its level or its handlers.
logger = logging.getLogger("candleshm")


class RuleLog:
    """Handlers on the logger `candleshm` as the LOG_ settings of a rule want them, from `open` until `close`.

    The two calls are counted, so that a server and its downloads may overlap. Log files, and their directory, come
    into being with `to_files`: a start that fails leaves nothing behind. After the last `close` the logger has the
    level and the handlers that the program gave it.
    """

    def __init__(self, directory: str | os.PathLike[str], zone: Zone, *, file_level: str, console_level: str) -> None:
        self._directory = Path(directory)
        self._zone = zone
        self._file_level = file_level.upper()
        self._console_level = console_level.upper()
        self._lock = threading.RLock()
        self._opened = 0
        self._handlers: tuple[Console, _DayFiles] | None = None
        self._lines = KnownLines()

    def open(self, *, to_files: bool = False) -> None:
        """Log to stderr, and keep the records for the files, until as many `close` have followed."""
        with self._lock:
            self._opened += 1
            if self._opened == 1:
                console, files = self._handlers = Console(), _DayFiles(self._directory, self._zone)
                console.setLevel(self._console_level)
                console.addFilter(_is_shown_by_nobody_else)
                files.setLevel(self._file_level)
                for handler in self._handlers:
                    handler.setFormatter(TextFormatter())
                    logger.addHandler(handler)
                self._lines.install()
                _LEVELS.add(self, min(console.level, files.level))
        if to_files:
            self.to_files()

    def to_files(self) -> None:
        """Write to files: the kept records, and all from now on."""
        with self._lock:
            if self._handlers is not None:
                self._handlers[1].write_held()

    def close(self) -> None:
        """Take one `open` back. More calls than that are harmless."""
        with self._lock:
            self._opened = max(0, self._opened - 1)
            if self._opened or self._handlers is None:
                return
            for handler in self._handlers:
                logger.removeHandler(handler)
                handler.close()
            self._handlers = None
            self._lines.remove()
            _LEVELS.remove(self)


class _Levels:
    """The level of the logger `candleshm`: the lowest of the open logs, and without one what the program had set."""

    def __init__(self) -> None:
        # Re-entrant, as the other one: a signal handler that closes may interrupt this very thread.
        self._lock = threading.RLock()
        self._wanted: dict[RuleLog, int] = {}
        self._before = logging.NOTSET

    def add(self, log: RuleLog, level: int) -> None:
        with self._lock:
            if not self._wanted:
                self._before = logger.level
            self._wanted[log] = level
            logger.setLevel(min(self._wanted.values()))

    def remove(self, log: RuleLog) -> None:
        with self._lock:
            del self._wanted[log]
            logger.setLevel(min(self._wanted.values(), default=self._before))


_LEVELS = _Levels()


def _is_shown_by_nobody_else(record: logging.LogRecord) -> bool:
    """Say whether no handler of the program itself brings a record to the terminal, where it would stand twice."""
    terminal = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return not any(
        isinstance(handler, logging.StreamHandler)
        and any(handler.stream is stream for stream in terminal)
        and record.levelno >= handler.level
        for handler in _handlers_of(record)
    )


def _handlers_of(record: logging.LogRecord) -> Iterator[logging.Handler]:
    """Go through the handlers that a record reaches: its logger's, and those of the loggers above it."""
    source: logging.Logger | None = logging.getLogger(record.name)
    while source is not None:
        yield from source.handlers
        source = source.parent if source.propagate else None


class _DayFiles(logging.Handler):
    """Appends to `{directory}/{YYYY-MM-DD}.log`. A directory that cannot be written, or a full disk, costs one warning.

    Each line opens and closes the file: lines are few, the day may change between two of them, and nothing is open
    that a cleanup of old files could pull away. So a disk that has room again, or a directory that is there again, is
    found by the next line, which says how many are missing.
    """

    def __init__(self, directory: Path, zone: Zone) -> None:
        super().__init__()
        self._directory = directory
        self._zone = zone
        self._held: deque[logging.LogRecord] | None = deque(maxlen=HELD_RECORDS)
        self._missing = 0
        self._torn: Path | None = None
        self.addFilter(OncePerPlace(os.path.abspath(directory)))

    def write_held(self) -> None:
        self.acquire()
        try:
            held, self._held = self._held or (), None
            for record in held:
                self.emit(record)
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        if self._held is not None:
            self._held.append(record)
            return
        offset = timedelta(milliseconds=self._zone.offset_ms(int(record.created * 1000)))
        day = datetime.fromtimestamp(record.created, timezone(offset))
        line = f"{self.format(record)}\n"
        try:
            self._append(self._directory / f"{day:%Y-%m-%d}.log", line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            self._missing += 1
            if self._missing == 1:
                logger.warning("LOG_DIRPATH `%s` cannot be written, logging to stderr only: %s", self._directory, error)
        else:
            if self._missing:
                missing, self._missing = self._missing, 0
                logger.warning("LOG_DIRPATH `%s` is written again; %d lines are missing", self._directory, missing)

    def _append(self, path: Path, line: bytes) -> None:
        """Append a whole line. What a full disk took only a part of, is ended as a line by the next one."""
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor = open_plain(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid() or status.st_nlink != 1:
                # Another user may have given that name to a file of his, or to one of ours.
                raise PermissionError(errno.EPERM, "it is not this user's alone, under this name alone", str(path))
            if self._torn == path:
                line = b"\n" + line
            while line:
                written = os.write(descriptor, line)
                self._torn, line = path, line[written:]
            self._torn = None
        finally:
            os.close(descriptor)
