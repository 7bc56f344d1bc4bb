"""The sessions of the markets behind the TradFi perpetuals of a feed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from candleshm import _core
from candleshm.exchanges.continuous import is_continuous, parts_of

__all__ = ["SESSION_KINDS", "Session", "sessions_of"]

# By their codes in a block, from 1 on; docs/segment-format.md lists them.
SESSION_KINDS = ("PRE_MARKET", "REGULAR", "AFTER_MARKET", "OVERNIGHT", "NO_TRADING")
ANOTHER = len(SESSION_KINDS) + 1


@dataclass(frozen=True, slots=True)
class Session:
    """The session of the market behind a TradFi perpetual.

    >>> {name: session.kind for name, session in feed.sessions.items()}  # doctest: +SKIP
    {'TSLAUSDT': 'REGULAR'}
    """

    kind: str
    """'PRE_MARKET', 'REGULAR', 'AFTER_MARKET', 'OVERNIGHT', 'NO_TRADING', or 'another' that is not known here."""
    until: datetime
    """When it ends, aware, UTC."""

    @property
    def trades(self) -> bool:
        """Whether the market trades: in NO_TRADING candles are flat or absent, and neither is a fault."""
        return self.kind != "NO_TRADING"


def sessions_of(feed: _core.Feed) -> dict[str, Session]:
    """Return the session of each symbol that has sessions; one is left out until its collector knows it."""
    return {
        symbol: Session(
            (*SESSION_KINDS, "another")[min(max(kind, 1), ANOTHER) - 1], datetime.fromtimestamp(minutes * 60, tz=UTC)
        )
        for symbol, minutes, kind in feed._calendars()
        if not (is_continuous(symbol) and parts_of(symbol)[1].endswith("QUARTER")) and minutes
    }
