"""Coroutines that wait: any number, in several loops, cancelled, left behind, at the end of the interpreter."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import candleshm
from candleshm import _core
from candleshm.reader.waiter import Waiter
from tests.support.collecting import until
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

ROOT = Path(__file__).parent.parent
LENGTH = 16
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
PATIENCE_SECONDS = 30.0


def open_ms(bar: int) -> int:
    return START_MS + bar * MINUTE_MS


def close_all(writer: _core.Writer, bar: int) -> None:
    """Close `bar` of every symbol, and open the next one."""
    for symbol in SYMBOLS:
        rows = kline(open_ms(bar), 100 + bar), kline(open_ms(bar + 1), 101 + bar)
        ingest(writer, symbol, *rows, sent_ms=open_ms(bar + 1) + 1)


def opened(name: str, length: int = LENGTH) -> _core.Writer:
    writer = _core.Writer.open(name, market="SPOT", interval="1m", length=length, symbols=SYMBOLS)
    for symbol in SYMBOLS:
        rows = [kline(open_ms(bar), 100 + bar) for bar in range(21)]
        ingest(writer, symbol, *rows, sent_ms=open_ms(20) + 30_000)
    return writer


@pytest.fixture
def writer(block_name: str) -> Iterator[_core.Writer]:
    """Bars 0..19 are closed, 20 is live."""
    writer = opened(block_name)
    yield writer
    writer.close()


@pytest.fixture
def feed(writer: _core.Writer) -> Iterator[candleshm.Feed]:
    with candleshm.attach(writer.name) as feed:
        yield feed


class Board:
    """What a look sees, and news that a test gives."""

    is_lockstep = False

    def __init__(self) -> None:
        self.found: int | None = None
        self.error: Exception | None = None
        self.looks = 0
        self._changed = threading.Event()

    def look(self, _: float | None) -> int | None:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.found

    def publish(self) -> None:
        self._changed.set()

    def news(self, _: int = 0) -> Board:
        self._changed.clear()
        return self

    def sleep(self, _: Board | None) -> None:
        self._changed.wait(1)


async def settled(board: Board, count: int) -> list[object]:
    """Let `count` coroutines wait for the same, then publish; return what each got."""
    waiter = Waiter()
    waits = [asyncio.ensure_future(waiter.wait("same", board.look, board.news)) for _ in range(count)]  # type: ignore[arg-type]
    await asyncio.sleep(0.1)
    assert not any(wait.done() for wait in waits)
    before = board.looks
    board.found = 7
    board.publish()
    results: list[object] = list(await asyncio.wait_for(asyncio.gather(*waits), PATIENCE_SECONDS))
    # Two, when the news came in the middle of a look.
    assert board.looks - before <= 2
    waiter.close()
    return results


def test_one_look_serves_all_who_wait_for_the_same() -> None:
    assert asyncio.run(settled(Board(), 200)) == [7] * 200


def test_each_coroutine_gets_an_exception_of_its_own() -> None:
    board = Board()

    async def main() -> list[object]:
        waiter = Waiter()
        waits = [asyncio.ensure_future(waiter.wait("same", board.look, board.news)) for _ in range(3)]  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        board.error = candleshm.StaleData("BTCUSDT", 3.0, 1.0)
        board.publish()
        return await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), PATIENCE_SECONDS)

    errors = asyncio.run(main())
    assert [str(error) for error in errors] == [str(board.error)] * 3
    assert len({id(error) for error in errors}) == 3


def test_loops_in_several_threads_all_get_the_close(writer: _core.Writer, feed: candleshm.Feed) -> None:
    got: list[int] = []

    async def follow() -> None:
        async for closed in feed.closes():
            got.append(closed.open_time_ms)
            return

    async def main() -> None:
        await asyncio.wait_for(asyncio.gather(*(follow() for _ in range(20))), PATIENCE_SECONDS)

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(feed._close_waiter._waits.groups) == 1)
    until(lambda: sum(len(group.futures) for group in feed._close_waiter._waits.groups.values()) == 60)
    close_all(writer, 20)
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert got == [open_ms(20)] * 60


def test_a_loop_that_was_closed_in_the_middle_does_not_disturb_the_others(
    writer: _core.Writer, feed: candleshm.Feed
) -> None:
    abandoned = asyncio.new_event_loop()
    task = abandoned.create_task(anext(feed.closes()))
    abandoned.run_until_complete(asyncio.sleep(0.05))
    abandoned.close()

    async def main() -> int:
        following = asyncio.ensure_future(anext(feed.closes()))
        await asyncio.sleep(0.05)
        close_all(writer, 20)
        return (await asyncio.wait_for(following, PATIENCE_SECONDS)).open_time_ms

    assert asyncio.run(main()) == open_ms(20)
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_whoever_waits_learns_that_the_feed_was_closed(feed: candleshm.Feed) -> None:
    async def main() -> list[object]:
        waits = [
            asyncio.ensure_future(anext(feed.closes())),
            asyncio.ensure_future(feed.wait_closed_async(timeout=PATIENCE_SECONDS)),
            asyncio.ensure_future(feed.wait_async("BTCUSDT", timeout=PATIENCE_SECONDS)),
        ]
        await asyncio.sleep(0.05)
        feed.close()
        return await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), PATIENCE_SECONDS)

    for error in asyncio.run(main()):
        assert isinstance(error, candleshm.BlockNotFound)
        assert "closed" in str(error)


def test_a_collector_that_dies_while_coroutines_wait_is_noticed(writer: _core.Writer) -> None:
    async def main() -> list[object]:
        with candleshm.attach(writer.name, max_age=0.5) as feed:
            writer.heartbeat()
            waits = [anext(feed.closes()), anext(feed.closes()), feed.wait_async("BTCUSDT")]
            return await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), PATIENCE_SECONDS)

    assert [type(error) for error in asyncio.run(main())] == [candleshm.StaleData] * 3


def test_waits_go_on_in_the_block_that_takes_the_place(block_name: str) -> None:
    first = opened(block_name)

    async def main() -> int:
        with candleshm.attach(block_name) as feed:
            following = asyncio.ensure_future(anext(feed.closes()))
            await asyncio.sleep(0.05)
            first.close(unlink=False)
            second = opened(block_name, LENGTH * 2)
            try:
                close_all(second, 20)
                return (await asyncio.wait_for(following, PATIENCE_SECONDS)).open_time_ms
            finally:
                second.close()

    assert asyncio.run(main()) == open_ms(20)


def test_a_wait_that_was_cancelled_leaves_nothing_out(writer: _core.Writer, feed: candleshm.Feed) -> None:
    async def main() -> list[int]:
        closes = feed.closes()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(closes), 0.05)
        close_all(writer, 20)
        close_all(writer, 21)
        return [(await anext(closes)).open_time_ms for _ in range(2)]

    assert asyncio.run(main()) == [open_ms(20), open_ms(21)]


def test_every_coroutine_is_told_once_what_it_missed(writer: _core.Writer, feed: candleshm.Feed) -> None:
    async def follow() -> tuple[int, int]:
        closes = feed.closes()
        with pytest.raises(candleshm.ClosesMissed) as caught:
            await anext(closes)
        return caught.value.count, (await anext(closes)).open_time_ms

    async def main() -> list[tuple[int, int]]:
        waits = [asyncio.ensure_future(follow()) for _ in range(3)]
        await asyncio.sleep(0.05)
        # The exchange's newest rows, after a pause longer than the window.
        for symbol in SYMBOLS:
            rows = [kline(open_ms(bar), 100 + bar) for bar in range(60, 101)]
            ingest(writer, symbol, *rows, sent_ms=open_ms(100) + 30_000)
        return await asyncio.wait_for(asyncio.gather(*waits), PATIENCE_SECONDS)

    missed = 100 - 20 - LENGTH
    assert asyncio.run(main()) == [(missed, open_ms(20 + missed))] * 3


WAITING_AT_THE_END = """
import asyncio, os, sys, threading, time
import candleshm

feed = candleshm.attach(sys.argv[1])

async def main():
    async for closed in feed.closes():
        pass

for _ in range(2):
    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
while not feed._close_waiter._waits.groups:
    pass
print("waits", flush=True)
sys.stdin.readline()

class Slow:
    # What is left of the interpreter takes a moment to go, and lets other threads run meanwhile.
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"goes\\n")
        sleep(0.2)

sys.slow = Slow()
"""


def test_the_interpreter_ends_while_coroutines_wait(writer: _core.Writer) -> None:
    for bar in range(20, 23):
        process = subprocess.Popen(
            [sys.executable, "-c", WAITING_AT_THE_END, writer.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "goes\n"
        close_all(writer, bar)
        _, complaints = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, complaints) == (0, "")


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy])
def test_a_loop_over_closes_cannot_be_pickled_or_copied(
    feed: candleshm.Feed, duplicate: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError, match="pass the Feed, and call closes"):
        duplicate(feed.closes())


def test_a_close_equals_its_copy(writer: _core.Writer, feed: candleshm.Feed) -> None:
    closed = feed.wait_closed(open_ms(19), timeout=0)
    same = pickle.loads(pickle.dumps(closed))
    assert same == closed
    assert hash(same) == hash(closed)
    close_all(writer, 20)
    assert feed.wait_closed(open_ms(20), timeout=0) != closed
