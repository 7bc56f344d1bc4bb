"""Time of a replay that stands still: for whom it does not wait, and what is said of those for whom it does."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import candleshm
from candleshm import _core
from candleshm.replaying import standstill
from candleshm.replaying.standstill import StandstillWatch
from tests.support.collecting import until
from tests.support.histories import FULL, History, stored_history
from tests.support.replaying import MINUTE_MS, START_MS, Given, made

SHM = Path("/dev/shm")
SYMBOLS = ("BTCUSDT", "ETHUSDT")
DAYS = ("2026-03-07", "2026-03-08")
END_MS = START_MS + 60 * MINUTE_MS

Make = Callable[..., _core.Replay]


@pytest.fixture
def make(block_name: str) -> Iterator[Make]:
    """Make a replay of two symbols, or of what is given, that is closed at the end."""
    replays: list[_core.Replay] = []

    def make(given: Given | None = None, **options: object) -> _core.Replay:
        replays.append(made(block_name, given or Given(SYMBOLS), 60, **options))  # type: ignore[arg-type]
        return replays[-1]

    yield make
    for replay in replays:
        replay.close()


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, History]:
    """Two days of 5m, and their directory."""
    path = tmp_path_factory.mktemp("candles")
    return path, stored_history(path, "5m", *DAYS, "UTC", np.random.default_rng(5))


def run_in_time(replay: _core.Replay) -> None:
    """Run in this thread, and interrupt a run that hangs."""
    alarm = threading.Timer(20.0, os.kill, (os.getpid(), signal.SIGINT))
    alarm.start()
    try:
        replay.run()
    finally:
        alarm.cancel()


def test_a_run_does_not_await_the_feeds_of_its_own_thread(make: Make, block_name: str) -> None:
    replay = make(derived=[(f"{block_name}-5m", "5m", 30)])
    with candleshm.attach(block_name) as feed, candleshm.attach(f"{block_name}-5m") as derived:
        assert feed.step() == START_MS + MINUTE_MS
        assert next(derived.closes()).open_time_ms == START_MS
        for place, closed in enumerate(feed.closes()):
            if place == 10:
                assert closed.open_time_ms == START_MS + 15 * MINUTE_MS
                break
        run_in_time(replay)
        assert replay.now_ms == END_MS


def test_a_feed_that_goes_to_another_thread_during_a_run_is_awaited_from_then_on(make: Make, block_name: str) -> None:
    replay = make(consumers=2)
    seen: list[tuple[int, int]] = []

    def follow(feed: candleshm.Feed, other: candleshm.Feed) -> None:
        with pytest.raises(candleshm.WaitTimeout):
            feed.step(timeout=0.1)
        # From here on time waits for this thread alone.
        other.close()
        with pytest.raises(candleshm.ReplayEnded):  # noqa: PT012
            while True:
                seen.append((feed.step(), replay.now_ms))

    def hold(feed: candleshm.Feed, other: candleshm.Feed) -> None:
        other.step()
        # Only when the run is under way does it await this thread.
        until(lambda: replay.held_up is not None)
        follower = threading.Thread(target=follow, args=(feed, other))
        follower.start()
        follower.join()

    with candleshm.attach(block_name) as feed, candleshm.attach(block_name) as other:
        thread = threading.Thread(target=hold, args=(feed, other))
        thread.start()
        assert feed.step() == START_MS + MINUTE_MS
        run_in_time(replay)
        thread.join()
    moments = range(START_MS + 2 * MINUTE_MS, END_MS + 1, MINUTE_MS)
    assert seen == [(moment_ms, moment_ms) for moment_ms in moments]


def test_there_is_no_close_before_the_first_candle(make: Make) -> None:
    given = Given(("NEWUSDT",))
    listed_ms = START_MS + 3 * MINUTE_MS
    given.lives = {"NEWUSDT": (listed_ms, None)}
    replay = make(given)
    with candleshm.attach(replay.name) as feed:
        first = next(feed.closes())
        assert (first.open_time_ms, first.symbols) == (listed_ms, ("NEWUSDT",))
        assert replay.now_ms == listed_ms + MINUTE_MS


@pytest.mark.parametrize("way", ["wait_closed", "wait_closed_async", "closes_async"])
def test_a_wait_for_the_next_close_is_for_the_first_candle_that_exists(make: Make, way: str) -> None:
    given = Given(("NEWUSDT",))
    listed_ms = START_MS + 3 * MINUTE_MS
    given.lives = {"NEWUSDT": (listed_ms, None)}
    replay = make(given)

    async def closed_async(feed: candleshm.Feed) -> candleshm.Closed:
        if way == "closes_async":
            return await anext(aiter(feed.closes()))
        return await feed.wait_closed_async()

    with candleshm.attach(replay.name) as feed:
        closed = feed.wait_closed() if way == "wait_closed" else asyncio.run(closed_async(feed))
        assert closed.open_time_ms == listed_ms
        # A candle that is named is waited for as ever: there is nothing more to come for it.
        assert feed.wait_closed(START_MS).open_time_ms == START_MS


def test_closes_before_the_first_candle_are_not_missed(make: Make) -> None:
    given = Given(("NEWUSDT",))
    listed_ms = START_MS + 40 * MINUTE_MS
    given.lives = {"NEWUSDT": (listed_ms, None)}
    replay = make(given, length=10)
    with candleshm.attach(replay.name) as feed:
        closes = feed.closes()
        while replay.now_ms < listed_ms + 2 * MINUTE_MS:
            replay.step()
        assert closes.lag == 2
        assert [next(closes).open_time_ms for _ in range(2)] == [listed_ms, listed_ms + MINUTE_MS]


def test_a_timeout_names_who_is_awaited(make: Make) -> None:
    replay = make(consumers=2)
    with candleshm.attach(replay.name) as feed, candleshm.attach(replay.name) as other:
        with pytest.raises(candleshm.WaitTimeout) as early:
            feed.wait_closed(timeout=0.1)
        assert set(early.value.missing) == set(SYMBOLS)
        assert "0 of 2 symbols" in str(early.value)
        assert str(early.value).endswith("the replay stands still: 2 readers are awaited, 1 takes part")
        thread = threading.Thread(target=other.step)
        thread.start()
        feed.step()
        thread.join()
        # The other thread works, or has ended, while its feed is open.
        with pytest.raises(candleshm.WaitTimeout) as late:
            feed.wait_closed(timeout=0.1)
        who = f"thread {thread.native_id} of process {os.getpid()}, which has ended (close its Feed)"
        assert str(late.value).endswith(f"the replay stands still: a reader is awaited that does not wait: {who}")


def test_nothing_is_said_while_nobody_waits(make: Make) -> None:
    replay = make()
    assert replay.held_up is None
    with candleshm.attach(replay.name) as feed:
        feed.step()
        # The one reader is at work, and holds up nobody else.
        assert replay.held_up is None
        replay.close()
        assert replay.held_up is None


def test_a_warning_comes_at_growing_intervals(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    replay = make(consumers=2)
    watch = StandstillWatch(replay)
    with candleshm.attach(replay.name) as feed:
        thread = threading.Thread(target=feed.step)
        thread.start()
        until(lambda: replay.held_up is not None)
        caplog.set_level(logging.WARNING, "candleshm")
        due = [seconds for seconds in range(100) if watch.look(float(seconds))]
        assert due == [5, 15, 35, 75]
        assert watch.text == "2 readers are awaited, 1 takes part"
        began = f"replay {replay.name} has stood still for 5 s at 2023-11-15 00:00:00 UTC: "
        assert caplog.records[0].message == began + "2 readers are awaited, 1 takes part"
        with candleshm.attach(replay.name) as other:
            other.step()
            thread.join()
        # Time moved on, and nobody waits.
        assert [watch.look(1000.0), watch.text] == [False, None]


def test_a_reader_that_stopped_waiting_is_named_in_the_log(
    history: tuple[Path, History], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standstill, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(standstill, "FIRST_SECONDS", 0.1)
    caplog.set_level(logging.WARNING, "candleshm")
    with (
        candleshm.replay(history[0], "SPOT", FULL, "5m", *DAYS) as replay,
        candleshm.attach(replay.name) as left,
        candleshm.attach(replay.name) as feed,
    ):
        thread = threading.Thread(target=left.step)
        thread.start()
        thread.join()
        waiting = threading.Thread(target=feed.step)
        waiting.start()
        until(lambda: bool(caplog.records))
        assert f"thread {thread.native_id} of process {os.getpid()}" in caplog.records[0].message
        left.close()
        waiting.join()


REPLAYER = """
import sys, time
import candleshm
replay = candleshm.replay(sys.argv[1], "SPOT", sys.argv[2], "5m", *sys.argv[4:6], name=sys.argv[3], derive=["1h"])
print("ready", flush=True)
time.sleep(3600)
"""


def test_what_a_killed_replay_left_goes_with_its_blocks(history: tuple[Path, History], block_name: str) -> None:
    words = [sys.executable, "-c", REPLAYER, str(history[0]), FULL, block_name, *DAYS]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(list(SHM.glob(f".{block_name}*.lockstep"))) == 2
        process.kill()
    subprocess.run(
        [sys.executable, "-m", "candleshm", "rm", block_name, f"{block_name}-1h"], check=True, stdout=subprocess.DEVNULL
    )
    assert [path.name for path in SHM.iterdir() if block_name in path.name] == []
