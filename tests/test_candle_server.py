"""CandleServer as its users know it: real HTTP from the simulated exchange, a real block, real log files."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import requests

import candleshm
from candleshm.collector.scheduler import Scheduler
from candleshm.compat.candle_server import CandleRule, CandleServer
from candleshm.errors import BlockNotFound, ConfigError, ExchangeUnavailable
from candleshm.exchanges.base import INTERVAL_MS, Market
from candleshm.sim import Fault, Outage, SimulatedExchange, html, rate_limited

ROOT = Path(__file__).parent.parent
MINUTE = 60_000
DEADLINE_SECONDS = 60.0
SPOT = ["BTCUSDT", "ETHUSDT"]
# Daily files stand in a file of their own, tests/test_history_server.py.
QUICK: dict[str, Any] = {"SYMBOLS": SPOT, "LENGTH": 100, "DOWNLOAD_TIME": None, "LOCAL_CANDLE_DAYS": None}

T = TypeVar("T")
Make = Callable[..., CandleServer]


def until(question: Callable[[], T]) -> T:
    """Ask until the answer is true, and return it; the deadline only guards against waiting for ever."""
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline_seconds:
        if answer := question():
            return answer
        time.sleep(0.02)
    raise AssertionError("did not come true")


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(symbols=4) as running:
        yield running


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty directory, so that default paths lie there and everything written can be seen."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def make(exchange: SimulatedExchange, block_name: str) -> Iterator[Make]:
    """Make servers of the simulated exchange from rule settings; they are closed at the end."""
    with ExitStack() as close:

        def server(
            market: str = "SPOT", /, *, kind: type[CandleServer] = CandleServer, **settings: Any
        ) -> CandleServer:
            options = {name: settings.pop(name) for name in list(settings) if not name.isupper()}
            where = {} if "proxy_host" in options else {"base_url": exchange.base_url}
            rule = type("MyRule", (CandleRule,), QUICK | settings)
            made = kind(market, rule, **({"name": block_name} | where | options))
            close.callback(made.close_run_candle_map)
            return made

        yield server


def log_text(directory: Path) -> str:
    """Return all that stands in the log files."""
    return "".join(path.read_text() for path in sorted(directory.rglob("*.log")))


def asked(exchange: SimulatedExchange, symbol: str) -> int:
    """Return how often candles of a symbol were asked for."""
    return exchange.stats().count("/klines", symbol)


def test_candle_map_is_a_read_only_dict_of_private_arrays(exchange: SimulatedExchange, make: Make) -> None:
    server = make(LENGTH=1440)
    assert dict(server.candle_map) == {}

    server.run_candle_map()

    candle_map = server.candle_map
    assert list(candle_map) == SPOT
    assert len(candle_map) == 2
    assert "BTCUSDT" in candle_map
    assert "NOSUCH" not in candle_map
    for symbol, rows in candle_map.items():
        assert rows.shape == (1440, 12)
        assert rows.dtype == np.float64
        assert rows.flags.c_contiguous
        assert rows.flags.writeable
        assert rows[-1, 0] >= exchange.now_ms() // MINUTE * MINUTE - MINUTE
        closed = rows[:-2]
        first_ms, end_ms = int(closed[0, 0]), int(closed[-1, 0]) + 1
        np.testing.assert_array_equal(closed, exchange.truth.floats("SPOT", symbol, "1m", first_ms, end_ms))
    mine = candle_map["BTCUSDT"]
    mine[:] = 0
    assert candle_map["BTCUSDT"][:, 1].all()
    with pytest.raises(TypeError):
        candle_map["BTCUSDT"] = mine  # type: ignore[index]
    with pytest.raises(KeyError):
        candle_map["NOSUCH"]
    assert re.match(r"\{'BTCUSDT': array\(\[\[[\d.e+]+, ", repr(candle_map))


def test_a_server_prints_what_it_serves_and_whether_it_runs(make: Make) -> None:
    server = make(SYMBOLS=["BTCUSDT"], LENGTH=5)
    name = server._config.block_name
    assert repr(server) == f"<CandleServer SPOT 1m of {name}: not started>"
    with server:
        assert repr(server) == f"<CandleServer SPOT 1m of {name}: ready>"
    assert repr(server) == f"<CandleServer SPOT 1m of {name}: closed>"


@pytest.mark.parametrize(
    ("market", "symbol", "bar", "length"),
    [("spot", "BTCUSDT", "1s", 2), ("Um", "ETHUSDT", "5m", 600), ("CM", "BTCUSD_PERP", "1h", 30)],
)
def test_market_bar_and_length(make: Make, market: str, symbol: str, bar: str, length: int) -> None:
    with make(market, SYMBOLS=[symbol], BAR=bar, LENGTH=length) as server:
        rows = server.candle_map[symbol]
        health = server.status()

    assert len(rows) == length
    assert set(np.diff(rows[:, 0])) == {INTERVAL_MS[bar]}
    assert (health.market, health.interval, health.length) == (server.instType, bar, length)
    assert server.instType == market.upper()


def test_all_symbols_that_trade_less_what_the_filters_take(make: Make) -> None:
    with make(SYMBOLS="all", LENGTH=5) as server:
        everything = set(server.candle_map)
    assert {"BTCUSDT", "ETHBTC", "NEWUSDT"} <= everything
    assert "LUNAUSDT" not in everything  # listed, but it no longer trades

    settings = {"SYMBOLS_FILTER": ["ETHUSDT"], "SYMBOL_CONTAINS": "ETH", "SYMBOL_ENDSWITH": "BTC"}
    for name, value in settings.items():
        with make(SYMBOLS="all", LENGTH=5, **{name: value}) as server:
            left = {
                "SYMBOLS_FILTER": everything - {"ETHUSDT"},
                "SYMBOL_CONTAINS": {symbol for symbol in everything if "ETH" in symbol},
                "SYMBOL_ENDSWITH": {symbol for symbol in everything if symbol.endswith("BTC")},
            }[name]
            assert set(server.candle_map) == left
            assert set(server.get_symbols_filtered()["data"]) == left


def test_filters_hold_for_a_list_too(make: Make) -> None:
    with make(SYMBOLS=["BTCUSDT", "ETHUSDT", "ETHBTC"], SYMBOLS_FILTER=["BTCUSDT"], SYMBOL_ENDSWITH="USDT") as server:
        assert list(server.candle_map) == ["ETHUSDT"]


def test_update_interval_is_the_pause_between_requests(
    exchange: SimulatedExchange, make: Make, block_name: str
) -> None:
    make(SYMBOLS=["ETHUSDT"], UPDATE_INTERVAL_SECONDS=86400, name=f"{block_name}-slow").run_candle_map()
    make(SYMBOLS=["BTCUSDT"], UPDATE_INTERVAL_SECONDS=0.1).run_candle_map()

    until(lambda: asked(exchange, "BTCUSDT") >= 20)

    # What ended has to be asked for again, however long the interval is.
    assert asked(exchange, "ETHUSDT") <= 6


def test_server_weight_is_the_part_of_the_limit_that_is_used(block_name: str) -> None:
    settings = {"UPDATE_INTERVAL_SECONDS": 0.05, "BAR": "1h", "LENGTH": 5}
    with ExitStack() as stack:
        totals: dict[float, Callable[[], int]] = {}
        for weight in (0.2, 1.0):
            exchange = stack.enter_context(SimulatedExchange(symbols=2, spot_limit=2000))
            rule = type("MyRule", (CandleRule,), {"SERVER_WEIGHT": weight} | settings)
            server = CandleServer("SPOT", rule, name=f"{block_name}-{weight}", base_url=exchange.base_url)
            stack.enter_context(server)
            totals[weight] = lambda exchange=exchange: exchange.stats().pools["SPOT"].total  # type: ignore[misc]
            assert server.status().weight_limit == 2000
        before = {weight: total() for weight, total in totals.items()}

        until(lambda: totals[1.0]() > before[1.0] + 100)

        assert totals[0.2]() - before[0.2] < 50


def test_new_listings_and_holes_are_served_as_they_are(exchange: SimulatedExchange, make: Make) -> None:
    end_ms = (exchange.now_ms() // MINUTE - 20) * MINUTE
    exchange.truth.add_outage(Outage(start_ms=end_ms - 10 * MINUTE, end_ms=end_ms, symbol="ETHUSDT"))

    with make(SYMBOLS=["ETHUSDT", "NEWUSDT"], LENGTH=3000) as server:
        holed, new = server.candle_map["ETHUSDT"], server.candle_map["NEWUSDT"]

    assert len(holed) == 3000 - 10
    assert np.diff(holed[:, 0]).max() == 11 * MINUTE
    assert new[0, 0] == exchange.truth.first_ms("SPOT", "NEWUSDT")
    assert len(new) < 3000
    assert np.isfinite(new).all()


@pytest.mark.parametrize(("zone", "form"), [("America/New_York", "%d/%m/%Y"), ("Pacific/Kiritimati", "%Y-%m-%d")])
def test_log_lines_and_files_carry_the_day_of_the_time_zone(
    make: Make, directory: Path, capsys: pytest.CaptureFixture[str], zone: str, form: str
) -> None:
    with make(TIMEZONE=zone) as server:
        now = datetime.fromtimestamp(server.candle_map["BTCUSDT"][-1, 0] / 1000, ZoneInfo(zone))

    days = re.escape(now.strftime(form))
    for text in (log_text(directory), capsys.readouterr().err):
        stamp = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[INFO\] "
        for line in (
            rf"DOWNLOAD BTCUSDT    1m  {days}",
            rf"DOWNLOAD ETHUSDT    1m  {days}",
            rf"COMPLETE DOWNLOAD {days} \(ALL:2 SKIP:0 SUC:2 WARN:0 ERROR:0\)",
            r"COMPLETE PREPARE candle_map",
        ):
            assert len(re.findall(f"{stamp}{line}$", text, re.MULTILINE)) == 1, (line, text)
    files = list((directory / CandleRule.LOG_DIRPATH).iterdir())
    assert files == [directory / CandleRule.LOG_DIRPATH / f"{now:%Y-%m-%d}.log"]


def test_log_levels_and_directory(make: Make, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"LOG_DIRPATH": Path("deep/logs"), "LOG_FILE_LEVEL": "warning", "LOG_CONSOLE_LEVEL": "ERROR"}
    with make(SYMBOLS=["BTCUSDT", "NOSUCH"], **settings):
        pass

    assert capsys.readouterr().err == ""
    (file,) = (directory / "deep" / "logs").iterdir()
    (line,) = file.read_text().splitlines()
    assert ": NOSUCH: SPOT does not list it" in line
    assert logging.getLogger("candleshm").handlers == []


def test_a_log_directory_that_cannot_be_made_costs_one_warning(
    make: Make, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "taken").write_text("a file")

    with make(LOG_DIRPATH="taken/logs") as server:
        assert list(server.candle_map) == SPOT

    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "LOG_DIRPATH `taken/logs` cannot be written" in line]) == 1
    assert len([line for line in lines if "COMPLETE PREPARE candle_map" in line]) == 1
    assert not [line for line in lines if "Traceback" in line]


def test_two_servers_of_one_process_say_everything_once(
    make: Make, directory: Path, block_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with make(SYMBOLS=["BTCUSDT"]), make("UM", SYMBOLS=["SOLUSDT"], name=f"{block_name}-um"):
        pass

    for text in (log_text(directory), capsys.readouterr().err):
        assert text.count("DOWNLOAD BTCUSDT ") == 1
        assert text.count("DOWNLOAD SOLUSDT ") == 1


def test_the_cache_is_written_every_now_and_then_and_at_the_end(
    make: Make, exchange: SimulatedExchange, directory: Path
) -> None:
    with make(CACHE_DIR="deep/cache", CACHE_DELAY_SECONDS=0.1) as server:
        until(lambda: "DOWNLOAD CANDLE CACHE" in log_text(directory))
        name = server.status().name
    (file,) = (directory / "deep" / "cache").iterdir()
    assert file.name == f"spot-1m-{name}.cache"
    asked = len(exchange.served())
    with make(CACHE_DIR="deep/cache") as server:
        assert {len(rows) for rows in server.candle_map.values()} == {100}
    # The newest rows, and nothing further back.
    limits = [int(limit) for one in exchange.served()[asked:] for limit in re.findall(r"limit=(\d+)", one.target)]
    assert limits
    assert max(limits) < 100


def test_a_cache_delay_of_none_writes_nothing(make: Make, directory: Path) -> None:
    with make(CACHE_DIR="cache", CACHE_DELAY_SECONDS=None):
        pass
    assert [path.name for path in directory.iterdir()] == [Path(str(CandleRule.LOG_DIRPATH)).name]


def test_settings_of_files_write_nothing_yet(make: Make, directory: Path) -> None:
    settings = {"DOWNLOAD_TIME": "00:00:00", "LOCAL_CANDLE_DAYS": 1, "CACHE_DELAY_SECONDS": None}
    with make(CANDLE_DIR="candles", **settings):
        pass

    assert [path.name for path in directory.iterdir()] == [Path(str(CandleRule.LOG_DIRPATH)).name]


def test_a_server_that_is_only_made_does_nothing(
    exchange: SimulatedExchange, make: Make, directory: Path, block_name: str
) -> None:
    server = make()

    assert list(directory.iterdir()) == []
    assert exchange.stats().count() == 0
    assert server.get_candle_security("BTCUSDT").size == 0
    server.close_run_candle_map()
    with pytest.raises(BlockNotFound, match="run_candle_map"):
        server.status()
    assert list(Path("/dev/shm").glob(f"*{block_name}*")) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"instType": "FUTURES"}, "instType cannot be `FUTURES`; allowed: SPOT | UM | CM"),
        ({"instType": None}, "allowed: SPOT | UM | CM"),
        ({"rule": None}, "subclass of CandleRule"),
        ({"rule": type("MyRule", (CandleRule,), {"LENGHT": 5})}, "the nearest is LENGTH"),
        ({"proxies": {"https": 1}}, "proxies"),
        ({"proxy_host": "h:1"}, "proxy_host"),
        ({"base_url": "h:1"}, "base_url"),
        ({"base_url": "http://a", "proxy_host": "http://b"}, "choose one"),
        ({"ws_url": "http://a"}, "ws_url"),
        (
            {"live": "ws", "base_url": "http://a"},
            "is not given; allowed here: rest | auto",
        ),
        ({"live": "both"}, "live cannot be `both`; allowed: rest | ws | auto"),
        ({"name": "a/b"}, "name cannot be `a/b`"),
        ({"settle_seconds": -1}, "settle_seconds"),
    ],
)
def test_wrong_arguments_are_named_when_the_server_is_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        CandleServer(**({"instType": "SPOT"} | options))


def test_the_block_is_named_after_market_and_bar_and_others_attach(make: Make, block_name: str) -> None:
    assert CandleServer("um", type("MyRule", (CandleRule,), {"BAR": "5m"}))._config.block_name == "candleshm-um-5m"
    with (
        make(live="rest", ws_url="wss://stream.invalid:9443", settle_seconds=0.5),
        candleshm.attach(block_name) as feed,
    ):
        assert feed.symbols == tuple(SPOT)
        assert feed.length == 100


class Relay(ThreadingHTTPServer):
    """A recording forward proxy (absolute URLs) and relay (`/api` before the path) in front of the exchange."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        self.target = target
        self.requests: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), RelayHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class RelayHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Relay)
        self.server.requests.append((self.path, str(self.headers)))
        parts = urlsplit(self.path)
        path = re.sub(r"^/([a-z]+)(?=/\1/)", "", parts.path)
        answer = requests.get(f"{self.server.target}{path}?{parts.query}", timeout=10)
        self.send_response(answer.status_code)
        for name, value in (*answer.headers.items(), ("Connection", "close")):
            if name.lower() not in ("connection", "content-encoding"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def relay(exchange: SimulatedExchange) -> Iterator[Relay]:
    with Relay(exchange.base_url) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_proxies_are_really_used(make: Make, relay: Relay, directory: Path) -> None:
    secrets = {"KEY": "my-key", "SECRET": "my-secret"}
    with make(proxies={"http": relay.url}, base_url="http://exchange.invalid", **secrets) as server:
        assert list(server.candle_map) == SPOT
        assert server.get_symbols_filtered()["data"] == SPOT

    assert {"/api/v3/time", "/api/v3/exchangeInfo", "/api/v3/klines"} == {
        urlsplit(url).path for url, _ in relay.requests
    }
    assert {urlsplit(url).hostname for url, _ in relay.requests} == {"exchange.invalid"}
    sent = "".join(f"{url}{headers}" for url, headers in relay.requests)
    for secret in secrets.values():
        assert secret not in sent
        assert secret not in log_text(directory)


@pytest.mark.parametrize(
    ("market", "symbol", "path"),
    [("SPOT", "BTCUSDT", "/api/api/v3"), ("UM", "BTCUSDT", "/fapi/fapi/v1"), ("CM", "BTCUSD_PERP", "/dapi/dapi/v1")],
)
def test_proxy_host_gets_the_path_that_the_relay_expects(
    make: Make, relay: Relay, market: Market, symbol: str, path: str
) -> None:
    with make(market, SYMBOLS=[symbol], proxy_host=relay.url) as server:
        assert list(server.candle_map) == [symbol]
        assert server.get_symbols_filtered()["data"] == [symbol]

    assert {urlsplit(url).path for url, _ in relay.requests} == {
        f"{path}/time",
        f"{path}/exchangeInfo",
        f"{path}/klines",
    }


def test_a_listed_symbol_that_is_unknown_is_dropped(make: Make, directory: Path) -> None:
    with make(SYMBOLS=["BTCUSTD", "ETHUSDT"]) as server:
        assert list(server.candle_map) == ["ETHUSDT"]
        assert server.get_candle_security("BTCUSTD").shape == (0,)

    assert ": BTCUSTD: SPOT does not list it" in log_text(directory)


def nothing_left(directory: Path, block_name: str) -> bool:
    """Say whether a start that failed left neither block, thread, handler nor file."""
    until(
        lambda: (
            not [
                name
                for name in map(attrgetter("name"), threading.enumerate())
                if re.match("candleshm-(loop|fetch)", name)
            ]
        )
    )
    return not (
        list(directory.iterdir())
        or list(Path("/dev/shm").glob(f"*{block_name}*"))
        or logging.getLogger("candleshm").handlers
    )


def test_no_symbol_left_is_an_error_with_nothing_left_behind(make: Make, directory: Path, block_name: str) -> None:
    with pytest.raises(ConfigError, match="NOSUCH"):
        make(SYMBOLS=["NOSUCH"]).run_candle_map()

    assert nothing_left(directory, block_name)


class ImpatientServer(CandleServer):
    """Gives up at once where the real one tries for half a minute."""

    _start_seconds = 0.2


def test_an_unreachable_exchange_is_an_error_with_nothing_left_behind(
    exchange: SimulatedExchange, make: Make, directory: Path, block_name: str
) -> None:
    assert CandleServer("SPOT")._config.start_seconds == 30
    exchange.stop()
    server = make(kind=ImpatientServer)

    for _ in range(2):
        with pytest.raises(ExchangeUnavailable):
            server.run_candle_map()
        assert nothing_left(directory, block_name)
    answer = server.get_symbols_filtered()
    assert (answer["code"], answer["data"]) == (-1, [])
    assert "no response" in answer["msg"]


@pytest.mark.parametrize("path", ["/time", "/klines"])
def test_close_ends_a_start_that_still_blocks(
    exchange: SimulatedExchange, make: Make, block_name: str, path: str
) -> None:
    exchange.faults.add(Fault(kind="hang", path=path))
    server = make()
    start = threading.Thread(target=server.run_candle_map)
    start.start()
    until(lambda: exchange.stats().count(path))

    server.close_run_candle_map()
    start.join(DEADLINE_SECONDS)

    assert not start.is_alive()
    assert list(Path("/dev/shm").glob(f"*{block_name}*")) == []
    assert dict(server.candle_map) == {}
    assert logging.getLogger("candleshm").handlers == []


def test_running_twice_is_harmless(exchange: SimulatedExchange, make: Make) -> None:
    server = make()
    starts = [threading.Thread(target=server.run_candle_map) for _ in range(3)]
    for start in starts:
        start.start()
    for start in starts:
        start.join(DEADLINE_SECONDS)
    server.run_candle_map()

    assert list(server.candle_map) == SPOT
    assert exchange.stats().count("/exchangeInfo") == 1


def test_the_last_state_stays_readable_and_the_server_runs_again(make: Make, block_name: str) -> None:
    server = make(UPDATE_INTERVAL_SECONDS=86400)
    server.run_candle_map()
    rows = server.candle_map["BTCUSDT"]
    server.close_run_candle_map()
    server.close_run_candle_map()
    assert server.status().state == "closed"

    with make(SYMBOLS=["SOLUSDT"], LENGTH=7), pytest.raises(KeyError):
        server.candle_map["SOLUSDT"]  # a later block of that name is not ours
    kept = server.candle_map["BTCUSDT"]
    assert list(server.candle_map) == SPOT
    assert kept.shape == (100, 12)
    np.testing.assert_array_equal(kept[:90], rows[-len(kept) :][:90])
    kept[:] = 0
    assert server.candle_map["BTCUSDT"][0, 1] == rows[0, 1]
    assert server.get_candle_security("BTCUSDT", security_seconds=3600).shape == (100, 12)
    assert not [path for path in Path("/dev/shm").glob(f"*{block_name}*")]

    server.run_candle_map()
    assert server.status().state == "ready"


def test_a_start_that_is_interrupted_leaves_no_block(exchange: SimulatedExchange, make: Make, block_name: str) -> None:
    exchange.faults.add(Fault(kind="hang", path="/klines"))
    server = make()

    def interrupt() -> None:
        until(lambda: asked(exchange, "BTCUSDT"))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        server.run_candle_map()

    assert list(Path("/dev/shm").glob(f"*{block_name}*")) == []
    assert logging.getLogger("candleshm").handlers == []


def test_a_collector_that_broke_is_replaced_by_running_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server = make()
    server.run_candle_map()
    with monkeypatch.context() as broken:
        broken.setattr(Scheduler, "_note_loaded", lambda *_: 1 / 0)
        until(lambda: server.status().state == "closed")
        assert list(server.candle_map) == SPOT

    until(lambda: server._run is not None and server._run.has_ended)
    server.run_candle_map()

    assert server.status().state == "ready"


def test_a_symbol_that_fails_is_left_out_and_comes_later(
    exchange: SimulatedExchange, make: Make, directory: Path
) -> None:
    exchange.faults.add(Fault(kind="status", symbol="ETHUSDT"))
    with make() as server:
        assert list(server.candle_map) == ["BTCUSDT"]
        assert server.get_candle_security("ETHUSDT").shape == (0,)
        assert "(ALL:2 SKIP:0 SUC:1 WARN:0 ERROR:1)" in log_text(directory)
        exchange.faults.clear()
        until(lambda: "ETHUSDT" in server.candle_map)


def test_get_candle_security_goes_by_the_age_of_the_newest_candle(exchange: SimulatedExchange, make: Make) -> None:
    # An hour between the local clock and the exchange's changes nothing.
    exchange.skew_ms = 3_600_000
    with make(UPDATE_INTERVAL_SECONDS=0.2) as server:
        for _ in range(3):
            rows = server.get_candle_security("BTCUSDT", security_seconds=180)
            assert rows.shape == (100, 12)
        assert server.get_candle_security("NOSUCH").shape == (0,)
        exchange.faults.add(Fault(kind="hang", path="/klines"))
        age_seconds = (exchange.now_ms() - server.candle_map["BTCUSDT"][-1, 0]) / 1000
        assert server.get_candle_security("BTCUSDT", security_seconds=age_seconds / 2).shape == (0,)
        assert server.get_candle_security("BTCUSDT", security_seconds=age_seconds + 60).shape == (100, 12)


def test_get_candle_security_goes_by_confirmation_for_longer_bars(exchange: SimulatedExchange, make: Make) -> None:
    with make(BAR="1d", LENGTH=10, UPDATE_INTERVAL_SECONDS=0.2) as server:
        assert server.get_candle_security("BTCUSDT", security_seconds=5).shape == (10, 12)
        exchange.faults.add(Fault(kind="hang", path="/klines"))
        until(lambda: server.get_candle_security("BTCUSDT", security_seconds=1).shape == (0,))
        assert server.get_candle_security("BTCUSDT", security_seconds=3600).shape == (10, 12)
    assert server.get_candle_security("BTCUSDT", security_seconds=1).shape == (0,)
    assert server.get_candle_security("BTCUSDT", security_seconds=3600).shape == (10, 12)


def test_get_symbols_filtered_by_trading_state(exchange: SimulatedExchange, make: Make) -> None:
    server = make(SYMBOLS=["LUNAUSDT", "ETHUSDT", "NOSUCH", "BTCUSDT"])

    on, off, all_of_them = (
        server.get_symbols_filtered(type=state) for state in ("trading_on", "trading_off", "trading_all")
    )

    assert on == {"code": 200, "data": ["ETHUSDT", "BTCUSDT"], "msg": ""}
    assert off == {"code": 200, "data": ["LUNAUSDT"], "msg": ""}
    assert all_of_them == {"code": 200, "data": ["LUNAUSDT", "ETHUSDT", "BTCUSDT"], "msg": ""}
    assert exchange.stats().count("/exchangeInfo") == 1
    with pytest.raises(ConfigError, match="allowed: trading_on"):
        server.get_symbols_filtered(type="on")  # type: ignore[arg-type]


@pytest.mark.parametrize(("fault", "code"), [(html(451), 451), (html(200), -1), (rate_limited(7), -1003)])
def test_get_symbols_filtered_without_a_response(
    exchange: SimulatedExchange, make: Make, fault: Fault, code: int
) -> None:
    exchange.faults.add(fault)

    answer = make().get_symbols_filtered()

    assert (answer["code"], answer["data"]) == (code, [])
    assert answer["msg"]


def test_a_process_that_just_ends_takes_its_block_away(exchange: SimulatedExchange, block_name: str) -> None:
    script = (
        "from candleshm.compat.candle_server import CandleRule, CandleServer\n"
        "class MyRule(CandleRule):\n    SYMBOLS = ['BTCUSDT']\n    LENGTH = 5\n"
        f"server = CandleServer('SPOT', MyRule, name={block_name!r}, base_url={exchange.base_url!r})\n"
        "server.run_candle_map()\n"
        "print(server.status().state)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stdout) == (0, "ready\n"), ended.stderr
    assert list(Path("/dev/shm").glob(f"*{block_name}*")) == []


@pytest.mark.parametrize("address", ["proxy_host", "base_url"])
def test_the_notebook_runs_as_it_was_written(
    relay: Relay, exchange: SimulatedExchange, directory: Path, block_name: str, address: str
) -> None:
    """Its first cell has two addresses; here the exchange stands there, or the relay before it.

    The block gets a name of its own, since a collector may run on this machine under the default one.
    """
    notebook = json.loads((ROOT / "examples" / "candle_server.ipynb").read_text())
    script = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    url = relay.url if address == "proxy_host" else exchange.base_url
    for was, becomes in (
        (f"{address} = None", f"{address} = {url!r}"),
        ("base_url=base_url)", f"base_url=base_url, name={block_name!r})"),
    ):
        assert script.count(was) == 1
        script = script.replace(was, becomes)
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=directory, capture_output=True, text=True, timeout=100, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert "{'BTCUSDT': array([[" in ended.stdout
    assert ended.stdout.count("(1440, 12)") >= 3
    assert "[INFO] COMPLETE PREPARE candle_map" in ended.stderr
    assert "Traceback" not in ended.stderr
