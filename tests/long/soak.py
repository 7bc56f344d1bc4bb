"""The long proof that nothing grows and nothing is wrong: `python -m tests.long.soak [--seconds 7200]`.

Every process is real and has its own memory: an exchange that fails all the time, a collector of candles of 1s, and
four readers: `candles`, `views`, `panel`, `waits`. Each reader compares what it gets with the exchange's truth while it
goes, bit for bit, and so finds a torn row as well as a wrong one.

Time is accelerated: exchange and collector share a clock that runs `--rate` times as fast as the machine's, so 7200
seconds of candles pass in 12 minutes at rate 10. What that means: as many candles close, as many rows are published
and as many ring slots are overwritten as in two hours; answers, timeouts of sockets and reads take real time, so each
symbol is asked once per several candles, and an outage of a second is one of ten. Ages are real seconds.

Judged at the end, and told by the exit code:

- no wrong row, no row that passed by unseen (`candles` sees every row of every symbol), no close left out (`waits`);
- once the faults end, every window is complete: no gap, and equal to the truth from end to end;
- memory of each process: median of the last quarter of the samples against that of the second quarter, at most 5 % and
  4 MB more. RssAnon counts: the block itself is shared, and cannot grow;
- file descriptors and threads likewise, at most 2 more. The exchange is shown, and not judged.

``make soak-live`` or ``--live ws``: candles come by streams, in real time (rate 1; their pace cannot be faster), and
streams fail as well: events lost, twice, late, out of order, connections reset, mute, stalled, shut down. Judged
besides: rows were proven by trade ids, audits found nothing, and requests took less than a tenth of the weight limit.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import requests

import candleshm
from candleshm.collector.collector import Collector
from candleshm.collector.status import CollectorStatus
from candleshm.columns import CLOSE, NAMES, OPEN_TIME_MS
from candleshm.config import CollectorConfig
from candleshm.sim import Fault, SimulatedExchange, StreamFault, Truth, html, rate_limited
from candleshm.stream.status import StreamStatus
from candleshm.system.clock import SystemClock

FloatArray = npt.NDArray[np.float64]

SEED = 11
STEP_MS = 1000
LENGTH = 2880
WAYS = ("candles", "views", "panel", "waits")
SAMPLES = 48
SETTLE_SECONDS = 180.0
GROWTH_SHARE, GROWTH_KB, GROWTH_COUNT = 0.05, 4096, 2
FIELDS = ("open", "close", "trades")
# Shares of the requests for candles; latencies, trickle and hang take real time.
FAULTS = (
    Fault(kind="latency", path="/klines", rate=0.05, delay_ms=150),
    Fault(kind="latency", path="/klines", rate=0.005, delay_ms=1500),
    Fault(kind="status", status=500, path="/klines", rate=0.01),
    html(502, path="/klines", rate=0.002),
    Fault(kind="reset", path="/klines", rate=0.01),
    Fault(kind="truncate", path="/klines", rate=0.01),
    Fault(kind="trickle", path="/klines", rate=0.002, bytes_per_second=20_000),
    Fault(kind="hang", path="/klines", rate=0.0002),
    rate_limited(1, path="/klines", rate=0.0003),
    rate_limited(path="/klines", rate=0.00003),
)
# Shares of the events. At 500 symbols a share of 1e-6 is one in half an hour.
STREAM_FAULTS = (
    StreamFault(kind="lose", rate=2e-4),
    StreamFault(kind="unclosed", rate=2e-4),
    StreamFault(kind="duplicate", rate=1e-2),
    StreamFault(kind="delay", rate=1e-3, delay_ms=400),
    StreamFault(kind="reorder", rate=2e-4),
    StreamFault(kind="fragment", rate=1e-3),
    StreamFault(kind="garbage", rate=1e-4),
    StreamFault(kind="mute", rate=1e-5),
    StreamFault(kind="reset", rate=4e-6),
    StreamFault(kind="stall", rate=2e-6),
    StreamFault(kind="close", rate=2e-6),
    StreamFault(kind="shutdown", rate=2e-6, delay_ms=5000),
    StreamFault(kind="refuse", rate=0.1),
    StreamFault(kind="deaf", rate=0.02),
)
SPOT_LIMIT, WEIGHT_SHARE_MAX = 6000, 0.1


@dataclass(frozen=True)
class Run:
    """What all processes of a run agree on."""

    name: str
    symbols: int
    rate: float
    origin_seconds: float
    start_ms: int
    live: str

    @property
    def streams(self) -> bool:
        return self.live == "ws"

    def truth(self) -> Truth:
        return Truth(SEED, symbols=self.symbols, as_of_ms=self.start_ms)

    def traded(self) -> list[str]:
        return [item.symbol for item in self.truth().instruments("SPOT") if item.status == "TRADING"][: self.symbols]


class FastClock(SystemClock):
    """The machine's clock, faster; and a wall clock that keeps step with it."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def monotonic_seconds(self) -> float:
        """Return local time, which passes `rate` times as fast since the origin."""
        origin_seconds = self._run.origin_seconds
        return origin_seconds + (super().monotonic_seconds() - origin_seconds) * self._run.rate

    def sleep_seconds(self, until_seconds: float) -> float:
        """Return real seconds."""
        return super().sleep_seconds(until_seconds) / self._run.rate

    def epoch_ms(self) -> int:
        """Return the exchange's time."""
        return self._run.start_ms + round((self.monotonic_seconds() - self._run.origin_seconds) * 1000)


# The processes.


def serve_exchange(run: Run, stop: Event, results: Any) -> None:
    clock = FastClock(run)
    limit = SPOT_LIMIT if run.streams else 10**7
    with SimulatedExchange(truth=run.truth(), spot_limit=limit, clock_ms=clock.epoch_ms) as exchange:
        exchange.faults.add(*FAULTS)
        if run.streams:
            exchange.stream_faults.add(*STREAM_FAULTS)
        results.put((exchange.base_url, exchange.ws_url_of("SPOT") if run.streams else None))
        stop.wait()


def collect(run: Run, base_url: str, ws_url: str | None, stop: Event, results: Any) -> None:
    logging.getLogger("candleshm").setLevel(logging.ERROR)
    config = CollectorConfig(
        market="SPOT",
        interval="1s",
        symbols=run.traded(),
        length=LENGTH,
        name=run.name,
        base_url=base_url,
        ws_url=ws_url,
        live="ws" if run.streams else "rest",
    )
    with Collector(config, clock=FastClock(run)) as collector:
        collector.wait_loaded()
        results.put("loaded")
        loaded = collector.status()
        stop.wait()
        status = collector.status()
        assert status is not None
        assert loaded is not None
        minutes = (status.elapsed_seconds - loaded.elapsed_seconds) / 60
        streamed = {} if status.stream is None else _streamed(status, status.stream)
        results.put(
            {
                **streamed,
                "weight a minute": round((status.weight_spent - loaded.weight_spent) / minutes),
                "requests": status.requests,
                "rows": status.rows,
                "corrections": status.corrections,
                "refused": status.refused,
                "holes": status.holes,
                **{f"errors {kind}": count for kind, count in status.errors.items()},
            }
        )


def _streamed(status: CollectorStatus, stream: StreamStatus) -> dict[str, int]:
    return {
        "events": stream.events,
        "stale events": stream.stale,
        "connections": stream.opened,
        "losses": stream.lost,
        "faulty frames": stream.faults,
        "proven by ids": stream.verified,
        "proven by answers": status.verified,
        "conflicts": stream.conflicts + status.conflicts,
        **{f"audited {result}": count for result, count in status.audit_rows.items()},
    }


def read(run: Run, way: str, stop: Event, results: Any) -> None:
    tally: Counter[str] = Counter()
    with candleshm.attach(run.name) as feed:
        passes = {"candles": _candles, "views": _views, "panel": _panel, "waits": _waits}[way](run, feed, tally)
        passes()
        results.put("up")
        while not stop.is_set():
            passes()
            tally["passes"] += 1
    results.put((way, dict(tally)))


@dataclass
class Judge:
    """Compares rows of one symbol with the truth, each once and in order."""

    truth: Truth
    symbol: str
    tally: Counter[str]
    next_ms: int | None = None

    def judge(self, rows: FloatArray, *, whole: bool) -> None:
        """Judge the rows that are new. With `whole` one that is not there yet is waited for, and must not pass by."""
        opens = rows[:, OPEN_TIME_MS]
        if len(rows) == 0:
            return
        if self.next_ms is None:
            self.next_ms = int(opens[0])
        if opens[0] > self.next_ms:
            if whole:
                self.tally["passed by"] += round((opens[0] - self.next_ms) / STEP_MS)
            self.next_ms = int(opens[0])
        fresh = rows[opens >= self.next_ms]
        if whole:
            # A gap that is being repaired: what lies behind it has its turn when it is closed.
            fresh = fresh[fresh[:, OPEN_TIME_MS] == self.next_ms + np.arange(len(fresh)) * STEP_MS]
        if len(fresh) == 0:
            return
        self.tally["rows"] += len(fresh)
        self.tally["wrong"] += wrong_rows(self.truth, self.symbol, fresh)
        self.next_ms = int(fresh[-1, OPEN_TIME_MS]) + STEP_MS


def wrong_rows(truth: Truth, symbol: str, rows: FloatArray) -> int:
    """Return how many closed rows are not the exchange's final candles, bit for bit."""
    told = truth.floats("SPOT", symbol, "1s", int(rows[0, OPEN_TIME_MS]), int(rows[-1, OPEN_TIME_MS]) + 1)
    told = told[np.isin(told[:, OPEN_TIME_MS], rows[:, OPEN_TIME_MS])]
    if len(told) != len(rows):
        return len(rows)
    return int(np.count_nonzero((told != rows).any(axis=1)))


def _candles(run: Run, feed: candleshm.Feed, tally: Counter[str]) -> Callable[[], None]:
    truth = run.truth()
    judges = [Judge(truth, symbol, tally) for symbol in feed.symbols]
    out = np.empty((LENGTH, 12))

    def read_all() -> None:
        for judge in judges:
            judge.judge(feed[judge.symbol].candles(closed_only=True, out=out), whole=True)

    return read_all


def _views(run: Run, feed: candleshm.Feed, tally: Counter[str]) -> Callable[[], None]:
    truth = run.truth()
    judges = [Judge(truth, symbol, tally) for symbol in feed.symbols]

    def read_all() -> None:
        for judge in judges:
            view = feed[judge.symbol].view(LENGTH // 2)
            rows = np.array(view.array)
            if view.valid():
                judge.judge(rows[~np.isnan(rows[:, CLOSE])], whole=False)
            else:
                tally["refused views"] += 1

    return read_all


def _panel(run: Run, feed: candleshm.Feed, tally: Counter[str]) -> Callable[[], None]:
    truth = run.truth()
    columns = [NAMES.index(name) for name in FIELDS]
    next_ms = 0

    def read_all() -> None:
        nonlocal next_ms
        panel = feed.panel(fields=FIELDS, n=120)
        fresh = panel.open_time_ms >= next_ms
        if not fresh.any():
            time.sleep(0.02)
            return
        opens = panel.open_time_ms[fresh]
        values = panel.array[fresh]
        for place, symbol in enumerate(panel.symbols):
            told = truth.floats("SPOT", symbol, "1s", int(opens[0]), int(opens[-1]) + 1)[:, columns]
            there = ~np.isnan(values[:, place]).any(axis=1)
            tally["rows"] += int(np.count_nonzero(there))
            tally["blank cells"] += int(np.count_nonzero(~there))
            tally["wrong"] += int(np.count_nonzero((told != values[:, place]).any(axis=1) & there))
        # The newest row is final for all; one before it that is blank now is not asked for again.
        next_ms = int(opens[-1]) + STEP_MS

    return read_all


def _waits(run: Run, feed: candleshm.Feed, tally: Counter[str]) -> Callable[[], None]:
    truth = run.truth()
    open_ms = feed.wait_closed(timeout=60).open_time_ms
    turn = 0

    def wait_one() -> None:
        nonlocal open_ms, turn
        try:
            closed = feed.wait_closed(open_ms, timeout=1.0)
        except candleshm.WaitTimeout:
            tally["timeouts"] += 1
            return
        assert closed.open_time_ms == open_ms
        tally["closes"] += 1
        # A few symbols of each close: the row that was waited for has to be there, final and right.
        for _ in range(3):
            symbol = feed.symbols[turn % len(feed)]
            turn += 1
            # Not `closed_only`: that ends before the first row that is not final, perhaps an older one.
            rows = feed[symbol].candles()
            row = rows[rows[:, OPEN_TIME_MS] == open_ms]
            tally["rows"] += len(row)
            tally["absent"] += 1 - len(row)
            if len(row):
                tally["wrong"] += wrong_rows(truth, symbol, row)
        open_ms += STEP_MS

    return wait_one


# The judge of the whole.


@dataclass(frozen=True)
class Sample:
    """What a process holds at one moment."""

    anonymous_kb: int
    shared_kb: int
    descriptors: int
    threads: int


def sample(pid: int) -> Sample:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return Sample(
        int(status["RssAnon"].split()[0]),
        int(status["RssShmem"].split()[0]),
        len(os.listdir(f"/proc/{pid}/fd")),
        int(status["Threads"]),
    )


def growth(label: str, samples: Sequence[Sample]) -> list[str]:
    """Return what grew, in words."""
    quarter = len(samples) // 4
    found = []
    for what, share, room in (
        ("anonymous_kb", GROWTH_SHARE, GROWTH_KB),
        ("descriptors", 0.0, GROWTH_COUNT),
        ("threads", 0.0, GROWTH_COUNT),
    ):
        before, after = (
            statistics.median(getattr(one, what) for one in part)
            for part in (samples[quarter : 2 * quarter], samples[-quarter:])
        )
        if after > before * (1 + share) + room:
            found.append(f"{label}: {what} grew from {before:g} to {after:g}")
    return found


def table(histories: dict[str, list[Sample]], moments: Sequence[float]) -> str:
    """Return samples by time: MB of memory of its own, descriptors, threads of each process."""
    lines = ["exchange s  " + "  ".join(f"{label:>20}" for label in histories)]
    lines.append("            " + "  ".join(f"{'MB':>8} {'fd':>5} {'thr':>5}" for _ in histories))
    step = max(1, len(moments) // 16)
    for index in sorted({*range(0, len(moments), step), len(moments) - 1}):
        cells = [history[index] for history in histories.values()]
        lines.append(
            f"{moments[index]:10.0f}  "
            + "  ".join(f"{one.anonymous_kb / 1024:8.1f} {one.descriptors:5} {one.threads:5}" for one in cells)
        )
    return "\n".join(lines)


def incomplete(run: Run) -> list[str]:
    """Return what is missing or wrong in the windows, once the faults ended and everything had time to settle."""
    truth, clock, deadline_seconds = run.truth(), FastClock(run), time.monotonic() + SETTLE_SECONDS
    with candleshm.attach(run.name) as feed:
        # Every window has to reach over the moment at which the faults ended, without a gap.
        healed_ms = clock.epoch_ms()
        while (behind := _behind(feed, healed_ms)) and time.monotonic() < deadline_seconds:
            time.sleep(0.2)
        found = [f"not whole in time: {' '.join(behind)}"] if behind else []
        for symbol in feed.symbols:
            rows = feed[symbol].candles(closed_only=True)
            opens = rows[:, OPEN_TIME_MS]
            if len(rows) < LENGTH // 2 or (np.diff(opens) != STEP_MS).any():
                found.append(f"{symbol}: not whole, {len(rows)} rows")
            elif wrong := wrong_rows(truth, symbol, rows):
                found.append(f"{symbol}: {wrong} wrong rows at the end")
    return found


def _behind(feed: candleshm.Feed, moment_ms: int) -> list[str]:
    """Return the symbols that have a gap, or whose newest final row opened before `moment_ms`."""

    def is_behind(series: candleshm.Series) -> bool:
        newest = series.candles(1, closed_only=True)
        return bool(series.gaps()) or len(newest) == 0 or newest[0, OPEN_TIME_MS] < moment_ms

    return [symbol for symbol in feed.symbols if is_behind(feed[symbol])]


def soak(seconds: float, symbols: int, rate: float, live: str = "rest") -> list[str]:
    """Run, print what was seen, and return what is wrong."""
    run = Run(
        name=f"test-{os.getpid()}-soak",
        symbols=symbols,
        rate=rate,
        origin_seconds=SystemClock().monotonic_seconds(),
        start_ms=time.time_ns() // 1_000_000,
        live=live,
    )
    context = multiprocessing.get_context("spawn")
    stop_exchange, stop_collector, stop_readers = context.Event(), context.Event(), context.Event()
    told: dict[str, Any] = {label: context.Queue() for label in ("exchange", "collector", *WAYS)}
    processes: dict[str, Any] = {}

    def start(label: str, target: Callable[..., None], *arguments: Any) -> None:
        processes[label] = context.Process(target=target, args=(run, *arguments, told[label]), daemon=True)
        processes[label].start()

    faults: list[str] = []
    try:
        start("exchange", serve_exchange, stop_exchange)
        base_url, ws_url = told["exchange"].get(timeout=60)
        start("collector", collect, base_url, ws_url, stop_collector)
        told["collector"].get(timeout=1800)
        for way in WAYS:
            start(way, read, way, stop_readers)
        # The first pass of each reader compares every row of every symbol.
        for way in WAYS:
            told[way].get(timeout=1800)
        histories: dict[str, list[Sample]] = {label: [] for label in processes}
        moments: list[float] = []
        started = time.monotonic()
        while (passed := time.monotonic() - started) * rate < seconds:
            time.sleep(min(seconds / rate / SAMPLES, seconds / rate - passed + 0.01))
            moments.append((time.monotonic() - started) * rate)
            for label, process in processes.items():
                if not process.is_alive():
                    raise RuntimeError(f"{label} ended early, exit code {process.exitcode}")
                histories[label].append(sample(process.pid))
        for kind in ("faults", "stream-faults") if run.streams else ("faults",):
            requests.delete(f"{base_url}/sim/{kind}", timeout=30).raise_for_status()
        faults += incomplete(run)
        stop_readers.set()
        tallies = dict(told[way].get(timeout=120) for way in WAYS)
        stop_collector.set()
        collected = told["collector"].get(timeout=60)
        processes["collector"].join(30)
        if processes["collector"].exitcode != 0:
            faults.append(f"collector: exit code {processes['collector'].exitcode}")
    finally:
        for event in (stop_readers, stop_collector, stop_exchange):
            event.set()
        for process in processes.values():
            process.join(15)
            process.kill()
        Path("/dev/shm", run.name).unlink(missing_ok=True)
    print(table(histories, moments))
    for label, tally in {"collector": collected, **tallies}.items():
        print(f"{label}: " + ", ".join(f"{count} {what}" for what, count in sorted(tally.items())))
    for label, history in histories.items():
        if label != "exchange":
            faults += growth(label, history)
    for way, tally in tallies.items():
        faults += [f"{way}: {tally[what]} {what}" for what in ("wrong", "passed by", "absent") if tally.get(what)]
        if not tally.get("rows"):
            faults.append(f"{way}: read nothing")
    if not any(what.startswith("errors") for what in collected):
        faults.append("the collector met no fault: this run proves nothing")
    if run.streams:
        if collected["weight a minute"] > WEIGHT_SHARE_MAX * SPOT_LIMIT:
            faults.append(f"requests took {collected['weight a minute']} weight a minute")
        faults += [f"audits found {what}" for what in ("corrected", "missing") if collected[f"audited {what}"]]
        if not collected["proven by ids"]:
            faults.append("no row was proven by trade ids")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=7200, help="of the exchange's time, after loading")
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--rate", type=float, default=10, help="how much faster than real time")
    parser.add_argument("--live", choices=("rest", "ws"), default="rest", help="ws runs at rate 1")
    arguments = parser.parse_args()
    rate = 1.0 if arguments.live == "ws" else arguments.rate
    faults = soak(arguments.seconds, arguments.symbols, rate, arguments.live)
    print("\n".join(faults) if faults else "nothing grew, nothing was wrong")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
