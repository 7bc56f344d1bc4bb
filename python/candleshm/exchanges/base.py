"""The border between the collector and an exchange: requests, responses and the rules of a market."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Literal, Protocol

from candleshm._core import INTERVAL_MS, candle_end_ms
from candleshm.errors import ExchangeError

__all__ = [
    "INTERVAL_MS",
    "Exchange",
    "ExchangeInfo",
    "KlineRequest",
    "ListedContract",
    "Market",
    "Price",
    "Response",
    "ScheduledSession",
    "StreamRules",
    "candle_end_ms",
    "date_ms_of",
]

Market = Literal["SPOT", "UM", "CM"]
Price = Literal["trade", "mark", "index", "premium"]

DAY_MS = INTERVAL_MS["1d"]


def date_ms_of(header: str | None) -> int | None:
    """Return the moment that a Date header names, None when there is none that can be read."""
    if header is None:
        return None
    try:
        return round(parsedate_to_datetime(header).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class KlineRequest:
    """One klines request: the newest `limit` candles that open at `end_ms` or before (and not before `start_ms`)."""

    symbol: str
    interval: str
    limit: int
    weight: int
    start_ms: int | None = None
    end_ms: int | None = None
    price: Price = "trade"
    """What the prices are; of an index the symbol is a pair."""


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response, whatever its status. Header names are lower case; times are local monotonic seconds."""

    url: str = field(repr=False)
    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_seconds: float
    received_seconds: float
    date_ms: int | None
    """The response's Date header, in whole seconds."""
    proxy: str = ""
    """Host and port of the proxy that refused the request, so that the exchange never received it; mostly empty."""


@dataclass(frozen=True, slots=True)
class ListedContract:
    """What a continuous contract stands for at one time."""

    symbol: str
    delivery_ms: int
    """0 for a perpetual contract."""


@dataclass(frozen=True, slots=True)
class ScheduledSession:
    """A stretch of a market behind TradFi perpetuals: when it is, and its kind, such as REGULAR or NO_TRADING."""

    start_ms: int
    end_ms: int
    kind: str


@dataclass(frozen=True, slots=True)
class ExchangeInfo:
    """What the collector needs of exchangeInfo."""

    statuses: Mapping[str, str]
    """Every listed symbol and its status, in the exchange's order; unknown statuses are kept as sent. Of an index every
    pair, which trades while one of its symbols does."""
    weight_limit: int | None
    window_seconds: float
    quotes: Mapping[str, str] = field(default_factory=dict)
    """The asset in which each symbol's price is, such as USDT."""
    contracts: Mapping[str, str] = field(default_factory=dict)
    """The kind of contract of each symbol, such as PERPETUAL; SPOT has none."""
    pairs: Mapping[str, str] = field(default_factory=dict)
    """The pair of each listed contract, such as BTCUSD of BTCUSD_PERP; SPOT has none."""
    volumes: Mapping[str, float] = field(default_factory=dict)
    """Volume of each symbol in the last 24 hours, in the asset of its price; empty unless it was requested."""
    continuous: Mapping[str, ListedContract] = field(default_factory=dict)
    """What each continuous contract, such as BTCUSDT:CURRENT_QUARTER, stands for now; a feed has them by name only."""
    hours: Mapping[str, str] = field(default_factory=dict)
    """The market behind each TradFi perpetual, such as EQUITY, whose sessions are its hours."""

    def lists(self, symbol: str) -> bool:
        """Return whether `symbol`, or the contract that it stands for, is listed."""
        return symbol in self.statuses or symbol in self.continuous

    def listed_as(self, symbol: str) -> str:
        """Return the listed symbol that a continuous contract stands for; any other symbol itself."""
        contract = self.continuous.get(symbol)
        return symbol if contract is None else contract.symbol

    def is_trading(self, symbol: str) -> bool:
        """Return whether `symbol` is listed and trades."""
        return self.statuses.get(self.listed_as(symbol)) == "TRADING"


@dataclass(frozen=True, slots=True)
class StreamRules:
    """The streams of a market and what they allow a client to do."""

    urls: tuple[str, ...]
    """Where a combined stream can be opened, without the names: the paths that are tried, the preferred one first."""
    push_seconds: float
    """Time between two events of a candle."""
    on_change: bool
    """Whether nothing is pushed while nothing changes, so that an idle stream alone proves no fault."""
    messages_per_second: int
    """What a client may send on one connection, pongs included."""
    streams_max: int = 1024
    """Streams of one connection."""
    connects_max: int = 300
    connects_seconds: float = 300.0
    """New connections allowed for one egress: `connects_max` in `connects_seconds`."""
    life_seconds: float = 86400.0
    """When the server ends a connection."""


class Exchange(Protocol):
    """One market and one price of one exchange. Everything here is pure: it builds URLs and reads responses."""

    market: Market
    price: Price
    intervals: Sequence[str]
    """What the market offers, shortest first."""
    continuous_intervals: Sequence[str]
    """What it offers of continuous contracts; nothing where it has none."""
    page_limit: int
    """Most candles per weight: the limit of backfill requests."""
    tail_limit: int
    """Most candles that cost no more than one."""
    weight_limit: int
    """Weight per minute until exchangeInfo is read."""
    time_url: str
    time_weight: int
    info_url: str
    info_weight: int
    volumes_url: str
    volumes_weight: int
    schedule_url: str
    """Where the hours of the markets behind TradFi perpetuals are; empty for a market without any."""
    schedule_weight: int

    def page_slots(self, interval: str) -> int:
        """Return how many slots of `interval` one request reaches back that buys most candles for its weight."""

    def newest(self, symbol: str, interval: str, limit: int) -> KlineRequest:
        """Build a request for the newest `limit` candles, with the live one; `limit` is cut to the market's maximum."""

    def until(self, symbol: str, interval: str, limit: int, end_ms: int) -> KlineRequest:
        """Build a request for the newest `limit` candles that open at or before `end_ms`."""

    def klines_url(self, request: KlineRequest) -> str:
        """Return the URL of `request`."""

    def server_time_ms(self, response: Response) -> int:
        """Read a response of `time_url`. Raises BadResponse."""

    def info(self, response: Response) -> ExchangeInfo:
        """Read a response of `info_url`. Raises BadResponse."""

    def volumes(self, response: Response) -> dict[str, float]:
        """Read a response of `volumes_url`, as `ExchangeInfo.volumes` has them. Raises BadResponse."""

    def schedule(self, response: Response) -> dict[str, tuple[ScheduledSession, ...]]:
        """Read a response of `schedule_url`: the sessions of each market, in order. Raises BadResponse."""

    def used_weight(self, response: Response, window_seconds: float) -> int | None:
        """Return the weight that this egress has used in the current window, None when the header is missing."""

    def is_unknown_symbol(self, error: Exception) -> bool:
        """Return whether `error` means that the exchange does not list the requested symbol."""

    def stream_rules(self, interval: str) -> StreamRules:
        """Return what holds for the streams of `interval`."""

    def stream_name(self, symbol: str, interval: str) -> str:
        """Return the name of a symbol's candle stream, of an index that of a pair."""

    def error_of(self, response: Response, now_ms: int) -> ExchangeError | None:
        """Return what is wrong with a response, None when it can be read; `now_ms` turns an end of ban into a wait."""
