"""B: book a request in a budget that processes share, and its answer: what every request pays before it leaves.

A claim decides by all rules of the pool and its answer ends it. The peers do less: `filelock` is one lock taken and
given back, with nothing kept in the file, and pyrate-limiter's shared mode is one rate in SQLite behind such a lock.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from pyrate_limiter import Duration, Limiter, Rate, SQLiteBucket
from rounds import TORN, WHOLE, Contender, Table, Target, each, race

from candleshm.ratelimit.budget import PrivateMemory, WeightBudget
from candleshm.ratelimit.ledger import LedgerFile, ledger_path
from candleshm.system.clock import SystemClock

OURS = "claim + finished, shared"
LIMIT = 1_000_000_000


def run(*, quick: bool) -> Iterator[Table]:
    rounds, seconds = (3, 0.05) if quick else (15, 0.1)
    with tempfile.TemporaryDirectory() as name:
        yield _table(Path(name), rounds, seconds)


def _table(folder: Path, rounds: int, seconds: float) -> Table:
    now = SystemClock().monotonic_seconds
    path = folder / "ledger"
    path.mkdir(mode=0o700)
    shared = WeightBudget(LIMIT, 0.75, memory=LedgerFile(path / ledger_path(("bench",)).name), now_seconds=now())
    private = WeightBudget(LIMIT, 0.75, memory=PrivateMemory(), now_seconds=now())
    lock = FileLock(folder / "lock")
    rates = [Rate(LIMIT, Duration.MINUTE)]
    limiter = Limiter(SQLiteBucket.init_from_file(rates, db_path=str(folder / "rates"), use_file_lock=True))

    def booked(budget: WeightBudget) -> Any:
        def book(_: int) -> int:
            ticket, _ = budget.claim(2, now())
            budget.finished(ticket, now(), 2)
            return ticket

        return book

    def locked(_: int) -> int:
        with lock:
            return 1

    def limited(_: int) -> bool:
        return bool(limiter.try_acquire("weight", 1))

    def contender(name: str, book: Any, batch: int) -> Contender:
        check = each(lambda _, ticket: WHOLE if ticket else TORN)
        return Contender(name, lambda picks: [book(pick) for pick in picks], check, batch=batch)

    contenders = [
        contender(OURS, booked(shared), 16),
        contender("claim + finished, in one process", booked(private), 16),
        contender("filelock, lock and unlock", locked, 1),
        contender("pyrate-limiter, SQLite with file lock", limited, 1),
    ]
    timings = race(contenders, range(16), rounds=rounds, turn_seconds=seconds)
    shared.leave(now())
    return Table("B", "book a request and its answer", timings, OURS, [Target("<= 10 us", OURS, 10_000)])
