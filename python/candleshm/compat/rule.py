"""CandleRule: the settings of a `CandleServer` under the names that its users know, and what they are in a config."""

from __future__ import annotations

import difflib
import os
from typing import Any, ClassVar

from candleshm._core import zone_names
from candleshm.config import CollectorConfig, Setting, is_path, settings
from candleshm.errors import ConfigError
from candleshm.exchanges.base import Market
from candleshm.exchanges.binance import Binance

__all__ = ["CandleRule", "check_rule", "config_of"]

LOG_LEVELS = ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL")
# The field of CollectorConfig that a setting becomes; its meaning and what it allows stand there.
FIELDS = {
    "SERVER_WEIGHT": "server_weight",
    "SYMBOLS": "symbols",
    "SYMBOLS_FILTER": "symbols_filter",
    "SYMBOL_CONTAINS": "symbol_contains",
    "SYMBOL_ENDSWITH": "symbol_endswith",
    "BAR": "interval",
    "TIMEZONE": "timezone",
    "CANDLE_DIR": "candle_dir",
    "DOWNLOAD_TIME": "download_time",
    "LENGTH": "length",
    "UPDATE_INTERVAL_SECONDS": "update_interval_seconds",
    "CACHE_DELAY_SECONDS": "cache_delay_seconds",
    "CACHE_DIR": "cache_dir",
    "LOCAL_CANDLE_DAYS": "local_candle_days",
}


class CandleRule:
    """Settings of a `CandleServer`: subclass it and set what differs.

    Names in capitals are settings, all other attributes are the subclass's own. A wrong value, or a name in capitals
    that is none of these, is a ConfigError when the server is made.

    >>> class MyRule(CandleRule):
    ...     SYMBOLS = ["BTCUSDT", "ETHUSDT"]
    ...     LENGTH = 1440
    """

    SERVER_WEIGHT: ClassVar[float] = 0.75
    """Part of the exchange's weight limit to use at most: above 0, at most 1."""
    SYMBOLS: ClassVar[str | list[str]] = "all"
    """Every symbol that trades, or a list of at least one."""
    SYMBOLS_FILTER: ClassVar[list[str]] = []
    """Symbols to leave out."""
    SYMBOL_CONTAINS: ClassVar[str] = ""
    """Serve only symbols that contain this."""
    SYMBOL_ENDSWITH: ClassVar[str] = ""
    """Serve only symbols that end with this."""
    BAR: ClassVar[str] = "1m"
    """Any interval that the market has."""
    TIMEZONE: ClassVar[str] = "America/New_York"
    """IANA name of the zone whose days are used in logs and daily files; candles are in UTC."""
    CANDLE_DIR: ClassVar[str | os.PathLike[str]] = "./CANDLELITE_DATA/BINANCE"
    """Directory of the daily files."""
    DOWNLOAD_TIME: ClassVar[str | None] = "00:10:00"
    """Time of day in TIMEZONE, HH:MM:SS, at which the previous day is stored; None: never."""
    LENGTH: ClassVar[int] = 1440 * 2
    """Candles of every symbol, the live one included: 2 to 100000."""
    UPDATE_INTERVAL_SECONDS: ClassVar[float] = 3
    """Interval between two requests for a symbol: above 0, at most 86400; fractions are fine."""
    CACHE_DELAY_SECONDS: ClassVar[float | None] = 60 * 60
    """Interval between two writes of the cache, which is also written at the end; None: never."""
    CACHE_DIR: ClassVar[str | os.PathLike[str]] = "./BINANCE_CACHE"
    """Directory of the cache."""
    LOCAL_CANDLE_DAYS: ClassVar[int | None] = 2
    """Number of the newest days that are loaded from CANDLE_DIR at the start; 0, None: none."""
    KEY: ClassVar[str | None] = None
    """Accepted, not needed."""
    SECRET: ClassVar[str | None] = None
    """Accepted, not needed."""
    LOG_DIRPATH: ClassVar[str | os.PathLike[str]] = "./BINANCE_CANDLE_SERVER_LOG_DATA"
    """Directory of the log files, one a day."""
    LOG_FILE_LEVEL: ClassVar[str] = "INFO"
    """DEBUG, INFO, WARNING, ERROR or CRITICAL, in any case."""
    LOG_CONSOLE_LEVEL: ClassVar[str] = "DEBUG"
    """As LOG_FILE_LEVEL, for stderr."""


def check_rule(rule: type[CandleRule] | CandleRule, market: Market) -> None:
    """Check every setting of `rule` for `market`; nothing is started or written.

    Raises ConfigError that names the field, its value and what is allowed, or for an unknown name the nearest one.
    """
    if not (isinstance(rule, CandleRule) or (isinstance(rule, type) and issubclass(rule, CandleRule))):
        raise ConfigError(f"rule cannot be `{rule!r}`; allowed: a subclass of CandleRule")
    where = rule.__name__ if isinstance(rule, type) else type(rule).__name__
    known = _known(market)
    for name in dir(rule):
        if name.isupper() and not name.startswith("_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"{where}.{name} is not a setting; the nearest is {near} (names of your own: not all in capitals)"
            )
    for name, setting in known.items():
        value = getattr(rule, name)
        try:
            setting.check(f"{where}.{name}", value)
        except ConfigError as error:
            raise ConfigError(f"{error}{_hint(name, value)}") from None


def config_of(rule: type[CandleRule] | CandleRule, market: Market, **others: Any) -> CollectorConfig:
    """Return a checked rule as the configuration of a collector; `others` are fields that no rule has."""
    return CollectorConfig(market=market, **{field: getattr(rule, name) for name, field in FIELDS.items()}, **others)


def _known(market: Market) -> dict[str, Setting]:
    """Return what each name of a rule allows: the field that it becomes, and stricter where users know it so."""
    fields = settings()
    known = {name: fields[field] for name, field in FIELDS.items()}
    intervals = Binance(market).intervals
    known["BAR"] = Setting("", " ".join(intervals), lambda value: isinstance(value, str) and value in intervals)
    at = fields["download_time"]
    known["DOWNLOAD_TIME"] = Setting("", at.allowed, lambda value: value != "" and at.fits(value))
    path = Setting("", "a path of at least one character", is_path)
    secret = Setting("", "a text, or None", lambda value: value is None or isinstance(value, str), is_secret=True)
    level = Setting("", "DEBUG | INFO | WARNING | ERROR | CRITICAL", _is_level)
    known |= dict.fromkeys(("CANDLE_DIR", "CACHE_DIR", "LOG_DIRPATH"), path)
    known |= dict.fromkeys(("KEY", "SECRET"), secret)
    return known | dict.fromkeys(("LOG_FILE_LEVEL", "LOG_CONSOLE_LEVEL"), level)


def _hint(name: str, value: object) -> str:
    """Return what was probably meant, where that is a name from a long list."""
    if name != "TIMEZONE" or not isinstance(value, str):
        return ""
    near = difflib.get_close_matches(value, zone_names(), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _is_level(value: object) -> bool:
    return isinstance(value, str) and value.upper() in LOG_LEVELS
