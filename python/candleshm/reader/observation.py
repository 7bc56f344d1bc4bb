"""What a block shows at one moment: its health, its universe bar, and one line of facts for each series."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from candleshm._core import Series
from candleshm.columns import CLOSE
from candleshm.errors import StaleData, UnknownSymbol
from candleshm.reader.feed import Feed, attach
from candleshm.reader.health import Health
from candleshm.row_state import RowState

__all__ = ["Observation", "SeriesFacts", "attach_to_observe", "facts_of", "observe"]


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """One series at one moment."""

    symbol: str
    trading: bool
    close: float
    """Of the newest row; NaN while there is none, and once the symbol does not trade."""
    change: float
    """Of `close` against the candle before, as a fraction; NaN when there is no such candle."""
    age_seconds: float
    """Since the exchange last confirmed the series; infinite before the first response."""
    newest_state: RowState
    """State of the newest slot, EMPTY while there is none."""
    missing: int
    """Rows of the window that are not fetched yet."""
    holes: int
    """Rows of the window that the exchange confirmed not to have."""
    revision: int
    """Corrections of closed rows so far."""

    @property
    def state(self) -> str:
        """The state as a word."""
        return self.newest_state.word if self.trading else "delisted"

    @property
    def is_empty(self) -> bool:
        """Whether the exchange has not sent any of it yet."""
        return math.isinf(self.age_seconds)

    def is_stale(self, max_age_seconds: float) -> bool:
        """Whether it was confirmed, but too long ago. A symbol that no longer trades is not requested."""
        return self.trading and not self.is_empty and self.age_seconds > max_age_seconds


@dataclass(frozen=True, slots=True)
class Observation:
    """One block at one moment."""

    health: Health
    closed_until_ms: int | None
    """End of the universe bar, the newest candle that every trading symbol has final; None before there is one."""
    series: tuple[SeriesFacts, ...]


def attach_to_observe(name: str) -> Feed:
    """Attach so that age is never an error, and reading a symbol that does not trade always is one."""
    return attach(name, max_age=math.inf)


def observe(feed: Feed) -> Observation:
    """Read everything of a feed from `attach_to_observe`."""
    series = []
    for symbol in feed.symbols:
        # Another block may take this one's place meanwhile, without that symbol.
        with suppress(UnknownSymbol):
            series.append(facts_of(feed[symbol]))
    return Observation(feed.health, feed._next_close_ms(None, 1.0), tuple(series))


def facts_of(series: Series) -> SeriesFacts:
    """Read one series of such a feed."""
    states = series.states(holes="nan")
    counts = np.bincount(states, minlength=len(RowState))
    trading, close, change = True, math.nan, math.nan
    try:
        close = series.last_close
        closes = series.candles(2)[:, CLOSE].tolist()
        if len(closes) == 2 and closes[0] > 0:
            change = closes[1] / closes[0] - 1
    except StaleData:
        trading = False
    return SeriesFacts(
        symbol=series.symbol,
        trading=trading,
        close=close,
        change=change,
        age_seconds=series.age,
        newest_state=RowState(states[-1] if len(states) else RowState.EMPTY),
        missing=int(counts[RowState.MISSING]),
        holes=int(counts[RowState.HOLE]),
        revision=series.revision,
    )
