"""One connection of a stream thread, without a collector: whether it opens, and why not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from candleshm._core import StreamThread, Writer
from candleshm.exchanges.binance import Binance
from candleshm.network.addresses import Addresses
from candleshm.network.egress import Egress
from candleshm.stream.dialer import Dialer
from candleshm.stream.paths import Paths
from candleshm.system.clock import DRIFT, SystemClock
from tests.support.collecting import DEADLINE_SECONDS

__all__ = ["Outcome", "dialled", "stream_thread"]


class Outcome:
    """What became of an attempt to open a connection."""

    opened = False
    reason = ""
    status: int | None = None
    misbehaved = False


@contextmanager
def stream_thread(block_name: str, *, roots_file: Path | None = None) -> Iterator[StreamThread]:
    """Give the stream thread of a block with one symbol."""
    with closing(
        Writer.open(block_name, market="SPOT", interval="1m", length=5, symbols=["BTCUSDT"], spare_symbols=0)
    ) as writer:
        now_ms = time.time() * 1000
        writer.set_exchange_clock(SystemClock().monotonic_seconds(), now_ms, now_ms, DRIFT)
        thread = StreamThread(writer, roots_file=None if roots_file is None else str(roots_file))
        try:
            yield thread
        finally:
            assert thread.stop(DEADLINE_SECONDS)


def dialled(
    ws_url: str,
    block_name: str,
    *,
    roots_file: Path | None = None,
    proxies: Mapping[str, str] | None = None,
    trust_env: bool = False,
) -> Outcome:
    """Try to open a connection to a host, until it is open or has failed."""
    outcome = Outcome()
    rules = Binance("SPOT", ws_url=ws_url).stream_rules("1m")
    egress = Egress(Addresses(), proxies=proxies, trust_env=trust_env)
    with stream_thread(block_name, roots_file=roots_file) as thread:
        dialer = Dialer(
            rules, time.monotonic, egress=egress, paths=Paths("SPOT", rules.urls), random=None, connects=None
        )
        dialing = dialer.dial(["btcusdt@kline_1m"], thread)
        deadline_seconds = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline_seconds:
            news = thread.wait(1.0)
            if dialing.failure is not None:
                outcome.reason = dialing.blamed(dialing.fault, None)
                return outcome
            if news.opened:
                outcome.opened = True
                return outcome
            for _, reason, status, misbehaved in news.ended:
                outcome.reason, outcome.status = dialing.blamed(reason, status), status
                outcome.misbehaved = misbehaved
                return outcome
    raise AssertionError("neither open nor failed")
