"""The parameters of a request for candles, judged as the exchange does: what it takes, in which order, with which code.

Sources: binance-spot-api-docs (rest-api, errors), developers.binance.com (USD-M and COIN-M futures), and probes of
2026-09. Texts are the exchange's own. Where both spot and futures were measured to be tolerant, so is this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from candleshm.exchanges.base import DAY_MS, INTERVAL_MS, Market, Price
from candleshm.gateway.refusals import Refused

__all__ = ["CONTRACT_TYPES", "PERPETUAL", "KlinesQuery", "parameters", "read_continuous", "read_klines", "read_prices"]

# What `symbol` may hold on SPOT; a listed name with other letters is taken as well.
SYMBOL_RANGE = "^[A-Z0-9-_.]{1,20}$"
NUMBER_RANGE = "^[0-9]{1,20}$"
NUMBER_DIGITS_MAX = 20
# SPOT takes times in microseconds, and tells them by their size.
MICROSECONDS_MIN = 10**14
# Beyond all times and below what a signed word holds.
MS_MAX = 2**53
# On COIN-M a request reaches over 200 days at most.
SPAN_MS = 200 * DAY_MS
LIMIT_DEFAULT = 500
LIMIT_MAX: Mapping[Market, int] = {"SPOT": 1000, "UM": 1500, "CM": 1500}
PERPETUAL = frozenset({"PERPETUAL", "TRADIFI_PERPETUAL"})
CONTRACT_TYPES = PERPETUAL | {"CURRENT_QUARTER", "NEXT_QUARTER"}
KNOWN = frozenset({"symbol", "interval", "limit", "startTime", "endTime", "timeZone"})

_SYMBOL = re.compile(SYMBOL_RANGE)
_ZONE = re.compile(r"([+-]?)([0-9]{1,2})(?::([0-5][0-9]))?")
_ZONE_MINUTES = (-12 * 60, 14 * 60)


@dataclass(frozen=True, slots=True)
class KlinesQuery:
    """A good request for candles. Times are epoch ms and bound the open time, both included."""

    market: Market
    symbol: str
    """The symbol; the pair where `contract_type` is given, and of an index."""
    interval: str
    limit: int
    start_ms: int | None
    end_ms: int | None
    zone_ms: int = 0
    """How far the days of the grid are ahead of UTC."""
    contract_type: str | None = None
    price: Price = "trade"

    @property
    def is_newest(self) -> bool:
        """Whether the newest candles of the range are wanted, not the oldest: COIN-M always counts from the end."""
        return self.start_ms is None or self.market == "CM"

    @property
    def needs_now(self) -> bool:
        """Whether the range depends on the exchange's time."""
        return self.market == "CM" and self.start_ms is None and self.end_ms is None

    def bounds_ms(self, now_ms: int | None) -> tuple[int | None, int | None]:
        """Return first and last open time of the range, None for no bound. `now_ms` is the exchange's time.

        COIN-M puts a bound that is not given 200 days from the other one.
        """
        start_ms, end_ms = self.start_ms, self.end_ms
        if self.market == "CM":
            if start_ms is None:
                until_ms = now_ms if end_ms is None else end_ms
                start_ms = None if until_ms is None else max(0, until_ms - SPAN_MS)
            elif end_ms is None:
                end_ms = start_ms + SPAN_MS
        return start_ms, end_ms


def parameters(market: Market, query: bytes, known: frozenset[str]) -> dict[str, str]:
    """Return the parameters of a query string. Raises Refused: SPOT refuses duplicate and unknown ones."""
    pairs = parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True)
    values = dict(pairs)
    if market == "SPOT":
        if len(values) != len(pairs):
            raise Refused(400, -1101, "Too many parameters; expected 'single' and received 'duplicate'.")
        read = sum(name in known for name in values)
        if read != len(values):
            text = f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{len(values)}'."
            raise Refused(400, -1104, text)
    return values


def read_klines(market: Market, query: bytes, is_listed: Callable[[str], bool]) -> KlinesQuery:
    """Read the query string of `klines` and `uiKlines`. Raises Refused.

    `is_listed` says whether the exchange has a symbol; it is asked where the letters of a name do not decide.
    """
    values = parameters(market, query, KNOWN)
    symbol = _text(values, "symbol")
    if market == "SPOT" and _SYMBOL.fullmatch(symbol) is None and not is_listed(symbol):
        raise _illegal("symbol", SYMBOL_RANGE)
    return _read(market, values, symbol)


def read_continuous(market: Market, query: bytes) -> KlinesQuery:
    """Read the query string of `continuousKlines`. Raises Refused."""
    values = parameters(market, query, KNOWN)
    pair, contract_type = _text(values, "pair"), _text(values, "contractType")
    if contract_type not in CONTRACT_TYPES:
        raise _invalid("contractType")
    return _read(market, values, pair, contract_type)


def read_prices(market: Market, price: Price, query: bytes) -> KlinesQuery:
    """Read the query string of `markPriceKlines`, `indexPriceKlines` and `premiumIndexKlines`. Raises Refused."""
    values = parameters(market, query, KNOWN)
    return replace(_read(market, values, _text(values, "pair" if price == "index" else "symbol")), price=price)


def _read(market: Market, values: Mapping[str, str], symbol: str, contract_type: str | None = None) -> KlinesQuery:
    interval = _text(values, "interval")
    limit = _number(values, "limit")
    start_ms, end_ms = _number(values, "startTime"), _number(values, "endTime")
    has_seconds = market == "SPOT" or (market == "UM" and contract_type is not None)
    if interval not in INTERVAL_MS or (interval == "1s" and not has_seconds):
        raise Refused(400, -1120, "Invalid interval.")
    zone_ms = 0
    if market == "SPOT":
        limit = min(limit or LIMIT_DEFAULT, LIMIT_MAX[market])
        start_ms, end_ms = (
            ms // 1000 if ms is not None and ms >= MICROSECONDS_MIN else ms for ms in (start_ms, end_ms)
        )
        zone_ms = _zone_ms(values["timeZone"]) if "timeZone" in values else 0
    else:
        limit = LIMIT_DEFAULT if limit is None else limit
        if not 1 <= limit <= LIMIT_MAX[market]:
            raise _invalid("limit")
        if start_ms is not None and end_ms is not None:
            if start_ms > end_ms:
                raise Refused(400, -1023, "Start time is greater than end time.")
            if market == "CM" and end_ms - start_ms > SPAN_MS:
                raise Refused(400, -1127, "Lookup interval is too big.")
    start_ms, end_ms = (None if ms is None else min(ms, MS_MAX) for ms in (start_ms, end_ms))
    return KlinesQuery(market, symbol, interval, limit, start_ms, end_ms, zone_ms, contract_type)


def _text(values: Mapping[str, str], name: str) -> str:
    value = values.get(name)
    if value is None:
        raise Refused(400, -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    if value == "":
        raise Refused(400, -1105, f"Parameter '{name}' was empty.")
    return value


def _number(values: Mapping[str, str], name: str) -> int | None:
    if name not in values:
        return None
    value = _text(values, name)
    if len(value) > NUMBER_DIGITS_MAX or not (value.isascii() and value.isdigit()):
        raise _illegal(name, NUMBER_RANGE)
    return int(value)


def _zone_ms(text: str) -> int:
    """Read a `timeZone`: hours, or hours and minutes, such as -1:00, 05:45 and 8."""
    found = _ZONE.fullmatch(text)
    if found is not None:
        minutes = int(found[2]) * 60 + int(found[3] or 0)
        minutes = -minutes if found[1] == "-" else minutes
        if _ZONE_MINUTES[0] <= minutes <= _ZONE_MINUTES[1]:
            return minutes * 60_000
    raise _invalid("timeZone")


def _illegal(name: str, legal: str) -> Refused:
    return Refused(400, -1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def _invalid(name: str) -> Refused:
    return Refused(400, -1130, f"Data sent for parameter '{name}' is not valid.")
