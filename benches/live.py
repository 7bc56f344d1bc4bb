"""From the exchange's send to another process: latency, CPU per event, events per second, data age; and the peers.

    python benches/live.py                   everything, about two minutes
    python benches/live.py --only latency    one part
    python benches/live.py --json FILE

A process of its own pushes events of the exchange's form at an exact pace; the quote volume of each is the time at
which it was sent (CLOCK_BOOTTIME, ns; put in just before), so that whoever sees a row knows how old it is. The
collector is another process, the reader a third one, asleep until the collector wakes it. Peers receive the same
events; they hand nothing to another process and are measured up to where their own has the row in an array, which
flatters them.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import importlib.util
import json
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

import candleshm

SYMBOLS, EVENTS_PER_SECOND = 500, 4.0
TICK_SECONDS = 0.005
WARM_SECONDS, MEASURED_SECONDS, FLOOD_SECONDS = 4.0, 15.0, 8.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
COMMIT_SEQ = 320  # docs/segment-format.md
FUTEX_WAIT, SYS_FUTEX = 0, {"x86_64": 202, "aarch64": 98}[os.uname().machine]
DAY_MS = 86_400_000
SENT = b"<time of sending"  # as long as the sixteen digits that take its place


def boot_ns() -> int:
    """Return the clock that every process here shares."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


# The pusher.


class Pusher:
    """A stream host that pushes every subscribed symbol at one pace; 0 means as fast as the client reads."""

    def __init__(self, events_per_second: float) -> None:
        self._pace = events_per_second
        self._trades = 10_000_000

    async def serve(self) -> None:
        """Listen, say where, and serve until killed."""
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from websockets.http11 import Request
        from websockets.server import ServerProtocol

        protocol = ServerProtocol()
        parts: list[tuple[bytes, bytes]] = []
        pushing = None
        try:
            while data := await reader.read(65_536):
                protocol.receive_data(data)
                for event in protocol.events_received():
                    if isinstance(event, Request):
                        protocol.send_response(protocol.accept(event))
                        query = event.path.partition("streams=")[2]
                        parts += [self._around(name) for name in query.split("/") if name]
                        pushing = asyncio.create_task(self._push(writer, parts))
                    elif event.opcode == 1:
                        asked = json.loads(bytes(event.data))
                        parts += [self._around(name) for name in asked.get("params", [])]
                        protocol.send_text(json.dumps({"result": None, "id": asked["id"]}).encode())
                for out in protocol.data_to_send():
                    writer.write(out)
        finally:
            if pushing is not None:
                pushing.cancel()
            writer.close()

    def _around(self, name: str) -> tuple[bytes, bytes]:
        """Return what stands before and behind the changing part of an event."""
        name = unquote(name)
        symbol, _, interval = name.partition("@kline_")
        symbol, open_ms = symbol.upper(), time.time_ns() // 1_000_000 // DAY_MS * DAY_MS
        before = f'{{"stream":"{name}","data":{{"e":"kline","E":%d,"s":"{symbol}","k":{{"t":{open_ms},'
        behind = (
            f'"T":{open_ms + DAY_MS - 1},"s":"{symbol}","i":"{interval}","f":100,"L":%d,"o":"83896.40","c":"83860.20",'
            f'"h":"83920.00","l":"83860.10","v":"114602000.602","n":%d,"x":false,"q":"%s","V":"48.488",'
            f'"Q":"4068722.10360","B":"0"}}}}}}'
        )
        return before.encode(), behind.encode()

    def _frame(self, around: tuple[bytes, bytes]) -> bytes:
        self._trades += 1
        before, behind = around
        text = before % (time.time_ns() // 1_000_000) + behind % (99 + self._trades, self._trades, SENT)
        return struct.pack("!BBH", 0x81, 126, len(text)) + text

    async def _push(self, writer: asyncio.StreamWriter, parts: list[tuple[bytes, bytes]]) -> None:
        begun, sent = time.monotonic(), 0.0
        while True:
            if self._pace == 0:
                for start in range(0, len(parts), 50):
                    self._send(writer, map(self._frame, parts[start : start + 50]))
                    await writer.drain()
                await asyncio.sleep(0)
                continue
            await asyncio.sleep(TICK_SECONDS)
            due = (time.monotonic() - begun) * self._pace * len(parts)
            if due - sent > len(parts):
                sent = due - len(parts)
            frames = []
            while sent < due and parts:
                frames.append(self._frame(parts[int(sent) % len(parts)]))
                sent += 1
            self._send(writer, frames)

    def _send(self, writer: asyncio.StreamWriter, frames: Iterable[bytes]) -> None:
        """Stamp the frames of a batch as late as can be, and send them."""
        batch = b"".join(frames)
        writer.write(batch.replace(SENT, b"%016d" % boot_ns()))


EXCHANGE = """
import sys
from candleshm.sim import SimulatedExchange
with SimulatedExchange(symbols=int(sys.argv[1])) as exchange:
    print(exchange.base_url, flush=True)
    sys.stdin.read()
"""
COLLECTOR = """
import json, sys, time
from candleshm.config import CollectorConfig
from candleshm.collector.collector import Collector
with Collector(CollectorConfig(**json.loads(sys.argv[1]))) as collector:
    assert collector.wait_loaded()
    while collector.status().live != "ws":
        time.sleep(0.1)
    print("flows", flush=True)
    for line in sys.stdin:
        status = collector.status()
        print(json.dumps({"events": status.stream.events, "batches": status.stream.batches,
                          "weight_used": status.weight_used, "polled": status.polled}), flush=True)
"""
# The peer of one's own: the usual client, json and an array in one process.
JSON_PEER = """
import asyncio, json, sys, time
import numpy as np
from websockets.asyncio.client import connect

FIELDS = "tohlcvTqnVQ"
async def main():
    names = sys.argv[2].split("/")
    rows, places = np.zeros((len(names), 12)), {name.split("@")[0].upper(): i for i, name in enumerate(names)}
    latencies = []
    async with connect(sys.argv[1] + "/market/stream?streams=" + names[0], compression=None, max_queue=None) as stream:
        await stream.send(json.dumps({"method": "SUBSCRIBE", "params": names[1:], "id": 1}))
        print("flows", flush=True)
        warm = time.monotonic() + float(sys.argv[3])
        end = warm + float(sys.argv[4])
        cpu = None
        events = 0
        while (now := time.monotonic()) < end:
            event = json.loads(await stream.recv())
            if "data" not in event:
                continue
            kline = event["data"]["k"]
            row = rows[places[kline["s"]]]
            for column, field in enumerate(FIELDS):
                row[column] = float(kline[field])
            if now >= warm:
                if cpu is None:
                    cpu, began = time.process_time(), now
                events += 1
                latencies.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - row[7])
        used = time.process_time() - cpu
    print(json.dumps({"latencies_us": np.percentile(latencies, [50, 99]).tolist(), "events": events,
                      "cpu_seconds": used, "seconds": end - began}), flush=True)
asyncio.run(main())
"""
UNICORN_PEER = """
import json, sys, time
import numpy as np
from unicorn_binance_websocket_api import BinanceWebSocketApiManager

FIELDS = "tohlcvTqnVQ"
names = sys.argv[2].split("/")
rows, places = np.zeros((len(names), 12)), {name.split("@")[0].upper(): i for i, name in enumerate(names)}
latencies, events, cpu = [], 0, None
warm = time.monotonic() + float(sys.argv[3])
end = warm + float(sys.argv[4])

def take(text):
    global events, cpu, began
    now = time.monotonic()
    event = json.loads(text)
    if "data" not in event:
        return
    kline = event["data"]["k"]
    row = rows[places[kline["s"]]]
    for column, field in enumerate(FIELDS):
        row[column] = float(kline[field])
    if warm <= now < end:
        if cpu is None:
            cpu, began = time.process_time(), now
        events += 1
        latencies.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - row[7])

manager = BinanceWebSocketApiManager(
    exchange="binance.com", websocket_base_uri=sys.argv[1] + "/", process_stream_data=take, disable_colorama=True
)
interval = names[0].split("_")[-1]
manager.create_stream(channels=["kline_" + interval], markets=[name.split("@")[0] for name in names])
print("flows", flush=True)
time.sleep(max(0.0, end - time.monotonic()))
used, seconds = time.process_time() - (cpu or 0.0), time.monotonic() - began
manager.stop_manager()
print(json.dumps({"latencies_us": np.percentile(latencies, [50, 99]).tolist(), "events": events,
                  "cpu_seconds": used, "seconds": seconds}), flush=True)
import os; os._exit(0)
"""

CRYPTOFEED_PEER = """
import json, sys, time, threading, os
import numpy as np
import cryptofeed.connection
from cryptofeed import FeedHandler
from cryptofeed.connection import WebsocketEndpoint
from cryptofeed.defines import CANDLES
from cryptofeed.exchanges import Binance
from cryptofeed.symbols import Symbols

names = [name.split("@")[0].upper() for name in sys.argv[2].split("/")]
interval = sys.argv[2].split("_")[-1]
known = {f"{name[:-4]}-{name[-4:]}": name for name in names}
kinds = {"instrument_type": dict.fromkeys(known, "spot"), "tick_size": dict.fromkeys(known, "1")}
Symbols.set(Binance.id, known, kinds)
# It takes no address without TLS, so that is taken off behind its back.
Binance.websocket_endpoints = [WebsocketEndpoint(sys.argv[1].replace("ws://", "wss://"))]
dial = cryptofeed.connection.connect
cryptofeed.connection.connect = lambda address, **options: dial(address.replace("wss://", "ws://"), **options)
rows, places = np.zeros((len(names), 12)), {name: place for place, name in enumerate(known)}
latencies, events, cpu = [], 0, None
warm = time.monotonic() + float(sys.argv[3])
end = warm + float(sys.argv[4])

async def take(candle, receipt):
    global events, cpu, began
    now = time.monotonic()
    row = rows[places[candle.symbol]]
    row[:6] = (candle.start, candle.open, candle.high, candle.low, candle.close, candle.volume)
    row[6:9] = (candle.stop, float(candle.raw["k"]["q"]), candle.trades)
    if warm <= now < end:
        if cpu is None:
            cpu, began = time.process_time(), now
        events += 1
        latencies.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - row[7])

def finish():
    time.sleep(max(0.0, end - time.monotonic()))
    print(json.dumps({"latencies_us": np.percentile(latencies, [50, 99]).tolist(), "events": events,
                      "cpu_seconds": time.process_time() - cpu, "seconds": time.monotonic() - began}), flush=True)
    os._exit(0)

handler = FeedHandler(config={"log": {"disabled": True}})
handler.add_feed(Binance(symbols=list(known), channels=[CANDLES], candle_interval=interval, candle_closed_only=False,
                         callbacks={CANDLES: take}))
print("flows", flush=True)
threading.Thread(target=finish, daemon=True).start()
handler.run()
"""


@contextmanager
def child(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that ends with its stdin."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def line_of(process: subprocess.Popen[str]) -> str:
    """Return what a process says next."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise SystemExit("a process ended early; what it said stands above")
    return line


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


class Sleeper:
    """Sleeps in the kernel until the collector publishes a batch, as any reader may by the block's format."""

    def __init__(self, name: str) -> None:
        with open(f"/dev/shm/{name}", "rb") as file:
            self._map = mmap.mmap(file.fileno(), 4096, mmap.MAP_SHARED, mmap.PROT_READ)
        self._seq = np.frombuffer(self._map, np.uint32, 1, COMMIT_SEQ)
        self._address = self._seq.__array_interface__["data"][0]
        self._futex = ctypes.CDLL(None, use_errno=True).syscall

    @property
    def seq(self) -> int:
        """Batches published so far, modulo 2^32."""
        return int(self._seq[0])

    def wait(self, seen: int) -> int:
        """Return the number of batches as soon as it is not `seen`."""
        while self.seq == seen:
            pause = struct.pack("ll", 1, 0)
            self._futex(SYS_FUTEX, ctypes.c_void_p(self._address), FUTEX_WAIT, ctypes.c_uint32(seen), pause, None, 0)
        return self.seq


@contextmanager
def collecting(pace: float) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run pusher, exchange and collector; give the block's name and the collector's process once streams flow."""
    name = f"bench-live-{os.getpid()}-{time.time_ns() % 10**9}"
    with ExitStack() as stack:
        pusher = stack.enter_context(child(sys.executable, __file__, "--push", str(pace)))
        exchange = stack.enter_context(child(sys.executable, "-c", EXCHANGE, str(SYMBOLS)))
        settings = {
            "market": "UM",
            "interval": "1d",
            "length": 2,
            "name": name,
            "live": "ws",
            "base_url": line_of(exchange),
            "ws_url": line_of(pusher),
        }
        collector = stack.enter_context(child(sys.executable, "-c", COLLECTOR, json.dumps(settings)))
        assert line_of(collector) == "flows"
        yield name, collector
        collector.kill()
        collector.wait()
        candleshm.unlink(name)


def counts(collector: subprocess.Popen[str]) -> dict[str, int]:
    """Return what a collector counted so far; its status is up to a second old."""
    assert collector.stdin is not None
    time.sleep(1.1)
    collector.stdin.write("\n")
    collector.stdin.flush()
    told: dict[str, int] = json.loads(line_of(collector))
    return told


def latency() -> dict[str, Any]:
    """From the making of an event to its row in another process that slept."""
    with collecting(EVENTS_PER_SECOND) as (name, collector), candleshm.attach(name, max_age=None) as feed:
        sleeper = Sleeper(name)
        time.sleep(WARM_SECONDS)
        before, cpu = counts(collector), cpu_seconds(collector.pid)
        seen, seq = feed.last("quote_volume"), sleeper.seq
        latencies: list[float] = []
        ages: list[float] = []
        end = time.monotonic() + MEASURED_SECONDS
        next_age = time.monotonic()
        while (now := time.monotonic()) < end:
            seq = sleeper.wait(seq)
            made = feed.last("quote_volume")
            latencies.extend(boot_ns() - made[made != seen])
            seen = made
            if now >= next_age:
                next_age = now + 0.25
                ages.extend(feed[symbol].age for symbol in feed.symbols)
        after, used = counts(collector), cpu_seconds(collector.pid) - cpu
        events = after["events"] - before["events"]
        return {
            "symbols": len(feed.symbols),
            "events": events,
            "events_per_batch": events / (after["batches"] - before["batches"]),
            "p50_us": float(np.percentile(latencies, 50)) / 1e3,
            "p99_us": float(np.percentile(latencies, 99)) / 1e3,
            "cpu_us_per_event": used / events * 1e6,
            "age_p50_s": float(np.percentile(ages, 50)),
            "age_p99_s": float(np.percentile(ages, 99)),
            "weight_used": after["weight_used"],
        }


def ceiling() -> dict[str, Any]:
    """Events per second when the pusher never waits."""
    with collecting(0) as (_, collector):
        time.sleep(WARM_SECONDS)
        before, cpu, begun = counts(collector), cpu_seconds(collector.pid), time.monotonic()
        time.sleep(FLOOD_SECONDS)
        after, used, seconds = counts(collector), cpu_seconds(collector.pid) - cpu, time.monotonic() - begun
        events = after["events"] - before["events"]
        return {"events_per_second": events / seconds, "cpu_us_per_event": used / events * 1e6}


def peer(source: str, *, pace: float) -> dict[str, Any]:
    """The same events into another client."""
    names = "/".join(f"sim{number:04}usdt@kline_1d" for number in range(SYMBOLS))
    with child(sys.executable, __file__, "--push", str(pace)) as pusher:
        url = line_of(pusher)
        seconds = MEASURED_SECONDS if pace else FLOOD_SECONDS
        with child(sys.executable, "-c", source, url, names, str(WARM_SECONDS), str(seconds)) as client:
            assert line_of(client) == "flows"
            told = json.loads(line_of(client))
    result = {"events_per_second": told["events"] / told["seconds"]}
    result["cpu_us_per_event"] = told["cpu_seconds"] / told["events"] * 1e6
    if pace:
        result["p50_us"], result["p99_us"] = (value / 1e3 for value in told["latencies_us"])
    return result


def _parts() -> dict[str, Callable[[], dict[str, Any]]]:
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "latency": latency,
        "ceiling": ceiling,
        "websockets + json + numpy": lambda: peer(JSON_PEER, pace=EVENTS_PER_SECOND),
        "websockets + json + numpy, ceiling": lambda: peer(JSON_PEER, pace=0),
    }
    if importlib.util.find_spec("unicorn_binance_websocket_api") is not None:
        parts["unicorn-binance-websocket-api"] = lambda: peer(UNICORN_PEER, pace=EVENTS_PER_SECOND)
        parts["unicorn-binance-websocket-api, ceiling"] = lambda: peer(UNICORN_PEER, pace=0)
    if importlib.util.find_spec("cryptofeed") is not None:
        parts["cryptofeed"] = lambda: peer(CRYPTOFEED_PEER, pace=EVENTS_PER_SECOND)
        parts["cryptofeed, ceiling"] = lambda: peer(CRYPTOFEED_PEER, pace=0)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--push", type=float, metavar="PACE", help=argparse.SUPPRESS)
    parser.add_argument("--only", metavar="PART")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.push is not None:
        asyncio.run(Pusher(arguments.push).serve())
        return
    results = {}
    for name, part in _parts().items():
        if arguments.only is None or name.startswith(arguments.only):
            results[name] = part()
            shown = "  ".join(
                f"{key} {value:,.1f}" if value >= 10 else f"{key} {value:.2f}" for key, value in results[name].items()
            )
            print(f"{name:<40} {shown}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
