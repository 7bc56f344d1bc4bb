"""The threads of downloads and verification: what a stop waits for, and how a failure ends them."""

from __future__ import annotations

import threading
import time

import pytest

from candleshm.history.workers import Workers
from candleshm.system.clock import SystemClock

DEADLINE_SECONDS = 30.0


def workers_of(stopping: threading.Event) -> Workers:
    return Workers(SystemClock(), stopping, lambda _: None)


def test_every_item_is_worked_on_once() -> None:
    done: list[int] = []
    workers_of(threading.Event()).run_each(range(100), done.append, 4)
    assert sorted(done) == list(range(100))


def test_a_failure_of_a_thread_ends_the_others_and_is_raised() -> None:
    workers = workers_of(threading.Event())

    def work(item: int) -> None:
        if item == 0:
            raise ValueError("broken")
        while workers.pause(DEADLINE_SECONDS):
            pass

    with pytest.raises(ValueError, match="broken"):
        workers.run_each(range(3), work, 3)
    assert workers.is_over


def test_a_stop_waits_for_files_and_not_for_responses() -> None:
    stopping, response, written = threading.Event(), threading.Event(), threading.Event()
    workers = workers_of(stopping)
    late: list[bool] = []

    def work(item: str) -> None:
        if item == "response":
            response.wait(DEADLINE_SECONDS)
            with workers.storing() as is_open:
                late.append(is_open)
        else:
            with workers.storing() as is_open:
                assert is_open
                stopping.set()
                time.sleep(0.3)
                written.set()

    workers.run_each(["response", "file"], work, 2)
    assert written.is_set()
    assert not late
    response.set()
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while not late and time.monotonic() < deadline_seconds:
        time.sleep(0.01)
    assert late == [False]  # what a thread brings that was left behind is dropped
