"""What the continuous contracts of a feed stand for now, and since when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from candleshm import _core
from candleshm.exchanges.continuous import NEVER_MS, contract_name, is_continuous, parts_of

__all__ = ["Contract", "contracts_of"]

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Contract:
    """The contract that a continuous contract, such as BTCUSDT:CURRENT_QUARTER, stands for now.

    >>> {name: contract.symbol for name, contract in feed.contracts.items()}  # doctest: +SKIP
    {'BTCUSDT:CURRENT_QUARTER': 'BTCUSDT_260327'}
    """

    symbol: str
    """The exchange's name of the contract."""
    rolled_at: datetime | None
    """Since when it is that one: rows that open then or later are its own. Aware, UTC; None without a roll."""
    delivered_at: datetime | None
    """When it is delivered, and the next one takes its place: aware, UTC; None for a perpetual contract."""


def contracts_of(feed: _core.Feed) -> dict[str, Contract]:
    """Return the present contract of each continuous contract; one is left out until its collector knows it."""
    calendars = {symbol: (low, high) for symbol, low, high in feed._calendars()}
    contracts = {}
    for symbol in filter(is_continuous, feed.symbols):
        pair, kind = parts_of(symbol)
        is_dated = kind.endswith("QUARTER")
        if is_dated and symbol not in calendars:
            continue
        rolled, delivered = calendars.get(symbol, (0, 0)) if is_dated else (0, 0)
        delivery_ms = delivered * MINUTE_MS
        contracts[symbol] = Contract(
            contract_name(feed.market, pair, delivery_ms),
            _moment(rolled),
            _moment(delivered) if delivery_ms < NEVER_MS else None,
        )
    return contracts


def _moment(minutes: int) -> datetime | None:
    return datetime.fromtimestamp(minutes * 60, tz=UTC) if minutes else None
