"""What changed in a block between two observations, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from candleshm.reader.figures import age, clock_time
from candleshm.reader.health import Health
from candleshm.reader.observation import Observation, SeriesFacts
from candleshm.system.log_text import counted

__all__ = ["Event", "changes"]

NAMED_MAX = 3


@dataclass(frozen=True, slots=True)
class Event:
    """Something that changed."""

    text: str
    is_bad: bool = False
    is_routine: bool = False
    """Whether it happens all the time, so that only the last one is shown."""


def changes(before: Observation, after: Observation, max_age_seconds: float) -> list[Event]:
    """Return what changed, the collector first; series with the same change share an event."""
    return [
        *_of_the_collector(before.health, after.health),
        *_of_the_universe(before, after),
        *_of_the_series(before.series, after.series, max_age_seconds, is_silent=after.health.is_silent),
    ]


def _of_the_collector(before: Health, after: Health) -> Iterator[Event]:
    if after.pid != before.pid:
        yield Event(f"collector {after.pid} has replaced {before.pid}")
    if after.state != before.state:
        yield Event(f"block is {after.state}, was {before.state}", is_bad=after.state not in {"ready", "replay"})
    is_silent, was_silent = after.is_silent, before.is_silent
    if is_silent and not was_silent:
        yield Event(f"collector {after.pid} has no heartbeat", is_bad=True)
    if was_silent and not is_silent:
        yield Event(f"collector {after.pid} has a heartbeat again after {age(before.heartbeat_age)}")
    if after.banned_until is not None and before.banned_until is None:
        yield Event(f"no requests until {after.banned_until:%H:%M:%S} UTC: the exchange refuses them", is_bad=True)
    if before.banned_until is not None and after.banned_until is None:
        yield Event("requests are allowed again")
    if after.loaded and not before.loaded:
        yield Event("the only symbol is loaded" if after.symbols == 1 else f"all {after.symbols} symbols are loaded")
    if before.loaded and after.loaded and before.ready != after.ready:
        text = "the data is current again" if after.ready else f"not ready: {counted(after.stale, 'symbol')} stale"
        if not (is_silent or was_silent):
            yield Event(text, is_bad=not after.ready)


def _of_the_universe(before: Observation, after: Observation) -> Iterator[Event]:
    if after.closed_until_ms is not None and after.closed_until_ms > (before.closed_until_ms or 0):
        count = sum(facts.trading for facts in after.series)
        yield Event(f"closed until {clock_time(after.closed_until_ms)} for all {count} symbols", is_routine=True)


def _of_the_series(
    before: Iterable[SeriesFacts], after: Iterable[SeriesFacts], max_age_seconds: float, *, is_silent: bool
) -> Iterator[Event]:
    known = {facts.symbol: facts for facts in before}
    newcomers = [facts.symbol for facts in after if facts.symbol not in known]
    if newcomers:
        yield Event(f"symbols added: {_names(newcomers)}")
    pairs = [(known[facts.symbol], facts) for facts in after if facts.symbol in known]

    def those(condition: Callable[[SeriesFacts, SeriesFacts], bool]) -> list[str]:
        return [new.symbol for old, new in pairs if condition(old, new)]

    def grown(count: Callable[[SeriesFacts], int]) -> list[str]:
        # Before the first response nothing is known about gaps.
        return [
            f"{new.symbol} {count(new) - count(old)}"
            for old, new in pairs
            if old.newest_state and count(new) > count(old)
        ]

    limit = max_age_seconds
    for label, symbols, is_bad in (
        ("no longer trades", those(lambda old, new: old.trading and not new.trading), True),
        ("trades", those(lambda old, new: new.trading and not old.trading), False),
        # Without its collector all of a block becomes stale, series by series; that it has no heartbeat was said.
        (
            f"stale, older than {age(limit)}",
            [] if is_silent else those(lambda a, b: b.is_stale(limit) and not a.is_stale(limit)),
            True,
        ),
        ("fresh again", those(lambda a, b: b.trading and a.is_stale(limit) and not b.is_stale(limit)), False),
        ("rows missing", grown(lambda facts: facts.missing), True),
        ("rows the exchange does not have", grown(lambda facts: facts.holes), True),
        ("closed rows corrected", grown(lambda facts: facts.revision), True),
    ):
        if symbols:
            yield Event(f"{label}: {_names(symbols)}", is_bad=is_bad)


def _names(names: list[str]) -> str:
    rest = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {rest} more" if rest > 0 else "")
