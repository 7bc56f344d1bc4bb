"""Every error that candleshm raises.

::

    CandleShmError
    ├── BlockError
    │   ├── BlockNotFound        (FileNotFoundError)  no block of that name, or none that is ready
    │   ├── BlockInUse                                another collector serves the name
    │   ├── BlockIncompatible                         the block was written in another format
    │   ├── BlockCorrupt                              the block's header contradicts itself
    │   └── BlockUnavailable     (OSError)            the system refused: /dev/shm is full, no permission
    │       └── BlockOfAnotherUser (OSError)          another user owns the block
    ├── UnknownSymbol            (KeyError)           the block does not carry that symbol
    ├── StaleData                                     the series is older than ``max_age``, or delisted
    ├── GapError                 (ValueError)         ``holes="raise"`` and the window has a gap
    ├── OverwrittenView                               rows of a view were overwritten or revised during its use
    ├── ClosesMissed                                  closes left the window before they were handed out
    ├── MissingExtra             (ImportError)        an optional library is not installed
    ├── WaitTimeout              (TimeoutError)       a wait reached its deadline
    ├── ReplayEnded                                   a replay has no later moment, or was stopped
    ├── ConfigError              (ValueError)         a setting cannot be used
    ├── HistoryError                                  daily files
    │   ├── DayNotFound          (FileNotFoundError)  no file of that day
    │   ├── DayDamaged           (ValueError)         the file is not what was written
    │   ├── DayIncomplete        (ValueError)         candles of that day are missing
    │   ├── StoreInUse                                another process writes these daily files
    │   └── StoreUnavailable     (OSError)            the system refused: the disk is full, no permission
    ├── ClusterError                                  the servers of a cluster
    │   ├── ClusterRefused                            a server refuses this program, or this program it
    │   └── ClusterUnavailable                        no server of the cluster responds
    └── ExchangeError                                 the exchange responded with an error, or not at all
        ├── RateLimited                               HTTP 429
        ├── Banned                                    HTTP 418 (or 403 from the firewall in front)
        ├── BadResponse                               a body that is not what was requested
        └── ExchangeUnavailable                       no response: connection, timeout, 5xx

Each class is also the builtin named in parentheses, so that code which only knows the builtin catches it, too.
Errors carry their facts as attributes; their text is for people.
"""

from __future__ import annotations

import errno
import grp
import math
import pwd
from datetime import UTC, datetime

__all__ = [
    "BadResponse",
    "Banned",
    "BlockCorrupt",
    "BlockError",
    "BlockInUse",
    "BlockIncompatible",
    "BlockNotFound",
    "BlockOfAnotherUser",
    "BlockUnavailable",
    "CandleShmError",
    "ClosesMissed",
    "ClusterError",
    "ClusterRefused",
    "ClusterUnavailable",
    "ConfigError",
    "DayDamaged",
    "DayIncomplete",
    "DayNotFound",
    "ExchangeError",
    "ExchangeUnavailable",
    "GapError",
    "HistoryError",
    "MissingExtra",
    "OverwrittenView",
    "RateLimited",
    "ReplayEnded",
    "StaleData",
    "StoreInUse",
    "StoreUnavailable",
    "UnknownSymbol",
    "WaitTimeout",
]


class CandleShmError(Exception):
    """The root: catch this to catch everything that candleshm raises on purpose."""


class BlockError(CandleShmError):
    """A shared-memory block cannot be used. ``name`` is the block's name, ``reason`` says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"block `{self.name}`: {self.reason}"


class BlockNotFound(BlockError, FileNotFoundError):
    """No block of that name exists, or it is still being initialised."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.errno = errno.ENOENT


class BlockInUse(BlockError):
    """Another live collector owns the block. ``pid`` is its process, 0 when unknown; ``lack`` why it cannot be read
    instead, as "has 1m of SPOT", empty when that was not asked; ``to_remove`` whether it was to be removed."""

    def __init__(self, name: str, pid: int = 0, lack: str = "", to_remove: bool = False) -> None:  # noqa: FBT001
        owner = f"process {pid}" if pid else "another process"
        besides = f", and the block {lack}" if lack else ""
        advice = "stop that one, which removes it" if to_remove else "stop that one or choose another name"
        super().__init__(name, f"a collector ({owner}) already serves it{besides}; {advice}")
        self.args = (name, pid, lack, to_remove)
        self.pid = pid
        self.to_remove = to_remove
        self.lack = lack


class BlockIncompatible(BlockError):
    """The block's format is not the one this version reads. ``found`` and ``expected`` name both."""

    def __init__(self, name: str, found: str, expected: str) -> None:
        super().__init__(
            name,
            f"it was written in format {found}, and this version reads {expected}; "
            f"use the same candleshm version on both sides",
        )
        self.args = (name, found, expected)
        self.found = found
        self.expected = expected


class BlockCorrupt(BlockError):
    """The block is truncated, foreign, or its header contradicts itself."""


class BlockUnavailable(BlockError, OSError):
    """The operating system refused: /dev/shm is full, or permission is denied. ``errno`` tells which."""

    def __init__(self, name: str, reason: str, error_number: int) -> None:
        super().__init__(name, reason)
        self.args = (name, reason, error_number)
        self.errno = error_number


class BlockOfAnotherUser(BlockUnavailable):
    """Another user owns the block, and this process may not use it. ``uid``, ``gid`` and ``mode`` are its file's."""

    def __init__(self, name: str, uid: int, gid: int, mode: int) -> None:
        self.uid = uid
        self.gid = gid
        self.mode = mode
        super().__init__(name, self.owned, errno.EACCES)
        self.args = (name, uid, gid, mode)

    @property
    def owned(self) -> str:
        """Who owns the block, and who can read it."""
        readers = f"that user and group {named_group(self.gid)}" if self.mode & 0o040 else "that user"
        text = f"user {named_user(self.uid)} owns it, and mode {self.mode:04o} lets only {readers} read it"
        return f"{text}; CANDLESHM_GROUP={self.gid} says to believe that group" if self.mode & 0o040 else text


def named_user(uid: int) -> str:
    """Return a user's number, and the name where this system has one."""
    try:
        return f"{uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return str(uid)


def named_group(gid: int) -> str:
    """Return a group's number, and the name where this system has one."""
    try:
        return f"{gid} ({grp.getgrgid(gid).gr_name})"
    except KeyError:
        return str(gid)


class UnknownSymbol(CandleShmError, KeyError):
    """The block does not carry ``symbol``."""

    def __init__(self, symbol: str, where: str = "") -> None:
        super().__init__(symbol, where)
        self.symbol = symbol
        self.where = where

    def __str__(self) -> str:
        if not self.where:
            return f"unknown symbol: `{self.symbol}`"
        return f"unknown symbol in {self.where}: `{self.symbol}`; `candleshm top {self.where} --once` lists its symbols"


class StaleData(CandleShmError):
    """The data of ``symbol`` was last confirmed ``age`` seconds ago, more than ``limit``; or the symbol is delisted.

    ``age`` is infinite where nothing was loaded yet, as in the first moments of a collector, and where the exchange's
    newest candle is older than the machine's start, as of a symbol that was halted before.
    """

    def __init__(self, symbol: str, age: float, limit: float | None, delisted: bool = False) -> None:  # noqa: FBT001
        super().__init__(symbol, age, limit, delisted)
        self.symbol = symbol
        self.age = age
        self.limit = limit
        self.delisted = delisted

    def __str__(self) -> str:
        if math.isinf(self.age):
            if self.delisted:
                return f"{self.symbol} no longer trades, and was not confirmed since this machine started"
            return (
                f"{self.symbol} has not been loaded yet, or not been confirmed since this machine started; "
                f"`feed.wait_ready(timeout)` waits until all symbols are loaded"
            )
        if self.delisted:
            return f"{self.symbol} no longer trades; it was last confirmed {self.age:.1f} s ago"
        return f"{self.symbol} is stale: last confirmed {self.age:.1f} s ago, the limit is {self.limit} s"


class GapError(CandleShmError, ValueError):
    """Candles that must not have gaps have one: open times ``[start_ms, end_ms)``, ``kind`` 'missing' or 'hole'."""

    def __init__(self, symbol: str, start_ms: int, end_ms: int, kind: str, advice: str = "") -> None:
        super().__init__(symbol, start_ms, end_ms, kind, advice)
        self.symbol = symbol
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.kind = kind
        self.advice = advice

    def __str__(self) -> str:
        start, end = (datetime.fromtimestamp(ms / 1000, tz=UTC) for ms in (self.start_ms, self.end_ms))
        return (
            f"{self.symbol} has no candles from {start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC: {self.kind}"
            f"{'; ' if self.advice else ''}{self.advice}"
        )


class OverwrittenView(CandleShmError):
    """Rows of a view of ``symbol`` were overwritten or revised while it was used: discard what was computed from it."""

    def __init__(self, symbol: str) -> None:
        super().__init__(symbol)
        self.symbol = symbol

    def __str__(self) -> str:
        return (
            f"rows of a view of {self.symbol} were overwritten or revised while it was used; "
            f"discard the result and take a new view"
        )


class ClosesMissed(CandleShmError):
    """A loop over `closes()` fell behind by more than the window: ``count`` closes of ``[start_ms, end_ms)``."""

    def __init__(self, name: str, start_ms: int, end_ms: int, count: int) -> None:
        super().__init__(name, start_ms, end_ms, count)
        self.name = name
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.count = count

    def __str__(self) -> str:
        start, end = (datetime.fromtimestamp(ms / 1000, tz=UTC) for ms in (self.start_ms, self.end_ms))
        return (
            f"a loop over the closes of block `{self.name}` is slower than the candles: {self.count} closes from "
            f"{start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC left the window before they were read"
        )


class MissingExtra(CandleShmError, ImportError):
    """An optional library is not installed; ``extra`` is the extra that brings it."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(library, extra)
        self.library = library
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.library} is not installed; run `pip install '.[{self.extra}]'` in the source tree of candleshm"


class WaitTimeout(CandleShmError, TimeoutError):
    """A wait reached its deadline. ``missing`` are the symbols without the awaited candle."""

    def __init__(self, message: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message, missing)
        self.missing = tuple(missing)

    def __str__(self) -> str:
        return str(self.args[0])


class ReplayEnded(CandleShmError):
    """A replay of ``[start_ms, end_ms)`` has no later moment to wait for: it has reached its end, or was stopped.

    ``now_ms`` is the moment at which it stands, epoch ms: ``end_ms`` unless it was stopped before. The rows of block
    ``name`` stay readable until the replay is left.
    """

    def __init__(self, name: str, start_ms: int, end_ms: int, now_ms: int) -> None:
        super().__init__(name, start_ms, end_ms, now_ms)
        self.name = name
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.now_ms = now_ms

    @property
    def is_complete(self) -> bool:
        """Whether the whole range was replayed."""
        return self.now_ms >= self.end_ms

    def __str__(self) -> str:
        start, end, now = (
            f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"
            for ms in (self.start_ms, self.end_ms, self.now_ms)
        )
        how = "has ended" if self.is_complete else f"was stopped at {now} UTC"
        return (
            f"the replay of {start} to {end} UTC in block `{self.name}` {how}: no later moment comes; catch "
            f"ReplayEnded to end a loop over it"
        )


class ConfigError(CandleShmError, ValueError):
    """A setting cannot be used; the text names the field, the value and what is allowed."""


class HistoryError(CandleShmError):
    """Daily files cannot be used. ``path`` is the file or directory, ``reason`` says why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class DayNotFound(HistoryError, FileNotFoundError):
    """A day has no file. ``days`` are all days without one, as YYYY-MM-DD; ``path`` is the first's file.

    ``stored`` names what the directory has of the symbol instead; ``advice`` is what to do, where that is not to
    download the days.
    """

    def __init__(self, path: str, days: tuple[str, ...], stored: str = "", advice: str = "") -> None:
        others = f" (and {len(days) - 1} more days, up to {days[-1]})" if len(days) > 1 else ""
        found = f"; stored are: {stored}" if stored else ""
        to_do = advice or "`candleshm download` fetches days"
        super().__init__(path, f"no candles of {days[0]} are stored{others}{found}; {to_do}")
        self.args = (path, days, stored, advice)
        self.errno = errno.ENOENT
        self.days = tuple(days)
        self.stored = stored
        self.advice = advice


class DayDamaged(HistoryError, ValueError):
    """A daily file is not what was written, or not what its name says; downloading the day again replaces it."""


class DayIncomplete(HistoryError, ValueError):
    """Candles of a day are missing that the exchange may have. ``missing`` are half-open ranges of open times, ms."""

    def __init__(self, path: str, missing: tuple[tuple[int, int], ...]) -> None:
        start, end = (datetime.fromtimestamp(ms / 1000, tz=UTC) for ms in missing[0])
        others = f" and {len(missing) - 1} more ranges" if len(missing) > 1 else ""
        super().__init__(
            path,
            f"no candles from {start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC{others}; "
            f"downloading the day again completes it",
        )
        self.args = (path, missing)
        self.missing = tuple(missing)


class StoreInUse(HistoryError):
    """Another process writes the daily files of this series; reading is not affected."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "another download is writing there; wait until it ends")
        self.args = (path,)


class StoreUnavailable(HistoryError, OSError):
    """The operating system refused: the disk is full, or permission is denied. ``errno`` tells which."""

    def __init__(self, path: str, reason: str, error_number: int) -> None:
        super().__init__(path, reason)
        self.args = (path, reason, error_number)
        self.errno = error_number


class ClusterError(CandleShmError):
    """The servers of a cluster cannot be used. ``servers`` names them, without credentials; ``reason`` says why."""

    def __init__(self, servers: str, reason: str) -> None:
        super().__init__(servers, reason)
        self.servers = servers
        self.reason = reason

    def __str__(self) -> str:
        return f"cluster {self.servers}: {self.reason}"


class ClusterRefused(ClusterError):
    """A server refuses the credentials, or what it shows is not what was to be trusted; trying again does not help."""


class ClusterUnavailable(ClusterError):
    """No server of the cluster responds, or none can do what was requested at the moment."""


class ExchangeError(CandleShmError):
    """The exchange responded with an error. ``status`` is the HTTP status, ``code`` Binance's (None without one)."""

    def __init__(self, message: str, *, status: int | None = None, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        # The facts are given by keyword, which the default does not know.
        return _exchange_error, (type(self), self.args, vars(self))


def _exchange_error(
    kind: type[ExchangeError], arguments: tuple[object, ...], facts: dict[str, object]
) -> ExchangeError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(facts)
    return error


class RateLimited(ExchangeError):
    """HTTP 429. Nothing may be sent by the whole pool for ``retry_after`` seconds."""

    def __init__(self, message: str, *, retry_after: float, status: int | None = 429, code: int | None = None) -> None:
        super().__init__(message, status=status, code=code)
        self.retry_after = retry_after


class Banned(RateLimited):
    """HTTP 418, or 403 from the firewall in front of the exchange. ``until_ms`` is the end of the ban, epoch ms."""

    def __init__(
        self, message: str, *, retry_after: float, until_ms: int, status: int | None = 418, code: int | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after, status=status, code=code)
        self.until_ms = until_ms

    def __str__(self) -> str:
        until = datetime.fromtimestamp(self.until_ms / 1000, tz=UTC)
        return f"{self.args[0]} (banned until {until:%Y-%m-%d %H:%M:%S} UTC)"


class BadResponse(ExchangeError):
    """A body that is not what was requested: HTML, truncated, malformed. ``offset`` is the byte where it goes wrong."""

    def __init__(
        self, message: str, *, offset: int | None = None, status: int | None = None, code: int | None = None
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.offset = offset


class ExchangeUnavailable(ExchangeError):
    """No usable response: the connection failed, timed out, or the status was 5xx."""
