"""What a gateway requests from the exchange: the list of symbols, and with pass-through what its blocks do not have."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

import candleshm.weight
from candleshm.gateway import exchange_info
from candleshm.gateway.refusals import Refused
from candleshm.gateway.threads import Threads
from candleshm.sim import Fault, SimulatedExchange
from candleshm.sim.faults import banned, rate_limited
from tests.support.collecting import collecting, until
from tests.support.commanding import first_line, started
from tests.support.gateways import gateway

SYMBOL = "BTCUSDT"
COMMAND = ["gateway", "--listen", "127.0.0.1:0", "--pass-through"]
LISTS = ["/api/v3", "/fapi/v1", "/dapi/v1"]


@pytest.fixture(scope="module")
def shared_exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=7, symbols=4, spot_limit=10**6, futures_limit=10**6) as exchange:
        yield exchange


@pytest.fixture
def exchange(shared_exchange: SimulatedExchange) -> Iterator[SimulatedExchange]:
    yield shared_exchange
    shared_exchange.faults.clear()


def count(exchange: SimulatedExchange, part: str) -> int:
    """Return how many requests had this in their path and query."""
    return sum(part in served.target for served in exchange.served())


# The list of symbols.


@pytest.mark.parametrize("prefix", LISTS)
def test_list_is_the_exchanges(exchange: SimulatedExchange, block_name: str, prefix: str) -> None:
    seen = count(exchange, f"{prefix}/exchangeInfo")
    with gateway([block_name], exchange.base_url) as url:
        mine, theirs = (requests.get(f"{base}{prefix}/exchangeInfo", timeout=30) for base in (url, exchange.base_url))
        assert without_time(mine) == without_time(theirs)
        assert mine.headers["content-type"] == theirs.headers["content-type"]
        requests.get(f"{url}{prefix}/exchangeInfo", timeout=30)
        assert count(exchange, f"{prefix}/exchangeInfo") == seen + 2


@pytest.mark.parametrize(
    "query",
    [
        "symbol=BTCUSDT",
        'symbols=["ETHUSDT","BTCUSDT"]',
        "symbolStatus=BREAK",
        "symbolStatus=TRADING",
        "symbol=NOSUCH",
        'symbols=["NOSUCH"]',
        "symbol=",
        "symbol=btc",
        "symbols=BTCUSDT",
        "symbolStatus=NONE",
        "foo=1",
        "symbol=BTCUSDT&symbol=ETHUSDT",
    ],
)
def test_parameters_of_spot(exchange: SimulatedExchange, block_name: str, query: str) -> None:
    with gateway([block_name], exchange.base_url) as url:
        mine, theirs = (
            requests.get(f"{base}/api/v3/exchangeInfo?{query}", timeout=30) for base in (url, exchange.base_url)
        )
        assert mine.status_code == theirs.status_code
        assert without_time(mine) == without_time(theirs)


def test_permissions_of_spot(exchange: SimulatedExchange, block_name: str) -> None:
    with gateway([block_name], exchange.base_url) as url:

        def names(query: str) -> set[str]:
            listed = requests.get(f"{url}/api/v3/exchangeInfo?{query}", timeout=30).json()["symbols"]
            return {entry["symbol"] for entry in listed}

        assert "SUSHIBTC" in names("permissions=SPOT") - names("permissions=MARGIN")
        assert names('permissions=["SPOT","MARGIN"]') == names("permissions=SPOT") == names("")
        bare = requests.get(f"{url}/api/v3/exchangeInfo?symbol=BTCUSDT&showPermissionSets=false", timeout=30).json()
        assert bare["symbols"][0]["permissionSets"] == []


def without_time(response: requests.Response) -> Any:
    """Return a body without the moment of the response, checking the rest to the byte."""
    body: dict[str, Any] = response.json()
    assert json.dumps(body, separators=(",", ":"), ensure_ascii="\\u" in response.text) == response.text
    body.pop("serverTime", None)
    return body


def test_list_outlives_the_gateway_and_the_exchange(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    with gateway([block_name], exchange.base_url, cache_dir=str(tmp_path / "cache")) as url:
        first = requests.get(f"{url}/fapi/v1/exchangeInfo", timeout=30)
    (file,) = (tmp_path / "cache").glob("exchange-info-um-*.json")
    assert file.read_bytes() == first.content
    seen = count(exchange, "/fapi/v1/exchangeInfo")
    with gateway([block_name], exchange.base_url, cache_dir=str(tmp_path / "cache")) as url:
        assert requests.get(f"{url}/fapi/v1/exchangeInfo", timeout=30).content == first.content
        assert count(exchange, "/fapi/v1/exchangeInfo") == seen
    # A day later the exchange is asked, does not answer, and the old list is better than none.
    os.utime(file, times=(0, file.stat().st_mtime - 86_400))
    exchange.faults.add(Fault(kind="status", status=502, path="/exchangeInfo"))
    with gateway([block_name], exchange.base_url, cache_dir=str(tmp_path / "cache")) as url:
        assert requests.get(f"{url}/fapi/v1/exchangeInfo", timeout=30).content == first.content
        until(lambda: count(exchange, "/fapi/v1/exchangeInfo") > seen)
        assert requests.get(f"{url}/fapi/v1/exchangeInfo", timeout=30).content == first.content


@pytest.mark.parametrize("content", [b"", b"{}", b'{"symbols":[]}', b"\xff" * 100])
def test_damaged_file_is_fetched_anew(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, content: bytes
) -> None:
    with gateway([block_name], exchange.base_url, cache_dir=str(tmp_path)) as url:
        requests.get(f"{url}/fapi/v1/exchangeInfo", timeout=30)
    (file,) = tmp_path.glob("exchange-info-um-*.json")
    file.write_bytes(content)
    with gateway([block_name], exchange.base_url, cache_dir=str(tmp_path)) as url:
        assert SYMBOL in requests.get(f"{url}/fapi/v1/exchangeInfo", timeout=30).text
    assert file.read_bytes() != content


def test_no_list_at_all_is_told(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.faults.add(Fault(kind="status", status=502, path="/exchangeInfo"))
    with gateway([block_name], exchange.base_url) as url:
        response = requests.get(f"{url}/api/v3/exchangeInfo", timeout=30)
        assert (response.status_code, response.json()["code"]) == (503, -1001)
        # Whether the symbol exists nobody knows then.
        response = requests.get(f"{url}/api/v3/klines?symbol=NOSUCH&interval=1m", timeout=30)
        assert (response.status_code, response.json()["code"]) == (503, -1001)
        response = requests.get(f"{url}/api/v3/klines?symbol=NOSUCH&interval=7m", timeout=30)
        assert (response.status_code, response.json()["code"]) == (400, -1120)


def test_symbol_that_a_block_gains_is_listed_soon(block_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_info, "CARRIED_SECONDS", 0.0)
    with (
        SimulatedExchange(seed=7, symbols=4, spot_limit=10**6, futures_limit=10**6) as exchange,
        collecting(exchange, block_name, market="UM", symbols="all", universe_refresh_seconds=0.5),
        gateway([block_name], exchange.base_url) as url,
    ):
        old = exchange.truth.instrument("UM", SYMBOL)
        assert "YOUNGUSDT" not in requests.get(f"{url}/fapi/v1/exchangeInfo", timeout=30).text
        young = replace(old, symbol="YOUNGUSDT", base="YOUNG", listed_ms=exchange.now_ms() - 600_000)
        exchange.truth.enlist(young)
        until(lambda: "YOUNGUSDT" in requests.get(f"{url}/fapi/v1/exchangeInfo", timeout=30).text)


# Pass-through.


def test_candles_beyond_the_window_come_from_the_exchange(exchange: SimulatedExchange, block_name: str) -> None:
    with (
        collecting(exchange, block_name, symbols=[SYMBOL]),
        gateway([block_name], exchange.base_url, pass_through=True) as url,
    ):
        end_ms = exchange.now_ms() - 86_400_000
        for query in (f"symbol={SYMBOL}&interval=1m&limit=5&endTime={end_ms}", "symbol=NOSUCH&interval=1m"):
            mine, theirs = (
                requests.get(f"{base}/api/v3/klines?{query}", timeout=30) for base in (url, exchange.base_url)
            )
            assert (mine.status_code, mine.content) == (theirs.status_code, theirs.content)
            assert mine.headers["x-candleshm-source"] == "upstream"
        # What the block has still comes from there.
        mine = requests.get(f"{url}/api/v3/klines?symbol={SYMBOL}&interval=1m&limit=5", timeout=30)
        assert mine.headers["x-candleshm-source"] == "block"


def test_public_paths_are_passed_and_booked(exchange: SimulatedExchange, block_name: str) -> None:
    with gateway([block_name], exchange.base_url, pass_through=True) as url:
        path = "/api/v3/ticker/price?symbol=BTCUSDT"
        mine, theirs = (requests.get(base + path, timeout=30) for base in (url, exchange.base_url))
        assert mine.status_code == 200
        assert mine.json()["symbol"] == theirs.json()["symbol"]
        assert mine.headers["x-candleshm-source"] == "upstream"
        requests.get(f"{url}/api/v3/depth?symbol=BTCUSDT&limit=1000", timeout=30)
        state = candleshm.weight.state("SPOT", base_url=exchange.base_url)
        assert state.used >= 2 + 50
        for private in ("account", "order", "myTrades", "ticker/price/", "../sapi/v1/x", "userDataStream"):
            assert requests.get(f"{url}/api/v3/{private}", timeout=30).status_code == 404
        assert count(exchange, "account") == 0


def test_paths_are_not_passed_without_the_flag(exchange: SimulatedExchange, block_name: str) -> None:
    with gateway([block_name], exchange.base_url) as url:
        seen = count(exchange, "/ticker/price")
        response = requests.get(f"{url}/fapi/v1/ticker/price?symbol=BTCUSDT", timeout=30)
        assert response.status_code == 404
        assert "--pass-through" in response.json()["msg"]
        assert count(exchange, "/ticker/price") == seen


def test_equal_requests_at_one_time_leave_once(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.faults.add(Fault(kind="latency", delay_ms=1500, path="/ticker/bookTicker"))
    with gateway([block_name], exchange.base_url, pass_through=True) as url, ThreadPoolExecutor(12) as threads:
        path = f"{url}/api/v3/ticker/bookTicker?symbol=ETHUSDT"
        bodies = list(threads.map(lambda _: requests.get(path, timeout=30).content, range(12)))
        assert len(set(bodies)) == 1
        assert count(exchange, "/ticker/bookTicker?symbol=ETHUSDT") == 1


def test_stop_after_a_429_is_answered_here(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.faults.add(rate_limited(7, path="/ticker/price", count=1))
    with gateway([block_name], exchange.base_url, pass_through=True) as url:
        path = f"{url}/fapi/v1/ticker/price?symbol=BTCUSDT"
        requests.get(f"{url}/fapi/v1/exchangeInfo", timeout=30)
        first = requests.get(path, timeout=30)
        assert (first.status_code, first.json()["code"]) == (429, -1003)
        seen = count(exchange, "/ticker/price")
        for name in ("ticker/price", "klines", "depth"):
            response = requests.get(f"{url}/fapi/v1/{name}?symbol=BTCUSDT&interval=1m", timeout=30)
            assert (response.status_code, response.json()["code"]) == (503, -1003)
            assert 1 <= int(response.headers["retry-after"]) <= 7
        # CM has the same pool, SPOT one of its own.
        assert requests.get(f"{url}/dapi/v1/ticker/price", timeout=30).status_code == 503
        assert requests.get(f"{url}/api/v3/ticker/price", timeout=30).status_code == 200
        assert count(exchange, "/fapi/v1/ticker/price") <= seen


def test_ban_stops_others_of_the_pool(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.faults.add(banned(exchange.now_ms() + 60_000, path="/ticker/price", count=1))
    with gateway([block_name], exchange.base_url, pass_through=True) as url:
        assert requests.get(f"{url}/api/v3/ticker/price", timeout=30).status_code == 418
    assert candleshm.weight.state("SPOT", base_url=exchange.base_url).blocked_seconds > 30


@pytest.mark.parametrize("kind", ["reset", "truncate", "hang"])
def test_exchange_that_breaks_off_is_a_503(exchange: SimulatedExchange, block_name: str, kind: Any) -> None:
    exchange.faults.add(Fault(kind=kind, path="/ticker/price"))
    with gateway([block_name], exchange.base_url, pass_through=True) as url:
        response = requests.get(f"{url}/api/v3/ticker/price", timeout=60)
        assert (response.status_code, response.json()["code"]) == (503, -1001)
        assert "cannot be reached" in response.json()["msg"]


def test_only_parameters_leave_and_no_header_of_one_hop_comes_back(block_name: str) -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, dict(self.headers)))
            self.send_response(200)
            for name, value in (
                ("Content-Type", "text/x"),
                ("Connection", "close"),
                ("Set-Cookie", "a=b"),
                ("X-Own", "1"),
            ):
                self.send_header(name, value)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    host = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=host.serve_forever, daemon=True).start()
    try:
        base_url = f"http://127.0.0.1:{host.server_address[1]}"
        with gateway([block_name], base_url, pass_through=True) as url:
            told = {"Cookie": "secret=1", "X-Mine": "1", "User-Agent": "bot", "Referer": "http://x"}
            query = "symbol=%E5%B8%81USDT&limit=5&x=a%0d%0ab"
            response = requests.get(f"{url}/fapi/v1/depth?{query}", headers=told, timeout=30)
        (path, headers) = next(item for item in seen if "/depth" in item[0])
        assert path == "/fapi/v1/depth?symbol=%E5%B8%81USDT&limit=5&x=a%0D%0Ab"
        assert {name.lower() for name in headers} <= {"host", "accept", "accept-encoding", "user-agent", "connection"}
        assert headers["User-Agent"] == "candleshm"
        assert (response.content, response.headers["content-type"]) == (b"{}", "text/x")
        assert not {"set-cookie", "x-own"} & {name.lower() for name in response.headers}
    finally:
        host.shutdown()
        host.server_close()


def test_gateway_ends_while_the_exchange_hangs(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.faults.add(Fault(kind="hang", path="/ticker/price"))
    with (
        started(*COMMAND, "--base-url", exchange.base_url, "--block", block_name, stderr=None) as process,
        ThreadPoolExecutor(1) as threads,
    ):
        url = first_line(process).split()[-1]
        waiting = threads.submit(requests.get, f"{url}/api/v3/ticker/price", timeout=60)
        until(lambda: count(exchange, "/ticker/price") > 0)
        process.send_signal(signal.SIGTERM)
        # The exchange itself would be given up after ten.
        assert process.wait(8) == 0
        # On a busy machine the connection may end before the refusal is there.
        error = waiting.exception()
        assert isinstance(error, requests.ConnectionError) or waiting.result().json()["code"] == -1001


def test_more_than_a_thread_can_do_is_refused() -> None:
    async def crowd() -> list[object]:
        threads = Threads("test", 2, 3)
        go = threading.Event()
        results: list[asyncio.Future[bool]] = [threads.run(go.wait) for _ in range(5)]
        with pytest.raises(Refused) as refused:
            threads.run(go.wait)
        assert (refused.value.status, refused.value.code) == (503, -1001)
        results[4].cancel()
        go.set()
        done: list[object] = await asyncio.gather(*results, return_exceptions=True)
        assert await threads.run(lambda: "more") == "more"
        with pytest.raises(ValueError, match="own"):
            await threads.run(lambda: (_ for _ in ()).throw(ValueError("own")))
        threads.close()
        return done

    assert [type(result).__name__ for result in asyncio.run(crowd())] == ["bool"] * 4 + ["CancelledError"]
