"""A gateway's kline streams beside a test, and clients that write down what they get."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from candleshm.exchanges.base import Market
from candleshm.gateway.access import Access
from candleshm.gateway.app import make_app
from candleshm.gateway.connections import Connections, raise_descriptor_limit
from candleshm.gateway.counts import Counts
from candleshm.gateway.directory import BlockDirectory
from candleshm.gateway.listening import listen
from candleshm.gateway.precision import SPOT_DECIMALS, Decimals
from candleshm.gateway.server import GatewayServer
from candleshm.gateway.streams.hub import Hub
from candleshm.gateway.streams.routes import CLIENTS_MAX, stream_routes
from candleshm.sim import SimulatedExchange
from tests.support.commanding import until

DEADLINE_SECONDS = 120.0


@dataclass
class StreamGateway:
    """A gateway that runs."""

    url: str
    hub: Hub
    directory: BlockDirectory
    server: GatewayServer

    def until_known(self, *names: str) -> None:
        """Wait until the gateway has found blocks; it looks once a second."""
        until(lambda: self.directory.feeds.keys() >= set(names))


@contextmanager
def streaming(
    names: Sequence[str],
    *,
    decimals: Callable[[Market, str], Decimals | None] = lambda market, symbol: SPOT_DECIMALS,
    max_age_seconds: float = 15.0,
    clients_max: int = CLIENTS_MAX,
) -> Iterator[StreamGateway]:
    """Serve the streams of these blocks, and nothing else, in a thread."""
    is_started = threading.Event()
    with listen("127.0.0.1", 0) as listener, BlockDirectory(names) as directory:
        hub = Hub(directory, decimals, max_age_seconds)
        lifetime = AsyncExitStack()
        lifetime.callback(hub.close)
        connections = Connections(raise_descriptor_limit())
        app = make_app(stream_routes(hub, clients_max), lifetime, Access(), Counts(), connections)
        server = GatewayServer(app, connections, is_started.set)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert is_started.wait(DEADLINE_SECONDS)
            yield StreamGateway(f"ws://127.0.0.1:{listener.getsockname()[1]}", hub, directory, server)
        finally:
            server.stop()
            thread.join()


@dataclass
class Client:
    """A client that reads in a thread of its own, until it is closed."""

    url: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    code: int | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(self.url, open_timeout=DEADLINE_SECONDS))
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            while True:
                self.messages.append(json.loads(self._socket.recv()))
        except ConnectionClosed as closed:
            if closed.rcvd is not None:
                self.code, self.reason = closed.rcvd.code, closed.rcvd.reason

    def send(self, message: str | bytes) -> None:
        """Send a message as it is."""
        self._socket.send(message)

    def ask(self, method: str, *params: object, id: object = 1) -> dict[str, Any]:
        """Send a control message and return its reply."""
        self.send(json.dumps({"method": method, "params": params, "id": id}))
        return self.reply(id)

    def reply(self, id: object) -> dict[str, Any]:
        """Wait for the reply to a message of this id and return it, once."""
        self.until(lambda: self._replies(id))
        found = self._replies(id)[0]
        self.messages.remove(found)
        return found

    def _replies(self, id: object) -> list[dict[str, Any]]:
        return [message for message in self.messages if "id" in message and message["id"] == id]

    def until(self, question: Callable[[], object]) -> None:
        """Wait until the answer is true; fail when the connection ends before."""
        until(lambda: question() or not self._thread.is_alive())
        assert question(), (self.code, self.reason)

    def until_candles(self, symbol: str) -> None:
        """Wait for an event of a symbol."""
        self.until(lambda: self.candles(symbol))

    def until_closes(self, symbol: str, count: int) -> None:
        """Wait until so many more candles of a symbol are final."""
        target = len(self.closes(symbol)) + count
        self.until(lambda: len(self.closes(symbol)) >= target)

    def until_closed(self) -> tuple[int | None, str]:
        """Wait for the end, and return the code and the reason that the gateway gave."""
        until(lambda: not self._thread.is_alive())
        return self.code, self.reason

    def candles(self, symbol: str, interval: str | None = None) -> list[dict[str, Any]]:
        """Return the candles of a symbol's events, oldest first."""
        events = [message.get("data", message) for message in self.messages]
        return [
            event["k"]
            for event in events
            if event.get("s") == symbol and (interval is None or event["k"]["i"] == interval)
        ]

    def closes(self, symbol: str, interval: str | None = None) -> list[dict[str, Any]]:
        """Return the final ones."""
        return [candle for candle in self.candles(symbol, interval) if candle["x"]]

    def close(self) -> None:
        """Close the connection."""
        self._open.close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def row_of(candle: dict[str, Any]) -> list[Any]:
    """Return an event's candle as the row of a klines response."""
    return [*(candle[key] for key in "tohlcvTqnVQ"), "0"]


def assert_closes_are_true(exchange: SimulatedExchange, market: Market, candles: list[dict[str, Any]]) -> None:
    """Each candle is final once, none between the first and the last is left out, and all are the exchange's own."""
    assert candles
    symbol, interval = candles[0]["s"], candles[0]["i"]
    first_ms, last_ms = candles[0]["t"], candles[-1]["t"]
    true = exchange.truth.klines(market, symbol, interval, first_ms, last_ms + 1)
    assert [row_of(candle) for candle in candles] == true
