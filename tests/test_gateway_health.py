"""Probes of a gateway: what containers and load balancers learn of it and of the blocks beside it."""

from __future__ import annotations

import signal
from typing import Any

import requests

import candleshm
from candleshm.sim import SimulatedExchange
from tests.support.commanding import DEADLINE_SECONDS, first_line, serving, started, until
from tests.support.gateways import gateway_command


def probed(url: str, path: str) -> tuple[int, Any]:
    response = requests.get(f"{url}/health/{path}", timeout=DEADLINE_SECONDS)
    return response.status_code, response.json()


def test_a_probe_is_green_while_every_block_is_ready_and_says_what_is_not(block_name: str) -> None:
    with (
        SimulatedExchange(symbols=2) as exchange,
        gateway_command([block_name, f"{block_name}-5m"], exchange.base_url) as url,
    ):
        status, body = probed(url, "ready")
        assert (status, body["ready"], body["blocks"]) == (503, False, [])
        assert body["absent"] == [block_name, f"{block_name}-5m"]
        assert probed(url, "live") == (200, {"live": True})

        with started(*serving(exchange, block_name), "--derive", "5m") as process:
            first_line(process)
            until(lambda: probed(url, "ready")[0] == 200)
            _, body = probed(url, "ready")
            conditions = {block["name"]: block["condition"] for block in body["blocks"]}
            assert (body["ready"], body["absent"]) == (True, [])
            assert conditions == {block_name: "ready", f"{block_name}-5m": "ready"}

            process.send_signal(signal.SIGSTOP)
            until(lambda: probed(url, "ready")[0] == 503)
            _, body = probed(url, "ready")
            assert {block["condition"] for block in body["blocks"]} <= {"silent", "ready"}
            assert "still owns the block" in "".join(block["note"] for block in body["blocks"])
            assert probed(url, "live")[0] == 200
            process.send_signal(signal.SIGCONT)
            until(lambda: probed(url, "ready")[0] == 200)

            process.kill()
            until(lambda: "dead" in {block["condition"] for block in probed(url, "ready")[1]["blocks"]})


def test_the_limit_of_age_is_that_of_readers(block_name: str) -> None:
    with SimulatedExchange(symbols=2) as exchange, started(*serving(exchange, block_name)) as process:
        first_line(process)
        until(lambda: candleshm.attach(block_name).health.ready)
        with gateway_command([block_name], exchange.base_url, "--max-age", "0.000001") as url:
            status, body = probed(url, "ready")
            assert (status, body["blocks"][0]["condition"]) == (503, "stale")
            assert not candleshm.attach(block_name, max_age=0.000001).health.ready
        with gateway_command([block_name], exchange.base_url, "--max-age", "60") as url:
            assert probed(url, "ready")[0] == 200


def test_refusals_of_candles_are_counted_from_zero_on(block_name: str) -> None:
    with SimulatedExchange(symbols=2) as exchange, gateway_command([block_name], exchange.base_url) as url:
        sample = 'candleshm_gateway_requests_total{path="/api/v3/klines",source="",status="503"}'
        assert f"{sample} 0.0" in requests.get(f"{url}/metrics", timeout=DEADLINE_SECONDS).text
        query = {"symbol": "BTCUSDT", "interval": "1m"}
        until(lambda: requests.get(f"{url}/api/v3/klines", query, timeout=DEADLINE_SECONDS).status_code == 503)
        assert f"{sample} 0.0" not in requests.get(f"{url}/metrics", timeout=DEADLINE_SECONDS).text
