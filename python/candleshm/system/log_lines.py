"""How a log record becomes one line: text for people, JSON for programs."""

from __future__ import annotations

import json
import logging
import textwrap
from datetime import UTC, datetime

from candleshm.system.log_events import event_of
from candleshm.system.log_text import printable, without_credentials

__all__ = ["JournalFormatter", "JsonFormatter", "TextFormatter"]

LINE = "%(asctime)s [%(levelname)s] %(message)s"


class TextFormatter(logging.Formatter):
    """One record, one line: text from a name or a response of the exchange cannot pass for a line of its own.

    Every line of a traceback is indented, so that none looks like the beginning of a record.
    """

    def __init__(self, prefix: str = "") -> None:
        super().__init__(LINE)
        self._prefix = prefix

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line with control characters escaped and without the passwords of URLs."""
        return self._prefix + printable(without_credentials(super().formatMessage(record)))

    def formatException(self, ei: object) -> str:
        """Return the traceback, indented."""
        return textwrap.indent(without_credentials(super().formatException(ei)), "    ")  # type: ignore[arg-type]


class JsonFormatter(logging.Formatter):
    """One record, one JSON object on one line: time (ISO 8601, UTC), level, logger, event, block, message.

    `event` is the stable name of what happened, see `log_events`. `block` is null where a record is about no block in
    particular. A record with a traceback has it as `exception`.

    >>> record = logging.makeLogRecord(
    ...     {"name": "candleshm", "levelname": "INFO", "created": 0.25, "msg": "b: loaded", "block": "b"}
    ... )
    >>> print(JsonFormatter().format(record))  # doctest: +ELLIPSIS
    {"time": "1970-01-01T00:00:00.250Z", "level": "INFO", "logger": "candleshm", ..., "block": "b", "message": "loaded"}
    """

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, without the passwords of URLs."""
        block = getattr(record, "block", None)
        message = record.getMessage()
        if block is not None:
            message = message.removeprefix(f"{block}: ")
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "event": event_of(record),
            "block": block,
            "message": without_credentials(message),
        }
        if record.exc_info:
            fields["exception"] = without_credentials(self.formatException(record.exc_info))
        return self._prefix + json.dumps(fields)


class JournalFormatter(logging.Formatter):
    """Lines of another formatter with their priority in front, as systemd's journal reads it (sd-daemon(3)).

    >>> record = logging.makeLogRecord({"levelno": logging.WARNING, "levelname": "WARNING", "msg": "full"})
    >>> JournalFormatter(logging.Formatter("%(levelname)s %(message)s")).format(record)
    '<4>WARNING full'
    """

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines, each with the priority: the journal takes every line as an entry of its own."""
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in self._lines.format(record).split("\n"))


# syslog's numbers: 2 critical, 3 error, 4 warning, 6 informational, 7 debug.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))
