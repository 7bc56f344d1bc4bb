"""The newest Binance candles of hundreds of symbols in named shared memory.

One collector per machine keeps a block correct, complete and fresh; any number of strategies attach by name and read
NumPy windows in well under a microsecond, without a request, a lock or a copy of their own::

    import candleshm

    feed = candleshm.attach("candleshm-spot-1m", max_age=60.0)
    btc = feed["BTCUSDT"]
    print(btc.last_close, btc.candles(100, closed_only=True)[:, candleshm.CLOSE].mean())
"""

from typing import TYPE_CHECKING

from candleshm._core import Closed, Gap, Series, View
from candleshm.columns import (
    CLOSE,
    CLOSE_TIME_MS,
    HIGH,
    IGNORE,
    LOW,
    OPEN,
    OPEN_TIME_MS,
    QUOTE_VOLUME,
    TAKER_BUY_QUOTE_VOLUME,
    TAKER_BUY_VOLUME,
    TRADES,
    VOLUME,
)
from candleshm.derivation import derive
from candleshm.errors import (
    BadResponse,
    Banned,
    CandleShmError,
    ClosesMissed,
    ConfigError,
    DayDamaged,
    DayIncomplete,
    DayNotFound,
    ExchangeError,
    ExchangeUnavailable,
    GapError,
    HistoryError,
    MissingExtra,
    OverwrittenView,
    RateLimited,
    SegmentCorrupt,
    SegmentError,
    SegmentIncompatible,
    SegmentInUse,
    SegmentNotFound,
    SegmentUnavailable,
    StaleData,
    StoreInUse,
    StoreUnavailable,
    UnknownSymbol,
    WaitTimeout,
)
from candleshm.health import Health
from candleshm.panel import Panel
from candleshm.reader import Feed, attach, segments, unlink

if TYPE_CHECKING:
    from candleshm import weight
    from candleshm.compat import CandleServer
    from candleshm.rule import CandleRule

__all__ = [
    "CLOSE",
    "CLOSE_TIME_MS",
    "HIGH",
    "IGNORE",
    "LOW",
    "OPEN",
    "OPEN_TIME_MS",
    "QUOTE_VOLUME",
    "TAKER_BUY_QUOTE_VOLUME",
    "TAKER_BUY_VOLUME",
    "TRADES",
    "VOLUME",
    "BadResponse",
    "Banned",
    "CandleRule",
    "CandleServer",
    "CandleShmError",
    "Closed",
    "ClosesMissed",
    "ConfigError",
    "DayDamaged",
    "DayIncomplete",
    "DayNotFound",
    "ExchangeError",
    "ExchangeUnavailable",
    "Feed",
    "Gap",
    "GapError",
    "Health",
    "HistoryError",
    "MissingExtra",
    "OverwrittenView",
    "Panel",
    "RateLimited",
    "SegmentCorrupt",
    "SegmentError",
    "SegmentInUse",
    "SegmentIncompatible",
    "SegmentNotFound",
    "SegmentUnavailable",
    "Series",
    "StaleData",
    "StoreInUse",
    "StoreUnavailable",
    "UnknownSymbol",
    "View",
    "WaitTimeout",
    "attach",
    "derive",
    "segments",
    "unlink",
    "weight",
]


def __getattr__(name: str) -> object:
    # Who only attaches does not wait for the network's libraries: they are most of the time an import takes.
    if name == "CandleServer":
        from candleshm.compat import CandleServer

        return CandleServer
    if name == "CandleRule":
        from candleshm.rule import CandleRule

        return CandleRule
    if name in ("history", "weight"):
        # `import candleshm` is enough for `candleshm.history.load`.
        import importlib

        return importlib.import_module(f"candleshm.{name}")
    raise AttributeError(f"module `candleshm` has no attribute `{name}`")
