"""Whether the data of a block is new enough for what was asked, and what to say when it is not."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from candleshm._core import Series, candle_end_ms
from candleshm.errors import BlockError, StaleData
from candleshm.exchanges.base import Market
from candleshm.gateway.refusals import Refused
from candleshm.reader.feed import Feed, attach_series
from candleshm.reader.freshness import SILENT_SECONDS
from candleshm.row_state import RowState

__all__ = ["MAX_AGE_SECONDS", "final_until_ms", "has_ended", "max_age_of", "stale", "utc"]

# How old data may be unless a limit is given. SPOT pushes every candle each two seconds, and REST asks every three. On
# futures nothing is pushed while nothing is traded, and the collector asks by REST after 30 s at most.
MAX_AGE_SECONDS: Mapping[Market, float] = {"SPOT": 15.0, "UM": 45.0, "CM": 45.0}
# So many updates may fail before data counts as stale.
PERIODS = 3


def max_age_of(update_intervals_seconds: Sequence[float]) -> float | None:
    """Return the limit of age beside collectors that request live candles so often; None for the usual one.

    >>> max_age_of([3.0, 0.5]), max_age_of([3.0, 60.0])
    (None, 180.0)
    """
    periods_seconds = PERIODS * max(update_intervals_seconds, default=0.0)
    if periods_seconds <= min(MAX_AGE_SECONDS.values()):
        return None
    return max(periods_seconds, *MAX_AGE_SECONDS.values())


def final_until_ms(feed: Feed, series: Series) -> int:
    """Return until when all candles are final or confirmed holes, as far as the window goes; 0 without any."""
    slots, _ = series.snapshot(1, closed_only=True, holes="nan")
    return candle_end_ms(feed.interval, int(slots[-1, 0])) if len(slots) else 0


def has_ended(feed: Feed, series: Series) -> bool:
    """Return whether a symbol no longer trades, all its candles are final, and there will be no more.

    That is so on SPOT. Futures go on with flat candles, which the collector of a symbol that does not trade leaves out.
    """
    if feed.market != "SPOT":
        return False
    try:
        _, states = series.snapshot(1, holes="nan")
        if not len(states) or states[-1] in (RowState.LIVE, RowState.MISSING):
            return False
        if feed._health()["heartbeat_age"] > SILENT_SECONDS:
            return False
        return _is_delisted(feed, series.symbol)
    except BlockError:
        return False


def stale(feed: Feed, symbol: str, age_seconds: float, limit_seconds: float, until_ms: int) -> Refused:
    """Return the refusal of a request that needs newer data than a block has; it is good up to `until_ms`."""
    where, until = f"{symbol} {feed.interval} of block {feed.name}", utc(until_ms)
    if math.isinf(age_seconds) and until_ms == 0:
        return Refused(503, -1001, f"{where} has not been loaded yet; try again in a moment", 1.0)
    with suppress(BlockError):
        banned_until_ms = feed._health()["banned_until_ms"]
        banned_seconds = 0.0 if banned_until_ms is None else banned_until_ms / 1000 - time.time()
        if banned_seconds > 0:
            text = f"the exchange has stopped all requests of this address for {banned_seconds:.0f} s more"
            return Refused(503, -1003, f"{text}, and {where} is stale since; try again then", banned_seconds)
        if _is_delisted(feed, symbol):
            text = f"{where} no longer trades; its candles up to {until} can be requested with endTime"
            return Refused(503, -1001, text)
    last = "not confirmed since this machine started"
    if math.isfinite(age_seconds):
        last = f"last confirmed {age_seconds:.1f} s ago, the limit is {limit_seconds:g} s"
    text = (
        f"{where} is stale: {last}; see whether its collector runs (candleshm ls). "
        f"Candles up to {until} can be requested with endTime"
    )
    return Refused(503, -1001, text)


def _is_delisted(feed: Feed, symbol: str) -> bool:
    """Return whether the block says that a symbol no longer trades: what a feed with a limit raises for it."""
    try:
        # Data of every age is within this limit, so what is refused is refused for another reason.
        attach_series(feed.name, math.inf, symbol).last_close  # noqa: B018
    except StaleData as error:
        return error.delisted
    except KeyError:
        return True
    return False


def utc(ms: int) -> str:
    """Return a moment as messages show it."""
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"
