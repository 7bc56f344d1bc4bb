"""Rows that are requested again: what becomes of a repair for which there is no weight."""

from __future__ import annotations

import math
from random import Random
from types import SimpleNamespace
from typing import Any

from candleshm.collector.repair import Repair
from candleshm.collector.series_plan import FetchTask, Kind, PollPolicy, SeriesPlan
from candleshm.exchanges.base import KlineRequest
from candleshm.exchanges.binance import Binance

MINUTE = 60_000
OPEN_MS = 1_773_232_500_000
HOLE = SimpleNamespace(kind="hole", start_ms=OPEN_MS - 9 * MINUTE, end_ms=OPEN_MS - 8 * MINUTE)


def repair_of(plan: SeriesPlan) -> Repair:
    """Return the repairs of one series, which has a hole."""
    writer: Any = SimpleNamespace(name="test", symbols=(plan.symbol,), gaps=lambda _: [HOLE])
    symbols: Any = SimpleNamespace(plans={plan.symbol: plan})
    clock_sync: Any = SimpleNamespace(earliest_ms=lambda _: OPEN_MS)
    return Repair(
        writer,
        exchange=Binance("SPOT"),
        policy=PollPolicy("1m", 100, 3.0, 1000, 1000),
        symbols=symbols,
        clock_sync=clock_sync,
        random=Random(1),
        now=0.0,
    )


def test_a_hole_is_requested_again_although_weight_came_back_at_no_known_moment() -> None:
    plan = SeriesPlan("BTCUSDT", newest_open_ms=OPEN_MS, loaded=True, tasks=(FetchTask(Kind.TAIL, 99.0, 99.0),))
    repair = repair_of(plan)
    repair.start(plan, 0.0)

    def refuse(_: KlineRequest) -> tuple[int, float]:
        """Claim while the only request that may leave is on its way: the wait ends with its response."""
        return 0, math.inf

    errand, look_seconds = repair.next(0.0, refuse, with_audits=False)
    assert errand is None
    assert look_seconds < 60.0
    errand, _ = repair.next(look_seconds, lambda _: (7, 0.0), with_audits=False)
    assert errand is not None
    assert (errand[1], errand[3]) == (Kind.HOLE, 7)
