"""Candles of two exchanges on one machine, such as the real one's and a simulated one's: they are never mixed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import requests

import candleshm
from candleshm.sim import SimulatedExchange
from tests.support.commanding import DEADLINE_SECONDS, first_line, serving, started, until
from tests.support.gateways import gateway_command

# Other blocks of this machine do not carry it, whoever has them and whatever is left of their owners.
SYMBOL = f"OWN{os.getpid()}USDT"
CLOSED = 300


@contextmanager
def listing(seed: int) -> Iterator[SimulatedExchange]:
    """Run an exchange that lists the symbol."""
    with SimulatedExchange(symbols=2, seed=seed) as exchange:
        listed = exchange.truth.instrument("SPOT", "BTCUSDT")
        exchange.truth.enlist(replace(listed, symbol=SYMBOL, base=SYMBOL.removesuffix("USDT")))
        yield exchange


@pytest.fixture(scope="module")
def one() -> Iterator[SimulatedExchange]:
    with listing(1) as exchange:
        yield exchange


@pytest.fixture(scope="module")
def other() -> Iterator[SimulatedExchange]:
    with listing(2) as exchange:
        yield exchange


def place(exchange: SimulatedExchange) -> str:
    return exchange.base_url.removeprefix("http://")


def rows(where: str, **more: object) -> list[list[object]]:
    """Return the newest candles that a gateway, or an exchange, gives, without the one that still changes."""
    query: dict[str, object] = {"symbol": SYMBOL, "interval": "1m", "limit": 50, **more}
    response = requests.get(f"{where}/api/v3/klines", params=query, timeout=DEADLINE_SECONDS)  # type: ignore[arg-type]
    response.raise_for_status()
    answered: list[list[object]] = response.json()
    return answered[:-2]


def test_a_gateway_answers_from_the_blocks_of_its_exchange_alone(
    one: SimulatedExchange, other: SimulatedExchange, block_name: str
) -> None:
    # The other one's window is longer, which makes its block the better one where nothing else decides.
    longer = [*serving(other, f"{block_name}-other", "--symbols", SYMBOL), "--length", "400"]
    with started(*serving(one, block_name, "--symbols", SYMBOL)) as first, started(*longer) as second:
        first_line(first)
        first_line(second)
        names = {block_name: place(one), f"{block_name}-other": place(other)}
        until(lambda: all(health.ready for health in candleshm.blocks() if health.name in names))
        found = {health.name: health.exchange for health in candleshm.blocks() if health.name in names}
        assert found == names
        with started("gateway", "--listen", "0", "--base-url", one.base_url) as process:
            url = first_line(process).removeprefix("gateway: ").strip()
            end_ms = int(time.time() * 1000) - 120_000
            assert rows(url, endTime=end_ms) == rows(one.base_url, endTime=end_ms)
            assert rows(url, endTime=end_ms) != rows(other.base_url, endTime=end_ms)
            first.send_signal(signal.SIGTERM)
            assert first.wait(DEADLINE_SECONDS) == 0

            def refused() -> bool:
                query = {"symbol": SYMBOL, "interval": "1m", "limit": "5"}
                return requests.get(f"{url}/api/v3/klines", query, timeout=DEADLINE_SECONDS).status_code == 503

            until(refused)
            query = {"symbol": SYMBOL, "interval": "1m", "limit": "5"}
            told = requests.get(f"{url}/api/v3/klines", query, timeout=DEADLINE_SECONDS).json()["msg"]
            assert f"block {block_name}-other carries {SYMBOL}, but its candles are those of 127.0.0.1:" in told
            assert "--base-url" in told
        # Who names a block means it.
        with gateway_command([f"{block_name}-other"], one.base_url) as url:
            assert rows(url, endTime=end_ms) == rows(other.base_url, endTime=end_ms)


def test_named_blocks_of_two_exchanges_are_not_mixed(
    one: SimulatedExchange, other: SimulatedExchange, block_name: str
) -> None:
    names = [f"{block_name}-1m", f"{block_name}-1s"]
    minutes = serving(one, names[0], "--symbols", SYMBOL)
    seconds = serving(other, names[1], "--symbols", SYMBOL, "--interval", "1s")
    with started(*minutes) as first, started(*seconds) as second:
        first_line(first)
        first_line(second)
        until(lambda: sum(health.ready for health in candleshm.blocks() if health.name in names) == 2)
        for exchange, interval in ((one, "1m"), (other, "1s")):
            with gateway_command(names, exchange.base_url) as url:
                found = {}
                for asked in ("1m", "1s"):
                    query = {"symbol": SYMBOL, "interval": asked, "limit": "5"}
                    found[asked] = requests.get(f"{url}/api/v3/klines", query, timeout=DEADLINE_SECONDS).status_code
            # Minutes can be made of the seconds of the same exchange; of the other one's nothing is.
            assert found[interval] == 200
            assert found["1s"] == (503 if exchange is one else 200)


def test_a_collector_does_not_go_on_with_the_rows_of_another_exchange(
    one: SimulatedExchange, other: SimulatedExchange, block_name: str
) -> None:
    with started(*serving(one, block_name, "--symbols", SYMBOL)) as killed:
        first_line(killed)
        until(lambda: candleshm.attach(block_name).health.ready)
        killed.kill()
        killed.wait(DEADLINE_SECONDS)
    with started(*serving(other, block_name, "--symbols", SYMBOL)) as process:
        first_line(process)
        with candleshm.attach(block_name) as feed:
            until(lambda: feed.health.ready)
            assert feed.exchange == place(other)
            closed = feed[SYMBOL].candles(closed_only=True)
    exchange_rows = {int(str(row[0])): float(str(row[4])) for row in rows(other.base_url, limit=1000)}
    assert len(closed) >= CLOSED - 5
    assert all(exchange_rows[int(row[candleshm.OPEN_TIME_MS])] == row[candleshm.CLOSE] for row in closed[:-2])
