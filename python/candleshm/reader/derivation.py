"""Large candles out of small ones, in memory: what a collector with `derive` publishes, for backtests."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from candleshm import _core
from candleshm.columns import CLOSE, CLOSE_TIME_MS, OPEN_TIME_MS
from candleshm.errors import ConfigError
from candleshm.exchanges.base import DAY_MS, INTERVAL_MS, Price, candle_end_ms

__all__ = ["derive"]

SHORTEST = "1s"
# By this much the clocks of time zones differ, or a multiple of it.
QUARTER_MS = 900_000
# Epoch milliseconds since 1973, and more than the seconds of our days.
MILLISECONDS_MIN = 10**11
MONTHS_MS = tuple(days * DAY_MS for days in (28, 29, 30, 31))


def derive(
    rows: npt.NDArray[np.float64],
    interval: str,
    *,
    source: str | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
    first_open_ms: int | None = None,
    price: Price = "trade",
) -> npt.NDArray[np.float64]:
    """Return the candles of `interval`, float64 (m, 12), made of `rows`, float64 (n, 12), by the exchange's own rule.

    They are bit for bit those of a live block that a collector derives from the same rows: times, prices, trades and
    base volumes equal the exchange's own candle, quote volumes to within 2 units in the last place.

    `rows` are final candles, ascending by open time, as `candles(closed_only=True)` returns them; a row of NaN, as of
    `holes="nan"`, counts as none. Their interval follows from their open and close times; `source` names it where these
    do not show it, as for a single row that an outage cut short, and must not contradict them. `interval` is one of the
    exchange's, or the days of a time zone such as `1d@Asia/Shanghai`.

    From `start_ms` up to `end_ms`, exclusive, `rows` are all that exists: what is absent there the exchange does not
    have, and a candle is made of those that there are. Unless given the range is that from the first row to the last,
    both included; give `start_ms=0` when the first row is the symbol's very first. Candles not wholly inside the range
    are left out, and so are those without a row. No candle is returned unfinished: a range that ends in a candle which
    is running by this machine's clock ends now, as with the live row of `candles()`. `3d` candles need
    `first_open_ms`, the open time of any of them or of the symbol's first candle: each symbol has a grid of its own.

    `price` is what the prices are, as `feed.price` says. In candles of trades a row without trades is flat, and gives
    neither open nor high nor low; rows of a mark price, index or premium all do.

    Raises:
        ConfigError: interval, source, price, shape, order, rows of several intervals, moments that are no milliseconds.

    >>> import numpy
    >>> minute = lambda number, close: [number * 60_000, 1, 2, 1, close, 0.1, number * 60_000 + 59_999, 0.1, 1, 0, 0, 0]
    >>> candles = derive(numpy.array([minute(number, 1 + number / 10) for number in range(5)]), "5m")
    >>> candles[:, :6].tolist()
    [[0.0, 1.0, 2.0, 1.0, 1.4, 0.5]]
    """
    rows = np.ascontiguousarray(rows, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 12:
        raise ConfigError(f"rows must be of shape (n, 12): `{rows.shape}`")
    if interval == "3d" and first_open_ms is None:
        raise ConfigError("3d candles need first_open_ms: the 3d candles of each symbol have a grid of their own")
    if source is not None:
        _core.derivation_parts(source, interval)
    source = _checked_source(rows, source)
    if len(rows):
        for moment_ms in (start_ms, end_ms, first_open_ms):
            # Rows of a made-up calendar may lie where seconds of our days do.
            if moment_ms is not None and rows[0, OPEN_TIME_MS] >= MILLISECONDS_MIN:
                _core.check_moment(moment_ms)
        end_ms = _ended_by_now(int(rows[-1, OPEN_TIME_MS]), source, end_ms)
    return _core.derive(rows, source, interval, start_ms, end_ms, first_open_ms, price).reshape(-1, 12)


def _checked_source(rows: npt.NDArray[np.float64], source: str | None) -> str:
    """Return the interval of the rows. Raises ConfigError when they do not show it, or contradict `source`.

    The exchange's candles run from their open time to a millisecond before the next one's. Around an outage they open
    later or close earlier, or all of it is late by seconds (SPOT, 2018-02-09): no row is longer than the interval, so
    the longest one shows it.
    """
    known = rows[~np.isnan(rows[:, CLOSE])]
    if not len(known):
        return source or SHORTEST
    opens_ms = known[:, OPEN_TIME_MS]
    lengths_ms = known[:, CLOSE_TIME_MS] - opens_ms + 1
    longest_ms = float(lengths_ms.max())
    found = _interval_of(longest_ms)
    if source is None and found is None:
        raise ConfigError(
            f"source is not given, and the rows do not show it: the longest candle lasts `{longest_ms:.0f}` ms, "
            f"which is no interval; pass source, such as '1m'"
        )
    if source is None or source not in INTERVAL_MS:
        source = source or found or ""
    elif found != source and (found is not None or longest_ms > INTERVAL_MS[source]):
        what = f"candles of {found}" if found else f"longer than that, up to {longest_ms:.0f} ms"
        raise ConfigError(f"source cannot be `{source}`: the rows are {what}; omit source, or pass their interval")
    length_ms = INTERVAL_MS.get(source, DAY_MS + 1)
    if length_ms <= DAY_MS:
        # What is off the grid by anything else came behind an outage.
        phases_ms = opens_ms % length_ms
        off_grid = (lengths_ms == length_ms) & (phases_ms != 0) & (phases_ms % QUARTER_MS == 0)
        if off_grid.any():
            open_ms = int(opens_ms[off_grid][0])
            raise ConfigError(
                f"a candle of {source} cannot open at {_utc(open_ms)}; days of a time zone cannot be a source"
            )
        together = np.flatnonzero(np.diff(opens_ms // length_ms) == 0)
        if together.size:
            open_ms = int(opens_ms[together[0] + 1])
            raise ConfigError(
                f"rows of several intervals: the one that opens at {_utc(open_ms)} is not a candle of {source}"
            )
    return source


def _interval_of(length_ms: float) -> str | None:
    """Return the interval whose candles are that long."""
    if length_ms in MONTHS_MS:
        return "1M"
    return next((name for name, known_ms in INTERVAL_MS.items() if known_ms == length_ms), None)


def _utc(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"


def _ended_by_now(last_open_ms: int, source: str, end_ms: int | None) -> int | None:
    """Return where the range of the rows ends, which is now when more is to come.

    The clock of this machine may be behind the exchange's; a final candle that was read here proves more.
    """
    known_end_ms = end_ms
    if known_end_ms is None:
        known_end_ms = candle_end_ms(source, last_open_ms) if source in INTERVAL_MS else last_open_ms
    now_ms = max(int(time.time() * 1000), _core.ended_ms())
    return now_ms if last_open_ms <= now_ms < known_end_ms else end_ms
