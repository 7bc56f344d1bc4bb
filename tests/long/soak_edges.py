"""An hour at the edges: ``make soak-edges`` or ``python -m tests.long.soak_edges [--seconds 3600]``.

A real `candleshm serve` with 1s candles and a derived block runs against the simulated exchange, in real time. Every
few seconds one thing goes wrong, drawn at random: the block's name is removed, the collector is killed or stopped and
started again, another length supersedes the block, symbols are halted and come back, an address swallows packets, the
exchange's clock is set, everything answers 503, the runtime directory disappears. Readers attach once, at the
beginning, and never again.

Judged, and told by the exit code:

- no wrong row: every final row that a reader gets equals the exchange's, bit for bit, in the block and the derived one;
- no reader left behind: after every event each reader sees a candle that closed later, for every symbol that trades;
- no symbol stalled by another: a halted or refused symbol does not hold up the closes of the others;
- no row lost: a reader that had a full window keeps it when collectors come and go;
- a log that a person can read: no more than a few lines for each event.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from queue import Empty
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

import candleshm
from candleshm.columns import OPEN_TIME_MS
from candleshm.sim import Fault, Instrument, Outage, SimulatedExchange, StreamFault, rate_limited, refused

FloatArray = npt.NDArray[np.float64]

HOST = "exchange.test"
SWALLOWING = "127.0.0.9"
STEP_MS = 1000
DERIVED, DERIVED_MS = "1m", 60_000
LENGTHS = (360, 420, 500, 640)
# Symbols that are halted and refused; the others have to go on as if nothing had happened.
VOLATILE = 4
WINDOW, WINDOW_MIN = 250, 225
RECOVER_SECONDS = 60.0
RETURN_SECONDS = 240.0
LINES_PER_EVENT_MAX = 8
PAUSE_SECONDS = (4.0, 14.0)


# The collector: the command itself, in a process whose resolver knows the exchange by two addresses.


def serve(arguments: list[str]) -> int:
    real = socket.getaddrinfo

    def two_addresses(host: Any, port: Any, *more: Any, **keywords: Any) -> Any:
        if host != HOST:
            return real(host, port, *more, **keywords)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in (SWALLOWING, "127.0.0.1")
        ]

    socket.getaddrinfo = two_addresses
    from candleshm.cli import main as command

    return command(["serve", *arguments]) or 0


class SwallowingAddress:
    """An address that answers nothing: a listener whose queue is full, so that Linux drops what knocks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets: list[socket.socket] = []

    def swallow(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((SWALLOWING, self._port))
        listener.listen(0)
        self._sockets = [listener]
        for _ in range(4):
            knocker = socket.socket()
            knocker.setblocking(False)
            knocker.connect_ex((SWALLOWING, self._port))
            self._sockets.append(knocker)

    def refuse(self) -> None:
        for one in self._sockets:
            one.close()
        self._sockets = []


# The readers.


@dataclass
class Report:
    """What a reader saw since its last report."""

    reader: str
    at_seconds: float
    newest_ms: dict[str, int]
    """Open time of the newest final row, by symbol."""
    fewest: dict[str, int]
    """The smallest number of final rows in the newest `WINDOW` slots, by symbol."""
    rows: list[tuple[str, str, FloatArray]]
    """Interval, symbol and final rows to judge."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Errors by class."""


def read_candles(name: str, derived: str, symbols: list[str], stop: Event, reports: Any) -> None:
    """Copy windows for as long as the run lasts; the feeds are opened once."""
    judged: dict[tuple[str, str], int] = {}
    again_seconds = 0.0
    with candleshm.attach(name) as feed, candleshm.attach(derived) as bigger:
        while not stop.is_set():
            whole = time.monotonic() >= again_seconds
            if whole:
                again_seconds = time.monotonic() + 30.0
            report = Report("candles", 0.0, {}, {}, [])
            for one, interval, chosen in ((feed, "1s", symbols), (bigger, DERIVED, symbols[VOLATILE:])):
                for symbol in chosen:
                    try:
                        rows = one[symbol].candles(WINDOW, closed_only=True)
                    except candleshm.CandleShmError as error:
                        report.refusals[type(error).__name__] += 1
                        continue
                    opens = rows[:, OPEN_TIME_MS]
                    fresh = rows if whole else rows[opens > judged.get((interval, symbol), 0)]
                    if len(fresh):
                        judged[interval, symbol] = int(fresh[-1, OPEN_TIME_MS])
                        report.rows.append((interval, symbol, np.array(fresh)))
                    if interval == "1s":
                        report.fewest[symbol] = len(rows)
                        if len(rows):
                            report.newest_ms[symbol] = int(opens[-1])
            report.at_seconds = time.monotonic()
            reports.put(report)
            time.sleep(0.4)


def read_views(name: str, derived: str, symbols: list[str], stop: Event, reports: Any) -> None:
    """Look at windows in place."""
    del derived
    judged: dict[str, int] = {}
    with candleshm.attach(name) as feed:
        while not stop.is_set():
            report = Report("views", 0.0, {}, {}, [])
            for symbol in symbols:
                try:
                    view = feed[symbol].view(WINDOW)
                    rows = np.array(view.array)
                    if not view.valid():
                        continue
                except candleshm.CandleShmError as error:
                    report.refusals[type(error).__name__] += 1
                    continue
                rows = rows[~np.isnan(rows[:, candleshm.CLOSE])]
                fresh = rows[rows[:, OPEN_TIME_MS] > judged.get(symbol, 0)]
                if len(fresh):
                    judged[symbol] = int(fresh[-1, OPEN_TIME_MS])
                    report.rows.append(("1s", symbol, fresh))
                if len(rows):
                    report.newest_ms[symbol] = int(rows[-1, OPEN_TIME_MS])
            report.at_seconds = time.monotonic()
            reports.put(report)
            time.sleep(0.4)


def read_closes(name: str, derived: str, symbols: list[str], stop: Event, reports: Any) -> None:
    """Sleep until the next close of the symbols that are never halted, over and over."""
    del derived
    with candleshm.attach(name) as feed:
        while not stop.is_set():
            report = Report("closes", 0.0, {}, {}, [])
            try:
                closed = feed.wait_closed(symbols=symbols[VOLATILE:], timeout=1.0)
            except candleshm.CandleShmError as error:
                report.refusals[type(error).__name__] += 1
            else:
                report.newest_ms = dict.fromkeys(symbols[VOLATILE:], closed.open_time_ms)
            report.at_seconds = time.monotonic()
            reports.put(report)


READERS = {"candles": read_candles, "views": read_views, "closes": read_closes}


# The run.


@dataclass
class Halted:
    """A symbol that does not trade for a while, and its way back."""

    instrument: Instrument
    since_ms: int
    """Open time of the first candle that the exchange does not have."""
    until_seconds: float
    returned_ms: int | None = None
    deadline_seconds: float = 0.0


class EdgesRun:
    """One run: the exchange, the collector of the moment, the readers, and what came of it."""

    def __init__(self, seconds: float, count: int, seed: int) -> None:
        self.seconds = seconds
        self.random = Random(seed)
        self.name = f"test-{os.getpid()}-edges"
        self.derived = f"{self.name}-{DERIVED}"
        self.place = Path(tempfile.mkdtemp(prefix="candleshm-edges-"))
        self.runtime = self.place / "run"
        self.runtime.mkdir(mode=0o700)
        self.log = self.place / "log"
        self.exchange = SimulatedExchange(seed=seed, symbols=count + 10, spot_limit=100_000)
        self.symbols: list[str] = []
        self.length = LENGTHS[0]
        self.collector: subprocess.Popen[bytes] | None = None
        self.halted: dict[str, Halted] = {}
        self.refused: set[str] = set()
        self.newest: dict[str, dict[str, int]] = defaultdict(dict)
        self.faults: list[str] = []
        self.rows = 0
        self.refusals: dict[str, Counter[str]] = defaultdict(Counter)
        self.recovery: dict[str, list[float]] = defaultdict(list)
        self.lines: dict[str, list[int]] = defaultdict(list)
        self.fewest = WINDOW

    # The world.

    def run(self) -> list[str]:
        context = multiprocessing.get_context("spawn")
        stop, self.reports = context.Event(), context.Queue()
        readers: list[Any] = []
        with self.exchange:
            trading = [one.symbol for one in self.exchange.truth.instruments("SPOT") if one.status == "TRADING"]
            self.symbols = [one for one in trading if one.isascii()][: len(trading) - 10]
            self.address = SwallowingAddress(int(self.exchange.base_url.rsplit(":", 1)[1]))
            try:
                self.start_collector()
                self.await_loaded()
                for label, target in READERS.items():
                    arguments = (self.name, self.derived, self.symbols, stop, self.reports)
                    readers.append(context.Process(target=target, args=arguments, name=label, daemon=True))
                    readers[-1].start()
                self.recover("start")
                self.go_through(readers)
            finally:
                stop.set()
                self.stop_collector(signal.SIGTERM)
                for reader in readers:
                    with suppress(Empty):
                        while True:
                            self.reports.get_nowait()
                    reader.join(10)
                    reader.kill()
                self.address.refuse()
        left = [entry for entry in os.listdir("/dev/shm") if self.name in entry]
        if left:
            self.faults.append(f"left in /dev/shm: {left}")
        return self.faults

    def go_through(self, readers: list[Any]) -> None:
        events: Mapping[str, Callable[[], None]] = {
            "killed": self.kill,
            "stopped and started": self.restart,
            "superseded": self.supersede,
            "name removed": self.remove_name,
            "derived name removed": self.remove_derived_name,
            "opened by a foreign process": self.open_elsewhere,
            "runtime directory removed": self.remove_runtime,
            "address swallows": self.swallow,
            "clock set": self.set_clock,
            "outage": self.break_everything,
            "rate limited": self.limit,
            "halted": self.halt,
            "refused": self.refuse,
        }
        end_seconds = time.monotonic() + self.seconds
        bag: list[str] = []
        while time.monotonic() < end_seconds:
            if not bag:
                bag = list(events)
                self.random.shuffle(bag)
            kind = bag.pop()
            lines = self.count_lines()
            began = time.strftime("%H:%M:%S")
            events[kind]()
            took = self.recover(kind)
            self.watch(self.random.uniform(*PAUSE_SECONDS))
            self.lines[kind].append(self.count_lines() - lines)
            print(f"{began} {kind}: recovered after {took:.1f} s, {self.lines[kind][-1]} lines", flush=True)
            for reader in readers:
                if not reader.is_alive():
                    self.faults.append(f"reader {reader.name} ended, exit code {reader.exitcode}")
                    return
        self.mend_everything()
        self.recover("end")
        self.check_windows()

    # What goes wrong.

    def kill(self) -> None:
        self.stop_collector(signal.SIGKILL)
        self.watch(self.random.uniform(0, 3))
        self.start_collector()

    def restart(self) -> None:
        self.stop_collector(signal.SIGTERM)
        self.watch(self.random.uniform(0, 3))
        self.start_collector()

    def supersede(self) -> None:
        self.stop_collector(signal.SIGKILL)
        self.length = self.random.choice([length for length in LENGTHS if length != self.length])
        self.start_collector()

    def remove_name(self) -> None:
        Path("/dev/shm", self.name).unlink(missing_ok=True)

    def remove_derived_name(self) -> None:
        Path("/dev/shm", self.derived).unlink(missing_ok=True)

    def open_elsewhere(self) -> None:
        """Let a Python that knows nothing of us open the block: before 3.13 its resource tracker removes the name."""
        code = f"from multiprocessing.shared_memory import SharedMemory as S; S({self.name!r}).close()"
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    def remove_runtime(self) -> None:
        shutil.rmtree(self.runtime / f"candleshm-{os.getuid()}", ignore_errors=True)

    def swallow(self) -> None:
        self.address.swallow()
        self.exchange.faults.add(Fault(kind="reset", count=8))
        self.exchange.stream_faults.add(StreamFault(kind="close", count=1))
        self.watch(15)
        self.address.refuse()

    def set_clock(self) -> None:
        self.exchange.skew_ms = max(-6000, min(6000, self.exchange.skew_ms + self.random.randint(-2500, 2500)))

    def break_everything(self) -> None:
        self.exchange.faults.add(Fault(kind="status", status=503))
        self.exchange.stream_faults.add(StreamFault(kind="stall"))
        self.exchange.stream_faults.add(StreamFault(kind="refuse"))
        self.watch(self.random.uniform(10, 25))
        self.exchange.faults.clear()
        self.exchange.stream_faults.clear()

    def limit(self) -> None:
        self.exchange.faults.add(rate_limited(2, count=1))

    def halt(self) -> None:
        """Let a symbol stop trading; it comes back while other things happen."""
        symbol = self.random.choice(self.symbols[:VOLATILE])
        if symbol in self.halted:
            return
        instrument = self.exchange.truth.instrument("SPOT", symbol)
        now_ms = self.exchange.now_ms() // STEP_MS * STEP_MS
        self.exchange.truth.delist("SPOT", symbol, now_ms)
        # Candles go on, flat, to the end of the minute in which trading ended.
        last_ms = int(self.exchange.truth.floats("SPOT", symbol, "1s", now_ms - 60_000, now_ms + 120_000)[-1, 0])
        until_seconds = time.monotonic() + (last_ms - now_ms) / 1000 + self.random.uniform(10, 90)
        self.halted[symbol] = Halted(instrument, last_ms + STEP_MS, until_seconds)

    def refuse(self) -> None:
        symbol = self.random.choice(self.symbols[:VOLATILE])
        self.refused.add(symbol)
        until_ms = self.exchange.now_ms() + 15_000
        self.exchange.faults.add(refused(400, -1122, "Invalid symbol status.", symbol=symbol, until_ms=until_ms))

    def mend_everything(self) -> None:
        self.exchange.faults.clear()
        self.exchange.stream_faults.clear()
        self.address.refuse()
        for halted in self.halted.values():
            halted.until_seconds = 0.0
        deadline = time.monotonic() + RETURN_SECONDS
        while self.halted and time.monotonic() < deadline:
            self.watch(1)

    # The collector.

    def start_collector(self) -> None:
        port = self.exchange.base_url.rsplit(":", 1)[1]
        words = (
            f"--market spot --interval 1s --symbols {','.join(self.symbols)} --length {self.length} --name {self.name} "
            f"--base-url http://{HOST}:{port} --ws-url ws://{HOST}:{port}/spot --derive {DERIVED} "
            f"--live {self.random.choice(['ws', 'rest'])} --cache-dir {self.place / 'cache'}"
        )
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.runtime)}
        with self.log.open("ab") as log:
            self.collector = subprocess.Popen(
                [sys.executable, "-m", "tests.long.soak_edges", "serve", *words.split()],
                stdout=log,
                stderr=log,
                env=environment,
            )

    def stop_collector(self, how: signal.Signals) -> None:
        if self.collector is None:
            return
        if self.collector.poll() is not None:
            self.faults.append(f"the collector ended by itself, exit code {self.collector.returncode}")
        self.collector.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            self.collector.wait(15)
        if self.collector.poll() is None:
            self.faults.append("the collector did not stop within 15 s")
            self.collector.kill()
        self.collector = None

    def await_loaded(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with suppress(candleshm.CandleShmError), candleshm.attach(self.name) as feed:
                if feed.health.ready and candleshm.attach(self.derived).health.ready:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"not loaded within two minutes; the log: {self.log}")

    def count_lines(self) -> int:
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    # The judge.

    def recover(self, kind: str) -> float:
        """Wait until every reader has a candle that closed after now, for every symbol that has to go on."""
        after_ms = self.exchange.now_ms()
        began = time.monotonic()
        while (behind := self.behind(after_ms)) and time.monotonic() - began < RECOVER_SECONDS:
            self.watch(0.2)
        took = time.monotonic() - began
        self.recovery[kind].append(took)
        if behind:
            self.faults.append(f"{time.strftime('%H:%M:%S')} {kind}: left behind after {took:.0f} s: {behind}")
        return took

    def behind(self, after_ms: int) -> str:
        left = []
        for reader in READERS:
            slow = [one for one in self.symbols[VOLATILE:] if self.newest[reader].get(one, 0) < after_ms]
            if slow:
                left.append(f"{reader} {' '.join(slow[:3])}{f' and {len(slow) - 3} more' if len(slow) > 3 else ''}")
        return ", ".join(left)

    def watch(self, seconds: float) -> None:
        """Take in reports for a while, and let halted symbols come back when it is time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.let_return()
            with suppress(Empty):
                self.judge(self.reports.get(timeout=min(left, 0.5)))

    def judge(self, report: Report) -> None:
        self.newest[report.reader].update(report.newest_ms)
        self.refusals[report.reader] += report.refusals
        for interval, symbol, rows in report.rows:
            self.rows += len(rows)
            truth = self.exchange.truth.floats(
                "SPOT", symbol, interval, int(rows[0, OPEN_TIME_MS]), int(rows[-1, OPEN_TIME_MS]) + 1
            )
            truth = truth[np.isin(truth[:, OPEN_TIME_MS], rows[:, OPEN_TIME_MS])]
            same = (truth == rows).all(axis=1) if len(truth) == len(rows) else np.zeros(len(rows), bool)
            # Quote volumes of derived candles come from float64, not from the exchange's text.
            if interval != "1s" and len(truth) == len(rows):
                same = np.isclose(truth, rows, rtol=1e-12, atol=0).all(axis=1)
            if not same.all():
                wrong = rows[~same][0]
                self.faults.append(
                    f"{time.strftime('%H:%M:%S')} {report.reader}: {np.count_nonzero(~same)} wrong rows of {symbol} "
                    f"{interval}, the first opens {int(wrong[OPEN_TIME_MS])}: {wrong[1:9].tolist()}"
                )
        steady = [report.fewest[one] for one in self.symbols[VOLATILE:] if one in report.fewest]
        if steady and min(steady) < self.fewest:
            self.fewest = min(steady)
            if self.fewest < WINDOW_MIN:
                self.faults.append(f"{time.strftime('%H:%M:%S')} {report.reader}: {self.fewest} of {WINDOW} rows left")

    def let_return(self) -> None:
        now = time.monotonic()
        for symbol, halted in list(self.halted.items()):
            if halted.returned_ms is None and now >= halted.until_seconds:
                halted.returned_ms = self.exchange.now_ms() // STEP_MS * STEP_MS + STEP_MS
                halted.deadline_seconds = now + RETURN_SECONDS
                outage = Outage(start_ms=halted.since_ms, end_ms=halted.returned_ms, market="SPOT", symbol=symbol)
                self.exchange.truth.add_outage(outage)
                self.exchange.truth.enlist(halted.instrument)
            elif halted.returned_ms is not None:
                newest_ms = self.newest["candles"].get(symbol, 0)
                if newest_ms >= halted.returned_ms:
                    self.recovery["halted symbol back"].append(now - halted.deadline_seconds + RETURN_SECONDS)
                    del self.halted[symbol]
                elif now > halted.deadline_seconds:
                    self.faults.append(f"{symbol} trades again and has no new candle after {RETURN_SECONDS:.0f} s")
                    del self.halted[symbol]

    def check_windows(self) -> None:
        """Demand whole windows, once everything had time to settle."""
        deadline = time.monotonic() + RECOVER_SECONDS
        while (found := self.not_whole()) and time.monotonic() < deadline:
            self.watch(1)
        self.faults += found
        health = candleshm.attach(self.name).health
        if not health.ready:
            self.faults.append(f"not ready at the end: {health}")

    def not_whole(self) -> list[str]:
        found = []
        with candleshm.attach(self.name) as feed:
            for symbol in self.symbols:
                rows = feed[symbol].candles(WINDOW, closed_only=True)
                told = self.exchange.truth.floats(
                    "SPOT", symbol, "1s", int(rows[0, OPEN_TIME_MS]), int(rows[-1, OPEN_TIME_MS]) + 1
                )
                if len(rows) != len(told) or not np.array_equal(rows, told):
                    found.append(f"{symbol} at the end: {len(rows)} rows, the exchange has {len(told)}")
        return found

    def summary(self) -> str:
        lines = [
            f"{'event':<28} {'times':>5} {'recovered after s: median':>26} {'longest':>8} {'log lines: median':>18}"
        ]
        for kind, seconds in sorted(self.recovery.items()):
            counts = self.lines.get(kind)
            median = f"{statistics.median(counts):.0f}" if counts else "-"
            lines.append(
                f"{kind:<28} {len(seconds):>5} {statistics.median(seconds):>26.1f} {max(seconds):>8.1f} {median:>18}"
            )
        total, events = self.count_lines(), sum(map(len, self.lines.values()))
        lines.append(f"{self.rows} rows judged; fewest rows in a window of {WINDOW}: {self.fewest}")
        lines.append(f"{events} events, {total} lines in the log {self.log}")
        lines += [f"{reader}: {dict(kinds)}" for reader, kinds in self.refusals.items() if kinds]
        if events and total > LINES_PER_EVENT_MAX * events:
            self.faults.append(f"{total} lines in the log of {events} events: nobody reads that in a minute")
        return "\n".join(lines)


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        sys.exit(serve(sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--symbols", type=int, default=24)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2), "big"))
    arguments = parser.parse_args()
    print(json.dumps(vars(arguments)), flush=True)
    run = EdgesRun(arguments.seconds, arguments.symbols, arguments.seed)
    run.run()
    print(run.summary())
    print("\n".join(run.faults) if run.faults else "nothing was wrong, nobody was left behind")
    sys.exit(bool(run.faults))


if __name__ == "__main__":
    main()
