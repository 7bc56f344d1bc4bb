"""How many digits a market prints of a symbol's prices, volumes and turnovers, by its exchangeInfo.

SPOT pads everything to 8 digits. Futures print what `pricePrecision` and `quantityPrecision` say, also where the tick
is coarser (CTKUSDT had a tick of 0.00100, and sent 1.01200), and turnovers with the digits of both; COIN-M counts whole
contracts, and coins with 8 digits. So the captures of 2021 to 2026 have it.
"""

from __future__ import annotations

from typing import NamedTuple

from candleshm.exchanges.base import Market

__all__ = ["SAMPLED_DECIMALS", "SPOT_DECIMALS", "Decimals", "decimals_of"]

DIGITS_MAX = 18


class Decimals(NamedTuple):
    """Digits behind the point, and to how many all are padded with zeroes."""

    price: int
    lot: int
    turnover: int
    padded_to: int = 0


# What SPOT prints of a symbol whose tick and step are not known.
SPOT_DECIMALS = Decimals(8, 8, 8, 8)
# Mark, index and premium have eight decimals on UM and CM, and no volumes.
SAMPLED_DECIMALS = Decimals(8, 0, 0, 0)


def decimals_of(market: Market, price: int, lot: int) -> Decimals | None:
    """Return the digits of a symbol whose prices have `price` digits and volumes `lot`; None for what cannot be.

    >>> decimals_of("UM", 2, 3)
    Decimals(price=2, lot=3, turnover=5, padded_to=0)
    """
    if not (0 <= price <= DIGITS_MAX // 2 and 0 <= lot <= DIGITS_MAX // 2):
        return SPOT_DECIMALS if market == "SPOT" else None
    if market == "SPOT":
        return Decimals(min(price, 8), min(lot, 8), min(price + lot, 8), 8)
    return Decimals(price, 0, 8) if market == "CM" else Decimals(price, lot, price + lot)


def digits_of(step: str) -> int:
    """Return the digits of a tick or step without the zeroes at its end; -1 for what is none.

    >>> digits_of("0.00100000"), digits_of("1.00000000"), digits_of("10")
    (3, 0, 0)
    """
    whole, _, part = step.partition(".")
    if not (whole.isascii() and whole.isdigit() and (part == "" or (part.isascii() and part.isdigit()))):
        return -1
    return len(part.rstrip("0"))
