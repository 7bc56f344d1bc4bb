"""When the connection of a group of symbols is opened, rotated, resubscribed and replaced: decided without a socket."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from candleshm.exchanges.binance import Binance
from candleshm.stream.connection import Connection
from candleshm.stream.lane import BARREN_SECONDS, REPLACE_SECONDS, SERVED_SECONDS, Lane
from candleshm.stream.stalls import Stalls
from candleshm.stream.subscriptions import MESSAGE_NAMES_MAX, Subscriptions
from candleshm.system.block_log import BlockLog

RULES = replace(Binance("SPOT").stream_rules("1m"), life_seconds=1000.0)
SYMBOLS = ["A", "B", "C"]


@dataclass(eq=False)
class FakeConnection:
    """A connection whose state the test sets."""

    opened_seconds: float
    number: int = 0
    events: int = 0
    is_open: bool = True
    rotation: str = ""
    reason: str = ""
    misbehaved: bool = False
    is_outdated: bool = False
    patience_seconds: float = 10.0
    resubscribed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.subscriptions = Subscriptions([symbol.lower() for symbol in SYMBOLS], RULES, self.opened_seconds)
        self.subscriptions.opened(self.opened_seconds)

    def resubscribe(self, names: Any) -> None:
        """Note what was subscribed once more."""
        self.resubscribed += names

    def close(self) -> None:
        """End."""
        self.is_open, self.reason = False, self.reason or "closed by us"

    def abort(self, reason: str) -> None:
        """End for a reason."""
        self.is_open, self.reason = False, reason


def lane_of(*symbols: str) -> Lane:
    """Return a lane without a connection."""
    return Lane(dict.fromkeys(symbols), names={symbol.lower(): symbol for symbol in symbols})


def connect(lane: Lane, now: float, *, life_seconds: float = 900.0) -> FakeConnection:
    """Open a connection in a lane, as its current one or as standby."""
    connection = FakeConnection(now)
    lane.opened(cast(Connection, connection), life_seconds)
    return connection


def lose(lane: Lane, connection: FakeConnection, now: float) -> bool:
    """Let a connection end."""
    return lane.lost(cast(Connection, connection), now)


def test_a_lane_without_a_connection_needs_one_unless_it_has_no_symbols() -> None:
    assert lane_of(*SYMBOLS).rotate(RULES, 0.0)
    assert not lane_of().rotate(RULES, 0.0)
    waiting = lane_of(*SYMBOLS)
    waiting.retry_seconds = 5.0
    assert not waiting.rotate(RULES, 4.0)
    assert waiting.rotate(RULES, 5.0)


def test_a_connection_rotates_at_its_age_and_the_standby_takes_over_once_it_carries_everything() -> None:
    lane = lane_of(*SYMBOLS)
    old = connect(lane, 0.0)
    assert not lane.rotate(RULES, 900.0)
    assert lane.rotate(RULES, 901.0), "a standby has to be opened"
    assert old.rotation == "it has reached its maximum age"
    standby = connect(lane, 901.0)
    standby.events = 9
    assert not lane.rotate(RULES, 902.0)
    assert lane.current is cast(Connection, old), "the standby is too young"
    standby.subscriptions.subscribed_seconds.pop("c")
    lane.rotate(RULES, 910.0)
    assert lane.current is cast(Connection, old), "one stream was not acknowledged yet"
    standby.subscriptions.subscribed_seconds["c"] = 910.0
    lane.rotate(RULES, 911.0)
    assert (lane.current, lane.standby) == (cast(Connection, standby), None)
    assert not old.is_open


def test_a_standby_takes_over_at_once_when_the_old_connection_ended() -> None:
    lane = lane_of(*SYMBOLS)
    old = connect(lane, 0.0)
    old.rotation = "the server is shutting down"
    standby = connect(lane, 10.0)
    assert lose(lane, old, 10.5)
    lane.rotate(RULES, 10.6)
    assert lane.current is cast(Connection, standby)


def test_a_standby_that_brings_nothing_is_given_up_and_the_old_connection_kept() -> None:
    lane = lane_of(*SYMBOLS)
    old = connect(lane, 0.0)
    lane.remedy(SYMBOLS, dict.fromkeys(SYMBOLS, 1), SYMBOLS, 20.0)
    assert old.rotation == "3 of 3 streams are stalled"
    standby = connect(lane, 20.0)
    lane.rotate(RULES, 20.0 + BARREN_SECONDS + 5)
    assert (standby.reason, old.rotation) == ("it delivered no data", "")
    assert lane.current is cast(Connection, old)


def test_a_silent_standby_by_a_path_that_was_given_up_makes_way_for_one_by_the_next_path() -> None:
    lane = lane_of(*SYMBOLS)
    old = connect(lane, 0.0)
    lane.remedy(SYMBOLS, dict.fromkeys(SYMBOLS, 1), SYMBOLS, 5.0)
    standby = connect(lane, 5.0)
    lane.rotate(RULES, 10.5)
    assert standby.is_open
    standby.is_outdated = True
    lane.rotate(RULES, 11.0)
    assert (standby.reason, old.rotation) == ("it delivered no data", "3 of 3 streams are stalled")
    lose(lane, standby, 11.1)
    assert lane.rotate(RULES, 11.2), "the old connection is replaced all the same"


@pytest.mark.parametrize(
    ("events", "misbehaved", "seconds", "attempts"),
    [(5, False, SERVED_SECONDS + 1, 0), (5, False, 1.0, 4), (0, False, 60.0, 4), (5, True, 60.0, 4)],
)
def test_only_a_connection_that_served_well_is_reconnected_without_a_pause(
    events: int,
    misbehaved: bool,  # noqa: FBT001
    seconds: float,
    attempts: int,
) -> None:
    lane = lane_of(*SYMBOLS)
    lane.attempts = 3
    connection = connect(lane, 0.0)
    connection.events, connection.misbehaved, connection.reason = events, misbehaved, "reset"
    assert lose(lane, connection, seconds)
    assert (lane.attempts, lane.reason, lane.current) == (attempts, "reset", None)


def test_one_stalled_stream_is_resubscribed_then_costs_one_reconnect_and_no_more() -> None:
    lane = lane_of(*SYMBOLS)
    old = connect(lane, 0.0)
    lane.remedy(["B"], {"B": 1}, ["B"], 10.0)
    assert (old.resubscribed, old.rotation) == (["b"], "")
    lane.remedy(["B"], {"B": 2}, ["B"], 14.0)
    assert (old.resubscribed, old.rotation) == (["b"], "1 of 3 streams are stalled")
    lane.current = None
    new = connect(lane, 15.0)
    for attempt in range(3, 9):
        lane.remedy(["B"], {"B": attempt}, ["B"], 100.0 * attempt)
    assert (new.resubscribed, new.rotation) == (["b"] * 6, ""), "the others keep their connection"


def test_pauses_between_reconnects_grow_until_most_streams_flow_again() -> None:
    lane = lane_of(*SYMBOLS)
    due, moments = dict.fromkeys(SYMBOLS, 1), []
    for now in range(0, 300, 5):
        connection = connect(lane, float(now))
        lane.remedy(SYMBOLS, due, SYMBOLS, float(now))
        if connection.rotation:
            moments.append(now)
        lane.current = None
    assert moments == [0, REPLACE_SECONDS, 3 * REPLACE_SECONDS, 7 * REPLACE_SECONDS, 15 * REPLACE_SECONDS]
    connect(lane, 300.0)
    lane.remedy([], {}, ["C"], 300.0)
    assert (lane.causes, lane.replacements) == (frozenset(), 0)


def test_the_status_of_another_thread_sees_a_whole_set_of_stalled_symbols() -> None:
    now = [0.0]
    stalls, lane = Stalls(RULES, BlockLog(logging.getLogger("candleshm"), "test"), lambda: now[0]), lane_of(*SYMBOLS)
    connect(lane, 0.0)
    stalls.want(SYMBOLS)
    before = stalls.down
    now[0] = 60.0
    stalls.look([lane], {"A": 59.0})
    assert before == frozenset(), "what was read does not change meanwhile"
    assert stalls.down == {"B", "C"}
    now[0] = 61.0
    stalls.look([lane], dict.fromkeys(SYMBOLS, 60.5))
    assert stalls.down == frozenset()


def test_a_row_that_is_newer_in_rest_is_noted_by_another_thread_at_any_moment() -> None:
    rules, now = Binance("UM").stream_rules("1m"), [0.0]
    stalls = Stalls(rules, BlockLog(logging.getLogger("candleshm"), "test"), lambda: now[0])

    class Interrupted(dict[str, float]):
        """Streams of which another thread suspects one more with every look at them."""

        def __contains__(self, symbol: object) -> bool:
            stalls.suspect(f"{symbol}, and one more")
            return super().__contains__(symbol)

    class LaneOfOthers(Lane):
        """A lane whose streams were subscribed long ago."""

        def subscribed_seconds(self) -> dict[str, float]:
            """Return them."""
            return Interrupted(dict.fromkeys(SYMBOLS, 0.0))

    lane = LaneOfOthers(dict.fromkeys(SYMBOLS), names={symbol.lower(): symbol for symbol in SYMBOLS})
    connect(lane, 0.0)
    stalls.want(SYMBOLS)
    stalls.suspect("A")
    stalls.suspect("B")
    now[0] = 60.0
    stalls.look([lane], dict.fromkeys(SYMBOLS, -math.inf))
    assert stalls.down == set(SYMBOLS[:2])


def test_refused_subscriptions_are_sent_again_in_halves_until_the_wrong_name_is_alone() -> None:
    names = [f"s{number}" for number in range(MESSAGE_NAMES_MAX)]
    subscriptions = Subscriptions([], RULES, 0.0)
    subscriptions.want(dict.fromkeys(names).keys())
    sizes: list[int] = []
    for now in range(1, 60):
        for text in subscriptions.messages(float(now)):
            held = [name for name in names if f'"{name}"' in text.decode()]
            sizes.append(len(held))
            number = text.decode().rpartition(":")[2].strip(" }")
            reply = f'{{"id":{number},"code":2}}' if "s7" in held else f'{{"id":{number},"result":null}}'
            subscriptions.acknowledged(reply.encode(), float(now))
    assert sizes[0] == MESSAGE_NAMES_MAX
    assert subscriptions.subscribed_seconds.keys() == set(names) - {"s7"}
    assert min(sizes) == 1
