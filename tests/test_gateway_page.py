"""The page of the gateway: its files, its websocket, and what a browser makes of them."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import candleshm
from candleshm import _core
from candleshm.columns import CLOSE, OPEN_TIME_MS
from candleshm.gateway.page.files import POLICY
from candleshm.gateway.page.watched_series import WatchedSeries
from candleshm.reader.feed import Feed
from candleshm.row_state import RowState
from candleshm.sim import Fault, SimulatedExchange
from candleshm.sim.stream.faults import StreamFault
from candleshm.sim.world.events import Outage
from tests.support.browser import NARROW, Keys, Page, browsing
from tests.support.commanding import first_line, lines_until, started, until
from tests.support.klines import MINUTE_MS, ingest, kline

STATIC = resources.files("candleshm.gateway") / "static"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT")
DERIVED = ("5m", "15m")
HOLES = 7
MANY = [f"SIM{number:04d}USDT" for number in range(2000)]


# Processes.


@contextmanager
def serving_page(*names: str, port: int = 0, more: tuple[str, ...] = ()) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a gateway for these blocks; give its URL and process."""
    blocks = [word for name in names for word in ("--block", name)]
    with started("gateway", "--listen", f"127.0.0.1:{port}", *blocks, *more) as process:
        yield re.findall(r"http://\S+", first_line(process))[0] + "/", process


@contextmanager
def collecting(exchange: SimulatedExchange, name: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Run a collector; give its process once all is loaded."""
    words = f"serve --market spot --symbols {','.join(SYMBOLS)} --name {name} --base-url {exchange.base_url}"
    with started(*words.split(), "--update-interval-seconds", "0.5", *more) as process:
        lines_until(process, "loaded 5 of 5")
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """A browser in which a test leaves no error in the console, and has asked no other origin for anything."""
    yield browser
    browser.leave()
    assert browser.complaints() == []
    assert browser.strangers() == []


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    """BTCUSDT has a hole of seven minutes, half an hour ago."""
    with SimulatedExchange(symbols=len(SYMBOLS)) as exchange:
        start_ms = (exchange.now_ms() // MINUTE_MS - 30) * MINUTE_MS
        outage = Outage(start_ms=start_ms, end_ms=start_ms + HOLES * MINUTE_MS, market="SPOT", symbol="BTCUSDT")
        exchange.truth.add_outage(outage)
        yield exchange


@pytest.fixture
def world(exchange: SimulatedExchange, block_name: str) -> Iterator[str]:
    """Return the URL of a page over a collector of minutes, and of larger intervals that are derived."""
    with (
        collecting(exchange, block_name, "--length", "300", "--derive", ",".join(DERIVED)),
        serving_page(block_name, *(f"{block_name}-{interval}" for interval in DERIVED)) as (url, _),
    ):
        yield url


# Files.


def test_the_vendored_chart_library_is_the_one_that_its_page_names() -> None:
    folder = STATIC / "vendor"
    digest = hashlib.sha256((folder / "lightweight-charts.js").read_bytes()).hexdigest()

    assert f"| `lightweight-charts.js` | `{digest}` |" in (folder / "README.md").read_text()
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert "https://www.tradingview.com/" in (folder / "NOTICE").read_text()
    assert 'href="https://www.tradingview.com/"' in (STATIC / "index.html").read_text()


def test_the_page_has_no_inline_code_and_names_no_other_origin() -> None:
    html = (STATIC / "index.html").read_text()

    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", html) == []
    assert set(re.findall(r"\b(?:src|href)=\"(?!page/|#)([^\"]+)\"", html)) == {"https://www.tradingview.com/"}
    for name in re.findall(r"\b(?:src|href)=\"page/([^\"]+)\"", html):
        assert (STATIC / name).is_file(), name


def test_files_come_with_a_policy_a_type_and_a_tag(block_name: str) -> None:
    with serving_page(block_name) as (url, _):
        names = [
            "",
            *(f"page/{path.name}" for path in STATIC.iterdir() if path.is_file() and path.name != "index.html"),
        ]
        assert len(names) > 8
        for name in [*names, "page/vendor/lightweight-charts.js", "page/vendor/LICENSE"]:
            response = requests.get(url + name, timeout=10)
            assert response.status_code == 200, name
            assert response.headers["Content-Security-Policy"] == POLICY
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            kind = {"": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
            suffix = Path(name).suffix
            assert response.headers["Content-Type"].startswith(kind[suffix] if "LICENSE" not in name else "text/plain")
            again = requests.get(url + name, headers={"If-None-Match": response.headers["ETag"]}, timeout=10)
            assert (again.status_code, again.content) == (304, b"")
        assert "unsafe" not in POLICY
        session = requests.Session()
        for path in ("page/../__init__.py", "page/%2e%2e/page/watch.py", "page/nothing.js", "page//etc/passwd"):
            prepared = session.prepare_request(requests.Request("GET", url))
            prepared.url = url + path
            assert session.send(prepared, timeout=10).status_code == 404, path


# The websocket.


def told(socket: ClientConnection, kind: str, **facts: object) -> dict[str, Any]:
    """Wait for a message of a kind."""
    while True:
        message: dict[str, Any] = json.loads(socket.recv(timeout=60))
        if message["k"] == kind and facts.items() <= message.items():
            return message


def received(socket: ClientConnection, kind: str) -> int:
    """Take messages until the connection ends; return how many there were of a kind."""
    count = 0
    try:
        while True:
            count += json.loads(socket.recv(timeout=60))["k"] == kind
    except ConnectionClosed:
        return count


def flood(socket: ClientConnection, wanted: dict[str, str]) -> None:
    """Ask for more than the machine's buffers hold and the gateway keeps, as slowly as it takes texts; read nothing."""
    for _ in range(300):
        socket.send(json.dumps(wanted))
        time.sleep(0.06)


def live_of(url: str) -> str:
    return url.replace("http", "ws", 1) + "page/live"


@contextmanager
def writing(name: str, symbols: list[str], length: int) -> Iterator[_core.Writer]:
    """A block of minutes that end now, written by this process."""
    writer = _core.Writer.open(name, market="SPOT", interval="1m", length=length, symbols=symbols)
    try:
        now_ms = int(time.time() * 1000)
        live_ms = now_ms // MINUTE_MS * MINUTE_MS
        for number, symbol in enumerate(symbols):
            opens_ms = range(live_ms - (length - 1) * MINUTE_MS, live_ms + 1, MINUTE_MS)
            rows = [kline(open_ms, 100 + number + (open_ms // MINUTE_MS) % 7 / 10) for open_ms in opens_ms]
            ingest(writer, symbol, *rows, sent_ms=max(now_ms, live_ms + 1), end_ms=live_ms + 1)
        writer.set_health(ready=True, weight_used=120, weight_limit=6000, banned_until_ms=None)
        writer.heartbeat()
        yield writer
    finally:
        writer.close()


def test_a_client_is_told_everything_once_and_then_what_changed(block_name: str) -> None:
    with (
        writing(block_name, ["AUSDT", "BUSDT"], 50) as writer,
        serving_page(block_name) as (url, _),
        candleshm.attach(block_name) as feed,
        connect(live_of(url)) as socket,
    ):
        assert told(socket, "hello")["max_age"] == 60
        (block,) = told(socket, "blocks")["blocks"]
        assert (block["name"], block["condition"], block["symbols"]) == (block_name, feed.health.condition, 2)
        table = told(socket, "table")
        assert table["symbols"] == ["AUSDT", "BUSDT"]
        assert table["close"] == [feed[symbol].last_close for symbol in feed]

        socket.send(json.dumps({"block": block_name, "symbol": "BUSDT"}))
        candles = told(socket, "candles")
        assert candles["whole"]
        assert candles["c"] == feed["BUSDT"].candles()[:, CLOSE].tolist()

        open_ms = feed["BUSDT"].last_open_time_ms
        assert open_ms is not None
        ingest(writer, "BUSDT", kline(open_ms, 555.0), sent_ms=int(time.time() * 1000))
        assert told(socket, "rows", block=block_name)["p"][:2] == [[1], [555.0]]
        changed = told(socket, "candles")
        assert not changed["whole"]
        assert (changed["t"], changed["c"]) == ([open_ms], [555.0])

        socket.send(json.dumps({"block": block_name, "symbol": "CUSDT"}))
        assert "CUSDT" in told(socket, "refused")["text"]


def test_a_block_that_was_named_and_is_not_there_is_told(block_name: str) -> None:
    with serving_page(block_name) as (url, _), connect(live_of(url)) as socket:
        (block,) = told(socket, "blocks")["blocks"]
        assert (block["name"], block["condition"]) == (block_name, "absent")
        with writing(block_name, ["AUSDT"], 50):
            assert told(socket, "table")["symbols"] == ["AUSDT"]


@pytest.mark.parametrize("text", ["nonsense", "{}", json.dumps({"block": "x" * 2000, "symbol": "A"})])
def test_a_text_that_is_none_of_the_pages_ends_the_connection(block_name: str, text: str) -> None:
    with serving_page(block_name) as (url, _), connect(live_of(url)) as socket:
        socket.send(text)
        assert received(socket, "candles") == 0
        assert socket.close_code == 1008


def test_a_page_of_another_origin_cannot_read_along(block_name: str) -> None:
    with serving_page(block_name) as (url, _), pytest.raises(InvalidStatus) as error:
        connect(live_of(url), additional_headers={"Origin": "http://elsewhere.example"})
    assert error.value.response.status_code == 403


def test_a_client_that_does_not_read_is_dropped_and_others_are_served(block_name: str) -> None:
    with (
        writing(block_name, ["AUSDT"], 5000),
        serving_page(block_name) as (url, _),
        connect(live_of(url), max_queue=1) as slow,
        connect(live_of(url)) as other,
    ):
        with pytest.raises(ConnectionClosed):
            flood(slow, {"block": block_name, "symbol": "AUSDT"})
        told(other, "blocks")


# What changed in a series.


def test_changes_of_a_series_make_the_series_as_it_is(block_name: str) -> None:
    with writing(block_name, ["AUSDT"], 60) as writer, candleshm.attach(block_name) as feed:
        series = feed["AUSDT"]
        watched = WatchedSeries(block_name, "1m", series)
        known = rows_of(watched.all())
        last_ms = series.last_open_time_ms
        assert last_ms is not None
        newer_ms = [last_ms + step * MINUTE_MS for step in range(4)]
        # A live candle changes; two later ones are missing; nothing; they are there.
        steps = [
            ([kline(last_ms, 7.0)], last_ms + 1000),
            ([kline(newer_ms[3], 8.0)], newer_ms[3] + 1),
            ([], 0),
            ([kline(open_ms, 9.0) for open_ms in newer_ms], newer_ms[3] + 1000),
        ]
        for klines, sent_ms in steps:
            if klines:
                ingest(writer, "AUSDT", *klines, sent_ms=sent_ms)
            message = watched.changes()
            if message is not None:
                known = rows_of(message) if message["whole"] else known | rows_of(message)
            rows, states = series.snapshot(holes="nan")
            now = {int(row[OPEN_TIME_MS]): (row[CLOSE], int(state)) for row, state in zip(rows, states, strict=True)}
            np.testing.assert_equal({open_ms: known[open_ms] for open_ms in now}, now)
        assert RowState.MISSING not in {state for _, state in known.values()}


def rows_of(message: dict[str, Any]) -> dict[int, tuple[float, int]]:
    return {
        time_ms: (np.nan if close is None else close, state)
        for time_ms, close, state in zip(message["t"], message["c"], message["s"], strict=True)
    }


def test_a_block_of_another_exchange_says_that_it_is_not_served(block_name: str) -> None:
    names = [f"{block_name}-{exchange}" for exchange in ("binance", "other")]
    with ExitStack() as stack:
        for name in names:
            open_block = partial(_core.Writer.open, name, market="SPOT", interval="1m", length=10)
            writer = open_block(symbols=["BTCUSDT"], exchange=name.rpartition("-")[2])
            stack.callback(writer.close)
        url, _ = stack.enter_context(serving_page(*names))
        with connect(live_of(url)) as socket:
            not_served = {row["name"]: row["not_served"] for row in told(socket, "blocks")["blocks"]}
    assert not_served == {
        names[0]: None,
        names[1]: "its candles are those of other, requests are answered for binance",
    }


# In the browser.


def test_the_page_shows_what_is_not_served(page: Page, block_name: str, tmp_path: Path) -> None:
    """Of such a block no banner tells, whatever its state is."""
    names = [f"{block_name}-binance", f"{block_name}-other"]
    with ExitStack() as stack:
        for name in names:
            open_block = partial(_core.Writer.open, name, market="SPOT", interval="1m", length=10)
            stack.callback(open_block(symbols=["BTCUSDT"], exchange=name.rpartition("-")[2]).close)
        url, _ = stack.enter_context(serving_page(*names))
        page.enter(url, NARROW)
        page.waits("document.querySelectorAll('#collectors tbody tr').length === 2")
        row = f"#collectors tr[data-block='{names[1]}']"
        assert page.text(f"{row} small") == "not served"
        assert page.run("return [...document.querySelectorAll('#collectors small')].map(each => each.hidden)") == [
            *(True, False)
        ]
        shown = page.run("return document.querySelector(arguments[0]).textContent", f"{row} .note")
        assert shown.startswith("not served: its candles are those of other, requests are answered for binance")
        page.waits("document.querySelector('#banner').textContent.includes(arguments[0])", names[0])
        assert names[1] not in page.text("#banner")
        page.save("not-served", tmp_path)


def test_the_page_asks_for_the_token_once(page: Page, block_name: str, tmp_path: Path) -> None:
    path, secret = tmp_path / "token", "t0ken-" + "x" * 30
    path.write_text(secret)
    path.chmod(0o600)
    with (
        writing(block_name, ["BTCUSDT"], 50),
        serving_page(block_name, more=("--token-file", str(path))) as (url, _),
    ):
        page.enter(url)
        page.waits("document.getElementById('token').open")
        page.save("token", tmp_path)
        for text, is_open in (("wrong", True), (secret, False)):
            page.click("#token-field")
            page.press(text, Keys.ENTER)
            page.waits("document.querySelector('#token [role=alert]').textContent !== '' || !token.open")
            page.waits(f"document.getElementById('token').open === {str(is_open).lower()}")
        page.waits("globalThis.candleshm?.board.rows.length > 0")
        assert page.run("return document.cookie") == ""  # No script can read it.
        # The browser keeps it.
        page.open(url)
        assert page.run("return document.getElementById('token').open") is False


def test_series_and_candles_are_those_of_the_block_and_live(
    world: str, page: Page, block_name: str, tmp_path: Path
) -> None:
    page.open(world)
    page.shows(block_name, "BTCUSDT")
    assert sorted(page.symbols()) == sorted(SYMBOLS)
    with candleshm.attach(block_name) as feed:
        rows = page.candles()["rows"]
        assert [row["time"] * 1000 for row in rows] == feed["BTCUSDT"].candles(holes="nan")[:, OPEN_TIME_MS].tolist()
        lags = [lag_seconds(page, feed, "BTCUSDT") for _ in range(3)]
        print(f"a price was on the page after {max(lags):.2f} s at most")  # noqa: T201
        newest = page.candles()["rows"][-1]
        assert newest["state"] == RowState.LIVE
    until(lambda: page.driver.title.startswith("● BTCUSDT "))
    assert page.text("#collectors .state") == "● ready"
    page.save("wide-light", tmp_path)
    page.look(dark=True)
    page.save("wide-dark", tmp_path)


def lag_seconds(page: Page, feed: Feed, symbol: str) -> float:
    """Wait for a price to change, and then for the page to show it; return how long the page took."""
    before = feed[symbol].last_close
    until(lambda: feed[symbol].last_close != before)
    changed_seconds = time.monotonic()
    now = feed[symbol].last_close
    until(lambda: page.cells(symbol)[1] == f"{now:,.2f}" or feed[symbol].last_close != now)
    return time.monotonic() - changed_seconds


def test_intervals_are_switched_by_clicks_and_keys(world: str, page: Page, block_name: str) -> None:
    page.open(world)
    page.shows(block_name, "BTCUSDT")
    assert page.text("#intervals").split() == ["1m", "5m", "15m"]
    page.click("#intervals button:nth-child(2)")
    page.shows(f"{block_name}-5m", "BTCUSDT")
    with candleshm.attach(f"{block_name}-5m") as feed:
        rows = feed["BTCUSDT"].candles(holes="nan")
    assert [row["time"] * 1000 for row in page.candles()["rows"]] == rows[:, OPEN_TIME_MS].tolist()
    page.press("3")
    page.shows(f"{block_name}-15m", "BTCUSDT")
    page.press("1")
    page.shows(block_name, "BTCUSDT")
    assert page.run("return location.hash") == "#SPOT/BTCUSDT/1m"
    page.open(f"{world}#SPOT/ETHUSDT/5m")
    page.shows(f"{block_name}-5m", "ETHUSDT")


def test_a_hole_is_drawn_as_a_hole(world: str, page: Page, block_name: str, tmp_path: Path) -> None:
    page.open(world)
    page.shows(block_name, "BTCUSDT")
    (run,) = page.candles()["absent"]
    assert (run["state"], run["count"]) == (RowState.HOLE, HOLES)
    assert page.cells("BTCUSDT")[5] == f"○ {HOLES}"
    assert page.text("#hole-count") == str(HOLES)
    assert marked_part(page, run) > 0.03
    assert marked_part(page, {"left": run["left"] - 3, "right": run["left"] - 2}) < 1
    page.save("hole", tmp_path)
    page.look(dark=True)
    until(lambda: marked_part(page, run) > 0.03)


def test_missing_rows_are_drawn_until_they_are_there(
    page: Page, exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    live = ("--interval", "1s", "--length", "120", "--ws-url", exchange.ws_url_of("SPOT"))
    with collecting(exchange, block_name, *live), serving_page(block_name) as (url, _):
        page.open(f"{url}#SPOT/ETHUSDT/1s")
        page.shows(block_name, "ETHUSDT")
        with candleshm.attach(block_name) as feed:
            # Neither streams nor requests bring candles of ETHUSDT, then streams do again.
            exchange.faults.add(Fault(kind="status", status=500, symbol="ETHUSDT", path="/klines"))
            exchange.stream_faults.add(StreamFault(kind="lose", symbol="ETHUSDT"))
            opened_ms = feed["ETHUSDT"].last_open_time_ms or 0
            until(lambda: exchange.now_ms() > opened_ms + 7000)
            exchange.stream_faults.clear()
            until(lambda: any(run["state"] == RowState.MISSING for run in page.candles()["absent"]))
            run = next(run for run in page.candles()["absent"] if run["state"] == RowState.MISSING)
            assert run["count"] >= 3
            until(lambda: page.cells("ETHUSDT")[5].startswith("△ "))
            assert marked_part(page, run) > 0.1
            page.click("#attention")
            until(lambda: page.symbols() == ["ETHUSDT"])
            page.save("missing", tmp_path)
            page.click("#attention")
            until(lambda: "rows missing: ETHUSDT" in page.text("#events"))
            exchange.faults.clear()
            until(lambda: not page.candles()["absent"])
            until(lambda: page.cells("ETHUSDT")[5] == "")
            known = {row["time"] * 1000: row["close"] for row in page.candles()["rows"]}
            rows, states = feed["ETHUSDT"].snapshot(100)
            for row, state in zip(rows, states, strict=True):
                if state == RowState.VERIFIED and row[OPEN_TIME_MS] in known:
                    assert known[row[OPEN_TIME_MS]] == row[CLOSE]


def test_a_killed_collector_turns_the_page_and_its_return_turns_it_back(
    page: Page, exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    with serving_page(block_name) as (url, _):
        with collecting(exchange, block_name, "--length", "100") as process:
            page.open(url)
            page.shows(block_name, "BTCUSDT")
            until(lambda: page.run("return candleshm.state") == "ok")
            assert not page.run("return document.querySelector('#banner').checkVisibility()")
            process.kill()
            killed_seconds = time.monotonic()
            until(lambda: page.run("return candleshm.state") in ("stale", "dead"))
            late_seconds = time.monotonic() - killed_seconds
            until(lambda: page.run("return candleshm.state") == "dead")
            print(f"shown after {late_seconds:.1f} s, as dead after {time.monotonic() - killed_seconds:.1f} s")  # noqa: T201
        assert re.search(rf"{block_name} is dead\s.*last heartbeat \d+\.\d s ago", page.text("#banner"), re.DOTALL)
        assert page.text("#collectors .state") == "✕ dead"
        assert page.cells("BTCUSDT")[4] == "✕ dead"
        until(lambda: page.driver.title.startswith(f"✕ {block_name} dead"))
        page.save("dead-light", tmp_path)
        page.look(dark=True)
        page.save("dead-dark", tmp_path)
        with collecting(exchange, block_name, "--length", "100"):
            until(lambda: page.run("return candleshm.state") == "ok")
            assert not page.run("return document.querySelector('#banner').checkVisibility()")
            before = page.candles()["rows"][-1]
            until(lambda: page.candles()["rows"][-1] != before)
            assert page.text("#collectors .state") == "● ready"


def test_a_collector_that_ends_in_order_is_told_as_well(
    page: Page, exchange: SimulatedExchange, block_name: str
) -> None:
    with serving_page(block_name) as (url, _), collecting(exchange, block_name, "--length", "100") as process:
        page.open(url)
        until(lambda: page.run("return candleshm.state") == "ok")
        process.send_signal(signal.SIGTERM)
        until(lambda: f"{block_name} is closed" in page.text("#banner"))


def test_a_gateway_that_hangs_or_is_gone_is_told_and_found_again(
    page: Page, exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    with collecting(exchange, block_name, "--length", "100"):
        with serving_page(block_name) as (url, process):
            page.open(url)
            page.shows(block_name, "BTCUSDT")
            process.send_signal(signal.SIGSTOP)
            until(lambda: "no gateway" in page.text("#banner"))
            process.send_signal(signal.SIGCONT)
            until(lambda: page.run("return candleshm.state") == "ok")
            process.kill()
            until(lambda: "no gateway" in page.text("#banner"))
            assert re.search(r"What you see is \d+\.\d s old", page.text("#banner"))
            until(lambda: page.driver.title.startswith("✕ no gateway"))
            page.save("no-gateway", tmp_path)
            process.wait()
        with serving_page(block_name, port=int(url.rstrip("/").rpartition(":")[2])):
            until(lambda: page.run("return candleshm.state") == "ok")
            before = page.candles()["rows"][-1]
            until(lambda: page.candles()["rows"][-1] != before)


def test_everything_is_reached_by_keys(world: str, page: Page, block_name: str) -> None:
    page.open(world)
    page.shows(block_name, "BTCUSDT")
    page.press("/")
    assert page.run("return document.activeElement.id") == "search"
    page.press("usd", "x")
    until(lambda: page.symbols() == [])
    assert "USDX" in page.text("#no-series").upper()
    page.press(Keys.BACKSPACE, "t")
    until(lambda: len(page.symbols()) == len(SYMBOLS))
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER)
    second = sorted(SYMBOLS)[1]
    page.shows(block_name, second)
    assert page.run("return document.querySelector('#grid [aria-selected=true]').cells[0].textContent") == second
    page.press(Keys.ESCAPE)
    assert page.run("return document.getElementById('search').value") == ""
    page.press(Keys.ESCAPE)
    assert page.run("return document.activeElement.id") == "grid"
    page.press(Keys.END, Keys.ENTER)
    page.shows(block_name, sorted(SYMBOLS)[-1])
    page.press(Keys.HOME, Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ENTER)
    page.shows(block_name, sorted(SYMBOLS)[0])
    page.press("2")
    page.shows(f"{block_name}-5m", sorted(SYMBOLS)[0])
    page.press("?")
    assert page.run("return document.getElementById('help').open")
    page.press(Keys.ESCAPE)
    assert not page.run("return document.getElementById('help').open")


def test_columns_sort_in_both_orders_and_say_so(world: str, page: Page) -> None:
    page.open(world)
    assert page.symbols() == sorted(SYMBOLS)
    page.click("#grid th[data-sort=symbol] button")
    assert page.symbols() == sorted(SYMBOLS, reverse=True)
    assert page.run("return document.querySelector('#grid th[data-sort=symbol]').ariaSort") == "descending"
    page.click("#grid th[data-sort=close] button")
    assert page.symbols()[0] == "BTCUSDT"
    assert page.run("return [...document.querySelectorAll('#grid [aria-sort]')].map(head => head.dataset.sort)") == [
        "close"
    ]


def test_a_narrow_screen_shows_one_part_at_a_time(world: str, page: Page, block_name: str, tmp_path: Path) -> None:
    page.open(world, NARROW)
    page.shows(block_name, "BTCUSDT")
    parts = """return ['.series', '.candles', '.events'].filter(
        part => document.querySelector(`main ${part}`).checkVisibility())"""
    assert page.run(parts) == [".series"]
    page.save("narrow-series-light", tmp_path)
    page.click("#grid tbody tr:nth-child(3)")
    assert page.run(parts) == [".candles"]
    page.shows(block_name, sorted(SYMBOLS)[1])
    until(lambda: page.run("return document.querySelector('#chart canvas').width > 200"))
    page.look(dark=True)
    page.save("narrow-candles-dark", tmp_path)
    page.click("#views [data-view=events]")
    assert page.run(parts) == [".events"]
    assert page.run("return document.documentElement.scrollWidth") <= NARROW[0]


def test_two_thousand_series_are_a_few_rows_of_the_document(page: Page, block_name: str, tmp_path: Path) -> None:
    with writing(block_name, MANY, 60) as writer, serving_page(block_name) as (url, _):
        page.open(url)
        assert page.run("return candleshm.board.rows.length") == len(MANY)
        assert len(page.symbols()) < 100
        assert page.run("return document.getElementById('grid').getAttribute('aria-rowcount')") == "2001"
        page.press(Keys.END)
        until(lambda: MANY[-1] in page.symbols())
        assert len(page.symbols()) < 100
        page.press("/", "1999")
        until(lambda: page.symbols() == ["SIM1999USDT"])
        page.press(Keys.ESCAPE)
        open_ms = int(time.time() * 1000) // MINUTE_MS * MINUTE_MS
        for close in (5000.0, 5001.0, 5002.0):
            for symbol in MANY:
                ingest(writer, symbol, kline(open_ms, close), sent_ms=int(time.time() * 1000))
            writer.heartbeat()
            page.waits("candleshm.board.rows.every(row => row.table.close[row.at] === arguments[0])", close)
        paint = page.run("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
        print(f"first paint {paint:.0f} ms; main thread {max(page.run('return candleshm.spentMs')):.1f} ms at most")  # noqa: T201
        for size, screen in (((1440, 900), "wide"), (NARROW, "narrow")):
            for dark in (False, True):
                page.open(url, size, dark=dark)
                page.save(f"many-{screen}-{'dark' if dark else 'light'}", tmp_path)


def marked_part(page: Page, run: dict[str, float]) -> float:
    """Return which part of the chart's pixels between two places has another colour than the most frequent one."""
    part: float = page.run(
        """
        const shown = document.querySelector('#chart td canvas');
        const ratio = shown.width / shown.clientWidth;
        const [left, right] = [arguments[0], arguments[1]].map(x => Math.round(x * ratio));
        const canvas = new OffscreenCanvas(Math.max(1, right - left), shown.height);
        const context = canvas.getContext('2d', {willReadFrequently: true});
        context.drawImage(shown, -left, 0);
        const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
        const counts = new Map();
        for (let at = 0; at < data.length; at += 4) {
          const color = `${data[at]} ${data[at + 1]} ${data[at + 2]}`;
          counts.set(color, (counts.get(color) ?? 0) + 1);
        }
        return 1 - Math.max(...counts.values()) / (data.length / 4);
        """,
        run["left"],
        run["right"],
    )
    return part
