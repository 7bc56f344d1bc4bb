"""What happens to an exchange's history: outages and corrections."""

from __future__ import annotations

from dataclasses import dataclass

from candleshm.sim.world.universe import Instrument, Market, Price, utc_ms


@dataclass(frozen=True, kw_only=True)
class Outage:
    """No candle exists that lies wholly in [start_ms, end_ms).

    ``market``, ``symbol`` and ``price`` limit for which candles it holds; without them it holds for all.
    ``halted_ms`` before it nobody trades (flat candles). ``cut_close`` closes the candle in which the engine stopped
    at ``start_ms``. 1m candles from the end to ``off_grid_until_ms`` open and close ``off_grid_ms`` late.
    """

    start_ms: int
    end_ms: int
    market: Market | None = None
    symbol: str | None = None
    price: Price | None = None
    halted_ms: int = 0
    cut_close: bool = False
    off_grid_ms: int = 0
    off_grid_until_ms: int = 0

    def concerns(self, instrument: Instrument) -> bool:
        """Return whether the outage holds for ``instrument``."""
        return (
            self.market in {None, instrument.market}
            and self.price in {None, instrument.kind}
            and self.symbol in {None, instrument.name_at(self.start_ms)}
        )


@dataclass(frozen=True, kw_only=True)
class Restatement:
    """A correction of history: one more trade of ``lots`` at the close of the minute that opens at ``minute_ms``.

    With ``price`` it is one of mark price, index or premium, and ``lots`` are 1e-8 that the close becomes higher by.
    """

    market: Market
    symbol: str
    minute_ms: int
    lots: int = 1
    price: Price = "trade"


@dataclass(frozen=True, kw_only=True)
class BlockTrade:
    """A SPOT trade of ``lots`` at the close of the minute that opens at ``minute_ms``, with an id of its own.

    Volume and number of trades count it; the ids of the minute's other trades go on as if it was not there.
    """

    symbol: str
    minute_ms: int
    lots: int = 1


# Two outages of the real SPOT market: the long one after which minutes opened off the grid, and the last one known.
KNOWN_OUTAGES = (
    Outage(
        start_ms=utc_ms("2018-02-08T00:28:14.788"),
        end_ms=utc_ms("2018-02-09T10:00"),
        market="SPOT",
        cut_close=True,
        off_grid_ms=14_789,
        off_grid_until_ms=utc_ms("2018-02-09T12:00"),
    ),
    Outage(
        start_ms=utc_ms("2023-03-24T12:39:41.646"),
        end_ms=utc_ms("2023-03-24T14:00"),
        market="SPOT",
        cut_close=True,
        halted_ms=utc_ms("2023-03-24T12:39:41.646") - utc_ms("2023-03-24T11:28"),
    ),
)
