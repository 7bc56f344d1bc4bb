"""Rows of stored days, of an interval that has files of its own, or derived from those of 1m."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np

from candleshm._core import INTERVAL_MS, Zone, candle_end_ms
from candleshm.columns import NAMES, OPEN_TIME_MS
from candleshm.errors import ConfigError, DayDamaged, DayIncomplete, DayNotFound
from candleshm.exchanges.base import Price
from candleshm.history.candles import Candles
from candleshm.history.day import DAILY_INTERVALS, Day, days_between
from candleshm.history.store import ParquetStore
from candleshm.reader.derivation import derive

__all__ = ["SOURCE", "StoredRows", "candle_end", "not_stored"]

SOURCE = "1m"
# Symbols that a message names.
NAMED_MAX = 5
# Above this two names are probably the same, mistyped: BTCUDST, but not ETHUSDT, for BTCUSDT.
NEAR_MIN = 0.8


class StoredRows:
    """The files of one market, price and zone, as candles of one interval."""

    def __init__(
        self, base_dir: str | os.PathLike[str], market: str, interval: str, timezone: str, price: Price = "trade"
    ) -> None:
        """Name the trees; nothing is read. Raises ConfigError."""
        zone = Zone(timezone)
        self._base_dir = base_dir
        self.interval = interval
        self.source = ParquetStore(base_dir, market, SOURCE, zone, price)
        self.own = ParquetStore(base_dir, market, interval, zone, price) if interval in DAILY_INTERVALS else None
        candle_end(interval, 0)

    def of(self, interval: str) -> StoredRows:
        """Return the same files as candles of another interval."""
        return StoredRows(self._base_dir, self.source.market, interval, self.source.zone.name, self.source.price)

    @property
    def stores(self) -> list[ParquetStore]:
        """Where rows may come from, the interval's own files first."""
        if self.own is None:
            return [self.source]
        return [self.own] if self.interval == SOURCE else [self.own, self.source]

    def day(self, value: object) -> Day:
        """Return the day of the zone that is meant. Raises ConfigError."""
        return Day.parse(value, self.source.zone)  # type: ignore[arg-type]

    def newest(self, symbol: str, first: Day) -> Day:
        """Return the newest day that is stored: of the interval's own files where they have `first`, else of 1m.

        Raises DayNotFound when there is none from `first` on.
        """
        store = next((store for store in self.stores if store.has(symbol, first)), self.stores[-1])
        stored = store.days(symbol)
        if not stored or stored[-1].date < first.date:
            raise not_stored(store, symbol, [first])
        return stored[-1]

    def rows(self, symbol: str, wanted: Sequence[Day], end_ms: int | None = None) -> Candles:
        """Return the candles that open in these days, and before `end_ms`, where a candle ends.

        Without an `end_ms` the days are completed by those into which the last candle reaches. Raises DayNotFound,
        DayDamaged, DayIncomplete.
        """
        own = self.own
        absent = [] if own is None else without_file(own, symbol, wanted)
        if own is not None and (not absent or self.interval == SOURCE or without_file(self.source, symbol, wanted)):
            if absent:
                raise not_stored(own, symbol, absent)
            rows = _rows(own, symbol, wanted)
            return rows if end_ms is None else rows[rows[:, OPEN_TIME_MS] < end_ms]
        minutes = self._days_of_minutes(wanted) if end_ms is None else wanted
        if absent := without_file(self.source, symbol, minutes):
            raise not_stored(self.source, symbol, absent)
        return self._derived(symbol, minutes, wanted[-1].end_ms if end_ms is None else end_ms)

    def rows_of_stored(self, symbol: str, wanted: Sequence[Day]) -> Candles:
        """Return the candles of the days that have a file, of the store that has more of those that are wanted."""
        parts = [np.empty((0, len(NAMES)))]
        store = max(self.stores, key=lambda store: len(wanted) - len(without_file(store, symbol, wanted)))
        is_own = store is self.own
        for run in runs(store, symbol, wanted if is_own else self._days_of_minutes(wanted)):
            parts.append(_rows(store, symbol, run) if is_own else self._derived(symbol, run, wanted[-1].end_ms))
        return np.concatenate(parts)

    def _days_of_minutes(self, wanted: Sequence[Day]) -> list[Day]:
        """Return the days that hold all minutes of the candles that open in those wanted."""
        minutes = [*wanted]
        while minutes and minutes[-1].end_ms < candle_end(self.interval, wanted[-1].end_ms):
            minutes.append(minutes[-1].next())
        return minutes

    def _derived(self, symbol: str, minutes: Sequence[Day], end_ms: int) -> Candles:
        """Return the candles that are wholly in these days and open before `end_ms`."""
        start_ms, stop_ms = minutes[0].start_ms, minutes[-1].end_ms
        minute_rows = _rows(self.source, symbol, minutes)
        rows = derive(minute_rows, self.interval, start_ms=start_ms, end_ms=stop_ms, price=self.source.price)
        return rows[rows[:, OPEN_TIME_MS] < end_ms]


def candle_end(interval: str, moment_ms: int) -> int:
    """Return where the candle ends that is open in the last millisecond before `moment_ms`. Raises ConfigError."""
    with suppress(ConfigError):
        if interval != "3d":
            return candle_end_ms(interval, moment_ms - 1)
    derivable = " ".join(name for name in INTERVAL_MS if name != "3d")
    raise ConfigError(f"interval cannot be `{interval}`; allowed: {derivable}, or days of a zone as 1d@Asia/Shanghai")


def runs(store: ParquetStore, symbol: str, days: Sequence[Day]) -> list[list[Day]]:
    """Return the days that have a file, those that follow each other together."""
    groups = itertools.groupby(days, key=lambda day: store.has(symbol, day))
    return [list(run) for is_there, run in groups if is_there]


def without_file(store: ParquetStore, symbol: str, wanted: Sequence[Day]) -> list[Day]:
    """Return the days that have no file."""
    return [day for day in wanted if not store.has(symbol, day)]


def not_stored(store: ParquetStore, symbol: str, absent: Sequence[Day]) -> DayNotFound:
    """Return the error for days without a file, with what is there instead and what to do."""
    inventory = store.inventory(symbol)
    return DayNotFound(
        str(store.path(symbol, absent[0])),
        tuple(map(str, absent)),
        inventory,
        _unknown(store, symbol) if not inventory else _listed_later(store, symbol, absent),
    )


def _unknown(store: ParquetStore, symbol: str) -> str:
    """Return which symbols are stored, where that one is not."""
    symbols = store.symbols()
    if not symbols:
        return ""
    near = difflib.get_close_matches(symbol.upper(), symbols, n=1, cutoff=NEAR_MIN)
    to_do = f"did you mean {near[0]}?" if near else "`candleshm download` fetches days, if the exchange lists it"
    more = f" and {len(symbols) - NAMED_MAX} more" if len(symbols) > NAMED_MAX else ""
    return f"nothing of `{symbol}` is stored, but {', '.join(symbols[:NAMED_MAX])}{more}; {to_do}"


def _listed_later(store: ParquetStore, symbol: str, absent: Sequence[Day]) -> str:
    """Return since when the symbol has candles, where all days lie before that."""
    stored = store.days(symbol)
    if not stored or absent[-1].date >= stored[0].date:
        return ""
    try:
        first = store.read(symbol, stored[0])
    except (DayDamaged, DayNotFound):
        return ""
    if not first.outside or first.outside[0][0] > first.grid.first_ms or not len(first.rows):
        return ""
    since = datetime.fromtimestamp(first.rows[0, OPEN_TIME_MS] / 1000, tz=UTC)
    return f"{symbol} was not listed yet: its first candle is that of {since:%Y-%m-%d %H:%M:%S} UTC"


def _rows(store: ParquetStore, symbol: str, wanted: Sequence[Day]) -> Candles:
    parts = []
    for day in wanted:
        candles = store.read(symbol, day)
        if candles.missing:
            raise DayIncomplete(str(store.path(symbol, day)), candles.missing)
        parts.append(candles.rows)
    return np.concatenate(parts)


def days_until(first: Day, end_ms: int) -> list[Day]:
    """Return the days from `first` to the one in which the millisecond before `end_ms` lies."""
    return list(days_between(first, Day.of(end_ms - 1, first.zone)))
