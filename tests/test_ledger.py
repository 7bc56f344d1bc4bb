"""The weight ledger as a file: kept by many processes, of which any may be killed or stopped at any moment."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from candleshm._core import PoolWords
from candleshm.errors import CandleShmError, ConfigError
from candleshm.ratelimit import budget as ratelimit
from candleshm.ratelimit import ledger
from candleshm.ratelimit.budget import NOT_NOW_SECONDS, WeightBudget
from candleshm.ratelimit.ledger import LedgerFile, ledger_path, memory_for, peek
from candleshm.system.clock import SystemClock

POOL = ("direct", "127.0.0.1:1", "SPOT")
DEADLINE_SECONDS = 60.0
KILL_ROUNDS = int(os.environ.get("KILL_ROUNDS", "30"))

# A process that claims and finishes as fast as it can, or does what is put in its place.
HOLDER = """
import sys
from candleshm.system.clock import SystemClock
from candleshm.ratelimit.ledger import LedgerFile, ledger_path
from candleshm.ratelimit.budget import WeightBudget

now = SystemClock().monotonic_seconds
memory = LedgerFile(ledger_path({pool!r}))
budget = WeightBudget(1_000_000_000, 0.75, memory=memory, now_seconds=now())
print("ready", flush=True)
{work}
"""
CLAIMING = """
tickets = []
while True:
    ticket, _ = budget.claim(7, now())
    if ticket:
        tickets.append(ticket)
    if len(tickets) > 3:
        budget.finished(tickets.pop(0), now())
"""


def now() -> float:
    return SystemClock().monotonic_seconds()


def opened(limit: int = 1_000_000_000, share: float = 0.75) -> WeightBudget:
    return WeightBudget(limit, share, memory=LedgerFile(ledger_path(POOL)), now_seconds=now())


def words() -> PoolWords:
    seen = peek(ledger_path(POOL))
    assert seen is not None
    return seen


def word(place: int) -> float:
    return words().look(place)


@contextmanager
def holder(work: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has joined the pool, killed at the end if need be."""
    code = HOLDER.format(pool=POOL, work=textwrap.dedent(work))
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def claimed(budget: WeightBudget, weight: int = 1) -> int:
    """Claim until there is a ticket; the deadline only guards against waiting for ever."""
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline_seconds:
        ticket, wait_seconds = budget.claim(weight, now())
        if ticket:
            return ticket
        time.sleep(min(wait_seconds, 0.01))
    raise AssertionError("never let anything leave")


def test_two_processes_see_what_the_other_spends() -> None:
    budget = opened()
    with holder("ticket = budget.claim(30, now())[0]; print(ticket, flush=True); sys.stdin.read()") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        assert budget.used(now()) == 30
        budget.finished(claimed(budget, 5), now())
        assert budget.used(now()) == 35


def test_a_killed_holder_counts_as_finished_and_blocks_nobody() -> None:
    budget = opened(1000, 0.5)
    with holder("budget.sent(400, now()); print('sent', flush=True); sys.stdin.read()") as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert (word(PoolWords.IN_FLIGHT), budget.used(now())) == (400, 400)
        assert budget.claim(200, now())[1] == float("inf")
        process.kill()
        # Also while its parent has not waited for it.
        time.sleep(0.6)
        ticket, wait_seconds = budget.claim(200, now())
        assert ticket == 0
        assert 50 < wait_seconds <= 60
        assert (word(PoolWords.IN_FLIGHT), word(PoolWords.FINISHED), budget.used(now())) == (0, 400, 400)


@pytest.mark.long
def test_killed_at_any_moment_the_sum_stays_right_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratelimit, "REAP_SECONDS", 0.0)
    random = Random(7)
    budget, own = opened(), 0
    begun_seconds = time.monotonic()
    for _ in range(KILL_ROUNDS):
        if time.monotonic() - begun_seconds > 30.0:
            break  # before what was spent first leaves the window of 60 s
        with holder(CLAIMING) as process:
            time.sleep(random.uniform(0, 0.03))
            for _ in range(random.randrange(20)):
                budget.finished(claimed(budget), now())
                own += 1
            process.kill()
            process.wait()
        budget.finished(claimed(budget), now())
        own += 1
        budget.reserve(random.randrange(100), now())  # looks for the dead
        seen = words()
        assert seen.are_plausible()
        assert seen.look(PoolWords.IN_FLIGHT) == 0
        # Everything that was spent: ours, one by one, and the other's by sevens.
        assert (seen.look(PoolWords.FINISHED) - own) % 7 == 0
    assert word(PoolWords.FINISHED) > own


def test_a_stop_holds_for_all_processes_at_once_and_survives_their_death() -> None:
    budget = opened()
    work = "sys.stdin.readline(); budget.stop(500.0, now()); print('stopped', flush=True); sys.stdin.read()"
    code = HOLDER.format(pool=POOL, work=work)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdout.readline()
        claimed(budget)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "stopped\n"
        ticket, wait_seconds = budget.claim(1, now(), closing=True, urgent=True)
        assert ticket == 0
        assert 490 < wait_seconds <= 500
        process.kill()
    with holder("print(budget.claim(1, now())[1], flush=True)") as restarted:
        assert restarted.stdout is not None
        assert 400 < float(restarted.stdout.readline()) <= 500


def test_a_holder_stopped_inside_its_change_delays_others_and_changes_nothing() -> None:
    budget = opened()
    ticket = claimed(budget, 11)
    # Half a change: everything set to zero in the copy that does not count.
    work = """
        import fcntl, os
        from candleshm._core import PoolWords
        from candleshm.ratelimit import ledger
        file = open(memory.path, "r+b", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX)
        changes = int.from_bytes(os.pread(file.fileno(), 8, 8 * PoolWords.CHANGES_WORD), "little")
        start = ledger.HEADER_BYTES if changes % 2 else ledger.SECOND_BYTES
        os.pwrite(file.fileno(), bytes(ledger.COPY_BYTES), start)
        print("in", flush=True)
        sys.stdin.read()
    """
    with holder(work) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        assert budget.claim(1, now()) == (0, NOT_NOW_SECONDS)
        assert budget.used(now()) == 11
        budget.finished(ticket, now(), reported=300)
        budget.stop(30.0, now())
        assert budget.claim(1, now()) == (0, NOT_NOW_SECONDS)
        process.kill()
        process.wait()
    # What could not be booked meanwhile is booked before anything else.
    assert budget.claim(1, now())[1] > 20
    assert (word(PoolWords.IN_FLIGHT), word(PoolWords.FINISHED), budget.used(now())) == (0, 11, 300)


def test_a_forked_child_gives_up_nothing_that_is_its_parents() -> None:
    budget = opened()
    ticket = claimed(budget, 3)
    child = os.fork()
    if child == 0:
        ok = budget.claim(1, now()) == (0, NOT_NOW_SECONDS)
        budget.finished(ticket, now())
        budget.leave(now())
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert word(PoolWords.IN_FLIGHT) == 3
    budget.finished(ticket, now())
    assert word(PoolWords.IN_FLIGHT) == 0


def test_children_of_a_killed_holder_do_not_keep_its_lock() -> None:
    # It forks all the time while another thread claims, so that children begin their life in the middle of changes.
    work = f"""
        import os, threading, time
        def claiming():
            {textwrap.indent(textwrap.dedent(CLAIMING), " " * 12).strip()}
        threading.Thread(target=claiming, daemon=True).start()
        for _ in range(20):
            if os.fork() == 0:
                time.sleep(10)
                os._exit(0)
        print("forked", flush=True)
        time.sleep(100)
    """
    budget = opened()
    with holder(work) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.wait()
        claimed(budget)


def damage(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"x"),
        lambda path: path.write_bytes(os.urandom(ledger.FILE_BYTES)),
        lambda path: path.write_bytes(bytes(ledger.FILE_BYTES)),
        lambda path: path.write_bytes(bytes(2 * ledger.FILE_BYTES)),
        lambda path: os.truncate(path, ledger.FILE_BYTES - 1),
        lambda path: damage(path, 8, b"\x09"),
        lambda path: damage(path, 24, b"another boot id."),
        lambda path: damage(path, ledger.HEADER_BYTES, b"\xff" * 2 * ledger.COPY_BYTES),
    ],
    ids=["empty", "one byte", "random", "zeros", "too long", "truncated", "version", "boot", "damaged words"],
)
def test_a_file_that_cannot_be_believed_is_replaced(spoil: Callable[[Path], object]) -> None:
    path = ledger_path(POOL)
    opened().sent(5, now())
    inode = path.stat().st_ino
    spoil(path)
    assert peek(path) is None
    budget = opened()
    assert path.stat().st_ino != inode
    assert budget.used(now()) == 0
    claimed(budget, 4)
    assert word(PoolWords.IN_FLIGHT) == 4
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_ledger_that_another_version_uses_is_refused_and_left_alone() -> None:
    path = ledger_path(POOL)
    with holder("sys.stdin.read()") as process:
        damage(path, 8, (PoolWords.VERSION + 1).to_bytes(8, "little"))
        before = path.read_bytes()
        with pytest.raises(
            CandleShmError, match=f"has format {PoolWords.VERSION + 1}, .* uses format {PoolWords.VERSION}:"
        ):
            opened()
        assert path.read_bytes() == before
        process.kill()
        process.wait()
    opened()
    assert peek(path) is not None


def test_random_words_never_do_more_than_replace_the_file() -> None:
    random = Random(3)
    path = ledger_path(POOL)
    for _ in range(200):
        before = opened()
        before.sent(5, now())
        before.leave(now())
        for _ in range(random.randrange(1, 4)):
            damage(path, random.randrange(0, ledger.FILE_BYTES - 8), random.randbytes(8))
        budget = opened()
        budget.claim(1, now())
        assert 0 <= budget.used(now()) < float("inf")
        budget.leave(now())


def test_a_ledger_removed_under_its_users_goes_on_with_its_words() -> None:
    budget, other = opened(), opened()
    budget.sent(21, now())
    ledger_path(POOL).unlink()
    late = now() + 2.0
    budget.reserve(1, late)
    other.reserve(1, late)
    assert other.used(late) == 21
    budget.sent(1, late)
    assert other.used(late) == 22 == used_in_file(late)


def used_in_file(moment: float) -> int:
    return int(words().used(moment))


def test_directory_and_file_have_to_be_ours_alone(runtime_directory: Path) -> None:
    path = ledger_path(POOL)
    opened()
    assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=rf"chmod 600 `{path}`"):
        opened()
    path.chmod(0o600)
    path.parent.chmod(0o755)
    with pytest.raises(ConfigError, match=rf"chmod 700 `{path.parent}`"):
        memory_for(POOL)
    path.parent.chmod(0o700)

    elsewhere = runtime_directory / "elsewhere"
    path.parent.rename(elsewhere)
    path.parent.symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="real directory"):
        memory_for(POOL)
    path.parent.unlink()
    path.parent.mkdir(0o700)
    path.symlink_to(elsewhere / path.name)
    with pytest.raises(CandleShmError):
        memory_for(POOL)
    path.unlink()
    path.mkdir()
    with pytest.raises(CandleShmError):
        memory_for(POOL)


def test_a_directory_that_cannot_be_written_leaves_a_budget_of_this_process_and_a_loud_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "not there"))
    first, second = memory_for(POOL), memory_for(POOL)
    assert first is second
    assert caplog.text.count("THIS PROCESS DOES NOT SHARE") == 1
    budget = WeightBudget(1000, 0.75, memory=first)
    budget.sent(6, 0.0)
    assert WeightBudget(1000, 0.75, memory=second).used(0.0) == 6


def test_a_full_file_system_is_an_error_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CandleShmError, match="No space left"):
        memory_for(POOL)
    assert not list(ledger_path(POOL).parent.iterdir())


def test_many_processes_at_once_lose_nothing() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        spent = sum(pool.map(_spend_many, range(4)))
    assert spent == 4 * 300
    assert opened().used(now()) == spent


def _spend_many(_: int) -> int:
    budget = opened()
    for _ in range(300):
        budget.finished(claimed(budget), now())
    return 300


def test_two_processes_meet_again_after_the_whole_directory_was_removed(caplog: pytest.LogCaptureFixture) -> None:
    budget = opened()
    work = """
        import threading, time
        def look():
            while True:
                budget.used(now())
                time.sleep(0.1)
        threading.Thread(target=look, daemon=True).start()
        budget.sent(30, now())
        print("sent", flush=True)
        sys.stdin.readline()
        budget.sent(5, now())
        print("sent", flush=True)
        sys.stdin.read()
    """
    with holder(work) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        budget.sent(100, now())
        shutil.rmtree(ledger_path(POOL).parent)
        # Neither spends anything: that they look at how things stand is enough.
        deadline_seconds = time.monotonic() + DEADLINE_SECONDS
        while not ledger_path(POOL).exists() and time.monotonic() < deadline_seconds:
            budget.used(now())
            time.sleep(0.05)
        time.sleep(1.2)
        budget.used(now())
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        assert budget.used(now()) == 135 == used_in_file(now())
        budget.sent(1, now())
        assert used_in_file(now()) == 136
    assert caplog.text.count("removed while in use") == 1


def test_a_directory_that_cannot_be_put_back_is_said_once(
    caplog: pytest.LogCaptureFixture, runtime_directory: Path
) -> None:
    budget = opened()
    budget.sent(7, now())
    shutil.rmtree(runtime_directory)
    for step in range(5):
        assert budget.used(now() + step) == 7
    assert caplog.text.count("cannot be created again") == 1
    runtime_directory.mkdir()
    assert budget.used(now() + 6) == 7 == used_in_file(now())
    assert caplog.text.count("was created again") == 1
