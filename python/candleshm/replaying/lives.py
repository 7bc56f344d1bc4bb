"""Since when and until when a symbol trades, as far as its stored days prove it, and which days have to be there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from candleshm._core import INTERVAL_MS
from candleshm.columns import OPEN_TIME_MS
from candleshm.errors import ConfigError, DayNotFound
from candleshm.history.candles import DayCandles
from candleshm.history.day import Day
from candleshm.history.store import ParquetStore
from candleshm.history.stored_rows import SOURCE, not_stored

__all__ = ["Absent", "Life", "lives_of"]

Absent = Literal["raise", "accept"]
"""What becomes of days and candles that are not in the files and may exist."""
# Symbols that a message names.
NAMED_MAX = 5


@dataclass(frozen=True)
class Life:
    """What the files of one symbol say about its trading."""

    listed_ms: int | None
    """Open time of its first candle; None where the files do not show it."""
    ended_ms: int | None
    """End of its last candle; None where the files do not show that there is no later one."""
    stored: frozenset[date]
    """The wanted days that have a file."""
    is_empty: bool = False
    """Whether its files show that it has no candle on any stored day."""

    def trades_in(self, start_ms: int, end_ms: int) -> bool:
        """Return whether it may have candles that open in `[start_ms, end_ms)`."""
        return (
            not self.is_empty
            and (self.listed_ms is None or self.listed_ms < end_ms)
            and (self.ended_ms is None or self.ended_ms > start_ms)
        )


def lives_of(
    store: ParquetStore, symbols: Sequence[str], days: Sequence[Day], absent: Absent = "raise"
) -> Mapping[str, Life]:
    """Return the life of each symbol, which has every wanted day on which it may have traded.

    A day before the first stored one is not needed where that one shows the symbol's first candle, and a day after the
    newest where that one shows the last; with `absent` "accept" all of these count as days without trading. Raises
    DayNotFound with the command that brings all days that are not there, DayDamaged, StoreUnavailable, ConfigError.
    """
    if absent not in ("raise", "accept"):
        raise ConfigError(f"absent cannot be `{absent}`; allowed: raise accept")
    found: dict[str, Life] = {}
    not_there: dict[str, list[Day]] = {}
    for symbol in symbols:
        stored = store.days(symbol)
        if not stored:
            raise not_stored(store, symbol, days) if not _has_minutes(store, symbol) else _only_minutes(store, symbol)
        first = store.read(symbol, stored[0])
        listed_ms, ended_ms = _first_open_ms(store, first, stored), _last_end_ms(store, symbol, stored)
        is_empty = not len(first.rows) and all(map(_has_no_candle, (store.read(symbol, day) for day in stored)))
        has, without = {day.date for day in stored}, []
        for day in days:
            is_before, is_after = day.date < stored[0].date, day.date > stored[-1].date
            if day.date in has:
                continue
            if is_before and (listed_ms is not None or absent == "accept"):
                continue
            if is_after and (ended_ms is not None or absent == "accept"):
                continue
            without.append(day)
        if without:
            not_there[symbol] = without
            continue
        if absent == "accept":
            if listed_ms is None and days[0].date < stored[0].date:
                listed_ms = _edge_ms(store, symbol, stored, is_first=True)
            if ended_ms is None and days[-1].date > stored[-1].date:
                ended_ms = _edge_ms(store, symbol, stored, is_first=False)
        found[symbol] = Life(listed_ms, ended_ms, frozenset(has & {day.date for day in days}), is_empty)
    if not_there:
        raise _not_there(store, not_there)
    return found


def _has_no_candle(candles: DayCandles) -> bool:
    """Return whether a day shows that the symbol has no candle on it."""
    return not len(candles.rows) and not candles.missing


def _first_open_ms(store: ParquetStore, first: DayCandles, stored: Sequence[Day]) -> int | None:
    """Return when the first candle opens, where the first stored day begins before it."""
    if not first.outside or first.outside[0][0] > first.grid.first_ms:
        return None
    return _edge_ms(store, first.symbol, stored, is_first=True)


def _last_end_ms(store: ParquetStore, symbol: str, stored: Sequence[Day]) -> int | None:
    """Return when the last candle ends, where the newest stored day goes on after it."""
    newest = store.read(symbol, stored[-1])
    if not newest.outside or newest.outside[-1][1] < newest.grid.end_ms:
        return None
    if len(newest.rows) and newest.outside[-1][0] < newest.rows[-1, OPEN_TIME_MS]:
        return None  # before its first candle, on a day that has no more of it
    return _edge_ms(store, symbol, stored, is_first=False)


def _edge_ms(store: ParquetStore, symbol: str, stored: Sequence[Day], *, is_first: bool) -> int | None:
    """Return when the first candle of all that are stored opens, or when the last one ends; None without any."""
    for day in stored if is_first else reversed(stored):
        candles = store.read(symbol, day)
        if len(candles.rows):
            return _slot_ms(candles, 0) if is_first else _slot_ms(candles, -1) + candles.grid.length_ms
    return None


def _slot_ms(candles: DayCandles, index: int) -> int:
    """Return where the slot of a row begins: outages push candles off the grid."""
    return int(candles.rows[index, OPEN_TIME_MS]) // candles.grid.length_ms * candles.grid.length_ms


def _has_minutes(store: ParquetStore, symbol: str) -> bool:
    return INTERVAL_MS[store.interval] > INTERVAL_MS[SOURCE] and bool(_minutes(store).days(symbol))


def _minutes(store: ParquetStore) -> ParquetStore:
    # market=.../interval=.../timezone=...: the base directory is three levels up.
    return ParquetStore(store.tree.parents[2], store.market, SOURCE, store.zone, store.price)


def _only_minutes(store: ParquetStore, symbol: str) -> DayNotFound:
    advice = f"replay interval {SOURCE} with derive {store.interval}: candles of {symbol} are stored as {SOURCE}"
    return DayNotFound(str(store.tree), ("any day",), store.inventory(symbol), advice)


def _not_there(store: ParquetStore, not_there: Mapping[str, Sequence[Day]]) -> DayNotFound:
    """Return the error that names symbols and days, and the command that brings them."""
    days = sorted({day.date for without in not_there.values() for day in without})
    names = list(not_there)
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    words = ["candleshm download", f"--market {store.market.lower()}"]
    if store.price != "trade":
        words.append(f"--price {store.price}")
    words += [f"--symbols {','.join(names)}", f"--interval {store.interval}"]
    words += [f"--start {days[0]} --end {days[-1]}", "--type all", f"--candle-dir {store.tree.parents[2]}"]
    if store.zone.name != "UTC":
        words.append(f"--timezone {store.zone.name}")
    advice = (
        f"{', '.join(names[:NAMED_MAX])}{more} may have traded then; `{' '.join(words)}` brings the days. "
        f"absent `accept` says that days before the first and after the newest stored one have no candles"
    )
    symbol = names[0]
    path = store.path(symbol, not_there[symbol][0])
    return DayNotFound(str(path), tuple(map(str, days)), store.inventory(symbol), advice)
