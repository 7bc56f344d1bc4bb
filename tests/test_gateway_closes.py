"""What a client gets that requests candles right after one of them has ended, as nearly all bots do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import requests

from candleshm.collector.collector import Collector
from candleshm.config import CollectorConfig
from candleshm.sim import SimulatedExchange, StreamRules
from tests.support.commanding import first_line, started

SECOND, MINUTE = 1_000, 60_000


def test_a_candle_that_has_ended_is_final_or_not_there(tmp_path: Path) -> None:
    """The stream closes it up to two seconds after its end; until then a block has what was pushed before its end."""
    skew_ms = -15 * SECOND - time.time_ns() // 1_000_000 % MINUTE
    rules = StreamRules(close_late_ms=2000)
    with SimulatedExchange(seed=5, symbols=12, skew_ms=skew_ms, stream_rules=rules) as exchange:
        symbols = [item.symbol for item in exchange.truth.instruments("SPOT") if item.quote == "USDT"][:10]
        config = CollectorConfig(
            market="SPOT",
            symbols=symbols,
            interval="1m",
            length=100,
            name=f"candleshm-closes-{os.getpid()}",
            base_url=exchange.base_url,
            ws_url=exchange.ws_url_of("SPOT"),
        )
        words = f"gateway --listen 127.0.0.1:0 --block {config.block_name} --base-url {exchange.base_url}"
        with Collector(config) as collector, started(*words.split(), "--cache-dir", str(tmp_path)) as process:
            assert collector.wait_loaded(60)
            url = f"{first_line(process).split()[-1]}/api/v3/klines"
            end_ms = (exchange.now_ms() // MINUTE + 1) * MINUTE
            seen = 0
            with requests.Session() as session:
                while (now_ms := exchange.now_ms()) < end_ms + 4 * SECOND:
                    if now_ms < end_ms + exchange.truth.late_ms:
                        time.sleep(0.05)
                        continue
                    for symbol in symbols:
                        query = {"symbol": symbol, "interval": "1m", "limit": "3"}
                        response = session.get(url, params=query, timeout=30)
                        if response.status_code == 503:
                            continue
                        assert response.status_code == 200, response.text
                        ended = [row for row in response.json() if row[0] < end_ms]
                        assert ended == [exchange.truth.kline("SPOT", symbol, "1m", row[0]) for row in ended]
                        seen += sum(row[0] == end_ms - MINUTE for row in ended)
            assert seen >= len(symbols)
