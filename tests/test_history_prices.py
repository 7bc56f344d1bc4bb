"""Mark prices, indices and premiums in history: fetched, archived, verified, derived; never mixed with trades."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import candleshm
from candleshm import history
from candleshm.errors import ConfigError, DayNotFound
from candleshm.exchanges.base import Market, Price
from candleshm.history.store import ParquetStore
from candleshm.sim import Fault, SimulatedExchange
from tests.support.collecting import klines
from tests.support.commanding import run
from tests.support.days import UTC_ZONE, candles_of, day_of, written
from tests.support.downloading import counts, day_before, downloaded
from tests.test_history_archive import archive_of

SERIES: list[tuple[Market, Price, str]] = [
    ("UM", "mark", "BTCUSDT"),
    ("UM", "index", "BTCUSDT"),
    ("UM", "premium", "BTCUSDT"),
    ("CM", "mark", "BTCUSD_PERP"),
    ("CM", "index", "BTCUSD"),
    ("CM", "premium", "BTCUSD_PERP"),
]
of_each_price = pytest.mark.parametrize(("market", "price", "symbol"), SERIES)


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


def truth_of(
    exchange: SimulatedExchange, market: Market, price: Price, symbol: str, interval: str, first: Any, last: Any
) -> np.ndarray:
    rows: np.ndarray = exchange.truth.floats(market, symbol, interval, first.start_ms, last.end_ms, price=price)
    return rows


@of_each_price
@pytest.mark.parametrize("interval", ["1m", "1h", "1d"])
def test_days_are_those_of_the_exchange(
    exchange: SimulatedExchange, tmp_path: Path, market: Market, price: Price, symbol: str, interval: str
) -> None:
    first, last = day_before(exchange, 3), day_before(exchange)
    done = downloaded(exchange, tmp_path, first.date, market=market, price=price, symbols=[symbol], interval=interval)
    assert counts(done) == [(str(day_before(exchange, count)), 1, 0, 1, 0, 0) for count in (1, 2, 3)]
    here: dict[str, Any] = {"interval": interval, "base_dir": tmp_path}
    rows = history.load(market, symbol, first.date, last.date, price=price, **here)
    assert rows.tobytes() == truth_of(exchange, market, price, symbol, interval, first, last).tobytes()
    [tree] = {path.parts[len(tmp_path.parts)] for path in history.paths(market, symbol, price=price, **here)}
    assert tree == f"market={market}-{price}"
    panel = history.panel(market, [symbol], "close", first.date, last.date, price=price, **here)
    assert panel.array[:, 0].tobytes() == rows[:, 4].tobytes()
    assert history.scan(market, price=price, **here).collect()["close"].to_list() == rows[:, 4].tolist()
    # Nothing of it is taken for prices of trades.
    others: list[Price] = [other for other in ("trade", "mark", "index", "premium") if other != price]
    for other in others:
        with pytest.raises(DayNotFound):
            history.load(market, symbol, first.date, last.date, price=other, **here)


@of_each_price
def test_the_archive_has_them_in_folders_of_their_own_and_verifies_them(
    exchange: SimulatedExchange, tmp_path: Path, market: Market, price: Price, symbol: str
) -> None:
    days = ["2026-03-09", "2026-03-10"]
    of: dict[str, Any] = {"market": market, "price": price, "symbols": [symbol], "interval": "1m"}
    options = {"archive": archive_of(exchange)}
    done = downloaded(exchange, tmp_path, *days, options=options, **of)
    assert [tally.written for tally in done.tallies] == [1, 1]
    assert klines(exchange) == []
    first, last = map(day_of, days)
    rows = history.load(market, symbol, *days, price=price, base_dir=tmp_path)
    assert rows.tobytes() == truth_of(exchange, market, price, symbol, "1m", first, last).tobytes()
    verified = downloaded(exchange, tmp_path, *days, options={**options, "verify": True}, **of)
    assert (verified.verified, verified.conflicts) == (2880, 0)
    reports = history.verify(market, symbol, price=price, base_dir=tmp_path)
    assert [report.source for report in reports] == ["exchange", "exchange"]
    assert all(
        report.verified == ((day.start_ms, day.end_ms),) for report, day in zip(reports, (first, last), strict=True)
    )


@of_each_price
def test_larger_candles_are_derived_as_the_exchange_has_them(
    exchange: SimulatedExchange, tmp_path: Path, market: Market, price: Price, symbol: str
) -> None:
    day = day_before(exchange)
    downloaded(exchange, tmp_path, day.date, market=market, price=price, symbols=[symbol])
    for interval in ("5m", "1h", "1d"):
        rows = history.load(market, symbol, day.date, day.date, interval=interval, price=price, base_dir=tmp_path)
        truth = truth_of(exchange, market, price, symbol, interval, day, day)
        assert rows[:, :7].tobytes() == truth[:, :7].tobytes()


def test_faults_are_met_as_with_trades(exchange: SimulatedExchange, tmp_path: Path) -> None:
    exchange.faults.add(
        Fault(kind="status", status=503, path="/markPriceKlines", rate=0.2),
        Fault(kind="truncate", path="/markPriceKlines", rate=0.2),
    )
    first, last = day_before(exchange, 5), day_before(exchange)
    done = downloaded(exchange, tmp_path, first.date, market="UM", price="mark", symbols=["BTCUSDT", "ETHUSDT"])
    assert (done.failed, done.written) == (0, 10)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        rows = history.load("UM", symbol, first.date, last.date, price="mark", base_dir=tmp_path)
        assert rows.tobytes() == truth_of(exchange, "UM", "mark", symbol, "1m", first, last).tobytes()


def test_the_command(exchange: SimulatedExchange, tmp_path: Path) -> None:
    day = str(day_before(exchange))
    flags = ["--base-url", exchange.base_url, "--candle-dir", str(tmp_path), "--start", day]
    result = run("download", "--market", "um", "--price", "index", "--symbols", "BTCUSDT", "--interval", "1h", *flags)
    assert result.returncode == 0, result.stderr
    assert len(history.load("UM", "BTCUSDT", day, day, price="index", interval="1h", base_dir=tmp_path)) == 24
    result = run("download", "--market", "um", "--price", "mark", "--symbols", "BTCUSDT", "--format", "csv", *flags)
    assert "price cannot be `mark` in CSV files; allowed there: trade" in result.stderr


def test_a_file_that_names_another_price_is_damaged(tmp_path: Path) -> None:
    mark, trade = (ParquetStore(tmp_path, "UM", "1h", UTC_ZONE, price) for price in ("mark", "trade"))
    day = day_of("2026-11-03")
    written(mark, candles_of(day, market="UM", interval="1h", price="mark"))
    path = trade.destination("BTCUSDT", day)
    path.parent.mkdir(parents=True)
    path.write_bytes(mark.destination("BTCUSDT", day).read_bytes())
    [report] = history.verify("UM", "BTCUSDT", day.date, day.date, interval="1h", base_dir=tmp_path)
    assert (report.verdict, report.reason) == (
        "damaged",
        "holds UM-mark BTCUSDT 1h UTC 2026-11-03, its path names another one",
    )


@pytest.mark.parametrize(("market", "price"), [("SPOT", "mark"), ("UM", "last"), ("CM", None)])
def test_a_price_that_the_market_does_not_have_is_one_line(market: str, price: Any) -> None:
    with pytest.raises(ConfigError, match=rf"price cannot be `{price}` with market {market}; allowed there: trade"):
        history.load(market, "BTCUSDT", "2026-11-01", "2026-11-02", price=price)


def test_a_feed_of_another_price_cannot_be_joined(tmp_path: Path, block_name: str) -> None:
    writer = candleshm._core.Writer.open(
        block_name, market="UM", price="mark", interval="1m", length=60, symbols=["BTCUSDT"]
    )
    with candleshm.attach(block_name) as feed, pytest.raises(ConfigError, match="candles of UM-mark, not of UM"):
        history.load("UM", "BTCUSDT", "2026-11-01", base_dir=tmp_path, join=feed)
    writer.close()


@pytest.mark.parametrize("interval", ["1m", "1h"])
@pytest.mark.parametrize("kind", ["PERPETUAL", "CURRENT_QUARTER"])
@pytest.mark.parametrize(("market", "pair"), [("UM", "BTCUSDT"), ("CM", "BTCUSD")])
def test_continuous_contracts_come_by_requests(
    exchange: SimulatedExchange, tmp_path: Path, market: Market, pair: str, kind: str, interval: str
) -> None:
    symbol, first, last = f"{pair}:{kind}", day_before(exchange, 2), day_before(exchange)
    options = {"archive": archive_of(exchange)}  # which has none of them
    done = downloaded(
        exchange, tmp_path, first.date, market=market, symbols=[symbol], interval=interval, options=options
    )
    assert (done.failed, done.written) == (0, 2)
    assert not any(served.target.startswith("/data/") for served in exchange.served())
    rows = history.load(market, symbol, first.date, last.date, interval=interval, base_dir=tmp_path)
    truth = exchange.truth.floats(market, symbol, interval, first.start_ms, last.end_ms)
    assert rows.tobytes() == truth.tobytes()
    [path] = {path.parent.name for path in history.paths(market, interval=interval, base_dir=tmp_path)}
    assert path == f"symbol={pair}%3A{kind}"
