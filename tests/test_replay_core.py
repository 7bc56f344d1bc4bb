"""A replay by the raw binding: what is published when, and time that stands still for those who read."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest

import candleshm
from candleshm import _core
from candleshm.columns import CLOSE, HIGH, LOW, OPEN, OPEN_TIME_MS, VOLUME
from tests.support.collecting import until
from tests.support.replaying import MINUTE_MS, START_MS, Given, made, row_of

SHM = Path("/dev/shm")
SYMBOLS = ("BTCUSDT", "ETHUSDT")

Make = Callable[..., _core.Replay]


@pytest.fixture
def make(block_name: str) -> Iterator[Make]:
    """Make a replay of two symbols, or of what is given, that is closed at the end."""
    replays: list[_core.Replay] = []

    def make(given: Given | None = None, minutes: int = 60, **options: object) -> _core.Replay:
        replays.append(made(block_name, given or Given(SYMBOLS), minutes, **options))  # type: ignore[arg-type]
        return replays[-1]

    yield make
    for replay in replays:
        replay.close()


def run_to_end(feed: candleshm.Feed) -> list[int]:
    """Return the open times of all closes up to the end."""
    seen = []
    with pytest.raises(candleshm.ReplayEnded):  # noqa: PT012
        for closed in feed.closes():
            seen.append(closed.open_time_ms)
    return seen


def end_of(closed: candleshm.Closed) -> int:
    """Return when a candle of a minute ended."""
    return closed.open_time_ms + MINUTE_MS


def minutes(count: int) -> list[int]:
    return [START_MS + place * MINUTE_MS for place in range(count)]


def test_each_candle_is_published_when_it_closes(make: Make) -> None:
    replay = make(minutes=3)
    with candleshm.attach(replay.name) as feed:
        btc = feed["BTCUSDT"]
        assert np.isnan(btc.last_close)
        for place in range(3):
            assert replay.step()
            assert replay.now_ms == START_MS + (place + 1) * MINUTE_MS == feed.exchange_ms()
            assert btc.candles().tolist() == [row_of(ms) for ms in minutes(place + 1)]
            assert btc.states().tolist() == [candleshm.RowState.CLOSED] * (place + 1)
        assert not replay.step()
        assert replay.now_ms == START_MS + 3 * MINUTE_MS


def test_ages_and_health_follow_the_replayed_clock(make: Make) -> None:
    given = Given(SYMBOLS)
    given.absent |= {("ETHUSDT", ms) for ms in minutes(30)[5:]}
    replay = make(given, warm_rows=10)
    with candleshm.attach(replay.name, max_age=120.0) as feed:
        health = feed.health
        assert (health.state, health.condition, health.ready) == ("replay", "replay", True)
        assert (health.replayed_at.timestamp() * 1000, health.oldest_age) == (START_MS, 0.0)  # type: ignore[union-attr]
        for _ in range(10):
            replay.step()
        assert (feed["BTCUSDT"].age, feed["ETHUSDT"].age) == (0.0, 300.0)
        assert feed.health.stale == 1
        with pytest.raises(candleshm.StaleData):
            feed["ETHUSDT"].candles(1)
        replay.close()
        assert feed.health.state == "closed"


def test_rows_from_before_the_start_are_there_at_once(make: Make) -> None:
    given = Given(SYMBOLS)
    replay = make(given, warm_rows=100)
    with candleshm.attach(replay.name) as feed:
        candles = feed["BTCUSDT"].candles()
        assert candles.tolist() == [row_of(START_MS + place * MINUTE_MS) for place in range(-100, 0)]
        assert feed.health.missing == 0
        assert feed["BTCUSDT"].gaps() == []
    assert given.asked[0] == START_MS - 100 * MINUTE_MS


def test_derived_candles_are_there_with_those_they_are_made_of(make: Make, block_name: str) -> None:
    replay = make(warm_rows=7, derived=[(f"{block_name}-5m", "5m", 30)], inside="steps")
    with candleshm.attach(replay.name) as feed, candleshm.attach(f"{block_name}-5m") as derived:
        # The rows reach back to the middle of a candle: what is cut is not shown.
        assert derived["BTCUSDT"].candles(closed_only=True)[:, OPEN_TIME_MS].tolist() == [START_MS - 5 * MINUTE_MS]
        while replay.step():
            assert derived.exchange_ms() == replay.now_ms
            minutes_closed = feed["BTCUSDT"].candles(closed_only=True)
            expected = candleshm.derive(minutes_closed, "5m", source="1m")
            got = derived["BTCUSDT"].candles(closed_only=True)
            assert got[-1].tolist() == expected[-1].tolist()
            live = derived["BTCUSDT"].candles()
            assert live[-1, CLOSE] == feed["BTCUSDT"].last_close
            assert live[-1, LOW] <= live[-1, CLOSE] <= live[-1, HIGH]


def test_holes_become_known_with_the_next_row_and_missing_rows_stay_missing(make: Make) -> None:
    given = Given(SYMBOLS)
    opens = minutes(10)
    given.holes |= {("BTCUSDT", opens[2]), ("BTCUSDT", opens[3])}
    given.absent.add(("BTCUSDT", opens[6]))
    replay = make(given, minutes=10)
    with candleshm.attach(replay.name) as feed:
        btc = feed["BTCUSDT"]
        for _ in range(4):
            replay.step()
        assert len(btc.states()) == 2
        replay.step()
        assert [state.name for state in map(candleshm.RowState, btc.states(holes="nan"))] == [
            "CLOSED", "CLOSED", "HOLE", "HOLE", "CLOSED"
        ]  # fmt: skip
        replay.run()
        assert [(gap.start_ms, gap.end_ms, gap.kind) for gap in btc.gaps()] == [
            (opens[2], opens[4], "hole"),
            (opens[6], opens[7], "missing"),
        ]


def test_a_candle_is_shown_in_four_steps(make: Make) -> None:
    replay = make(minutes=2, inside="steps")
    with candleshm.attach(replay.name) as feed:
        btc, seen = feed["BTCUSDT"], []
        while replay.step():
            row = btc.live
            seen.append((replay.now_ms - START_MS, *row[[OPEN, HIGH, LOW, CLOSE, VOLUME]].tolist()))
    falling, rising = (row_of(ms) for ms in minutes(2))
    first, second = falling[OPEN], rising[OPEN]
    assert seen == [
        (0, first, first, first, first, 0.0),
        (15_000, first, first + 2, first, first + 2, 0.0),
        (30_000, first, first + 2, first - 2, first - 2, 0.0),
        (45_000, first, first + 2, first - 2, first - 1, 0.0),
        (60_000, second, second, second, second, 0.0),
        (75_000, second, second, second - 2, second - 2, 0.0),
        (90_000, second, second + 2, second - 2, second + 2, 0.0),
        (105_000, second, second + 2, second - 2, second + 1, 0.0),
        (120_000, *rising[OPEN : VOLUME + 1]),
    ]


def test_a_candle_is_shown_as_its_seconds_make_it(make: Make) -> None:
    given = Given(SYMBOLS)
    given.seconds = True
    replay = make(given, minutes=2, inside="1s")
    with candleshm.attach(replay.name) as feed:
        btc = feed["BTCUSDT"]
        while replay.step():
            passed = (replay.now_ms - START_MS) // 1000
            if passed % 60 == 0:
                assert btc.live.tolist() == row_of(replay.now_ms - MINUTE_MS)
                continue
            open_ms = replay.now_ms // MINUTE_MS * MINUTE_MS
            seconds = np.array([row_of(ms, 0.0, 1000) for ms in range(open_ms, replay.now_ms, 1000)])
            expected = candleshm.derive(seconds, "1m", source="1s", start_ms=open_ms, end_ms=open_ms + MINUTE_MS)
            assert btc.live[: CLOSE + 2].tolist() == expected[-1, : CLOSE + 2].tolist()


def test_symbols_come_and_go_when_they_did(make: Make) -> None:
    given = Given((*SYMBOLS, "NEWUSDT", "OLDUSDT"))
    opens = minutes(60)
    given.lives = {"NEWUSDT": (opens[3], None), "OLDUSDT": (None, opens[5])}
    replay = make(given, minutes=60, warm_rows=5)
    with candleshm.attach(replay.name) as feed:
        assert list(feed.symbols) == ["BTCUSDT", "ETHUSDT", "OLDUSDT"]
        closes, counts = feed.closes(), []
        for _ in range(8):
            counts.append(len(next(closes).symbols))
            assert replay.now_ms == opens[len(counts)]
        # NEWUSDT has its first close at the end of its first minute, OLDUSDT its last one at the end of the fifth.
        assert counts == [3, 3, 3, 4, 3, 3, 3, 3]
        assert list(feed.symbols) == ["BTCUSDT", "ETHUSDT", "OLDUSDT", "NEWUSDT"]
        assert feed["NEWUSDT"].candles()[0, OPEN_TIME_MS] == opens[3]
        assert feed["NEWUSDT"].gaps() == []


def test_time_stands_still_while_a_reader_is_at_work(make: Make) -> None:
    replay = make()
    with candleshm.attach(replay.name) as feed:
        seen = []
        with pytest.raises(candleshm.ReplayEnded) as ended:  # noqa: PT012
            for closed in feed.closes():
                assert replay.now_ms == end_of(closed) == feed.exchange_ms()
                assert feed.panel("close", 3).open_time_ms[-1] == closed.open_time_ms
                seen.append(closed.open_time_ms)
        assert seen == minutes(60)
        assert (ended.value.start_ms, ended.value.now_ms) == (START_MS, START_MS + 60 * MINUTE_MS)
        assert ended.value.is_complete
        # The rows stay readable, and every other wait says the same.
        assert feed["BTCUSDT"].last_close == row_of(seen[-1])[CLOSE]
        for wait in (feed.wait_closed, feed.step, feed["BTCUSDT"].wait):
            with pytest.raises(candleshm.ReplayEnded):
                wait(timeout=60.0)


def test_steps_go_from_moment_to_moment(make: Make) -> None:
    replay = make(minutes=5, inside="steps")
    with candleshm.attach(replay.name) as feed:
        times = []
        with pytest.raises(candleshm.ReplayEnded):  # noqa: PT012
            while True:
                times.append(feed.step())
        assert times == [START_MS + place * 15_000 for place in range(21)]


def test_waits_of_several_feeds_in_one_thread_do_not_wait_for_each_other(make: Make, block_name: str) -> None:
    make(derived=[(f"{block_name}-5m", "5m", 30)])
    with candleshm.attach(block_name) as feed, candleshm.attach(f"{block_name}-5m") as derived:
        small, large = feed.closes(), derived.closes()
        for place in range(1, 12):
            assert next(large).open_time_ms + 5 * MINUTE_MS == feed.exchange_ms() == START_MS + place * 5 * MINUTE_MS
            assert next(small).open_time_ms == START_MS + (place - 1) * MINUTE_MS
        assert small.lag == 44
        assert feed["BTCUSDT"].wait() == START_MS + 55 * MINUTE_MS


def test_time_waits_for_all_threads_that_read(make: Make) -> None:
    replay = make(consumers=2)
    seen: dict[int, list[tuple[int, int]]] = {}

    def read(number: int, name: str, pause: float) -> None:
        mine = seen.setdefault(number, [])
        with candleshm.attach(name) as feed, pytest.raises(candleshm.ReplayEnded):  # noqa: PT012
            for closed in feed.closes():
                time.sleep(pause)
                mine.append((end_of(closed), replay.now_ms))

    threads = [
        threading.Thread(target=read, args=(number, replay.name, pause)) for number, pause in ((0, 0), (1, 0.002))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [(ms + MINUTE_MS, ms + MINUTE_MS) for ms in minutes(60)]
    assert seen == {0: expected, 1: expected}


def test_time_stands_still_before_the_first_reader(make: Make) -> None:
    replay = make(consumers=2)
    with candleshm.attach(replay.name) as feed, candleshm.attach(replay.name) as other:
        with pytest.raises(candleshm.WaitTimeout):
            feed.wait_closed(timeout=0.2)
        assert (replay.now_ms, replay.readers) == (START_MS, (1, 1))
        thread = threading.Thread(target=other.step)
        thread.start()
        assert feed.step() == START_MS + MINUTE_MS
        thread.join()
        # One that leaves is awaited no longer.
        other.close()
        assert feed.step() == START_MS + 2 * MINUTE_MS


def test_a_run_awaits_nobody_and_goes_on_with_whoever_comes(make: Make) -> None:
    replay = make()
    replay.run()
    assert replay.now_ms == START_MS + 60 * MINUTE_MS
    replay.run()


def test_coroutines_hold_time_up_while_they_work(make: Make) -> None:
    replay = make()
    seen: list[tuple[str, int, int]] = []

    async def every(feed: candleshm.Feed, count: int) -> None:
        for _ in range(count):
            closed = await feed.wait_closed_async()
            await asyncio.sleep(0)
            seen.append(("close", end_of(closed), replay.now_ms))

    async def rows(feed: candleshm.Feed, count: int) -> None:
        for _ in range(count):
            opened = await feed.wait_async("ETHUSDT")
            seen.append(("row", opened + MINUTE_MS, replay.now_ms))

    async def main() -> None:
        with candleshm.attach(replay.name) as feed:
            await asyncio.gather(every(feed, 20), rows(feed, 20))
            async for closed in feed.closes():
                seen.append(("close", end_of(closed), replay.now_ms))

    with pytest.raises(candleshm.ReplayEnded):
        asyncio.run(main())
    assert [kind for kind, _, _ in seen].count("row") == 20
    assert all(end_ms <= now_ms for _, end_ms, now_ms in seen)
    closes = [(end_ms, now_ms) for kind, end_ms, now_ms in seen if kind == "close"][20:]
    # Alone it is awaited as a loop of a thread is.
    assert len(closes) >= 20
    assert all(end_ms == now_ms for end_ms, now_ms in closes)
    assert closes[-1][0] == START_MS + 60 * MINUTE_MS


def test_a_coroutine_may_wait_as_a_thread_does(make: Make) -> None:
    replay = make()

    async def main() -> list[int]:
        times = []
        with candleshm.attach(replay.name) as feed, candleshm.attach(replay.name) as other:
            for _ in range(5):
                await feed.wait_closed_async()
                times.append(feed.step())
                await other.wait_async("BTCUSDT")
                times.append(replay.now_ms)
        return times

    assert asyncio.run(main()) == [START_MS + place * MINUTE_MS for place in (*range(2, 17),) if place % 3 != 1]


READER = """
import sys, time, candleshm
feed = candleshm.attach(sys.argv[1])
try:
    for closed in feed.closes():
        time.sleep(float(sys.argv[2]))
        print(closed.open_time_ms + 60000, feed.exchange_ms(), flush=True)
except candleshm.ReplayEnded as error:
    print("ended", error.is_complete, flush=True)
"""


def reader(name: str, pause: float = 0.0) -> subprocess.Popen[str]:
    """Start a process that follows the closes and prints them."""
    return subprocess.Popen([sys.executable, "-c", READER, name, str(pause)], stdout=subprocess.PIPE, text=True)


def test_time_waits_for_readers_of_other_processes(make: Make) -> None:
    replay = make(consumers=3)
    readers = [reader(replay.name), reader(replay.name, 0.001)]
    with candleshm.attach(replay.name) as feed:
        assert run_to_end(feed) == minutes(60)
    expected = [f"{ms + MINUTE_MS} {ms + MINUTE_MS}" for ms in minutes(60)] + ["ended True"]
    for process in readers:
        assert process.communicate(timeout=60)[0].splitlines() == expected


def test_a_reader_that_is_killed_holds_nobody_up(make: Make) -> None:
    replay = make(consumers=2)
    process = reader(replay.name, 3600.0)
    with candleshm.attach(replay.name) as feed:
        assert feed.step() == START_MS + MINUTE_MS
        with pytest.raises(candleshm.WaitTimeout):
            feed.step(timeout=0.3)
        # Not waited for: what is left of it is a zombie.
        os.kill(process.pid, signal.SIGKILL)
        assert feed.step(timeout=60.0) == START_MS + 2 * MINUTE_MS
        assert replay.readers == (1, 1)
    process.communicate()


REPLAYER = """
import sys, time
from tests.support.replaying import Given, made
replay = made(sys.argv[1], Given(("BTCUSDT", "ETHUSDT")), 60)
print("ready", flush=True)
time.sleep(3600)
"""


def test_waits_end_when_the_replay_dies(block_name: str) -> None:
    root = Path(__file__).parent.parent
    replayer = [sys.executable, "-c", REPLAYER, block_name]
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(replayer, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root)
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with candleshm.attach(block_name) as feed:
            assert feed.step() == START_MS + MINUTE_MS
            process.send_signal(signal.SIGSTOP)
            # Until it stands still it goes on, and an hour of it takes less than a millisecond.
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            thread = threading.Timer(0.3, process.kill)
            thread.start()
            with pytest.raises(candleshm.ReplayEnded) as ended:  # noqa: PT012
                while True:
                    feed.step(timeout=60.0)
            assert not ended.value.is_complete
            thread.join()
    # Whoever comes next takes the name.
    with closing(made(block_name, Given(SYMBOLS), 60)) as replay:
        assert replay.step()


def test_waits_end_when_the_replay_is_left_early(make: Make) -> None:
    replay = make(consumers=2)
    raised: list[BaseException] = []

    def read() -> None:
        with candleshm.attach(replay.name) as feed:
            try:
                feed.wait_closed()
            except candleshm.ReplayEnded as error:
                raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    until(lambda: replay.readers == (1, 0))
    replay.close()
    thread.join()
    assert not raised[0].is_complete  # type: ignore[attr-defined]
    assert not [path.name for path in SHM.iterdir() if replay.name in path.name]


def test_readers_that_only_look_hold_nobody_up(make: Make) -> None:
    replay = make()
    with candleshm.attach(replay.name) as watching, candleshm.attach(replay.name) as feed:
        watching["BTCUSDT"].candles()
        assert watching.health.ready
        assert run_to_end(feed) == minutes(60)


def test_a_clock_runs_at_the_speed_that_was_chosen(make: Make) -> None:
    replay = make(minutes=5, speed=300.0)
    with candleshm.attach(replay.name, max_age=600.0) as feed:
        # From the first wait on, and never ahead of it.
        assert replay.now_ms == START_MS
        assert run_to_end(feed) == minutes(5)
    replay.close()


def test_what_more_raises_ends_the_replay(make: Make) -> None:
    given = Given(SYMBOLS)
    given.fails_at = START_MS + 60 * MINUTE_MS
    replay = make(given, minutes=180)
    with pytest.raises(RuntimeError, match="the files are gone"):
        replay.run()
    with candleshm.attach(replay.name) as feed, pytest.raises(candleshm.ReplayEnded) as ended:
        feed.step()
    assert not ended.value.is_complete


def test_a_replay_and_a_collector_do_not_take_each_others_blocks(block_name: str) -> None:
    options = {"market": "SPOT", "interval": "1m", "length": 200, "symbols": list(SYMBOLS)}
    writer = _core.Writer.open(block_name, **options)  # type: ignore[arg-type]
    with pytest.raises(candleshm.BlockInUse):
        made(block_name, Given(SYMBOLS), 5)
    with candleshm.attach(block_name) as feed:
        writer.close(unlink=False)
        with pytest.raises(candleshm.ConfigError, match="a collector left"):
            made(block_name, Given(SYMBOLS), 5)
        assert feed.health.replayed_at is None
    (SHM / block_name).unlink()
    with closing(made(block_name, Given(SYMBOLS), 5)) as replay, pytest.raises(candleshm.BlockInUse):  # noqa: PT012
        replay.step()
        _core.Writer.open(block_name, **options)  # type: ignore[arg-type]
    assert not list(SHM.glob(f"*{block_name}*"))


def test_arguments_that_cannot_be_are_refused(block_name: str) -> None:
    given = Given(SYMBOLS)
    for wrong in ({"speed": 0.0}, {"consumers": 65}, {"inside": "ticks"}, {"market": "NYSE"}, {"interval": "7m"}):
        with pytest.raises(candleshm.ConfigError):
            made(block_name, given, 5, **wrong)
    with pytest.raises(candleshm.ConfigError):
        made(block_name, given, 0)
    with closing(made(block_name, given, 5)) as replay:
        with pytest.raises(candleshm.ConfigError, match="begins once"):
            replay.begin(0)
        with pytest.raises(candleshm.ConfigError):
            replay.give("BTCUSDT", np.zeros((2, 11)), np.zeros(2, np.uint8))
        with pytest.raises(candleshm.ConfigError):
            replay.give("BTCUSDT", np.zeros((2, 12)), np.zeros(3, np.uint8))


@pytest.mark.parametrize(
    "layout", [np.asfortranarray, lambda rows: np.repeat(rows, 2, axis=0)[::2]], ids=["F", "strided"]
)
def test_rows_are_taken_in_any_layout_of_memory(make: Make, layout: Callable[..., np.ndarray]) -> None:
    class LaidOut(Given):
        def rows(self, symbol: str, from_ms: int, until_ms: int) -> tuple[np.ndarray, np.ndarray]:
            rows, states = super().rows(symbol, from_ms, until_ms)
            return layout(rows), states

    replay = make(LaidOut(SYMBOLS), minutes=3)
    with candleshm.attach(replay.name) as feed:
        replay.run()
        assert feed["BTCUSDT"].candles().tolist() == [row_of(ms) for ms in minutes(3)]


def test_a_forked_child_moves_no_time(make: Make) -> None:
    replay = make(consumers=2)
    with candleshm.attach(replay.name) as feed:
        child = os.fork()
        if child == 0:
            with candleshm.attach(replay.name) as mine:
                os._exit(0 if mine.step() == START_MS + MINUTE_MS else 1)
        assert feed.step() == START_MS + MINUTE_MS
        assert os.waitpid(child, 0)[1] == 0
