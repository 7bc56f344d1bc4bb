"""A gateway's life beside collectors that come, die, hang and are replaced, and its own end: no answer is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

import candleshm
from candleshm.commands.settings import configuration
from candleshm.config import CollectorConfig
from candleshm.sim import Fault, SimulatedExchange
from tests.support.collecting import config_of
from tests.support.commanding import DEADLINE_SECONDS, first_lines, lines_until, run, serving, started, until
from tests.support.gateway_process import Served, gateway, parts_of, rest_of

SHM = Path("/dev/shm")
# Rows that ended so long ago are final whatever the collector does.
SETTLED_MS = 10_000


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=5, symbols=4, spot_limit=10**6) as exchange:
        yield exchange


class Clients:
    """Clients that poll all the time, and judge every answer by the exchange's truth."""

    def __init__(self, exchange: SimulatedExchange, served: Served, interval: str) -> None:
        self._truth = exchange.truth
        self._served = served
        self._interval = interval
        self._ends = threading.Event()
        self._gate = threading.Lock()
        self._threads = [threading.Thread(target=self._poll, args=(symbol,)) for symbol in ("BTCUSDT", "ETHUSDT") * 2]
        self.outcomes: Counter[object] = Counter()
        self.wrong: list[Any] = []

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def see(self, outcome: object, count: int = 8) -> None:
        """Wait until so many more requests ended in that way."""
        before = self.outcomes[outcome]
        until(lambda: self.outcomes[outcome] >= before + count)

    def _poll(self, symbol: str) -> None:
        session = requests.Session()
        url = f"{self._served.url}/api/v3/klines?symbol={symbol}&interval={self._interval}&limit=30"
        while not self._ends.is_set():
            outcome: object
            try:
                response = session.get(url, timeout=DEADLINE_SECONDS)
            except requests.RequestException:
                outcome = "no response"
                time.sleep(0.02)
            else:
                outcome = response.status_code
                self._judge(symbol, response)
            with self._gate:
                self.outcomes[outcome] += 1
            time.sleep(0.005)

    def _judge(self, symbol: str, response: requests.Response) -> None:
        if response.status_code == 200:
            rows = response.json()
            step_ms = rows[0][6] + 1 - rows[0][0]
            opens = [row[0] for row in rows]
            if len(rows) != 30 or opens != list(range(opens[0], opens[0] + 30 * step_ms, step_ms)):
                self.wrong.append(("not 30 rows in order", opens))
            until_ms = rows[-1][0] - SETTLED_MS
            for row in rows:
                if row[6] < until_ms and row != self._truth.kline("SPOT", symbol, self._interval, row[0]):
                    self.wrong.append((symbol, row))
        elif response.status_code != 503 or response.json()["code"] not in (-1001, -1003):
            self.wrong.append((response.status_code, response.text))


@contextmanager
def polled(
    exchange: SimulatedExchange, name: str, interval: str = "1s", *more: str
) -> Iterator[tuple[Served, Clients]]:
    """Run a gateway and clients that poll it."""
    with (
        gateway("--block", name, "--base-url", exchange.base_url, "--max-age", "3", *more) as served,
        Clients(exchange, served, interval) as clients,
    ):
        yield served, clients


def collector(exchange: SimulatedExchange, name: str, *more: str) -> Any:
    """Run a collector of 1s candles as a process."""
    words = ("--interval", "1s", "--live", "rest", "--update-interval-seconds", "0.3", *more)
    return started(*serving(exchange, name, *words))


# Collectors.


def test_clients_get_no_wrong_answer_whatever_happens_to_collectors(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with polled(exchange, block_name) as (served, clients):
        # No block yet.
        clients.see(503)
        with collector(exchange, block_name) as process:
            clients.see(200)
            # Stopped: its rows grow old, and it goes on later.
            process.send_signal(signal.SIGSTOP)
            clients.see(503)
            process.send_signal(signal.SIGCONT)
            clients.see(200)
            # Killed, and its block taken over.
            process.kill()
            clients.see(503)
        with collector(exchange, block_name) as process:
            clients.see(200)
            process.kill()
        # Killed, and its block replaced by another one.
        with collector(exchange, block_name, "--length", "500") as process:
            until(lambda: candleshm.attach(block_name).length == 500)
            clients.see(200)
            # The exchange fails for a while.
            exchange.faults.add(Fault(kind="status", status=500, path="/api/v3/klines"))
            clients.see(503)
            exchange.faults.clear()
            clients.see(200)
            # Ended in order, and started again.
            process.terminate()
            process.communicate(timeout=DEADLINE_SECONDS)
        clients.see(503)
        with collector(exchange, block_name):
            clients.see(200, 50)
        assert served.process.poll() is None
    assert clients.wrong == []
    assert set(clients.outcomes) == {200, 503}


def test_a_symbol_that_is_listed_while_clients_are_connected_is_answered(
    exchange: SimulatedExchange, block_name: str
) -> None:
    feed_settings = {"interval": "1s", "symbols": "all", "universe_refresh_seconds": 1.0}
    with (
        candleshm.Collector(config_of(exchange, block_name, **feed_settings)) as collecting,
        polled(exchange, block_name) as (served, clients),
    ):
        assert collecting.wait_loaded(DEADLINE_SECONDS)
        clients.see(200)
        target = "/api/v3/klines?symbol=FRESHUSDT&interval=1s&limit=5"
        assert served.get(target).json()["code"] == -1121
        model = exchange.truth.instrument("SPOT", "NEWUSDT")
        listed_ms = exchange.now_ms() // 60_000 * 60_000 - 120_000
        exchange.truth.enlist(replace(model, symbol="FRESHUSDT", base="FRESH", listed_ms=listed_ms))
        until(lambda: served.get(target).status_code == 200)
        for row in served.get(target).json()[:2]:
            assert row == exchange.truth.kline("SPOT", "FRESHUSDT", "1s", row[0])
    assert clients.wrong == []


# Its own end.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_ends_in_order_under_load(exchange: SimulatedExchange, block_name: str, number: signal.Signals) -> None:
    with collector(exchange, block_name), polled(exchange, block_name) as (served, clients):
        clients.see(200, 50)
        idle = [served.connected() for _ in range(50)]
        served.process.send_signal(number)
        logged = served.ends()
        clients.see("no response", 4)
        for client in idle:
            client.close()
    assert clients.wrong == []
    assert "ERROR" not in logged


def test_a_request_that_hangs_at_the_exchange_does_not_hold_up_its_end(
    exchange: SimulatedExchange, block_name: str
) -> None:
    exchange.faults.add(Fault(kind="hang", path="/api/v3/klines"))
    with gateway("--block", block_name, "--base-url", exchange.base_url, "--pass-through") as served:
        asked = len(exchange.served())
        with served.connected() as client:
            client.sendall(b"GET /api/v3/klines?symbol=BTCUSDT&interval=1m HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            until(lambda: len(exchange.served()) > asked)
            served.process.terminate()
            status, _, body = parts_of(rest_of(client))
            served.ends()
    assert (status, json.loads(body)["code"]) == (503, -1001)


def test_it_ends_with_the_program_that_started_it(block_name: str) -> None:
    with gateway("--block", block_name, "--until-stdin-closes", stdin=subprocess.PIPE) as served:
        assert served.process.stdin is not None
        served.process.stdin.close()
        served.process.stdin = None
        served.ends()


def test_its_death_disturbs_no_collector(exchange: SimulatedExchange, block_name: str) -> None:
    with candleshm.Collector(config_of(exchange, block_name, interval="1s")) as collecting:
        assert collecting.wait_loaded(DEADLINE_SECONDS)
        with candleshm.attach(block_name) as feed:
            for _ in range(2):
                with polled(exchange, block_name) as (served, clients):
                    clients.see(200)
                    served.process.kill()
                    clients.see("no response")
                newest_ms = feed["BTCUSDT"].last_open_time_ms
                assert newest_ms is not None
                feed.wait_closed(newest_ms + 1000, timeout=DEADLINE_SECONDS)
                assert feed.health.ready
            assert clients.wrong == []


# Beside collectors: `serve --gateway`.


def url_of(lines: list[str]) -> str:
    """Return the URL of the gateway among lines on stdout."""
    (url,) = (line.removeprefix("gateway: ").strip() for line in lines if line.startswith("gateway: "))
    return url


def has_candles(url: str, interval: str = "1m") -> bool:
    """Return whether a gateway answers requests for candles."""
    klines = f"{url}/api/v3/klines?symbol=BTCUSDT&interval={interval}&limit=3"
    return requests.get(klines, timeout=DEADLINE_SECONDS).status_code == 200


def gateway_pid(process: subprocess.Popen[str]) -> int:
    """Return the process of the gateway of a collector."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    threads = [task for task in Path(f"/proc/{process.pid}/task").iterdir() if task.name != str(process.pid)]
    children += [child for task in threads for child in (task / "children").read_text().split()]
    (pid,) = children
    return int(pid)


def is_alive(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_serve_starts_a_gateway_and_stops_it(exchange: SimulatedExchange, block_name: str) -> None:
    with started(*serving(exchange, block_name, "--gateway", "0")) as process:
        url = url_of(first_lines(process, 2))
        until(partial(has_candles, url))
        pid = gateway_pid(process)
        assert requests.get(f"{url}/api/v3/time", timeout=30).status_code == 200
        process.terminate()
        _, logged = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0
    assert not is_alive(pid)
    assert "Traceback" not in logged
    assert "is started again" not in logged


def test_a_gateway_that_dies_is_started_again_beside_its_collector(
    exchange: SimulatedExchange, block_name: str
) -> None:
    with started(*serving(exchange, block_name, "--gateway", "0", "--interval", "1s")) as process:
        first_lines(process, 2)
        with candleshm.attach(block_name) as feed:
            feed.wait_ready(DEADLINE_SECONDS)
            for pause in ("0.5", "1"):
                os.kill(gateway_pid(process), signal.SIGKILL)
                lines_until(process, f"the gateway has ended (killed by SIGKILL); it is started again in {pause} s")
                url = url_of(first_lines(process, 1))
                until(partial(has_candles, url, "1s"))
            assert feed.health.ready
            assert feed.health.pid == process.pid


def test_the_gateway_of_a_collector_that_is_killed_ends(exchange: SimulatedExchange, block_name: str) -> None:
    with started(*serving(exchange, block_name, "--gateway", "0")) as process:
        first_lines(process, 2)
        pid = gateway_pid(process)
        process.kill()
        until(lambda: not is_alive(pid))


def test_a_port_in_use_ends_serve_with_one_line(exchange: SimulatedExchange, block_name: str) -> None:
    with gateway("--block", block_name) as served:
        port = served.address[1]
        result = run(*serving(exchange, block_name, "--gateway", str(port)))
    assert result.returncode == os.EX_TEMPFAIL
    assert result.stderr == f"candleshm: 127.0.0.1:{port}: Address already in use\n"
    assert not (SHM / block_name).exists()


def test_no_password_of_a_feed_is_in_the_command_line_of_its_gateway(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path
) -> None:
    path = tmp_path / "feed.toml"
    secret = "s3cr3t-of-a-proxy"
    host = exchange.base_url.removeprefix("http://")
    path.write_text(
        f'gateway = 0\nmarket = "spot"\nsymbols = ["BTCUSDT"]\nlength = 50\nname = "{block_name}"\n'
        f'base_url = "http://user:{secret}@{host}"\n'
    )
    with started("serve", "--config", str(path)) as process:
        url = url_of(first_lines(process, 2))
        until(partial(has_candles, url))
        assert secret.encode() not in Path(f"/proc/{gateway_pid(process)}/cmdline").read_bytes()
        assert secret not in requests.get(f"{url}/blocks", timeout=30).text
        process.terminate()
        shown, logged = process.communicate(timeout=DEADLINE_SECONDS)
    assert secret not in shown + logged
    assert re.search(r"stopped, block removed", logged)


def test_the_address_may_stand_at_the_top_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "feeds.toml"
    for written, address in (("8700", ("127.0.0.1", 8700)), ('"0.0.0.0:8701"', ("0.0.0.0", 8701))):
        path.write_text(f'gateway = {written}\nmetrics = 9100\n[[feed]]\nmarket = "spot"\n')
        given = configuration({}, path)
        assert given.feeds == [CollectorConfig(market="SPOT")]
        assert given.process == {"gateway": address, "metrics": ("127.0.0.1", 9100)}
