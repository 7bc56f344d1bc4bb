"""The rows of derived blocks that are in daily files: of the interval itself, of 1m, or of the parts of a day."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from candleshm.collector.older_series import part_of_days
from candleshm.config import CollectorConfig, DerivedBlock
from candleshm.errors import CandleShmError
from candleshm.exchanges.base import INTERVAL_MS
from candleshm.history.candles import Candles
from candleshm.history.day import Day
from candleshm.history.stored_rows import StoredRows, runs
from candleshm.reader.derivation import derive
from candleshm.system.block_log import BlockLog

if TYPE_CHECKING:
    from candleshm._core import Writer

__all__ = ["load_derived_days"]

logger = logging.getLogger(__name__)


def load_derived_days(
    writer: Writer,
    config: CollectorConfig,
    block: DerivedBlock,
    days: Sequence[Day],
    now_ms: int,
    stop: threading.Event,
) -> int:
    """Load what is stored of these days, oldest first, into a derived block; return the number of rows new to it.

    Only days that lie wholly before `now_ms`, exchange time, may be given.
    """
    log = BlockLog(logger, block.name)
    loaded = 0
    for symbol in writer.symbols:
        if stop.is_set():
            break
        try:
            rows = _stored(config, block.interval, symbol, days)
        except CandleShmError as error:
            log.warning("%s: daily files are left out: %s", symbol, error)
            continue
        writer.heartbeat()
        if len(rows):
            loaded += writer.load_rows(symbol, rows, sent_ms=now_ms, derived=block.name).changed
    return loaded


def _stored(config: CollectorConfig, interval: str, symbol: str, days: Sequence[Day]) -> Candles:
    assert config.candle_dir is not None
    stored = StoredRows(config.candle_dir, config.market, interval, config.timezone, config.price)
    rows = stored.rows_of_stored(symbol, days)
    part = part_of_days(interval, list(INTERVAL_MS)) if "@" in interval else None
    if len(rows) or part is None:
        return rows
    parts = stored.of(part)
    found = [rows]
    for run in [] if parts.own is None else runs(parts.own, symbol, days):
        start_ms, end_ms = run[0].start_ms, run[-1].end_ms
        small = parts.rows(symbol, run, end_ms)
        found.append(derive(small, interval, source=part, start_ms=start_ms, end_ms=end_ms, price=config.price))
    return np.concatenate(found)
