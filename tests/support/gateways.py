"""A gateway beside a test: the real server and its routes, in a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from candleshm._core import MARKETS
from candleshm.gateway.app import make_app
from candleshm.gateway.directory import BlockDirectory
from candleshm.gateway.market_routes import market_routes
from candleshm.gateway.markets import Markets
from candleshm.gateway.server import GatewayServer, listen, url_of
from candleshm.gateway.settings import GatewaySettings, Upstream

DEADLINE_SECONDS = 60.0


@contextmanager
def gateway(names: Sequence[str], base_url: str, **settings: Any) -> Iterator[str]:
    """Run a gateway of these blocks that reaches the exchange at `base_url`, and give its URL."""
    upstreams = {market: Upstream(base_url=base_url) for market in MARKETS}
    started = threading.Event()
    with (
        listen("127.0.0.1", 0) as listener,
        BlockDirectory(names) as directory,
        Markets(directory, GatewaySettings(upstreams=upstreams, **settings)) as markets,
    ):
        server = GatewayServer(make_app(market_routes(markets), AsyncExitStack()), started.set)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert started.wait(DEADLINE_SECONDS)
            yield url_of(listener)
        finally:
            server.stop()
            thread.join()
