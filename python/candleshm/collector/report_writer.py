"""Writes the report of a collector every second, for `top` and the page; see `reader/collector_report.py`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from candleshm.collector.status import CollectorStatus
from candleshm.errors import CandleShmError
from candleshm.reader.collector_report import CollectorReport, StreamReport, report_path
from candleshm.system.runtime_dir import runtime_dir, share_file

__all__ = ["ReportWriter"]

WRITE_SECONDS = 1.0


class ReportWriter:
    """A thread that writes until `end`, which removes the file. Where it cannot be written nothing is lost but that."""

    def __init__(
        self, name: str, status: Callable[[], CollectorStatus | None], *, derived: tuple[str, ...] = ()
    ) -> None:
        """`name` is the block's; only its owner may write reports on it. `derived` are the blocks made of it."""
        self._name = name
        self._derived = derived
        self._status = status
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="candleshm-report", daemon=True)

    def start(self) -> None:
        """Start writing, unless the system gives no more threads."""
        with suppress(RuntimeError):
            self._thread.start()

    def end(self) -> None:
        """Stop, and remove the report."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(OSError, CandleShmError):
            report_path(self._name).unlink(missing_ok=True)

    def _work(self) -> None:
        while not self._ending.is_set():
            status = self._status()
            if status is not None:
                with suppress(OSError, CandleShmError):
                    self._write(msgspec.structs.replace(report_of(status), derived=self._derived))
            self._ending.wait(WRITE_SECONDS)

    def _write(self, report: CollectorReport) -> None:
        runtime_dir()
        path = report_path(self._name)
        # Whoever owns the block is the only writer. A report that a power failure cuts short is out of date anyway.
        draft = path.with_name(f".{path.name}.draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            share_file(descriptor)
            file.write(msgspec.json.encode(report))
        draft.replace(path)


def report_of(status: CollectorStatus) -> CollectorReport:
    """Return what is told of a status."""
    stream = status.stream
    return CollectorReport(
        pid=os.getpid(),
        written_seconds=time.clock_gettime(time.CLOCK_BOOTTIME),
        symbols=status.symbols,
        loaded=status.loaded,
        missing=status.missing,
        eta_seconds=None if status.is_loaded else status.eta_seconds,
        requests=status.requests,
        errors=status.errors,
        newest_error=status.newest_error,
        failing=tuple(status.failing),
        by_requests=status.by_requests,
        audits=status.audits,
        audit_rows=status.audit_rows,
        verified=status.verified + (stream.verified if stream is not None else 0),
        conflicts=status.conflicts + (stream.conflicts if stream is not None else 0),
        stream=None
        if stream is None
        else StreamReport(
            connections=stream.connections,
            streams=stream.streams,
            path=stream.path,
            path_moves=stream.path_moves,
            lost=stream.lost,
            stalled=stream.stalled,
        ),
    )
