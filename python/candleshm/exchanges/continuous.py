"""Continuous contracts: `BTCUSDT:CURRENT_QUARTER` is whichever contract of the pair is that quarter's now. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from candleshm.exchanges.base import Market

__all__ = ["CONTINUOUS_CONTRACTS", "NEVER_MS", "contract_name", "is_continuous", "parts_of", "roll_before_ms"]

# What may stand behind the colon. SPOT has no contracts.
CONTINUOUS_CONTRACTS: Mapping[Market, tuple[str, ...]] = {
    "SPOT": (),
    "UM": ("PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER", "TRADIFI_PERPETUAL"),
    "CM": ("PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER"),
}
# Contracts without a delivery have one in the year 2100.
NEVER_MS = 4_000_000_000_000

_QUARTERS = ("CURRENT_QUARTER", "NEXT_QUARTER")
# A quarterly contract is delivered on the last Friday of March, June, September and December, at 08:00 UTC.
_FRIDAY, _DELIVERY_HOUR = 4, 8


def is_continuous(symbol: str) -> bool:
    """Return whether a symbol names a pair and a kind of contract instead of a contract."""
    return ":" in symbol


def parts_of(symbol: str) -> tuple[str, str]:
    """Return pair and kind of a continuous contract.

    >>> parts_of("BTCUSDT:CURRENT_QUARTER")
    ('BTCUSDT', 'CURRENT_QUARTER')
    """
    pair, _, kind = symbol.partition(":")
    return pair, kind


def contract_name(market: Market, pair: str, delivery_ms: int) -> str:
    """Return the exchange's name of a contract: of a perpetual one where it has no delivery.

    >>> contract_name("CM", "BTCUSD", 0), contract_name("UM", "BTCUSDT", 1774598400000)
    ('BTCUSD_PERP', 'BTCUSDT_260327')
    """
    if not 0 < delivery_ms < NEVER_MS:
        return pair if market == "UM" else f"{pair}_PERP"
    return f"{pair}_{datetime.fromtimestamp(delivery_ms / 1000, tz=UTC):%y%m%d}"


def roll_before_ms(kind: str, delivery_ms: int) -> int | None:
    """Return when a quarter rolled to the contract with that delivery; None where the calendar does not tell.

    Both quarters roll when the current one is delivered.

    >>> roll_before_ms("CURRENT_QUARTER", 1774598400000)
    1766736000000
    """
    if kind not in _QUARTERS or not 0 < delivery_ms < NEVER_MS:
        return None
    day = datetime.fromtimestamp(delivery_ms / 1000, tz=UTC)
    if day.month % 3 or delivery_ms != _delivery_ms(day.year, day.month):
        return None
    months = day.year * 12 + day.month - 1 - 3 * (1 + _QUARTERS.index(kind))
    return _delivery_ms(months // 12, months % 12 + 1)


def _delivery_ms(year: int, month: int) -> int:
    following = datetime(year + month // 12, month % 12 + 1, 1, _DELIVERY_HOUR, tzinfo=UTC)
    last = following - timedelta(days=1)
    friday = last - timedelta(days=(last.weekday() - _FRIDAY) % 7)
    return int(friday.timestamp() * 1000)
