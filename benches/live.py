"""From the exchange's send to another process, beside the floor: latency, CPU per event, data age, bursts; and peers.

    python benches/live.py --quick           the floor, ours, CPU and a burst: less than a minute
    python benches/live.py                   everything, about five minutes
    python benches/live.py --only burst      one part
    python benches/live.py --quick --spin-microseconds 5000
    python benches/live.py --json FILE

`sender.rs` sends events of the exchange's form in batches of eleven; the quote volume of each is the time at which it
was sent, so that whoever sees a row knows how old it is. The collector is another process, the reader (`sleeper.rs`) a
third one, asleep until it is woken. The floor (`floor.rs`) takes the same bytes from a sender of its own, parses
nothing, and wakes a reader of the same kind. Both are there all the time and take turns by the second.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from stream_peers import CRYPTOFEED_PEER, JSON_PEER, UNICORN_PEER

import candleshm

SYMBOLS, EVENTS_PER_SECOND = 500, 4.0
WARM_SECONDS, MEASURED_SECONDS = 4.0, 15.0
# A turn is shorter than the pause after which a collector takes streams for stalled.
TURN_SECONDS, SETTLE_SECONDS = 1.0, 0.1
# More in ten seconds, and a collector ends the connection: no exchange sends so much.
BURST_EVENTS, BURST_PAUSE_SECONDS = 90_000, 10.5
BLOCK_LENGTH, BACKFILL_LENGTH = 2, 5000
PROGRAMS = Path(__file__).parents[1] / "target" / "release" / "examples"
BUILD = ("cargo", "build", "--quiet", "--release", "--package", "candleshm", "--examples")

EXCHANGE = """
import sys
from candleshm.sim import SimulatedExchange
with SimulatedExchange(symbols=int(sys.argv[1])) as exchange:
    print(exchange.base_url, flush=True)
    sys.stdin.read()
"""
# Commands: "backfill" fills a second feed in this process as fast as the budget allows, "spin" keeps the GIL busy until
# "rest"; every command is answered with what was counted so far, which is up to a second old.
COLLECTOR = """
import dataclasses, json, sys, threading, time
from candleshm.config import CollectorConfig
from candleshm.collector.collector import Collector

given = json.loads(sys.argv[1])
backfill = given.pop("backfill")
spins = False

def spin():
    number = 0
    while spins:
        number += 1

with Collector(CollectorConfig(**given)) as collector:
    assert collector.wait_loaded()
    while collector.status().live != "ws":
        time.sleep(0.1)
    print("flows", flush=True)
    filling = None
    for line in sys.stdin:
        if line.strip() == "backfill":
            filling = Collector(CollectorConfig(**(given | backfill)))
            filling.start()
        elif line.strip() == "spin":
            spins = True
            threading.Thread(target=spin, daemon=True).start()
        elif line.strip() == "rest":
            spins = False
        status = collector.status()
        print(json.dumps({"events": status.stream.events, "weight_used": status.weight_used, "live": status.live,
                          "requests": filling.status().requests if filling else 0}), flush=True)
"""


class Child:
    """A process that is told lines and answers each with one; it ends with its stdin."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def line(self) -> str:
        """Return what it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit("a process ended early; what it said stands above")
        return line

    def ask(self, command: str) -> Any:
        """Tell it something and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return json.loads(self.line())

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all its threads, those that ended included."""
        return time.clock_gettime(~self.pid << 3 | 2)  # The kernel's number of that process's clock.


@dataclass
class Samples:
    """What the turns of one contender brought."""

    latencies_us: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    events: int = 0

    def quantile_us(self, share: float) -> float:
        return float(np.quantile(self.latencies_us, share))

    @property
    def cpu_us_per_event(self) -> float:
        return self.cpu_seconds / self.events * 1e6

    @property
    def summary(self) -> dict[str, float]:
        return {
            "p50_us": self.quantile_us(0.5),
            "p99_us": self.quantile_us(0.99),
            "cpu_us_per_event": self.cpu_us_per_event,
            "events": self.events,
        }


@dataclass
class Contender:
    """A sender, what receives from it, and the reader that this wakes."""

    sender: Child
    receiver: Child
    sleeper: Child

    def turn(self, samples: Samples, seconds: float = TURN_SECONDS) -> None:
        """Let events flow for a while."""
        self.sender.ask(f"pace {EVENTS_PER_SECOND}")
        time.sleep(SETTLE_SECONDS)
        self.sleeper.ask("")
        sent, cpu = self.sender.ask("sent")["sent"], self.receiver.cpu_seconds
        time.sleep(seconds)
        samples.events += self.sender.ask("sent")["sent"] - sent
        samples.cpu_seconds += self.receiver.cpu_seconds - cpu
        latencies_ns = self.sleeper.ask("")
        if not latencies_ns:
            raise SystemExit("no event came through in a turn")
        samples.latencies_us += [ns / 1e3 for ns in latencies_ns]
        self.sender.ask("pace 0")

    def burst(self, name: str) -> dict[str, float]:
        """Send more events than can be taken at once; return how many a second were."""
        cpu, begun_ns = self.receiver.cpu_seconds, time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        last = self.sender.ask(f"burst {BURST_EVENTS}")["stamp"]
        with candleshm.attach(name, max_age=None) as feed:
            end = time.monotonic() + 30
            while np.nanmax(feed.last("quote_volume")) < last:
                if time.monotonic() > end:
                    raise SystemExit(f"the end of a burst of {BURST_EVENTS} events did not arrive within 30 s")
                time.sleep(0.001)
        seconds = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - begun_ns) / 1e9
        used = self.receiver.cpu_seconds - cpu
        return {"events_per_second": BURST_EVENTS / seconds, "cpu_us_per_event": used / BURST_EVENTS * 1e6}


@contextmanager
def program(name: str, *arguments: str) -> Iterator[Child]:
    """Run one of the Rust programs beside this file."""
    with Child(str(PROGRAMS / name), *arguments) as child:
        yield child


@contextmanager
def floor() -> Iterator[Contender]:
    """The floor, and what belongs to it."""
    names = "/".join(f"sim{number:04}usdt@kline_1d" for number in range(SYMBOLS))
    with ExitStack() as stack:
        words = stack.enter_context(tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="bench-floor-")).name
        sender = stack.enter_context(program("sender"))
        receiver = stack.enter_context(program("floor", sender.line(), words, names))
        assert receiver.line() == "flows"
        yield Contender(sender, receiver, stack.enter_context(program("sleeper", "floor", words)))


def unlink(*names: str) -> None:
    """Remove what a killed collector left."""
    for name in names:
        with suppress(candleshm.BlockNotFound):
            candleshm.unlink(name)


def collector(
    base_url: str, ws_url: str, name: str, spin_microseconds: int = 0, changes: dict[str, Any] | None = None
) -> Child:
    """Start the collector of today's source, with `changes` of its settings."""
    settings: dict[str, Any] = {
        "market": "UM",
        "interval": "1d",
        "length": BLOCK_LENGTH,
        "name": name,
        "live": "ws",
        "server_weight": 1.0,
        "base_url": base_url,
        "ws_url": ws_url,
        "spin_microseconds": spin_microseconds,
        "backfill": {"interval": "1m", "length": BACKFILL_LENGTH, "name": f"{name}-backfill", "live": "rest"},
    }
    return Child(sys.executable, "-c", COLLECTOR, json.dumps(settings | (changes or {})))


Start = Callable[[str, str, str], Child]


@contextmanager
def collecting(start: Start = collector) -> Iterator[tuple[str, Contender]]:
    """Run exchange, sender and what `start` starts; give the block's name once streams flow."""
    name = f"bench-live-{os.getpid()}-{time.time_ns() % 10**9}"
    with ExitStack() as stack:
        exchange = stack.enter_context(Child(sys.executable, "-c", EXCHANGE, str(SYMBOLS)))
        sender = stack.enter_context(program("sender"))
        base_url, ws_url = exchange.line(), sender.line()
        sender.ask(f"pace {EVENTS_PER_SECOND}")
        stack.callback(unlink, name, f"{name}-backfill")
        receiver = stack.enter_context(start(base_url, ws_url, name))
        assert receiver.line() == "flows"
        yield name, Contender(sender, receiver, stack.enter_context(program("sleeper", "block", name)))


def take_turns(contenders: dict[str, Contender], rounds: int) -> dict[str, Samples]:
    """Let each flow for a second a round, in another order each time."""
    samples = {name: Samples() for name in contenders}
    for number in range(rounds + 1):
        order = list(contenders) if number % 2 else list(reversed(contenders))
        for name in order:
            # The first round warms up.
            contenders[name].turn(samples[name] if number else Samples())
    return samples


def bursts(name: str, ours: Contender, count: int) -> dict[str, float]:
    """The median of some bursts."""
    found = []
    for _ in range(count):
        ours.sender.ask(f"pace {EVENTS_PER_SECOND}")
        time.sleep(BURST_PAUSE_SECONDS)
        found.append(ours.burst(name))
    ours.sender.ask(f"pace {EVENTS_PER_SECOND}")
    return {key: float(np.median([one[key] for one in found])) for key in found[0]}


def told(work: str, target: str, value: str, *, met: bool) -> None:
    """Print one target."""
    print(f"  {work:<56} {target:<28} {value:<28} {'met' if met else 'MISSED'}", flush=True)


def shown(name: str, result: dict[str, float]) -> None:
    """Print one line of numbers."""
    text = "  ".join(f"{key} {value:,.1f}" if value >= 10 else f"{key} {value:.2f}" for key, value in result.items())
    print(f"{name:<44} {text}", flush=True)


def ages(name: str, ours: Contender) -> dict[str, float]:
    """How old the data of all symbols is, four times a second, while events flow without a pause."""
    ours.sender.ask(f"pace {EVENTS_PER_SECOND}")
    time.sleep(1)
    found: list[float] = []
    with candleshm.attach(name, max_age=None) as feed:
        for _ in range(20):
            time.sleep(0.25)
            found.extend(feed[symbol].age for symbol in feed.symbols)
    result = {"age_p50_s": float(np.quantile(found, 0.5)), "age_p99_s": float(np.quantile(found, 0.99))}
    age = result["age_p99_s"]
    told("data age, p99", "<= 0.5 s", f"{age:.2f} s", met=age <= 0.5)
    return result


def quiet(lowest: Contender, ours: Contender, rounds: int) -> dict[str, dict[str, float]]:
    """Ours beside the floor, with nothing else to do."""
    samples = take_turns({"floor": lowest, "ours": ours}, rounds)
    results = {name: samples[name].summary for name in samples}
    for name, result in results.items():
        shown(name, result)
    p50, p99 = (results["ours"][key] for key in ("p50_us", "p99_us"))
    ratio, cpu = p50 / results["floor"]["p50_us"], results["ours"]["cpu_us_per_event"]
    results["ours"]["p50_to_floor"] = ratio
    told("send to a sleeping reader in another process, p50", "<= 2.5x the floor", f"{ratio:.2f}x", met=ratio <= 2.5)
    told("the same, p99", "<= 10x its p50", f"{p99 / p50:.1f}x", met=p99 <= 10 * p50)
    told("CPU of the collector per event, all included", "<= 6 us", f"{cpu:.1f} us", met=cpu <= 6)
    return results


def busy(command: str, lowest: Contender, ours: Contender, rounds: int, p50_us: float) -> dict[str, dict[str, float]]:
    """Both again while the collector's process has something else to do; `p50_us` is ours without that."""
    ours.receiver.ask(command)
    time.sleep(SETTLE_SECONDS)
    samples = take_turns({"floor": lowest, "ours": ours}, rounds)
    counted = ours.receiver.ask("rest")
    results = {f"{name}, {command}": samples[name].summary for name in samples}
    if command == "spin":
        del results["ours, spin"]["cpu_us_per_event"]  # The spinning thread's.
    for name, result in results.items():
        shown(name, result)
    ratio = results[f"ours, {command}"]["p50_us"] / p50_us
    work = "REST at full budget in the same process, p50" if command == "backfill" else "a thread spins in Python, p50"
    told(work, "<= 1.3x without", f"{ratio:.2f}x", met=ratio <= 1.3)
    if command == "backfill":
        print(f"  weight used in that minute: {counted['weight_used']}, requests: {counted['requests']}", flush=True)
    return results


def peer(source: str, *, events_per_second: float) -> dict[str, float]:
    """The same events into another client."""
    names = "/".join(f"sim{number:04}usdt@kline_1d" for number in range(SYMBOLS))
    with program("sender") as sender:
        url = sender.line()
        seconds = (str(WARM_SECONDS), str(MEASURED_SECONDS))
        with Child(sys.executable, "-c", source, url, names, *seconds) as client:
            assert client.line() == "flows"
            sender.ask(f"pace {events_per_second}")
            counted = json.loads(client.line())
    p50, p99 = (ns / 1e3 for ns in counted["latencies_us"])
    return {
        "p50_us": p50,
        "p99_us": p99,
        "cpu_us_per_event": counted["cpu_seconds"] / counted["events"] * 1e6,
        "events": counted["events"],
        "events_per_second": counted["events"] / counted["seconds"],
    }


def peers() -> dict[str, dict[str, float]]:
    """Every peer that is installed, at the exchange's pace and with more than it can take."""
    results = {}
    for name, module, source in (
        ("websockets + json + numpy", "websockets", JSON_PEER),
        ("unicorn-binance-websocket-api", "unicorn_binance_websocket_api", UNICORN_PEER),
        ("cryptofeed", "cryptofeed", CRYPTOFEED_PEER),
    ):
        if importlib.util.find_spec(module) is not None:
            for label, pace in ((name, EVENTS_PER_SECOND), (f"{name}, ceiling", 2000.0)):
                results[label] = peer(source, events_per_second=pace)
                shown(label, results[label])
    return results


PARTS = ("quiet", "age", "burst", "backfill", "spin", "peers")


def run(parts: tuple[str, ...], rounds: int, burst_count: int, spin_microseconds: int) -> dict[str, dict[str, float]]:
    """Run some parts; ours with the floor beside it are the same processes in all of them."""
    results: dict[str, dict[str, float]] = {}
    if parts != ("peers",):
        start = partial(collector, spin_microseconds=spin_microseconds)
        with floor() as lowest, collecting(start) as (name, ours):
            results |= quiet(lowest, ours, rounds)
            if "age" in parts:
                results["ours, age"] = ages(name, ours)
            if "burst" in parts:
                results["ours, burst"] = bursts(name, ours, burst_count)
                shown("ours, burst", results["ours, burst"])
            for command in ("spin", "backfill"):
                if command in parts:
                    results |= busy(command, lowest, ours, rounds, results["ours"]["p50_us"])
    if "peers" in parts:
        results |= peers()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the floor, ours, CPU per event and one burst")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--spin-microseconds", type=int, metavar="N", default=0, help="that setting of the collector")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    subprocess.run(BUILD, cwd=PROGRAMS.parents[2], check=True)
    parts = ("quiet", "burst") if arguments.quick else (arguments.only,) if arguments.only else PARTS
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    rounds, burst_count = (8, 1) if arguments.quick else (25, 5)
    results = run(parts, rounds, burst_count, arguments.spin_microseconds)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
