"""Directories in which others may write: what is under our names there is ours, a plain file, or is not touched."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

import candleshm.weight
from candleshm._core import Zone
from candleshm.collector.cache import BlockCache, Origin
from candleshm.compat.log_files import RuleLog
from candleshm.errors import ConfigError
from candleshm.ratelimit.ledger import LedgerFile, ledger_path
from candleshm.system.atomic_file import read_ours, remove_leftovers, replace_file
from tests.test_cache import NOW_MS, RUNNING, filled, open_block

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
NOBODY = 65534


def foreign(path: Path) -> None:
    path.write_bytes(b"his")
    os.chown(path, NOBODY, NOBODY)


def writable(path: Path) -> None:
    path.write_bytes(b"whose")
    path.chmod(0o666)


def linked(path: Path) -> None:
    path.symlink_to(precious(path))


def precious(path: Path) -> Path:
    target = path.parent.parent / "precious"
    target.write_bytes(b"precious")
    return target


def piped(path: Path) -> None:
    os.mkfifo(path)


KINDS = [
    pytest.param(foreign, marks=as_root, id="of another user"),
    pytest.param(writable, id="others may write"),
    pytest.param(linked, id="link"),
    pytest.param(piped, id="pipe"),
    pytest.param(lambda path: path.mkdir(), id="directory"),
]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


@pytest.mark.parametrize("spoil", KINDS)
def test_a_cache_that_is_not_ours_alone_is_not_believed(
    spoil: Callable[[Path], None], shared: Path, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = BlockCache(shared, Origin(block_name, "SPOT", "1m", "test"))
    spoil(cache.path)
    with open_block(block_name) as writer:
        assert cache.load(writer, NOW_MS, RUNNING) == 0
    assert caplog.text.count("cannot be read") == 1


def test_a_whole_cache_of_another_user_is_not_believed(
    shared: Path, block_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = BlockCache(shared, Origin(block_name, "SPOT", "1m", "test"))
    with open_block(block_name) as writer:
        filled(writer)
        cache.save(NOW_MS)
    assert cache.path.stat().st_mode & 0o777 == 0o600
    if os.geteuid() == 0:
        os.chown(cache.path, NOBODY, NOBODY)
    else:
        cache.path.chmod(0o666)
    with open_block(block_name) as writer:
        assert cache.load(writer, NOW_MS, RUNNING) == 0
    assert "owns it" in caplog.text or "may write it" in caplog.text


def test_a_link_is_replaced_and_what_it_names_is_not_written(shared: Path, block_name: str) -> None:
    cache = BlockCache(shared, Origin(block_name, "SPOT", "1m", "test"))
    target = precious(cache.path)
    for name in (cache.path.name, f".{cache.path.name}.tmp", f".{cache.path.name}.0.tmp"):
        (shared / name).symlink_to(target)
    with open_block(block_name) as writer:
        filled(writer)
        cache.save(NOW_MS)
    assert target.read_bytes() == b"precious"
    assert cache.path.is_file()
    assert not cache.path.is_symlink()


def test_temporary_names_are_never_the_same_and_those_of_live_writers_stay(tmp_path: Path) -> None:
    path, seen = tmp_path / "file", set()

    def parts() -> object:
        yield b"a"
        (temporary,) = tmp_path.glob(".*.tmp")
        seen.add(temporary.name)
        assert remove_leftovers(tmp_path) == []
        yield b"b"

    for _ in range(3):
        replace_file(path, parts())  # type: ignore[arg-type]
    assert len(seen) == 3
    assert path.read_bytes() == b"ab"
    left = tmp_path / ".file.0123456789abcdef.tmp"
    left.write_bytes(b"")
    with left.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert remove_leftovers(tmp_path) == []
    assert remove_leftovers(tmp_path) == [left]
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("spoil", [kind for kind in KINDS if kind.id != "others may write"])
def test_a_log_goes_into_no_file_that_is_not_ours(
    spoil: Callable[[Path], None], shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shared / f"{datetime.now(UTC):%Y-%m-%d}.log"
    spoil(path)
    log = RuleLog(shared, Zone("UTC"), file_level="INFO", console_level="INFO")
    log.open()
    with closing(log):
        log.to_files()
        for _ in range(3):
            logging.getLogger("candleshm").info("a line of ours")
    assert caplog.text.count("cannot be written, logging to stderr only") == 1
    if path.is_file():
        assert b"ours" not in path.read_bytes()


def test_a_log_under_a_second_name_of_another_file_is_not_written(shared: Path) -> None:
    target = precious(shared / "x")
    os.link(target, shared / f"{datetime.now(UTC):%Y-%m-%d}.log")
    log = RuleLog(shared, Zone("UTC"), file_level="INFO", console_level="INFO")
    log.open()
    with closing(log):
        log.to_files()
        logging.getLogger("candleshm").info("a line of ours")
    assert target.read_bytes() == b"precious"


def test_a_ledger_of_another_is_not_looked_at_either() -> None:
    path = ledger_path(("direct", "exchange", "SPOT"))
    LedgerFile(path)
    assert candleshm.weight.state("SPOT").used == 0
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="chmod 600"):
        candleshm.weight.state("SPOT")
    path.chmod(0o600)
    path.parent.chmod(0o777)
    with pytest.raises(ConfigError, match="chmod 700"):
        candleshm.weight.state("SPOT")


def test_a_relative_runtime_directory_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "here")
    assert ledger_path(("x",)).parent.parent == Path("/tmp")


def test_what_is_read_as_ours_has_to_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"ours")
    path.chmod(0o644)
    assert read_ours(path) == b"ours"
    path.chmod(0o620)
    with pytest.raises(PermissionError, match="others may write"):
        read_ours(path)
