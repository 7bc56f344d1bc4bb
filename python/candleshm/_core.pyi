"""The compiled core: readers (`Feed`, `Series`, `View`) and the one writer of a block (`Writer`).

Times are integer milliseconds since the epoch, UTC, as the exchange states them, unless a name says otherwise.
"""

from collections.abc import Iterator, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, final

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from candleshm.errors import CandleShmError

__all__ = [
    "INTERVAL_MS",
    "MARKETS",
    "ROW_STATES",
    "ZONES_VERSION",
    "Closed",
    "Feed",
    "Gap",
    "Ingested",
    "News",
    "NotMerged",
    "PoolWords",
    "Pushed",
    "Series",
    "SeriesState",
    "View",
    "Writer",
    "Zone",
    "block_names",
    "candle_end_ms",
    "candles_within",
    "check_moment",
    "check_timeout",
    "derivation_parts",
    "derive",
    "ended_ms",
    "hole_apart_ms",
    "is_block_name",
    "is_owned",
    "is_symbol_name",
    "parse_archive_csv",
    "parse_klines",
    "unlink",
    "zone_names",
]

MARKETS: tuple[Literal["SPOT", "UM", "CM"], ...]
INTERVAL_MS: dict[str, int]
"""Every interval of the exchange and the length of its shortest candle: 28 days for a month."""
ROW_STATES: dict[str, int]
"""The states of rows by name, as the core stores them; `candleshm.RowState` is the same for people."""
ZONES_VERSION: str
"""The release of the IANA time zone database that is compiled in, such as 2026b."""

_FloatArray: TypeAlias = npt.NDArray[np.float64]
_Holes: TypeAlias = Literal["drop", "nan", "raise"]

@final
class Gap:
    """A half-open range [start_ms, end_ms) of open times without a row: ``missing`` or a confirmed ``hole``."""

    def __new__(cls, start_ms: int, end_ms: int, kind: Literal["missing", "hole"]) -> Self: ...
    @property
    def start_ms(self) -> int: ...
    @property
    def end_ms(self) -> int: ...
    @property
    def kind(self) -> Literal["missing", "hole"]: ...

@final
class Ingested:
    """What one answer did to a series, and where the series stands afterwards."""

    @property
    def rows(self) -> int:
        """Rows in the body."""

    @property
    def refused(self) -> int:
        """Rows that cannot be true: non-finite, high < low, negative volume, beyond the exchange's clock."""

    @property
    def beyond(self) -> int:
        """Of these, rows that open after `received_ms`: a reason to measure the clock again."""

    @property
    def older(self) -> int:
        """Rows older than the window."""

    @property
    def changed(self) -> int:
        """Rows that were new or had other values."""

    @property
    def corrected(self) -> int:
        """Of these, rows that had been closed already."""

    @property
    def closed(self) -> int:
        """Rows that became final by this answer."""

    @property
    def holes(self) -> int:
        """Rows now confirmed absent."""

    @property
    def agreed(self) -> int:
        """Final rows that the block had as they are."""

    @property
    def verified(self) -> int:
        """Of these, rows that became verified: they had been pushed, and the answer says the same."""

    @property
    def conflicts(self) -> int:
        """Rows of which the answer and the stream say different things."""

    @property
    def newest_open_ms(self) -> int | None:
        """Open time of the newest row; None while the series has none."""

    @property
    def unsettled_open_ms(self) -> int | None:
        """Open time of the oldest row not yet final: the next refresh starts here."""

    @property
    def missing(self) -> int:
        """Rows of the window that are neither there nor confirmed absent."""

    @property
    def newest_missing_ms(self) -> tuple[int, int] | None:
        """The newest missing rows: half-open range of their open times. None without any, and for a derived block."""

    @property
    def suspect_open_ms(self) -> int | None:
        """Open time of the oldest disputed row that has to be asked for again; None without one."""

@final
class SeriesState:
    """Where a series stands."""

    @property
    def newest_open_ms(self) -> int | None:
        """Open time of the newest row; None while the series has none."""

    @property
    def unsettled_open_ms(self) -> int | None:
        """Open time of the oldest row not yet final; None while the series has none."""

    @property
    def missing(self) -> int:
        """Rows of the window that are neither there nor confirmed absent."""

    @property
    def newest_missing_ms(self) -> tuple[int, int] | None:
        """The newest missing rows, as the half-open range of their open times; None when nothing is missing."""

class NotMerged(Exception):
    """Merging was stopped, or the exchange's time was restarted after the request had left: nothing was merged."""

@final
class Pushed:
    """What a batch of frames did."""

    @property
    def events(self) -> int:
        """Klines of the block's market, interval and symbols."""

    @property
    def foreign(self) -> int:
        """Events of other kinds, intervals or markets."""

    @property
    def unknown(self) -> int:
        """Klines of symbols that the block does not carry."""

    @property
    def stale(self) -> int:
        """Klines that were older than what was known, and changed nothing."""

    @property
    def refused(self) -> int:
        """Klines that cannot be true."""

    @property
    def changed(self) -> int:
        """Rows that were new or had other values."""

    @property
    def closed(self) -> int:
        """Rows that became final."""

    @property
    def verified(self) -> int:
        """Rows that became verified: by trade ids, or because an answer had said the same."""

    @property
    def conflicts(self) -> int:
        """Rows of which an answer and the stream say different things."""

    @property
    def shuts_down(self) -> bool:
        """Whether the server announced its end."""

    @property
    def answers(self) -> list[int]:
        """Places in the batch of answers to what the client sent."""

    @property
    def faults(self) -> list[tuple[int, str]]:
        """Places in the batch of frames that could not be read, and why."""

    @property
    def repair_requests(self) -> list[tuple[str, Literal["rows", "close", "suspect"], int]]:
        """Series that an answer is needed for: (symbol, why, open time of the oldest row concerned in ms).

        ``rows``: the series has none yet. ``close``: a newer candle came, and one before it is not final or missing.
        ``doubt``: trade ids say that a row is not whole, or stream and answer differ.
        """

@final
class Writer:
    """The one owner of a named block. Methods may be called from any thread; they are serialised inside."""

    @staticmethod
    def open(
        name: str,
        *,
        market: Literal["SPOT", "UM", "CM"],
        interval: str,
        length: int,
        symbols: Sequence[str],
        spare_symbols: int = 0,
        derive: Sequence[tuple[str, str]] | None = None,
    ) -> Writer:
        """Create the block, take over the one a dead collector left, or supersede it when its shape differs.

        Rows of the same market, interval and symbol come over from a block of another LENGTH or other symbols, each as
        it was and as old as it was.

        `derive` are pairs of name and interval (`5m`, `1d@Asia/Shanghai`): further blocks of the same symbols and
        LENGTH, whose candles are derived from this block's in the same calls, each published before waiters of either
        are woken. Whatever is done to this block (symbols, trading, health, heartbeat, close) is done to them.

        Raises BlockInUse (a live collector owns it), ConfigError (name, interval, length), BlockCorrupt,
        OSError (ENOSPC: /dev/shm is too small).
        """

    @property
    def name(self) -> str: ...
    @property
    def taken_over(self) -> bool: ...
    @property
    def carried_rows(self) -> int:
        """Rows that came over from the block of another shape that this one replaced."""

    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def derived(self) -> tuple[str, ...]:
        """Names of the blocks derived from this one."""

    @property
    def symbol_capacity(self) -> int: ...
    def ingest(
        self,
        symbol: str,
        body: bytes,
        *,
        sent_ms: int,
        received_ms: int,
        settle_ms: int,
        limit: int,
        start_ms: int | None = None,
        end_ms: int | None = None,
        from_end: bool = False,
        patience_ms: int = 0,
        sent_seconds: float = ...,
    ) -> Ingested:
        """Parse a klines body, merge it, publish it and wake waiters: one call, the GIL released throughout.

        `sent_ms` and `received_ms` are exchange time when the request left and when its answer was there. A row is
        closed when its end lies at least `settle_ms` before `sent_ms`. `start_ms`, `end_ms` and `limit` are what was
        asked; `from_end` says that a full answer holds the newest `limit` rows of that range, not the oldest. Settled
        open times inside the answered range without a row are confirmed as holes when a second answer, asked at least
        `settle_ms` later, agrees; below the oldest row of the exchange they count as before the first candle.

        The newest row of an answer becomes final, and what lies behind it a hole, only `patience_ms` after its end: an
        answer may be an old picture, and only a later row in it proves that it is not. The series counts as received no
        later than its newest candle can have been the exchange's newest.

        `sent_seconds` is the local time at which the request left, as `restart_time` counts it.

        Several threads parse at the same time; only the merge waits for others.

        Raises BadResponse (with `.offset`) for a malformed body: nothing of it is published. UnknownSymbol. NotMerged
        after `stop_merging`, and for a request that left before the time was restarted.
        """

    def load_rows(
        self,
        symbol: str,
        rows: _FloatArray,
        states: npt.NDArray[np.uint8] | None = None,
        *,
        sent_ms: int,
        derived: str | None = None,
    ) -> Ingested:
        """Merge rows that were kept elsewhere, publish them and wake waiters.

        `rows` is float64 (n, 12) and `states` uint8 (n,), as `Series.candles` and `Series.states` give them with
        `holes="nan"`; without states all are closed. Closed and verified rows go where the series has none that is
        final, holes where it has nothing; what is there already counts for more. Rows of another state are left out,
        and so are those that had not ended at `sent_ms`, the exchange time at which the rows were asked for: what was
        live then is never trusted. The series does not count as confirmed by it, its age stays.

        With `derived` they go into the derived block of that name; that has to be before its source gets rows.

        Raises UnknownSymbol, ConfigError for other shapes.
        """

    def ingest_events(self, frames: Sequence[bytes | bytearray], *, received_ms: int) -> Pushed:
        """Parse the text frames of one socket read, merge, publish and wake waiters once; the GIL is released.

        `received_ms` is the exchange time that surely was not passed when they came. An event replaces what is known of
        its candle when it is newer: by its time against events, by trades and volume against answers. ``x: true`` makes
        the row final; what an answer said of a final row is never overwritten. Frames that cannot be read are reported
        and the others stand. Several threads parse at the same time. Raises NotMerged after `stop_merging`.
        """

    def last_event_seconds(self) -> dict[str, float]:
        """When the stream of each symbol brought its newest event: CLOCK_BOOTTIME, -inf for never."""

    def pauses_seconds(self) -> dict[str, float]:
        """How long the stream of each symbol was lately silent between two events, at the longest."""

    def trading_ages(self) -> list[float]:
        """How old the data of each symbol that trades is, seconds; infinite before its first answer."""

    def state(self, symbol: str) -> SeriesState:
        """Where the series stands. Raises UnknownSymbol."""

    def gaps(self, symbol: str) -> list[Gap]:
        """Gaps of the readable window, oldest first."""

    def window_start_ms(self, symbol: str, now_ms: int) -> int:
        """Open time of the oldest candle that a full window holds at `now_ms` (exchange time)."""

    def add_symbol(self, symbol: str) -> None:
        """Add a symbol in a reserved place. Raises ConfigError when `symbol_capacity` is reached."""

    def enlarge(self, symbols: Sequence[str], spare_symbols: int = 0) -> None:
        """Put a block for these symbols, with the same rows, in the place of this one; readers follow.

        Raises BlockUnavailable when there is no room for both, with this one as it was; BlockInUse when the name
        was removed and another collector has taken it.
        """

    def keep_names(self) -> list[tuple[str, CandleShmError | None]]:
        """Put back what no longer stands under its name: the block and those derived from it.

        A new block with the same rows takes the name, and readers follow. Returns the name of each that did not stand
        there, with None where it does now, or the error: BlockInUse when another live collector has the name,
        BlockCorrupt and BlockUnavailable when something else stands there or there is no room.
        """

    def set_trading(self, symbol: str, trading: bool, *, silent: bool = False) -> None:
        """Mark a symbol as trading (the default) or ended; `silent` is one that trades without new candles.

        Closes and panels wait for neither an ended nor a silent one. Only an ended one is `StaleData` at any age.
        """

    def set_health(self, *, ready: bool, weight_used: int, weight_limit: int, banned_until_ms: int | None) -> None:
        """Publish what readers see as `Feed.health`."""

    def restart_time(self, now_seconds: float) -> None:
        """Let whatever is merged from here on count as said later: the exchange's clock was set.

        `now_seconds` is local time; a response to a request that left before it is not merged any more.
        """

    def stop_merging(self) -> None:
        """Let `ingest` and `ingest_events` raise NotMerged from now on; what is being merged is finished first."""

    def heartbeat(self) -> None:
        """Publish a sign of life; to be called every 500 ms."""

    @property
    def universe_ms(self) -> int | None:
        """Newest open time at which every trading symbol is closed, verified or a hole."""

    def close(self, *, unlink: bool = True) -> None:
        """Mark the block CLOSED, wake every waiter, give the lock back and remove the name (unless told not to)."""

@final
class View:
    """A zero-copy window of final rows, of shape (n, 12) or n per column, float64, read-only.

    The arrays lie in the block itself. A writer may overwrite the oldest rows after 64 further closes, or revise a row:
    ask `valid()` after computing, and discard the result when it says no. Or use it as ``with btc.read(n) as view``,
    which raises OverwrittenView on exit. Slots without a row (holes) are NaN; `complete` says that there are none. An
    array keeps the block mapped as long as it lives.
    """

    @property
    def array(self) -> _FloatArray: ...
    @property
    def open_time_ms(self) -> _FloatArray: ...
    @property
    def open(self) -> _FloatArray: ...
    @property
    def high(self) -> _FloatArray: ...
    @property
    def low(self) -> _FloatArray: ...
    @property
    def close(self) -> _FloatArray: ...
    @property
    def volume(self) -> _FloatArray: ...
    @property
    def close_time_ms(self) -> _FloatArray: ...
    @property
    def quote_volume(self) -> _FloatArray: ...
    @property
    def trades(self) -> _FloatArray: ...
    @property
    def taker_buy_volume(self) -> _FloatArray: ...
    @property
    def taker_buy_quote_volume(self) -> _FloatArray: ...
    @property
    def ignore(self) -> _FloatArray: ...
    @property
    def complete(self) -> bool:
        """Whether every slot of the window has a row."""

    def valid(self) -> bool:
        """Return whether no row was overwritten or revised so far. Ask after computing."""

    def __len__(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None: ...

@final
class News:
    """What a block had announced when a waiter took this.

    A waiter takes it first, looks for what it waits for, and sleeps only then: whatever is published in between ends
    the sleep at once.
    """

    def sleep(self) -> None:
        """Sleep until the block announces something newer, one second at the longest.

        The caller looks again afterwards in any case: another block may have the name by now, or the collector may
        have died, and neither wakes anybody.
        """

@final
class Series:
    """The candles of one symbol. Cheap to keep; follows its symbol when the block is replaced.

    Every method raises UnknownSymbol when the replaced block does not carry the symbol any more, and those that hand
    out data raise StaleData when the newest answer is older than the feed's `max_age` or the symbol is delisted.
    """

    @property
    def symbol(self) -> str: ...
    def candles(
        self, n: int | None = None, *, closed_only: bool = False, holes: _Holes = "drop", out: _FloatArray | None = None
    ) -> _FloatArray:
        """Return a private, consistent copy of the newest `n` time slots: float64 (m, 12), oldest first.

        The live row is the last one unless `closed_only`; None means LENGTH. Slots without a row are left out
        (`holes="drop"`), kept as grid open time and NaN ("nan"), or raise GapError ("raise"). Fortran-ordered unless
        `out` is given: a writable, contiguous float64 array of shape (n, 12); its first m rows are returned.
        """

    def states(
        self, n: int | None = None, *, closed_only: bool = False, holes: _Holes = "drop"
    ) -> npt.NDArray[np.uint8]:
        """Return the states of the rows that `candles` with the same arguments returns.

        1 live, 2 closed, 3 verified; with `holes="nan"` also 4 hole and 5 missing. Never raises StaleData.
        """

    def snapshot(
        self, n: int | None = None, *, closed_only: bool = False, holes: _Holes = "drop"
    ) -> tuple[_FloatArray, npt.NDArray[np.uint8]]:
        """Return what `candles` and `states` with the same arguments return, of one moment.

        Rows are float64 (m, 12), states uint8 (m,), see `candleshm.RowState`. Calling `candles` and then `states`
        instead is two readings: a candle may close, or open, between them.

        Raises:
            StaleData, GapError, UnknownSymbol, ConfigError: As `candles` does.
        """

    @property
    def live(self) -> _FloatArray:
        """The newest row: float64 (12,), a copy. NaN while the series is empty."""

    @property
    def last_close(self) -> float:
        """Close of the newest row. NaN while the series is empty."""

    @property
    def age(self) -> float:
        """Seconds since the exchange last confirmed this series; infinite before its first answer."""

    @property
    def last_open_time_ms(self) -> int | None:
        """Open time of the newest row, as the exchange sent it; None while the series is empty."""

    @property
    def revision(self) -> int:
        """Corrections of closed rows so far."""

    def gaps(self) -> list[Gap]:
        """Return the gaps of the readable window, oldest first."""

    def view(self, n: int | None = None) -> View:
        """Return the newest `n` final slots in place, without a copy (fewer if fewer exist)."""

    def read(self, n: int | None = None) -> View:
        """As `view`, for ``with``: leaving the block raises OverwrittenView when the rows did not stay."""

    def asof(self, moments_ms: npt.NDArray[np.int64]) -> _FloatArray:
        """Return, for each moment (epoch ms, int64), the newest candle that had closed by then: float64 (m, 12).

        Nothing from the future gets in: a candle counts from its end on. NaN before the window.
        """

    def to_pandas(self, n: int | None = None, *, closed_only: bool = False, holes: _Holes = "drop") -> Any:
        """Return what `candles` with the same arguments returns as a pandas DataFrame with a UTC DatetimeIndex."""

    def to_polars(self, n: int | None = None, *, closed_only: bool = False, holes: _Holes = "drop") -> Any:
        """Return what `candles` with the same arguments returns as a polars DataFrame."""

    def to_arrow(self, n: int | None = None, *, closed_only: bool = False, holes: _Holes = "drop") -> Any:
        """Return what `candles` with the same arguments returns as a pyarrow Table."""

    def _news(self) -> News: ...
    def _end_of(self, open_time_ms: int | None) -> int: ...
    def _look_newer(self, end: int, waited: float | None = None) -> int | None: ...
    def wait(self, after_open_time_ms: int | None = None, timeout: float | None = None) -> int:
        """Sleep until a candle newer than `after_open_time_ms` (None: than the newest now) opens; return its open time.

        Raises WaitTimeout after `timeout` seconds, StaleData when the collector shows no life for `max_age`.
        """

@final
class Closed:
    """A candle that closed: its open time, the symbols that have it final, and those that do not."""

    def __new__(cls, open_time_ms: int, symbols: tuple[str, ...], missing: tuple[str, ...]) -> Self: ...
    @property
    def open_time_ms(self) -> int: ...
    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def missing(self) -> tuple[str, ...]: ...

@disjoint_base
class Feed:
    """One attached block; `candleshm.attach` makes one."""

    def __new__(cls, name: str, max_age: float | None = None) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def max_age(self) -> float | None:
        """The age limit of data that is handed out, seconds, as given to `attach`."""

    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def market(self) -> Literal["SPOT", "UM", "CM"]: ...
    @property
    def interval(self) -> str: ...
    @property
    def length(self) -> int:
        """Candles of a full window, the live one included."""

    def __len__(self) -> int: ...
    def __contains__(self, symbol: str, /) -> bool: ...
    def __getitem__(self, symbol: str, /) -> Series: ...
    def __iter__(self) -> Iterator[str]: ...
    def close(self) -> None:
        """End the use of the feed. Arrays and views already handed out stay readable: each keeps the block mapped."""

    def wait_closed(
        self,
        open_time_ms: int | None = None,
        *,
        symbols: Sequence[str] | None = None,
        quorum: float = 1.0,
        timeout: float | None = None,
    ) -> Closed:
        """Sleep until the candle of `open_time_ms` is final for `quorum` of the symbols; None: the next one to close.

        A hole counts as closed. Symbols None: all that trade and have candles; delisted ones are not awaited. In a
        loop `closes()` leaves none out, however long the work takes. Raises WaitTimeout with `.missing` after `timeout`
        seconds, StaleData when the collector shows no life for `max_age`, ConfigError (quorum, timeout, 3d candles
        that open on different days).
        """

    def last(self, field: str, *, symbols: Sequence[str] | None = None, out: _FloatArray | None = None) -> _FloatArray:
        """Return the newest value of every symbol, in the order of `symbols`: float64 (S,). NaN where there is none.

        `out` is filled and returned where it is given: a writable, contiguous float64 array of shape (S,).
        """

    def _health(self) -> dict[str, Any]: ...
    def _panel(
        self,
        fields: Sequence[str],
        n: int | None,
        symbols: Sequence[str] | None,
        live: bool,
        out: _FloatArray | None,
    ) -> tuple[_FloatArray, npt.NDArray[np.int64], tuple[str, ...]]: ...
    def _asof(
        self, field: str, moments_ms: npt.NDArray[np.int64], symbols: Sequence[str] | None
    ) -> tuple[_FloatArray, tuple[str, ...]]: ...
    def _news(self) -> News: ...
    def _look_closed(
        self, open_time_ms: int | None, symbols: Sequence[str] | None, quorum: float, waited: float | None = None
    ) -> tuple[Closed, int, int] | None: ...
    def _next_close_ms(self, symbols: Sequence[str] | None, quorum: float) -> int | None: ...
    def _later_open_ms(self, open_time_ms: int, places: int, symbols: Sequence[str] | None) -> int: ...
    def _closed_since(self, open_time_ms: int, symbols: Sequence[str] | None, quorum: float) -> int: ...

def block_names() -> list[str]:
    """Return the names of all shared memory that may be blocks."""

def check_moment(moment_ms: float) -> None:
    """Raise ConfigError for a moment that is evidently in seconds, microseconds or nanoseconds."""

def check_timeout(timeout: float | None) -> None:
    """Raise ConfigError for a timeout that is no duration."""

def parse_archive_csv(file: bytes) -> tuple[_FloatArray, int]:
    """Parse a file of the exchange's archive, times in ms: its rows as they stand there, and how many cannot be true.

    With or without the header, in milliseconds or microseconds. As for `parse_klines` otherwise.
    """

def parse_klines(body: bytes) -> tuple[_FloatArray, int]:
    """Parse a klines body: its rows as they stand there, float64 (n, 12), and how many rows cannot be true.

    Those are left out: non-finite, high < low, negative volume. Raises BadResponse (with `.offset`).
    """

def derivation_parts(source: str, target: str) -> int:
    """Return how many candles of one interval the longest of another is made of. Raises ConfigError when it is not."""

def derive(
    rows: _FloatArray, source: str, target: str, start_ms: int | None, end_ms: int | None, anchor_ms: int | None
) -> _FloatArray:
    """Return the rows of `candleshm.derive`, flat. Rows are C-ordered (n, 12)."""

def ended_ms() -> int:
    """Return a moment that is over by the exchange's clock, as far as final candles read here tell."""

def is_owned(name: str) -> bool:
    """Say whether a process owns the block that has this name now. Raises `BlockNotFound`, `BlockUnavailable`."""

def unlink(name: str) -> None:
    """Remove a block that no collector serves."""

@final
class PoolWords:
    """The words of a weight pool. Every method that changes them is one transaction: it changes the copy that does not
    count, and one store of one word makes that copy the one that counts. No method waits: while another process holds
    the lock, or if the owner `token` does not stand at `place`, it changes nothing and returns None or False.
    """

    WORDS: Final[int]
    LIMIT: Final[int]
    WINDOW: Final[int]
    SHARE: Final[int]
    BLOCKED_UNTIL: Final[int]
    IN_FLIGHT: Final[int]
    FINISHED: Final[int]
    REAPED_AT: Final[int]
    OWNERS_MAX: Final[int]
    TOKEN_MAX: Final[int]
    MAGIC: Final[int]
    VERSION: Final[int]
    CHANGES_WORD: Final[int]
    HEADER_BYTES: Final[int]
    COPY_BYTES: Final[int]
    OWNERS_START: Final[int]
    SHARE_UNNAMED: Final[float]
    PROBE_SECONDS: Final[float]
    HELD_SECONDS_MAX: Final[float]

    def __new__(
        cls,
        header: memoryview[int],
        copies: tuple[memoryview[int], memoryview[int]],
        lock_path: str | PathLike[str] | None = None,
    ) -> Self:
        """Use words: a u64 header and two copies of `WORDS` u64, all zero for a new pool. `lock_path` names the file
        that other processes lock as well. Raises ValueError, OSError.
        """

    def claim(self, place: int, token: int, weight: float, now: float, closing: bool, urgent: bool) -> float | None:
        """Book a request and return 0.0, or return how many seconds it has to wait."""

    def finished(self, place: int, token: int, weight: float, now: float, reported: float | None) -> bool:
        """Book the end of a request, with the used weight that the exchange stated."""

    def sent(self, place: int, token: int, weight: float, now: float, closing: bool) -> bool:
        """Book a request that is sent now, whether it may be or not."""

    def stop(self, place: int, token: int, until: float) -> bool:
        """Stop all requests until then."""

    def name(self, place: int, token: int, named: list[float], now: float) -> bool:
        """Take share, window, limit and weight of closing candles as an owner names them."""

    def give_up(self, place: int, token: int) -> bool:
        """Take an owner out of the queue."""

    def leave(self, place: int, token: int, now: float) -> bool:
        """Free the place of an owner; its requests in flight count as finished now."""

    def join(
        self,
        token: int,
        pid: int,
        assumed: tuple[float, float],
        named: list[float],
        in_flight: float,
        now: float,
    ) -> int | None:
        """Give an owner a place and return it, or 0 when all places are taken."""

    def owners(self) -> list[tuple[int, int, int]]:
        """Return place, token and process id of every owner."""

    def holds(self, place: int, token: int) -> bool:
        """Return whether the owner `token` stands at `place`."""

    def end_dead(self, dead: list[tuple[int, int]], now: float) -> bool:
        """Free the places of owners whose process died, where they still stand at their places."""

    def close(self) -> None:
        """Close the lock: from now on nothing can be changed."""

    def look(self, place: int) -> float:
        """Return a number of the pool by its constant, such as `IN_FLIGHT`. Raises ValueError."""

    def changed_by(self) -> int:
        """Return the id of the process that changed the words last."""

    def used(self, now: float) -> float:
        """Return the weight that counts at a moment. Takes no lock."""

    def delay(self, weight: float, now: float, closing: bool) -> float:
        """Return how many seconds a request would have to wait. Takes no lock."""

    def are_plausible(self) -> bool:
        """Return whether the words that count can be those of a pool."""

    def assume(self, other: PoolWords) -> None:
        """Copy what counts from other words into these, which no other process may use yet."""

def candle_end_ms(interval: str, open_ms: int) -> int:
    """Return where the candle ends (half-open) that opened at `open_ms`, also when it opened off the grid.

    `interval` is one of the exchange's, or the days of a zone as 1d@Asia/Shanghai. For 3d the end follows from the open
    time itself: each symbol has a grid of its own. Raises ConfigError.
    """

def hole_apart_ms(settle_ms: int) -> int:
    """Return how far apart two requests have to be sent whose responses both lack a row, before it counts as a hole.

    `settle_ms` is the settle time; all are milliseconds.
    """

def candles_within(interval: str, start_ms: int, end_ms: int) -> tuple[int, int]:
    """Return the open time of the first candle that opens at `start_ms` or later, and how many candles open from there
    until before `end_ms`.

    `interval` is one of the exchange's except 3d, or the days of a zone as 1d@Asia/Shanghai. Raises ConfigError.
    """

def is_symbol_name(name: object) -> bool:
    """Say whether `name` can be a symbol's: 1 to 64 bytes of UTF-8, nothing that cannot be seen, no slash."""

def is_block_name(name: object) -> bool:
    """Say whether `name` can name a block: no slash, no leading dot, nothing that a shell or a log would take apart."""

@final
class Zone:
    """The days of a time zone; `name` is an IANA name in any case. Days are counted from 1970-01-01.

    The rules are those of `ZONES_VERSION`, for files and blocks alike; what the machine has installed does not count.
    """

    def __new__(cls, name: object) -> Self:
        """Raises ConfigError for a name that the database does not have."""

    @property
    def name(self) -> str:
        """As the database spells it."""

    def day_of(self, epoch_ms: int) -> int:
        """Return the number of the day that an instant lies in."""

    def reached_ms(self, day: int, time_of_day_ms: int = 0) -> int:
        """Return the first instant at which the clock has reached a time of a day, or has jumped over it."""

    def at_ms(self, day: int, time_of_day_ms: int) -> int:
        """Return when the zone's clocks show a time of day on a day, for the first time, in epoch milliseconds.

        A time that they jump over counts as reached when they would have shown it without the jump.
        """

    def offset_ms(self, epoch_ms: int) -> int:
        """Return how far the clock is ahead of UTC at an instant."""

    def __reduce__(self) -> tuple[type[Self], tuple[str]]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

def zone_names() -> list[str]:
    """Return the names of all time zones, sorted."""
