"""The newest Binance candles of hundreds of symbols in named shared memory.

One collector per machine keeps a block correct, complete and fresh; any number of strategies attach by name and read
NumPy windows in well under a microsecond, without a request, a lock or a copy of their own::

    import candleshm

    feed = candleshm.attach("candleshm-spot-1m", max_age=60.0)
    btc = feed["BTCUSDT"]
    print(btc.last_close, btc.candles(100, closed_only=True)[:, candleshm.CLOSE].mean())
"""

import sys as _sys

# `python -m candleshm`: before anything else is imported, as the command does it.
if _sys.argv[:1] == ["-m"] and _sys.orig_argv[-len(_sys.argv)].removeprefix("-m") == "candleshm":
    import candleshm_command.entry  # noqa: F401

import importlib
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
from candleshm.errors import (
    BadResponse,
    Banned,
    BlockCorrupt,
    BlockError,
    BlockIncompatible,
    BlockInUse,
    BlockNotFound,
    BlockOfAnotherUser,
    BlockUnavailable,
    CandleShmError,
    ClosesMissed,
    ClusterError,
    ClusterRefused,
    ClusterUnavailable,
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
    ReplayEnded,
    StaleData,
    StoreInUse,
    StoreUnavailable,
    UnknownSymbol,
    WaitTimeout,
)
from candleshm.native.files import include, library
from candleshm.reader.alignment import Alignment, align
from candleshm.reader.contracts import Contract
from candleshm.reader.derivation import derive
from candleshm.reader.feed import Feed, attach, blocks, unlink
from candleshm.reader.frames import to_arrow, to_pandas, to_polars
from candleshm.reader.health import Health
from candleshm.reader.panel import Panel
from candleshm.reader.sessions import Session
from candleshm.row_state import RowState
from candleshm.system.sharing import take_environment as _take_environment

if TYPE_CHECKING:
    from candleshm import history, weight
    from candleshm.collector.collector import Collector
    from candleshm.collector.recorded_run import replay_recording
    from candleshm.compat.candle_server import CandleServer
    from candleshm.compat.rule import CandleRule
    from candleshm.config import CollectorConfig
    from candleshm.replaying.replay import Replay, replay

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
    "Alignment",
    "BadResponse",
    "Banned",
    "BlockCorrupt",
    "BlockError",
    "BlockInUse",
    "BlockIncompatible",
    "BlockNotFound",
    "BlockOfAnotherUser",
    "BlockUnavailable",
    "CandleRule",
    "CandleServer",
    "CandleShmError",
    "Closed",
    "ClosesMissed",
    "ClusterError",
    "ClusterRefused",
    "ClusterUnavailable",
    "Collector",
    "CollectorConfig",
    "ConfigError",
    "Contract",
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
    "Replay",
    "ReplayEnded",
    "RowState",
    "Series",
    "Session",
    "StaleData",
    "StoreInUse",
    "StoreUnavailable",
    "UnknownSymbol",
    "View",
    "WaitTimeout",
    "align",
    "attach",
    "blocks",
    "derive",
    "history",
    "include",
    "library",
    "replay",
    "replay_recording",
    "to_arrow",
    "to_pandas",
    "to_polars",
    "unlink",
    "weight",
]

_take_environment()

# Imported on first use: a strategy that only attaches does not wait for the network's libraries, which are most of the
# time an import takes.
_LAZY_MODULES = ("history", "weight")
_LAZY = {
    "CandleRule": "candleshm.compat.rule",
    "CandleServer": "candleshm.compat.candle_server",
    "Collector": "candleshm.collector.collector",
    "CollectorConfig": "candleshm.config",
    "replay_recording": "candleshm.collector.recorded_run",
    "Replay": "candleshm.replaying.replay",
    "replay": "candleshm.replaying.replay",
}


def __getattr__(name: str) -> object:
    if name in _LAZY_MODULES:
        return importlib.import_module(f"candleshm.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module `candleshm` has no attribute `{name}`")


def __dir__() -> list[str]:
    return sorted(__all__)
