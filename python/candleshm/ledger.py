"""The file in which all processes of a user keep the words of one weight pool: mapped, and guarded by flock.

Two things make it hold whatever happens to a process. The lock is the kernel's: it ends with its holder. And the words
lie there twice: a change is made in the copy that does not count and counts by one store of one word, so a process that
is killed between any two instructions leaves either what was before or what is after.

A process that is *stopped* while it holds the lock keeps it. Others wait for `LOCK_SECONDS` at most and take that as
"not now"; nothing is spent meanwhile.
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
from candleshm.ratelimit import PoolMemory, PrivateMemory
from candleshm.runtime import check_ours, runtime_dir, runtime_path

__all__ = ["LedgerFile", "ledger_path", "memory_for", "peek"]

T = TypeVar("T")

logger = logging.getLogger("candleshm")

# Another layout or another meaning gets another version, and so another file: two versions never write to the same.
VERSION = 1
MAGIC = int.from_bytes(b"cshmwght", "little")
HEADER_BYTES = 4096
COPY_BYTES = -(-PoolWords.WORDS * 8 // 4096) * 4096
SECOND_BYTES = HEADER_BYTES + COPY_BYTES
FILE_BYTES = SECOND_BYTES + COPY_BYTES
# The header, little endian u64: magic, version, size of the file; boot id (16 bytes); number of changes, whose lowest
# bit says which copy counts; id of the process that had the lock last.
HEADER = struct.Struct("<QQQ")
CHANGES_WORD = 5

LOCK_SECONDS = 0.1
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 20e-6, 1e-3
ATTEMPTS = 100

# What keeps a directory from being used, without anybody having meddled with it.
_UNUSABLE = (EACCES, EPERM, EROFS, ENOENT, ENOTDIR)
# What the owners within this process share instead of such a file.
_private: dict[Path, PrivateMemory] = {}
_private_gate = threading.Lock()


def ledger_path(pool: tuple[str, ...]) -> Path:
    """Return where the ledger of a pool lies. Its name is a hash: a pool may be named by addresses."""
    name = hashlib.sha256("\n".join(pool).encode()).hexdigest()[:32]
    return runtime_path() / f"weight-{VERSION}-{name}"


def memory_for(pool: tuple[str, ...]) -> PoolMemory:
    """Open the ledger of a pool; where its directory cannot be written, memory of this process, and say so loudly.

    Raises ConfigError when the directory or file is not ours alone, CandleShmError when there is no room for it.
    """
    path = ledger_path(pool)
    try:
        return LedgerFile(path)
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise CandleShmError(f"no weight ledger in {path.parent}: {error.strerror}") from None
        directory, reason = path.parent, error.strerror
    with _private_gate:
        if path not in _private:
            _private[path] = PrivateMemory()
            logger.warning(
                "no weight ledger in %s (%s): OTHER PROCESSES DO NOT KNOW WHAT THIS ONE SPENDS, together they may be "
                "banned; set XDG_RUNTIME_DIR to a directory that can be written",
                directory,
                reason,
            )
        return _private[path]


def peek(path: Path) -> PoolWords | None:
    """Return a copy of the words in a ledger, None when there is none that counts. Changes and creates nothing.

    Raises ConfigError when directory or file are not ours alone.
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

    A forked child has no part in it: there it never gets the words, and has to open it for itself.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or create it. Raises ConfigError when it is not ours alone, OSError as the system says."""
        self.path = path
        self._closed = False
        self._waits = True
        self._started = _start_of(os.getpid()) or 0.0
        self._inode, self.words = _open(path, None)
        _opened.add(self)

    def patiently(self, attempt: Callable[[], T | None]) -> T | None:
        """Try for `LOCK_SECONDS`; after that came to nothing only once each time, until something does."""
        if self._closed:
            return None
        result = _patiently(attempt, LOCK_SECONDS if self._waits else 0.0)
        if result is None and self._waits:
            logger.warning(
                "the weight ledger %s is held by process %d, which seems to be stopped: nothing is asked meanwhile",
                self.path,
                self.words.changed_by(),
            )
        self._waits = result is not None
        return result

    def refresh(self) -> None:
        """Follow everybody else to the file that has the name now; create it with our words when it was removed."""
        if self._closed:
            return
        try:
            if os.stat(self.path, follow_symlinks=False).st_ino == self._inode:
                return
        except FileNotFoundError:
            pass
        except OSError:
            return
        try:
            inode, words = _open(self.path, self.words)
        except (OSError, CandleShmError) as error:
            logger.warning("the weight ledger %s was removed and cannot be written anew: %s", self.path, error)
            return
        self.words.close()
        self._inode, self.words = inode, words
        logger.warning("the weight ledger %s was removed while in use; it was written anew", self.path)

    def process(self) -> tuple[int, float]:
        """Return our process id and when we were started, in ticks since the boot."""
        return os.getpid(), self._started

    def is_alive(self, pid: int, started: float) -> bool:
        """Say whether that very process runs: a later one with the same id has another start."""
        return _start_of(pid) == started

    def close(self) -> None:
        """Change nothing any more; the words can still be looked at."""
        self._closed = True
        self.words.close()


_opened: weakref.WeakSet[LedgerFile] = weakref.WeakSet()


def _after_fork() -> None:
    # A forked child's descriptor is its parent's lock, too.
    for ledger in list(_opened):
        ledger.close()


os.register_at_fork(after_in_child=_after_fork)


def _open(path: Path, words: PoolWords | None) -> tuple[int, PoolWords]:
    """Return inode and words of the file, which is made with `words` if there is none, or none that can be believed.

    A file is never shortened nor written over: somebody may have mapped it.
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
                raise CandleShmError(f"the weight ledger {path} is held by another process, which seems to be stopped")
            if _copy(descriptor) is not None:
                return status.st_ino, _map(descriptor)
            if _is_named(path, status.st_ino):
                _create(path, words, os.replace)
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
    raise CandleShmError(f"the weight ledger {path} is replaced again and again; who else writes there?")


def _create(path: Path, words: PoolWords | None, give_name: Callable[[Path, Path], None]) -> None:
    """Write a whole file under another name, then give it its own."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # All of it now, so that a full file system is an error here and not a SIGBUS later.
        os.posix_fallocate(descriptor, 0, FILE_BYTES)
        os.pwrite(descriptor, HEADER.pack(MAGIC, VERSION, FILE_BYTES) + _boot_id(), 0)
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
    """Copy the words of a file, None when it is no ledger of this version and this boot that can be believed."""
    if os.fstat(descriptor).st_size != FILE_BYTES:
        return None
    for _ in range(ATTEMPTS):
        header = bytearray(os.pread(descriptor, HEADER_BYTES, 0))
        content = header + os.pread(descriptor, FILE_BYTES, HEADER_BYTES)
        # Whole once nothing changed meanwhile: the change after the next one is made in the copy that counts.
        if os.pread(descriptor, HEADER_BYTES, 0) == header:
            break
    if len(content) != FILE_BYTES or not content.startswith(HEADER.pack(MAGIC, VERSION, FILE_BYTES) + _boot_id()):
        return None
    words = PoolWords(*_parts(memoryview(content)))
    return words if words.are_plausible() else None


def _parts(view: memoryview) -> tuple[memoryview[int], tuple[memoryview[float], memoryview[float]]]:
    first, second = (view[start : start + 8 * PoolWords.WORDS].cast("d") for start in (HEADER_BYTES, SECOND_BYTES))
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


def _start_of(pid: int) -> float | None:
    """Return when a process was started, in ticks since the boot; None when it ended, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else float(fields[19])
