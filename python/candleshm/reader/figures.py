"""Numbers as people read them: prices, changes, ages and times of day."""

from __future__ import annotations

import math
import socket
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["age", "change", "clock_time", "kind_of", "lag_of", "lag_text", "price", "role_of"]

DECIMALS_MAX = 8
# Leaders say something every second: a lag above this is the time since one did.
LEADER_SILENT_SECONDS = 3.0


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
    def epoch(self) -> int | None: ...
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
    """Return what a block is in its cluster: leader, if its own process sent the newest row, alone, if that is all for
    its own host, or follower; else ''."""
    if block.source is None:
        return ""
    if block.source != f"{socket.gethostname()}/{block.pid}":
        return "follower"
    return "alone" if block.epoch is None else "leader"


def lag_of(block: Followed) -> str:
    """Return how far a block is behind its leader, or for how long nothing came; '' where nothing comes from others."""
    return "" if role_of(block) != "follower" or block.lag is None else lag_text(block.lag)


def lag_text(seconds: float) -> str:
    """Return how long messages of a leader are on their way, or for how long none came, as after more than 3 s."""
    if seconds > LEADER_SILENT_SECONDS:
        return f"nothing for {age(seconds)}"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else age(seconds)


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
