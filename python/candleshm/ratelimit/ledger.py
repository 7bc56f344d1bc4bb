"""The file in which all processes of a user or group keep the words of one weight pool: mapped, guarded by flock.

Two things keep it consistent when a process dies. The kernel frees the lock with its holder. And the file has two
copies of the words: a change is made in the copy that does not count, and one store of one word makes it count. So a
process that is killed between any two instructions leaves the state before the change or the one after it.

An owner is alive as long as it holds a lock on one byte of the file, at the place of its token; the kernel frees that
too. A process id would not do: containers that share the directory have process ids of their own.

A process that is *stopped* while it holds the lock keeps it. Others wait for `LOCK_SECONDS` at most, and then spend
nothing until the lock is free.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import mmap
import os
import secrets
import stat
import struct
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from errno import EACCES, ENOENT, ENOTDIR, EPERM, EROFS
from pathlib import Path
from typing import TypeVar

from candleshm._core import PoolWords
from candleshm.errors import CandleShmError
from candleshm.ratelimit.budget import PoolMemory, PrivateMemory
from candleshm.system.runtime_dir import check_ours, runtime_dir, runtime_path, share_file

__all__ = ["LedgerFile", "ledger_path", "memory_for", "peek"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

# docs/ledger-format.md describes the file.
HEADER_BYTES = PoolWords.HEADER_BYTES
COPY_BYTES = PoolWords.COPY_BYTES
SECOND_BYTES = HEADER_BYTES + COPY_BYTES
FILE_BYTES = SECOND_BYTES + COPY_BYTES
# The start of the header: magic, version, size of the file; the boot id (16 bytes) follows.
HEADER = struct.Struct("<QQQ")
# struct flock: type, whence, start, length, process.
FLOCK = struct.Struct("hhqqi4x")

LOCK_SECONDS = 0.1
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 20e-6, 1e-3
ATTEMPTS = 100

# Errors of a directory that cannot be used, without any sign of tampering.
_UNUSABLE = (EACCES, EPERM, EROFS, ENOENT, ENOTDIR)
# What the owners within this process share instead of such a file.
_private: dict[Path, PrivateMemory] = {}
_private_gate = threading.Lock()
_followed: dict[Path, int] = {}


def ledger_path(pool: tuple[str, ...]) -> Path:
    """Return the path of a pool's ledger. Its name is a hash, as the name of a pool contains URLs."""
    name = hashlib.sha256("\n".join(pool).encode()).hexdigest()[:32]
    return runtime_path() / f"weight-{name}"


def memory_for(pool: tuple[str, ...]) -> PoolMemory:
    """Open the ledger of a pool; where its directory cannot be written, memory of this process, with a warning.

    Raises ConfigError when other users can write the directory or file, CandleShmError when there is no room for it.
    """
    path = ledger_path(pool)
    try:
        return LedgerFile(path)
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise CandleShmError(f"the weight ledger cannot be created in {path.parent}: {error.strerror}") from None
        directory, reason = path.parent, error.strerror
    with _private_gate:
        if path not in _private:
            _private[path] = PrivateMemory()
            logger.warning(
                "the weight ledger cannot be created in %s (%s): THIS PROCESS DOES NOT SHARE ITS WEIGHT BUDGET, and "
                "the exchange may ban this host; set CANDLESHM_RUNTIME_DIR to a directory that can be written",
                directory,
                reason,
            )
        return _private[path]


def peek(path: Path) -> PoolWords | None:
    """Return a copy of the words in a ledger, None without a valid one. Changes and creates nothing.

    Raises ConfigError when other users can write the directory or file.
    """
    try:
        check_ours(path.parent, path.parent.lstat(), stat.S_ISDIR)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        check_ours(path, os.fstat(descriptor), stat.S_ISREG)
        return _copy(descriptor)
    finally:
        os.close(descriptor)


class LedgerFile:
    """The words of one pool, shared through a file. See `ratelimit.PoolMemory`.

    A forked child does not inherit it: there the words are never available; it opens the file for itself.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or create it. Raises ConfigError when other users can write it, OSError."""
        self.path = path
        self._closed = True
        self._waits = True
        self._gate = threading.Lock()
        self._held: set[int] = set()
        self._fault = ""
        self._inode, self.words, self._life = _open(path, None)
        self._closed = False
        _opened.add(self)

    def patiently(self, attempt: Callable[[], T | None]) -> T | None:
        """Repeat for `LOCK_SECONDS`; after a failure only one attempt per call, until one succeeds."""
        if self._closed:
            return None
        result = _patiently(attempt, LOCK_SECONDS if self._waits else 0.0)
        if result is None and self._waits:
            logger.warning(
                "the weight ledger %s is locked by process %d, which seems to be stopped; no request is sent "
                "until it continues or ends",
                self.path,
                self.words.changed_by(),
            )
        self._waits = result is not None
        return result

    def refresh(self) -> None:
        """Use the file that has the name now, as all others do; create it with our words when it was removed.

        Owners are held in the new file before its words are used here.
        """
        if self._closed:
            return
        with self._gate:
            try:
                if os.stat(self.path, follow_symlinks=False).st_ino == self._inode:
                    return
            except FileNotFoundError:
                pass
            except OSError:
                return
            try:
                inode, words, life = _open(self.path, self.words)
            except (OSError, CandleShmError) as error:
                if str(error) != self._fault:
                    self._fault = str(error)
                    logger.warning("the weight ledger %s was removed and cannot be created again: %s", self.path, error)
                return
            self._fault = ""
            for token in self._held:
                _lock_byte(life, token)
            self.words.close()
            os.close(self._life)
            self._inode, self.words, self._life = inode, words, life
        _log_once(self.path, inode)

    def hold(self, token: int) -> None:
        """Lock the byte of that owner: the kernel frees it when this process ends."""
        with self._gate:
            if not self._closed:
                self._held.add(token)
                _lock_byte(self._life, token)

    def let_go(self, token: int) -> None:
        """Unlock the byte of that owner."""
        with self._gate:
            if token in self._held:
                self._held.discard(token)
                fcntl.fcntl(self._life, fcntl.F_OFD_SETLK, _byte(fcntl.F_UNLCK, token))

    def is_alive(self, token: int) -> bool:
        """Return whether a process, in whatever namespace, holds the byte of that owner."""
        with self._gate:
            return token in self._held or self._closed or _is_held(self._life, token, 1)

    def close(self) -> None:
        """Change nothing any more and hold no owner; the words can still be read."""
        if self._closed:
            return
        self._closed = True
        self._held = set()
        self.words.close()
        os.close(self._life)

    def __del__(self) -> None:
        # An owner without references holds nothing.
        self.close()


_opened: weakref.WeakSet[LedgerFile] = weakref.WeakSet()


def _after_fork() -> None:
    # A forked child shares the descriptors, and so the locks, of its parent.
    for ledger in list(_opened):
        ledger.close()


os.register_at_fork(after_in_child=_after_fork)


def _open(path: Path, words: PoolWords | None) -> tuple[int, PoolWords, int]:
    """Return inode, words and a descriptor of the file, created with `words` where there is no valid one.

    A file is never truncated nor overwritten: other processes may have mapped it.
    """
    runtime_dir()
    for _ in range(ATTEMPTS):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            with suppress(FileExistsError):
                _create(path, words, os.link)
            continue
        try:
            status = os.fstat(descriptor)
            check_ours(path, status, stat.S_ISREG)
            if _patiently(lambda: _try_lock(descriptor), LOCK_SECONDS) is None:  # noqa: B023
                raise CandleShmError(
                    f"the weight ledger {path} is locked by another process, which seems to be stopped"
                )
            if _copy(descriptor) is not None:
                # A descriptor that only holds owners, with a file description of its own.
                life = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
                return status.st_ino, _map(descriptor), life
            _refuse_other_version(path, descriptor)
            if _is_named(path, status.st_ino):
                _create(path, words, os.replace)
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
    raise CandleShmError(f"the weight ledger {path} is replaced again and again: another program writes there")


def _refuse_other_version(path: Path, descriptor: int) -> None:
    """Raise CandleShmError where processes of another version keep their weight in this file."""
    start = os.pread(descriptor, HEADER.size, 0)
    if len(start) < HEADER.size:
        return
    magic, version, _ = HEADER.unpack(start)
    is_other = magic == PoolWords.MAGIC and version != PoolWords.VERSION
    if is_other and _is_held(descriptor, 0, PoolWords.TOKEN_MAX + 1):
        raise CandleShmError(
            f"the weight ledger {path} has format {version}, this candleshm uses format {PoolWords.VERSION}: processes "
            "with another version of candleshm are running; end them, or use one version for all"
        )


def _create(path: Path, words: PoolWords | None, give_name: Callable[[Path, Path], None]) -> None:
    """Write the file under another name, then rename it."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # Allocate all of it now, so that a full file system is an error here and not a SIGBUS later.
        os.posix_fallocate(descriptor, 0, FILE_BYTES)
        share_file(descriptor)
        os.pwrite(descriptor, HEADER.pack(PoolWords.MAGIC, PoolWords.VERSION, FILE_BYTES) + _boot_id(), 0)
        if words is not None:
            _map(descriptor).assume(words)
        give_name(draft, path)
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            draft.unlink()


def _map(descriptor: int) -> PoolWords:
    view = memoryview(mmap.mmap(descriptor, FILE_BYTES))
    # The lock gets a descriptor of its own: `mmap` keeps a duplicate of what it is given, and so would a forked child.
    return PoolWords(*_parts(view), lock_path=f"/proc/self/fd/{descriptor}")


def _copy(descriptor: int) -> PoolWords | None:
    """Copy the words of a file, None when it is not a valid ledger of this version and this boot."""
    if os.fstat(descriptor).st_size != FILE_BYTES:
        return None
    for _ in range(ATTEMPTS):
        header = bytearray(os.pread(descriptor, HEADER_BYTES, 0))
        content = header + os.pread(descriptor, FILE_BYTES, HEADER_BYTES)
        # Consistent once nothing changed meanwhile: the change after the next one is made in the copy that counts.
        if os.pread(descriptor, HEADER_BYTES, 0) == header:
            break
    if len(content) != FILE_BYTES or not content.startswith(
        HEADER.pack(PoolWords.MAGIC, PoolWords.VERSION, FILE_BYTES)
    ):
        return None
    # Containers may have boot ids of their own. Locks do not outlive the boot: with an owner alive it is of this one.
    if content[HEADER.size : HEADER.size + 16] != _boot_id() and not _is_held(descriptor, 0, PoolWords.TOKEN_MAX + 1):
        return None
    words = PoolWords(*_parts(memoryview(content)))
    return words if words.are_plausible() else None


def _parts(view: memoryview) -> tuple[memoryview[int], tuple[memoryview[int], memoryview[int]]]:
    first, second = (view[start : start + 8 * PoolWords.WORDS].cast("Q") for start in (HEADER_BYTES, SECOND_BYTES))
    return view[:HEADER_BYTES].cast("Q"), (first, second)


def _is_named(path: Path, inode: int) -> bool:
    try:
        return path.lstat().st_ino == inode
    except FileNotFoundError:
        return False


def _try_lock(descriptor: int) -> bool | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return True


def _patiently(attempt: Callable[[], T | None], seconds: float) -> T | None:
    deadline_seconds = time.monotonic() + seconds
    pause_seconds = PAUSE_SECONDS
    while (result := attempt()) is None and time.monotonic() < deadline_seconds:
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, PAUSE_SECONDS_MAX)
    return result


def _boot_id() -> bytes:
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return bytes.fromhex(text.strip().replace("-", ""))


def _byte(kind: int, token: int, count: int = 1) -> bytes:
    return FLOCK.pack(kind, os.SEEK_SET, PoolWords.OWNERS_START + token, count, 0)


def _lock_byte(descriptor: int, token: int) -> None:
    # No other owner has that token, so the byte is free.
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _byte(fcntl.F_WRLCK, token))


def _is_held(descriptor: int, token: int, count: int) -> bool:
    """Return whether another process holds one of those owners."""
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _byte(fcntl.F_RDLCK, token, count))
    return bool(FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def _log_once(path: Path, inode: int) -> None:
    """Log a removal once in this process, however many owners it has."""
    with _private_gate:
        if _followed.get(path) == inode:
            return
        _followed[path] = inode
    logger.warning("the weight ledger %s was removed while in use; it was created again", path)
