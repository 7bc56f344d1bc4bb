"""A gateway beside a test, in a thread of its process or as the command, and where it reaches the exchange."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from candleshm._core import MARKETS
from candleshm.gateway.access import Access
from candleshm.gateway.gateway import Gateway
from candleshm.gateway.settings import GatewaySettings, Upstream
from tests.support.commanding import first_line, started

DEADLINE_SECONDS = 120.0


@contextmanager
def gateway(names: Sequence[str], base_url: str, **settings: Any) -> Iterator[str]:
    """Run a gateway of these blocks that reaches the exchange at `base_url`, and give its URL."""
    upstreams = {market: Upstream(base_url=base_url) for market in MARKETS}
    told = GatewaySettings(blocks=tuple(names), upstreams=upstreams, **settings)
    is_started = threading.Event()
    with Gateway("127.0.0.1", 0, Access(), told, lambda: "[]") as served:
        thread = threading.Thread(target=served.run, args=(is_started.set,))
        thread.start()
        try:
            assert is_started.wait(DEADLINE_SECONDS)
            yield served.url
        finally:
            served.stop()
            thread.join()


@contextmanager
def gateway_command(names: Sequence[str], base_url: str, *more: str) -> Iterator[str]:
    """Run the command `gateway` with these blocks, and give the URL that it names."""
    blocks = [word for name in names for word in ("--block", name)]
    words = ["gateway", "--listen", "127.0.0.1:0", "--base-url", base_url, *blocks, *more]
    with started(*words, stderr=None) as process:
        yield first_line(process).split()[-1]
