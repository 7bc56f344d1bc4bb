"""What the exchange's stream side allows and how often it pushes, settable so that a test need not wait for a day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from candleshm.sim.world.universe import MARKETS, Market

# Every period and phase is a multiple of this, so that what is due together is sent together.
STEP_MS = 5

_PERIODS_MS: Mapping[Market, int] = {"SPOT": 2000, "UM": 250, "CM": 250}
_PINGS_MS: Mapping[Market, int] = {"SPOT": 20_000, "UM": 180_000, "CM": 180_000}
_PONGS_MS: Mapping[Market, int] = {"SPOT": 60_000, "UM": 600_000, "CM": 600_000}
_MESSAGES_PER_SECOND: Mapping[Market, int] = {"SPOT": 5, "UM": 10, "CM": 10}


@dataclass(frozen=True, kw_only=True)
class StreamRules:
    """The rules of the stream side; the defaults are the exchange's own. All waits are real time.

    ``period_ms`` is the time between two pushes of a candle in progress, ``unchanged`` whether one is pushed that has
    not changed since (SPOT does, UM and CM do not). A candle's last push, with ``x:true``, comes up to
    ``close_late_ms`` after its end, at most half a candle, for every symbol and candle at its own moment.

    The server pings every ``ping_ms`` and gives up ``pong_ms`` later, cuts a connection after ``life_ms``, takes
    ``messages_per_second`` from a client (pongs count), ``streams_max`` names per connection and ``connects_max``
    connections in ``connects_window_ms``. A client that reads too slowly is cut at ``backlog_bytes`` unsent.

    ``deflate`` offers permessage-deflate. ``stamp`` adds ``"ns"``, CLOCK_BOOTTIME in ns when the event was made, to
    every event, and ``family`` the field ``"st"`` (1 UM, 2 CM): fields that a client has to ignore or to filter by.

    ``old_path`` is whether UM's path without ``/market`` sends candles, as it did until April 2026, ``um_prices``
    whether the streams of mark price and index klines of UM send any, which are documented for CM alone.
    """

    period_ms: Mapping[Market, int] = field(default_factory=lambda: dict(_PERIODS_MS))
    unchanged: Mapping[Market, bool] = field(default_factory=lambda: {market: market == "SPOT" for market in MARKETS})
    close_late_ms: int = 2000
    ping_ms: Mapping[Market, int] = field(default_factory=lambda: dict(_PINGS_MS))
    pong_ms: Mapping[Market, int] = field(default_factory=lambda: dict(_PONGS_MS))
    life_ms: int = 86_400_000
    messages_per_second: Mapping[Market, int] = field(default_factory=lambda: dict(_MESSAGES_PER_SECOND))
    streams_max: int = 1024
    connects_max: int = 300
    connects_window_ms: int = 300_000
    backlog_bytes: int = 16 * 1024 * 1024
    deflate: bool = False
    stamp: bool = False
    family: bool = False
    old_path: bool = False
    um_prices: bool = False

    def __post_init__(self) -> None:
        for market, period_ms in self.period_ms.items():
            if period_ms < STEP_MS or 60_000 % period_ms or period_ms % STEP_MS:
                raise ValueError(f"period_ms of {market} does not divide a minute in steps of 5 ms: `{period_ms}`")
        for name in ("period_ms", "unchanged", "ping_ms", "pong_ms", "messages_per_second"):
            if set(getattr(self, name)) != set(MARKETS):
                raise ValueError(f"{name} does not name SPOT, UM and CM: `{getattr(self, name)}`")
        if self.close_late_ms < 0:
            raise ValueError(f"close_late_ms is below 0: `{self.close_late_ms}`")
