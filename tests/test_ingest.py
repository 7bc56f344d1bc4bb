"""Many threads hand responses and frames to one block: what is published is the truth, and a stop is a stop."""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import candleshm
from candleshm._core import Ingested, NotMerged, Pushed, Writer
from candleshm.collector.ingest import Ingest
from candleshm.collector.series_plan import Kind, SeriesPlan
from candleshm.collector.workers import Job, Workers
from candleshm.columns import OPEN_TIME_MS
from candleshm.errors import BadResponse, UnknownSymbol
from candleshm.exchanges.base import KlineRequest, Response
from candleshm.exchanges.binance import Binance
from candleshm.reader.feed import Feed
from candleshm.system.clock import ExchangeTime, SystemClock
from tests.support.collecting import DEADLINE_SECONDS, until
from tests.support.klines import MINUTE_MS, START_MS, body_of, kline, torn_rows
from tests.support.klines import ingest as merge

THREADS, PAGE, PAGES = 8, 50, 12
LENGTH = PAGE * PAGES
STREAMED = "STREAMED"
SYMBOLS = [f"S{number}" for number in range(THREADS)]
NEWEST = LENGTH - 1
NOW_MS = START_MS + NEWEST * MINUTE_MS + 50_000


@dataclass
class Block:
    """A writer, what merges into it, and a reader."""

    writer: Writer
    ingest: Ingest
    feed: Feed


@pytest.fixture
def block(block_name: str) -> Iterator[Block]:
    symbols = [*SYMBOLS, STREAMED]
    with ExitStack() as stack:
        writer = Writer.open(block_name, market="SPOT", interval="1m", length=LENGTH, symbols=symbols)
        stack.enter_context(closing(writer))
        measured = ExchangeTime(SystemClock().monotonic_seconds(), NOW_MS, NOW_MS)
        ingest = Ingest(writer, exchange_time=measured, settle_ms=0)
        merge(writer, STREAMED, kline(START_MS + (NEWEST - 1) * MINUTE_MS, 1.0), sent_ms=NOW_MS)
        yield Block(writer, ingest, stack.enter_context(candleshm.attach(block_name)))


def pushed_into(block: Block, frames: list[bytes]) -> Pushed | None:
    """Hand in the texts of one socket read; None once stopped."""
    try:
        return block.writer.ingest_events(frames, received_ms=NOW_MS)
    except NotMerged:
        return None


def page(ingest: Ingest, symbol: str, first: int, value: float, sent_seconds: float = 1.0) -> Ingested | None:
    """Hand in one page of a symbol: the candles from `first` on, each with `value` and its number."""
    klines = [kline(START_MS + candle * MINUTE_MS, value + candle) for candle in range(first, first + PAGE)]
    return body(ingest, symbol, first, body_of(*klines), sent_seconds)


def body(ingest: Ingest, symbol: str, first: int, content: bytes, sent_seconds: float = 1.0) -> Ingested | None:
    request = KlineRequest(symbol, "1m", PAGE, 2, end_ms=START_MS + (first + PAGE - 1) * MINUTE_MS)
    response = Response("", 200, {}, content, sent_seconds, sent_seconds, None)
    return ingest.response(symbol, response, request, sent_ms=NOW_MS, received_ms=NOW_MS, patience_ms=0)


def frame(tick: int) -> bytes:
    """Return a frame about the live candle of the streamed symbol, newer with every tick."""
    price, open_ms = f"{1000 + tick}.5", START_MS + NEWEST * MINUTE_MS
    row = dict.fromkeys("ohlcvqVQ", price) | {"n": tick, "f": 1, "L": tick, "x": False}
    body = {"t": open_ms, "T": open_ms + MINUTE_MS - 1, "s": STREAMED, "i": "1m", **row}
    return json.dumps({"e": "kline", "E": open_ms + 1 + tick, "s": STREAMED, "k": body}).encode()


@dataclass
class Crowd:
    """Threads that begin together; `join` raises what any of them raised."""

    works: Sequence[Callable[[], object]]
    errors: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        barrier = threading.Barrier(len(self.works))

        def run(work: Callable[[], object]) -> None:
            try:
                barrier.wait(DEADLINE_SECONDS)
                work()
            except BaseException as error:
                self.errors.append(error)

        self.threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in self.works]
        for thread in self.threads:
            thread.start()

    def join(self) -> None:
        """Wait for all."""
        for thread in self.threads:
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive()
        if self.errors:
            raise self.errors[0]


def each(work: Callable[[str], object]) -> list[Callable[[], object]]:
    """Return the work of one thread per symbol."""
    return [partial(work, symbol) for symbol in SYMBOLS]


def test_what_eight_threads_and_a_stream_hand_in_at_once_is_published_row_for_row(block: Block) -> None:
    left = iter([(symbol, first) for first in reversed(range(0, LENGTH, PAGE)) for symbol in SYMBOLS])
    done = threading.Event()

    def work() -> None:
        for symbol, first in left:
            ingested = page(block.ingest, symbol, first, 1000.0 * SYMBOLS.index(symbol))
            assert ingested is not None
            assert (ingested.rows, ingested.refused) == (PAGE, 0)

    def push() -> None:
        for tick in itertools.count(1):
            pushed = pushed_into(block, [frame(tick)])
            assert pushed is not None
            assert (pushed.events, pushed.refused, pushed.stale) == (1, 0, 0)
            if done.is_set():
                ticks.append(tick)
                return

    ticks: list[int] = []
    crowd = Crowd([work] * THREADS + [push])
    for thread in crowd.threads[:-1]:
        thread.join(DEADLINE_SECONDS)
    done.set()
    crowd.join()

    for number, symbol in enumerate(SYMBOLS):
        rows = block.feed[symbol].candles(LENGTH)
        expected = 1000.0 * number + np.arange(LENGTH)
        np.testing.assert_array_equal(rows[:, OPEN_TIME_MS], START_MS + np.arange(LENGTH) * MINUTE_MS)
        np.testing.assert_array_equal(rows[:, 1], expected)
        assert not torn_rows(rows)
        assert not block.feed[symbol].gaps()
    assert block.feed[STREAMED].live[4] == 1000.5 + ticks[0]
    assert block.ingest.last_event_seconds()[STREAMED] > 0
    assert block.ingest.last_event_seconds()[SYMBOLS[0]] == -math.inf


def test_nothing_is_merged_once_a_stop_has_returned_though_eight_threads_go_on(block: Block) -> None:
    merged, refused, after = threading.Event(), threading.Event(), threading.Event()
    late: list[object] = []

    def work(symbol: str) -> None:
        for value in itertools.count():
            stopped_before = after.is_set()
            result = page(block.ingest, symbol, LENGTH - PAGE, 1000.0 * value, sent_seconds=value)
            if result is not None:
                merged.set()
                if stopped_before:
                    late.append(result)
            elif stopped_before:
                refused.set()
                return

    def push() -> None:
        for tick in itertools.count(1):
            stopped_before = after.is_set()
            pushed = pushed_into(block, [frame(tick)])
            if stopped_before:
                late.extend([] if pushed is None else [pushed])
                return

    def read() -> list[bytes]:
        return [block.feed[symbol].candles().tobytes() for symbol in [*SYMBOLS, STREAMED]]

    crowd = Crowd([*each(work), push])
    assert merged.wait(DEADLINE_SECONDS)
    block.ingest.stop()
    then = read()
    after.set()
    assert refused.wait(DEADLINE_SECONDS)
    crowd.join()

    assert not late
    assert read() == then


def test_who_asks_for_events_while_the_block_is_enlarged_keeps_no_other_thread_waiting(block_name: str) -> None:
    symbols, length = [f"S{number}" for number in range(100)], 5000
    rows = np.ones((length, 12))
    rows[:, OPEN_TIME_MS] = START_MS + MINUTE_MS * np.arange(length)
    with closing(Writer.open(block_name, market="SPOT", interval="1m", length=length, symbols=symbols)) as writer:
        for symbol in symbols:
            writer.load_rows(symbol, rows, None, sent_ms=START_MS + length * MINUTE_MS)
        entered = threading.Event()

        def enlarge() -> None:
            entered.set()
            writer.enlarge([*writer.symbols, "NEW"], 1)

        def ask() -> None:
            entered.wait(DEADLINE_SECONDS)
            time.sleep(0.01)
            before_seconds = time.perf_counter()
            writer.last_event_seconds()
            waits.append((before_seconds, time.perf_counter()))

        waits: list[tuple[float, float]] = []
        moments: list[float] = []
        threads = [threading.Thread(target=work) for work in (enlarge, ask)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            moments.append(time.perf_counter())
            time.sleep(0.001)
        [(begin_seconds, end_seconds)] = waits
        turns = sum(begin_seconds + 0.001 < moment < end_seconds - 0.001 for moment in moments)
        assert end_seconds - begin_seconds < 0.01 or turns > 1


def test_a_response_to_a_request_from_before_the_time_was_restarted_is_dropped(block: Block) -> None:
    assert page(block.ingest, "S0", 0, 1.0, sent_seconds=5.0) is not None

    block.ingest.restart_time(10.0)

    assert page(block.ingest, "S1", 0, 1.0, sent_seconds=9.9) is None
    assert block.writer.state("S1").newest_open_ms is None
    assert page(block.ingest, "S1", 0, 1.0, sent_seconds=10.0) is not None
    assert pushed_into(block, [frame(1)]) is not None


def test_a_malformed_body_publishes_nothing_and_leaves_the_way_free(block: Block) -> None:
    good = body_of(*(kline(START_MS + candle * MINUTE_MS, 1.0 + candle) for candle in range(PAGE)))
    left = iter(range(THREADS * 20))

    def work(symbol: str) -> None:
        for number in left:
            if number % 3 == 0:
                with pytest.raises(BadResponse) as raised:
                    body(block.ingest, symbol, 0, good[:-2] + b"!]")
                assert raised.value.offset == len(good) - 2
            elif number % 3 == 1:
                with pytest.raises(UnknownSymbol):
                    body(block.ingest, "NOBODY", 0, good)
            else:
                assert pushed_into(block, [b"no JSON", frame(1)]) is not None

    Crowd(each(work)).join()

    assert all(block.writer.state(symbol).newest_open_ms is None for symbol in SYMBOLS)
    assert page(block.ingest, "S0", 0, 1.0) is not None


def test_a_response_that_comes_after_the_stop_is_not_merged(block: Block) -> None:
    requested, may_respond = threading.Event(), threading.Event()
    content = body_of(kline(START_MS, 1.0))

    class Slow:
        def fetch(self, url: str) -> Response:
            requested.set()
            may_respond.wait(DEADLINE_SECONDS)
            return Response(url, 200, {}, content, 1.0, 1.1, None)

    exchange = Binance("SPOT")
    workers = Workers(1, transport=Slow(), exchange=exchange, ingest=block.ingest, block_name="")
    workers.start()
    request = exchange.newest("S0", "1m", 2)
    workers.submit(Job("", 2, block.ingest.exchange_time, 1, SeriesPlan("S0"), Kind.TAIL, request))
    requested.wait(DEADLINE_SECONDS)

    block.ingest.stop()
    workers.stop()
    may_respond.set()

    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "candleshm-worker-0"])
    assert block.writer.state("S0").newest_open_ms is None
    assert not list(workers.reports(0.0))


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 39), min_size=1))
def test_the_newest_missing_rows_are_those_of_the_newest_missing_gap(candles: set[int]) -> None:
    name = f"test-newest-missing-{threading.get_ident()}"
    with closing(Writer.open(name, market="SPOT", interval="1m", length=30, symbols=["S0"])) as writer:
        for candle in sorted(candles):
            ingested = merge(
                writer,
                "S0",
                kline(START_MS + candle * MINUTE_MS, 1.0),
                sent_ms=START_MS + 100 * MINUTE_MS,
                limit=1,
                end_ms=START_MS + candle * MINUTE_MS,
            )
            gaps = [(gap.start_ms, gap.end_ms) for gap in writer.gaps("S0") if gap.kind == "missing"]
            state = writer.state("S0")
            assert state.newest_missing_ms == (gaps[-1] if gaps else None)
            assert (state.missing > 0) == bool(gaps)
            assert ingested.newest_missing_ms == state.newest_missing_ms
            position = (state.newest_open_ms, state.unsettled_open_ms, state.missing)
            assert position == (ingested.newest_open_ms, ingested.unsettled_open_ms, ingested.missing)


def test_a_state_is_a_record_that_cannot_be_changed(block: Block) -> None:
    state = block.writer.state("S0")
    assert (state.newest_open_ms, state.unsettled_open_ms, state.missing, state.newest_missing_ms) == (
        None,
        None,
        0,
        None,
    )
    with pytest.raises(AttributeError):
        state.missing = 1  # type: ignore[misc]
