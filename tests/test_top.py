"""The command `top`: what it says about a block, what it shows first, and how it behaves on a terminal."""

from __future__ import annotations

import fcntl
import json
import math
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

import candleshm
from candleshm._core import Writer
from candleshm.commands.overview import Overview
from candleshm.commands.screen import Screen
from candleshm.commands.selection import Selection
from candleshm.commands.top import Board
from candleshm.reader.collector_report import CollectorReport, StreamReport
from candleshm.reader.events import changes
from candleshm.reader.health import Health
from candleshm.reader.observation import Observation, SeriesFacts
from candleshm.sim import SimulatedExchange
from tests.support.commanding import CLI, DEADLINE_SECONDS, complaint, first_line, run, serving, started, until
from tests.support.confined import script, with_small_shm
from tests.support.klines import MINUTE_MS, START_MS, ingest, kline

LIMIT_SECONDS = 60.0
UNTIL = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HEALTH = Health(
    name="x",
    market="SPOT",
    interval="1m",
    length=10,
    symbols=2,
    state="ready",
    pid=7,
    heartbeat_age=0.1,
    ready=True,
    missing=0,
    holes=0,
    weight_used=1,
    weight_limit=6000,
    banned_until=None,
)


def facts(symbol: str = "AUSDT", **changed: Any) -> SeriesFacts:
    fresh = SeriesFacts(
        symbol=symbol,
        trading=True,
        close=1.0,
        change=0.0,
        age_seconds=1.0,
        newest_state=candleshm.RowState.LIVE,
        missing=0,
        holes=0,
        revision=0,
    )
    return replace(fresh, **changed)


def seen(*series: SeriesFacts, closed_until_ms: int | None = None, **health: Any) -> Observation:
    return Observation(replace(HEALTH, **health), closed_until_ms, series or (facts(),))


# Events.


@pytest.mark.parametrize(
    ("before", "after", "text", "is_bad"),
    [
        (seen(), seen(closed_until_ms=START_MS), "closed until 2023-11-14 22:14:00 for all 1 symbols", False),
        (seen(facts(age_seconds=59)), seen(facts(age_seconds=61)), "stale, older than 60.0 s: AUSDT", True),
        (seen(facts(age_seconds=61)), seen(facts(age_seconds=1)), "fresh again: AUSDT", False),
        (seen(facts(missing=1)), seen(facts(missing=3)), "rows missing: AUSDT 2", True),
        (seen(facts(missing=1)), seen(facts(holes=1)), "rows the exchange does not have: AUSDT 1", True),
        (seen(facts(revision=1)), seen(facts(revision=2)), "closed rows corrected: AUSDT 1", True),
        (seen(facts()), seen(facts(trading=False)), "no longer trades: AUSDT", True),
        (seen(facts()), seen(facts(), facts("BUSDT")), "symbols added: BUSDT", False),
        (seen(), seen(banned_until=UNTIL), "no requests until 03:04:05 UTC: the exchange refuses them", True),
        (seen(banned_until=UNTIL), seen(), "requests are allowed again", False),
        (seen(), seen(state="superseded"), "block is superseded, was ready", True),
        (seen(), seen(pid=8), "collector 8 has replaced 7", False),
        (seen(), seen(heartbeat_age=9.0), "collector 7 has no heartbeat", True),
        (seen(heartbeat_age=9.0), seen(), "collector 7 has a heartbeat again after 9.0 s", False),
        (seen(ready=False, loaded=False), seen(), "all 2 symbols are loaded", False),
        (seen(), seen(ready=False, stale=2), "not ready: 2 symbols stale", True),
        (seen(ready=False, stale=2), seen(), "the data is current again", False),
    ],
    ids=lambda value: value.partition(":")[0] if isinstance(value, str) else "",
)
def test_a_change_is_one_event(before: Observation, after: Observation, text: str, is_bad: bool) -> None:  # noqa: FBT001
    (event,) = changes(before, after, LIMIT_SECONDS)

    assert (event.text, event.is_bad) == (text, is_bad)


def test_what_happens_to_many_is_one_event() -> None:
    names = ["AUSDT", "BUSDT", "CUSDT", "DUSDT", "EUSDT"]
    fresh, stale = ([facts(name, age_seconds=age) for name in names] for age in (1, 99))

    assert [event.text for event in changes(seen(*fresh), seen(*stale), LIMIT_SECONDS)] == [
        "stale, older than 60.0 s: AUSDT, BUSDT, CUSDT and 2 more"
    ]


def test_a_block_without_a_heartbeat_has_no_events_of_each_series() -> None:
    before = seen(facts(age_seconds=59), heartbeat_age=59.0)
    after = seen(facts(age_seconds=61), heartbeat_age=61.0)

    assert changes(before, after, LIMIT_SECONDS) == []


def test_loading_and_growing_older_are_no_events() -> None:
    unasked = seen(
        facts(age_seconds=math.inf, newest_state=candleshm.RowState.EMPTY), ready=False, loaded=False, missing=10
    )
    loading = seen(facts(missing=8), ready=False, loaded=False, missing=8)

    assert changes(unasked, loading, LIMIT_SECONDS) == []
    assert (
        changes(loading, seen(facts(missing=2, age_seconds=5), ready=False, loaded=False, missing=2), LIMIT_SECONDS)
        == []
    )


def test_of_closes_that_follow_each_other_the_last_is_shown() -> None:
    board = Board(Screen(), LIMIT_SECONDS)
    for minute, missing in ((0, 0), (1, 0), (2, 0), (3, 5), (4, 5)):
        lines = board.frame(seen(facts(missing=missing), closed_until_ms=START_MS + minute * MINUTE_MS), START_MS)

    shown = [line.partition("  ")[2] for line in lines[lines.index("EVENTS (UTC)") + 1 :]]
    assert [text.partition(" for all")[0] for text in shown] == [
        "closed until 2023-11-14 22:18:00",
        "rows missing: AUSDT 5",
        "closed until 2023-11-14 22:17:00",
    ]


def test_what_needs_a_look_comes_first_and_fresh_series_keep_their_places() -> None:
    series = [
        facts("DELISTED", trading=False, age_seconds=9999),
        facts("FRESH", age_seconds=0.1),
        facts("ALSO", age_seconds=2.0),
        facts("OLDER", age_seconds=40.0),
        facts("GAPS", missing=3),
        facts("MANY", missing=30),
        facts("STALE", age_seconds=70.0),
        facts("STALER", age_seconds=90.0),
        facts("EMPTY", age_seconds=math.inf, newest_state=candleshm.RowState.EMPTY),
    ]

    names = [shown.symbol for shown in Selection(LIMIT_SECONDS).of(series)]

    assert names == ["EMPTY", "STALER", "STALE", "MANY", "GAPS", "OLDER", "FRESH", "ALSO", "DELISTED"]


def test_keys_choose_the_order_and_the_symbols() -> None:
    series = [
        facts("BUSDT", change=0.02, age_seconds=9.0),
        facts("ABTC", change=-0.01, age_seconds=3.0, missing=4),
        facts("CUSDT", change=math.nan, age_seconds=6.0),
    ]
    selection = Selection(LIMIT_SECONDS)

    def shown() -> list[str]:
        return [facts.symbol for facts in selection.of(series)]

    orders = {"symbol": ["ABTC", "BUSDT", "CUSDT"], "change": ["BUSDT", "ABTC", "CUSDT"]}
    orders |= {"age": ["BUSDT", "CUSDT", "ABTC"], "missing": ["ABTC", "BUSDT", "CUSDT"]}
    for order, names in orders.items():
        selection.type("s")
        assert (shown(), selection.hint.split()[1]) == (names, order)
    selection.type("s")
    assert selection.hint.startswith("by attention")

    selection.type("/us")
    assert selection.is_typing
    assert shown() == ["BUSDT", "CUSDT"]
    selection.type("\x7fsq\r")  # a letter that is a command elsewhere
    assert (selection.is_typing, shown()) == (False, [])
    selection.type("\x1b")
    assert len(shown()) == 3


def test_the_head_says_who_keeps_the_series_fresh_and_what_fails() -> None:
    report = CollectorReport(
        pid=7,
        written_seconds=0.0,
        symbols=2,
        loaded=1,
        missing=40,
        eta_seconds=12.0,
        requests=100,
        errors={"ExchangeUnavailable": 3},
        newest_error="HTTP 503 \x1b[31mred",
        failing=("BUSDT",),
        by_requests=("BUSDT",),
        audits=5,
        audit_rows={"equal": 60, "corrected": 0},
        verified=9,
        conflicts=0,
        stream=StreamReport(connections=1, streams=1, path="wss://x/stream", path_moves=0, lost=0, stalled=("BUSDT",)),
    )
    board = Board(Screen(), LIMIT_SECONDS)
    text = "\n".join(board.frame(Observation(HEALTH, None, (facts("AUSDT"), facts("BUSDT"))), 0.0, report))

    assert "1 stream on 1 connection, 1 symbol by requests  1 stalled: BUSDT  path wss://x/stream" in text
    assert "5 audits (60 equal, 0 corrected)" in text
    assert "loading: 1 of 2 symbols, 12 s to go" in text
    assert "3 of 100 requests failed, now failing: BUSDT; the newest: HTTP 503 \\x1b[31mred" in text
    assert re.search(r"^AUSDT .* stream$", text, re.MULTILINE)
    assert re.search(r"^BUSDT .* requests$", text, re.MULTILINE)


def test_top_shows_the_report_of_a_collector_and_none_of_a_dead_one(block_name: str) -> None:
    with SimulatedExchange(symbols=2) as exchange, started(*serving(exchange, block_name)) as process:
        first_line(process)
        until(lambda: "no streams, 2 symbols by requests" in run("top", block_name, "--once").stdout)
        [block] = json.loads(run("top", block_name, "--json").stdout)
        assert (block["name"], block["condition"], block["report"]["symbols"]) == (block_name, "ready", 2)
        assert {series["symbol"]: series["source"] for series in block["series"]} == {
            "BTCUSDT": "requests",
            "ETHUSDT": "requests",
        }
        assert block_name in {each["name"] for each in json.loads(run("top", "--json").stdout)}
        process.kill()
        process.wait(DEADLINE_SECONDS)
        until(lambda: json.loads(run("top", block_name, "--json").stdout)[0]["report"] is None)
    assert "by requests" not in run("top", block_name, "--once").stdout


# The command.


@pytest.fixture
def writer(block_name: str) -> Iterator[Writer]:
    """A block of three symbols: one with a gap, one that no longer trades, one without any response."""
    symbols = ["BTCUSDT", "OLDUSDT", "NEWUSDT"]
    writer = Writer.open(block_name, market="SPOT", interval="1m", length=10, symbols=symbols)
    sent_ms = START_MS + 5 * MINUTE_MS + 10_000
    times = [START_MS + slot * MINUTE_MS for slot in (0, 1, 3, 4, 5)]
    ingest(writer, "BTCUSDT", *(kline(ms, 100 + index) for index, ms in enumerate(times)), sent_ms=sent_ms)
    ingest(writer, "OLDUSDT", *(kline(ms, 0.00001234) for ms in times), sent_ms=sent_ms)
    writer.set_trading("OLDUSDT", False)
    writer.set_health(ready=True, weight_used=1500, weight_limit=6000, banned_until_ms=None)
    writer.heartbeat()
    yield writer
    writer.close()


def test_once_prints_a_frame_with_every_symbol(writer: Writer, block_name: str) -> None:
    shown = run("top", block_name, "--once")
    title, collector, content, _, head, *rows = shown.stdout.rstrip().splitlines()

    assert (shown.returncode, shown.stderr) == (0, "")
    assert title == f"{block_name}  SPOT 1m, 3 symbols of 10 candles  ready"
    assert collector.startswith(f"collector {os.getpid()}, heartbeat ")
    assert collector.endswith("weight ████░░░░░░░░░░░░ 1,500 of 6,000")
    assert " missing, 0 holes, 1 stale, oldest " in content
    assert ", closed until 2023-11-14 22:19:00, " in content
    assert head.split() == ["SYMBOL", "LIVE", "CLOSE", "CHANGE", "AGE", "STATE", "MISSING", "HOLES", "REV"]
    cells = [row.split() for row in rows]
    assert cells[0] == ["NEWUSDT", "-", "-", "-", "empty", "-", "-", "-"]
    assert cells[1][:3] == ["BTCUSDT", "104.000", "+0.971%"]
    assert cells[1][5:] == ["live", "5", "-", "-"]
    assert cells[2][0] == "OLDUSDT"
    assert cells[2][5] == "delisted"
    assert len(rows) == 3


def test_a_block_that_is_not_there() -> None:
    assert "`no-such-block`" in complaint("top", "no-such-block", "--once")


def test_without_a_name_all_blocks_stand_in_one_table(writer: Writer, block_name: str) -> None:
    other = Writer.open(f"{block_name}-5m", market="UM", interval="5m", length=10, symbols=["A", "B", "C"])
    try:
        shown = run("top", "--once").stdout
    finally:
        other.close()

    lines = {line.split()[1]: line.split() for line in shown.splitlines() if block_name in line}
    assert lines[block_name][3:6] == ["SPOT", "1m", "3"]
    assert lines[f"{block_name}-5m"][2:6] == ["loading", "UM", "5m", "3"]
    assert re.match(r"\d+ blocks, [\d,]+ series, ", shown)


def test_what_is_wrong_comes_first_and_a_number_chooses_a_block() -> None:
    overview = Overview(Screen())
    stale = replace(HEALTH, name="b", loaded=True, ready=False, stale=2, oldest_age=77.0)
    lines = overview.frame([replace(HEALTH, name="a"), stale], ["2 blocks of another user cannot be read: x, y"])

    assert lines[0] == "2 blocks, 4 series, 1 need attention"
    assert lines[3].split()[:2] == ["1", "b"]
    assert lines[3].split()[2] == "stale"
    assert lines[3].endswith("  2 stale, oldest 77.0 s")
    assert lines[4].split()[:2] == ["2", "a"]
    assert lines[5] == "2 blocks of another user cannot be read: x, y"
    assert [overview.chosen(typed) for typed in ("2", "\n", "1\n", "3\n", "x1", "\r", "\n")] == [
        *(None, "a", "b", None, None, "b", None)
    ]


_LEAVE = (
    "import os, sys; from candleshm._core import Writer; "
    "left = Writer.open(sys.argv[1], market='SPOT', interval='1m', length=10, symbols=['BTCUSDT']); os._exit(0)"
)


def test_on_a_terminal_keys_choose_a_block_and_end_it(block_name: str) -> None:
    """In a /dev/shm of its own: blocks of other tests would change the numbers."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    shown = b""

    def read_until(words: str) -> str:
        nonlocal shown
        while words.encode() not in shown:
            assert select.select([ours], [], [], DEADLINE_SECONDS)[0], shown
            shown += os.read(ours, 65536)
        before, shown = shown, b""
        return before.decode(errors="replace")

    environment = os.environ | {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"}
    before = termios.tcgetattr(theirs)
    leave = shlex.join(script(_LEAVE, block_name))
    top = shlex.join(["setsid", "--ctty", "--wait", *CLI, "top", "--interval-seconds", "0.05"])
    words = with_small_shm(8192, "sh", "-c", f"{leave}; {leave}-b; exec {top}")
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment)
    try:
        assert re.search(rf"\n2  {block_name}-b ", read_until(f"{block_name}-b "))
        os.write(ours, b"2\n")
        assert f"{block_name}-b  SPOT 1m" in read_until("a: all blocks; q: end")
        os.write(ours, b"a")
        read_until("2 blocks, 2 series, ")
        os.write(ours, b"q")
        assert process.wait(DEADLINE_SECONDS) == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
        os.close(theirs)


def test_on_a_terminal_frames_stay_in_place_and_tell_what_happens(writer: Writer, block_name: str) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 17, 80, 0, 0))
    shown = b""

    def read_until(words: str) -> None:
        nonlocal shown
        while words.encode() not in shown:
            assert select.select([ours], [], [], DEADLINE_SECONDS)[0], shown
            shown += os.read(ours, 65536)

    command = ("top", block_name, "--interval-seconds", "0.05")
    # A size that the environment states would win over that of the terminal.
    environment = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
    environment |= {"TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    with started(*command, stdout=theirs, stdin=subprocess.DEVNULL, env=environment) as process:
        os.close(theirs)
        read_until("no events yet")
        until_ms = int(UNTIL.timestamp() * 1000)
        writer.set_health(ready=True, weight_used=6000, weight_limit=6000, banned_until_ms=until_ms)
        read_until("no requests until 03:04:05")
        sent_ms = START_MS + 6 * MINUTE_MS + 10_000
        ingest(writer, "BTCUSDT", *(kline(START_MS + slot * MINUTE_MS, 7) for slot in (4, 5, 6)), sent_ms=sent_ms)
        read_until("closed rows corrected: BTCUSDT 1")
        read_until("for all 2 symbols")
        writer.close()
        read_until("block is closed, was ready")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_SECONDS) == 0
        while select.select([ours], [], [], 0)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:
                break  # Linux says that nobody holds the other end any more.
    os.close(ours)

    frames = re.split(rb"\x1b\[\d+F", shown)
    assert len(frames) > 3
    biggest = max(frames, key=lambda frame: frame.count(b"\n"))
    assert biggest.count(b"\n") <= 16, biggest.decode()
    assert shown.rstrip().endswith(b"\x1b[?25h\x1b[?7h")
