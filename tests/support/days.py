"""Days of made-up candles, and stores of them: the words that several test files share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from candleshm._core import Zone
from candleshm.history.candles import Candles, DayCandles
from candleshm.history.day import Day, Grid
from candleshm.history.day_file import encode
from candleshm.history.store import ParquetStore

NEW_YORK, UTC_ZONE = Zone("America/New_York"), Zone("UTC")
MINUTE = 60_000


def day_of(text: str, zone: Any = UTC_ZONE) -> Day:
    """Return a day of UTC, or of another zone."""
    return Day.parse(text, zone)


def rows_of(day: Day, interval: str = "1m", seed: int = 1) -> Candles:
    """Return a candle for every slot of a day, with values that have digits down to the last place."""
    grid = Grid.of(day, interval)
    random = np.random.default_rng([seed, day.start_ms])
    rows = np.zeros((grid.count, 12))
    rows[:, 0] = grid.first_ms + np.arange(grid.count) * grid.length_ms
    rows[:, 6] = rows[:, 0] + grid.length_ms - 1
    prices = np.sort(random.normal(60_000, 50, (grid.count, 4)), axis=1)
    rows[:, [3, 1, 4, 2]] = prices
    rows[:, [5, 7, 9, 10]] = random.random((grid.count, 4)) * 1e6
    rows[:, 8] = random.integers(0, 5000, grid.count)
    return rows


def candles_of(day: Day, *, symbol: str = "BTCUSDT", interval: str = "1m", seed: int = 1, **changes: Any) -> DayCandles:
    """Return a complete day of SPOT, unless told otherwise."""
    facts: dict[str, Any] = {
        "market": "SPOT",
        "symbol": symbol,
        "interval": interval,
        "day": day,
        "rows": rows_of(day, interval, seed),
        "source": "exchange",
        "fetched_ms": day.end_ms + MINUTE,
    }
    return DayCandles(**(facts | changes))


def without(candles: DayCandles, start: int, end: int, *, as_hole: bool) -> DayCandles:
    """Return a day that lacks the candles of the slots `start` to `end`; as a hole they count as confirmed absent."""
    grid = candles.grid
    span = (grid.first_ms + start * grid.length_ms, grid.first_ms + end * grid.length_ms)
    rows = np.delete(candles.rows, np.s_[start:end], axis=0)
    holes = (span,) if as_hole else ()
    return candles_of(candles.day, symbol=candles.symbol, interval=candles.interval, rows=rows, holes=holes)


def store_in(directory: Path, interval: str = "1m", *, market: str = "SPOT", zone: Any = UTC_ZONE) -> ParquetStore:
    """Return the store of SPOT in UTC, or another."""
    return ParquetStore(directory, market, interval, zone)


def written(store: ParquetStore, *days: DayCandles) -> None:
    """Write days as the only writer."""
    with store.writing():
        for candles in days:
            store.write(candles)


def forget(store: ParquetStore, symbol: str, *days: str) -> None:
    """Take days out of the files that have them."""
    kept = [store.read(symbol, day) for day in store.days(symbol) if str(day) not in days]
    for path in {store.path(symbol, day) for day in store.days(symbol)}:
        path.unlink()
    written(store, *kept)


def written_as_before(store: ParquetStore, *days: DayCandles) -> None:
    """Write each day into a file of its own, as versions did that knew no other files."""
    for candles in days:
        path = store.own_file(candles.symbol, candles.day)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode([candles], "day"))
