"""Bigger candles out of small ones, in memory: what a collector with `derive` publishes, for backtests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from candleshm import _core
from candleshm.errors import ConfigError

__all__ = ["derive"]


def derive(
    rows: npt.NDArray[np.float64],
    interval: str,
    *,
    source: str = "1m",
    start_ms: int | None = None,
    end_ms: int | None = None,
    first_open_ms: int | None = None,
) -> npt.NDArray[np.float64]:
    """Return the candles of `interval`, float64 (m, 12), made of `rows`, float64 (n, 12), by the exchange's own rule.

    They are bit for bit those of a live block that a collector derives from the same rows: times, prices, trades and
    base volumes equal the exchange's own candle, quote volumes to within 2 units in the last place.

    `rows` are final candles of `source`, ascending by open time, as `candles(closed_only=True)` returns them; a row of
    NaN, as of `holes="nan"`, counts as none. `interval` is one of the exchange's, or the days of a time zone such as
    `1d@Asia/Shanghai`. From `start_ms` up to `end_ms`, exclusive, `rows` are all that exists: what is absent there the
    exchange does not have, and a candle is made of those that there are. Unless given the range is that from the first
    row to the last, both included; give `start_ms=0` when the first row is the symbol's very first. Candles not wholly
    inside the range are left out, and so are those without a row. `3d` candles need `first_open_ms`, the open time
    of any of them or of the symbol's first candle: each symbol has a grid of its own.

    Raises ConfigError (interval, source, shape, order).

    >>> import numpy
    >>> minute = lambda number, close: [number * 60_000, 1, 2, 1, close, 0.1, number * 60_000 + 59_999, 0.1, 1, 0, 0, 0]
    >>> candles = derive(numpy.array([minute(number, 1 + number / 10) for number in range(5)]), "5m")
    >>> candles[:, :6].tolist()
    [[0.0, 1.0, 2.0, 1.0, 1.4, 0.5]]
    """
    rows = np.ascontiguousarray(rows, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 12:
        raise ConfigError(f"rows cannot be of shape `{rows.shape}`; allowed: (n, 12)")
    if interval == "3d" and first_open_ms is None:
        raise ConfigError("first_open_ms is not given; the 3d candles of each symbol have a grid of their own")
    return _core.derive(rows, source, interval, start_ms, end_ms, first_open_ms).reshape(-1, 12)
