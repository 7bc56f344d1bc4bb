"""The gateway on one core: requests beside a constant body, rows of one response, websocket clients; ccxt beside it.

    python benches/gateway.py                 every part, about four minutes
    python benches/gateway.py --only streams  one part
    python benches/gateway.py --json FILE

Gateway, writer of the block, simulated exchange and clients are processes of their own. The gateway has the last core
to itself, as far as the machine lets it; the others share the rest. ccxt is a peer from PyPI, left out where it is
absent.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from candleshm.errors import ConfigError

SYMBOLS, LENGTH, CLIENTS = 500, 1100, 200
EVENTS_PER_SECOND = 4
# Beside requests: as much as it takes for no series to be stale.
IDLE_PER_SECOND = 1
CONNECTIONS, ROUNDS, ROUND_SECONDS = 8, 7, 1.0
SEQUENTIAL, CCXT_CALLS = 1500, 200
WARM_SECONDS, STREAM_SECONDS = 4.0, 15.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))

_EXCHANGE = """
import json, sys
from candleshm.sim import SimulatedExchange
with SimulatedExchange(symbols=int(sys.argv[1]), spot_limit=10**9) as exchange:
    print(exchange.base_url, flush=True)
    sys.stdin.read()
"""
# Every update has its own time in the number of trades, in ms, of which clients know how late they get it.
_WRITER = """
import json, sys, threading, time
from candleshm import _core
from candleshm.system.clock import SystemClock
name, symbols, length = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
MINUTE = 60_000
writer = _core.Writer.open(name, market="SPOT", interval="1m", length=length, symbols=symbols)
def now(): return time.time_ns() // 1_000_000
def kline(open_ms, place, step, trades):
    price, volume = 100 + place + step % 1000 / 100, 1000 + place + step % 7919 / 1e5
    text = [f"{value:.8f}" for value in (price, price + 1, price - 1, price + 0.5, volume)]
    quote, buys, bought = (f"{value:.8f}" for value in (price * 1234.5, volume / 2, price * 617.25))
    return [open_ms, *text, open_ms + MINUTE - 1, quote, trades, buys, bought, "0"]
def ingest(symbol, rows, moment_ms):
    writer.ingest(symbol, json.dumps(rows).encode(), sent_ms=moment_ms, received_ms=moment_ms, settle_ms=0,
                  limit=len(rows), from_end=True)
begin = now()
live_ms = [begin // MINUTE * MINUTE] * len(symbols)
last = []
for place, symbol in enumerate(symbols):
    rows = [kline(live_ms[0] - MINUTE * (length + 2 - k), place, 13 * k, k) for k in range(length + 3)]
    last.append(rows[-1])
    ingest(symbol, rows, begin)
writer.set_exchange_clock(SystemClock().monotonic_seconds(), now(), now(), 0.0)
writer.set_health(ready=True, weight_used=0, weight_limit=1, banned_until_ms=None)
writer.heartbeat()
rate, told, ended = [float(sys.argv[4])], [0], [False]
def work():
    step, beat, slices = 0, 0.0, 20
    due = time.perf_counter()
    while not ended[0]:
        if time.perf_counter() > beat + 0.5:
            writer.heartbeat()
            beat = time.perf_counter()
        step += 1
        for place in range(step % slices, len(symbols), slices):
            moment = now()
            opens = moment // MINUTE * MINUTE
            row = kline(opens, place, step, moment % 10**9)
            is_new = opens != live_ms[place]
            ingest(symbols[place], [last[place], row] if is_new else [row], moment)
            last[place], live_ms[place] = row, opens
            told[0] += 1 + is_new
        due += 1 / (rate[0] * slices)
        time.sleep(max(0.0, due - time.perf_counter()))
thread = threading.Thread(target=work)
thread.start()
print("ready", flush=True)
for line in sys.stdin:
    rate[0] = float(line)
    time.sleep(0.1)
    print(told[0], flush=True)
ended[0] = True
thread.join()
writer.close()
"""
# The gateway as its command starts it, with two more paths: the first answer to a query for ever, seconds per answer.
_GATEWAY = """
import json, os, statistics, sys, time
core, name, base_url, cache = int(sys.argv[1]), *sys.argv[2:]
os.sched_setaffinity(0, {core})
from starlette.routing import Route
from candleshm.gateway import gateway as whole, market_routes as pages
from candleshm.gateway.access import Access
from candleshm.gateway.settings import GatewaySettings, Upstream
made, routes_of, seconds = whole.make_app, whole.market_routes, []
def market_routes(markets):
    klines, bodies = pages.MarketPages("SPOT", markets).answers["klines"], {}
    async def constant(scope):
        query = scope["query_string"]
        if query not in bodies:
            bodies[query] = await klines(scope)
        return bodies[query]
    async def told(scope):
        found, seconds[:] = sorted(seconds), []
        return pages.Reply(json.dumps([statistics.median(found), found[len(found) * 99 // 100]]).encode())
    own = [Route(f"/api/v3/{name}", pages.Page("SPOT", markets, answer))
           for name, answer in (("constants", constant), ("seconds", told))]
    return own + routes_of(markets)
def make_app(*arguments):
    app = made(*arguments)
    async def timed(scope, receive, send):
        if scope["type"] != "http" or scope["path"] != "/api/v3/klines":
            await app(scope, receive, send)
            return
        before = time.perf_counter()
        await app(scope, receive, send)
        seconds.append(time.perf_counter() - before)
    return timed
whole.make_app, whole.market_routes = make_app, market_routes
settings = GatewaySettings(blocks=(name,), upstreams={"SPOT": Upstream(base_url=base_url)}, cache_dir=cache)
with whole.Gateway("127.0.0.1", 0, Access(), settings, lambda: "[]") as gateway:
    gateway.run(lambda: print(gateway.url, flush=True))
"""
# Clients that read what they get, count it, and look at the newest row of each piece.
_WATCHER = """
import base64, json, os, select, socket, struct, sys, time
port, clients, names = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
EVENT, TRADES = b'"e":"kline"', b',"n":'
poller, sockets = select.epoll(), {}
def subscribe():
    client = socket.create_connection(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall(f"GET /ws HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\nUpgrade: websocket\\r\\n"
                   f"Connection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\n"
                   f"Sec-WebSocket-Key: {key}\\r\\n\\r\\n".encode())
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += client.recv(4096)
    assert b" 101 " in head, head
    text = json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}).encode()
    client.sendall(b"\\x81\\xfe" + struct.pack(">H", len(text)) + bytes(4) + text)
    client.setblocking(False)
    return client
for _ in range(clients):
    client = subscribe()
    sockets[client.fileno()] = [client, b""]
    poller.register(client, select.EPOLLIN)
print("subscribed", flush=True)
poller.register(0, select.EPOLLIN)
events, lags, gone, size = 0, [], 0, 0
while True:
    for number, _ in poller.poll():
        if number == 0:
            if not sys.stdin.readline():
                sys.exit()
            lags.sort()
            quantiles = [lags[min(len(lags) - 1, int(share * len(lags)))] if lags else -1 for share in (0.5, 0.99, 1)]
            print(json.dumps([events, gone, size, *quantiles]), flush=True)
            events, lags, size = 0, [], 0
            continue
        client, tail = sockets[number]
        try:
            data = client.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            poller.unregister(number)
            gone += 1
            continue
        if len(data) > 125 or tail:
            size += len(data)
            now = time.time_ns() // 1_000_000 % 10**9
            # What was cut in two is counted once: with the piece that ends it.
            joined = tail + data
            events += joined.count(EVENT)
            at = joined.rfind(TRADES, 0, len(joined) - 16)
            if at >= 0:
                lags.append((now - int(joined[at + 5:at + 15].partition(b",")[0])) % 10**9)
            sockets[number][1] = joined[-(len(EVENT) - 1):]
        elif data[0] == 0x89:
            client.send(bytes([0x8a, 0x80 | data[1]]) + bytes(4) + data[2:])
"""


@dataclass(frozen=True)
class Result:
    """One line of the table; `limit` is what `measured` must reach (`is_least`) or must not exceed."""

    part: str
    what: str
    measured: float
    unit: str
    limit: float | None = None
    is_least: bool = False

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        return "met" if (self.measured >= self.limit if self.is_least else self.measured <= self.limit) else "MISSED"


class Bench:
    """The processes of a run, which end with it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.name = f"bench-gateway-{os.getpid()}"
        self.base_url = line_of(self.child(_EXCHANGE, str(SYMBOLS)))
        with urllib.request.urlopen(f"{self.base_url}/api/v3/exchangeInfo") as response:
            listed = json.load(response)["symbols"]
        self.symbols = [entry["symbol"] for entry in listed if entry["status"] == "TRADING"][:SYMBOLS]
        self.writer = self.child(_WRITER, self.name, json.dumps(self.symbols), str(LENGTH), str(IDLE_PER_SECOND))
        assert line_of(self.writer) == "ready"
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        self.gateway = self.child(_GATEWAY, str(CORES[-1]), self.name, self.base_url, cache)
        self.url = line_of(self.gateway)
        self.port = int(self.url.rpartition(":")[2])
        # The list of symbols is there once it was asked for.
        self.get("exchangeInfo?symbol=" + self.symbols[0])

    def child(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._stack.callback(end, child)
        return child

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}/api/v3/{path}") as response:
            return bytes(response.read())

    def updates(self, rate: float) -> int:
        """Let every series change so many times a second; return how many events that made so far."""
        return int(told(self.writer, f"{rate}"))


def line_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def told(child: subprocess.Popen[str], line: str) -> str:
    assert child.stdin is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()
    return line_of(child)


def end(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(2 if child.poll() is None else 0)
    except subprocess.TimeoutExpired:
        child.terminate()
        child.wait()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


class Poller(asyncio.Protocol):
    """A connection that sends a request as soon as it has the response to the one before."""

    def __init__(self, request: bytes, deadline: float) -> None:
        self._request = request
        self._deadline = deadline
        self._data = b""
        self._size = 0
        self.seconds: list[float] = []
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._size:
            head = self._data.find(b"\r\n\r\n")
            if head < 0:
                return
            at = self._data.lower().find(b"content-length: ")
            self._size = head + 4 + int(self._data[at + 16 : self._data.find(b"\r\n", at)])
            if not self._data.startswith(b"HTTP/1.1 200"):
                self.ended.set_exception(RuntimeError(f"{self._data[:1000]!r}"))
                return
        if len(self._data) < self._size:
            return
        now = time.perf_counter()
        self.seconds.append(now - self._sent)
        self._data, self._size = b"", 0
        if now < self._deadline:
            self._ask()
        else:
            self._transport.close()
            self.ended.set_result(None)


def polled(port: int, path: str, connections: int, seconds: float) -> list[float]:
    """Return the seconds of every response that so many connections got in that time."""

    async def run() -> list[float]:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()
        deadline = time.perf_counter() + seconds
        loop = asyncio.get_running_loop()
        pollers = [
            (await loop.create_connection(lambda: Poller(request, deadline), "127.0.0.1", port))[1]
            for _ in range(connections)
        ]
        await asyncio.gather(*(poller.ended for poller in pollers))
        return [one for poller in pollers for one in poller.seconds]

    return asyncio.run(run())


def requests(bench: Bench) -> Iterator[Result]:
    """Requests per second of klines, and of a constant body of that size by the same application, in turns."""
    for limit, least in ((2, 0.6), (100, None), (1000, None)):
        query = f"symbol={bench.symbols[0]}&interval=1m&limit={limit}"
        rates: dict[str, list[float]] = {"constants": [], "klines": []}
        for _ in range(ROUNDS):
            for path, found in rates.items():
                before = time.perf_counter()
                responses = polled(bench.port, f"/api/v3/{path}?{query}", CONNECTIONS, ROUND_SECONDS)
                found.append(len(responses) / (time.perf_counter() - before))
        ratios = [ours / control for ours, control in zip(rates["klines"], rates["constants"], strict=True)]
        size = len(bench.get(f"klines?{query}"))
        text = f"limit={limit} ({size} bytes)"
        yield Result("requests", f"{text}, constant body", statistics.median(rates["constants"]), "/s")
        yield Result("requests", f"{text}, klines", statistics.median(rates["klines"]), "/s")
        yield Result("requests", f"{text}, klines of constant", 100 * statistics.median(ratios), "%",
                     None if least is None else 100 * least, is_least=True)  # fmt: skip


def rows(bench: Bench) -> Iterator[Result]:
    """One response of 1000 rows after the other: in the application, as CPU of the whole server, and at the client."""
    for limit, most in ((1000, 1.5), (2, None)):
        path = f"/api/v3/klines?symbol={bench.symbols[1]}&interval=1m&limit={limit}"
        polled(bench.port, path, 1, 0.5)
        bench.get("seconds")
        cpu, before = cpu_seconds(bench.gateway.pid), time.perf_counter()
        seconds: list[float] = []
        while len(seconds) < SEQUENTIAL:
            seconds += polled(bench.port, path, 1, 1.0)
        cpu = cpu_seconds(bench.gateway.pid) - cpu
        median, p99 = json.loads(bench.get("seconds"))
        yield Result("rows", f"limit={limit}, in the application p50", 1e3 * median, "ms", most)
        yield Result("rows", f"limit={limit}, in the application p99", 1e3 * p99, "ms")
        yield Result("rows", f"limit={limit}, CPU of the server per response", 1e3 * cpu / len(seconds), "ms")
        yield Result("rows", f"limit={limit}, at the client p50", 1e3 * statistics.median(seconds), "ms")
        yield Result("rows", f"limit={limit}, CPU of the server", 100 * cpu / (time.perf_counter() - before), "%")


def streams(bench: Bench) -> Iterator[Result]:
    """200 websocket clients with 500 streams each, and every stream changes so many times a second."""
    names = json.dumps([f"{symbol.lower()}@kline_1m" for symbol in bench.symbols])
    watcher = bench.child(_WATCHER, str(bench.port), str(CLIENTS), names)
    if line_of(watcher) != "subscribed":
        raise ConfigError("the websocket clients were not let in")
    for rate in (1, 2, EVENTS_PER_SECOND):
        bench.updates(rate)
        time.sleep(WARM_SECONDS)
        is_target = rate == EVENTS_PER_SECOND
        told(watcher, "")
        made, cpu = bench.updates(rate), [cpu_seconds(child.pid) for child in (bench.gateway, watcher, bench.writer)]
        before = time.perf_counter()
        time.sleep(STREAM_SECONDS)
        events, gone, size, *lags = json.loads(told(watcher, ""))
        passed = time.perf_counter() - before
        made = bench.updates(rate) - made
        used = [
            cpu_seconds(child.pid) - was for child, was in zip((bench.gateway, watcher, bench.writer), cpu, strict=True)
        ]
        text = f"{CLIENTS} x {len(bench.symbols)} streams x {rate}/s"
        yield Result("streams", f"{text}: frames that arrived", events / passed, "/s")
        # Two changes of a series between two rounds of the gateway are one event, as with the exchange.
        yield Result(
            "streams", f"{text}: of all changes", 100 * events / (made * CLIENTS), "%", 99 if is_target else None, True
        )
        yield Result("streams", f"{text}: bytes", size / passed / 1e6, "MB/s")
        yield Result("streams", f"{text}: from publish to client p50", lags[0], "ms")
        yield Result(
            "streams",
            f"{text}: from publish to client p99",
            lags[1],
            "ms",
            1000 / EVENTS_PER_SECOND if is_target else None,
        )
        yield Result("streams", f"{text}: from publish to client max", lags[2], "ms")
        yield Result("streams", f"{text}: clients that were dropped", gone, "", 0 if is_target else None)
        yield Result("streams", f"{text}: frames per second of the gateway's CPU", events / used[0], "/s")
        for who, seconds in zip(("gateway", "clients", "writer"), used, strict=True):
            yield Result("streams", f"{text}: CPU of the {who}", 100 * seconds / passed, "%")
    bench.updates(IDLE_PER_SECOND)
    end(watcher)


def ccxt(bench: Bench) -> Iterator[Result]:
    """What ccxt takes for its candles from the gateway, and directly from the simulated exchange, in turns."""
    if importlib.util.find_spec("ccxt") is None:
        return
    library = importlib.import_module("ccxt")
    clients: dict[str, Any] = {
        who: library.binance(
            {
                "enableRateLimit": False,
                "options": {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False},
                "urls": {
                    "api": {"public": f"{url}/api/v3", "fapiPublic": f"{url}/fapi/v1", "dapiPublic": f"{url}/dapi/v1"}
                },
            }
        )
        for who, url in (("gateway", bench.url), ("simulated exchange", bench.base_url))
    }
    market = next(iter(clients["gateway"].load_markets()))
    clients["simulated exchange"].load_markets()
    for limit in (2, 1000):
        seconds: dict[str, list[float]] = {who: [] for who in clients}
        for _ in range(CCXT_CALLS):
            for who, client in clients.items():
                before = time.perf_counter()
                client.fetch_ohlcv(market, "1m", limit=limit)
                seconds[who].append(time.perf_counter() - before)
        for who, found in seconds.items():
            yield Result("ccxt", f"limit={limit}, {who} p50", 1e3 * statistics.median(found), "ms")


PARTS = {"requests": requests, "rows": rows, "streams": streams, "ccxt": ccxt}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    results = []
    with ExitStack() as stack:
        bench = Bench(stack)
        if len(CORES) > 1:
            for child in (None, bench.writer):
                os.sched_setaffinity(0 if child is None else child.pid, CORES[:-1])
        for part in PARTS if arguments.only is None else [arguments.only]:
            for result in PARTS[part](bench):
                print(f"{result.part:9} {result.what:68} {result.measured:12,.2f} {result.unit:5} {result.verdict}",
                      flush=True)  # fmt: skip
                results.append(asdict(result) | {"verdict": result.verdict})
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
