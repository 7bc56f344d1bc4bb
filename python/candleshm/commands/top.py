"""The command `top`: a block and its collector, or all blocks, live."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict

import msgspec

from candleshm.commands.keys import Keys
from candleshm.commands.listing import unlisted
from candleshm.commands.overview import Overview
from candleshm.commands.screen import Screen
from candleshm.commands.selection import Selection
from candleshm.commands.series_table import SeriesTable
from candleshm.errors import BlockError
from candleshm.reader.collector_report import CollectorReport, read_report
from candleshm.reader.events import Event, changes
from candleshm.reader.feed import blocks
from candleshm.reader.figures import age, clock_time, kind_of, lag_of, role_of
from candleshm.reader.freshness import Freshness
from candleshm.reader.health import Health
from candleshm.reader.notes import note
from candleshm.reader.observation import Observation, SeriesFacts, attach_to_observe, observe
from candleshm.system.log_text import counted, printable

__all__ = ["Board", "top", "top_json"]

FRAME_SECONDS, APPENDED_SECONDS = 0.5, 2.0
EVENTS_KEPT = 100
# Of the lines below the heads the events get one part in four, the table the rest.
EVENTS_PART = 4
BAR_WIDTH = 16
NAMED_MAX = 3


def top(name: str | None, *, interval_seconds: float | None, once: bool, max_age_seconds: float) -> None:
    """Show the block `name`, or all blocks, until `q` or a signal, or `once`.

    Raises BlockNotFound and what else `attach` raises.
    """
    with Keys() as keys, Screen() as screen:
        if interval_seconds is None:
            interval_seconds = FRAME_SECONDS if screen.is_terminal else APPENDED_SECONDS
        pause_seconds = None if once else interval_seconds
        if name is not None:
            _show_block(name, screen, keys, pause_seconds, max_age_seconds)
            return
        overview = Overview(screen)
        chosen: str | None = None
        while True:
            if chosen is not None:
                with suppress(BlockError):  # It may be gone by now.
                    if not _show_block(chosen, screen, keys, pause_seconds, max_age_seconds, can_leave=True):
                        return
            screen.show(overview.frame(blocks(), unlisted()))
            if once:
                return
            typed = keys.wait(interval_seconds)
            if keys.has_stopped or "q" in typed:
                return
            chosen = overview.chosen(typed)


def _show_block(
    name: str,
    screen: Screen,
    keys: Keys,
    pause_seconds: float | None,
    max_age_seconds: float,
    *,
    can_leave: bool = False,
) -> bool:
    """Show one block, once where there is no pause; return whether it was left for the others, with `a`."""
    with attach_to_observe(name) as feed:
        board = Board(screen, max_age_seconds, hint="a: all blocks; q: end" if can_leave else "q: end")
        while True:
            seen = observe(feed)
            screen.show(board.frame(seen, time.time() * 1000, read_report(seen.health.name, seen.health.pid)))
            if pause_seconds is None:
                return False
            typed = keys.wait(pause_seconds)
            is_command = not board.selection.is_typing
            if keys.has_stopped or (is_command and "q" in typed):
                return False
            if can_leave and is_command and "a" in typed:
                return True
            board.selection.type(typed)


def top_json(name: str | None) -> str:
    """Return what `top` shows of the block `name`, or of all blocks, as a JSON list of objects.

    Each has the fields of `Health`, its `condition`, the collector's `report` (null without one), and `series`, with
    the `source` of each: "stream", "requests", or "" where that is not known. Ages are in seconds; null stands for
    what there is not yet. Raises as `attach`.
    """
    names = [name] if name is not None else [health.name for health in blocks()]
    found = []
    for each in names:
        try:
            with attach_to_observe(each) as feed:
                seen = observe(feed)
        except BlockError:
            if name is not None:
                raise
            continue  # It has ended meanwhile.
        report = read_report(seen.health.name, seen.health.pid)
        by_requests = frozenset(report.by_requests) if report is not None else None
        series = [
            {**asdict(facts), "newest_state": facts.state, "source": _source(facts, by_requests)}
            for facts in seen.series
        ]
        found.append(
            {
                **asdict(seen.health),
                "condition": seen.health.condition,
                "closed_until_ms": seen.closed_until_ms,
                "report": report,
                "series": series,
            }
        )
    return msgspec.json.format(msgspec.json.encode(found)).decode() + "\n"


class Board:
    """The frames: lines about the block and its collector, the series that need attention first, and the events."""

    def __init__(self, screen: Screen, max_age_seconds: float, hint: str = "") -> None:
        self._screen = screen
        self._hint = hint
        self._max_age_seconds = max_age_seconds
        self.selection = Selection(max_age_seconds)
        """Which series are shown, chosen by keys."""
        self._before: Observation | None = None
        self._events: deque[tuple[float, Event]] = deque(maxlen=EVENTS_KEPT)

    def frame(self, seen: Observation, now_ms: float, report: CollectorReport | None = None) -> list[str]:
        """Return the lines for what is seen at `now_ms`, as many as the terminal has, elsewhere all of them.

        `report` is the collector's, None where there is none: of a derived block, or while the collector is down.
        """
        if self._before is not None:
            for event in changes(self._before, seen, self._max_age_seconds):
                if event.is_routine and self._events and self._events[-1][1].is_routine:
                    self._events.pop()
                self._events.append((now_ms, event))
        self._before = seen
        head = [*self._head(seen, now_ms), *(self._work(report) if report is not None else [])]
        head += [self._screen.faint(self.selection.hint) if self._screen.is_terminal else ""]
        table = SeriesTable(self._screen, seen.series, self._max_age_seconds, has_report=report is not None)
        head += [self._screen.heading(table.head)]
        by_requests = frozenset(report.by_requests) if report is not None else None
        rows = [table.row(facts, _source(facts, by_requests)) for facts in self.selection.of(seen.series)]
        events = [self._event(*happened) for happened in reversed(self._events)]
        if self._screen.height is not None:
            room = max(0, self._screen.height - len(head) - 2)
            events_room = min(len(events), max(room // EVENTS_PART, room - len(rows)))
            rows = self._cut(rows, room - max(1, events_room))
            events = events[:events_room]
        elif not events:
            return [*head, *rows]
        nothing = [self._screen.faint("no events yet; closes, stale series, gaps, corrections and bans appear here")]
        return [*head, *rows, "", self._screen.heading("EVENTS (UTC)"), *(events or nothing)]

    def _head(self, seen: Observation, now_ms: float) -> list[str]:
        health, screen = seen.health, self._screen
        title = f"{screen.strong(health.name)}  {kind_of(health)} {health.interval}, "
        title += f"{counted(health.symbols, 'symbol')} of {health.length:,} candles"
        alive = f"collector {health.pid}, heartbeat {age(health.heartbeat_age)} ago"
        return [
            *screen.folded([title, *_state(health, screen), *self._shown_hint()], "  "),
            *screen.folded([alive, _weight(health, screen)], "  "),
            *_cluster(health),
            *screen.folded(self._content(seen, now_ms), ", "),
        ]

    def _work(self, report: CollectorReport) -> list[str]:
        """Return who keeps the series fresh and what was proven, how far a start is, and what fails."""
        stream, requested = report.stream, len(report.by_requests)
        by_requests = f"{counted(requested, 'symbol')} by requests"
        if stream is None:
            words = [f"no streams, {by_requests}"]
        else:
            connections = counted(stream.connections, "connection")
            words = [f"{counted(stream.streams, 'stream')} on {connections}, {by_requests}"]
            if stream.stalled:
                words.append(self._screen.alarm(f"{len(stream.stalled)} stalled: {_named(stream.stalled)}"))
            words.append(f"path {stream.path}")
        audited = ", ".join(f"{count:,} {result}" for result, count in report.audit_rows.items())
        words.append(f"{report.audits:,} audits{f' ({audited})' if report.audits else ''}")
        if report.conflicts:
            words.append(f"{report.conflicts:,} rows in which sources differed")
        lines = self._screen.folded(words, "  ")
        if report.loaded < report.symbols:
            left = "" if not report.eta_seconds else f", {report.eta_seconds:.0f} s to go"
            lines.append(f"loading: {report.loaded} of {counted(report.symbols, 'symbol')}{left}")
        if report.failing or report.newest_error:
            failed = sum(report.errors.values())
            now = f"now failing: {_named(report.failing)}" if report.failing else "no symbol fails now"
            newest = printable(report.newest_error)
            parts = [f"{failed:,} of {report.requests:,} requests failed, {now};", f"the newest: {newest}"]
            style = self._screen.alarm if report.failing else self._screen.faint
            lines += map(style, self._screen.folded(parts, " "))
        return lines

    def _shown_hint(self) -> list[str]:
        return [self._screen.faint(f" {self._hint}")] if self._hint and self._screen.is_terminal else []

    def _content(self, seen: Observation, now_ms: float) -> list[str]:
        health = seen.health
        freshness = Freshness.of(
            [facts.age_seconds for facts in seen.series if facts.trading], max_age=self._max_age_seconds
        )
        trades = any(facts.trading for facts in seen.series)
        words = [
            f"{health.missing:,} missing",
            f"{health.holes:,} holes",
            self._screen.alarm(f"{freshness.stale} stale") if freshness.stale else "0 stale",
            f"oldest {age(freshness.oldest_age)}" if trades else "no symbol trades",
        ]
        if health.failing:
            words.append(self._screen.alarm(f"{health.failing} failing"))
        if health.last_error_at is not None:
            at_ms = health.last_error_at.timestamp() * 1000
            words.append(f"last error {health.last_error} at {clock_time(at_ms)}")
        if seen.closed_until_ms is not None:
            behind_seconds = max(0.0, now_ms - seen.closed_until_ms) / 1000
            words.append(f"closed until {clock_time(seen.closed_until_ms)}, {age(behind_seconds)} ago")
        return words

    def _cut(self, rows: list[str], room: int) -> list[str]:
        if len(rows) <= room:
            return rows
        shown = max(0, room - 1)
        return [*rows[:shown], self._screen.faint(f"and {len(rows) - shown} more in no worse state")]

    def _event(self, at_ms: float, event: Event) -> str:
        text = self._screen.alarm(event.text) if event.is_bad else event.text
        return f"{self._screen.faint(clock_time(at_ms))}  {text}"


def _state(health: Health, screen: Screen) -> list[str]:
    """Return the state in words, as one part of a line where the terminal is wide enough."""
    word, text = health.condition, note(health)
    style: Callable[[str], str] = screen.alarm
    if word == "ready":
        is_banned = health.banned_until is not None
        text, style = (text, screen.alarm) if is_banned else ("ready", lambda shown: screen.signed(shown, 1))
    elif word == "loading" and health.banned_until is None:
        text, style = word, str
    elif health.replayed_at is not None and word == "replay":
        text, style = f"replay: {health.replayed_at:%Y-%m-%d %H:%M:%S} UTC", str
    elif text:
        text = f"{word}: {text}"
    return [style(part) for part in screen.wrapped(text or word)]


def _cluster(health: Health) -> list[str]:
    """Return a line about where the rows of a block of a cluster come from; none for any other block."""
    role, lag = role_of(health), lag_of(health)
    if not role:
        return []
    if role == "alone":
        return ["cluster: alone, collects everything for this host"]
    if lag and not lag.startswith("nothing"):
        lag += " behind"
    where = "" if role == "leader" else f" of {health.source}{f', {lag}' if lag else ''}"
    return [f"cluster: {role}{where}, epoch {health.epoch}"]


def _weight(health: Health, screen: Screen) -> str:
    share = min(1.0, health.weight_used / health.weight_limit) if health.weight_limit else 0.0
    filled = round(share * BAR_WIDTH)
    bar = "█" * filled + screen.faint("░" * (BAR_WIDTH - filled))
    return f"weight {bar} {health.weight_used:,} of {health.weight_limit:,}"


def _source(facts: SeriesFacts, by_requests: Collection[str] | None) -> str:
    """Return who keeps a series fresh, where that is known."""
    if by_requests is None or not facts.trading:
        return ""
    return "requests" if facts.symbol in by_requests else "stream"


def _named(symbols: Sequence[str]) -> str:
    rest = len(symbols) - NAMED_MAX
    return ", ".join(symbols[:NAMED_MAX]) + (f" and {rest} more" if rest > 0 else "")
