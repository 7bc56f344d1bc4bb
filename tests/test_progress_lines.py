"""The lines of progress that a log gets."""

from __future__ import annotations

import logging
import time

import pytest

from candleshm.commands.progress import ProgressLine


class _Clock:
    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_what_says_nothing_new_is_logged_at_growing_intervals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = _Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    caplog.set_level(logging.INFO, "candleshm")
    line = ProgressLine("loading")
    logged: list[float] = []
    for second in range(100):
        clock.seconds = float(second)
        before = len(caplog.records)
        line.show(None, "waiting" if second < 90 else f"{second} rows")
        logged += [clock.seconds] * (len(caplog.records) - before)
    # Pauses of 5, 10, 20, 40 s; what is new does not wait for the end of the next one.
    assert logged == [5, 15, 35, 75, 90, 95]
