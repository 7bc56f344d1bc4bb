"""Funding rates of perpetual contracts: the request, its own limit, and what a response says."""

from __future__ import annotations

import json
import math
import re
from typing import NamedTuple
from urllib.parse import quote

from candleshm.errors import BadResponse
from candleshm.exchanges.base import Exchange, Response

__all__ = [
    "FUNDING_REQUESTS_MAX",
    "FUNDING_SECONDS",
    "FUNDING_WEIGHT",
    "PAGE_MAX",
    "FundingRate",
    "funding_rates",
    "funding_url",
]

# The exchange counts these requests for themselves, whatever their size, beside their weight.
FUNDING_REQUESTS_MAX, FUNDING_SECONDS = 500, 300.0
FUNDING_WEIGHT = 1
# What one response holds at most; without any time it holds the newest 200.
PAGE_MAX = 1000
_TYPE = re.compile(r"\w{0,32}")


class FundingRate(NamedTuple):
    """One charge. COIN-M sends neither mark price nor type."""

    time_ms: int
    rate: float
    mark_price: float
    """NaN where it is not sent."""
    rate_type: str
    """As sent, such as FUNDING; empty where it is not sent."""


def funding_url(exchange: Exchange, symbol: str, start_ms: int | None = None, end_ms: int | None = None) -> str:
    """Return the URL for the oldest charges of [start_ms, end_ms), without times for the newest 200."""
    times = "" if start_ms is None or end_ms is None else f"&startTime={start_ms}&endTime={end_ms - 1}&limit={PAGE_MAX}"
    return f"{exchange.time_url.removesuffix('/time')}/fundingRate?symbol={quote(symbol, safe='')}{times}"


def funding_rates(response: Response, symbol: str) -> list[FundingRate]:
    """Read a response, oldest first. Raises BadResponse for what is not one, or is of another symbol."""
    try:
        rows = json.loads(response.body)
        found = [
            FundingRate(
                int(row["fundingTime"]),
                float(row["fundingRate"]),
                float(row.get("markPrice") or "nan"),
                str(row.get("rateType") or ""),
            )
            for row in rows
        ]
        strange = {row["symbol"] for row in rows} - {symbol}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadResponse(
            f"not a list of funding rates ({type(error).__name__}: {error})", status=response.status
        ) from None
    if strange:
        raise BadResponse(f"funding rates of another symbol than {symbol}", status=response.status)
    if not all(math.isfinite(charge.rate) and _TYPE.fullmatch(charge.rate_type) for charge in found):
        raise BadResponse(f"funding rates of {symbol} that cannot be true", status=response.status)
    charges = {(charge.time_ms, charge.rate_type): charge for charge in found}
    return [charges[key] for key in sorted(charges)]
