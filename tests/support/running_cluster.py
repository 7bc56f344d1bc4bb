"""A whole cluster as processes: exchange, NATS nodes, collectors, mirrors and a witness, each where a test puts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import candleshm
from candleshm.columns import OPEN_TIME_MS
from candleshm.reader.feed import Feed
from candleshm.sim import SimulatedExchange
from tests.support.commanding import CLI
from tests.support.final_rows import Judge, Witness, witnessing
from tests.support.nats_servers import HERE, NatsServer, Place, nats_cluster, nats_server

__all__ = ["Member", "RunningCluster", "running_cluster"]

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
LENGTH = 120
DEADLINE_SECONDS = 150.0


@dataclass
class Member:
    """A collector or a mirror: a process, and the block that it keeps on its host."""

    block: str
    words: Sequence[str]
    log_path: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    _feed: Feed | None = None

    def start(self) -> None:
        """Start the process."""
        assert self.process is None
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **self.environment}
            )

    @property
    def pid(self) -> int:
        """Return the process of a member that runs."""
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """Return what all lives of it have logged."""
        return self.log_path.read_text(errors="replace")

    @property
    def feed(self) -> Feed:
        """Return its block, attached once; waits until there is one."""
        if self._feed is None:
            self._feed = until(self._attached, lambda: f"{self.block} has no block; the log: {self.log}")
        return self._feed

    def _attached(self) -> Feed | None:
        assert self.process is None or self.process.poll() is None, f"{self.block} ended: {self.log}"
        try:
            return candleshm.attach(self.block)
        except candleshm.BlockNotFound:
            return None

    def kill(self) -> None:
        """Kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def end(self) -> None:
        """End it in order."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(DEADLINE_SECONDS) == 0, self.log
        self.process = None

    def pause(self) -> None:
        """Stop the process where it is (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        os.kill(self.pid, signal.SIGCONT)


@dataclass
class RunningCluster:
    """What runs, and what a test asks of all of it."""

    name: str
    folder: Path
    exchange: SimulatedExchange
    servers: list[NatsServer]
    witness: Witness
    judge: Judge
    symbols: tuple[str, ...]
    length: int
    live: str
    universe: str = ""
    """What collectors serve, if it is not a list of `symbols`."""
    collectors: list[Member] = field(default_factory=list)
    mirrors: list[Member] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def urls(self) -> str:
        """Return every node, as `--cluster` takes them."""
        return ",".join(server.url for server in self.servers)

    @property
    def members(self) -> list[Member]:
        """Return collectors and mirrors."""
        return [*self.collectors, *self.mirrors]

    def collect(self, *more: str, place: Place = HERE, environment: dict[str, str] | None = None) -> Member:
        """Start a collector of the feed."""
        number = len(self.collectors) + 1
        words = ["serve", "--market", "spot", "--interval", "1s", "--symbols", self.universe or ",".join(self.symbols)]
        words += ["--length", str(self.length), "--name", self.name, "--as", f"{self.name}-c{number}"]
        words += ["--base-url", self.exchange.base_url, "--update-interval-seconds", "0.5", "--cluster", self.urls]
        words += ["--ws-url", self.exchange.ws_url] if self.live == "ws" else []
        member = self._member(f"{self.name}-c{number}", words + list(more), place, environment)
        self.collectors.append(member)
        return member

    def mirror(self, *more: str, place: Place = HERE, environment: dict[str, str] | None = None) -> Member:
        """Start a mirror of the feed."""
        number = len(self.mirrors) + 1
        words = ["mirror", self.name, "--cluster", self.urls, "--as", f"{self.name}-m{number}", *more]
        member = self._member(f"{self.name}-m{number}", words, place, environment)
        self.mirrors.append(member)
        return member

    def _member(self, block: str, words: Sequence[str], place: Place, environment: dict[str, str] | None) -> Member:
        runtime = self.folder / block
        runtime.mkdir(mode=0o700)
        ready = {"XDG_RUNTIME_DIR": str(runtime), **(environment or {})}
        member = Member(block, place.command([*CLI, *words]), self.folder / f"{block}.log", ready)
        self._stack.callback(member.kill)
        member.start()
        return member

    def leader(self) -> Member:
        """Return the collector that leads, as all other living members have it; waits until they agree."""
        found: Member = until(self._leader, self.describe)
        return found

    def _leader(self) -> Member | None:
        living = [member for member in self.members if member.process is not None]
        sources = {member.feed.health.source for member in living}
        pids = {int(source.rpartition("/")[2]) for source in sources if source}
        found = [member for member in self.collectors if member.process is not None and {member.pid} == pids]
        return found[0] if found else None

    def status(self) -> dict[str, Any]:
        """Return what `candleshm cluster status --json` shows."""
        words = [*CLI, "cluster", "status", "--cluster", self.urls, "--json"]
        with self.servers[0].place.inside():
            shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=DEADLINE_SECONDS)
        found: dict[str, Any] = json.loads(shown.stdout)
        return found

    def until_equal(self, *members: Member, seconds: int = 3) -> None:
        """Wait until each has `seconds` candles more than the exchange had at the call, a full window, and all is true.

        So a fault is over: all is whole, current, the exchange's bit for bit, and no reader ever saw anything else.
        """
        after_ms = self.exchange.now_ms() // 1000 * 1000 + (seconds - 1) * 1000
        for member in members or self.members:
            until(lambda member=member: self._is_whole(member, after_ms), self.describe)  # type: ignore[misc]
        self.assert_no_lies()

    def _is_whole(self, member: Member, after_ms: int) -> bool:
        feed = member.feed
        for symbol in self.symbols:
            if symbol not in feed:
                return False
            series = feed[symbol]
            rows = series.candles(closed_only=True)
            if series.gaps() or not len(rows) or rows[-1, OPEN_TIME_MS] < after_ms:
                return False
            if len(rows) < feed.length - 2 or (np.diff(rows[:, OPEN_TIME_MS]) != 1000).any():
                return False
            first_ms, last_ms = int(rows[0, OPEN_TIME_MS]), int(rows[-1, OPEN_TIME_MS])
            true = self.exchange.truth.floats("SPOT", symbol, "1s", first_ms, last_ms + 1)
            # A correction is on its way for a moment; a lie would stay.
            if true.tobytes() != np.ascontiguousarray(rows).tobytes():
                return False
        return True

    def assert_no_lies(self) -> None:
        """Demand that the witness has seen nothing but the truth."""
        assert self.judge.lies(self.witness.records()) == []

    def describe(self) -> str:
        """Return where everybody stands, and the ends of their logs: for a test that waits in vain."""
        lines = [f"the exchange is at {self.exchange.now_ms()}"]
        for member in self.members:
            state = "not running" if member.process is None else f"pid {member.pid}, exit code {member.process.poll()}"
            lines.append(f"--- {member.block}: {state}")
            lines.append(str(next((one for one in candleshm.blocks() if one.name == member.block), "no block")))
            lines += member.log.splitlines()[-15:]
        return "\n".join(lines)


@contextmanager
def running_cluster(
    name: str,
    folder: Path,
    *,
    places: Sequence[Place] = (HERE,),
    exchange_place: Place = HERE,
    symbols: tuple[str, ...] = SYMBOLS,
    length: int = LENGTH,
    live: str = "rest",
    derived: Sequence[str] = (),
    witness_prefix: Sequence[str] = (),
    **nats: Any,
) -> Iterator[RunningCluster]:
    """Run the exchange and a NATS node in each place; collectors and mirrors are started by the test.

    Up to six of each are witnessed. `derived` are intervals that members are told to derive.
    """
    blocks = [f"{name}-{kind}{number}" for kind in "cm" for number in range(1, 7)]
    derivatives = {f"{block}-{interval}": interval for block in blocks for interval in derived}
    with ExitStack() as stack:
        with exchange_place.inside():
            exchange = SimulatedExchange(exchange_place.address, symbols=len(symbols) + 3, spot_limit=100_000)
            stack.enter_context(exchange)
        if len(places) == 1:
            servers = [stack.enter_context(nats_server(places[0], **nats))]
        else:
            servers = stack.enter_context(nats_cluster(places, **nats))
        witness = stack.enter_context(witnessing(folder / "seen", [*blocks, *derivatives], witness_prefix))
        judge = Judge(exchange, "SPOT", "1s", derivatives)
        cluster = RunningCluster(name, folder, exchange, servers, witness, judge, symbols, length, live)
        # Who is killed leaves its blocks.
        stack.callback(_unlink, name)
        stack.callback(cluster._stack.close)
        yield cluster
        cluster.assert_no_lies()


def _unlink(name: str) -> None:
    for left in Path("/dev/shm").glob(f"*{name}*"):
        left.unlink(missing_ok=True)


def until(question: Callable[[], Any], complaint: Callable[[], str]) -> Any:
    """Ask until the answer is true, and return it; the deadline only guards against waiting for ever."""
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while True:
        if answer := question():
            return answer
        assert time.monotonic() < deadline_seconds, complaint()
        time.sleep(0.05)


def in_time_namespace(offset_seconds: int) -> list[str]:
    """Return the words that give a process other boot and monotonic clocks than the machine's."""
    offset = str(offset_seconds)
    return ["unshare", "--time", "--boottime", offset, "--monotonic", offset, "--fork", "--kill-child"]
