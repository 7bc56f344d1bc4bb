"""Funding rates from the simulated exchange over real HTTP: all of them, exact, stored once, within their own limit."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from candleshm import history
from candleshm.errors import BadResponse, ConfigError, DayDamaged, ExchangeError
from candleshm.exchanges.base import Market, Response
from candleshm.exchanges.funding import funding_rates
from candleshm.history.funding_files import FundingFiles, FundingYear, uncovered, year_span
from candleshm.history.funding_rates import DTYPE, fetch_funding, funding_requests
from candleshm.ratelimit.pools import funding_of, open_funding, pool_of
from candleshm.sim import Fault, SimulatedExchange, rate_limited
from candleshm.sim.world.funding import fundings
from candleshm.system.clock import SystemClock
from tests.support.collecting import config_of
from tests.support.commanding import CLI, run
from tests.support.downloading import day_before

PERPETUALS: dict[Market, str] = {"UM": "BTCUSDT", "CM": "BTCUSD_PERP"}


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


def truth_of(exchange: SimulatedExchange, market: Market, start_ms: int, end_ms: int) -> list[tuple[Any, ...]]:
    """Return (time, rate, mark price, type) of every charge of [start_ms, end_ms)."""
    instrument = exchange.truth.instrument(market, PERPETUALS[market])
    return [
        (charge.time_ms, charge.rate / 1e8, charge.mark / 1e8, "FUNDING")
        if market == "UM"
        else (charge.time_ms, charge.rate / 1e8, None, "")
        for charge in fundings(exchange.truth.seed, instrument, start_ms, end_ms - 1)
    ]


def as_told(rates: Any) -> list[tuple[Any, ...]]:
    assert rates.dtype == DTYPE
    return [(int(t), float(rate), None if np.isnan(mark) else float(mark), str(kind)) for t, rate, mark, kind in rates]


def asked(exchange: SimulatedExchange) -> list[str]:
    return [served.target for served in exchange.served() if "/fundingRate" in served.target]


@pytest.mark.parametrize("market", PERPETUALS)
def test_days_without_a_file_come_from_the_exchange(
    exchange: SimulatedExchange, tmp_path: Path, market: Market
) -> None:
    first, last = day_before(exchange, 9), day_before(exchange, 2)
    here: dict[str, Any] = {"base_dir": tmp_path, "base_url": exchange.base_url}
    rates = history.funding(market, PERPETUALS[market], first.date, last.date, **here)
    assert as_told(rates) == truth_of(exchange, market, first.start_ms, last.end_ms)
    assert len(rates) >= 24
    assert list(pd.DataFrame(rates).columns) == ["time_ms", "rate", "mark_price", "rate_type"]
    assert list(tmp_path.iterdir()) == []
    until_now = history.funding(market.lower(), PERPETUALS[market], first.date, **here)
    assert as_told(until_now)[: len(rates)] == as_told(rates)
    assert until_now["time_ms"][-1] > last.end_ms


def test_without_days_it_is_the_newest_200(exchange: SimulatedExchange, tmp_path: Path) -> None:
    rates = history.funding("UM", "BTCUSDT", base_dir=tmp_path, base_url=exchange.base_url)
    assert len(rates) == 200
    assert rates["time_ms"][-1] > exchange.now_ms() - 9 * 3_600_000
    assert as_told(rates) == truth_of(exchange, "UM", int(rates["time_ms"][0]), int(rates["time_ms"][-1]) + 1)


def test_years_take_pages_of_a_thousand(exchange: SimulatedExchange, tmp_path: Path) -> None:
    first, last = day_before(exchange, 700), day_before(exchange)
    flags = ["--market", "um", "--symbols", "BTCUSDT", "--base-url", exchange.base_url, "--candle-dir", str(tmp_path)]
    result = run("download", "--funding", "--start", str(first), "--end", str(last), *flags)
    assert result.returncode == 0, result.stderr
    truth = truth_of(exchange, "UM", first.start_ms, last.end_ms)
    assert f"{len(truth):,} new funding rates" in result.stderr
    count = len(exchange.served())
    rates = history.funding("UM", "BTCUSDT", first.date, last.date, base_dir=tmp_path)  # no request
    assert as_told(rates) == truth
    assert len(exchange.served()) == count
    names = sorted(path.name for path in (tmp_path / "funding/market=UM/symbol=BTCUSDT").iterdir())
    assert names == [f"{year}.parquet" for year in range(first.date.year, last.date.year + 1)]
    frame = pq.read_table(tmp_path / f"funding/market=UM/symbol=BTCUSDT/{names[-1]}", partitioning=None).to_pandas()
    assert list(frame.columns) == ["time_ms", "rate", "mark_price", "rate_type"]
    assert set(frame["rate_type"]) == {"FUNDING"}
    again = run("download", "--funding", "--start", str(first), "--end", str(last), *flags)
    assert "0 new funding rates, 0 requests" in again.stderr


def test_files_and_the_exchange_make_one_array(exchange: SimulatedExchange, tmp_path: Path) -> None:
    days = [day_before(exchange, count) for count in (40, 30, 20, 10)]
    config = config_of(exchange, "funding", market="UM", symbols=["BTCUSDT"])
    files = FundingFiles(tmp_path, "UM")
    with files.writing(), funding_requests(config, threading.Event()) as requests:
        for first, last in ((days[0], days[1]), (days[2], days[3])):
            new = fetch_funding(files, requests, "BTCUSDT", (first.start_ms, last.start_ms))
            assert new == len(truth_of(exchange, "UM", first.start_ms, last.start_ms))
    rates = history.funding(
        "UM", "BTCUSDT", days[0].date, days[3].previous().date, base_dir=tmp_path, base_url=exchange.base_url
    )
    assert as_told(rates) == truth_of(exchange, "UM", days[0].start_ms, days[3].start_ms)
    assert len(asked(exchange)) == 3


def test_every_perpetual_contract_is_downloaded_and_others_are_not(exchange: SimulatedExchange, tmp_path: Path) -> None:
    first = str(day_before(exchange, 3))
    flags = ["--market", "cm", "--base-url", exchange.base_url, "--candle-dir", str(tmp_path), "--start", first]
    result = run("download", "--funding", *flags)
    assert result.returncode == 0, result.stderr
    names = [path.name.partition("=")[2] for path in (tmp_path / "funding/market=CM").glob("symbol=*")]
    assert names
    assert all(name.endswith("_PERP") for name in names)


@pytest.mark.parametrize("arguments", [["--format", "csv"], ["--source", "archive"], ["--verify"]])
def test_flags_that_funding_cannot_have(arguments: list[str]) -> None:
    result = run("download", "--funding", "--market", "um", "--start", "2026-11-01", *arguments)
    assert result.returncode == os.EX_CONFIG
    assert "--funding cannot be given with" in result.stderr


def test_what_cannot_be_asked_for_is_one_line(exchange: SimulatedExchange, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"market cannot be `SPOT` for funding rates; allowed: UM \| CM"):
        history.funding("SPOT", "BTCUSDT", "2026-11-01")
    with pytest.raises(ConfigError, match="end cannot be `2026-11-01` without a start"):
        history.funding("UM", "BTCUSDT", end="2026-11-01")
    with pytest.raises(ConfigError, match="end cannot be `2026-10-01`"):
        history.funding("UM", "BTCUSDT", "2026-11-01", "2026-10-01")
    with pytest.raises(ExchangeError, match="Invalid symbol"):
        history.funding("UM", "NOPE", "2026-11-01", base_dir=tmp_path, base_url=exchange.base_url)


def test_errors_of_the_exchange_are_survived(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(
        Fault(kind="status", status=503, path="/fundingRate", count=2),
        Fault(kind="truncate", path="/fundingRate", count=1),
    )
    first, last = day_before(exchange, 9), day_before(exchange, 2)
    rates = history.funding("UM", "BTCUSDT", first.date, last.date, base_dir=tmp_path, base_url=exchange.base_url)
    assert as_told(rates) == truth_of(exchange, "UM", first.start_ms, last.end_ms)


def test_a_429_is_waited_out(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(rate_limited(1, path="/fundingRate", count=1))
    first, last = day_before(exchange, 9), day_before(exchange, 2)
    rates = history.funding("UM", "BTCUSDT", first.date, last.date, base_dir=tmp_path, base_url=exchange.base_url)
    assert as_told(rates) == truth_of(exchange, "UM", first.start_ms, last.end_ms)


def test_requests_are_booked_in_a_limit_of_their_own_that_processes_share(
    exchange: SimulatedExchange, tmp_path: Path
) -> None:
    um, cm = (config_of(exchange, "funding", market=market, symbols=["BTCUSDT"]) for market in ("UM", "CM"))
    assert funding_of(um) == funding_of(cm) != pool_of(um)
    clock = SystemClock()
    budget = open_funding(um, clock)
    try:
        assert (budget.limit, budget.window_seconds) == (500, 300.0)
        before = budget.used(clock.monotonic_seconds())
        flags = ["--market", "um", "--symbols", "BTCUSDT,ETHUSDT", "--base-url", exchange.base_url]
        first = str(day_before(exchange, 3))
        result = run("download", "--funding", *flags, "--start", first, "--candle-dir", str(tmp_path))
        assert result.returncode == 0, result.stderr
        assert budget.used(clock.monotonic_seconds()) == before + len(asked(exchange))
        assert exchange.stats().pools["FUNDING"].total == len(asked(exchange)) >= 2
    finally:
        budget.leave(clock.monotonic_seconds())


def test_a_download_that_is_stopped_goes_on_where_it_was(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(Fault(kind="latency", delay_ms=300, path="/fundingRate"))
    flags = ["--market", "um", "--base-url", exchange.base_url, "--candle-dir", str(tmp_path)]
    command = [*CLI, "download", "--funding", "--start", str(day_before(exchange, 30)), *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.rglob("*.parquet")):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert "the same command continues from here" in process.communicate()[1]
    exchange.faults.clear()
    before = len(asked(exchange))
    done = run(*command[len(CLI) :])
    assert done.returncode == 0, done.stderr
    [count] = {len(list(tmp_path.rglob("symbol=*")))}
    assert len(asked(exchange)) - before <= count


def test_a_damaged_file_is_named_and_fetched_again(exchange: SimulatedExchange, tmp_path: Path) -> None:
    day = day_before(exchange, 2)
    flags = ["--market", "um", "--symbols", "BTCUSDT", "--base-url", exchange.base_url, "--candle-dir", str(tmp_path)]
    command = ["download", "--funding", "--start", str(day), "--end", str(day), *flags]
    assert run(*command).returncode == 0
    path = FundingFiles(tmp_path, "UM").path("BTCUSDT", day.date.year)
    good = path.read_bytes()
    for spoiled in (good.replace(b'"covered":[[1', b'"covered":[[2'), good[:-1], b""):
        path.write_bytes(spoiled)
        with pytest.raises(DayDamaged, match="damaged"):
            history.funding("UM", "BTCUSDT", day.date, day.date, base_dir=tmp_path)
    assert "fetched again" in run(*command).stderr
    rates = history.funding("UM", "BTCUSDT", day.date, day.date, base_dir=tmp_path)
    assert as_told(rates) == truth_of(exchange, "UM", day.start_ms, day.end_ms)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}x",
        b"[1]",
        b'[{"symbol":"BTCUSDT"}]',
        b'[{"symbol":"ETHUSDT","fundingTime":1,"fundingRate":"0.1"}]',
        b'[{"symbol":"BTCUSDT","fundingTime":1,"fundingRate":"nan"}]',
        b'[{"symbol":"BTCUSDT","fundingTime":1,"fundingRate":"0.1","rateType":"a b\\n"}]',
    ],
)
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(BadResponse):
        funding_rates(Response("", 200, {}, body, 0.0, 0.0, None), "BTCUSDT")


def test_ranges_that_are_covered() -> None:
    assert uncovered([(2, 4), (6, 8)], 0, 10) == [(0, 2), (4, 6), (8, 10)]
    assert uncovered([(2, 4), (6, 8)], 3, 7) == [(4, 6)]
    assert uncovered([(0, 9)], 3, 7) == []
    year = FundingYear().joined_with([], (4, 6)).joined_with([], (0, 2)).joined_with([], (2, 4))
    assert list(year.covered) == [(0, 6)]
    start_ms, end_ms = year_span(2026)
    assert datetime.fromtimestamp(start_ms / 1000, UTC).isoformat() == "2026-01-01T00:00:00+00:00"
    assert end_ms - start_ms == 365 * 86_400_000
