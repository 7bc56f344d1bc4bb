"""The collector against the simulated exchange at 50 ms: speed, data age, weight, memory; everything read is verified.

    python benches/collector.py                 every part, about ten minutes
    python benches/collector.py --only refresh  one part, each below three minutes
    python benches/collector.py --json FILE

The predecessor, binance_interface, runs beside it when this interpreter can import it.
Exchange, collector, readers and predecessor are processes of their own; CPU time is that of the collector alone.
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
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

import candleshm
from candleshm.collector.cache import BlockCache, Origin
from candleshm.reader.feed import Feed
from candleshm.sim import Truth

LATENCY_MS = 50
MINUTE_MS = 60_000
UNLIMITED = 10**8
SPOT_SYMBOLS, UM_SYMBOLS, LENGTH = 400, 200, 2880
SHARE = 0.75  # of the limit: what collectors use unless told otherwise
LOAD_SECONDS_MAX = 170.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

_EXCHANGE = """
import sys
from candleshm.sim import Fault, SimulatedExchange
symbols, limit, latency_ms = map(int, sys.argv[1:])
with SimulatedExchange(symbols=symbols, spot_limit=limit, futures_limit=min(limit, 2400)) as exchange:
    exchange.faults.add(Fault(kind="latency", delay_ms=latency_ms))
    print(exchange.base_url, flush=True)
    sys.stdin.read()
"""
_COLLECTOR = """
import json, sys
from candleshm.config import CollectorConfig
from candleshm.collector.collector import Collector
with Collector(CollectorConfig(**json.loads(sys.argv[1]))) as collector:
    print("started", flush=True)
    assert collector.wait_loaded()
    print("loaded", flush=True)
    sys.stdin.read()
"""
_READER = """
import sys
import candleshm
with candleshm.attach(sys.argv[1]) as feed:
    for symbol in feed.symbols:
        feed[symbol].candles()
    print("read", flush=True)
    sys.stdin.read()
"""
_PAUSES = """
import sys, time
import candleshm
with candleshm.attach(sys.argv[1]) as feed:
    series, longest, until = [feed[symbol] for symbol in feed.symbols], 0.0, time.perf_counter() + 2.0
    while time.perf_counter() < until:
        for one in series:
            before = time.perf_counter()
            one.last_close
            one.live
            longest = max(longest, time.perf_counter() - before)
    print(longest * 1e3, flush=True)
"""
_PREDECESSOR = """
import json, os, sys, tempfile, time
# In a new environment its first import prints "init settings complete": only the result goes to standard output.
result_pipe = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from binance_interface.api.proxy_host import proxy_host_map
from binance_interface.app.candle_server.rule import CandleRule
from binance_interface.app.candle_server.server import CandleServer
base_url, symbols = sys.argv[1], json.loads(sys.argv[2])
# Its option for a relay, with the relay's own prefix taken off: the requests reach the simulated exchange as they are.
proxy_host_map["https://api.binance.com"] = "{host}"
folder = tempfile.mkdtemp()
class Rule(CandleRule):
    SYMBOLS, LENGTH, LOCAL_CANDLE_DAYS, DOWNLOAD_TIME, CACHE_DELAY_SECONDS = symbols, 100, None, None, None
    CANDLE_DIR, CACHE_DIR, LOG_DIRPATH = folder + "/c", folder + "/d", folder + "/l"
    LOG_CONSOLE_LEVEL = "ERROR"
server = CandleServer("SPOT", Rule, proxy_host=base_url)
candle_map = server.update_candle({})
opened = (time.time() // 60 + 1) * 60
time.sleep(opened + 0.5 - time.time())
readable = []
update = server.market.update_history_candle
def timed(**named):
    result = update(**named)
    readable.append(time.time() - opened)
    return result
server.market.update_history_candle = timed
wall, cpu = time.perf_counter(), time.process_time()
candle_map = server.update_candle(candle_map)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
newest = sum(bool(candle[-1, 0] >= opened * 1000) for candle in candle_map.values())
print(json.dumps({"wall": wall, "cpu": cpu, "readable": readable, "newest": newest}), file=result_pipe, flush=True)
"""


@dataclass(frozen=True)
class Result:
    """One line of the table. `limit` is what our number must not exceed, None for what is only told.

    `ours` is None where only the predecessor was measured.
    """

    part: str
    what: str
    ours: float | None
    unit: str
    limit: float | None = None
    predecessor: float | None = None

    @property
    def verdict(self) -> str:
        """Say whether the target is met."""
        return "" if self.limit is None or self.ours is None else "yes" if self.ours <= self.limit else "NO"


class Bench:
    """What the parts share: children that end with it, and the truth to compare with."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._numbers = iter(range(1000))

    def child(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Run Python code in a process of its own."""
        child = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._stack.callback(_end, child)
        self.newest = child
        return child

    def exchange(self, symbols: int, limit: int) -> str:
        """Start a simulated exchange and return its address."""
        return _line(self.child(_EXCHANGE, str(symbols), str(limit), str(LATENCY_MS)))

    def collector(self, base_url: str, **settings: Any) -> tuple[subprocess.Popen[str], str, float]:
        """Start a collector, wait until everything is loaded; return it, its block's name and the seconds it took."""
        name = settings.setdefault("name", f"bench-{os.getpid()}-{next(self._numbers)}")
        before = time.perf_counter()
        child = self.child(_COLLECTOR, json.dumps({"base_url": base_url, **settings}))
        for expected in ("started", "loaded"):
            if _line(child) != expected:
                raise RuntimeError(f"the collector of {name} ended instead of being {expected}")
        return child, name, time.perf_counter() - before


def refresh(bench: Bench) -> Iterator[Result]:
    """One refresh of 400 symbols without a weight limit, averaged over some rounds."""
    base_url = bench.exchange(SPOT_SYMBOLS, UNLIMITED)
    symbols = _spot_symbols()
    child, name, _ = bench.collector(
        base_url, market="SPOT", symbols=symbols, length=100, update_interval_seconds=0.001
    )
    rounds = 5
    asked, cpu, wall = _served(base_url), _cpu_seconds(child.pid), time.perf_counter()
    while _served(base_url) < asked + rounds * SPOT_SYMBOLS:
        time.sleep(0.01)
    done = (_served(base_url) - asked) / SPOT_SYMBOLS
    wall, cpu = (time.perf_counter() - wall) / done, (_cpu_seconds(child.pid) - cpu) / done
    with candleshm.attach(name) as feed:
        _verify(feed, SPOT_SYMBOLS)
    _end(child)
    theirs = _predecessor(bench, base_url, symbols)
    yield Result("refresh", "400 SPOT symbols, wall", wall, "s", 4.0, theirs["wall"] if theirs else None)
    yield Result("refresh", "400 SPOT symbols, CPU", cpu, "s", 1.0, theirs["cpu"] if theirs else None)
    if theirs is not None:
        # It asks one symbol after the other; ours is told by the part `spot`, under the weight limit.
        yield Result("refresh", "new candle readable p99", None, "s", None, _p(theirs["readable"], 99))


def start(bench: Bench) -> Iterator[Result]:
    """Starts under the real limits: SPOT within one window; two of SPOT at once, and UM, which need more than one."""
    base_url = bench.exchange(SPOT_SYMBOLS, 6000)
    simulator = bench.newest
    child, name, seconds = bench.collector(base_url, market="SPOT", symbols=_spot_symbols(), length=LENGTH)
    yield Result("start", f"{SPOT_SYMBOLS} SPOT x {LENGTH}", seconds, "s", 12.0)
    yield Result("start", "CPU of the collector", _cpu_seconds(child.pid), "s")
    yield Result("start", "CPU of the simulated exchange", _cpu_seconds(simulator.pid), "s")
    with candleshm.attach(name) as feed:
        _verify(feed, SPOT_SYMBOLS)
    yield from _limits("start", base_url, "SPOT")
    _end(child)
    base_url = bench.exchange(SPOT_SYMBOLS, 6000)
    halves = [_spot_symbols()[half::2] for half in (0, 1)]
    before, twins = time.perf_counter(), []
    for number, symbols in enumerate(halves):
        settings = {"symbols": symbols, "length": 2 * LENGTH, "name": f"bench-{os.getpid()}-twin-{number}"}
        twins.append(bench.child(_COLLECTOR, json.dumps({"base_url": base_url, "market": "SPOT", **settings})))
    while _stats(base_url)["pools"]["SPOT"]["total"] < 0.66 * SHARE * 6000:
        time.sleep(0.1)
    spent = [_served(base_url, symbols) for symbols in halves]
    yield Result("start", f"two of 200 x {2 * LENGTH}: two thirds spent", time.perf_counter() - before, "s", 20.0)
    yield Result("start", "the smaller share of the two", 100 * min(spent) / sum(spent), "%")
    for twin in twins:
        assert (_line(twin), _line(twin)) == ("started", "loaded")
    yield Result("start", "both loaded", time.perf_counter() - before, "s")
    yield from _limits("start", base_url, "SPOT")
    for twin in twins:
        _end(twin)
    base_url = bench.exchange(UM_SYMBOLS, 2400)
    before = time.perf_counter()
    settings = {"symbols": _um_symbols(), "length": LENGTH, "name": f"bench-{os.getpid()}-um"}
    child = bench.child(_COLLECTOR, json.dumps({"base_url": base_url, "market": "UM", **settings}))
    while _stats(base_url)["pools"]["FUTURES"]["total"] < 0.66 * SHARE * 2400:
        time.sleep(0.1)
    yield Result("start", f"{UM_SYMBOLS} UM x {LENGTH}: two thirds spent", time.perf_counter() - before, "s", 20.0)
    assert (_line(child), _line(child)) == ("started", "loaded")
    yield Result("start", "loaded", time.perf_counter() - before, "s")
    yield from _limits("start", base_url, "FUTURES")


def spot(bench: Bench) -> Iterator[Result]:
    """Cold start of 400 x 2880 under the real limit, then memory, then data age across a new minute."""
    base_url = bench.exchange(SPOT_SYMBOLS, 6000)
    child, name, seconds = bench.collector(base_url, market="SPOT", symbols=_spot_symbols(), length=LENGTH)
    loaded_at = time.monotonic()
    yield Result("spot", f"cold start 400 x {LENGTH}", seconds, "s", 12.0)
    # Nobody but the collector has mapped the block yet, so its PSS holds all of it.
    sums = [_pss_bytes(child.pid)]
    readers = []
    for _ in range(3):
        readers.append(bench.child(_READER, name))
        assert _line(readers[-1]) == "read"
        sums.append(sum(_pss_bytes(process.pid) for process in (child, *readers)))
    yield Result("spot", "collector and block", sums[0] / 2**20, "MiB", 400.0)
    yield Result("spot", "each further reader, of the sum of PSS", max(np.diff(sums)) / 2**20, "MiB", 60.0)
    for reader in readers:
        _end(reader)
    with candleshm.attach(name) as feed:
        _verify(feed, SPOT_SYMBOLS)
        # Ages are steady once the weight of the cold start has left the window.
        _sleep_until(loaded_at + 62.0)
        ages, readable = _watch(feed)
        _verify(feed, SPOT_SYMBOLS)
    yield Result("spot", "data age p50", _p(ages, 50), "s", 7.0)
    yield Result("spot", "data age p99", _p(ages, 99), "s", 15.0)
    yield Result("spot", "new candle readable p50", _p(readable, 50), "s")
    yield Result("spot", "new candle readable p99", _p(readable, 99), "s", 6.0)
    yield from _limits("spot", base_url, "SPOT")


def um(bench: Bench) -> Iterator[Result]:
    """Cold start of 200 UM symbols: how long, and the most weight in any 60 s."""
    base_url = bench.exchange(UM_SYMBOLS, 6000)
    _, name, seconds = bench.collector(base_url, market="UM", symbols=_um_symbols(), length=LENGTH)
    with candleshm.attach(name) as feed:
        _verify(feed, UM_SYMBOLS)
    yield Result("um", f"cold start 200 x {LENGTH}", seconds, "s")
    yield from _limits("um", base_url, "FUTURES")


def restart(bench: Bench) -> Iterator[Result]:
    """Write the cache of 400 x 2880 beside a reader, stop, start again from it; then kill that one and succeed it."""
    base_url = bench.exchange(SPOT_SYMBOLS, UNLIMITED)
    name = f"bench-{os.getpid()}-restart"
    with tempfile.TemporaryDirectory() as directory:
        settings = {
            "name": name,
            "market": "SPOT",
            "symbols": _spot_symbols(),
            "length": LENGTH,
            "cache_dir": directory,
        }
        child, _, _ = bench.collector(base_url, **settings)
        origin = Origin(name, "SPOT", "1m", base_url.removeprefix("http://"))
        calm_ms = float(_line(bench.child(_PAUSES, name)))
        reader, saved = bench.child(_PAUSES, name), []
        for _ in range(3):
            time.sleep(0.5)
            saved.append(BlockCache(directory, origin).save(time.time_ns() // 1_000_000))
        pause_ms = float(_line(reader))
        before = time.perf_counter()
        _end(child)
        stop = time.perf_counter() - before
        asked = _served(base_url)
        child, _, seconds = bench.collector(base_url, **settings)
        asked = _served(base_url) - asked
        with candleshm.attach(name) as feed:
            _verify(feed, SPOT_SYMBOLS)
        size = _served(base_url)
        before = time.perf_counter()
        while _served(base_url) < size + SPOT_SYMBOLS:
            time.sleep(0.01)
        refreshed = time.perf_counter() - before
        child.kill()
        child.wait()
        before = time.perf_counter()
        second = bench.child(_COLLECTOR, json.dumps({"base_url": base_url, **settings}))
        assert _line(second) == "started"
        taken_over = time.perf_counter() - before
        assert _line(second) == "loaded"
        with candleshm.attach(name) as feed:
            _verify(feed, SPOT_SYMBOLS)
    yield Result("restart", f"cache of 400 x {LENGTH} written", max(one.seconds for one in saved), "s", 0.5)
    yield Result("restart", "its size", saved[-1].size_bytes / 1e6, "MB")
    yield Result("restart", "a reader's longest read, nothing written", calm_ms, "ms")
    yield Result("restart", "a reader's longest read, cache written", pause_ms, "ms")
    yield Result("restart", "stop with the last cache", stop, "s", 1.0)
    yield Result("restart", "start from the cache to all loaded", seconds, "s", 2.0 + refreshed)
    yield Result("restart", "killed: a new process has taken the block over", taken_over, "s", 1.0)
    yield Result("restart", "requests for the start from the cache (cold: 1200)", asked, "", 2 * SPOT_SYMBOLS)


PARTS: dict[str, Callable[[Bench], Iterator[Result]]] = {
    "refresh": refresh,
    "start": start,
    "spot": spot,
    "um": um,
    "restart": restart,
}


def _limits(part: str, base_url: str, pool: str) -> Iterator[Result]:
    stats = _stats(base_url)
    counts = stats["pools"][pool]
    refused = sum(item["count"] for item in stats["requests"] if item["status"] in (418, 429))
    yield Result(part, "most weight in any 60 s", counts["peak_60s"], "", SHARE * counts["limit"])
    yield Result(part, "requests refused with 429 or 418", refused, "", 0)


def _predecessor(bench: Bench, base_url: str, symbols: list[str]) -> dict[str, Any] | None:
    if importlib.util.find_spec("binance_interface") is None:
        return None
    line = _line(bench.child(_PREDECESSOR, base_url, json.dumps(symbols)))
    if not line:
        raise RuntimeError("the predecessor ended without a result; its own messages are above")
    measured: dict[str, Any] = json.loads(line)
    assert measured["newest"] == len(symbols), f"the predecessor refreshed {measured['newest']} of {len(symbols)}"
    return measured


def _watch(feed: Feed) -> tuple[npt.NDArray[np.float64], list[float]]:
    """Sample all ages for a minute and more, and note when each series shows the minute that opens meanwhile."""
    ages: list[list[float]] = []
    readable: dict[str, float] = {}
    opened_ms = (int(time.time() * 1000) // MINUTE_MS + 1) * MINUTE_MS
    series = [feed[symbol] for symbol in feed.symbols]
    end = time.monotonic() + 75.0
    while time.monotonic() < end:
        ages.append([one.age for one in series])
        for _ in range(5):
            if time.time() * 1000 >= opened_ms:
                for one in series:
                    if one.symbol not in readable and (one.last_open_time_ms or 0) >= opened_ms:
                        readable[one.symbol] = time.time() - opened_ms / 1000
            time.sleep(0.02)
    assert len(readable) == len(series), f"{len(series) - len(readable)} series never showed the new minute"
    return np.array(ages).ravel(), list(readable.values())


def _verify(feed: Feed, symbols: int) -> None:
    """Compare closed rows of every tenth symbol with the truth, bit for bit; all of them have to be complete."""
    assert len(feed) == symbols
    truth = Truth(1, symbols=symbols)
    for number, symbol in enumerate(feed.symbols):
        assert not feed[symbol].gaps(), f"{symbol} has gaps"
        if number % 10 == 0:
            rows = feed[symbol].candles(closed_only=True)
            assert len(rows) >= feed.length - 2, f"{symbol} has {len(rows)} of {feed.length} rows"
            true = truth.floats(feed.market, symbol, "1m", int(rows[0, 0]), int(rows[-1, 0]) + 1)
            states = feed[symbol].states(closed_only=True)
            final = states[: len(rows)] >= 2
            np.testing.assert_array_equal(rows[final], true[: len(rows)][final])


def _um_symbols() -> list[str]:
    trading = [item.symbol for item in Truth(1, symbols=UM_SYMBOLS).instruments("UM") if item.status == "TRADING"]
    return trading[:UM_SYMBOLS]


def _spot_symbols() -> list[str]:
    truth = Truth(1, symbols=SPOT_SYMBOLS)
    trading = [item.symbol for item in truth.instruments("SPOT") if item.status == "TRADING" and item.quote == "USDT"]
    return trading[:SPOT_SYMBOLS]


def _stats(base_url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{base_url}/sim/stats") as answer:
        stats: dict[str, Any] = json.loads(answer.read())
    return stats


def _served(base_url: str, symbols: Sequence[str] | None = None) -> int:
    """Return how many requests for candles the exchange got, of all symbols or of these."""
    wanted = None if symbols is None else set(symbols)
    return sum(
        item["count"]
        for item in _stats(base_url)["requests"]
        if item["path"].endswith("/klines") and (wanted is None or item["symbol"] in wanted)
    )


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _pss_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))) * 1024


def _p(values: Any, percent: float) -> float:
    return float(np.percentile(values, percent))


def _sleep_until(monotonic_seconds: float) -> None:
    time.sleep(max(0.0, monotonic_seconds - time.monotonic()))


def _line(child: subprocess.Popen[str]) -> str:
    stream: IO[str] | None = child.stdout
    assert stream is not None
    return stream.readline().strip()


def _end(child: subprocess.Popen[str]) -> None:
    """Close the child's input, at which it ends in order; a collector then removes its block."""
    if child.stdin is not None and not child.stdin.closed:
        child.stdin.close()
    try:
        child.wait(10.0)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def main() -> None:
    """Run the parts, print the table, write the JSON. Exits with 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=sorted(PARTS), action="append")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    results: list[Result] = []
    for part in arguments.only or PARTS:
        with ExitStack() as stack:
            results += PARTS[part](Bench(stack))
    if importlib.util.find_spec("binance_interface") is None:
        print("predecessor: not measured, binance_interface cannot be imported here")
    print(f"{'part':8} {'what':42} {'ours':>9} {'target':>9} {'met':4} {'predecessor':>12}")
    for result in results:
        target = "" if result.limit is None else f"{result.limit:g}"
        theirs = "" if result.predecessor is None else f"{result.predecessor:.2f}"
        ours = "" if result.ours is None else f"{result.ours:.2f} {result.unit}"
        print(f"{result.part:8} {result.what:42} {ours:>9} {target:>9} {result.verdict:4} {theirs:>12}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    sys.exit(any(result.verdict == "NO" for result in results))


if __name__ == "__main__":
    main()
