"""One exchangeInfo of a market: the symbols that it lists, their digits, and the bodies that requests for it get."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from candleshm.exchanges.base import Market
from candleshm.gateway.precision import Decimals, decimals_of, digits_of
from candleshm.gateway.query import SYMBOL_RANGE, parameters
from candleshm.gateway.refusals import Refused
from candleshm.names import is_symbol_name

__all__ = ["Listing"]

KNOWN = frozenset({"symbol", "symbols", "permissions", "symbolStatus", "showPermissionSets"})
STATUSES = frozenset({"TRADING", "HALT", "BREAK", "END_OF_DAY", "CANCEL_ONLY"})
LIST_RANGE = r"^\[.*\]$"

_SERVER_TIME = re.compile(rb'"serverTime":\s*[0-9]+')
_PERMISSION_SETS = re.compile(rb'"permissionSets":\s*\[(?:\s*\[[^\]]*\]\s*,?)*\]')


class _Filter(msgspec.Struct):
    filterType: str = ""
    tickSize: str = ""
    stepSize: str = ""


class _Entry(msgspec.Struct):
    symbol: str
    status: str = ""
    contractStatus: str = ""
    pair: str = ""
    contractType: str = ""
    pricePrecision: int = -1
    quantityPrecision: int = -1
    filters: list[_Filter] = []
    permissionSets: list[list[str]] = []


class Listing:
    """One exchangeInfo: what it lists, and its body for those who request it. Never changes."""

    def __init__(self, market: Market, body: bytes) -> None:
        """Raises ValueError for what is no exchangeInfo. Entries that cannot be read are left out of what is known."""
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if "symbols" not in fields:
            raise ValueError("it has no symbols")
        self.body = body
        self.statuses: dict[str, str] = {}
        self.decimals: dict[str, Decimals] = {}
        self.contracts: dict[tuple[str, str], str] = {}
        """Symbols by pair and type of contract."""
        self.pairs: set[str] = set()
        self._fields = fields
        self._entries: dict[str, tuple[msgspec.Raw, _Entry]] = {}
        for raw in msgspec.json.decode(fields["symbols"], type=list[msgspec.Raw]):
            try:
                entry = msgspec.json.decode(raw, type=_Entry)
            except msgspec.ValidationError:
                continue
            if is_symbol_name(entry.symbol):
                self._take(market, raw, entry)
        if not self.statuses:
            raise ValueError("it lists no symbol")

    def _take(self, market: Market, raw: msgspec.Raw, entry: _Entry) -> None:
        symbol = entry.symbol
        self._entries[symbol] = raw, entry
        self.statuses[symbol] = entry.contractStatus or entry.status
        if entry.pair:
            self.pairs.add(entry.pair)
            self.contracts.setdefault((entry.pair, entry.contractType), symbol)
        if market == "SPOT":
            sizes = {rule.filterType: rule for rule in entry.filters}
            price = digits_of(sizes.get("PRICE_FILTER", _Filter()).tickSize)
            lot = digits_of(sizes.get("LOT_SIZE", _Filter()).stepSize)
        else:
            price, lot = entry.pricePrecision, entry.quantityPrecision
        if (decimals := decimals_of(market, price, lot)) is not None:
            self.decimals[symbol] = decimals

    def body_at(self, now_ms: int | None) -> bytes:
        """Return the body with the time of the response in it, which is that of the copy when nobody knows it."""
        return self.body if now_ms is None else _SERVER_TIME.sub(b'"serverTime":%d' % now_ms, self.body, count=1)

    def select(self, query: bytes, now_ms: int | None) -> bytes:
        """Return what a request to SPOT with parameters gets. Raises Refused."""
        values = parameters("SPOT", query, KNOWN)
        names = self._named(values)
        status = values.get("symbolStatus")
        if status is not None and status not in STATUSES:
            raise Refused(400, -1122, "Invalid symbolStatus.")
        chosen = [self._entries[name] for name in (self._entries if names is None else names)]
        if status is not None:
            chosen = [(raw, entry) for raw, entry in chosen if entry.status == status]
        if "permissions" in values:
            wanted = set(_texts(values["permissions"], "permissions"))
            chosen = [pair for pair in chosen if any(wanted.intersection(names) for names in pair[1].permissionSets)]
        raws = [raw for raw, _ in chosen]
        if values.get("showPermissionSets", "true").lower() == "false":
            raws = [msgspec.Raw(_PERMISSION_SETS.sub(b'"permissionSets":[]', bytes(raw))) for raw in raws]
        fields: dict[str, Any] = {**self._fields, "symbols": raws}
        if now_ms is not None:
            fields["serverTime"] = now_ms
        return msgspec.json.encode(fields)

    def _named(self, values: Mapping[str, str]) -> Collection[str] | None:
        """Return the symbols that the parameters name, in the order of the list; None for all."""
        if "symbol" in values and "symbols" in values:
            raise Refused(400, -1128, "Combination of optional parameters invalid.")
        if "symbol" in values:
            if values["symbol"] == "":
                raise Refused(400, -1105, "Parameter 'symbol' was empty.")
            names = [values["symbol"]]
            if names[0] not in self._entries and re.fullmatch(SYMBOL_RANGE, names[0]) is None:
                text = f"Illegal characters found in parameter 'symbol'; legal range is '{SYMBOL_RANGE}'."
                raise Refused(400, -1100, text)
        elif "symbols" in values:
            names = _texts(values["symbols"], "symbols")
        else:
            return None
        if not self._entries.keys() >= set(names):
            raise Refused(400, -1121, "Invalid symbol.")
        wanted = frozenset(names)
        return [name for name in self._entries if name in wanted]


def _texts(value: str, name: str) -> list[str]:
    """Read a list of texts in JSON; `permissions` may be a single text as well."""
    if name == "permissions" and not value.startswith("["):
        return [value]
    try:
        texts = json.loads(value)
    except (ValueError, RecursionError):
        texts = None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refused(400, -1100, f"Illegal characters found in parameter '{name}'; legal range is '{LIST_RANGE}'.")
    return texts
