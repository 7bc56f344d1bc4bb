"""Requests as the exchange reads them: which parameters it takes, what it refuses and what a request weighs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from candleshm.sim.world.grid import DAY_MS, INTERVALS
from candleshm.sim.world.universe import Market, Price

# The path prefix stands for the market; one server stands for the three hosts.
PREFIXES: Mapping[str, Market] = {"/api/v3/": "SPOT", "/fapi/v1/": "UM", "/dapi/v1/": "CM"}
CM_SPAN_MS = 200 * DAY_MS

SYMBOL_LEGAL = "^[A-Z0-9-_.]{1,20}$"
_NUMBER_LEGAL = "^[0-9]{1,20}$"
# A time this large is meant in microseconds, which SPOT accepts.
_MICROSECONDS_FROM = 10**14
_CONTINUOUS = {"PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER", "TRADIFI_PERPETUAL"}
CONTINUOUS = "continuousKlines"
PRICES: Mapping[str, Price] = {
    "markPriceKlines": "mark",
    "indexPriceKlines": "index",
    "premiumIndexKlines": "premium",
}
_STATUSES = {"TRADING", "HALT", "BREAK", "END_OF_DAY", "CANCEL_ONLY"}


class Refusal(Exception):
    """The exchange's response to a request it refuses: an HTTP status and an error code with its text."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(code, message, status)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Request:
    """A request line taken apart. ``market`` is None for a path outside the three APIs."""

    method: str
    path: str
    pairs: tuple[tuple[str, str], ...]
    market: Market | None
    name: str  # what follows the prefix: "klines"
    time_unit: str | None = None

    @classmethod
    def parse(cls, method: str, target: str, time_unit: str | None = None) -> Request:
        """Take a request line's method and target apart; ``time_unit`` is the header X-MBX-TIME-UNIT."""
        path, _, query = target.partition("?")
        path = re.sub(r"^/(api|fapi|dapi)(?=/\1/)", "", path)  # as a relay in front of the exchange would pass it on
        pairs = tuple(parse_qsl(query, keep_blank_values=True)) if query else ()
        for prefix, market in PREFIXES.items():
            if path.startswith(prefix):
                return cls(method, path, pairs, market, path[len(prefix) :], time_unit)
        return cls(method, path, pairs, None, path)

    @property
    def symbol(self) -> str | None:
        """Return the requested symbol or pair, if any."""
        return next((value for key, value in self.pairs if key in {"symbol", "pair"}), None)


@dataclass(frozen=True)
class KlinesQuery:
    """The parameters of a request for klines. Times are ms, both inclusive against the open time.

    ``symbol`` is the name that `Truth.series` takes with ``price``: a pair for the index, ``BTCUSDT:PERPETUAL`` for a
    continuous contract. ``last_200_days`` is whether the rows are counted back from the end, in 200 days at most.
    """

    symbol: str
    interval: str
    limit: int
    start_ms: int | None
    end_ms: int | None
    zone_ms: int
    price: Price = "trade"
    last_200_days: bool = False

    @property
    def from_end(self) -> bool:
        """Return whether the newest rows of the range are wanted."""
        return self.start_ms is None


def wants_microseconds(request: Request) -> bool:
    """Return whether SPOT has to send times in microseconds; UM and CM have milliseconds alone. Raises Refusal."""
    if request.market != "SPOT" or request.time_unit is None:
        return False
    unit = request.time_unit.upper()
    if unit not in {"MICROSECOND", "MILLISECOND"}:
        raise Refusal(-1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
    return unit == "MICROSECOND"


def klines_weight(market: Market, limit: int) -> int:
    """Return what a klines request costs."""
    if market == "SPOT":
        return 2
    return 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10


def read_parameters(request: Request, known: tuple[str, ...]) -> dict[str, str]:
    """Return the parameters by name. SPOT refuses duplicate and unknown ones, with Refusal."""
    values: dict[str, str] = {}
    for key, value in request.pairs:
        if request.market == "SPOT" and key in values:
            raise Refusal(-1101, "Too many parameters; expected 'single' and received 'duplicate'.")
        values[key] = value
    if request.market == "SPOT":
        read = sum(key in known for key in values)
        if read != len(values):
            raise Refusal(
                -1104, f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{len(values)}'."
            )
    return values


def read_text(values: Mapping[str, str], name: str, legal: str | None = None) -> str:
    """Return a parameter that has to be there. Raises Refusal."""
    if name not in values:
        raise Refusal(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    if values[name] == "":
        raise Refusal(-1105, f"Parameter '{name}' was empty.")
    if legal and not re.fullmatch(legal, values[name]):
        raise Refusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")
    return values[name]


def read_number(values: Mapping[str, str], name: str) -> int | None:
    """Return a whole number, if it is there. Raises Refusal."""
    return int(read_text(values, name, _NUMBER_LEGAL)) if name in values else None


def _zone_ms(text: str) -> int:
    match = re.fullmatch(r"([+-]?)(\d{1,2})(?::(\d{2}))?", text)
    minutes = (int(match[2]) * 60 + int(match[3] or 0)) * (-1 if match[1] == "-" else 1) if match else 10_000
    if not -12 * 60 <= minutes <= 14 * 60:
        raise Refusal(-1130, "Data sent for parameter 'timeZone' is not valid.")
    return minutes * 60_000


def read_klines(request: Request, market: Market) -> KlinesQuery:
    """Return the parameters of a request for klines of any kind. Raises Refusal."""
    known = ("symbol", "interval", "limit", "startTime", "endTime", "timeZone")
    values = read_parameters(request, known)
    price = PRICES.get(request.name, "trade")
    if request.name == CONTINUOUS:
        pair, contract_type = read_text(values, "pair"), read_text(values, "contractType")
        if contract_type not in _CONTINUOUS:
            raise Refusal(-1130, "Data sent for parameter 'contractType' is not valid.")
        symbol = f"{pair}:{contract_type}"
    elif price == "index":
        symbol = read_text(values, "pair")
    else:
        # UM and CM symbols may hold letters of any script; only SPOT documents a legal range.
        symbol = read_text(values, "symbol", SYMBOL_LEGAL if market == "SPOT" else None)
    interval = read_text(values, "interval")
    limit = read_number(values, "limit")
    start_ms, end_ms = read_number(values, "startTime"), read_number(values, "endTime")
    has_seconds = market == "SPOT" or (market == "UM" and request.name == CONTINUOUS)
    if interval not in INTERVALS or (interval == "1s" and not has_seconds):
        raise Refusal(-1120, "Invalid interval.")
    if market == "SPOT":
        limit = min(limit or 500, 1000)
        start_ms, end_ms = (
            time // 1000 if time is not None and time >= _MICROSECONDS_FROM else time for time in (start_ms, end_ms)
        )
        return KlinesQuery(symbol, interval, limit, start_ms, end_ms, _zone_ms(values.get("timeZone", "0")))
    limit = 500 if limit is None else limit
    if not 1 <= limit <= 1500:
        raise Refusal(-1130, "Data sent for parameter 'limit' is not valid.")
    # The pages of CM give the rule for all klines but those of the premium index; those of UM do not have it.
    last_200_days = market == "CM" and price != "premium"
    if start_ms is not None and end_ms is not None:
        if start_ms > end_ms:
            raise Refusal(-1023, "Start time is greater than end time.")
        if last_200_days and end_ms - start_ms > CM_SPAN_MS:
            raise Refusal(-1127, "Lookup interval is too big.")
    return KlinesQuery(symbol, interval, limit, start_ms, end_ms, 0, price, last_200_days)


def read_status(values: Mapping[str, str]) -> str | None:
    """Return SPOT's symbolStatus, if there is one. Raises Refusal."""
    status = values.get("symbolStatus")
    if status is not None and status not in _STATUSES:
        raise Refusal(-1122, "Invalid symbolStatus.")
    return status


def read_symbols(values: Mapping[str, str]) -> list[str]:
    """Return SPOT's list of symbols. Raises Refusal."""
    try:
        symbols = json.loads(values["symbols"])
    except ValueError:
        symbols = None
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise Refusal(-1100, "Illegal characters found in parameter 'symbols'; legal range is '^\\[.*\\]$'.")
    return symbols


def read_spot_info(request: Request) -> tuple[frozenset[str] | None, str | None]:
    """Return the symbols and the status that a SPOT exchangeInfo request names. Raises Refusal."""
    values = read_parameters(request, ("symbol", "symbols", "permissions", "symbolStatus", "showPermissionSets"))
    status = read_status(values)
    if "symbol" in values:
        return frozenset({read_text(values, "symbol", SYMBOL_LEGAL)}), status
    if "symbols" not in values:
        return None, status
    return frozenset(read_symbols(values)), status
