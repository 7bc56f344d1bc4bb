"""A cluster on hosts that are network namespaces, with real NATS servers: joins, latency, fan-out, take-overs, limits.

    PYTHONPATH=. .venv/bin/python benches/cluster.py            everything, about four minutes
    PYTHONPATH=. .venv/bin/python benches/cluster.py --only latency
    PYTHONPATH=. .venv/bin/python benches/cluster.py --json FILE

Exchange and leader have one host, the NATS server another, each mirror its own; where namespaces are not allowed, all
are plain processes of this machine. Events come from `sender.rs`, and `sleeper.rs` says how old they are when a reader
wakes, as in `live.py`: all hosts are one machine here, so they share a clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cluster_server import carried
from live import BUILD, EVENTS_PER_SECOND, EXCHANGE, PROGRAMS, SYMBOLS, Child, program, shown, told, unlink
from tests.long.leader_kills import kill_leaders
from tests.support.cluster_hosts import network
from tests.support.nats_servers import HERE, NatsServer, Place, nats_server

import candleshm

MIRRORS = 8
ROUNDS, TURN_SECONDS, WARM_SECONDS = 12, 2.0, 3.0
JOIN_SYMBOLS, JOIN_LENGTH, JOINS = 400, 2880, 5
KILLS = 20
MESSAGE_BYTES = 1500
PATIENCE_SECONDS = 120.0
Result = dict[str, float]
# A block without an exchange, and a publisher that tells of it.
LEADER = """
import sys, time
import numpy as np
from candleshm._core import Writer
from tests.support.telling import leading
from candleshm.cluster.settings import ClusterSettings

url, name, symbols, length = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
names = [f"SIM{number:04}USDT" for number in range(symbols)]
now_ms = time.time_ns() // 1_000_000
open_ms = now_ms // 60_000 * 60_000 - 60_000 * np.arange(length - 1, 0, -1)
writer = Writer.open(name, market="SPOT", interval="1m", length=length, symbols=names)
random = np.random.default_rng(1)
for symbol in names:
    rows = np.zeros((length - 1, 12))
    close = 100 + random.random(length - 1).cumsum()
    rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], rows[:, 4] = open_ms, close, close + 1, close - 1, close
    rows[:, 5], rows[:, 6], rows[:, 7], rows[:, 8] = random.random(length - 1), open_ms + 59_999, close, 7
    writer.load_rows(symbol, rows, sent_ms=now_ms)
with leading(ClusterSettings.of({"cluster": url}), name):
    print("tells", flush=True)
    while True:
        writer.heartbeat()
        time.sleep(0.25)
"""
CLI = (sys.executable, "-m", "candleshm")


class Cluster:
    """The hosts of one bench, and what was started on them; everything ends with the stack."""

    def __init__(self, stack: ExitStack) -> None:
        self.name = f"bench-cluster-{os.getpid()}-{time.time_ns() % 10**6}"
        self.stack = stack
        self._network = stack.enter_context(network()) if os.geteuid() == 0 else None
        self.home = self.place()
        self.server: NatsServer = stack.enter_context(nats_server(self.place()))
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-cluster-")))

    def place(self) -> Place:
        """Return another host."""
        return self._network.host() if self._network is not None else HERE

    def run(self, place: Place, *words: str, block: str) -> Child:
        """Run a command of candleshm on a host until the end."""
        self.stack.callback(unlink, block)
        runtime = self._folder / block
        runtime.mkdir(mode=0o700, exist_ok=True)
        log = (self._folder / f"{block}.log").open("ab")
        self.stack.callback(log.close)
        command = place.command(["env", f"XDG_RUNTIME_DIR={runtime}", *CLI, *words])
        return self.stack.enter_context(Quiet(command, log.fileno()))

    def lead(self, base_url: str, ws_url: str, *more: str, has_cluster: bool = True) -> Child:
        """Start the collector that leads, on the exchange's host."""
        words = ["serve", "--name", self.name, "--base-url", base_url, "--server-weight", "1.0"]
        words += ["--ws-url", ws_url] if ws_url else []
        words += ["--cluster", self.server.url] if has_cluster else []
        return self.run(self.home, *words, *more, block=self.name)

    def mirror(self, number: int, place: Place) -> tuple[str, Child]:
        """Start a mirror; return its block and its process."""
        block = f"{self.name}-m{number}"
        return block, self.run(place, "mirror", self.name, "--cluster", self.server.url, "--as", block, block=block)

    def exchange(self, symbols: int) -> str:
        """Start the simulated exchange beside the leader, and return its URL."""
        child = self.stack.enter_context(Child(*self.home.command([sys.executable, "-c", EXCHANGE, str(symbols)])))
        return child.line()


class Quiet(Child):
    """A process that is not talked to."""

    def __init__(self, command: Sequence[str], log: int) -> None:
        self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.pid = self._process.pid

    def __enter__(self) -> Quiet:
        return self


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Give hosts without anything but a NATS server."""
    with ExitStack() as stack:
        yield Cluster(stack)


def until(question: Callable[[], bool], what: str) -> float:
    """Wait until it is true; return the seconds that it took."""
    began = time.monotonic()
    while not question():
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise SystemExit(f"{what}: not within {PATIENCE_SECONDS:g} s")
        time.sleep(0.002)
    return time.monotonic() - began


def is_ready(block: str, missing: int = 0) -> bool:
    """Whether a block is there, current, and has at most so many rows to come."""
    try:
        with candleshm.attach(block) as feed:
            return feed.health.ready and feed.health.missing <= missing
    except candleshm.CandleShmError:
        return False


def server() -> dict[str, Result]:
    """What the server carries, without candleshm."""
    results = {}
    for subscribers in (1, MIRRORS):
        with nats_server() as running:
            label = f"NATS alone, {MESSAGE_BYTES} B to {subscribers}"
            results[label] = carried(running, MESSAGE_BYTES, subscribers)
            shown(label, results[label])
    return results


def latency() -> dict[str, Result]:
    """From the exchange's send to a reader on the leader's host, and to one on another; and what mirrors cost."""
    results: dict[str, Result] = {}
    cpu_us = {}
    for mirrors in (0, 1, MIRRORS):
        with cluster() as running:
            base_url = running.exchange(SYMBOLS)
            sender = running.stack.enter_context(Child(*running.home.command([str(PROGRAMS / "sender")])))
            ws_url = sender.line()
            sender.ask(f"pace {EVENTS_PER_SECOND}")
            words = ["--market", "um", "--interval", "1d", "--length", "2", "--live", "ws"]
            leader = running.lead(base_url, ws_url, *words, has_cluster=mirrors > 0)
            until(lambda: is_ready(running.name), "the leader")
            blocks = {"leader": running.name}
            others = [running.mirror(number, running.place()) for number in range(1, mirrors + 1)]
            for block, _ in others:
                until(lambda: is_ready(block), "a mirror")  # noqa: B023
            if mirrors:
                blocks["mirror"] = others[0][0]
            sleepers = {who: running.stack.enter_context(program("sleeper", "block", blocks[who])) for who in blocks}
            time.sleep(WARM_SECONDS)
            found = measured(leader, sender, sleepers, [child for _, child in others], running.server)
            cpu_us[mirrors] = found["cpu_us_per_event"]
            label = f"{mirrors} mirrors" if mirrors else "no cluster"
            results[label] = found
            shown(label, found)
            if mirrors == 1:
                ratio = found["mirror_p50_us"] / found["leader_p50_us"]
                work = "event to a reader on another host, p50"
                told(work, "<= 3x on the same host", f"{ratio:.2f}x", met=ratio <= 3)
    extra = cpu_us[MIRRORS] - cpu_us[0]
    told(f"leader's extra CPU per event, {MIRRORS} mirrors", "<= 15 us", f"{extra:.1f} us", met=extra <= 15)
    return results


def measured(
    leader: Child, sender: Child, sleepers: dict[str, Child], mirrors: Sequence[Child], server: NatsServer
) -> Result:
    """Let events flow for some turns; latencies are of all turns together."""
    latencies: dict[str, list[float]] = {who: [] for who in sleepers}
    for sleeper in sleepers.values():
        sleeper.ask("")
    events, cpu = sender.ask("sent")["sent"], leader.cpu_seconds
    theirs, servers = [child.cpu_seconds for child in mirrors], server.cpu_seconds()
    for _ in range(ROUNDS):
        time.sleep(TURN_SECONDS)
        for who, sleeper in sleepers.items():
            latencies[who] += [ns / 1e3 for ns in sleeper.ask("")]
    events = sender.ask("sent")["sent"] - events
    found = {"events": events, "cpu_us_per_event": (leader.cpu_seconds - cpu) / events * 1e6}
    found["server_cpu_us_per_event"] = (server.cpu_seconds() - servers) / events * 1e6
    if mirrors:
        used = sum(child.cpu_seconds for child in mirrors) - sum(theirs)
        found["mirror_cpu_us_per_event"] = used / len(mirrors) / events * 1e6
    for who, samples in latencies.items():
        samples.sort()
        found[f"{who}_p50_us"] = samples[len(samples) // 2]
        found[f"{who}_p99_us"] = samples[len(samples) * 99 // 100]
    jetstream = server.monitor("jsz")
    found["stream_megabytes"] = (jetstream["memory"] + jetstream["storage"]) / 1e6
    return found


def join() -> dict[str, Result]:
    """A mirror without a block joins: from the first sight of its block to the last row, and the same for its start."""
    with cluster() as running:
        words = [sys.executable, "-c", LEADER, running.server.url, running.name, str(JOIN_SYMBOLS), str(JOIN_LENGTH)]
        running.stack.callback(unlink, running.name)
        leader = running.stack.enter_context(Child(*running.home.command(words)))
        leader.line()
        starts, joins = [], []
        for number in range(1, JOINS + 1):
            place = running.place()
            began = time.monotonic()
            block, child = running.mirror(number, place)
            starts.append(until(Path("/dev/shm", block).exists, "a mirror's block"))
            until(Rows(block).are_complete, "a mirror's rows")
            joins.append(time.monotonic() - began - starts[-1])
            child.__exit__()
    result = {
        "join_p50_s": statistics.median(joins),
        "join_max_s": max(joins),
        "start_p50_s": statistics.median(starts),
        "rows_per_second": JOIN_SYMBOLS * JOIN_LENGTH / statistics.median(joins),
    }
    label = f"late join of {JOIN_SYMBOLS} x {JOIN_LENGTH}"
    shown(label, result)
    join_seconds = result["join_p50_s"]
    told(label, "<= 1 s", f"{join_seconds:.2f} s", met=join_seconds <= 1)
    rate = result["rows_per_second"]
    told("rows to another host, a second", ">= 100,000", f"{rate:,.0f}", met=rate >= 100_000)
    return {label: result}


class Rows:
    """The rows of a block that fills: a symbol that is complete is not looked at again."""

    def __init__(self, block: str) -> None:
        self._block = block
        self._feed: candleshm.Feed | None = None
        self._complete = 0

    def are_complete(self) -> bool:
        """Whether every symbol has a whole window of final rows."""
        try:
            self._feed = self._feed or candleshm.attach(self._block)
            symbols = self._feed.symbols
            while self._complete < len(symbols) and len(self._feed[symbols[self._complete]].view()) >= JOIN_LENGTH - 1:
                self._complete += 1
        except candleshm.CandleShmError:
            return False
        return len(symbols) == self._complete == JOIN_SYMBOLS


def kills() -> dict[str, Result]:
    """Leaders are killed; how long the mirror's reader waits for a row of the next one."""
    with tempfile.TemporaryDirectory() as folder:
        found = kill_leaders(f"bench-kills-{os.getpid()}", Path(folder), KILLS)
    waits = sorted(found.waits_seconds)
    result = {"p50_s": statistics.median(waits), "max_s": waits[-1], "kills": len(waits), "rows_checked": found.rows}
    shown("leader killed, next row at a mirror", result)
    told("leader killed, next row at a mirror, slowest", "<= 3 s", f"{waits[-1]:.2f} s", met=waits[-1] <= 3)
    return {"leader killed": result}


PARTS: dict[str, Callable[[], dict[str, Result]]] = {"server": server, "latency": latency, "join": join, "kills": kills}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    subprocess.run(BUILD, cwd=PROGRAMS.parents[2], check=True)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    results: dict[str, Result] = {}
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            results |= part()
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
