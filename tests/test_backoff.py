"""Delays between attempts."""

from __future__ import annotations

from random import Random

import pytest

from candleshm.network.backoff import Backoff


def test_delays_double_to_the_limit() -> None:
    backoff = Backoff(first_seconds=0.2, limit_seconds=5.0, jitter=0.0)

    delays = [backoff.delay_seconds(attempt, Random(0)) for attempt in range(1, 8)]

    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


def test_jitter_only_shortens_and_differs_between_series() -> None:
    backoff, random = Backoff(first_seconds=1.0, jitter=0.25), Random(1)

    delays = {backoff.delay_seconds(1, random) for _ in range(100)}

    assert len(delays) == 100
    assert all(0.75 < delay <= 1.0 for delay in delays)


@pytest.mark.parametrize("attempt", [0, 64, 10_000_000])
def test_any_attempt_number_gives_a_usable_delay(attempt: int) -> None:
    assert 0 < Backoff().delay_seconds(attempt, Random(2)) <= 60.0
