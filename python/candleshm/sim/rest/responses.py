"""Requests to responses: what the exchange sends at a moment, given its truth. Pure but for the truth's memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from candleshm.sim.rest.funding import FUNDING, SCHEDULE, funding_info, funding_rates, trading_schedule
from candleshm.sim.rest.query import (
    CM_SPAN_MS,
    CONTINUOUS,
    PRICES,
    KlinesQuery,
    Refusal,
    Request,
    klines_weight,
    read_klines,
    read_spot_info,
    wants_microseconds,
)
from candleshm.sim.rest.ticker_query import DEPTH, TICKERS, ticker_weight
from candleshm.sim.rest.tickers import tickers
from candleshm.sim.world.exchange_info import exchange_info
from candleshm.sim.world.grid import Grid
from candleshm.sim.world.truth import Truth
from candleshm.sim.world.universe import Instrument, Market

JSON_TYPE = "application/json;charset=UTF-8"
KLINES: Mapping[Market, frozenset[str]] = {
    "SPOT": frozenset({"klines", "uiKlines"}),
    "UM": frozenset({"klines", CONTINUOUS, *PRICES}),
    "CM": frozenset({"klines", CONTINUOUS, *PRICES}),
}
_OWN: Mapping[Market, frozenset[str]] = {
    "SPOT": frozenset(),
    "UM": frozenset({SCHEDULE, *FUNDING}),
    "CM": frozenset(FUNDING),
}
# UM's host has the klines of CM as well, and the reverse.
_FAMILIES: Mapping[Market, tuple[Market, ...]] = {"SPOT": ("SPOT",), "UM": ("UM", "CM"), "CM": ("CM", "UM")}
_REFUSED_WEIGHT = 1
_SCHEDULE_WEIGHT = 5
_REACH_MAX = 10_000


@dataclass(frozen=True)
class Response:
    """An HTTP response, with the headers that are its own."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)


def refuse(refusal: Refusal) -> Response:
    """Return the response that a refusal stands for."""
    body = {"code": refusal.code, "msg": refusal.message}
    return Response(refusal.status, json.dumps(body, separators=(",", ":")).encode())


def weigh(request: Request) -> int:
    """Return what a request costs; what the exchange does not take costs 1 as well."""
    try:
        if request.market is not None and request.name in KLINES[request.market]:
            return klines_weight(request.market, read_klines(request, request.market).limit)
        if request.market is not None and request.name in {DEPTH, *TICKERS}:
            return ticker_weight(request, request.market)
    except Refusal:
        return _REFUSED_WEIGHT
    if request.market == "UM" and request.name in FUNDING:
        return 0
    if request.name == SCHEDULE:
        return _SCHEDULE_WEIGHT
    return 20 if request.name == "exchangeInfo" and request.market == "SPOT" else 1


def respond(truth: Truth, request: Request, now_ms: int, weight_limits: dict[Market, int]) -> Response:
    """Return the exchange's response to ``request`` at ``now_ms``."""
    market = request.market
    known = {"ping", "time", "exchangeInfo", DEPTH, *TICKERS} | (KLINES[market] | _OWN[market] if market else set())
    if market is None or market == "SPOT":
        if market is None or request.name not in known:
            return Response(404, b"<html><head><title>404 Not Found</title></head></html>\n", "text/html")
    elif request.name not in known:
        text = f"Path {request.path}, Method {request.method} is invalid"
        return refuse(Refusal(-5000, text, status=404))
    if request.method != "GET":
        return refuse(Refusal(-1099, f"Method {request.method} is not supported.", status=405))
    try:
        in_microseconds = wants_microseconds(request)
        if request.name == "ping":
            return Response(200, b"{}")
        if request.name == "time":
            return Response(200, b'{"serverTime":%d}' % (now_ms * 1000 if in_microseconds else now_ms))
        if request.name == "exchangeInfo":
            symbols, status = read_spot_info(request) if market == "SPOT" else (None, None)
            return _info(truth, market, symbols, status, now_ms, weight_limits)
        if request.name == DEPTH or request.name in TICKERS:
            return Response(200, tickers(truth, request, market, now_ms))
        if request.name == "fundingRate":
            return Response(200, funding_rates(truth, request, market, now_ms))
        if request.name == "fundingInfo":
            return Response(200, funding_info(truth, market, now_ms))
        if request.name == SCHEDULE:
            return Response(200, trading_schedule(now_ms))
        query = read_klines(request, market)
        texts = klines(truth, market, query, now_ms)
        if in_microseconds:
            texts = [_in_microseconds(text) for text in texts]
    except Refusal as refusal:
        return refuse(refusal)
    return Response(200, f"[{','.join(texts)}]".encode())


def _in_microseconds(row: str) -> str:
    """Return a row with its times in microseconds; what is cut off its end is the last of a millisecond."""
    values = row.split(",", 7)
    return ",".join((f"{values[0]}000", *values[1:6], f"{values[6]}999", values[7]))


def _info(
    truth: Truth,
    market: Market,
    symbols: frozenset[str] | None,
    status: str | None,
    now_ms: int,
    weight_limits: dict[Market, int],
) -> Response:
    listed = truth.instruments(market, now_ms)
    if symbols is not None:
        if not symbols <= {item.symbol for item in listed}:
            raise Refusal(-1121, "Invalid symbol.")
        listed = [item for item in listed if item.symbol in symbols]
    if status is not None:
        listed = [item for item in listed if item.status == status]
    info = exchange_info(market, listed, now_ms, weight_limits[market])
    return Response(200, json.dumps(info, separators=(",", ":")).encode())


def klines(truth: Truth, market: Market, query: KlinesQuery, now_ms: int) -> list[str]:
    """Return the rows of a request for klines. Raises Refusal.

    SPOT and UM give the oldest rows from startTime on, or the newest up to endTime when there is no start. CM gives
    the newest rows up to endTime within 200 days, and completes a range of which one bound is missing.
    """
    source = _source(truth, market, query, now_ms)
    start_ms, end_ms, from_end = query.start_ms, query.end_ms, query.from_end
    if query.last_200_days:
        if end_ms is None:
            end_ms = now_ms if start_ms is None else start_ms + CM_SPAN_MS
        start_ms = max(end_ms - CM_SPAN_MS, 0) if start_ms is None else start_ms
        from_end = True
    # A candle that opens before the symbol's first minute may still hold it (the first 1w, 1M).
    low_ms = max(start_ms or 0, source.grid.floor(source.series.listed_ms))
    high_ms = min(now_ms if end_ms is None else end_ms, now_ms, source.last_ms)
    if low_ms > high_ms:
        return []
    if from_end:
        return source.newest(low_ms, high_ms, query.limit)
    return source.oldest(low_ms, high_ms, query.limit)


def _source(truth: Truth, host: Market, query: KlinesQuery, now_ms: int) -> _Source:
    """Return the series that a request names; either host has those of UM and CM. Raises Refusal."""
    for market in _FAMILIES[host]:
        try:
            series = truth.series(market, query.symbol, query.price)
        except KeyError:
            continue
        return _Source(truth, series, query.symbol, Grid.of(query.interval, series.listed_ms, query.zone_ms), now_ms)
    raise Refusal(-1121, "Invalid symbol.")


@dataclass(frozen=True)
class _Source:
    """Rows of one series, whose holes make it unknown how far ``limit`` rows reach: each look reaches twice as far."""

    truth: Truth
    series: Instrument
    name: str
    grid: Grid
    now_ms: int

    @property
    def last_ms(self) -> int:
        """Return the last moment at which there may be a candle."""
        series = self.series
        return self.now_ms if series.delisted_ms is None or series.flat_after_end else series.delisted_ms - 1

    def _rows(self, start_ms: int, end_ms: int, low_ms: int, high_ms: int) -> list[str]:
        series = self.series
        texts = self.truth.texts(series.market, self.name, self.grid, start_ms, end_ms, self.now_ms, price=series.kind)
        return [text for open_ms, text in texts if low_ms <= open_ms <= high_ms]

    def oldest(self, low_ms: int, high_ms: int, limit: int) -> list[str]:
        """Return the first ``limit`` rows that open in [low_ms, high_ms]."""
        rows: list[str] = []
        start_ms, reach = self.grid.floor(low_ms), limit + 1
        while len(rows) < limit and start_ms <= high_ms:
            end_ms = self.grid.shift(start_ms, min(reach, _REACH_MAX))
            rows += self._rows(start_ms, min(end_ms, high_ms + 1), low_ms, high_ms)
            start_ms, reach = end_ms, reach * 2
        return rows[:limit]

    def newest(self, low_ms: int, high_ms: int, limit: int) -> list[str]:
        """Return the last ``limit`` rows that open in [low_ms, high_ms]."""
        rows: list[str] = []
        end_ms, reach = self.grid.shift(self.grid.floor(high_ms), 1), limit
        while len(rows) < limit and end_ms > low_ms:
            start_ms = max(self.grid.shift(end_ms, -min(reach, _REACH_MAX)), self.grid.floor(low_ms))
            rows = self._rows(start_ms, end_ms, low_ms, high_ms) + rows
            end_ms, reach = start_ms, reach * 2
        return rows[-limit:]
