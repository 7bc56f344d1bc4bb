"""Where a collector logs: stderr, and for a `CandleServer` one file a day as long as it serves.

What cannot be written is never a reason to stop serving: a place that fails is named once, lines for it are dropped,
and it is tried again with every line.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
import textwrap
from collections import deque
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TextIO

from candleshm._core import Zone
from candleshm.system.atomic_file import open_plain
from candleshm.system.log_text import printable, without_credentials

__all__ = ["Console", "LineFormatter", "ServerLog"]

LINE = "%(asctime)s [%(levelname)s] %(message)s"
HELD_RECORDS = 1000

logger = logging.getLogger("candleshm")


class ServerLog:
    """Handlers on the logger `candleshm`, from `open` until `close`.

    Log files, and their directory, come into being with `to_files`: a start that fails leaves nothing behind.
    """

    def __init__(self, directory: str | os.PathLike[str], zone: Zone, *, file_level: str, console_level: str) -> None:
        self._directory = Path(directory)
        self._zone = zone
        self._file_level = file_level.upper()
        self._console_level = console_level.upper()
        self._files: _DayFiles | None = None
        self._console: Console | None = None

    def open(self) -> None:
        """Log to stderr; keep what is for the files."""
        self._console, self._files = Console(), _DayFiles(self._directory, self._zone)
        self._console.setLevel(self._console_level)
        self._files.setLevel(self._file_level)
        for handler in (self._console, self._files):
            handler.setFormatter(LineFormatter())
            logger.addHandler(handler)
        _set_level()

    def to_files(self) -> None:
        """Write to files, what was kept and everything from now on."""
        if self._files is not None:
            self._files.write_held()

    def close(self) -> None:
        """End logging here. Calling it twice is harmless."""
        for handler in (self._console, self._files):
            if handler is not None:
                logger.removeHandler(handler)
                handler.close()
        _set_level()


class LineFormatter(logging.Formatter):
    """One record, one line: what a name or an answer of the exchange holds cannot pass for a line of its own.

    Of a traceback every line is indented, so that none looks like the beginning of a record.
    """

    def __init__(self, prefix: str = "") -> None:
        super().__init__(LINE)
        self._prefix = prefix

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line, control characters spelled out, passwords of addresses left out."""
        return self._prefix + printable(without_credentials(super().formatMessage(record)))

    def formatException(self, ei: object) -> str:
        """Return the traceback, indented."""
        return textwrap.indent(without_credentials(super().formatException(ei)), "    ")  # type: ignore[arg-type]


class _OncePerPlace(logging.Filter):
    """Lets a record pass once per place: servers of one process may share a console or a directory."""

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
    """Writes to stderr; one that is full, closed or a broken pipe costs lines, and no traceback.

    A pipe that nobody empties, or a terminal that was stopped, would hold up whoever logs, and with it the heartbeat:
    it counts as full. When it takes lines again it is told how many it refused; some may have come through from its
    buffer.
    """

    def __init__(self) -> None:
        super().__init__()
        self._refused = 0
        self.addFilter(_OncePerPlace("console"))

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
                stream.write(f"stderr refused {self._refused} log lines\n")
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


def _would_block(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
    except (AttributeError, OSError, ValueError):
        return False  # no file of the system's, as in a notebook
    # A pipe is ready when it takes 4096 bytes, more than a line has.
    return not poll.poll(0)


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
        self.addFilter(_OncePerPlace(os.path.abspath(directory)))

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


def _set_level() -> None:
    """Let pass what any of our handlers wants; without one, what the application says."""
    levels = [handler.level for handler in logger.handlers if isinstance(handler, Console | _DayFiles)]
    logger.setLevel(min(levels, default=logging.NOTSET))
