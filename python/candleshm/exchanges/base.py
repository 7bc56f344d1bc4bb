"""The border between the collector and an exchange: what a request is, what an answer is, what an exchange knows."""

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
    "Market",
    "Response",
    "StreamRules",
    "candle_end_ms",
    "date_ms_of",
]

Market = Literal["SPOT", "UM", "CM"]

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


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer, whatever its status. Header names are lower case; times are local monotonic seconds."""

    url: str = field(repr=False)
    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_seconds: float
    received_seconds: float
    date_ms: int | None
    """The answer's Date header, whole seconds."""
    by_proxy: bool = False
    """Whether a proxy said no to the way to the exchange, which itself has said nothing."""


@dataclass(frozen=True, slots=True)
class ExchangeInfo:
    """What the collector needs of exchangeInfo."""

    statuses: Mapping[str, str]
    """Every listed symbol and its status, in the exchange's order; unknown statuses are kept as sent."""
    weight_limit: int | None
    window_seconds: float

    def is_trading(self, symbol: str) -> bool:
        """Say whether `symbol` is listed and trades."""
        return self.statuses.get(symbol) == "TRADING"


@dataclass(frozen=True, slots=True)
class StreamRules:
    """What a market's streams are, and what they allow a client."""

    url: str
    """Where a combined stream is opened, without the names."""
    push_seconds: float
    """Time between two events of a candle."""
    on_change: bool
    """Whether nothing is pushed while nothing changes, so that silence alone means nothing."""
    messages_per_second: int
    """What a client may send on one connection, pongs included."""
    streams_max: int = 1024
    """Streams of one connection."""
    connects_max: int = 300
    connects_seconds: float = 300.0
    """New connections of one address: so many in so much time."""
    life_seconds: float = 86400.0
    """When the server ends a connection."""


class Exchange(Protocol):
    """One market of one exchange. Everything here is pure: it builds addresses and reads answers."""

    market: Market
    intervals: Sequence[str]
    """What the market offers, shortest first."""
    page_limit: int
    """Most candles per weight: what backfill asks for."""
    tail_limit: int
    """Most candles that cost no more than one."""
    weight_limit: int
    """Weight per minute until exchangeInfo says more."""
    time_url: str
    time_weight: int
    info_url: str
    info_weight: int

    def newest(self, symbol: str, interval: str, limit: int) -> KlineRequest:
        """Ask for the newest `limit` candles, the live one included; `limit` is cut to the market's maximum."""

    def until(self, symbol: str, interval: str, limit: int, end_ms: int) -> KlineRequest:
        """Ask for the newest `limit` candles that open at or before `end_ms`."""

    def klines_url(self, request: KlineRequest) -> str:
        """Return the address that asks for `request`."""

    def server_time_ms(self, answer: Response) -> int:
        """Read an answer of `time_url`. Raises BadResponse."""

    def info(self, answer: Response) -> ExchangeInfo:
        """Read an answer of `info_url`. Raises BadResponse."""

    def used_weight(self, answer: Response, window_seconds: float) -> int | None:
        """Return the weight that this address has used in the current window, where the answer says so."""

    def is_unknown_symbol(self, error: Exception) -> bool:
        """Say whether `error` means that the exchange does not list the symbol that was asked for."""

    def stream_rules(self, interval: str) -> StreamRules:
        """Return what holds for the streams of `interval`."""

    def stream_name(self, symbol: str, interval: str) -> str:
        """Return the name of a symbol's candle stream."""

    def error_of(self, answer: Response, now_ms: int) -> ExchangeError | None:
        """Return what is wrong with an answer, None when it can be read; `now_ms` turns an end of ban into a wait."""
