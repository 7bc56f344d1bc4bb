"""Blocks and weight shared by a group: real processes of other users, of its members and of strangers.

The users and groups are numbers without entries, as in containers; so the tests need root.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from candleshm.sim import SimulatedExchange
from tests.support.commanding import CLI, DEADLINE_SECONDS, first_lines, serving
from tests.support.confined import as_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")

SHM = Path("/dev/shm")
GROUP, COLLECTOR, BOT, STRANGER = 61_000, 61_001, 61_002, 61_003


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=7, symbols=4, spot_limit=10**6, futures_limit=10**6) as running:
        yield running


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A place for runtime directories that everybody can write to, as /tmp is."""
    directory = Path("/tmp") / f"candleshm-test-{os.getpid()}-{tmp_path_factory.mktemp('x').name}"
    directory.mkdir()
    directory.chmod(0o1777)
    yield directory
    subprocess.run(["rm", "-r", str(directory)], check=True)


@dataclass(frozen=True)
class User:
    """Another user, whose own group has the user's number."""

    uid: int
    base: Path
    groups: Sequence[int] = (GROUP,)
    shares: bool = True
    """Whether the environment names the group."""

    @property
    def environment(self) -> dict[str, str]:
        named = {name: value for name, value in os.environ.items() if name not in ("XDG_RUNTIME_DIR", "HOME")}
        named["CANDLESHM_RUNTIME_DIR"] = str(self.base)
        return named | ({"CANDLESHM_GROUP": str(GROUP)} if self.shares else {})

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            as_user(self.uid, self.groups, words),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
            env=self.environment | more,
        )

    @contextmanager
    def starts(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            as_user(self.uid, self.groups, words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def python(text: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", text, *arguments]


READ = """
import sys, candleshm
with candleshm.attach(sys.argv[1]) as feed:
    print(feed.wait_ready(30).ready, len(feed["BTCUSDT"].candles()))
"""
STATE = """
import sys, candleshm
state = candleshm.weight.state("SPOT", base_url=sys.argv[-1])
print(state.used > 0, state.blocked_seconds > 0, state.path)
"""
STOP = """
import sys, candleshm
candleshm.weight.acquire("SPOT", 1, base_url=sys.argv[1]).end(429, {"Retry-After": "60"})
"""


@pytest.fixture
def collector(exchange: SimulatedExchange, block_name: str, base: Path) -> Iterator[subprocess.Popen[str]]:
    words = [*CLI, *serving(exchange, f"candleshm-{block_name}", "--derive", "5m", "--group", str(GROUP))]
    with User(COLLECTOR, base, shares=False).starts(*words) as process:
        first_lines(process, 2)
        yield process


def test_members_read_and_nobody_else(collector: subprocess.Popen[str], block_name: str, base: Path) -> None:
    name = f"candleshm-{block_name}"
    for path in (SHM / name, SHM / f"{name}-5m"):
        found = path.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (COLLECTOR, GROUP, 0o640)

    bot = User(BOT, base)
    read = bot.run(*python(READ, name))
    assert (read.stdout, read.stderr) == ("True 300\n", "")
    listed = bot.run(*CLI, "ls")
    assert name in listed.stdout
    assert name not in listed.stderr

    # A member that does not say so believes nobody; and a stranger cannot read.
    who = f"user {COLLECTOR} owns it, and mode 0640 lets only that user and group {GROUP} read it"
    for user in (User(BOT, base, shares=False), User(STRANGER, base, groups=(), shares=False)):
        refused = user.run(*CLI, "read", name, "BTCUSDT")
        assert refused.returncode == os.EX_TEMPFAIL
        assert f"{who}; CANDLESHM_GROUP={GROUP} says to believe that group\n" in refused.stderr
        told = user.run(*CLI, "ls").stderr
        assert re.search(rf"\d blocks of another user cannot be read: .*{name}, {name}-5m.*; {who}", told), told
    pretender = User(STRANGER, base, groups=()).run(*CLI, "read", name, "BTCUSDT")
    assert pretender.returncode == os.EX_CONFIG
    assert f"this process is no member of group {GROUP}" in pretender.stderr

    # Reading is all that it opens.
    assert who in bot.run(*CLI, "rm", name).stderr
    write = "import sys; open('/dev/shm/' + sys.argv[1], 'r+b')"
    assert "PermissionError" in bot.run(*python(write, name)).stderr
    assert (SHM / name).exists()


def test_a_block_that_the_group_does_not_own_alone_is_not_believed(block_name: str, base: Path) -> None:
    name = f"candleshm-{block_name}"
    (SHM / name).write_bytes(b"x" * 8192)
    for gid, mode in ((GROUP, 0o660), (GROUP, 0o644), (GROUP, 0o666), (STRANGER, 0o640)):
        os.chown(SHM / name, STRANGER, gid)
        (SHM / name).chmod(mode)
        refused = User(BOT, base, groups=(GROUP, STRANGER)).run(*CLI, "read", name, "X")
        assert f"user {STRANGER} owns it" in refused.stderr


def test_the_group_has_one_budget(
    collector: subprocess.Popen[str], exchange: SimulatedExchange, block_name: str, base: Path
) -> None:
    bot = User(BOT, base)
    directory = base / f"candleshm-group-{GROUP}"
    found = directory.stat()
    assert (found.st_gid, found.st_mode & 0o7777) == (GROUP, 0o770)
    (ledger,) = (path for path in directory.glob("weight-*") if path.stat().st_size)
    assert (ledger.stat().st_gid, ledger.stat().st_mode & 0o777) == (GROUP, 0o660)

    assert bot.run(*python(READ, f"candleshm-{block_name}")).returncode == 0
    state = python(STATE, exchange.base_url)
    assert bot.run(*state).stdout == f"True False {ledger}\n"
    alone = User(BOT, base, shares=False).run(*state)
    assert alone.stdout.split()[:2] == ["False", "False"]
    assert str(base / f"candleshm-{BOT}") in alone.stdout

    # What the exchange refuses one user stops the others.
    stopped = bot.run(*python(STOP, exchange.base_url))
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert User(COLLECTOR, base).run(*state).stdout.split()[:2] == ["True", "True"]


@pytest.mark.parametrize("spoil", [f"chmod {mode} {{}}" for mode in (777, 705)] + ["chgrp 61003 {}", "chmod 666 {}/w*"])
def test_a_ledger_that_others_may_change_is_not_used(exchange: SimulatedExchange, base: Path, spoil: str) -> None:
    pay = python("import candleshm, sys; candleshm.weight.acquire('SPOT', 1, base_url=sys.argv[1])", exchange.base_url)
    bot = User(BOT, base)
    made = bot.run(*pay)
    assert made.returncode == 0, made.stderr
    subprocess.run(spoil.format(base / f"candleshm-group-{GROUP}"), shell=True, check=True)
    assert f"must belong to group {GROUP} alone" in bot.run(*pay).stderr


def test_what_cannot_be_a_group(base: Path) -> None:
    for value, words in (
        ("nosuch", "`nosuch`; allowed: a group of this"),
        (STRANGER, "is no member of group"),
    ):
        refused = User(BOT, base).run(*CLI, "ls", CANDLESHM_GROUP=str(value))
        assert (refused.returncode, refused.stdout) == (os.EX_CONFIG, "")
        assert words in refused.stderr.splitlines()[-1]


def test_a_block_that_is_taken_over_gets_the_mode_of_its_new_collector(
    exchange: SimulatedExchange, block_name: str, base: Path
) -> None:
    path = base / "feed.toml"
    path.write_text(
        f'group = {GROUP}\nmarket = "spot"\nsymbols = ["BTCUSDT"]\nname = "{block_name}"\nlength = 50\n'
        f'base_url = "{exchange.base_url}"\n'
    )
    path.chmod(0o644)
    user = User(COLLECTOR, base, shares=False)
    with user.starts(*CLI, "serve", "--config", str(path)) as process:
        first_lines(process, 1)
        assert (SHM / block_name).stat().st_mode & 0o777 == 0o640
    inode = (SHM / block_name).stat().st_ino
    words = f"serve --market spot --symbols BTCUSDT --name {block_name} --length 50 --base-url {exchange.base_url}"
    with user.starts(*CLI, *words.split()) as process:
        first_lines(process, 1)
        found = (SHM / block_name).stat()
        assert (found.st_ino, found.st_mode & 0o777) == (inode, 0o600)


def test_a_container_with_a_volume_shares_blocks_and_budget(
    collector: subprocess.Popen[str], exchange: SimulatedExchange, block_name: str, base: Path
) -> None:
    """A bot with a /tmp, mounts and process ids of its own: as in a container with --ipc and a volume."""
    volume = Path("/var/lib") / base.name
    volume.mkdir()
    setup = f"mount --bind {base} {volume}"
    if not Path(sys.executable).is_relative_to("/tmp"):
        setup += " && mount -t tmpfs none /tmp"
    words = python(f"{READ}\n{STATE}", f"candleshm-{block_name}", exchange.base_url)
    try:
        seen = subprocess.run(
            as_user(BOT, [GROUP], words, setup=setup, has_own_pids=True),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
            env=User(BOT, base).environment | {"CANDLESHM_RUNTIME_DIR": str(volume)},
        )
    finally:
        volume.rmdir()
    assert seen.stdout.startswith(f"True 300\nTrue False {volume}/"), seen.stderr
