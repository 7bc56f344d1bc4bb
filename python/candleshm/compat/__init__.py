"""The names of `binance_interface`: `CandleRule` and `CandleServer`, with the defaults and log lines users know."""

from candleshm.compat.candle_server import CandleServer
from candleshm.compat.rule import CandleRule

__all__ = ["CandleRule", "CandleServer"]
