"""The words with which users of `CandleServer` choose symbols by whether they trade."""

from __future__ import annotations

from typing import Literal, TypeAlias

from candleshm.errors import ConfigError
from candleshm.universe import Kind

__all__ = ["TradingType", "kind_of"]

TradingType: TypeAlias = Literal["trading_on", "trading_off", "trading_all"]
KINDS: dict[str, Kind] = {"trading_on": "trading", "trading_off": "not_trading", "trading_all": "all"}


def kind_of(trading_type: str) -> Kind:
    """Return the core's word for `trading_type`. Raises ConfigError."""
    if trading_type not in KINDS:
        raise ConfigError(f"type cannot be `{trading_type}`; allowed: {' | '.join(KINDS)}")
    return KINDS[trading_type]
