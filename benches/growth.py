"""S: how ours grows: with the symbols of a block, the length of its windows, and the number of reading processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from material import WINDOW, FloatArray, block, symbol_name, symbols_of, whole, whole_column
from rounds import REFUSED, TORN, WHOLE, Contender, Table, Timing, each, keeping, race

import candleshm

SYMBOL_COUNTS = (10, 100, 500, 2000)
LENGTHS = (1440, 2880, 5760, 10080)
READERS = (1, 2, 4, 8)
PAST_CLOSES = 60
KEPT = 8
"""Of a sample of 512 views as many are kept and checked."""
Grown = tuple[str, list[Timing]]


def run(*, quick: bool) -> Iterator[Table]:
    rounds, seconds = (2, 0.05) if quick else (9, 0.1)
    for measure in (_over_symbols, _over_lengths, _over_readers):
        title, timings = measure(rounds, seconds)
        for kind in dict.fromkeys(timing.name.partition(",")[0].partition("(")[0] for timing in timings):
            rows = [timing for timing in timings if timing.name.startswith(kind)]
            yield Table("S", f"{kind}: {title}", rows, rows[0].name)


def _judge(right: Callable[[Any, Any], bool]) -> Callable[[list[Any], Sequence[Any]], list[str]]:
    return each(lambda pick, result: WHOLE if right(pick, result) else TORN)


def _over_symbols(rounds: int, seconds: float) -> Grown:
    contenders = []
    with ExitStack() as stack:
        for count in SYMBOL_COUNTS:
            feed = _feed(stack, count, WINDOW)
            contenders += list(_for_count(feed, count))
        timings = race(contenders, range(10_000), rounds=rounds, turn_seconds=seconds)
    return "growth with the symbols of a block, 1440 candles each, reading any of them", timings


def _feed(stack: ExitStack, symbols: int, length: int) -> candleshm.Feed:
    name = f"candleshm-bench-growth-{os.getpid()}-{symbols}-{length}"
    stack.enter_context(block(name, symbols, length))
    return stack.enter_context(candleshm.attach(name))


def _for_count(feed: candleshm.Feed, count: int) -> Iterator[Contender]:
    series = [feed[symbol_name(symbol)] for symbol in range(count)]

    def right_closes(picks: list[int], closes: Sequence[float]) -> list[str]:
        right = symbols_of(np.array(closes)) == np.array(picks) % count
        return [WHOLE if good else TORN for good in right]

    def right_panel(_: int, array: FloatArray) -> bool:
        return all(
            whole_column(symbol, array[:, symbol], PAST_CLOSES) for symbol in range(0, count, max(1, count // 9))
        )

    yield Contender(
        f"last_close, {count} symbols", lambda picks: [series[p % count].last_close for p in picks], right_closes, 256
    )
    yield Contender(
        f"panel('close', {PAST_CLOSES}), {count} symbols",
        lambda picks: [feed.panel("close", PAST_CLOSES).array for _ in picks],
        _judge(right_panel),
    )


def _over_lengths(rounds: int, seconds: float) -> Grown:
    contenders = []
    with ExitStack() as stack:
        for length in LENGTHS:
            feed = _feed(stack, 20, length)
            contenders += list(_for_length(feed, length))
        timings = race(contenders, range(20), rounds=rounds, turn_seconds=seconds)
    return "growth with the length of the window, 20 symbols", timings


def _for_length(feed: candleshm.Feed, length: int) -> Iterator[Contender]:
    series = [feed[symbol_name(symbol)] for symbol in range(20)]
    out = np.empty((length, 12), order="F")
    yield Contender(
        f"candles({length}, out=)",
        lambda picks: [series[pick].candles(out=out) for pick in picks],
        _judge(lambda symbol, rows: whole(symbol, rows, length)),
    )
    yield Contender(
        f"view({length - 1}).close",
        keeping(KEPT, lambda pick: series[pick].view(length - 1).close),
        _judge(lambda symbol, column: whole_column(symbol, np.array(column), length - 1)),
        512,
    )


def _over_readers(rounds: int, seconds: float) -> Grown:
    """Time the same reads in 1 .. 8 processes at once; with more processes than cores they take turns on those."""
    context = multiprocessing.get_context("fork")
    timings = []
    with ExitStack() as stack:
        name = _feed(stack, 500, 2880).name
        for count in READERS:
            results = context.SimpleQueue()
            barrier = context.Barrier(count)
            arguments = (name, barrier, results, rounds, seconds)
            processes = [context.Process(target=_read, args=arguments, daemon=True) for _ in range(count)]
            for process in processes:
                process.start()
            merged = [Timing(f"{what}, {count} reading") for what in ("candles(1440, out=)", "view(1440).close")]
            for _ in processes:
                for timing, (samples, verdicts) in zip(merged, results.get(), strict=True):
                    timing.rounds = timing.rounds or [[] for _ in range(rounds)]
                    for one, more in zip(timing.rounds, samples, strict=True):
                        one.extend(more)
                    for verdict in verdicts:
                        timing.verdicts[verdict] += verdicts[verdict]
            for process in processes:
                process.join(10)
            timings += merged
    return f"growth with the number of reading processes, {os.cpu_count()} cores", timings


def _read(name: str, barrier: Any, results: Any, rounds: int, seconds: float) -> None:
    with candleshm.attach(name) as feed:
        series = [feed[symbol_name(symbol)] for symbol in range(500)]
        out = np.empty((WINDOW, 12), order="F")

        def check_view(symbol: int, result: tuple[candleshm.View, FloatArray]) -> str:
            view, column = result
            copy = np.array(column)
            if not view.valid():
                return REFUSED
            return WHOLE if whole_column(symbol, copy) else TORN

        contenders = [
            Contender(
                "copy",
                lambda picks: [series[pick].candles(WINDOW, out=out) for pick in picks],
                _judge(lambda symbol, rows: whole(symbol, rows)),
            ),
            Contender(
                "view",
                keeping(KEPT, lambda pick: ((view := series[pick].view(WINDOW)), view.close)),
                each(check_view),
                512,
            ),
        ]
        barrier.wait(60)
        timings = race(contenders, range(500), rounds=rounds, turn_seconds=seconds)
        results.put([(timing.rounds, timing.verdicts) for timing in timings])
