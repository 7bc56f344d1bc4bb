"""What a collector says of its work beyond its block: a small file beside the weight ledger, replaced every second.

Readers of candles do not need it. `top` and the page show it: who keeps each series fresh, by which path, what fails.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from candleshm.errors import CandleShmError
from candleshm.system.runtime_dir import check_ours, runtime_path

__all__ = ["CollectorReport", "StreamReport", "last_report", "read_report", "report_path"]

# A report that is older says nothing of now.
FRESH_SECONDS = 5.0
REPORT_BYTES_MAX = 4 * 1024 * 1024


class StreamReport(msgspec.Struct, frozen=True):
    """The streams of a collector."""

    connections: int
    streams: int
    path: str
    path_moves: int
    lost: int
    stalled: tuple[str, ...]


class CollectorReport(msgspec.Struct, frozen=True, kw_only=True):
    """Where one collector stands. Times are in seconds."""

    pid: int
    written_seconds: float
    """`CLOCK_BOOTTIME`, the same for all processes of a machine."""
    symbols: int
    loaded: int
    missing: int
    eta_seconds: float | None
    """How long the start still takes; None while that is not known."""
    requests: int
    errors: Mapping[str, int]
    """Failed requests by kind."""
    newest_error: str
    """The newest failure in words; empty while there was none."""
    failing: tuple[str, ...]
    """Symbols whose newest request failed."""
    by_requests: tuple[str, ...]
    """Symbols that requests keep fresh, because there are no streams or theirs does not flow."""
    audits: int
    audit_rows: Mapping[str, int]
    """Closed rows that were requested again, by result: equal, corrected, missing."""
    verified: int
    """Rows that a second source confirmed."""
    conflicts: int
    """Rows in which two sources differed."""
    stream: StreamReport | None = None
    """None where everything comes by requests."""
    derived: tuple[str, ...] = ()
    """Names of the blocks that it derives from its own."""


def report_path(name: str) -> Path:
    """Return where the report on a block lies. Raises ConfigError for a group that cannot be used."""
    return runtime_path() / f"report-{name}.json"


def last_report(name: str) -> CollectorReport | None:
    """Return the newest report on a block, however old it is; None where there is none that can be read."""
    try:
        path = report_path(name)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            check_ours(path, status, stat.S_ISREG)
            return msgspec.json.decode(file.read(REPORT_BYTES_MAX), type=CollectorReport)
    except (OSError, CandleShmError, msgspec.DecodeError):
        return None


def read_report(name: str, pid: int) -> CollectorReport | None:
    """Return the newest report of process `pid` on a block; None where there is none of now that can be read."""
    report = last_report(name)
    if report is None:
        return None
    age_seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - report.written_seconds
    return report if report.pid == pid and 0 <= age_seconds <= FRESH_SECONDS else None
