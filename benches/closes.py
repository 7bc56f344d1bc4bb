"""C: many coroutines of one process wait for the same close, and are idle between two closes.

Another process closes a candle symbol after symbol, and stamps the clock before it publishes the last of them, with
which the close is complete. Each coroutine stops the time when it has the close in its hands. All of them have
to get every close, in order. There are no peers.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import statistics
import threading
import time
from typing import Any

from material import MINUTE_MS, START_MS, VERSIONS, block, body_of, ingest

import candleshm

LENGTH = 64
TIMEOUT_SECONDS = 60.0
# While nothing closes, live rows are updated as a collector does: so many batches a second, of so many symbols each.
BATCHES_PER_SECOND, BATCH = 20, 25


def _write(name: str, symbols: int, pipe: Any) -> None:
    """Close the candle that is asked for, and say when its last row was published; "idle" updates live rows."""
    with block(name, symbols, LENGTH) as writer:
        pipe.send("ready")
        number, tick = LENGTH - 1, 0
        while (asked := pipe.recv()) is not None:
            if asked == "idle":
                tick = _update(writer, symbols, number, pipe)
                continue
            number += 1
            writer.heartbeat()
            bodies = [body_of(symbol, range(number - 1, number + 1), number % VERSIONS) for symbol in range(symbols)]
            for symbol, body in enumerate(bodies[:-1]):
                ingest(writer, symbol, number, body, tick)
            # Long enough for the waiters to have looked at those and to sleep again.
            time.sleep(0.02)
            stamp_ns = time.monotonic_ns()
            ingest(writer, symbols - 1, number, bodies[-1], tick)
            pipe.send(stamp_ns)


def _update(writer: Any, symbols: int, number: int, pipe: Any) -> int:
    tick = 0
    while not pipe.poll(1 / BATCHES_PER_SECOND):
        tick += 1
        writer.heartbeat()
        for symbol in range(min(BATCH, symbols)):
            ingest(writer, symbol, number, body_of(symbol, range(number, number + 1), tick % VERSIONS), tick)
    pipe.recv()
    return tick


async def _measure(name: str, coroutines: int, closes: int, idle_seconds: float, pipe: Any) -> tuple[list[int], float]:
    feed = candleshm.attach(name)
    woken: list[tuple[int, int]] = []
    everybody = asyncio.Event()

    async def wait() -> None:
        async for closed in feed.closes():
            woken.append((time.monotonic_ns(), closed.open_time_ms))
            if len(woken) % coroutines == 0:
                everybody.set()

    tasks = [asyncio.ensure_future(wait()) for _ in range(coroutines)]
    await asyncio.sleep(0.5)
    pipe.send("idle")
    await asyncio.sleep(0.5)
    before = time.process_time()
    await asyncio.sleep(idle_seconds)
    idle_share = (time.process_time() - before) / idle_seconds
    pipe.send("enough")
    taken_ns: list[int] = []
    chance = random.Random(5)
    for number in range(closes):
        await asyncio.sleep(chance.uniform(0.1, 0.3))
        woken.clear()
        everybody.clear()
        pipe.send("close")
        await asyncio.wait_for(everybody.wait(), TIMEOUT_SECONDS)
        stamp_ns = pipe.recv()
        expected_ms = START_MS + (LENGTH - 1 + number) * MINUTE_MS
        if {open_ms for _, open_ms in woken} != {expected_ms} or len(woken) != coroutines:
            raise RuntimeError(f"not every coroutine got the close of {expected_ms}, once")
        taken_ns.extend(now_ns - stamp_ns for now_ns, _ in woken)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    feed.close()
    return taken_ns, idle_share


def main() -> None:
    parser = argparse.ArgumentParser(description="many coroutines wait for the closes of one feed")
    parser.add_argument("--coroutines", type=int, default=200)
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--closes", type=int, default=40)
    parser.add_argument("--idle-seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    name = f"candleshm-bench-closes-{os.getpid()}"
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    writer = context.Process(target=_write, args=(name, arguments.symbols, theirs), daemon=True)
    writer.start()
    # Its end of the pipe alone stays open, so that its death shows as the end of the pipe.
    theirs.close()
    mine.recv()
    taken_ns, idle_share = asyncio.run(
        _measure(name, arguments.coroutines, arguments.closes, arguments.idle_seconds, mine)
    )
    mine.send(None)
    writer.join(10)
    cuts = statistics.quantiles(taken_ns, n=100)
    print(
        f"{arguments.coroutines} coroutines, {arguments.symbols} symbols, {arguments.closes} closes: "
        f"p50 {cuts[49] / 1e6:.2f} ms, p99 {cuts[98] / 1e6:.2f} ms, slowest {max(taken_ns) / 1e6:.2f} ms; "
        f"idle {idle_share:.2%} of a core; {threading.active_count()} threads"
    )


if __name__ == "__main__":
    main()
