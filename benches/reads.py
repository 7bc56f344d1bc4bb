"""R: reading the newest 1440 x 12 of 500 symbols while another process writes, from every store."""

from __future__ import annotations

import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from material import VALUES, WINDOW, FloatArray, rows_of, symbols_of, whole, whole_column
from native import Native
from rounds import REFUSED, TORN, WHOLE, Contender, Table, Target, each, keeping, less_overhead, race
from stores import Iceoryx2, Lmdb, Manager, Memmap, Ours, Redis, Store, redis_server, with_file_locks, with_locks

import candleshm
from candleshm.columns import CLOSE, TRADES

SYMBOLS = 500
BUSY = 16
"""A hot writer keeps to as many symbols, and so do the readers, that they meet."""
BATCHES_PER_SECOND = 20
BATCH = 25
"""Symbols per batch: each of 500 changes once a second."""
LENGTH = 2880
CHECKED = 32
"""Of a sample of many short reads as many are kept and checked."""
PAST_CLOSES = 60
IN_C = 4096
"""Reads of one call into C, whose own price does not show then."""
LAST_CLOSE = "cshm_last_close"
COPY, ONTO, VIEW = "candles(1440)", "candles(1440, out=)", "view(1440).close + live"


def _write(stores: Sequence[Store], active: Any, hot: Any, stop: Any, step: Any) -> None:
    """Write the active store until told to stop: batches at a fixed pace, or as fast as it goes."""
    updates = [store.open_writer() for store in stores]
    chance = random.Random(1)
    step.wait()
    step.wait()
    # iceoryx2 hands its history to a new subscriber with the next sample only.
    for update in updates:
        for symbol in range(SYMBOLS):
            update(symbol)
    step.wait()
    due = time.monotonic()
    while not stop.is_set():
        update = updates[active.value]
        if hot.value:
            for _ in range(BATCH):
                update(chance.randrange(BUSY))
            continue
        for symbol in chance.sample(range(SYMBOLS), BATCH):
            update(symbol)
        due = max(due + 1 / BATCHES_PER_SECOND, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    # The parent removes what was written; iceoryx2 and redis need no more than the process's end.
    os._exit(0)


class Stage:
    """All stores, a process that writes one of them at a time, and this process, which reads."""

    def __init__(self, stores: Sequence[Store]) -> None:
        context = multiprocessing.get_context("fork")
        self.stores = stores
        self._active = context.Value("i", 0, lock=False)
        self.hot = context.Value("i", 0, lock=False)
        self._stop, step = context.Event(), context.Barrier(2, timeout=120)
        self._process = context.Process(
            target=_write, args=(stores, self._active, self.hot, self._stop, step), daemon=True
        )
        self._process.start()
        step.wait()
        for store in stores:
            store.open_reader()
        step.wait()
        step.wait()

    def turn_to(self, store: Store) -> Callable[[], None]:
        """Return what makes the writer write this store."""
        number = self.stores.index(store)

        def activate() -> None:
            self._active.value = number

        return activate

    def close(self) -> None:
        self._stop.set()
        self._process.join(10)
        for store in self.stores:
            store.close()


@contextmanager
def stage(names: Sequence[str]) -> Iterator[Stage]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="candleshm-bench-", dir="/dev/shm")))
        makers: dict[str, Callable[[], Store]] = {
            "ours": lambda: Ours(SYMBOLS, f"candleshm-bench-{os.getpid()}", LENGTH),
            "memmap": lambda: Memmap(SYMBOLS, folder / "memmap"),
            "lock": lambda: with_locks(SYMBOLS),
            "filelock": lambda: with_file_locks(SYMBOLS, folder),
            "lmdb": lambda: Lmdb(SYMBOLS, folder / "lmdb"),
            "iceoryx2": lambda: Iceoryx2(SYMBOLS),
            "redis": lambda: Redis(SYMBOLS, stack.enter_context(redis_server(folder))),
            "manager": lambda: Manager(SYMBOLS),
        }
        made = Stage([makers[name]() for name in names])
        stack.callback(made.close)
        yield made


def run(*, quick: bool) -> Iterator[Table]:
    rounds, seconds = (3, 0.06) if quick else (15, 0.12)
    with stage(["ours", "memmap", "lock", "filelock", "lmdb", "iceoryx2", "redis", "manager"]) as made:
        for hot in (False, True):
            made.hot.value = hot
            picks = range(BUSY if hot else SYMBOLS)
            who = f"hot writer on {BUSY} symbols" if hot else f"writer paced at {BATCHES_PER_SECOND} batches/s"
            timings = race(list(_windows(made)), picks, rounds=rounds, turn_seconds=seconds)
            yield Table("R", f"newest 1440 x 12 as a private copy, {who}", timings, ONTO)
            timings = race(list(_columns(made)), picks, rounds=rounds, turn_seconds=seconds)
            targets = (
                Target("<= 1/140 of Redis", VIEW, 1 / 140, Redis.name),
                Target("<= 1/270 of Manager", VIEW, 1 / 270, Manager.name),
                Target("<= 0.5x iceoryx2", VIEW, 0.5, Iceoryx2.name),
            )
            title = f"one column of 1440 rows and the live row, in place where the store can, {who}"
            yield Table("R", title, timings, VIEW, () if hot else targets)
    with stage(["ours"]) as made:
        ours = made.stores[0]
        assert isinstance(ours, Ours)
        private = np.stack([rows_of(symbol, range(WINDOW)) for symbol in range(SYMBOLS)])
        yield _values(ours, private, rounds, seconds)
        yield _copies(ours, private, rounds, seconds)
        yield _columns_copied(ours, private, rounds, seconds)
        yield _panels(ours, private, rounds, seconds)
        native = Native(ours.feed.name, SYMBOLS)
        yield _values_from_c(ours, native, rounds, seconds)
        yield _views_from_c(ours, native, rounds, seconds)
        yield _copies_from_c(ours, native, rounds, seconds)


def _whole(symbol: int, rows: FloatArray) -> str:
    return WHOLE if whole(symbol, rows) else TORN


def _onto(series: list[candleshm.Series], out: FloatArray, pick: int) -> FloatArray:
    return series[pick].candles(WINDOW, out=out)


def _windows(made: Stage) -> Iterator[Contender]:
    check = each(_whole)
    for store in made.stores:
        before = made.turn_to(store)
        if not isinstance(store, Ours):
            read = store.window
            tears = isinstance(store, Memmap)
            yield Contender(store.name, _each(read), check, before=before, may_tear=tears)
            continue
        onto = partial(_onto, store.series, np.empty((WINDOW, 12), order="F"))
        yield Contender(COPY, _each(store.window), check, before=before)
        yield Contender(ONTO, _each(onto), check, before=before)


def _view_and_live(series: list[candleshm.Series], picks: list[int]) -> list[tuple[Any, FloatArray, FloatArray]]:
    for pick in picks[:-CHECKED]:
        one = series[pick]
        one.view(WINDOW).close, one.live
    return [((view := series[pick].view(WINDOW)), view.close, series[pick].live) for pick in picks[-CHECKED:]]


def _columns(made: Stage) -> Iterator[Contender]:
    def check(symbol: int, result: tuple[FloatArray, FloatArray]) -> str:
        column, live = result
        right = whole_column(symbol, np.array(column)) and whole(symbol, live.reshape(1, 12), 1)
        return WHOLE if right else TORN

    def check_view(symbol: int, result: tuple[Any, FloatArray, FloatArray]) -> str:
        view, column, live = result
        copy = np.array(column)
        if not view.valid():
            return REFUSED
        return check(symbol, (copy, live))

    for store in made.stores:
        before = made.turn_to(store)
        if not isinstance(store, Ours):
            tears = isinstance(store, Memmap)
            # As many reads in a row as ours, unless each takes so long that it does not matter. An iceoryx2 sample is
            # good until the next of its symbol, so one is kept.
            batch = 20 if isinstance(store, Redis | Manager) or "filelock" in store.name else SYMBOLS
            yield Contender(store.name, keeping(1, store.column), each(check), batch, tears, before)
            continue
        series = store.series

        yield Contender(VIEW, partial(_view_and_live, series), each(check_view), batch=SYMBOLS, before=before)


def _verdicts(right: npt.NDArray[np.bool_]) -> list[str]:
    return [WHOLE if good else TORN for good in right]


def _unchecked(picks: list[int], results: Sequence[Any]) -> list[str]:
    return [WHOLE] * len(results)


def _values(ours: Ours, private: FloatArray, rounds: int, seconds: float) -> Table:
    """One value: attribute against attribute, so the loop that runs them counts for much and is taken off."""
    closed = ours.feed.wait_closed(int(private[0, 10, 0]), timeout=10)

    def check_live(symbols: list[int], rows: Sequence[FloatArray]) -> list[str]:
        table = np.stack(rows)
        value = table[:, CLOSE]
        right = (table[:, VALUES] == value[:, None]).all(axis=1) & (table[:, TRADES] == np.floor(value))
        return _verdicts(right & (symbols_of(value) == symbols))

    def check_close(symbols: list[int], closes: Sequence[float]) -> list[str]:
        return _verdicts(symbols_of(np.array(closes)) == symbols)

    series, batch = ours.series, 256
    contenders = [
        Contender("empty loop", lambda picks: [series[pick] for pick in picks], _unchecked, batch),
        Contender("empty PyO3 getter", lambda picks: [closed.open_time_ms for pick in picks], _unchecked, batch),
        Contender("last_close", lambda picks: [series[pick].last_close for pick in picks], check_close, batch),
        Contender("live", lambda picks: [series[pick].live for pick in picks], check_live, batch),
        Contender(
            "numpy a[s, -1].copy()", lambda picks: [private[pick, -1].copy() for pick in picks], check_live, batch
        ),
    ]
    timings = less_overhead(race(contenders, range(SYMBOLS), rounds=rounds, turn_seconds=seconds), "empty loop")
    targets = (
        Target("last_close <= 3x an empty PyO3 method", "last_close", 3.0, "empty PyO3 getter"),
        Target("live <= numpy a[s, -1].copy()", "live", 1.0, "numpy a[s, -1].copy()"),
    )
    note = (
        f"means of {batch} calls, the loop's own time taken off; the getter is Closed.open_time_ms, one stored number"
    )
    return Table("R", "one value, or the newest row", timings, "last_close", targets, note)


def _copies(ours: Ours, private: FloatArray, rounds: int, seconds: float) -> Table:
    """A consistent copy against a copy of the same memory that nobody guards."""
    held = [series.view(WINDOW).array for series in ours.series]
    f_order, c_order = np.empty((WINDOW, 12), order="F"), np.empty((WINDOW, 12))
    series = ours.series

    check = each(_whole)

    def copy_to(out: FloatArray) -> Callable[[int], FloatArray]:
        def copy(pick: int) -> FloatArray:
            np.copyto(out, held[pick])
            return out

        return copy

    contenders = [
        Contender("candles(out=) F", _each(lambda pick: series[pick].candles(WINDOW, out=f_order)), check),
        Contender("candles(out=) C", _each(lambda pick: series[pick].candles(WINDOW, out=c_order)), check),
        Contender("numpy copyto F, no lock", _each(copy_to(f_order)), check, may_tear=True),
        Contender("numpy copyto C, no lock", _each(copy_to(c_order)), check, may_tear=True),
        Contender("numpy copy of a private array", _each(lambda pick: private[pick].copy()), check),
    ]
    timings = race(contenders, range(SYMBOLS), rounds=rounds, turn_seconds=seconds)
    targets = (
        Target("Fortran out= <= 2x numpy", "candles(out=) F", 2.0, "numpy copyto F, no lock"),
        Target("C out= <= 2x numpy", "candles(out=) C", 2.0, "numpy copyto C, no lock"),
    )
    return Table("R", "full copy of 1440 x 12 from the same memory", timings, "candles(out=) F", targets)


def _columns_copied(ours: Ours, private: FloatArray, rounds: int, seconds: float) -> Table:
    series = ours.series

    check = each(lambda symbol, column: WHOLE if whole_column(symbol, column) else TORN)

    def ours(picks: list[int]) -> list[FloatArray]:
        for pick in picks[:-CHECKED]:
            series[pick].view(WINDOW).close.copy()
        return [series[pick].view(WINDOW).close.copy() for pick in picks[-CHECKED:]]

    def numpy(picks: list[int]) -> list[FloatArray]:
        for pick in picks[:-CHECKED]:
            private[pick, :, CLOSE].copy()
        return [private[pick, :, CLOSE].copy() for pick in picks[-CHECKED:]]

    contenders = [
        Contender("view(1440).close.copy()", ours, check, SYMBOLS),
        Contender("numpy a[s, :, 4].copy()", numpy, check, SYMBOLS),
    ]
    timings = race(contenders, range(SYMBOLS), rounds=rounds, turn_seconds=seconds)
    limit = Target("one column copied <= 0.4x numpy", "view(1440).close.copy()", 0.4, "numpy a[s, :, 4].copy()")
    title = "one column of 1440 rows copied, against a private C-ordered array"
    return Table("R", title, timings, "view(1440).close.copy()", [limit])


def _panels(ours: Ours, private: FloatArray, rounds: int, seconds: float) -> Table:
    feed = ours.feed
    ours_name = "panel('close', 60)"

    def check(_: int, array: FloatArray) -> str:
        right = all(whole_column(symbol, array[:, symbol], PAST_CLOSES) for symbol in range(0, SYMBOLS, 50))
        return WHOLE if right else TORN

    contenders = [
        Contender(ours_name, _each(lambda _: feed.panel("close", PAST_CLOSES).array), each(check)),
        Contender("numpy, private array", _each(lambda _: private[:, -PAST_CLOSES:, CLOSE].T.copy()), each(check)),
        Contender(
            "a column view per symbol, np.stack",
            _each(lambda _: np.stack([series.view(PAST_CLOSES).close for series in ours.series], axis=1)),
            each(check),
        ),
    ]
    timings = race(contenders, [0], rounds=rounds, turn_seconds=seconds)
    return Table("R", f"newest {PAST_CLOSES} closes of {SYMBOLS} symbols, aligned", timings, ours_name)


def _last_of(read: Callable[[int], Any]) -> Callable[[list[int]], list[Any]]:
    """Return what reads as many symbols as there are picks, of its own choice, and hands out what it read last."""
    return lambda picks: [read(len(picks))]


def _value_verdict(symbol: int, value: float) -> str:
    return WHOLE if symbols_of(np.array([value]))[0] == symbol else TORN


def _newest(symbol: int, row: FloatArray) -> str:
    return WHOLE if whole(symbol, row.reshape(1, 12), 1) else TORN


def _values_from_c(ours: Ours, native: Native, rounds: int, seconds: float) -> Table:
    """The loop and the choice of a symbol are taken off, in C as in Python."""
    series, batch = ours.series, 256
    in_c = [
        Contender("empty loop in C", _last_of(native.draw_only), _unchecked, IN_C),
        Contender(LAST_CLOSE, _last_of(native.last_close), each(lambda _, read: _value_verdict(*read)), IN_C),
        Contender("cshm_live", _last_of(native.live), each(lambda _, read: _newest(*read)), IN_C),
    ]
    in_python = [
        Contender("empty loop", lambda picks: [series[pick] for pick in picks], _unchecked, batch),
        Contender("last_close", lambda picks: [series[pick].last_close for pick in picks], each(_value_verdict), batch),
        Contender(
            "live",
            lambda picks: [series[pick].live for pick in picks],
            each(_newest),
            batch,
        ),
    ]
    timings = race([*in_c, *in_python], range(SYMBOLS), rounds=rounds, turn_seconds=seconds)
    timings = less_overhead(timings[: len(in_c)], "empty loop in C") + less_overhead(timings[len(in_c) :], "empty loop")
    limit = Target("cshm_last_close <= 10 ns", LAST_CLOSE, 10)
    note = f"means of {IN_C} calls from C, and of {batch} from Python, the loop's own time taken off"
    return Table("R", "one value, or the newest row, from C and from Python", timings, LAST_CLOSE, [limit], note)


def _views_from_c(ours: Ours, native: Native, rounds: int, seconds: float) -> Table:
    name = "cshm_view_open(1440), column, cshm_live"

    def check(_: int, read: tuple[int, int, FloatArray]) -> str:
        symbol, view, live = read
        column = native.column_of(view)
        if column is None:
            return REFUSED
        return _newest(symbol, live) if whole_column(symbol, column) else TORN

    def check_view(symbol: int, result: tuple[Any, FloatArray, FloatArray]) -> str:
        view, column, live = result
        copy = np.array(column)
        if not view.valid():
            return REFUSED
        return _newest(symbol, live) if whole_column(symbol, copy) else TORN

    contenders = [
        Contender(name, _last_of(native.view_and_live), each(check), IN_C),
        Contender(VIEW, partial(_view_and_live, ours.series), each(check_view), SYMBOLS),
    ]
    timings = race(contenders, range(SYMBOLS), rounds=rounds, turn_seconds=seconds)
    title = "one column of 1440 rows in place and the live row, from C and from Python"
    return Table("R", title, timings, name, [Target("from C <= 0.3 us", name, 300)])


def _copies_from_c(ours: Ours, native: Native, rounds: int, seconds: float) -> Table:
    name, memcpy, batch = "cshm_candles(1440)", "12 x memcpy, no lock", 20
    out = np.empty((WINDOW, 12), order="F")
    check = each(lambda _, read: _whole(*read))
    contenders = [
        Contender(name, _last_of(native.candles), check, batch),
        Contender(memcpy, _last_of(native.copies), check, batch, may_tear=True),
        Contender(ONTO, _each(partial(_onto, ours.series, out)), each(_whole)),
    ]
    timings = race(contenders, range(SYMBOLS), rounds=rounds, turn_seconds=seconds)
    limit = Target("from C <= 1.1x memcpy", name, 1.1, memcpy)
    title = "full copy of 1440 x 12 into the caller's memory, from C and from Python"
    return Table("R", title, timings, name, [limit])


def _each(read: Callable[[int], Any]) -> Callable[[list[int]], list[Any]]:
    """Return what reads every pick; with one pick per sample the wrapping costs some 60 ns."""
    return lambda picks: [read(pick) for pick in picks]
