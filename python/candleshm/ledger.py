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

from candleshm.errors import CandleShmError, ConfigError
from candleshm.ratelimit import WORDS, PoolMemory, PrivateMemory, Words, are_plausible

__all__ = ["LedgerFile", "ledger_path", "memory_for", "peek"]

logger = logging.getLogger("candleshm")

# Another layout or another meaning gets another version, and so another file: two versions never write to the same.
VERSION = 1
MAGIC = int.from_bytes(b"cshmwght", "little")
HEADER_BYTES = 4096
IMAGE_BYTES = -(-WORDS * 8 // 4096) * 4096
FILE_BYTES = HEADER_BYTES + 2 * IMAGE_BYTES
# Header words, u64: what the file is, the boot it belongs to, which copy counts (the lowest bit), who held it last.
MAGIC_WORD, VERSION_WORD, SIZE_WORD, BOOT_WORD, CHANGES_WORD, HOLDER_WORD = 0, 1, 2, 3, 5, 6

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
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")
    name = hashlib.sha256("\n".join(pool).encode()).hexdigest()[:32]
    return base / f"candleshm-{os.getuid()}" / f"weight-{VERSION}-{name}"


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


def peek(path: Path) -> Words | None:
    """Return a copy of the words in a ledger, None when there is none that counts. Changes and creates nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _read(_Mapping(descriptor, writable=False)) if _is_whole(descriptor) else None
    finally:
        os.close(descriptor)


class _Mapping:
    """The words of a file in memory. The pages stay as long as something of them is in use."""

    def __init__(self, descriptor: int, *, writable: bool = True) -> None:
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        # `mmap` duplicates its descriptor. Were that the one that is locked, a forked child would keep the lock.
        opened = os.open(f"/proc/self/fd/{descriptor}", (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            view = memoryview(mmap.mmap(opened, FILE_BYTES, access=access))
        finally:
            os.close(opened)
        self.header = view[:HEADER_BYTES].cast("Q")
        self.images: tuple[Words, ...] = tuple(
            view[start : start + WORDS * 8].cast("d") for start in (HEADER_BYTES, HEADER_BYTES + IMAGE_BYTES)
        )


class LedgerFile:
    """The words of one pool, shared through a file. See `ratelimit.PoolMemory`.

    A forked child has no part in it: there it never gets the words, and has to open it for itself.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or create it. Raises ConfigError when it is not ours alone, OSError as the system says."""
        self.path = path
        self._gate = threading.RLock()
        self._waits = True
        self._started = _start_of(os.getpid()) or 0.0
        self._descriptor, self._mapping = _open(path, None)
        _opened.add(self)

    def begin(self) -> Words | None:
        """Return the copy of the words that does not count yet; None after `LOCK_SECONDS`, or once closed."""
        if not self._gate.acquire(timeout=LOCK_SECONDS):
            return None
        if self._descriptor < 0 or not self._lock():
            self._gate.release()
            return None
        mapping = self._mapping
        changes = mapping.header[CHANGES_WORD]
        words = mapping.images[~changes & 1]
        words[:] = mapping.images[changes & 1]
        return words

    def commit(self) -> None:
        """Let the changed copy count: the one store by which everybody sees it, or, if we die before, nobody."""
        self._mapping.header[CHANGES_WORD] += 1
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._gate.release()

    def abandon(self) -> None:
        """Leave what counts as it is, and let others in."""
        if not self._gate.acquire(blocking=False):
            return
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._gate.release()
        with suppress(RuntimeError):  # we held nothing
            self._gate.release()

    def glance(self) -> Words:
        """Return a copy of what counts, without the lock."""
        return _read(self._mapping)

    def look(self, place: int) -> float:
        """Return one word of what counts, without the lock."""
        mapping = self._mapping
        return mapping.images[mapping.header[CHANGES_WORD] & 1][place]

    def refresh(self) -> None:
        """Follow everybody else to the file that has the name now; create it with our words when it was removed."""
        try:
            if os.stat(self.path, follow_symlinks=False).st_ino == os.fstat(self._descriptor).st_ino:
                return
        except FileNotFoundError:
            pass
        except OSError:
            return
        with self._gate:
            if self._descriptor < 0:
                return
            try:
                descriptor, mapping = _open(self.path, _read(self._mapping))
            except (OSError, CandleShmError) as error:
                logger.warning("the weight ledger %s was removed and cannot be written anew: %s", self.path, error)
                return
            os.close(self._descriptor)
            self._descriptor, self._mapping = descriptor, mapping
        logger.warning("the weight ledger %s was removed while in use; it was written anew", self.path)

    def process(self) -> tuple[int, float]:
        """Return our process id and when we were started, in ticks since the boot."""
        return os.getpid(), self._started

    def is_alive(self, pid: int, started: float) -> bool:
        """Say whether that very process runs: a later one with the same id has another start."""
        return _start_of(pid) == started

    def close(self) -> None:
        """Close the file; nothing can be changed any more, but the words can still be looked at."""
        with self._gate:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)

    def _lock(self) -> bool:
        if _try_lock(self._descriptor):
            self._waits = True
        elif not self._waits or not _wait_lock(self._descriptor):
            # Who found it held for long looks once each time from now on, until it was free.
            if self._waits:
                self._waits = False
                logger.warning(
                    "the weight ledger %s is held by process %d, which seems to be stopped: nothing is asked meanwhile",
                    self.path,
                    self._mapping.header[HOLDER_WORD],
                )
            return False
        self._mapping.header[HOLDER_WORD] = _pid
        return True

    def _forget(self) -> None:
        """In a forked child: the descriptor is the parent's lock, too, and a thread may have held the gate."""
        self._gate = threading.RLock()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


_opened: weakref.WeakSet[LedgerFile] = weakref.WeakSet()
_pid = os.getpid()


def _after_fork() -> None:
    global _pid
    _pid = os.getpid()
    for ledger in list(_opened):
        ledger._forget()


os.register_at_fork(after_in_child=_after_fork)


def _open(path: Path, words: Words | None) -> tuple[int, _Mapping]:
    """Open the file, or put a new one in the place of none or of one that does not count; that one begins with `words`.

    A file is never shortened nor written over: somebody may have mapped it.
    """
    _check_directory(path.parent)
    for _ in range(ATTEMPTS):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            with suppress(FileExistsError):
                _create(path, words, os.link)
            continue
        try:
            if not (_try_lock(descriptor) or _wait_lock(descriptor)):
                raise CandleShmError(f"the weight ledger {path} is held by another process, which seems to be stopped")
            _check_ours(path, os.fstat(descriptor), stat.S_ISREG)
            if _is_whole(descriptor):
                mapping = _Mapping(descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                return descriptor, mapping
            if _is_named(path, descriptor):
                _create(path, words, os.replace)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise CandleShmError(f"the weight ledger {path} is replaced again and again; who else writes there?")


def _check_directory(path: Path) -> None:
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    _check_ours(path, path.lstat(), stat.S_ISDIR)


def _check_ours(path: Path, status: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    if not is_kind(status.st_mode):
        raise ConfigError(f"the weight ledger needs a plain file in a real directory, which this is not: `{path}`")
    if status.st_uid != os.getuid():
        raise ConfigError(f"the weight ledger has to be ours alone, but user {status.st_uid} owns `{path}`")
    if status.st_mode & 0o077:
        mode = "700" if stat.S_ISDIR(status.st_mode) else "600"
        raise ConfigError(f"the weight ledger has to be ours alone, but others may use it; chmod {mode} `{path}`")


def _create(path: Path, words: Words | None, give_name: Callable[[Path, Path], None]) -> None:
    """Write a whole file under another name, then give it its own."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # All of it now, so that a full file system is an error here and not a SIGBUS later.
        os.posix_fallocate(descriptor, 0, FILE_BYTES)
        mapping = _Mapping(descriptor)
        mapping.header[:BOOT_WORD] = memoryview(struct.pack("3Q", MAGIC, VERSION, FILE_BYTES)).cast("Q")
        mapping.header[BOOT_WORD:CHANGES_WORD] = _boot_id()
        if words is not None:
            mapping.images[0][:] = words
        give_name(draft, path)
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            draft.unlink()


def _is_whole(descriptor: int) -> bool:
    """Say whether a file is a ledger of this version and this boot that can be believed."""
    if os.fstat(descriptor).st_size != FILE_BYTES:
        return False
    mapping = _Mapping(descriptor, writable=False)
    return (
        mapping.header[:BOOT_WORD].tolist() == [MAGIC, VERSION, FILE_BYTES]
        and mapping.header[BOOT_WORD:CHANGES_WORD] == _boot_id()
        and are_plausible(_read(mapping))
    )


def _is_named(path: Path, descriptor: int) -> bool:
    try:
        return path.lstat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _read(mapping: _Mapping) -> Words:
    """Copy the words that count. Only the other copy is written, so the copy is whole unless they changed twice."""
    for _ in range(ATTEMPTS):
        changes = mapping.header[CHANGES_WORD]
        words = memoryview(bytearray(mapping.images[changes & 1])).cast("d")
        if mapping.header[CHANGES_WORD] - changes < 2:
            break
    return words


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_lock(descriptor: int) -> bool:
    deadline_seconds = time.monotonic() + LOCK_SECONDS
    pause_seconds = PAUSE_SECONDS
    while time.monotonic() < deadline_seconds:
        time.sleep(pause_seconds)
        if _try_lock(descriptor):
            return True
        pause_seconds = min(2 * pause_seconds, PAUSE_SECONDS_MAX)
    return False


def _boot_id() -> memoryview[int]:
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return memoryview(bytes.fromhex(text.strip().replace("-", ""))).cast("Q")


def _start_of(pid: int) -> float | None:
    """Return when a process was started, in ticks since the boot; None when it ended, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else float(fields[19])
