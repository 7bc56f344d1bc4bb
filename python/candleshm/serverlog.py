"""Where a `CandleServer` logs: stderr, and one file a day, for as long as it serves."""

from __future__ import annotations

import logging
import os
from collections import deque
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TextIO

__all__ = ["ServerLog"]

LINE = "%(asctime)s [%(levelname)s] %(message)s"
HELD_RECORDS = 1000

logger = logging.getLogger("candleshm")


class ServerLog:
    """Handlers on the logger `candleshm`, from `open` until `close`.

    Log files, and their directory, come into being with `to_files`: a start that fails leaves nothing behind.
    """

    def __init__(self, directory: str | os.PathLike[str], zone: tzinfo, *, file_level: str, console_level: str) -> None:
        self._directory = Path(directory)
        self._zone = zone
        self._file_level = file_level.upper()
        self._console_level = console_level.upper()
        self._files: _DayFiles | None = None
        self._console: _Console | None = None

    def open(self) -> None:
        """Log to stderr; keep what is for the files."""
        self._console, self._files = _Console(), _DayFiles(self._directory, self._zone)
        self._console.setLevel(self._console_level)
        self._files.setLevel(self._file_level)
        for handler in (self._console, self._files):
            handler.setFormatter(logging.Formatter(LINE))
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


class _Console(logging.StreamHandler[TextIO]):
    def __init__(self) -> None:
        super().__init__()
        self.addFilter(_OncePerPlace("console"))


class _DayFiles(logging.Handler):
    """Appends to `{directory}/{YYYY-MM-DD}.log`. A directory that cannot be written costs one warning, not the service.

    Each line opens and closes the file: lines are few, the day may change between two of them, and nothing is open
    that a cleanup of old files could pull away.
    """

    def __init__(self, directory: Path, zone: tzinfo) -> None:
        super().__init__()
        self._directory = directory
        self._zone = zone
        self._held: deque[logging.LogRecord] | None = deque(maxlen=HELD_RECORDS)
        self._is_broken = False
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
        elif not self._is_broken:
            day = datetime.fromtimestamp(record.created, self._zone)
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                with (self._directory / f"{day:%Y-%m-%d}.log").open("a", encoding="utf-8") as file:
                    file.write(f"{self.format(record)}\n")
            except OSError as error:
                self._is_broken = True
                logger.warning("LOG_DIRPATH `%s` cannot be written, logging to stderr only: %s", self._directory, error)


def _set_level() -> None:
    """Let pass what any of our handlers wants; without one, what the application says."""
    levels = [handler.level for handler in logger.handlers if isinstance(handler, _Console | _DayFiles)]
    logger.setLevel(min(levels, default=logging.NOTSET))
