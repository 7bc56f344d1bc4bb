"""The weight that collectors, other processes of the user and strangers at the same address spend together."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import candleshm.weight
from candleshm._core import PoolWords
from candleshm.errors import CandleShmError, ConfigError, RateLimited, WaitTimeout
from candleshm.ratelimit.ledger import peek
from candleshm.sim import SimulatedExchange, rate_limited
from candleshm.system.clock import SystemClock
from tests.support.collecting import collecting, until
from tests.support.commanding import started

HOST: dict[str, Any] = {"base_url": "http://127.0.0.1:9"}
USED = {"X-MBX-USED-WEIGHT-1M": "700"}

# Asks for a price, out of the common budget, until it is killed.
CLIENT = """
import sys
from urllib.error import HTTPError
from urllib.request import urlopen
import candleshm.weight

while True:
    with candleshm.weight.acquire("SPOT", 1, base_url=sys.argv[1]) as ticket:
        try:
            with urlopen(sys.argv[1] + "/api/v3/time") as answer:
                ticket.end(answer.status, dict(answer.headers), answer.read())
        except HTTPError as error:
            ticket.end(error.code, dict(error.headers), error.read())
"""
# The same without asking anybody, twice a second.
RUDE = """
import sys, time
from urllib.request import urlopen

while True:
    urlopen(sys.argv[1] + "/api/v3/time").close()
    time.sleep(0.5)
"""


@pytest.fixture(autouse=True)
def _forget_budgets() -> Iterator[None]:
    yield
    for budget, _ in candleshm.weight._budgets.values():
        budget.leave(SystemClock().monotonic_seconds())
    candleshm.weight._budgets.clear()


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)


@pytest.mark.long
def test_three_collectors_a_client_and_a_stranger_never_get_a_429(block_name: str) -> None:
    with SimulatedExchange(symbols=30, spot_limit=600) as exchange, ExitStack() as stack:
        for interval in ("1m", "5m", "15m"):
            words = f"serve --market spot --symbols all --interval {interval} --length 5000 --workers 4".split()
            stack.enter_context(started(*words, "--name", f"{block_name}-{interval}", "--base-url", exchange.base_url))
        # Until somebody has read it, the limit is taken to be the real exchange's.
        until(lambda: candleshm.weight.state("SPOT", base_url=exchange.base_url).limit == 600)
        client, rude = python(CLIENT, exchange.base_url), python(RUDE, exchange.base_url)
        for process in (client, rude):
            stack.callback(process.communicate)
            stack.callback(process.kill)
        started_ms = exchange.now_ms()
        until(lambda: exchange.now_ms() > started_ms + 30_000)
        assert (client.poll(), rude.poll()) == (None, None)
        served = exchange.served()
        shown = candleshm.weight.state("SPOT", base_url=exchange.base_url)
    asked = [one for one in served if one.target.startswith("/api/")]
    # Each for itself would have spent four times as much, and far more than the limit.
    assert all(one.status == 200 for one in asked)
    assert (shown.limit, shown.budget) == (600, 450)
    spent = sum(one.weight for one in asked)
    strangers = 2 * 30 + 5
    assert spent - strangers >= 120
    assert spent - strangers <= 450
    # Once the exchange's own count, strangers included, is above the budget, single requests read the newest count.
    counts = itertools.accumulate(one.weight for one in asked)
    late = [one for one, count in zip(asked, counts, strict=True) if count > 460 and "klines" in one.target]
    assert len(late) <= 2
    intervals = {one.target.partition("interval=")[2].partition("&")[0] for one in asked if "klines" in one.target}
    assert intervals == {"1m", "5m", "15m"}
    assert sum("/time" in one.target for one in asked) > strangers


def test_a_429_of_the_users_own_call_stops_a_collector_of_another_process(block_name: str) -> None:
    with (
        SimulatedExchange(symbols=2) as exchange,
        collecting(exchange, block_name, interval="1s", workers=1) as (_, _feed),
    ):
        code = f"""
import candleshm.weight
with candleshm.weight.acquire("SPOT", 1, base_url={exchange.base_url!r}) as ticket:
    ticket.end(429, {{"Retry-After": "3"}})
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
        stopped_ms = exchange.now_ms()
        until(lambda: any(one.received_ms > stopped_ms + 2000 for one in exchange.served()))
        later = [one.received_ms - stopped_ms for one in exchange.served() if one.received_ms > stopped_ms]
        # What was on its way counts for one worker.
        assert len([delay for delay in later if delay < 2000]) <= 1


def test_a_collectors_429_stops_the_users_own_calls(block_name: str) -> None:
    with SimulatedExchange(symbols=2) as exchange, collecting(exchange, block_name, interval="1s"):
        exchange.faults.add(rate_limited(50, path="/klines", count=1))
        until(lambda: exchange.stats().count(status=429))
        until(lambda: candleshm.weight.state("SPOT", base_url=exchange.base_url).blocked_seconds > 40)
        with pytest.raises(RateLimited, match="stops the weight of SPOT") as refused:
            candleshm.weight.acquire("SPOT", 1, timeout=1.0, base_url=exchange.base_url)
        assert 40 < refused.value.retry_after <= 50
        # The other family of markets is another pool.
        candleshm.weight.acquire("UM", 1, timeout=1.0, base_url=exchange.base_url)


def test_a_plain_call_counts_from_then_and_a_ticket_for_as_long_as_it_is_out() -> None:
    def in_flight_and_used() -> tuple[int, int]:
        seen = peek(candleshm.weight.state("SPOT", **HOST).path)
        assert seen is not None
        return int(seen.look(PoolWords.IN_FLIGHT)), candleshm.weight.state("SPOT", **HOST).used

    candleshm.weight.acquire("SPOT", 3, **HOST)
    assert in_flight_and_used() == (0, 3)
    with candleshm.weight.acquire("spot", 2, **HOST) as ticket:
        assert in_flight_and_used() == (2, 5)
        ticket.end(200, USED)
        assert in_flight_and_used() == (0, 700)
        ticket.end()
    assert in_flight_and_used() == (0, 700)
    with pytest.raises(ZeroDivisionError), candleshm.weight.acquire("SPOT", 1, **HOST):
        raise ZeroDivisionError
    assert in_flight_and_used() == (0, 701)


@pytest.mark.parametrize(
    ("status", "headers", "body", "seconds"),
    [
        (429, {"Retry-After": "7"}, b"", 7),
        (429, {}, b"", 60),
        (418, {"retry-after": "900"}, b"", 900),
        (403, {}, b"<html>", 120),
        (400, {"Retry-After": "5"}, b'{"code":-1003,"msg":"Too many requests."}', 5),
        (
            418,
            {"Date": "Thu, 01 Jan 2026 00:00:00 GMT"},
            b'{"code":-1003,"msg":"Way too much request weight used; IP banned until 1767225700000."}',
            100,
        ),
        (400, {}, b'{"code":-1121,"msg":"Invalid symbol."}', 0),
        (500, {}, b"", 0),
        (200, {}, b"[]", 0),
    ],
)
def test_what_a_response_means_for_everybody(status: int, headers: dict[str, str], body: bytes, seconds: float) -> None:
    candleshm.weight.acquire("SPOT", 1, **HOST).end(status, headers, body)

    shown = candleshm.weight.state("SPOT", **HOST)
    assert shown.blocked_seconds == pytest.approx(seconds, abs=2)
    assert (shown.blocked_until_ms is None) == (seconds == 0)
    if shown.blocked_until_ms is not None:
        assert shown.blocked_until_ms / 1000 - time.time() == pytest.approx(seconds, abs=3)


def test_a_timeout_ends_a_wait_and_spends_nothing() -> None:
    with candleshm.weight.acquire("SPOT", 4500, **HOST):
        with pytest.raises(WaitTimeout, match="weight 5 of SPOT was not free within"):
            candleshm.weight.acquire("SPOT", 5, timeout=0.05, **HOST)
        with pytest.raises(WaitTimeout):
            candleshm.weight.acquire("SPOT", 5, timeout=0, **HOST)
        assert candleshm.weight.state("SPOT", **HOST).used == 4500


def test_what_cannot_be_used_is_said_before_anything_is_spent(runtime_directory: Path) -> None:
    for wrong in (0, -1, 1.5, True, "2", None):
        with pytest.raises(ConfigError, match="weight cannot be"):
            candleshm.weight.acquire("SPOT", wrong)  # type: ignore[arg-type]
    for wrong in (-1, float("nan"), float("inf"), "2"):
        with pytest.raises(ConfigError, match="timeout cannot be"):
            candleshm.weight.acquire("SPOT", 1, timeout=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="market cannot be `STOCKS`"):
        candleshm.weight.acquire("STOCKS", 1)
    with pytest.raises(ConfigError, match="base_url"):
        candleshm.weight.state("SPOT", base_url="nowhere")
    assert not list(runtime_directory.iterdir())


def test_a_look_creates_nothing(runtime_directory: Path) -> None:
    shown = candleshm.weight.state("UM")
    assert (shown.used, shown.limit, shown.budget, shown.blocked_seconds) == (0, 2400, 1800, 0.0)
    assert not list(runtime_directory.iterdir())


def test_without_a_place_for_the_ledger_the_users_own_calls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc/nowhere")
    with pytest.raises(CandleShmError, match="the weight ledger cannot be created in /proc/nowhere"):
        candleshm.weight.acquire("SPOT", 1)


def test_a_child_spends_for_itself_out_of_the_same_budget() -> None:
    ticket = candleshm.weight.acquire("SPOT", 10, **HOST)
    child = os.fork()
    if child == 0:
        candleshm.weight.acquire("SPOT", 4, **HOST)
        del ticket
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert candleshm.weight.state("SPOT", **HOST).used == 14
    ticket.end()


def test_the_name_is_there_without_an_import_and_loads_no_network() -> None:
    code = (
        "import sys, candleshm; candleshm.weight.acquire('SPOT', 1, base_url='http://127.0.0.1:9');"
        "sys.exit('requests' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
