"""Days of one series as a file: one day of short candles, the days of a month or a year of longer ones.

The metadata say of a file with one day what is known about that day (format 1); of a file with more of them which days
it holds, and from where (format 2). Ranges of days that follow one another are written as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np

from candleshm._core import MARKETS, PRICES, Zone
from candleshm.columns import OPEN_TIME_MS
from candleshm.exchanges.base import Market, Price
from candleshm.history.candles import SOURCES, Candles, DayCandles, Source, Span, as_spans, joined
from candleshm.history.day import Day, Grid, days_between
from candleshm.history.file_names import Period
from candleshm.history.parquet import packed, unpacked

__all__ = ["decode", "encode"]

ONE_DAY, MANY_DAYS = 1, 2
SPANS = ("holes", "outside", "verified")


def encode(days: Sequence[DayCandles], period: Period) -> bytes:
    """Return the file of one day, or of several of a month or a year, oldest first. Raises MissingExtra."""
    return packed(_about(days, period), np.concatenate([day.rows for day in days]))


def _about(days: Sequence[DayCandles], period: Period) -> dict[str, Any]:
    """Return what is known about the days."""
    first = days[0]
    about: dict[str, Any] = {
        "format": ONE_DAY if period == "day" else MANY_DAYS,
        "market": first.market,
        "symbol": first.symbol,
        "interval": first.interval,
        "timezone": first.day.zone.name,
    }
    if first.price != "trade":
        about["price"] = first.price
    if period == "day":
        about |= {"day": str(first.day), "source": first.source, "fetched_ms": first.fetched_ms}
    else:
        about["days"] = _runs(days)
    about["complete"] = all(day.is_complete for day in days)
    for name in (*SPANS, "missing"):
        about[name] = joined(span for day in days for span in getattr(day, name))
    return about


def decode(data: bytes) -> list[DayCandles]:
    """Read the days of a file, oldest first. Raises ValueError for what is not as it was written; MissingExtra."""
    about, rows, _ = unpacked(data)
    rows.flags.writeable = False  # several readers may be given the same days
    try:
        if about["format"] not in {ONE_DAY, MANY_DAYS}:
            raise ValueError(f"written in format {about['format']}, this version reads {ONE_DAY} and {MANY_DAYS}")
        zone, price = Zone(about["timezone"]), about.get("price", "trade")
        if about["market"] not in MARKETS or price not in PRICES:
            raise ValueError(f"unknown market or price: `{about['market']}`, `{price}`")
        if about["format"] == ONE_DAY:
            found = [(Day.parse(about["day"], zone), about["source"], int(about["fetched_ms"]))]
        else:
            found = list(_days(about["days"], zone))
        if not found or any(day.date >= after.date for (day, *_), (after, *_) in pairwise(found)):
            raise ValueError("its days are not ascending")
        spans = {name: as_spans(about[name]) for name in SPANS}
        return _cut(found, rows, spans, about["market"], price, about["symbol"], about["interval"])
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its metadata are incomplete ({type(error).__name__}: {error})") from None


def _cut(
    days: Sequence[tuple[Day, Source, int]],
    rows: Candles,
    spans: dict[str, tuple[Span, ...]],
    market: Market,
    price: Price,
    symbol: str,
    interval: str,
) -> list[DayCandles]:
    """Give each day its rows and ranges. Raises ValueError when some belong to no day."""
    found = []
    for day, source, fetched_ms in days:
        if source not in SOURCES:
            raise ValueError(f"unknown source: `{source}`")
        grid = Grid.of(day, interval)
        start_ms, end_ms = grid.first_ms, grid.end_ms
        first, last = np.searchsorted(rows[:, OPEN_TIME_MS], (start_ms, end_ms))
        found.append(
            DayCandles(
                market=market,
                price=price,
                symbol=symbol,
                interval=interval,
                day=day,
                rows=rows[first:last],
                source=source,
                fetched_ms=fetched_ms,
                **{name: _within(of_file, start_ms, end_ms) for name, of_file in spans.items()},
            )
        )
    if sum(len(day.rows) for day in found) != len(rows):
        raise ValueError("some of its rows are of no day that it names")
    for name, of_file in spans.items():
        if _length_ms(of_file) != sum(_length_ms(getattr(day, name)) for day in found):
            raise ValueError(f"some of its {name} are of no day that it names")
    return found


def _runs(days: Sequence[DayCandles]) -> list[tuple[str, str, Source, int]]:
    """Return the first and the last of days that follow one another, are from one source and fetched at one time."""
    runs: list[tuple[str, str, Source, int]] = []
    before: Day | None = None
    for candles in days:
        of = (candles.source, candles.fetched_ms)
        if before is not None and before.end_ms == candles.day.start_ms and runs[-1][2:] == of:
            runs[-1] = (runs[-1][0], str(candles.day), *of)
        else:
            runs.append((str(candles.day), str(candles.day), *of))
        before = candles.day
    return runs


def _days(runs: Iterable[Sequence[Any]], zone: Zone) -> Iterable[tuple[Day, Source, int]]:
    for first, last, source, fetched_ms in runs:
        # Checked before the days are counted: a file has those of a year at most.
        if (date.fromisoformat(last) - date.fromisoformat(first)).days > 366:
            raise ValueError("it names more days than a year has")
        for day in days_between(Day.parse(first, zone), Day.parse(last, zone)):
            yield day, source, int(fetched_ms)


def _length_ms(spans: Iterable[Span]) -> int:
    return sum(end_ms - start_ms for start_ms, end_ms in spans)


def _within(spans: Iterable[Span], start_ms: int, end_ms: int) -> tuple[Span, ...]:
    return tuple((max(start, start_ms), min(end, end_ms)) for start, end in spans if start < end_ms and start_ms < end)
