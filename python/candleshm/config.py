"""The settings of a collector, each in one place: name, type, default, help and what is allowed.

Flags, TOML keys and their help come from these fields, and so do the checks of `CandleRule`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from candleshm._core import MARKETS, PRICES, Zone, derivation_parts
from candleshm.errors import ConfigError
from candleshm.exchanges.base import Price
from candleshm.exchanges.continuous import CONTINUOUS_CONTRACTS, is_continuous, parts_of
from candleshm.names import BLOCK_NAMES, SYMBOL_NAMES, is_block_name, is_symbol_name
from candleshm.network.proxies import NO_TLS_TO_PROXY, fault_of_proxies
from candleshm.system.log_text import printable

__all__ = [
    "CANDLE_DIR",
    "SYMBOL_FIELDS",
    "TIMEZONE",
    "TIME_OF_DAY",
    "CollectorConfig",
    "DerivedBlock",
    "Setting",
    "bytes_of",
    "derived_name",
    "is_path",
    "is_zone",
    "settings",
]

TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d)")
LIVE = ("rest", "ws", "auto")
_WORD = re.compile(r"\w+")
CONTRACTS = (
    *("PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER", "CURRENT_MONTH", "NEXT_MONTH"),
    *("PERPETUAL_DELIVERING", "TRADIFI_PERPETUAL"),
)
# The fields that say which symbols are served, and may change while they are.
SYMBOL_FIELDS = ("symbols", "symbols_filter", "symbol_contains", "symbol_endswith", "contract", "quote")
# Where daily files are read and downloaded unless a directory is given, and whose days they hold.
CANDLE_DIR = "./candles"
TIMEZONE = "UTC"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a field of `CollectorConfig` means and which values it allows."""

    help: str
    allowed: str
    fits: Callable[[Any], bool]
    is_secret: bool = False
    """Whether its value may contain a password, so that no message repeats it."""

    def check(self, label: str, value: object) -> None:
        """Raise ConfigError, with the name `label`, the value and what is allowed, when `value` does not fit."""
        if not self.fits(value):
            shown = "(not shown)" if self.is_secret else value
            kind = ", a text, not a number" if self._fits_as_number(value) else ""
            raise ConfigError(f"{label} cannot be `{shown}`{kind}; allowed: {self.allowed}")

    def _fits_as_number(self, value: object) -> bool:
        """Return whether a text would fit if it were the number that it reads as."""
        for number in (int, float):
            with suppress(ValueError):
                if isinstance(value, str) and self.fits(number(value)):
                    return True
        return False


def _about(help: str, allowed: str, fits: Callable[[Any], bool], *, is_secret: bool = False) -> dict[str, Setting]:
    return {"setting": Setting(help, allowed, fits, is_secret)}


def is_zone(value: object) -> bool:
    """Say whether `value` is the IANA name of a time zone, in any case of letters."""
    try:
        Zone(value)
    except ConfigError:
        return False
    return True


def bytes_of(text: str) -> int | None:
    """Return the bytes of a text such as `500MiB` or `2 GiB`, in any case of letters; None for another text.

    >>> bytes_of("2GiB")
    2147483648
    """
    found = re.fullmatch(r"(\d{1,9}) ?([KMGT]i?)?B?", text.strip(), re.IGNORECASE | re.ASCII)
    if found is None:
        return None
    unit, found_bytes = (found[2] or "").upper(), int(found[1])
    factor = 1024 if unit.endswith("I") else 1000
    for _ in range(" KMGT".index(unit[0]) if unit else 0):
        found_bytes *= factor
    return found_bytes


def is_path(value: object) -> bool:
    """Say whether `value` can be the path of a file."""
    return isinstance(value, str | os.PathLike) and str(value) != "" and "\0" not in str(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(most: float) -> Callable[[Any], bool]:
    return lambda value: _is_number(value) and 0 < value <= most


def _is_whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _is_url(*schemes: str) -> Callable[[Any], bool]:
    def fits(value: object) -> bool:
        if not isinstance(value, str):
            return False
        try:
            parts = urlsplit(value)
            # An @ behind the host is a password with a slash in it, which would be taken for a host and shown.
            is_whole = "@" not in parts.path + parts.query + parts.fragment and printable(value) == value
            return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and is_whole
        except ValueError:
            return False

    return fits


def _names(names: object, is_name: Callable[[object], bool] = is_symbol_name) -> tuple[str, ...] | None:
    """Return a list of names, each once; None when it is no such list."""
    if not isinstance(names, Sequence) or isinstance(names, str):
        return None
    if not all(is_name(name) for name in names):
        return None
    return tuple(dict.fromkeys(names))


def _slashed(value: object) -> str | None:
    """Return the first name with a slash, as other libraries write pairs, that is a symbol without it."""
    names = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    return next(
        (name for name in names if isinstance(name, str) and is_symbol_name(name.replace("/", "")) and "/" in name),
        None,
    )


def _words(value: object) -> tuple[str, ...] | None:
    """Return a word, or a list of words, in capitals and each once; None when it is neither."""
    words = (value,) if isinstance(value, str) else value
    if not isinstance(words, Sequence) or not all(isinstance(word, str) and _WORD.fullmatch(word) for word in words):
        return None
    return tuple(dict.fromkeys(word.upper() for word in words))


def _are_symbols(value: object) -> bool:
    return _is_all(value) or bool(_names(value))


def _is_all(value: object) -> bool:
    return isinstance(value, str) and value.lower() == "all"


def _is_interval(value: object) -> bool:
    return isinstance(value, str) and value != ""


_is_length = _is_whole(2, 100_000)
LENGTHS = "a whole number, 2 to 100000"


class DerivedBlock(NamedTuple):
    """A block of candles that are made of another block's."""

    name: str
    interval: str
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorConfig:
    """Settings of one feed: one market, one price, one interval, one block.

    Raises ConfigError, naming the field, the value and what is allowed, before anything is started or written. Whether
    the market has that interval and those symbols is known to the exchange, and checked when the collector starts.

    >>> CollectorConfig(market="SPOT", symbols=["BTCUSDT"], derive=["1h"]).block_name
    'candleshm-spot-1m'
    """

    market: Literal["SPOT", "UM", "CM"] = field(
        metadata=_about(
            "SPOT, UM (USD-margined futures) or CM (coin-margined futures), in upper or lower case",
            " | ".join(MARKETS),
            lambda value: isinstance(value, str) and value.upper() in MARKETS,
        )
    )
    price: Price = field(
        default="trade",
        metadata=_about(
            "what the prices are: trade for those of trades; UM and CM also mark, index (of pairs instead of symbols) "
            "and premium, the premium index; in upper or lower case",
            " | ".join(PRICES),
            lambda value: isinstance(value, str) and value.lower() in PRICES,
        ),
    )
    interval: str = field(
        default="1m", metadata=_about("length of a candle, as the exchange names it", "a name such as 1m", _is_interval)
    )
    symbols: Literal["all"] | Sequence[str] = field(
        default="all",
        metadata=_about(
            "all for every symbol that trades, or a list; duplicates are ignored; UM and CM also have continuous "
            "contracts such as BTCUSDT:PERPETUAL or BTCUSDT:CURRENT_QUARTER",
            f"'all', or a list of at least one symbol, each {SYMBOL_NAMES}",
            _are_symbols,
        ),
    )
    symbols_filter: Sequence[str] = field(
        default=(),
        metadata=_about(
            "symbols to leave out, of all or of the list",
            f"a list of symbols, may be empty, each {SYMBOL_NAMES}",
            lambda value: _names(value) is not None,
        ),
    )
    symbol_contains: str = field(
        default="",
        metadata=_about("serve only symbols whose name contains this text", "a text, empty for no condition", _is_text),
    )
    symbol_endswith: str = field(
        default="",
        metadata=_about(
            "serve only symbols whose name ends with this text, such as USDT",
            "a text, empty for no condition",
            _is_text,
        ),
    )
    contract: Sequence[str] = field(
        default=(),
        metadata=_about(
            "serve only these kinds of contracts, such as PERPETUAL; UM and CM",
            f"{' | '.join(CONTRACTS)}, or a list of them",
            lambda value: (words := _words(value)) is not None and set(words) <= set(CONTRACTS),
        ),
    )
    quote: Sequence[str] = field(
        default=(),
        metadata=_about(
            "serve only symbols whose price is in these assets, such as USDT",
            "an asset such as USDT, or a list of them",
            lambda value: _words(value) is not None,
        ),
    )
    top: int | None = field(
        default=None,
        metadata=_about(
            "serve only so many of the symbols that pass the filters: those with the largest quote volume in 24 hours, "
            "chosen at the start; every hour newcomers join, and none leaves",
            "a whole number, 1 to 10000",
            _or_none(_is_whole(1, 10_000)),
        ),
    )
    spare_symbols: int | None = field(
        default=None,
        metadata=_about(
            "free places in the block for symbols that are listed later (default: with symbols=all a tenth of their "
            "number, at least 16; with a list its unlisted symbols)",
            "a whole number, 0 to 10000",
            _or_none(_is_whole(0, 10_000)),
        ),
    )
    universe_refresh_seconds: float = field(
        default=120.0,
        metadata=_about(
            "interval between requests for the exchange's list of symbols; a symbol that lags behind the others "
            "triggers one sooner",
            "a number above 0, at most 86400",
            _is_positive(86400),
        ),
    )
    length: int = field(
        default=2880,
        metadata=_about(
            "candles kept of every symbol, the live one included",
            LENGTHS,
            _is_length,
        ),
    )
    derive: Sequence[str] = field(
        default=(),
        metadata=_about(
            "further intervals, made of this feed's candles, each in a block of its own: 5m,1h:400,1d@Asia/Shanghai; "
            "the number is the candles kept (default: length)",
            "a list of intervals such as 5m or 1h:400, [] for none",
            lambda value: _names(value, _is_interval) is not None,
        ),
    )
    name: str | None = field(
        default=None,
        metadata=_about(
            "name of the block (default: candleshm-{market}-{interval}, for example candleshm-spot-1m; with a price "
            "other than trade candleshm-{market}-{price}-{interval})",
            BLOCK_NAMES,
            _or_none(is_block_name),
        ),
    )
    base_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "URL that replaces the exchange's REST host",
            "http://host[:port] or https://host[:port]",
            _or_none(_is_url("http", "https")),
            is_secret=True,
        ),
    )
    ws_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "URL that replaces the exchange's stream host",
            "ws://host[:port] or wss://host[:port]",
            _or_none(_is_url("ws", "wss")),
            is_secret=True,
        ),
    )
    live: Literal["rest", "ws", "auto"] = field(
        default="auto",
        metadata=_about(
            "source of live candles: rest for requests, ws for streams, auto for streams where "
            "they are possible, which they are not with proxy_host, or with base_url and without ws_url",
            " | ".join(LIVE),
            lambda value: value in LIVE,
        ),
    )
    proxy_host: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "URL of a relay, which gets /api, /fapi or /dapi in front of the exchange's path",
            "http://host[:port] or https://host[:port]",
            _or_none(_is_url("http", "https")),
            is_secret=True,
        ),
    )
    proxies: Mapping[str, str] = field(
        default_factory=dict,
        repr=False,
        metadata=_about(
            "proxies as the library requests takes them, for example https=http://proxy:3128; keys are http, https or "
            "all, or one of these with ://host; requests that match no key go out directly; streams take the same ones",
            "a mapping from http, https or all to the URL of a proxy",
            lambda value: fault_of_proxies(value) is None,
            is_secret=True,
        ),
    )
    trust_env: bool = field(
        default=False,
        metadata=_about(
            "use proxies and credentials from the environment", "True | False", lambda value: isinstance(value, bool)
        ),
    )
    server_weight: float = field(
        default=0.75,
        metadata=_about(
            "largest share of the exchange's request weight limit to use",
            "a number above 0, at most 1",
            _is_positive(1),
        ),
    )
    update_interval_seconds: float = field(
        default=3.0,
        metadata=_about(
            "interval between two requests for the live candle of a symbol",
            "a number above 0, at most 86400",
            _is_positive(86400),
        ),
    )
    settle_seconds: float = field(
        default=1.0,
        metadata=_about(
            "a response makes a candle final only if it was requested at least this long after the candle's end",
            "a number, 0 to 60",
            lambda value: _is_number(value) and 0 <= value <= 60,
        ),
    )
    workers: int = field(
        default=8, metadata=_about("number of simultaneous requests", "a whole number, 1 to 64", _is_whole(1, 64))
    )
    spin_microseconds: int = field(
        default=0,
        metadata=_about(
            "how long the thread of the streams polls its sockets before it sleeps: some latency less, for up to a "
            "whole core; 0 sleeps at once",
            "a whole number from 0 to 1000000",
            _is_whole(0, 1_000_000),
        ),
    )
    start_seconds: float = field(
        default=30.0,
        metadata=_about(
            "how long the exchange may be unreachable at the start before the program gives up",
            "a number above 0, at most 3600",
            _is_positive(3600),
        ),
    )
    cache_dir: str | os.PathLike[str] | None = field(
        default=None,
        metadata=_about(
            "directory that keeps the final rows for the next start; without it no rows are kept",
            "a path",
            _or_none(is_path),
        ),
    )
    cache_delay_seconds: float | None = field(
        default=3600.0,
        metadata=_about(
            "interval between two writes of the cache, which is also written at the end",
            "a number above 0, or None",
            _or_none(_is_positive(math.inf)),
        ),
    )
    candle_dir: str | os.PathLike[str] | None = field(
        default=None,
        metadata=_about(
            "directory of the daily files; without it no daily files are written", "a path", _or_none(is_path)
        ),
    )
    timezone: str = field(
        default=TIMEZONE,
        metadata=_about(
            "IANA name of the time zone whose days the daily files hold", "an IANA name such as Asia/Shanghai", is_zone
        ),
    )
    download_time: str | None = field(
        default="00:10:00",
        metadata=_about(
            "time of day in that zone, HH:MM:SS, at which the previous day is stored; empty for never",
            "HH:MM:SS such as 00:10:00, or None",
            lambda value: value in (None, "") or (_is_text(value) and TIME_OF_DAY.fullmatch(value) is not None),
        ),
    )
    local_candle_days: int | None = field(
        default=2,
        metadata=_about(
            "number of the newest days that are loaded from daily files at the start",
            "a whole number, 0 to 10000, or None",
            _or_none(_is_whole(0, 10_000)),
        ),
    )
    archive_url: str | None = field(
        default=None,
        metadata=_about(
            "URL of the exchange's archive, https://data.binance.vision or a mirror, from which missing daily files "
            "are downloaded first; without it they come from the exchange",
            "https://host, http://host or file:///directory",
            lambda value: value is None or _is_text(value),
        ),
    )

    record: str | os.PathLike[str] | None = field(
        default=None,
        metadata=_about(
            "directory in which everything that the exchange sends is recorded as it comes, for `candleshm replay "
            "--recording`; without it nothing is recorded",
            "a path",
            _or_none(is_path),
        ),
    )
    record_bytes: str = field(
        default="2GiB",
        metadata=_about(
            "how large the recording of a block may become; its oldest files go first",
            "a number with a unit, such as 500MiB or 2GiB; 1MiB or more",
            lambda value: _is_text(value) and (bytes_of(value) or 0) >= 1 << 20,
        ),
    )

    def __post_init__(self) -> None:
        for name, setting in settings().items():
            value = getattr(self, name)
            if name == "proxies" and (fault := fault_of_proxies(value)):
                raise ConfigError(fault)
            if name in ("symbols", "symbols_filter") and (slashed := _slashed(value)) is not None:
                meant = slashed.replace("/", "")
                raise ConfigError(f"{name} cannot have `{slashed}`: a symbol has no slash; did you mean `{meant}`?")
            setting.check(name, value)
        object.__setattr__(self, "price", self.price.lower())
        self._check_derived()
        if self.price != "trade" and self.market.upper() == "SPOT":
            raise ConfigError(f"price cannot be `{self.price}` with market SPOT; allowed there: trade")
        if self.contract and self.price == "index":
            raise ConfigError("contract cannot be given with price `index`: an index is of a pair, not of a contract")
        if self.contract and self.market.upper() == "SPOT":
            raise ConfigError(f"contract cannot be `{self.contract}` with market SPOT, which has no contracts")
        if self.live == "ws" and self.stream_hindrance is not None:
            raise ConfigError(f"live cannot be `ws`: {self.stream_hindrance}; allowed here: rest | auto")
        if self.base_url is not None and self.proxy_host is not None:
            raise ConfigError("base_url and proxy_host are both given; each replaces the exchange's host, choose one")
        symbols = "all" if _is_all(self.symbols) else _names(self.symbols)
        for name in (*(symbols or () if symbols != "all" else ()), *(_names(self.symbols_filter) or ())):
            if is_continuous(name):
                self._check_continuous(name)
        for name, value in (
            ("market", self.market.upper()),
            ("symbols", symbols),
            ("symbols_filter", _names(self.symbols_filter)),
            ("contract", _words(self.contract)),
            ("quote", _words(self.quote)),
            ("derive", _names(self.derive, _is_interval)),
        ):
            object.__setattr__(self, name, value)

    def of_symbols(self, symbols: Sequence[str]) -> Self:
        """Return the same settings for these very symbols, without any filter."""
        return replace(
            self,
            symbols=symbols,
            symbols_filter=(),
            symbol_contains="",
            symbol_endswith="",
            contract=(),
            quote=(),
            top=None,
        )

    @property
    def block_name(self) -> str:
        """The block's name."""
        return self.name or f"{self._stem}-{self.interval}"

    @property
    def _stem(self) -> str:
        """What the default names of the blocks begin with."""
        price = "" if self.price == "trade" else f"-{self.price}"
        return f"candleshm-{self.market.lower()}{price}"

    @property
    def derived(self) -> tuple[DerivedBlock, ...]:
        """Each derived block."""
        stem = self.name or self._stem
        parts = [interval.partition(":") for interval in self.derive]
        return tuple(
            DerivedBlock(derived_name(stem, interval), interval, int(text) if colon else self.length)
            for interval, colon, text in parts
        )

    @property
    def block_names(self) -> tuple[str, ...]:
        """The names of the block and of those derived from it."""
        return (self.block_name, *(block.name for block in self.derived))

    @property
    def stream_hindrance(self) -> str | None:
        """Why these settings leave no way to the streams, None when there is one."""
        if self.price == "premium" or (self.price != "trade" and self.market.upper() != "CM"):
            return f"the exchange has no streams of price `{self.price}` for {self.market.upper()}"
        if self.proxy_host is not None:
            return "proxy_host is a relay of requests, not of streams"
        if self.base_url is not None and self.ws_url is None:
            return "base_url replaces the exchange's host, and ws_url, the host of its streams, is not given"
        if any(address.lower().startswith("https://") for address in self.proxies.values()):
            return f"proxies has one whose URL begins with https://, and {NO_TLS_TO_PROXY}"
        return None

    @property
    def record_bytes_max(self) -> int:
        """`record_bytes` as a number."""
        return bytes_of(self.record_bytes) or 0

    @property
    def settle_ms(self) -> int:
        """`settle_seconds` in whole milliseconds, rounded up."""
        return math.ceil(self.settle_seconds * 1000)

    def _check_continuous(self, name: str) -> None:
        market: Any = self.market.upper()
        if market == "SPOT":
            raise ConfigError(f"symbols cannot have `{name}` with market SPOT, which has no contracts")
        if self.price != "trade":
            raise ConfigError(
                f"symbols cannot have `{name}` with price `{self.price}`: continuous contracts have price trade only"
            )
        pair, kind = parts_of(name)
        if not pair or kind not in CONTINUOUS_CONTRACTS[market]:
            allowed = " | ".join(CONTINUOUS_CONTRACTS[market])
            raise ConfigError(f"symbols cannot have `{name}`; allowed for {market}: a pair, a colon, and {allowed}")

    def _check_derived(self) -> None:
        for text in self.derive:
            interval, colon, length = text.partition(":")
            if interval == "3d":
                raise ConfigError(
                    "derive cannot be `3d`: each symbol has a grid of its own; serve that interval instead"
                )
            if colon and not (length.isascii() and length.isdigit() and _is_length(int(length))):
                raise ConfigError(f"derive cannot be `{text}`; allowed behind the colon: {LENGTHS}")
            try:
                parts = derivation_parts(self.interval, interval)
            except ConfigError as error:
                raise ConfigError(f"derive cannot be `{text}`: {error}") from None
            if parts > self.length:
                raise ConfigError(
                    f"derive cannot be `{text}` with length `{self.length}`: up to {parts} candles of "
                    f"{self.interval} make one; allowed: a length of {parts} or more"
                )
        names = [block.name for block in self.derived]
        twice = next((block.interval for block in self.derived if names.count(block.name) > 1), None)
        if twice is not None:
            raise ConfigError(f"derive has `{twice}` twice; give it once")


def derived_name(stem: str, interval: str) -> str:
    """Return the name of a derived block. `/` and `@` cannot be part of a name and become dashes."""
    return f"{stem}-{interval.replace('/', '-').replace('@', '-')}"


def settings() -> dict[str, Setting]:
    """Return what each field of `CollectorConfig` means, by its name."""
    return {item.name: item.metadata["setting"] for item in fields(CollectorConfig)}
