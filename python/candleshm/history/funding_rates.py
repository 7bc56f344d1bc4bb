"""Funding rates: what files have of them, and the rest from the exchange, within the limit of these requests."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random

import numpy as np
import numpy.typing as npt

from candleshm._core import Zone
from candleshm.config import CollectorConfig
from candleshm.errors import BadResponse, ConfigError, DayDamaged, ExchangeUnavailable, RateLimited
from candleshm.exchanges.base import Response
from candleshm.exchanges.funding import FUNDING_WEIGHT, PAGE_MAX, FundingRate, funding_rates, funding_url
from candleshm.history.candles import Span
from candleshm.history.day import Day, DayLike
from candleshm.history.funding_files import FundingFiles, FundingYear, uncovered, year_span
from candleshm.network.backoff import Backoff
from candleshm.ratelimit.budget import WeightBudget
from candleshm.ratelimit.pools import open_funding
from candleshm.ratelimit.spending import claim
from candleshm.rest.client import Client, MarketAccess

__all__ = ["DTYPE", "LISTED_MS", "FundingRequests", "days_span", "fetch_funding", "funding", "funding_requests"]

logger = logging.getLogger(__name__)

DTYPE = np.dtype([("time_ms", "i8"), ("rate", "f8"), ("mark_price", "f8"), ("rate_type", "U32")])
UTC_ZONE = Zone("UTC")
TRIES, STOPS_MAX = 5, 10
LOOK_SECONDS = 0.2
BACKOFF = Backoff()
# A charge is listed some seconds after its time.
LISTED_MS = 60_000

FundingArray = npt.NDArray[np.void]


class FundingRequests:
    """Requests for funding rates, each booked in their own limit and in the request weight."""

    def __init__(self, client: Client, budget: WeightBudget, stopping: threading.Event) -> None:
        self.client = client
        self._budget = budget
        self._stopping = stopping
        self._random = Random()
        self.sent = 0
        """How many have left."""

    def exchange_ms(self) -> int:
        """Return the exchange's time. Raises ExchangeError."""
        return self.client.measure(self._stopping).earliest_ms(self.client.clock.monotonic_seconds())

    def newest(self, symbol: str) -> list[FundingRate]:
        """Return the newest 200 charges, oldest first; none after a stop. Raises ExchangeError."""
        return self._request(symbol, funding_url(self.client.exchange, symbol)) or []

    def between(self, symbol: str, start_ms: int, end_ms: int) -> list[FundingRate] | None:
        """Return the charges of [start_ms, end_ms), oldest first; None after a stop. Raises ExchangeError."""
        found: list[FundingRate] = []
        while True:
            page = self._request(symbol, funding_url(self.client.exchange, symbol, start_ms, end_ms))
            if page is None:
                return None
            if page and not start_ms <= page[0].time_ms <= page[-1].time_ms < end_ms:
                raise BadResponse(f"funding rates of {symbol} that were not requested")
            found += page
            if len(page) < PAGE_MAX:
                return found
            start_ms = page[-1].time_ms + 1

    def _request(self, symbol: str, url: str) -> list[FundingRate] | None:
        failures = stops = 0
        while not self._stopping.is_set():
            try:
                response = self._fetch(url)
                return None if response is None else funding_rates(response, symbol)
            except RateLimited as error:
                stops += 1
                if stops == STOPS_MAX:
                    raise
                self._budget.stop(error.retry_after, self.client.clock.monotonic_seconds())
            except (ExchangeUnavailable, BadResponse):
                failures += 1
                if failures == TRIES:
                    raise
                self._stopping.wait(BACKOFF.delay_seconds(failures, self._random))
        return None

    def _fetch(self, url: str) -> Response | None:
        clock = self.client.clock
        ticket, _ = claim(self._budget, clock, 1, self._pause, loading=True)
        if not ticket:
            return None
        try:
            return self.client.fetch(url, FUNDING_WEIGHT, self._pause, self._count)
        finally:
            self._budget.finished(ticket, clock.monotonic_seconds())

    def _pause(self, seconds: float) -> bool:
        return not self._stopping.wait(min(seconds, LOOK_SECONDS))

    def _count(self) -> None:
        self.sent += 1


@contextmanager
def funding_requests(config: CollectorConfig, stopping: threading.Event) -> Iterator[FundingRequests]:
    """Be an owner of both budgets for as long as requests are sent. Raises as `pools.open_budget`."""
    access = MarketAccess(config)
    with access.client() as client:
        budget = open_funding(config, access.clock)
        try:
            yield FundingRequests(client, budget, stopping)
        finally:
            budget.leave(access.clock.monotonic_seconds())


def funding(
    market: str,
    symbol: str,
    start: DayLike | None = None,
    end: DayLike | None = None,
    *,
    base_dir: str | os.PathLike[str] = "./candles",
    base_url: str | None = None,
    proxies: Mapping[str, str] | None = None,
) -> FundingArray:
    """Return the funding rates of whole days of UTC, `start` and `end` included, oldest first.

    It is an array with the fields `time_ms` (int64, exchange time of the charge), `rate` (float64), `mark_price`
    (float64, NaN for COIN-M, which does not send it) and `rate_type` (text as the exchange sends it, such as `FUNDING`;
    empty for COIN-M). pandas makes a frame of it as it is.

    What `candleshm download --funding` has stored is read from its files; the exchange is asked for the rest only,
    within its limit of 500 such requests in five minutes, which all processes of this user keep together. What is asked
    for is not stored.

    Args:
        market: 'UM' or 'CM', in any case.
        symbol: a perpetual contract, as the exchange spells it; contracts with a date have no funding.
        start: the first day. None, with `end` None: the newest 200 rates, from the exchange.
        end: the last day, included. None: up to now.
        base_dir: the directory of the files.
        base_url: another address of the exchange, such as a simulated one.
        proxies: of requests, as for a collector.

    Raises:
        ConfigError: an argument cannot be used.
        DayDamaged: a file cannot be trusted; downloading it again helps.
        ExchangeError: the exchange refuses the symbol, or does not respond.
        StoreUnavailable, MissingExtra: the files cannot be read; pyarrow is not installed and there are files.

    >>> rates = funding("UM", "BTCUSDT", "2026-11-01", "2026-11-27")  # doctest: +SKIP
    >>> rates["rate"].sum()  # doctest: +SKIP
    """
    files = FundingFiles(base_dir, market)
    if not isinstance(symbol, str):
        raise ConfigError(f"symbol cannot be `{symbol}`; allowed: one, such as 'BTCUSDT'")
    config = CollectorConfig(market=files.market, symbols=(symbol,), base_url=base_url, proxies=proxies or {})
    stopping = threading.Event()
    if start is None:
        if end is not None:
            raise ConfigError(f"end cannot be `{end}` without a start; give the first day, or neither")
        with funding_requests(config, stopping) as requests:
            return _array(requests.newest(symbol))
    start_ms, end_ms = days_span(start, end)
    years = {year: files.read(symbol, year) for year in _years(start_ms, end_ms)}
    covered = [span for year in years.values() for span in year.covered]
    found = [charge for year in years.values() for charge in year.charges]
    if wanted := uncovered(covered, start_ms, end_ms):
        with funding_requests(config, stopping) as requests:
            now_ms = requests.exchange_ms()
            for first_ms, last_ms in wanted:
                if first_ms < now_ms:
                    found += requests.between(symbol, first_ms, min(last_ms, now_ms)) or []
    inside = [charge for charge in found if start_ms <= charge.time_ms < end_ms]
    return _array(sorted(inside, key=lambda charge: charge.time_ms))


def fetch_funding(
    files: FundingFiles, requests: FundingRequests, symbol: str, span: Span, *, replace: bool = False
) -> int | None:
    """Fetch what the files of a symbol do not have of a range, and return how many charges are new; None after a stop.

    To be called inside the writing of the files. A damaged file is fetched again. Raises ExchangeError,
    StoreUnavailable, MissingExtra.
    """
    start_ms, end_ms = span
    count = 0
    for year in _years(start_ms, end_ms):
        first_ms, last_ms = year_span(year)
        try:
            stored = files.read(symbol, year)
        except DayDamaged as error:
            logger.warning("%s; fetched again", error)
            stored = FundingYear()
        covered = () if replace else stored.covered
        for part in uncovered(covered, max(start_ms, first_ms), min(end_ms, last_ms)):
            charges = requests.between(symbol, *part)
            if charges is None:
                return None
            stored = stored.joined_with(charges, part)
            files.write(symbol, year, stored)
            count += len(charges)
    return count


def days_span(start: DayLike, end: DayLike | None) -> Span:
    """Return where days of UTC begin and end; without `end` two days from now. Raises ConfigError."""
    first = Day.parse(start, UTC_ZONE)
    # Whatever the clock of this machine shows: who fetches cuts it to the exchange's time.
    last = Day.parse(datetime.now(UTC) + timedelta(days=1) if end is None else end, UTC_ZONE)
    if last.date < first.date:
        raise ConfigError(f"end cannot be `{end}`; allowed: a day from start on, which is `{start}`")
    return first.start_ms, last.end_ms


def _years(start_ms: int, end_ms: int) -> range:
    first, last = (datetime.fromtimestamp(ms / 1000, UTC).year for ms in (start_ms, end_ms - 1))
    return range(first, last + 1)


def _array(charges: Sequence[FundingRate]) -> FundingArray:
    return np.array([tuple(charge) for charge in charges], DTYPE)
