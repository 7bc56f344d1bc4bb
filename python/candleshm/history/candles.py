"""The candles of one symbol on one day, and what is known about those that are not there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from candleshm.columns import NAMES, OPEN_TIME_MS
from candleshm.exchanges.base import Market, Price
from candleshm.history.day import Day, Grid

__all__ = [
    "FROM_EXCHANGE",
    "SOURCES",
    "Candles",
    "Conflict",
    "DayCandles",
    "Source",
    "Span",
    "is_same",
    "same_bits",
    "spans_of",
]

Candles: TypeAlias = npt.NDArray[np.float64]
Span: TypeAlias = tuple[int, int]
"""A half-open range of open times, ms."""
Source = Literal["exchange", "block", "archive", "csv"]
SOURCES: tuple[Source, ...] = ("exchange", "block", "archive", "csv")
FROM_EXCHANGE: frozenset[Source | None] = frozenset({"exchange", "block"})


@dataclass(frozen=True, eq=False, kw_only=True)
class DayCandles:
    """What a daily file holds.

    `rows` is float64 (n, 12), oldest first, final rows only, each on a slot of the day's grid by the floor of its open
    time. A slot without a row is in one of `holes` (confirmed by the exchange), in one of `outside`
    (before the symbol's first candle or after its last), or missing. Raises ValueError when that does not add up.
    """

    market: Market
    symbol: str
    interval: str
    day: Day
    rows: Candles
    source: Source
    fetched_ms: int
    """Exchange time that had surely been reached when the oldest of the responses was requested."""
    holes: tuple[Span, ...] = ()
    outside: tuple[Span, ...] = ()
    verified: tuple[Span, ...] = ()
    """Rows that two independent sources agree on."""
    price: Price = "trade"
    """What the prices are; of an index the symbol is a pair."""
    missing: tuple[Span, ...] = field(init=False)

    def __post_init__(self) -> None:
        grid = self.grid
        if not (self.holes or self.outside) and is_full(self.rows, grid):
            for span in self.verified:
                _part(span, grid)
            object.__setattr__(self, "missing", ())
            return
        slots = slots_of(self.rows, grid)
        if len(slots) and (slots[0] < 0 or slots[-1] >= grid.count or np.any(np.diff(slots) <= 0)):
            raise ValueError("rows are not ascending, or not of that day")
        has_row = np.zeros(grid.count, bool)
        has_row[slots] = True
        absent = np.zeros(grid.count, bool)
        for span in (*self.holes, *self.outside):
            part = _part(span, grid)
            if has_row[part].any() or absent[part].any():
                raise ValueError("a range without candles overlaps another or holds candles")
            absent[part] = True
        for span in self.verified:
            if not has_row[_part(span, grid)].all():
                raise ValueError("a range of verified candles has some missing")
        object.__setattr__(self, "missing", spans_of(~(has_row | absent), grid))

    @property
    def grid(self) -> Grid:
        """The open times of the day."""
        return Grid.of(self.day, self.interval)

    @property
    def verified_count(self) -> int:
        """How many rows are verified."""
        return sum(end - start for start, end in self.verified) // self.grid.length_ms

    @property
    def is_complete(self) -> bool:
        """Whether every candle that the exchange has of that day is there."""
        return not self.missing


@dataclass(frozen=True, eq=False)
class Conflict:
    """A candle of which the archive and the exchange have different rows; the exchange's stands."""

    symbol: str
    archived: Candles
    exchange: Candles

    def __str__(self) -> str:
        opened = datetime.fromtimestamp(self.exchange[OPEN_TIME_MS] / 1000, tz=UTC)
        differing = np.flatnonzero(~same_bits(self.archived, self.exchange))
        values = ", ".join(
            f"{NAMES[column]} archive {self.archived[column].item()!r} exchange {self.exchange[column].item()!r}"
            for column in differing
        )
        return f"{self.symbol} {opened:%Y-%m-%d %H:%M:%S} UTC: {values}"


def is_same(one: DayCandles, other: DayCandles) -> bool:
    """Return whether two days have the same rows, bit for bit, and whether the same is known about them."""
    facts = [
        (
            (day.market, day.price, day.symbol, day.interval, day.day, day.source, day.fetched_ms),
            [joined(spans) for spans in (day.holes, day.outside, day.verified)],
            day.rows.tobytes(),
        )
        for day in (one, other)
    ]
    return facts[0] == facts[1]


def joined(spans: Iterable[Span]) -> list[Span]:
    """Return ascending ranges, those that touch each other as one."""
    found: list[Span] = []
    for start_ms, end_ms in spans:
        if found and found[-1][1] == start_ms:
            found[-1] = (found[-1][0], end_ms)
        else:
            found.append((start_ms, end_ms))
    return found


def same_bits(rows: Candles, others: Candles) -> npt.NDArray[np.bool_]:
    """Return for each value whether both have the same bits: 0 differs from -0."""
    same: npt.NDArray[np.bool_] = np.equal(rows.view(np.int64), others.view(np.int64))
    return same


def slots_of(rows: Candles, grid: Grid) -> npt.NDArray[np.int64]:
    """Return the place of each row on the grid: the floor of its open time, which outages push off the grid."""
    return (rows[:, OPEN_TIME_MS].astype(np.int64) - grid.first_ms) // grid.length_ms


def is_full(rows: Candles, grid: Grid) -> bool:
    """Return whether there is a row for every slot of the grid, and each opens where its slot begins.

    >>> is_full(np.array([[0.0], [60_000.0]]), Grid(0, 60_000, 2))
    True
    """
    return len(rows) == grid.count and bool((rows[:, OPEN_TIME_MS] == grid.open_times()).all())


def spans_of(marked: npt.NDArray[np.bool_], grid: Grid) -> tuple[Span, ...]:
    """Return the runs of marked slots as half-open ranges of open times."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], marked, [False])))).reshape(-1, 2)
    return tuple(
        (grid.first_ms + int(start) * grid.length_ms, grid.first_ms + int(end) * grid.length_ms) for start, end in edges
    )


def as_spans(value: object) -> tuple[Span, ...]:
    """Read ranges as JSON gives them. Raises ValueError, TypeError."""
    spans = tuple((int(start), int(end)) for start, end in cast(Iterable[tuple[int, int]], value))
    if any(start >= end for start, end in spans):
        raise ValueError("a range ends before it begins")
    return spans


def _part(span: Span, grid: Grid) -> slice:
    start, end = ((ms - grid.first_ms) // grid.length_ms for ms in span)
    on_grid = all((ms - grid.first_ms) % grid.length_ms == 0 for ms in span)
    if not (on_grid and 0 <= start < end <= grid.count):
        raise ValueError(f"the range {span} is not one of that day")
    return slice(start, end)
