"""Binance's three markets: spot, USD-M futures (UM), COIN-M futures (CM).

Sources: binance/binance-spot-api-docs (rest-api, errors), developers.binance.com (USD-M and COIN-M futures), recorded
responses. `MARKETS` holds what differs between the markets; everything else is common.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

from candleshm.errors import BadResponse, Banned, ExchangeError, ExchangeUnavailable, RateLimited
from candleshm.exchanges.base import (
    DAY_MS,
    INTERVAL_MS,
    ExchangeInfo,
    KlineRequest,
    ListedContract,
    Market,
    Price,
    Response,
    ScheduledSession,
    StreamRules,
)
from candleshm.exchanges.continuous import CONTINUOUS_CONTRACTS, NEVER_MS, is_continuous, parts_of
from candleshm.names import is_symbol_name
from candleshm.network.proxies import CREDENTIALS_STATUS
from candleshm.system.log_text import printable, without_credentials

__all__ = ["Binance", "retry_after_seconds"]

INVALID_SYMBOL = -1121
TRADIFI_PERPETUAL = "TRADIFI_PERPETUAL"

# Unknown, internal, bus, timeout, overloaded, shutting down: the same GET may succeed a moment later. While UM and CM
# are moved they send -1109, or a body without a code whose one key is a number.
TRANSIENT_CODES = frozenset({-1000, -1001, -1006, -1007, -1008, -1016, -1109})
# Too many requests, too many connections: never a plain retry, whatever HTTP status they come with.
LIMIT_CODES = frozenset({-1003, -1034})

# Only the spot pages promise Retry-After. Without it: one window after a 429, the shortest known ban after a 418, and
# the same after a 403, with which the firewall in front refuses without a time. The longest known ban is three days.
RATE_LIMITED_SECONDS = 60.0
BANNED_SECONDS = 120.0
RETRY_AFTER_SECONDS_MAX = 7 * 86400.0

# What an exchange may say, and nothing an integer of Python or of the block could trip over.
WEIGHT_MAX = 10**9
SHOWN_CHARACTERS_MAX = 200
# Epoch milliseconds of this century. A machine that is this far from its own Date header has no usable clock; less may
# be the fault of a relay, which writes a Date of its own.
SERVER_MS = (10**12, 10**13)
DATE_APART_MS_MAX = 3_600_000

_NUMBERED = re.compile(rb'\{\s*"[0-9]{1,12}"\s*:')
_BANNED_UNTIL = re.compile(r"banned until (\d{13})")
# The code of an error response that is cut off after it.
_CODE = re.compile(rb'\{\s*"code"\s*:\s*(-?[0-9]{1,6})\s*[,}]')
_USED_WEIGHT = re.compile(r"x-mbx-used-weight-([0-9]{1,4})([smhd])", re.IGNORECASE)
_WHOLE = re.compile(r"[0-9]{1,9}")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_INTERVAL_SECONDS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400}


@dataclass(frozen=True, slots=True)
class _MarketRules:
    host: str
    path: str  # a relay (`proxy_host`) expects its first part once more in front of it
    weight_steps: tuple[tuple[int, int], ...]  # (largest limit, weight)
    page_limit: int
    status_field: str
    weight_limit: int
    info_weight: int
    volumes_weight: int
    span_ms: int | None  # longest start..end, where both have to be given
    stream_urls: tuple[str, ...]  # tried in this order
    push_seconds: float
    on_change: bool
    messages_per_second: int

    @property
    def tail_limit(self) -> int:
        return self.weight_steps[0][0]

    @property
    def limit_max(self) -> int:
        return self.weight_steps[-1][0]


# Futures weights since 2021: a limit below 100 costs 1, below 500 2, up to 1000 5, above 10. Most rows per weight are
# therefore 499 (250 per unit) and, for a tail, up to 99; spot costs 2 whatever the limit.
_FUTURES_STEPS = ((99, 1), (499, 2), (1000, 5), (1500, 10))

MARKETS: Mapping[Market, _MarketRules] = {
    "SPOT": _MarketRules(
        host="https://api.binance.com",
        path="/api/v3",
        weight_steps=((1000, 2),),
        page_limit=1000,
        status_field="status",
        weight_limit=6000,
        info_weight=20,
        volumes_weight=80,
        span_ms=None,
        stream_urls=("wss://stream.binance.com:9443/stream",),
        push_seconds=2.0,
        on_change=False,
        messages_per_second=5,
    ),
    "UM": _MarketRules(
        host="https://fapi.binance.com",
        path="/fapi/v1",
        weight_steps=_FUTURES_STEPS,
        page_limit=499,
        status_field="status",
        weight_limit=2400,
        info_weight=1,
        volumes_weight=40,
        span_ms=None,
        # Since April 2026 the old path acknowledges subscriptions to candles and sends none.
        stream_urls=("wss://fstream.binance.com/market/stream", "wss://fstream.binance.com/stream"),
        push_seconds=0.25,
        on_change=True,
        messages_per_second=10,
    ),
    # With one bound or none, COIN-M puts the other one 200 days away; it always counts back from the end.
    "CM": _MarketRules(
        host="https://dapi.binance.com",
        path="/dapi/v1",
        weight_steps=_FUTURES_STEPS,
        page_limit=499,
        status_field="contractStatus",
        weight_limit=2400,
        info_weight=1,
        volumes_weight=40,
        span_ms=200 * DAY_MS,
        # The exchange's own packages use the first one; others report that it sends nothing, and use the second. The
        # host of USD-M streams candles of both families.
        stream_urls=(
            "wss://dstream.binance.com/stream",
            "wss://dstream.binance.com/market/stream",
            "wss://fstream.binance.com/market/stream",
        ),
        push_seconds=0.25,
        on_change=True,
        messages_per_second=10,
    ),
}


# Of each price: the endpoint, whose candles it gives, and the stream. UM has streams of trades only, a premium none.
_PRICES: Mapping[Price, tuple[str, str, str]] = {
    "trade": ("klines", "symbol", "kline"),
    "mark": ("markPriceKlines", "symbol", "markPriceKline"),
    "index": ("indexPriceKlines", "pair", "indexPriceKline"),
    "premium": ("premiumIndexKlines", "symbol", ""),
}


class Binance:
    """One market and one price. `base_url` replaces the host, `ws_url` that of the streams; `proxy_host` is a relay:
    it expects `/api` (...) in front of the path.
    """

    time_weight = 1
    schedule_weight = 5

    def __init__(
        self,
        market: Market,
        *,
        price: Price = "trade",
        base_url: str | None = None,
        proxy_host: str | None = None,
        ws_url: str | None = None,
    ) -> None:
        rules = MARKETS[market]
        self.market: Market = market
        self.price: Price = price
        self.intervals: Sequence[str] = tuple(name for name in INTERVAL_MS if market == "SPOT" or name != "1s")
        self.continuous_intervals: Sequence[str] = ()
        if price == "trade" and market != "SPOT":
            # UM offers candles of 1s by this endpoint alone.
            self.continuous_intervals = tuple(name for name in INTERVAL_MS if market == "UM" or name != "1s")
        self.page_limit = rules.page_limit
        self.tail_limit = rules.tail_limit
        self.weight_limit = rules.weight_limit
        self.info_weight = rules.info_weight
        host = (base_url or rules.host).rstrip("/")
        if proxy_host is not None:
            host = f"{proxy_host.rstrip('/')}/{rules.path.split('/')[1]}"
        self.time_url = f"{host}{rules.path}/time"
        self.info_url = f"{host}{rules.path}/exchangeInfo"
        self.volumes_weight = rules.volumes_weight
        self.volumes_url = f"{host}{rules.path}/ticker/24hr"
        self.schedule_url = f"{host}{rules.path}/tradingSchedule" if market == "UM" and price == "trade" else ""
        self._url = f"{host}{rules.path}"
        self._rules = rules
        self._stream_urls = rules.stream_urls
        if ws_url is not None:
            paths = dict.fromkeys(urlsplit(url).path for url in rules.stream_urls)
            self._stream_urls = tuple(f"{ws_url.rstrip('/')}{path}" for path in paths)

    def weight_of(self, limit: int) -> int:
        """Return what a klines request for `limit` candles costs."""
        return next(weight for largest, weight in self._rules.weight_steps if limit <= largest)

    def page_slots(self, interval: str) -> int:
        """Return how many slots of `interval` one request reaches back that buys most candles for its weight."""
        span_ms = self._rules.span_ms
        return self.page_limit if span_ms is None else min(self.page_limit, span_ms // INTERVAL_MS[interval])

    def newest(self, symbol: str, interval: str, limit: int) -> KlineRequest:
        """Build a request for the newest `limit` candles, the live one included: without bounds, on all markets."""
        limit = min(limit, self._rules.limit_max)
        return KlineRequest(symbol, interval, limit, self.weight_of(limit), price=self.price)

    def until(self, symbol: str, interval: str, limit: int, end_ms: int) -> KlineRequest:
        """Build a request for the newest `limit` candles that open at or before `end_ms`.

        Spot and UM return these when only the end is given, and a short response proves that nothing older exists. With
        both bounds they would count from the start. CM counts back from the end, but requires both bounds.
        """
        limit = min(limit, self._rules.limit_max)
        span_ms = self._rules.span_ms
        if span_ms is None:
            return KlineRequest(symbol, interval, limit, self.weight_of(limit), None, end_ms, self.price)
        # A limit beyond what the span can hold would buy nothing and may cost more.
        limit = min(limit, span_ms // INTERVAL_MS[interval] + 1)
        # The pages of the premium say nothing of a span, nor from which end it counts: with as many slots as rows both
        # ends are the same.
        if self.price == "premium":
            span_ms = min(span_ms, limit * INTERVAL_MS[interval])
        start_ms = max(0, end_ms - span_ms + 1)
        return KlineRequest(symbol, interval, limit, self.weight_of(limit), start_ms, end_ms, self.price)

    def klines_url(self, request: KlineRequest) -> str:
        """Return the URL of `request`."""
        start = "" if request.start_ms is None else f"&startTime={request.start_ms}"
        end = "" if request.end_ms is None else f"&endTime={request.end_ms}"
        name, parameter, _ = _PRICES[request.price]
        of = f"{parameter}={quote(request.symbol, safe='')}"
        if is_continuous(request.symbol):
            pair, kind = parts_of(request.symbol)
            name, of = "continuousKlines", f"pair={quote(pair, safe='')}&contractType={quote(kind, safe='')}"
        return f"{self._url}/{name}?{of}&interval={request.interval}&limit={request.limit}{start}{end}"

    def stream_rules(self, interval: str) -> StreamRules:
        """Return what holds for the streams of `interval`; candles of 1s are pushed once, when they close."""
        rules = self._rules
        return StreamRules(
            urls=self._stream_urls,
            push_seconds=1.0 if interval == "1s" else rules.push_seconds,
            on_change=rules.on_change,
            messages_per_second=rules.messages_per_second,
        )

    def stream_name(self, symbol: str, interval: str) -> str:
        """Return the name of a symbol's candle stream: in upper case it would be acknowledged and send nothing."""
        if is_continuous(symbol):
            return f"{symbol.lower().replace(':', '_')}@continuousKline_{interval}"
        return f"{symbol.lower()}@{_PRICES[self.price][2]}_{interval}"

    def server_time_ms(self, response: Response) -> int:
        """Read a response of `time_url`. Raises BadResponse."""
        server_ms = _json_object(response).get("serverTime")
        if not isinstance(server_ms, int):
            raise _bad(response, "serverTime is missing")
        if not SERVER_MS[0] <= server_ms < SERVER_MS[1]:
            raise _bad(response, f"serverTime is not a time of this century: `{_short(str(server_ms))}`")
        if response.date_ms is not None and abs(server_ms - response.date_ms) > DATE_APART_MS_MAX:
            apart_seconds = (server_ms - response.date_ms) / 1000
            raise _bad(
                response,
                f"serverTime is {apart_seconds:+.0f} s from the Date header of the same response: `{server_ms}`",
            )
        return server_ms

    def info(self, response: Response) -> ExchangeInfo:
        """Read a response of `info_url`; its serverTime is not used, on futures it lags by hours. Raises BadResponse.

        Names that cannot be a symbol's, and limits that cannot be one, are left out: the rest may be right.
        """
        info = _json_object(response)
        try:
            entries = {entry["symbol"]: entry for entry in info["symbols"] if is_symbol_name(entry["symbol"])}
            statuses = {symbol: str(entry.get(self._rules.status_field, "")) for symbol, entry in entries.items()}
            quotes = {symbol: str(entry.get("quoteAsset", "")) for symbol, entry in entries.items()}
            contracts = {
                symbol: str(entry["contractType"]) for symbol, entry in entries.items() if "contractType" in entry
            }
            pairs = {
                symbol: str(entry["pair"]) for symbol, entry in entries.items() if is_symbol_name(entry.get("pair"))
            }
            hours = {
                symbol: str(entry.get("underlyingType", ""))
                for symbol, entry in entries.items()
                if contracts.get(symbol) == TRADIFI_PERPETUAL
            }
            limits = [
                (_INTERVAL_SECONDS[rule["interval"]] * rule["intervalNum"], rule["limit"])
                for rule in info.get("rateLimits") or ()
                if rule["rateLimitType"] == "REQUEST_WEIGHT"
                and rule["interval"] in _INTERVAL_SECONDS
                and all(_is_whole(rule[field]) and 0 < rule[field] < WEIGHT_MAX for field in ("intervalNum", "limit"))
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise _bad(response, f"not an exchangeInfo ({type(error).__name__}: {error})") from None
        window_seconds, limit = min(limits, key=lambda rule: rule[1] / rule[0]) if limits else (60, None)
        if self.price == "index":
            quotes = {pair: quotes[symbol] for symbol, pair in pairs.items()}
            statuses, contracts = _statuses_of_pairs(statuses, pairs), {}
        return ExchangeInfo(
            statuses,
            limit,
            float(window_seconds),
            quotes,
            contracts,
            pairs,
            continuous=_continuous(entries, statuses) if self.continuous_intervals else {},
            hours=hours if self.price == "trade" else {},
        )

    def volumes(self, response: Response) -> dict[str, float]:
        """Read a response of `volumes_url`. CM sends contracts and base volume; with the average price that is money.

        What is no number counts as no volume. Raises BadResponse.
        """
        try:
            tickers = json.loads(response.body)
            volumes = {ticker["symbol"]: _volume(ticker) for ticker in tickers}
        except (ValueError, RecursionError) as error:
            raise _bad(response, f"not JSON ({error})") from None
        except (KeyError, TypeError) as error:
            raise _bad(response, f"not a list of tickers ({type(error).__name__}: {error})") from None
        if self.price != "index":
            return volumes
        of_pairs: dict[str, float] = {}
        for symbol, volume in volumes.items():
            pair = symbol.partition("_")[0]
            of_pairs[pair] = of_pairs.get(pair, 0.0) + volume
        return of_pairs

    def schedule(self, response: Response) -> dict[str, tuple[ScheduledSession, ...]]:
        """Read a response of `schedule_url`: the sessions of each market, in order. Raises BadResponse."""
        try:
            markets = _json_object(response)["marketSchedules"]
            sessions = {
                str(market): [
                    ScheduledSession(int(entry["startTime"]), int(entry["endTime"]), str(entry["type"]))
                    for entry in schedule["sessions"]
                ]
                for market, schedule in markets.items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _bad(response, f"not a tradingSchedule ({type(error).__name__}: {error})") from None
        return {
            market: tuple(sorted(own, key=lambda session: session.start_ms))
            for market, own in sessions.items()
            if all(SERVER_MS[0] <= session.start_ms < session.end_ms < SERVER_MS[1] for session in own)
        }

    def used_weight(self, response: Response, window_seconds: float) -> int | None:
        """Return the weight that this egress, other programs included, has used in the current window."""
        for name, value in response.headers.items():
            found = _USED_WEIGHT.fullmatch(name)
            if found and int(found[1]) * _UNIT_SECONDS[found[2].lower()] == window_seconds and _WHOLE.fullmatch(value):
                return int(value)
        return None

    def is_unknown_symbol(self, error: Exception) -> bool:
        """Return whether `error` means that the exchange does not list the requested symbol."""
        return isinstance(error, ExchangeError) and error.code == INVALID_SYMBOL

    def error_of(self, response: Response, now_ms: int) -> ExchangeError | None:
        """Sort a response by status and code, never by its text; texts change.

        RateLimited and Banned stop the whole pool; after ExchangeUnavailable and BadResponse the request may be sent
        again; a plain ExchangeError (a refused parameter, an unknown symbol, a blocked country) would only repeat.
        """
        status = response.status
        start = response.body[:64].lstrip()
        looks_like_json = start[:1] in (b"{", b"[")
        # A refusal begins with its code, and counts as one even where the status says that all is well.
        is_numbered = _NUMBERED.match(start) is not None
        if status == 200 and looks_like_json and not (start.startswith(b'{"code"') or is_numbered):
            return None
        code, message = _code_and_message(response) if looks_like_json else (None, _description(response))
        text = f"HTTP {status} from {_shown(response.url)}: {_short(message)}" + (
            f" (code {code})" if code is not None else ""
        )
        if status in (418, 403):
            wait_seconds = retry_after_seconds(response, now_ms) or _until(message, now_ms) or BANNED_SECONDS
            until_ms = now_ms + round(wait_seconds * 1000)
            return Banned(text, retry_after=wait_seconds, until_ms=until_ms, status=status, code=code)
        # A proxy that requires other credentials may lock out clients that continue without them.
        if status in (407, 429) or code in LIMIT_CODES:
            wait_seconds = retry_after_seconds(response, now_ms) or _until(message, now_ms) or RATE_LIMITED_SECONDS
            return RateLimited(text, retry_after=wait_seconds, status=status, code=code)
        if status >= 500 or status == 408 or code in TRANSIENT_CODES or is_numbered:
            return ExchangeUnavailable(text, status=status, code=code)
        if status == 451:
            return ExchangeError(
                f"{text}; the exchange does not serve this country; use another host or a proxy", status=status
            )
        if code is not None:
            return ExchangeError(text, status=status, code=code)
        return BadResponse(text, status=status)


def _statuses_of_pairs(statuses: Mapping[str, str], pairs: Mapping[str, str]) -> dict[str, str]:
    """Return the status of each pair: that of a symbol which trades, if one does, else of its first one."""
    of_pairs: dict[str, str] = {}
    for symbol, pair in pairs.items():
        if statuses[symbol] == "TRADING":
            of_pairs[pair] = "TRADING"
        else:
            of_pairs.setdefault(pair, statuses[symbol])
    return of_pairs


def _continuous(entries: Mapping[str, Mapping[str, Any]], statuses: Mapping[str, str]) -> dict[str, ListedContract]:
    """Return what each continuous contract stands for: of several contracts the one that trades, delivered first."""
    found: dict[str, tuple[bool, int, str]] = {}
    for symbol, entry in entries.items():
        pair, kind, delivery_ms = entry.get("pair"), entry.get("contractType"), entry.get("deliveryDate") or 0
        if kind not in CONTINUOUS_CONTRACTS["UM"] or not is_symbol_name(f"{pair}:{kind}"):
            continue
        whole_ms: int = delivery_ms if _is_whole(delivery_ms) and 0 < delivery_ms < NEVER_MS else 0
        rank = (statuses[symbol] != "TRADING", whole_ms, symbol)
        found[f"{pair}:{kind}"] = min(found.get(f"{pair}:{kind}", rank), rank)
    return {name: ListedContract(symbol, delivery_ms) for name, (_, delivery_ms, symbol) in found.items()}


def _json_object(response: Response) -> dict[str, Any]:
    try:
        value = json.loads(response.body)
    except (ValueError, RecursionError) as error:
        raise _bad(response, f"not JSON ({error})") from None
    if not isinstance(value, dict):
        raise _bad(response, "not a JSON object")
    return value


def _volume(ticker: Mapping[str, Any]) -> float:
    try:
        if "quoteVolume" in ticker:
            volume = float(ticker["quoteVolume"])
        else:
            volume = float(ticker["baseVolume"]) * float(ticker["weightedAvgPrice"])
    except (KeyError, ValueError, TypeError):
        return 0.0
    return volume if math.isfinite(volume) else 0.0


def _bad(response: Response, reason: str) -> BadResponse:
    return BadResponse(f"{_shown(response.url)}: {reason}", status=response.status)


def _code_and_message(response: Response) -> tuple[int | None, str]:
    try:
        value = json.loads(response.body)
        return int(value["code"]), str(value["msg"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        found = _CODE.match(response.body.lstrip())
        return (None if found is None else int(found[1])), _description(response)


def _description(response: Response) -> str:
    if response.proxy:
        hint = "; correct its user name and password" if response.status == CREDENTIALS_STATUS else ""
        return f"proxy {response.proxy} refuses to forward the request{hint}"
    content = response.headers.get("content-type", "no content type")
    return f"expected JSON, received {len(response.body)} bytes of {content}"


def _shown(url: str) -> str:
    """Return a URL without its query, user name and password."""
    return without_credentials(url.split("?", 1)[0])


def _short(text: str) -> str:
    """Return text of a response in a form that is safe to log. A relay may repeat the URL of the request in it."""
    plain = printable(without_credentials(text[: 2 * SHOWN_CHARACTERS_MAX]))
    return plain if len(plain) <= SHOWN_CHARACTERS_MAX else f"{plain[:SHOWN_CHARACTERS_MAX]}..."


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def retry_after_seconds(response: Response, now_ms: int) -> float | None:
    """Read `Retry-After`: seconds, or the date that HTTP allows as well; None when it says nothing that is ahead."""
    value = response.headers.get("retry-after", "").strip()
    # Of several headers the longest: they arrive as one, with commas.
    if re.fullmatch(r"[0-9]{1,300}(\s*,\s*[0-9]{1,300})*", value):
        wait_seconds = max(map(float, value.split(",")))
    else:
        try:
            asked_ms = now_ms if response.date_ms is None else response.date_ms
            wait_seconds = parsedate_to_datetime(value).timestamp() - asked_ms / 1000
        except (ValueError, TypeError, OverflowError):
            return None
    # Zero would mean a retry at once, which is what the status forbids.
    return min(wait_seconds, RETRY_AFTER_SECONDS_MAX) if wait_seconds > 0 else None


def _until(message: str, now_ms: int) -> float | None:
    found = _BANNED_UNTIL.search(message)
    wait_seconds = (int(found[1]) - now_ms) / 1000 if found else 0.0
    return min(wait_seconds, RETRY_AFTER_SECONDS_MAX) if wait_seconds > 0 else None
