"""A gateway as a whole: its parts put together, listening, running until it is stopped."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from candleshm._core import MARKETS
from candleshm.gateway.access import Access
from candleshm.gateway.app import make_app
from candleshm.gateway.block_pages import block_routes
from candleshm.gateway.connections import Connections, raise_descriptor_limit
from candleshm.gateway.counts import Counts
from candleshm.gateway.directory import BlockDirectory
from candleshm.gateway.health_pages import health_routes
from candleshm.gateway.listening import listen, url_of
from candleshm.gateway.market_routes import market_routes
from candleshm.gateway.markets import Markets
from candleshm.gateway.metrics_page import metrics_routes
from candleshm.gateway.page.routes import page_routes
from candleshm.gateway.page.watch import Watch
from candleshm.gateway.server import GatewayServer
from candleshm.gateway.settings import GatewaySettings
from candleshm.gateway.streams.hub import Hub
from candleshm.gateway.streams.routes import stream_routes
from candleshm.ratelimit.pools import exchange_of

__all__ = ["Gateway"]

logger = logging.getLogger(__name__)


class Gateway:
    """Listens from the start, and serves in `run`; a context manager."""

    def __init__(
        self, host: str, port: int, access: Access, settings: GatewaySettings, listing: Callable[[], str]
    ) -> None:
        """Listen. `listing` returns all blocks as JSON. Raises ConfigError, OSError."""
        self._listener = listen(host, port)
        bound_host = self._listener.getsockname()[0]
        access = replace(access, is_loopback=ipaddress.ip_address(bound_host.partition("%")[0]).is_loopback)
        if not access.is_loopback:
            _tell_reach(bound_host, has_token=access.token is not None)
        self._connections = Connections(raise_descriptor_limit())
        self._settings = settings
        self._access = access
        self._listing = listing
        self._server: GatewayServer | None = None
        self._is_stopped = False

    @property
    def url(self) -> str:
        """URL by which clients of this machine reach it, with the port that was chosen for 0."""
        return url_of(self._listener)

    def run(self, started: Callable[[], object]) -> None:
        """Serve until `stop`; call `started` as soon as requests are answered."""
        settings, lifetime, counts = self._settings, AsyncExitStack(), Counts()
        exchanges = {market: exchange_of(settings.upstream(market)) for market in MARKETS}
        directory = lifetime.enter_context(BlockDirectory(settings.blocks or None, exchanges))
        markets = lifetime.enter_context(Markets(directory, settings))
        hub = Hub(directory, markets.decimals, settings.max_age_seconds)
        lifetime.callback(hub.close)
        watch = lifetime.enter_context(Watch(settings.blocks or None, directory.why_left_out))
        routes = [
            *market_routes(markets),
            *block_routes(settings.blocks, self._listing),
            *metrics_routes(counts),
            *health_routes(directory, settings.blocks, settings.max_age_seconds),
            *page_routes(watch, self._access.token),
            # Every other websocket is one for streams.
            *stream_routes(hub),
        ]
        app = make_app(routes, lifetime, self._access, counts, self._connections)
        self._server = server = GatewayServer(app, self._connections, started)
        counts.connections = server.connection_count
        counts.in_flight = lambda: self._connections.in_flight
        counts.closed = lambda: self._connections.closed
        counts.websockets = lambda: hub.counts.clients
        counts.streams = lambda: hub.streams
        counts.dropped = lambda: hub.counts.closed
        if self._is_stopped:
            server.stop()
        server.run([self._listener])

    def stop(self) -> None:
        """End `run` in order, within two seconds. May be called from any thread, also before it."""
        self._is_stopped = True
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()


def _tell_reach(host: str, *, has_token: bool) -> None:
    where = "every address of this machine" if ipaddress.ip_address(host).is_unspecified else host
    if has_token:
        logger.info("listening on %s: other machines that reach it are admitted by the token, which HTTP shows", where)
    else:
        logger.warning(
            "listening on %s without --token-file: everybody who reaches it can read candles and names of blocks, and "
            "with --pass-through spend the request weight of this machine",
            where,
        )
