"""The command `replay --recording`: what the exchange sent, once more into a block, and how that ended."""

from __future__ import annotations

import json
import signal
import sys
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from candleshm.collector.recorded_run import RecordedRun, RecordingReport, replay_recording
from candleshm.commands.progress import ProgressLine
from candleshm.commands.streams import say
from candleshm.commands.table import aligned
from candleshm.row_state import RowState
from candleshm.system.log_text import counted

__all__ = ["DIFFERENT", "replay_recording_command"]

DIFFERENT = 1
"""The exit status when something is missing in the recording, or did something else here."""
GAPS_MAX = 5


def replay_recording_command(directory: Path, name: str | None, *, as_json: bool) -> int:
    """Replay a recording, print what was replayed, and return the exit status.

    With a name the block stays for readers until a signal comes. Raises as `candleshm.replay_recording`.
    """
    with ProgressLine("replaying") as line:

        def show(records: int, until_ms: int | None) -> None:
            line.show(None, f"{records:,} records, {_utc(until_ms)} UTC")

        run = replay_recording(directory, name=name, progress=show)
    with run:
        text = f"{json.dumps(_facts(run), default=str)}\n" if as_json else _table(run)
        say(text, sys.stdout)
        if not as_json:
            say("".join(f"candleshm: {line}\n" for line in _lines(run.report)), sys.stderr)
        if name is not None:
            stopped = _stopped_by_signals()
            say(f'candleshm.attach("{name}") reads it until Ctrl-C\n', sys.stderr)
            stopped.wait()
    return 0 if run.report.is_whole else DIFFERENT


def _stopped_by_signals() -> threading.Event:
    """Return what is set once a stop signal has come."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: stopped.set())
    return stopped


def _facts(run: RecordedRun) -> dict[str, object]:
    return asdict(run.report) | {"is_whole": run.report.is_whole, "series": _series(run)}


def _series(run: RecordedRun) -> list[dict[str, object]]:
    """Return what each series of each block holds at the end."""
    found = []
    for feed in (run.feed, *run.derived.values()):
        for symbol in feed.symbols:
            series = feed[symbol]
            states = series.states(holes="nan")
            found.append(
                {
                    "block": feed.name,
                    "interval": feed.interval,
                    "symbol": symbol,
                    "rows": len(states),
                    "missing": int((states == RowState.MISSING).sum()),
                    "holes": int((states == RowState.HOLE).sum()),
                    "newest_ms": series.last_open_time_ms,
                    "revision": series.revision,
                }
            )
    return found


def _table(run: RecordedRun) -> str:
    report = run.report
    rows = [
        [str(item[key]) for key in ("interval", "symbol", "rows", "missing", "holes", "revision")]
        + [_utc(item["newest_ms"] if isinstance(item["newest_ms"], int) else None)]
        for item in _series(run)
    ]
    heads = ("interval", "symbol", "rows", "missing", "holes", "revisions", "newest candle (UTC)")
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(report.records.items()))
    return (
        f"recording  {report.directory}\n"
        f"from       {_utc(report.from_ms)} UTC\n"
        f"until      {_utc(report.until_ms)} UTC, replayed in {report.seconds:.1f} s\n"
        f"records    {kinds}\n"
        f"runs       {report.runs}, the newest {'ended in order' if report.ended else 'without an end'}\n"
        f"requests   {', '.join(f'{count:,} {kind}' for kind, count in sorted(report.requests.items())) or 'none'}\n"
        f"planner    requests the planner did not ask for: {report.unasked:,}; "
        f"plans that came out otherwise: {report.strayed:,}\n"
        f"missing    {report.missing:,} records; {report.left_out:,} before a checkpoint; "
        f"{report.differing:,} did something else\n\n"
        f"{aligned(heads, rows, left=('interval', 'symbol'))}"
    )


def _lines(report: RecordingReport) -> list[str]:
    """Return what is wrong, a line each."""
    lines = [f"{path}: cut after {records:,} records: {reason}" for path, records, reason in report.cuts[:GAPS_MAX]]
    if len(report.cuts) > GAPS_MAX:
        lines.append(f"{len(report.cuts) - GAPS_MAX} more files are cut")
    if report.missing:
        lines.append(f"{report.missing:,} records were dropped while it was recorded: the disk was too slow or full")
    if report.left_out:
        lines.append(f"{report.left_out:,} records come before the first checkpoint of their series, and were left out")
    if report.differing:
        lines.append(f"{report.differing:,} records did something else here; the first: {report.difference}")
    if report.unasked:
        unasked = counted(report.unasked, "request")
        lines.append(f"the planner did not ask for {unasked}; the first: {report.first_unasked}")
    if report.strayed:
        lines.append(f"{counted(report.strayed, 'plan')} came out otherwise here; the first: {report.first_strayed}")
    return lines


def _utc(moment_ms: int | None) -> str:
    return "-" if moment_ms is None else f"{datetime.fromtimestamp(moment_ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"
