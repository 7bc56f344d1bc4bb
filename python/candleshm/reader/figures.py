"""Numbers as people read them: prices, changes, ages and times of day."""

from __future__ import annotations

import math
import socket
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["age", "change", "clock_time", "kind_of", "lag_of", "price", "role_of"]

DECIMALS_MAX = 8


class Priced(Protocol):
    """What says of which market it is, and what its prices are: a feed, its settings, or the health of a block."""

    @property
    def market(self) -> str: ...
    @property
    def price(self) -> str: ...


class Followed(Protocol):
    """What says where its candles come from: the health of a block."""

    @property
    def source(self) -> str | None: ...
    @property
    def lag(self) -> float | None: ...
    @property
    def pid(self) -> int: ...


def price(value: float) -> str:
    """Return a price with its decimal point in the same place whatever its size, for a right-aligned column."""
    if not math.isfinite(value):
        return f"-{' ' * DECIMALS_MAX}"
    limits = ((1000, 2), (10, 3), (1, 4), (0.1, 5))
    decimals = next((count for least, count in limits if value >= least), DECIMALS_MAX)
    return f"{value:,.{decimals}f}{' ' * (DECIMALS_MAX - decimals)}"


def change(share: float) -> str:
    """Return a fraction as signed per cent, ten characters wide."""
    return f"{share:>+10.3%}" if math.isfinite(share) else f"{'-':>10}"


def kind_of(block: Priced) -> str:
    """Return the market of a block, and what its prices are unless they are those of trades: `UM-mark`."""
    return block.market if block.price == "trade" else f"{block.market}-{block.price}"


def role_of(block: Followed) -> str:
    """Return what a block is in its cluster: leader, if its own process sent the newest row, or follower; else ''."""
    if block.source is None:
        return ""
    return "leader" if block.source == f"{socket.gethostname()}/{block.pid}" else "follower"


def lag_of(block: Followed) -> str:
    """Return how long the newest message of the leader was on its way; '' where nothing comes from others."""
    if role_of(block) != "follower" or block.lag is None:
        return ""
    return f"{block.lag * 1000:.0f} ms" if block.lag < 1 else age(block.lag)


def age(seconds: float) -> str:
    """Return a duration, the coarser the longer it is."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def clock_time(epoch_ms: float) -> str:
    """Return the UTC time of day, with the date before it when that is not today's."""
    moment = datetime.fromtimestamp(epoch_ms / 1000, tz=UTC)
    return f"{moment:%H:%M:%S}" if moment.date() == datetime.now(UTC).date() else f"{moment:%Y-%m-%d %H:%M:%S}"
