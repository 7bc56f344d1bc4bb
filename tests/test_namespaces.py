"""Containers: processes of other PID and time namespaces that share the directory of a ledger share its budget."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import candleshm
from candleshm._core import PoolWords
from candleshm.ratelimit import ledger
from candleshm.ratelimit.ledger import ledger_path
from candleshm.sim import SimulatedExchange
from tests.support.collecting import until
from tests.support.commanding import CLI, serving, started
from tests.test_ledger import HOLDER, POOL, now, opened, word


def _permitted(*words: str) -> bool:
    return shutil.which("unshare") is not None and not subprocess.run([*words, "true"], capture_output=True).returncode


PIDS = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
TIMES = ("unshare", "--time", "--boottime", "100000", "--monotonic", "100000", "--fork", "--kill-child")
NAMESPACES = [
    pytest.param(words, id=words[1], marks=pytest.mark.skipif(not _permitted(*words), reason=f"no {words[1]} here"))
    for words in (PIDS, TIMES)
]


@contextmanager
def contained(namespace: tuple[str, ...], work: str) -> Iterator[subprocess.Popen[str]]:
    code = HOLDER.format(pool=POOL, work=work)
    words = [*namespace, sys.executable, "-c", code]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_an_owner_of_another_namespace_lives_until_it_ends(namespace: tuple[str, ...]) -> None:
    budget = opened(1000, 0.5)
    with contained(namespace, "budget.sent(400, now()); print('sent', flush=True); sys.stdin.read()") as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.6)
        budget.reserve(1, now())  # looks for the dead
        assert word(PoolWords.IN_FLIGHT) == 400
        assert budget.claim(200, now())[1] == float("inf")
    time.sleep(0.6)
    ticket, wait_seconds = budget.claim(200, now())
    assert ticket == 0
    assert 50 < wait_seconds <= 60
    assert (word(PoolWords.IN_FLIGHT), budget.used(now())) == (0, 400)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_what_one_namespace_spends_and_books_holds_in_the_other(namespace: tuple[str, ...]) -> None:
    budget = opened()
    work = (
        "budget.finished(budget.sent(30, now()), now()); budget.stop(500.0, now()); "
        "print(budget.used(now()), flush=True); sys.stdin.read()"
    )
    with contained(namespace, work) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "30\n"
        assert budget.used(now()) == 30
        assert 490 < budget.claim(1, now())[1] <= 500


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_the_age_of_a_block_means_the_same_in_every_namespace(namespace: tuple[str, ...], block_name: str) -> None:
    with SimulatedExchange(symbols=4) as exchange, started(*serving(exchange, block_name)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        until(lambda: os.path.exists(f"/dev/shm/{block_name}"))
        with candleshm.attach(block_name) as feed:
            until(lambda: feed.health.ready)
        code = (
            f"import candleshm; feed = candleshm.attach('{block_name}', max_age=60); "
            "print(len(feed['BTCUSDT'].candles()), feed['BTCUSDT'].age)"
        )
        words = [*namespace, CLI[0], "-c", code]
        count, age = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
        assert int(count) > 200
        assert 0 <= float(age) < 60


def test_a_container_with_a_boot_id_of_its_own_shares_the_file_while_an_owner_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = opened()
    budget.sent(21, now())
    inode = ledger_path(POOL).stat().st_ino
    monkeypatch.setattr(ledger, "_boot_id", lambda: bytes(16))
    other = opened()
    assert (other.used(now()), ledger_path(POOL).stat().st_ino) == (21, inode)
    other.leave(now())
    budget.leave(now())
    assert opened().used(now()) == 0
