"""Days of one series as a file: one day of short candles, the days of a month or a year of longer ones.

The metadata say of a file with one day what is known about that day (format 1); of a file with more of them which days
it holds, and from where (format 2). Ranges of days that follow one another are written as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from candleshm._core import MARKETS, PRICES, Zone
from candleshm.columns import OPEN_TIME_MS
from candleshm.exchanges.base import Market, Price
from candleshm.history.candles import SOURCES, Candles, DayCandles, Source, Span, as_spans, joined
from candleshm.history.day import Day, Grid
from candleshm.history.file_names import Period
from candleshm.history.parquet import packed, unpacked

__all__ = ["DayFile", "decode", "encode"]

ONE_DAY, MANY_DAYS = 1, 2
ONE, DAYS_MAX, EPOCH = timedelta(days=1), 366, date(1970, 1, 1)
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


class DayFile(Mapping[date, DayCandles]):
    """The days of a file, by date, oldest first; each is made when it is asked for, which may raise ValueError."""

    def __init__(self, about: Mapping[str, Any], rows: Candles) -> None:
        """Raises ValueError, KeyError, TypeError for what cannot be."""
        if about["format"] not in {ONE_DAY, MANY_DAYS}:
            raise ValueError(f"written in format {about['format']}, this version reads {ONE_DAY} and {MANY_DAYS}")
        price = about.get("price", "trade")
        if about["market"] not in MARKETS or price not in PRICES:
            raise ValueError(f"unknown market or price: `{about['market']}`, `{price}`")
        self.market: Market = about["market"]
        self.price: Price = price
        self.symbol: str = about["symbol"]
        self.interval: str = about["interval"]
        self.zone = Zone(about["timezone"])
        self._rows = rows
        self._spans = {name: as_spans(about[name]) for name in SPANS}
        day = about.get("day")
        runs = about["days"] if about["format"] == MANY_DAYS else [(day, day, about["source"], about["fetched_ms"])]
        self._origins = dict(_origins(runs))
        dates = list(self._origins)
        if not dates or any(one >= other for one, other in pairwise(dates)):
            raise ValueError("its days are not ascending")
        self._check_places(dates)

    def __getitem__(self, day: date) -> DayCandles:
        source, fetched_ms = self._origins[day]
        of = Day(day, self.zone)
        grid = Grid.of(of, self.interval)
        start_ms, end_ms = grid.first_ms, grid.end_ms
        first, last = self._place(start_ms, end_ms)
        return DayCandles(
            market=self.market,
            price=self.price,
            symbol=self.symbol,
            interval=self.interval,
            day=of,
            rows=self._rows[first:last],
            source=source,
            fetched_ms=fetched_ms,
            **{name: _within(spans, start_ms, end_ms) for name, spans in self._spans.items()},
        )

    def __iter__(self) -> Iterator[date]:
        return iter(self._origins)

    def __len__(self) -> int:
        return len(self._origins)

    def __contains__(self, day: object) -> bool:
        return day in self._origins

    def _check_places(self, dates: Sequence[date]) -> None:
        """Raise ValueError when rows or ranges belong to no day of the file."""
        firsts = [0, *(number for number in range(1, len(dates)) if dates[number] - dates[number - 1] != ONE)]
        lasts = [*(number - 1 for number in firsts[1:]), len(dates) - 1]
        places = [
            (self._grid(dates[first]).first_ms, self._grid(dates[last]).end_ms)
            for first, last in zip(firsts, lasts, strict=True)
        ]
        opened = self._rows[:, OPEN_TIME_MS]
        is_ascending = bool((opened[1:] > opened[:-1]).all())
        known = sum(last - first for first, last in (self._place(*place) for place in places))
        if known != len(opened) or not is_ascending:
            raise ValueError("its rows are not ascending, or of no day that it names")
        for name, spans in self._spans.items():
            if _length_ms(spans) != sum(_length_ms(_within(spans, *place)) for place in places):
                raise ValueError(f"some of its {name} are of no day that it names")

    def _place(self, start_ms: int, end_ms: int) -> tuple[int, int]:
        """Return where the rows lie that open in a range, as the first and the last, excluded."""
        opened = self._rows[:, OPEN_TIME_MS]
        if len(opened) and start_ms <= opened[0] and opened[-1] < end_ms:  # a file of a day
            return 0, len(opened)
        first, last = np.searchsorted(opened, (start_ms, end_ms))
        return int(first), int(last)

    def _grid(self, day: date) -> Grid:
        return Grid.of(Day(day, self.zone), self.interval)


def decode(data: bytes) -> DayFile:
    """Read a file. Raises ValueError for what is not as it was written; MissingExtra."""
    about, rows, _ = unpacked(data)
    rows.flags.writeable = False  # several readers may be given the same days
    try:
        return DayFile(about, rows)
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its metadata are incomplete ({type(error).__name__}: {error})") from None


def _runs(days: Sequence[DayCandles]) -> list[tuple[str, str, Source, int]]:
    """Return the first and the last of dates that follow one another, are from one source and fetched at one time."""
    runs: list[tuple[str, str, Source, int]] = []
    before: date | None = None
    for candles in days:
        of = (candles.source, candles.fetched_ms)
        if before is not None and before + ONE == candles.day.date and runs[-1][2:] == of:
            runs[-1] = (runs[-1][0], str(candles.day), *of)
        else:
            runs.append((str(candles.day), str(candles.day), *of))
        before = candles.day.date
    return runs


def _origins(runs: Iterable[Sequence[Any]]) -> Iterator[tuple[date, tuple[Source, int]]]:
    for first, last, source, fetched_ms in runs:
        if source not in SOURCES:
            raise ValueError(f"unknown source: `{source}`")
        day, end = date.fromisoformat(first), date.fromisoformat(last)
        # Checked before they are counted.
        if not EPOCH <= day <= end or (end - day).days > DAYS_MAX:
            raise ValueError(f"it names days that no file has: {first} .. {last}")
        for number in range((end - day).days + 1):
            yield day + number * ONE, (source, int(fetched_ms))


def _length_ms(spans: Iterable[Span]) -> int:
    return sum(end_ms - start_ms for start_ms, end_ms in spans)


def _within(spans: Iterable[Span], start_ms: int, end_ms: int) -> tuple[Span, ...]:
    return tuple((max(start, start_ms), min(end, end_ms)) for start, end in spans if start < end_ms and start_ms < end)
