"""Random lives of a block: the real writer and the real reader beside a dictionary that is obviously right.

Every step is an answer of the exchange, a death, a listing or a larger block; after each of them everything that a
reader can ask must be what the reference says, through a feed that has been attached from the first step on.
"""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass, field
from typing import NamedTuple

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import candleshm
from candleshm import _core
from candleshm.columns import CLOSE
from candleshm.row_state import RowState
from tests.support.collecting import until
from tests.support.klines import MINUTE_MS, body_of, kline

STEPS = int(os.environ.get("STATEFUL_STEPS", "40"))
EXAMPLES = int(os.environ.get("STATEFUL_EXAMPLES", "25"))
NAMES = ["BTCUSDT", "ETHUSDT", "1000SHIBUSDT"]
FIRST_BAR = 28_000_000
SETTLE_MS, CONTRADICTED_MS = 1_000, 600_000
LIVE, CLOSED, HOLE, MISSING = RowState.LIVE, RowState.CLOSED, RowState.HOLE, RowState.MISSING
_numbers = itertools.count()


def open_ms(bar: int) -> int:
    return bar * MINUTE_MS


class Known(NamedTuple):
    """What is known of one bar: a value, whether it is final, and when it was asked for."""

    value: float
    is_final: bool
    sent_ms: int

    def rank(self) -> tuple[bool, int, float]:
        """Order by what counts more: a final answer, then a later one, then the larger value, as candles grow."""
        return self.is_final, self.sent_ms, self.value


@dataclass
class Reference:
    """One series as a dictionary from bar to value."""

    length: int
    rows: dict[int, Known] = field(default_factory=dict)
    holes: set[int] = field(default_factory=set)
    absent: dict[int, tuple[int, int]] = field(default_factory=dict)
    head: int = 0
    final: int = 0
    first: int = 0
    is_trading: bool = True

    def start(self) -> int:
        return min(max(self.head - self.length, self.first), self.head)

    def state(self, bar: int) -> int:
        if bar in self.rows:
            return CLOSED if self.rows[bar].is_final else LIVE
        return HOLE if bar in self.holes else MISSING

    def final_value(self, bar: int) -> float:
        return self.rows[bar].value if self.state(bar) == CLOSED and bar < self.head else math.nan

    def is_settled(self, bar: int) -> bool:
        return bar < self.head and (bar < self.start() or self.state(bar) in (CLOSED, HOLE))

    def window(self, *, closed_only: bool) -> range:
        """The bars of a full copy: up to the live one, or up to the first one that is not final."""
        end = self.final if closed_only else self.head + (self.head in self.rows)
        return range(min(max(end - self.length, self.start()), end), end)

    def shown(self) -> range:
        """The bars below the live one of the window that readers get."""
        return range(min(self.window(closed_only=False).start, self.head), self.head)

    def merge(self, sent_ms: int, rows: dict[int, float], asked: range) -> None:
        """Take in an answer that holds every row there is in `asked`, which may reach beyond the clock."""

        def ended(bar: int) -> bool:
            return open_ms(bar + 1) <= sent_ms - SETTLE_MS

        old_final, told = self.final, set(rows)
        newest = max(rows, default=0)
        known = self.rows.get(newest)
        if rows and asked.stop > newest + 1 and known is not None and int(rows[newest]) < int(known.value):
            # The newest row with fewer trades than were seen before: an old picture of a candle still in progress.
            rows = {bar: value for bar, value in rows.items() if bar < newest}
        if rows:
            newest = max(rows)
            self.head = max(self.head, newest + ended(newest))
        bottom = self.head - self.length
        held = {bar: value for bar, value in rows.items() if bar >= bottom}
        for bar, value in held.items():
            self.first = min(self.first, bar)
            new, old = Known(value, ended(bar), sent_ms), self.rows.get(bar)
            if old is not None:
                wins = new.rank() >= old.rank()
            else:
                # What was told to be final, or not to exist, is only ever replaced by a final row.
                wins = new.is_final or (bar >= old_final and bar not in self.holes)
            if wins:
                self.rows[bar] = new
                self.holes.discard(bar)
        self.rows = {bar: known for bar, known in self.rows.items() if bar >= bottom}
        self.holes = {bar for bar in self.holes if bar >= bottom}
        self._raise_final()
        covered = range(asked.start, min(asked.stop, (sent_ms - SETTLE_MS) // MINUTE_MS))
        self._conclude(sent_ms, covered, told, older=len(held) < len(rows))

    def _raise_final(self) -> None:
        open_bars = [bar for bar, known in self.rows.items() if bar < self.head and not known.is_final]
        self.final = max(self.final, min(open_bars, default=self.head))

    def _conclude(self, sent_ms: int, covered: range, told: set[int], *, older: bool) -> None:
        """Two answers without a row, at least `SETTLE_MS` apart, are proof that there is none.

        When they lack final rows that are known, they have to agree for ten minutes. A row that never became final
        may turn out never to have been.
        """
        start = self.start()
        missing = [bar for bar in range(start, self.head) if not self.is_settled(bar)]
        self.absent = {bar: seen for bar, seen in self.absent.items() if bar in missing}
        absent = [bar for bar in missing if bar in covered and bar not in told]
        if not absent:
            return
        window = range(start, self.head)
        forgets = any(bar in covered and bar not in told and self.state(bar) == CLOSED for bar in window)
        confirmed = set()
        for bar in absent:
            first_ms, last_ms = self.absent.get(bar, (sent_ms, sent_ms))
            self.absent[bar] = (min(first_ms, sent_ms), max(last_ms, sent_ms))
            if self.absent[bar][1] - self.absent[bar][0] >= (CONTRADICTED_MS if forgets else SETTLE_MS):
                confirmed.add(bar)
        oldest = min((bar for bar in self.rows if start <= bar < self.head), default=self.head)
        reaches_below = start > 0 and covered.start < start <= covered.stop and not older
        before = [bar for bar in missing if bar < oldest]
        if reaches_below and oldest > start and confirmed.issuperset(before):
            # Below the oldest row there is nothing at all: the symbol's history begins there.
            self.first = oldest
            confirmed = {bar for bar in confirmed if bar >= oldest}
        self.rows = {bar: known for bar, known in self.rows.items() if bar not in confirmed}
        self.holes |= confirmed
        self._raise_final()

    def forget(self) -> None:
        """What only the collector's process knew is lost with it."""
        self.absent.clear()
        self.rows = {bar: known._replace(sent_ms=0) for bar, known in self.rows.items()}
        self.is_trading = True

    def resize(self, length: int) -> None:
        """Another block took the place of this one: rows of its window are as they were, older ones are missing."""
        self.length = length
        bottom = self.head - length
        self.rows = {bar: known for bar, known in self.rows.items() if bar >= bottom}
        self.holes = {bar for bar in self.holes if bar >= bottom}
        self._raise_final()

    def gaps(self) -> list[tuple[int, int, str]]:
        found: list[tuple[int, int, str]] = []
        for bar in self.shown():
            if bar not in self.rows:
                kind = "hole" if bar in self.holes else "missing"
                if found and found[-1][1:] == (open_ms(bar), kind):
                    found[-1] = (found[-1][0], open_ms(bar + 1), kind)
                else:
                    found.append((open_ms(bar), open_ms(bar + 1), kind))
        return found


class Block(RuleBasedStateMachine):
    """A collector's block and those who read it."""

    def __init__(self) -> None:
        super().__init__()
        self.name = f"test-{os.getpid()}-stateful-{next(_numbers)}"
        self.now_ms = open_ms(FIRST_BAR)
        self.universe = 0
        self.blocks = 1

    @initialize(length=st.integers(2, 12), symbols=st.integers(1, 2))
    def begin(self, length: int, symbols: int) -> None:
        self.length = length
        self.series = {name: Reference(length) for name in NAMES[:symbols]}
        self.writer = self.open()
        self.feed = candleshm.attach(self.name)

    def open(self) -> _core.Writer:
        return _core.Writer.open(
            self.name,
            market="SPOT",
            interval="1m",
            length=self.length,
            symbols=list(self.series),
            spare_symbols=len(NAMES) - len(self.series),
        )

    @rule(seconds=st.one_of(st.integers(1, 150), st.just(60), st.integers(600, 9000)))
    def time_passes(self, seconds: int) -> None:
        self.now_ms += 1000 * seconds

    @rule(data=st.data(), late_ms=st.sampled_from([0, 0, 0, 700, 45_000, 130_000]))
    def an_answer_comes(self, data: st.DataObject, late_ms: int) -> None:
        """Any page: new rows, live updates, holes, corrections, late and overlapping, in any order."""
        symbol = data.draw(st.sampled_from(list(self.series)))
        sent_ms = self.now_ms - late_ms
        newest = sent_ms // MINUTE_MS
        back, below = data.draw(st.integers(0, 14)), data.draw(st.integers(0, 3))
        bars = [newest - back + step for step in range(data.draw(st.integers(1, back + 1)))]
        kept = data.draw(st.one_of(st.just(bars), st.lists(st.sampled_from(bars), unique=True)))
        to_end = data.draw(st.booleans()) or max(kept, default=newest) < newest
        end = bars[-1] + 1 if to_end else 2**31
        if not to_end:
            kept = kept if newest in kept else [*kept, newest]
        rows = {bar: float(bar % 1000 + 1) + data.draw(st.integers(0, 3)) / 8 for bar in kept}
        klines = [kline(open_ms(bar), value) for bar, value in rows.items()]
        asked = range(bars[0] - below, end)
        self.writer.ingest(
            symbol,
            body_of(*data.draw(st.permutations(klines))),
            sent_ms=sent_ms,
            received_ms=self.now_ms,
            settle_ms=SETTLE_MS,
            limit=len(klines) + 1,
            start_ms=open_ms(asked.start),
            end_ms=open_ms(asked.stop) - 1 if to_end else None,
        )
        self.series[symbol].merge(sent_ms, rows, asked)

    @rule()
    def the_collector_dies_and_another_takes_over(self) -> None:
        del self.writer  # without a word to the block, as a kill
        self.writer = self.open()
        assert self.writer.taken_over
        for reference in self.series.values():
            reference.forget()

    # A feed looks for the new block every 100 ms, so this is the one step that takes time.
    @precondition(lambda self: self.blocks < 3)
    @rule(more=st.integers(1, 5))
    def a_block_of_another_length_takes_its_place(self, more: int) -> None:
        del self.writer  # without a word to the block, as a kill
        self.length = (self.length + more - 2) % 16 + 2
        for reference in self.series.values():
            reference.forget()
            reference.resize(self.length)
        self.writer = self.open()
        assert not self.writer.taken_over
        # A symbol that was delisted trades again until the new collector knows better.
        self.universe = 0
        self.blocks += 1
        until(lambda: self.feed.length == self.length)

    @precondition(lambda self: len(self.series) < len(NAMES))
    @rule()
    def a_symbol_is_listed(self) -> None:
        name = NAMES[len(self.series)]
        self.writer.add_symbol(name)
        self.series[name] = Reference(self.length)

    @rule(data=st.data(), is_trading=st.booleans())
    def a_symbol_is_delisted_or_comes_back(self, data: st.DataObject, is_trading: bool) -> None:  # noqa: FBT001
        symbol = data.draw(st.sampled_from(list(self.series)))
        self.writer.set_trading(symbol, is_trading)
        self.series[symbol].is_trading = is_trading

    @invariant()
    def every_series_is_what_the_reference_says(self) -> None:
        assert self.feed.symbols == tuple(self.series)
        for name, reference in self.series.items():
            series = self.feed[name]
            for closed_only in (False, True):
                bars = reference.window(closed_only=closed_only)
                rows = series.candles(closed_only=closed_only, holes="nan")
                assert rows[:, 0].tolist() == [open_ms(bar) for bar in bars]
                wanted = [reference.rows[bar].value if bar in reference.rows else math.nan for bar in bars]
                np.testing.assert_array_equal(rows[:, CLOSE], wanted)
                states = series.states(closed_only=closed_only, holes="nan")
                assert states.tolist() == [reference.state(bar) for bar in bars]
            view = series.view()
            closed = series.candles(closed_only=True, holes="nan")
            np.testing.assert_array_equal(view.close, closed[:, CLOSE])
            assert view.valid()
            assert view.complete == (not np.isnan(closed[:, CLOSE]).any())
            assert [(gap.start_ms, gap.end_ms, gap.kind) for gap in series.gaps()] == reference.gaps()
            newest = reference.rows[max(reference.rows)].value if reference.rows else math.nan
            np.testing.assert_array_equal([series.last_close, series.live[CLOSE]], [newest, newest])
        missing = sum(kind == "missing" and (end - start) // MINUTE_MS for start, end, kind in self.all_gaps())
        assert self.feed.health.missing == missing
        holes = sum(bar in reference.holes for reference in self.series.values() for bar in reference.shown())
        assert self.feed.health.holes == holes

    def all_gaps(self) -> list[tuple[int, int, str]]:
        return [gap for reference in self.series.values() for gap in reference.gaps()]

    @invariant()
    def what_holds_for_all_symbols_holds_for_each(self) -> None:
        awaited = {name: one for name, one in self.series.items() if one.is_trading and one.head}
        panel = self.feed.panel("close", 5)
        assert panel.symbols == tuple(awaited)
        if awaited:
            end = min(one.final for one in awaited.values())
            oldest = end - self.length
            while end > oldest and not all(one.is_settled(end - 1) for one in awaited.values()):
                end -= 1
            bars = range(end - min(5, self.length), end)
            assert panel.open_time_ms.tolist() == [open_ms(bar) for bar in bars]
            wanted = [[one.final_value(bar) for one in awaited.values()] for bar in bars]
            np.testing.assert_array_equal(panel.array, wanted)
        was, universe_ms = self.universe, self.writer.universe_ms
        self.universe = 0 if universe_ms is None else universe_ms // MINUTE_MS
        assert self.universe >= was
        if self.universe > was:
            assert all(one.is_settled(self.universe) for one in awaited.values())
            closed = self.feed.wait_closed(open_ms(self.universe), timeout=0)
            assert (set(closed.symbols), closed.missing) == (set(awaited), ())

    def teardown(self) -> None:
        if hasattr(self, "feed"):
            self.feed.close()
            self.writer.close()


Block.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestBlock = Block.TestCase
