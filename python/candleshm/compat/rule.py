"""CandleRule: what a `CandleServer` is told, under the names that its users know."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

from candleshm._core import zone_names
from candleshm.config import TIME_OF_DAY, is_zone
from candleshm.errors import ConfigError
from candleshm.exchanges.base import Market
from candleshm.exchanges.binance import Binance
from candleshm.names import SYMBOL_NAMES, is_symbol_name

__all__ = ["CandleRule", "check_rule"]

LOG_LEVELS = ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL")
_SECRETS = ("KEY", "SECRET")


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
    """The IANA name of the zone whose days count; candles themselves are in UTC."""
    CANDLE_DIR: ClassVar[str | os.PathLike[str]] = "./CANDLELITE_DATA/BINANCE"
    """Where daily files lie."""
    DOWNLOAD_TIME: ClassVar[str | None] = "00:10:00"
    """When the day before is stored, HH:MM:SS in TIMEZONE; None: never."""
    LENGTH: ClassVar[int] = 1440 * 2
    """Candles of every symbol, the live one included: 2 to 100000."""
    UPDATE_INTERVAL_SECONDS: ClassVar[float] = 3
    """How often each symbol is asked for: above 0, at most 86400; fractions are fine."""
    CACHE_DELAY_SECONDS: ClassVar[float | None] = 60 * 60
    """How often the cache is written; None: never."""
    CACHE_DIR: ClassVar[str | os.PathLike[str]] = "./BINANCE_CACHE"
    """Where the cache lies."""
    LOCAL_CANDLE_DAYS: ClassVar[int | None] = 2
    """How many of the newest days in CANDLE_DIR are loaded when serving begins, and completed then; 0, None: none."""
    KEY: ClassVar[str | None] = None
    """Accepted, not needed."""
    SECRET: ClassVar[str | None] = None
    """Accepted, not needed."""
    LOG_DIRPATH: ClassVar[str | os.PathLike[str]] = "./BINANCE_CANDLE_SERVER_LOG_DATA"
    """Where log files go, one a day."""
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
    checks = _checks(Binance(market).intervals)
    for name in dir(rule):
        if name.isupper() and not name.startswith("_") and name not in checks:
            near = difflib.get_close_matches(name, checks, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"{where}.{name} is not a setting; the nearest is {near} (names of your own: not all in capitals)"
            )
    for name, (fits, allowed) in checks.items():
        value = getattr(rule, name)
        if not fits(value):
            shown = "(not shown)" if name in _SECRETS else value
            raise ConfigError(f"{where}.{name} cannot be `{shown}`; allowed: {allowed}{_hint(name, value)}")


def _checks(intervals: Collection[str]) -> Mapping[str, tuple[Callable[[Any], bool], str]]:
    """Return for each setting what fits, as a question and in words."""
    text, path = (_is_text, "a text"), (_is_path, "a path of at least one character")
    level = (_is_level, "DEBUG | INFO | WARNING | ERROR | CRITICAL")
    secret = (lambda value: value is None or _is_text(value), "a text, or None")
    return {
        "SERVER_WEIGHT": (lambda value: _is_number(value) and 0 < value <= 1, "a number above 0, at most 1"),
        "SYMBOLS": (
            lambda value: (_is_text(value) and value.lower() == "all") or (_are_names(value) and len(value) > 0),
            f"'all', or a list of at least one symbol, each {SYMBOL_NAMES}",
        ),
        "SYMBOLS_FILTER": (_are_names, f"a list of symbols, may be empty, each {SYMBOL_NAMES}"),
        "SYMBOL_CONTAINS": text,
        "SYMBOL_ENDSWITH": text,
        "BAR": (lambda value: _is_text(value) and value in intervals, " ".join(intervals)),
        "TIMEZONE": (is_zone, "an IANA name such as Asia/Shanghai"),
        "CANDLE_DIR": path,
        "DOWNLOAD_TIME": (
            lambda value: value is None or (_is_text(value) and TIME_OF_DAY.fullmatch(value) is not None),
            "HH:MM:SS such as 00:10:00, or None",
        ),
        "LENGTH": (lambda value: _is_whole(value) and 2 <= value <= 100_000, "a whole number, 2 to 100000"),
        "UPDATE_INTERVAL_SECONDS": (
            lambda value: _is_number(value) and 0 < value <= 86400,
            "a number above 0, at most 86400",
        ),
        "CACHE_DELAY_SECONDS": (
            lambda value: value is None or (_is_number(value) and value > 0),
            "a number above 0, or None",
        ),
        "CACHE_DIR": path,
        "LOCAL_CANDLE_DAYS": (
            lambda value: value is None or (_is_whole(value) and value >= 0),
            "a whole number, 0 or more, or None",
        ),
        "KEY": secret,
        "SECRET": secret,
        "LOG_DIRPATH": path,
        "LOG_FILE_LEVEL": level,
        "LOG_CONSOLE_LEVEL": level,
    }


def _hint(name: str, value: object) -> str:
    """Return what was probably meant, where that is a name from a long list."""
    if name != "TIMEZONE" or not isinstance(value, str):
        return ""
    near = difflib.get_close_matches(value, zone_names(), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike) and str(value) != "" and "\0" not in str(value)


def _is_level(value: object) -> bool:
    return isinstance(value, str) and value.upper() in LOG_LEVELS


def _are_names(value: object) -> bool:
    return isinstance(value, list | tuple) and all(is_symbol_name(name) for name in value)
