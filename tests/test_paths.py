"""Which path to the streams is used when one is refused, or acknowledged without data. Decided without a socket."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candleshm.exchanges.binance import MARKETS, Binance
from candleshm.stream.paths import FLOWING_SECONDS, ONE_STREAM_SECONDS, PATH_STATUSES, SILENT_SECONDS_MAX, Paths

FIRST, SECOND, THIRD = MARKETS["CM"].stream_urls


def paths(count: int = 3) -> Paths:
    return Paths("CM", MARKETS["CM"].stream_urls[:count])


def test_the_preferred_path_is_used_while_it_works_and_nothing_is_said() -> None:
    ways = paths()
    for second in range(100):
        assert ways.choose() == FIRST
        assert ways.works(FIRST, float(second)) is None
    assert ways.moves == 0


def test_a_path_without_data_is_left_and_the_log_says_once_for_which() -> None:
    ways = paths()
    assert ways.silent(FIRST, 200, 0.0)
    assert ways.choose() == SECOND
    assert ways.works(SECOND, 1.0) == (
        "streams of CM come by wss://dstream.binance.com/market/stream, because /stream acknowledged and sent no data"
    )
    assert ways.works(SECOND, 2.0) is None
    assert (ways.choose(), ways.moves) == (SECOND, 1)


def test_the_log_has_every_path_that_failed_with_its_host_if_that_is_another() -> None:
    ways = paths()
    assert ways.silent(FIRST, 200, 0.0)
    assert ways.refused(SECOND, 404)
    assert ways.works(THIRD, 1.0) == (
        "streams of CM come by wss://fstream.binance.com/market/stream, "
        "because wss://dstream.binance.com/stream acknowledged and sent no data "
        "and wss://dstream.binance.com/market/stream was refused with HTTP 404"
    )


def test_credentials_of_a_url_are_not_in_the_log() -> None:
    ways = Paths("UM", Binance("UM", ws_url="wss://me:secret@h").stream_rules("1m").urls)
    assert ways.refused(ways.choose(), 404)
    assert ways.works(ways.choose(), 0.0) == (
        "streams of UM come by wss://h/stream, because /market/stream was refused with HTTP 404"
    )


@pytest.mark.parametrize("status", sorted(PATH_STATUSES))
def test_a_status_that_another_path_may_not_have_moves_on(status: int) -> None:
    ways = paths()
    assert ways.refused(FIRST, status)
    assert ways.choose() == SECOND


@pytest.mark.parametrize("status", [407, 418, 429, 451, 500, 502, 503])
def test_a_status_of_the_server_or_of_the_address_does_not(status: int) -> None:
    ways = paths()
    assert not ways.refused(FIRST, status)
    assert (ways.choose(), ways.moves) == (FIRST, 0)


def test_connections_that_fail_together_move_on_once() -> None:
    ways = paths()
    assert [ways.silent(FIRST, 1000, 0.0) for _ in range(5)] == [True, False, False, False, False]
    assert not ways.refused(FIRST, 404)
    assert (ways.choose(), ways.moves) == (SECOND, 1)


def test_one_symbol_that_sends_nothing_leaves_the_path_to_itself() -> None:
    ways = paths()
    ways.works(FIRST, 0.0)
    assert not ways.silent(FIRST, 1, ONE_STREAM_SECONDS)
    assert (ways.choose(), ways.moves) == (FIRST, 0)


def test_a_connection_that_sends_nothing_beside_one_that_does_is_not_the_paths_fault() -> None:
    ways = paths()
    ways.works(FIRST, 0.0)
    assert not ways.silent(FIRST, 1000, FLOWING_SECONDS)
    assert ways.silent(FIRST, 1000, FLOWING_SECONDS + 1)


def test_a_path_that_is_retired_while_it_is_used_is_left() -> None:
    ways = paths()
    ways.works(FIRST, 0.0)
    assert ways.refused(FIRST, 404)
    # Connections that were opened before go on for hours, and change nothing.
    assert ways.works(FIRST, 1.0) is None
    assert ways.choose() == SECOND
    assert ways.works(SECOND, 2.0) is not None


def test_when_all_have_failed_it_starts_over_with_more_patience() -> None:
    ways = paths()
    order, patience = [], []
    for second in range(9):
        order.append(ways.choose())
        patience.append(ways.silent_seconds)
        ways.silent(ways.choose(), 200, float(second))
    assert order == [FIRST, SECOND, THIRD] * 3
    assert patience == [10.0] * 3 + [20.0] * 3 + [40.0] * 3
    for second in range(100):
        ways.silent(ways.choose(), 200, float(second))
    assert ways.silent_seconds == SILENT_SECONDS_MAX
    ways.works(ways.choose(), 200.0)
    assert ways.silent_seconds == 10.0


def test_a_market_with_one_path_stays_there() -> None:
    ways = paths(1)
    assert not ways.silent(FIRST, 1000, 0.0)
    assert not ways.refused(FIRST, 404)
    assert (ways.choose(), ways.moves) == (FIRST, 0)


def test_the_last_of_all_to_fail_is_not_the_first_to_be_tried_again() -> None:
    ways = paths(2)
    ways.silent(FIRST, 200, 0.0)
    ways.works(SECOND, 0.0)
    assert ways.silent(SECOND, 200, 100.0)
    assert ways.silent(FIRST, 200, 101.0)
    assert ways.choose() == SECOND


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["refused", "silent", "works"]),
        st.integers(0, 2),
        st.sampled_from([200, 403, 404, 429, 451, 503]),
        st.sampled_from([1, 2, 1000]),
        st.floats(0, 5000),
    ),
    max_size=60,
)


def act(ways: Paths, urls: tuple[str, ...], acts: list[tuple[str, int, int, int, float]]) -> tuple[float, list[str]]:
    """Let all this happen; return the time, and the URLs that the log names."""
    now, lines = 0.0, []
    for what, place, status, streams, seconds in acts:
        now += seconds
        before, moves, url = ways.choose(), ways.moves, urls[place % len(urls)]
        line = None
        if what == "refused":
            moved = ways.refused(url, status)
            assert not moved or status in PATH_STATUSES
        elif what == "silent":
            moved = ways.silent(url, streams, now)
        else:
            moved, line = False, ways.works(url, now)
        assert moved == (ways.choose() != before) == (ways.moves == moves + 1)
        assert not moved or url == before
        if line is not None:
            lines.append(line.split(",")[0].split(" come by ")[1])
    return now, lines


@given(st.integers(1, 3), ACTS)
def test_only_what_happens_to_the_chosen_path_moves_it_and_each_change_is_said_once(
    count: int, acts: list[tuple[str, int, int, int, float]]
) -> None:
    ways, urls = paths(count), MARKETS["CM"].stream_urls[:count]
    _, lines = act(ways, urls, acts)
    assert ways.choose() in urls
    assert all(one != other for one, other in pairwise([urls[0], *lines]))


@given(st.integers(1, 3), st.integers(0, 2), ACTS, st.booleans())
def test_whatever_happened_the_one_path_that_works_is_found_and_kept(
    count: int,
    good: int,
    acts: list[tuple[str, int, int, int, float]],
    refuses: bool,  # noqa: FBT001
) -> None:
    ways, urls = paths(count), MARKETS["CM"].stream_urls[:count]
    now, _ = act(ways, urls, acts)
    now += 2 * ONE_STREAM_SECONDS
    right = urls[good % count]
    for _ in range(2 * count):
        url = ways.choose()
        now += 1.0
        if url == right:
            ways.works(url, now)
        elif refuses:
            ways.refused(url, 404)
        else:
            ways.silent(url, 1000, now)
    assert ways.choose() == right
    # From then on one symbol, or one connection of several, moves nothing.
    assert not ways.silent(right, 1, now)
    assert not ways.silent(right, 1000, now)
