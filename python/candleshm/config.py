"""The settings of a collector: text and numbers become checked values here, once."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from candleshm._core import MARKETS, Zone, derivation_parts
from candleshm.errors import ConfigError
from candleshm.names import BLOCK_NAMES, SYMBOL_NAMES, is_block_name, is_symbol_name
from candleshm.network.proxies import fault_of_proxies
from candleshm.system.log_text import printable

__all__ = ["TIME_OF_DAY", "CollectorConfig", "is_zone"]

TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)")
LIVE = ("rest", "ws", "auto")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorConfig:
    """Settings of one feed: one market, one interval, one block.

    Raises ConfigError, naming the field, the value and what is allowed, before anything is started or written. Whether
    the market has that interval and those symbols is known to the exchange, and checked when the collector starts.
    """

    market: Literal["SPOT", "UM", "CM"]
    """Upper or lower case."""
    interval: str = "1m"
    symbols: Literal["all"] | Sequence[str] = "all"
    """Every symbol that trades, or a list; a name given twice counts once."""
    symbols_filter: Sequence[str] = ()
    """Symbols to leave out; this filter and the two below apply to 'all' and to a list."""
    symbol_contains: str = ""
    """Only symbols whose name contains this."""
    symbol_endswith: str = ""
    """Only symbols whose name ends with this, such as USDT."""
    spare_symbols: int | None = None
    """Free places in the block for symbols that are listed later. For 'all' the default is 16 or a tenth, else 0."""
    universe_refresh_seconds: float = 120.0
    """How often the exchange's list of symbols is read again; sooner when a symbol lags behind the others."""
    length: int = 2880
    """Candles of every symbol, the live one included."""
    derive: Sequence[str] = ()
    """Further intervals, each a block of its own, made of this feed's candles: 5m,1h,1d@Asia/Shanghai."""
    name: str | None = None
    """The block's name; `candleshm-{market}-{interval}` unless given."""
    base_url: str | None = field(default=None, repr=False)
    """Replaces the exchange's host."""
    ws_url: str | None = field(default=None, repr=False)
    """Replaces the exchange's stream host."""
    live: Literal["rest", "ws", "auto"] = "auto"
    """Where live candles come from: requests (rest), streams (ws, needs the extra ws), or streams if possible (auto).
    Streams are not possible through proxies, or when base_url is set and ws_url is not."""
    proxy_host: str | None = field(default=None, repr=False)
    """A forwarding host; requests to it have `/api`, `/fapi` or `/dapi` before the path."""
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    """As in the library requests: http, https or all, or one of these with ://host, to the address of a proxy.
    Requests that match no key go out directly."""
    trust_env: bool = False
    """Whether proxies and credentials from the environment are used."""
    server_weight: float = 0.75
    """The largest part of the exchange's weight limit to use."""
    update_interval_seconds: float = 3.0
    settle_seconds: float = 1.0
    """A candle is final only in an answer requested at least this long after the candle's end."""
    workers: int = 8
    """Number of requests at the same time."""
    start_seconds: float = 30.0
    """How long the exchange may be unreachable at the start."""
    cache_dir: str | os.PathLike[str] | None = None
    """Directory that keeps the rows for the next start; without it no rows are kept."""
    cache_delay_seconds: float | None = 3600.0
    """How often the rows are written there; they are also written at the end."""
    candle_dir: str | os.PathLike[str] | None = None
    """Directory of the daily files; without it no daily files are written."""
    timezone: str = "America/New_York"
    """IANA name of the time zone that defines the days of the daily files."""
    download_time: str | None = "00:10:00"
    """Time at which the previous day is stored, HH:MM:SS in that zone; empty for never."""
    local_candle_days: int | None = 2
    """How many of the newest days are loaded from daily files at the start; days without a file are downloaded."""
    archive_url: str | None = None
    """Address of the exchange's archive, https://data.binance.vision or a mirror. Those days that have no file are
    downloaded from there first; without it they come from the exchange."""

    def __post_init__(self) -> None:
        market = self.market.upper() if isinstance(self.market, str) else self.market
        _require("market", self.market, market in MARKETS, " | ".join(MARKETS))
        _require("interval", self.interval, isinstance(self.interval, str) and self.interval, "a name such as 1m")
        _require("name", self.name, self.name is None or is_block_name(self.name), BLOCK_NAMES)
        _require("length", self.length, _is_whole(self.length, 2, 100_000), "a whole number, 2 to 100000")
        object.__setattr__(self, "derive", self._derivable())
        _require("workers", self.workers, _is_whole(self.workers, 1, 64), "a whole number, 1 to 64")
        for label, value, least, most, allowed in (
            ("server_weight", self.server_weight, 0.0, 1.0, "above 0, at most 1"),
            ("update_interval_seconds", self.update_interval_seconds, 0.0, 86400.0, "above 0, at most 86400"),
            ("start_seconds", self.start_seconds, 0.0, 3600.0, "above 0, at most 3600"),
            ("universe_refresh_seconds", self.universe_refresh_seconds, 0.0, 86400.0, "above 0, at most 86400"),
        ):
            _require(label, value, _is_number(value) and least < value <= most, f"a number {allowed}")
        spare_fits = self.spare_symbols is None or _is_whole(self.spare_symbols, 0, 10_000)
        _require("spare_symbols", self.spare_symbols, spare_fits, "a whole number, 0 to 10000")
        for label, text in (("symbol_contains", self.symbol_contains), ("symbol_endswith", self.symbol_endswith)):
            _require(label, text, isinstance(text, str), "a text, empty for no condition")
        delay_fits = self.cache_delay_seconds is None or (
            _is_number(self.cache_delay_seconds) and self.cache_delay_seconds > 0
        )
        _require("cache_delay_seconds", self.cache_delay_seconds, delay_fits, "a number above 0, or None")
        _require("cache_dir", self.cache_dir, self.cache_dir is None or _is_path(self.cache_dir), "a path")
        settle_fits = _is_number(self.settle_seconds) and 0 <= self.settle_seconds <= 60
        _require("settle_seconds", self.settle_seconds, settle_fits, "a number, 0 to 60")
        _require("trust_env", self.trust_env, isinstance(self.trust_env, bool), "True | False")
        for label, url in (("base_url", self.base_url), ("proxy_host", self.proxy_host)):
            # The address may carry a password, so the text does not repeat it.
            _require(label, "(not shown)", url is None or _is_url(url), "http://host[:port] or https://host[:port]")
        ws_fits = self.ws_url is None or _is_url(self.ws_url, ("ws", "wss"))
        _require("ws_url", "(not shown)", ws_fits, "ws://host[:port] or wss://host[:port]")
        _require("live", self.live, self.live in LIVE, " | ".join(LIVE))
        if self.live == "ws" and self.stream_hindrance is not None:
            raise ConfigError(f"live cannot be `ws`: {self.stream_hindrance}; allowed here: rest | auto")
        if self.base_url is not None and self.proxy_host is not None:
            raise ConfigError("base_url and proxy_host are both given; each replaces the exchange's host, choose one")
        dir_fits = self.candle_dir is None or (isinstance(self.candle_dir, str | os.PathLike) and str(self.candle_dir))
        _require("candle_dir", self.candle_dir, dir_fits, "a path, or None for no daily files")
        _require("timezone", self.timezone, is_zone(self.timezone), "an IANA name such as Asia/Shanghai")
        time_fits = self.download_time in (None, "") or (
            isinstance(self.download_time, str) and TIME_OF_DAY.fullmatch(self.download_time)
        )
        _require("download_time", self.download_time, time_fits, "HH:MM:SS such as 00:10:00, or empty for never")
        days_fit = self.local_candle_days is None or _is_whole(self.local_candle_days, 0, 10_000)
        _require("local_candle_days", self.local_candle_days, days_fit, "a whole number, 0 to 10000")
        if fault := fault_of_proxies(self.proxies):
            raise ConfigError(fault)
        object.__setattr__(self, "market", market)
        object.__setattr__(self, "symbols", _symbols(self.symbols))
        filter_fits = _names(self.symbols_filter) is not None
        _require("symbols_filter", self.symbols_filter, filter_fits, "a list of symbols, [] for none")
        object.__setattr__(self, "symbols_filter", _names(self.symbols_filter))

    @property
    def block_name(self) -> str:
        """The block's name."""
        return self.name or f"candleshm-{self.market.lower()}-{self.interval}"

    @property
    def derived(self) -> tuple[tuple[str, str], ...]:
        """Name and interval of each derived block. `/` and `@` cannot be part of a name and become dashes."""
        stem = f"{self.name or f'candleshm-{self.market.lower()}'}-"
        return tuple((stem + interval.replace("/", "-").replace("@", "-"), interval) for interval in self.derive)

    @property
    def stream_hindrance(self) -> str | None:
        """Why these settings leave no way to the streams, None when there is one."""
        if self.proxies or self.trust_env:
            return "streams do not go through the proxies of `proxies` and `trust_env`"
        if self.proxy_host is not None:
            return "proxy_host resends requests, not streams"
        if self.base_url is not None and self.ws_url is None:
            return "base_url replaces the exchange's host, and ws_url, the host of its streams, is not given"
        return None

    @property
    def settle_ms(self) -> int:
        """`settle_seconds` in whole milliseconds, rounded up."""
        return math.ceil(self.settle_seconds * 1000)

    def _derivable(self) -> tuple[str, ...]:
        intervals = _names(self.derive, lambda name: isinstance(name, str) and bool(name))
        _require("derive", self.derive, intervals is not None, "a list of intervals, [] for none")
        for interval in intervals or ():
            if interval == "3d":
                raise ConfigError(
                    "derive cannot be `3d`: each symbol has a grid of its own; serve that interval instead"
                )
            try:
                parts = derivation_parts(self.interval, interval)
            except ConfigError as error:
                raise ConfigError(f"derive cannot be `{interval}`: {error}") from None
            if parts > self.length:
                raise ConfigError(
                    f"derive cannot be `{interval}` with length `{self.length}`: up to {parts} candles of "
                    f"{self.interval} make one; allowed: a length of {parts} or more"
                )
        return intervals or ()


def is_zone(value: object) -> bool:
    """Say whether `value` is the IANA name of a time zone, in any case of letters."""
    try:
        Zone(value)
    except ConfigError:
        return False
    return True


def _require(label: str, value: object, condition: Any, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"{label} cannot be `{value}`; allowed: {allowed}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike) and str(value) != "" and "\0" not in str(value)


def _is_url(value: object, schemes: Sequence[str] = ("http", "https")) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        # An @ behind the host is a password with a slash in it, which would be taken for a host and shown.
        is_whole = "@" not in parts.path + parts.query + parts.fragment and printable(value) == value
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and is_whole
    except ValueError:
        return False


def _symbols(symbols: object) -> Literal["all"] | tuple[str, ...]:
    if isinstance(symbols, str) and symbols.lower() == "all":
        return "all"
    names = _names(symbols)
    _require("symbols", symbols, names, f"'all' or a list of at least one symbol, each {SYMBOL_NAMES}")
    return names or ()


def _names(names: object, is_name: Callable[[object], bool] = is_symbol_name) -> tuple[str, ...] | None:
    """Return a list of names, each once; None when it is no such list."""
    if not isinstance(names, Sequence) or isinstance(names, str):
        return None
    if not all(is_name(name) for name in names):
        return None
    return tuple(dict.fromkeys(names))
