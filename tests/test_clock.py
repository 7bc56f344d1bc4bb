"""Bounds of the exchange's clock: what is surely reached, what is surely not passed."""

from __future__ import annotations

from random import Random

from candleshm.system.clock import DRIFT, ExchangeTime, SystemClock


def test_one_measurement_bounds_the_exchange_by_its_round_trip() -> None:
    measured = ExchangeTime.measured(sent_seconds=10.0, received_seconds=10.2, server_ms=1_000_000)

    # The stamp was made between sending and receipt, and cut down to whole milliseconds.
    assert measured.earliest_ms(10.2) == 1_000_000
    assert measured.latest_ms(10.2) == 1_000_201
    assert measured.error_ms(10.2) == 201


def test_bounds_contain_the_exchange_whatever_the_delays_and_the_drift() -> None:
    random = Random(7)
    for _ in range(500):
        offset_ms, rate = random.uniform(-1e9, 1e9), 1 + random.uniform(-DRIFT, DRIFT)

        def exchange_ms(local_seconds: float, offset_ms: float = offset_ms, rate: float = rate) -> float:
            return offset_ms + local_seconds * 1000 * rate

        local_seconds = random.uniform(0, 1000)
        known: ExchangeTime | None = None
        for _ in range(4):
            stamped_seconds = local_seconds + random.uniform(0, 0.4)
            received_seconds = stamped_seconds + random.uniform(0, 0.4)
            newest = ExchangeTime.measured(local_seconds, received_seconds, int(exchange_ms(stamped_seconds) // 1))
            known = newest if known is None else known.refined(newest)
            local_seconds = received_seconds + random.uniform(0, 300)
            assert known.earliest_ms(local_seconds) <= exchange_ms(local_seconds) <= known.latest_ms(local_seconds)


def test_refining_keeps_the_tighter_bounds_of_an_earlier_measurement() -> None:
    tight = ExchangeTime.measured(10.0, 10.001, 1_000_000)
    loose = ExchangeTime.measured(11.0, 12.0, 1_001_400)

    refined = tight.refined(loose)

    assert refined.measured_seconds == 12.0
    assert refined.error_ms(12.0) <= 4


def test_a_clock_that_was_set_replaces_what_was_known() -> None:
    before = ExchangeTime.measured(10.0, 10.1, 1_000_000)
    after_step = ExchangeTime.measured(11.0, 11.1, 2_000_000)

    assert before.refined(after_step) == after_step


def test_what_is_known_widens_while_nothing_is_measured() -> None:
    measured = ExchangeTime.measured(10.0, 10.0, 0)

    assert measured.error_ms(10.0) == 1
    assert measured.error_ms(10.0 + 600.0) >= 2 * 600_000 * DRIFT


def test_a_date_header_is_whole_seconds_and_may_be_cached_for_a_moment() -> None:
    measured = ExchangeTime.measured(10.0, 10.1, 1_000_900)

    assert measured.agrees_with(1_000_000, 10.0, 10.1)
    assert measured.agrees_with(999_000, 10.0, 10.1)
    assert not measured.agrees_with(990_000, 10.0, 10.1)
    assert not measured.agrees_with(1_010_000, 10.0, 10.1)


def test_system_clock_never_steps_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic_seconds() for _ in range(1000)]

    assert readings == sorted(readings)
    assert clock.epoch_ms() > 1_700_000_000_000
