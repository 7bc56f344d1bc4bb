"""The command `top`: a block and its collector, or all blocks, live."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress

from candleshm.commands.keys import Keys
from candleshm.commands.listing import unlisted
from candleshm.commands.overview import Overview
from candleshm.commands.screen import Screen
from candleshm.errors import BlockError
from candleshm.reader.events import Event, changes
from candleshm.reader.feed import blocks
from candleshm.reader.figures import age, change, clock_time, price
from candleshm.reader.freshness import Freshness
from candleshm.reader.health import Health
from candleshm.reader.notes import note
from candleshm.reader.observation import Observation, SeriesFacts, attach_to_observe, observe

__all__ = ["Board", "top"]

FRAME_SECONDS, APPENDED_SECONDS = 0.5, 2.0
EVENTS_KEPT = 100
# Of the lines below the heads the events get one part in four, the table the rest.
EVENTS_PART = 4
BAR_WIDTH = 16
NAME_WIDTH = 12
# Ages are compared in steps of so many seconds, or fresh series would change places with every frame.
AGE_STEP_SECONDS = 5.0


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
            screen.show(board.frame(observe(feed), time.time() * 1000))
            if pause_seconds is None:
                return False
            typed = keys.wait(pause_seconds)
            if keys.has_stopped or "q" in typed:
                return False
            if can_leave and "a" in typed:
                return True


class Board:
    """The frames: three lines about the block, the series that need attention first, and the events."""

    def __init__(self, screen: Screen, max_age_seconds: float, hint: str = "") -> None:
        self._screen = screen
        self._hint = hint
        self._max_age_seconds = max_age_seconds
        self._before: Observation | None = None
        self._events: deque[tuple[float, Event]] = deque(maxlen=EVENTS_KEPT)

    def frame(self, seen: Observation, now_ms: float) -> list[str]:
        """Return the lines for what is seen at `now_ms`, as many as the terminal has, elsewhere all of them."""
        if self._before is not None:
            for event in changes(self._before, seen, self._max_age_seconds):
                if event.is_routine and self._events and self._events[-1][1].is_routine:
                    self._events.pop()
                self._events.append((now_ms, event))
        self._before = seen
        head = [*self._head(seen, now_ms), "", self._screen.heading(self._table_head(seen.series))]
        rows = [self._row(facts) for facts in ordered(seen.series, self._max_age_seconds)]
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
        title = f"{screen.strong(health.name)}  {health.market} {health.interval}, "
        title += f"{health.symbols} symbols of {health.length:,} candles"
        return [
            f"{title}  {_state(health, screen)}{self._shown_hint()}",
            f"collector {health.pid}, heartbeat {age(health.heartbeat_age)} ago  {_weight(health, screen)}",
            self._content(seen, now_ms),
        ]

    def _shown_hint(self) -> str:
        return self._screen.faint(f"   {self._hint}") if self._hint and self._screen.is_terminal else ""

    def _content(self, seen: Observation, now_ms: float) -> str:
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
        if seen.closed_until_ms is not None:
            behind_seconds = max(0.0, now_ms - seen.closed_until_ms) / 1000
            words.append(f"closed until {clock_time(seen.closed_until_ms)}, {age(behind_seconds)} ago")
        return ", ".join(words)

    def _table_head(self, series: Sequence[SeriesFacts]) -> str:
        self._name_width = max([NAME_WIDTH, *(len(facts.symbol) for facts in series)])
        columns = f"{'LIVE CLOSE':>16} {'CHANGE':>10} {'AGE':>8}  {'STATE':<8} {'MISSING':>7} {'HOLES':>6} {'REV':>4}"
        return f"{'SYMBOL':<{self._name_width}} {columns}"

    def _row(self, facts: SeriesFacts) -> str:
        screen = self._screen
        name = f"{facts.symbol:<{self._name_width}}"
        age_text = f"{age(facts.age_seconds):>8}"
        missing = f"{facts.missing or '-':>7}"
        tail = f"{facts.holes or '-':>6} {facts.revision or '-':>4}"
        if not facts.trading:
            return screen.faint(
                f"{name} {price(facts.close):>16} {'-':>10} {age_text}  {'delisted':<8} {missing} {tail}"
            )
        is_stale = facts.is_stale(self._max_age_seconds)
        return (
            f"{screen.alarm(name) if is_stale else name} {price(facts.close):>16} "
            f"{screen.signed(change(facts.change), facts.change)} {screen.alarm(age_text) if is_stale else age_text}  "
            f"{facts.state:<8} {screen.alarm(missing) if facts.missing else missing} {tail}"
        )

    def _cut(self, rows: list[str], room: int) -> list[str]:
        if len(rows) <= room:
            return rows
        shown = max(0, room - 1)
        return [*rows[:shown], self._screen.faint(f"and {len(rows) - shown} more in no worse state")]

    def _event(self, at_ms: float, event: Event) -> str:
        text = self._screen.alarm(event.text) if event.is_bad else event.text
        return f"{self._screen.faint(clock_time(at_ms))}  {text}"


def ordered(series: Iterable[SeriesFacts], max_age_seconds: float) -> list[SeriesFacts]:
    """Return the series that need attention first: empty, stale, incomplete, then by age; delisted ones last."""

    def rank(facts: SeriesFacts) -> tuple[bool, float, int, float]:
        age_steps = facts.age_seconds if facts.is_empty else facts.age_seconds // AGE_STEP_SECONDS
        is_late = facts.is_empty or facts.is_stale(max_age_seconds)
        return not facts.trading, -age_steps if is_late else 0.0, -facts.missing, -age_steps

    return sorted(series, key=rank)


def _state(health: Health, screen: Screen) -> str:
    word, text = health.condition, note(health)
    if word == "ready":
        return screen.alarm(text) if health.banned_until is not None else screen.signed("ready", 1)
    if word == "loading" and health.banned_until is None:
        return word
    return screen.alarm(f"{word}: {text}" if text else word)


def _weight(health: Health, screen: Screen) -> str:
    share = min(1.0, health.weight_used / health.weight_limit) if health.weight_limit else 0.0
    filled = round(share * BAR_WIDTH)
    bar = "█" * filled + screen.faint("░" * (BAR_WIDTH - filled))
    return f"weight {bar} {health.weight_used:,} of {health.weight_limit:,}"
