"""Funding and trading hours by REST: parameters, what is refused, and the documents."""

from __future__ import annotations

import json
from collections.abc import Iterable

from candleshm.sim.rest.query import Refusal, Request, read_number, read_parameters, read_text
from candleshm.sim.world.funding import Funding, fundings, interval_hours
from candleshm.sim.world.grid import DAY_MS
from candleshm.sim.world.sessions import TIMETABLES, sessions
from candleshm.sim.world.truth import Truth
from candleshm.sim.world.universe import Instrument, Market

FUNDING = {"fundingRate", "fundingInfo"}
"""Requests that have a limit of their own."""

SCHEDULE = "tradingSchedule"

_LIMIT, _LIMIT_MAX = 100, 1000
_NEWEST = 200  # without any time in the request
_WEEK_DAYS = 7
# Charges are looked for in spans of so many days, as far as there are any: of one symbol, and of all.
_SPAN_DAYS, _SPAN_DAYS_OF_ALL = 16, 1


def funding_rates(truth: Truth, request: Request, market: Market, now_ms: int) -> bytes:
    """Return the response to a fundingRate request. Raises Refusal.

    With a start the oldest charges from there on, otherwise the newest ones. Contracts with a date have none.
    """
    values = read_parameters(request, ())
    symbol = read_text(values, "symbol") if market == "CM" or "symbol" in values else None
    limit = read_number(values, "limit")
    start_ms, end_ms = read_number(values, "startTime"), read_number(values, "endTime")
    if limit is not None and not 1 <= limit <= _LIMIT_MAX:
        raise Refusal(-1130, "Data sent for parameter 'limit' is not valid.")
    if start_ms is not None and end_ms is not None and start_ms > end_ms:
        raise Refusal(-1023, "Start time is greater than end time.")
    listed = truth.instruments(market, now_ms) if symbol is None else [_perpetual(truth, market, symbol)]
    listed = [item for item in listed if interval_hours(item) and item.listed_ms <= now_ms]
    if not listed:
        return b"[]"
    limit = limit or (_NEWEST if start_ms is None and end_ms is None else _LIMIT)
    high_ms = now_ms if end_ms is None else min(end_ms, now_ms)
    low_ms = max(start_ms or 0, min(item.listed_ms for item in listed))
    span_ms = (_SPAN_DAYS_OF_ALL if symbol is None else _SPAN_DAYS) * DAY_MS
    charges: list[Funding] = []
    if start_ms is not None:
        for from_ms in range(low_ms, high_ms + 1, span_ms):
            charges += _charges(truth.seed, listed, from_ms, min(from_ms + span_ms - 1, high_ms))
            if len(charges) >= limit:
                break
        charges = charges[:limit]
    else:
        while len(charges) < limit and high_ms >= low_ms:
            from_ms = max(high_ms - span_ms + 1, low_ms)
            charges = _charges(truth.seed, listed, from_ms, high_ms) + charges
            high_ms = from_ms - 1
        charges = charges[-limit:]
    return _json([_charge(market, charge) for charge in charges])


def _perpetual(truth: Truth, market: Market, symbol: str) -> Instrument:
    families: tuple[Market, ...] = ("UM", "CM") if market == "UM" else ("CM", "UM")
    for family in families:
        try:
            return truth.instrument(family, symbol)
        except KeyError:
            continue
    raise Refusal(-1121, "Invalid symbol.")


def _charges(seed: int, listed: Iterable[Instrument], start_ms: int, end_ms: int) -> list[Funding]:
    charges = [charge for item in listed for charge in fundings(seed, item, start_ms, end_ms)]
    return sorted(charges, key=lambda charge: charge.time_ms)


def _charge(market: Market, charge: Funding) -> dict[str, object]:
    row: dict[str, object] = {"symbol": charge.symbol, "fundingTime": charge.time_ms, "fundingRate": _text(charge.rate)}
    if market == "UM":
        row |= {"markPrice": _text(charge.mark), "rateType": "FUNDING"}
    return row


def funding_info(truth: Truth, market: Market, now_ms: int) -> bytes:
    """Return the response to a fundingInfo request: the symbols that are not charged every 8 hours."""
    return _json(
        [
            {
                "symbol": item.symbol,
                "adjustedFundingRateCap": "0.02000000",
                "adjustedFundingRateFloor": "-0.02000000",
                "fundingIntervalHours": hours,
                "disclaimer": False,
            }
            for item in truth.instruments(market, now_ms)
            if (hours := interval_hours(item)) not in {0, 8}
        ]
    )


def trading_schedule(now_ms: int) -> bytes:
    """Return the response to a tradingSchedule request: a week of sessions from the day before on."""
    start_ms = now_ms // DAY_MS * DAY_MS - DAY_MS
    schedules = {
        market: {
            "sessions": [
                {"startTime": session.start_ms, "endTime": session.end_ms, "type": session.kind}
                for session in sessions(market, start_ms, start_ms + _WEEK_DAYS * DAY_MS)
            ]
        }
        for market in TIMETABLES
    }
    return _json({"updateTime": now_ms, "marketSchedules": schedules})


def _text(value: int) -> str:
    return f"{value / 1e8:.8f}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
