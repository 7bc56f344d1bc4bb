"""Threads that hand bodies of 1000 klines to one writer, as the collector's workers do: does a second core help?

    python benches/ingest_threads.py             15 rounds, about twenty seconds
    python benches/ingest_threads.py --rounds N --threads N

In every round one thread and several take turns, each with a new block, until the block is full. Meanwhile another
thread hands in a stream's frame every millisecond and takes the time until it is published. Everything is read back and
compared; a wrong row ends the run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from material import MINUTE_MS, START_MS, body_of, ingest, symbol_name, whole

import candleshm
from candleshm import _core

SYMBOLS, PAGES, PAGE = 24, 8, 1000
LENGTH = PAGES * PAGE
SETTLE_MS, PAUSE_SECONDS = 1000, 0.001
STREAMED = SYMBOLS
"""The symbol that frames are about; its series has one page from the start."""
NOW_MS = START_MS + (LENGTH - 1) * MINUTE_MS + 2000

# (hands in the page of a symbol that ends at that open time; hands in frames)
Entrance = tuple[Callable[[str, bytes, int], object], Callable[[list[bytes]], object]]


def through_ingest(writer: _core.Writer) -> Entrance:
    """Return the way that workers and streams take."""
    from candleshm.collector.ingest import Ingest
    from candleshm.exchanges.base import KlineRequest, Response
    from candleshm.system.clock import ExchangeTime, SystemClock

    clock = SystemClock()
    now = clock.monotonic_seconds()
    gate = Ingest(writer, clock=clock, exchange_time=ExchangeTime(now, NOW_MS, NOW_MS), settle_ms=SETTLE_MS)

    def page(symbol: str, body: bytes, end_ms: int) -> object:
        response = Response("", 200, {}, body, now, now, None)
        request = KlineRequest(symbol, "1m", PAGE, 2, end_ms=end_ms)
        return gate.response(symbol, response, request, sent_ms=NOW_MS, received_ms=NOW_MS, patience_ms=0)

    return page, gate.frames


@dataclass
class Turns:
    """What so many threads did, a number per round."""

    threads: int
    bodies_per_second: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    frame_us: list[float] = field(default_factory=list)


def material() -> list[tuple[str, bytes, int]]:
    """Return all pages: of every symbol the newest first, as a backfill loads them, the symbols mixed."""
    chance, symbols = random.Random(20260101), range(SYMBOLS)
    return [
        (symbol_name(symbol), body_of(symbol, range(start, start + PAGE)), START_MS + (start + PAGE - 1) * MINUTE_MS)
        for start in reversed(range(0, LENGTH, PAGE))
        for symbol in chance.sample(symbols, SYMBOLS)
    ]


def frame(tick: int) -> bytes:
    """Return the frame of a kline that differs from the one before."""
    price = f"{9000 + tick % 97}.50"
    kline = {"t": NOW_MS - 2000, "T": NOW_MS - 2001 + MINUTE_MS, "s": symbol_name(STREAMED), "i": "1m", "f": 1, "L": 9}
    kline |= {"o": price, "c": price, "h": price, "l": price, "v": str(tick), "n": 9000 + tick, "x": False}
    kline |= {"q": "1", "V": "1", "Q": "1", "B": "0"}
    event = {"e": "kline", "E": NOW_MS - 1000 + tick, "s": symbol_name(STREAMED), "k": kline}
    return json.dumps({"stream": f"{symbol_name(STREAMED).lower()}@kline_1m", "data": event}).encode()


def push(frames: Callable[[list[bytes]], Any], done: threading.Event, took_us: list[float]) -> None:
    """Hand in a frame every millisecond until all is done."""
    for tick in itertools.count(1):
        if done.wait(PAUSE_SECONDS):
            return
        batch = [frame(tick)]
        started = time.perf_counter()
        pushed = frames(batch)
        took_us.append((time.perf_counter() - started) * 1e6)
        if pushed is None or pushed.events != 1 or pushed.refused:
            raise SystemExit(f"a frame was not merged: {pushed!r}")


def turn(turns: Turns, pages: list[tuple[str, bytes, int]], entrance: Callable[[_core.Writer], Entrance]) -> None:
    """Fill a block once."""
    name = f"candleshm-bench-threads-{os.getpid()}"
    names = [symbol_name(symbol) for symbol in range(SYMBOLS + 1)]
    writer = _core.Writer.open(name, market="SPOT", interval="1m", length=LENGTH, symbols=names)
    try:
        ingest(writer, STREAMED, LENGTH - 1, body_of(STREAMED, range(LENGTH - PAGE, LENGTH)))
        page, frames = entrance(writer)
        left: Iterator[tuple[str, bytes, int]] = iter(pages)
        begin, done = threading.Barrier(turns.threads + 1), threading.Event()

        def work() -> None:
            begin.wait()
            for symbol, body, end_ms in left:  # a list's iterator gives every item once, whoever asks
                page(symbol, body, end_ms)

        threads = [threading.Thread(target=work) for _ in range(turns.threads)]
        stream = threading.Thread(target=push, args=(frames, done, turns.frame_us))
        for thread in (*threads, stream):
            thread.start()
        begin.wait()
        started, cpu_started = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.join()
        elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu_started
        done.set()
        stream.join()
        turns.bodies_per_second.append(len(pages) / elapsed)
        turns.cpu_us.append(cpu / len(pages) * 1e6)
        with candleshm.attach(name) as feed:
            for symbol in range(SYMBOLS):
                if not whole(symbol, feed[symbol_name(symbol)].candles(LENGTH), LENGTH):
                    raise SystemExit(f"{symbol_name(symbol)} does not hold what was handed in")
    finally:
        writer.close()


def main(entrance: Callable[[_core.Writer], Entrance] = through_ingest) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=8)
    arguments = parser.parse_args()
    one, many = Turns(1), Turns(arguments.threads)
    pages = material()
    for count in range(arguments.rounds):
        for turns in (one, many) if count % 2 else (many, one):
            turn(turns, pages, entrance)
    cores = len(os.sched_getaffinity(0))
    print(f"{len(pages)} bodies of {PAGE} klines a round, {cores} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'threads':>8} {'bodies/s':>10} {'CPU us/body':>12} {'frame p50 us':>13} {'p99 us':>9} {'max us':>9}")
    for turns in (one, many):
        took_us = sorted(turns.frame_us)
        print(
            f"{turns.threads:>8} {statistics.median(turns.bodies_per_second):>10.0f}"
            f" {statistics.median(turns.cpu_us):>12.0f} {took_us[len(took_us) // 2]:>13.0f}"
            f" {took_us[int(len(took_us) * 0.99)]:>9.0f} {took_us[-1]:>9.0f}"
        )
    ratio = statistics.median(b / a for a, b in zip(one.bodies_per_second, many.bodies_per_second, strict=True))
    print(f"{many.threads} threads merge {ratio:.2f} times as many bodies per second as one")
    if ratio < 1:
        print(f"LOST: {many.threads} threads are slower than one")
        sys.exit(1)


if __name__ == "__main__":
    main()
