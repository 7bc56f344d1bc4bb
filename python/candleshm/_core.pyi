"""The compiled core: readers (`Feed`, `Series`, `View`) and the one writer of a block (`Writer`).

Times are integer milliseconds since the epoch, UTC, as the exchange states them, unless a name says otherwise.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NoReturn, Self, TypeAlias, final

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from candleshm.errors import CandleShmError
from candleshm.reader.moments import MomentLike, MomentsLike

__all__ = [
    "INTERVAL_MS",
    "MARKETS",
    "PRICES",
    "ROW_STATES",
    "SILENT_MS",
    "STALE_MS",
    "ZONES_VERSION",
    "Applied",
    "Closed",
    "Feed",
    "FeedShape",
    "Gap",
    "Ingested",
    "KlineEvents",
    "KlinesText",
    "News",
    "NotMerged",
    "Older",
    "Outlet",
    "PoolWords",
    "Pushed",
    "RecordingPlayer",
    "RecordingStatus",
    "Replay",
    "Series",
    "SeriesState",
    "Shadow",
    "StreamCounts",
    "StreamNews",
    "StreamThread",
    "View",
    "Writer",
    "Zone",
    "block_bytes",
    "block_names",
    "candle_end_ms",
    "candles_within",
    "check_moment",
    "check_timeout",
    "derivation_parts",
    "derive",
    "ended_ms",
    "frame_text",
    "freshness",
    "hole_apart_ms",
    "is_block_name",
    "is_owned",
    "is_symbol_name",
    "klines_text",
    "message_feed",
    "message_head",
    "parse_archive_csv",
    "parse_klines",
    "read_daily",
    "shard_of",
    "share_with",
    "unlink",
    "zone_names",
]

MARKETS: tuple[Literal["SPOT", "UM", "CM"], ...]
PRICES: tuple[Literal["trade", "mark", "index", "premium"], ...]
INTERVAL_MS: dict[str, int]
"""Every interval of the exchange and the length of its shortest candle: 28 days for a month."""
ROW_STATES: dict[str, int]
"""The states of rows by name, as the core stores them; `candleshm.RowState` is the same for people."""
SILENT_MS: int
"""A collector without a heartbeat for this long shows no life."""
STALE_MS: int
"""A series whose data is older than this is stale, where the reader has set no limit."""
ZONES_VERSION: str
"""The release of the IANA time zone database that is compiled in, such as 2026b."""

_FloatArray: TypeAlias = npt.NDArray[np.float64]
_Holes: TypeAlias = Literal["drop", "nan", "raise"]
_Decimals: TypeAlias = tuple[int, int, int, int]

@final
class Gap:
    """A half-open range [start_ms, end_ms) of open times without a row.

    Equal gaps compare equal, and have the same hash.

    >>> candleshm.Gap(1_700_000_040_000, 1_700_000_100_000, "hole").kind
    'hole'
    """

    def __new__(cls, start_ms: int, end_ms: int, kind: Literal["missing", "hole"]) -> Self: ...
    def _repr_html_(self) -> str: ...
    @property
    def start_ms(self) -> int:
        """Open time of the first row that is absent, epoch ms."""
    @property
    def end_ms(self) -> int:
        """Open time of the first row after the gap, epoch ms."""
    @property
    def kind(self) -> Literal["missing", "hole"]:
        """'missing' (not fetched yet) or 'hole' (the exchange confirmed that it has no such row)."""

@final
class Ingested:
    """What one response did to a series, and the state of the series afterwards."""

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
        """Rows that became final by this response."""

    @property
    def holes(self) -> int:
        """Rows that were confirmed not to exist."""

    @property
    def absent(self) -> int:
        """Rows that a response lacked for the first time."""

    @property
    def agreed(self) -> int:
        """Final rows that the block had as they are."""

    @property
    def verified(self) -> int:
        """Of these, rows that became verified: the stream had given the same values."""

    @property
    def conflicts(self) -> int:
        """Rows for which the response and the stream gave different values."""

    @property
    def newest_open_ms(self) -> int | None:
        """Open time of the newest row; None while the series has none."""

    @property
    def unsettled_open_ms(self) -> int | None:
        """Open time of the oldest row not yet final: the next refresh starts here."""

    @property
    def missing(self) -> int:
        """Rows of the window that are neither there nor holes."""

    @property
    def newest_missing_ms(self) -> tuple[int, int] | None:
        """The newest missing rows that no response lacked so far: half-open range of their open times, or None."""

    @property
    def unconfirmed_ms(self) -> tuple[int, int] | None:
        """Range of the missing rows that responses lacked and that are to be confirmed next, or None."""

    @property
    def confirm_from_ms(self) -> int:
        """Exchange time from which a request confirms them as holes."""

    @property
    def suspect_open_ms(self) -> int | None:
        """Open time of the oldest suspect row, which has to be requested again; None without one."""

@final
class RecordingStatus:
    """What was recorded so far."""

    @property
    def written_bytes(self) -> int:
        """Bytes written since the start."""
    @property
    def missing_records(self) -> int:
        """Records that were dropped, because the disk was too slow or full."""
    @property
    def removed_files(self) -> int:
        """Old files that were removed, to stay below the bound."""
    @property
    def error(self) -> str | None:
        """Why nothing can be written now; None while all is well."""

@final
class RecordingPlayer:
    """Plays the recording of a directory into a block of its own, through the parser, the merge and the writer."""

    def __new__(cls, directory: str | PathLike[str], name: str) -> Self: ...
    def play(self, records: int) -> tuple[bool, str | None]:
        """Play up to `records` records, or up to the next note; return whether there may be more, and the note.

        Raises OSError when a file cannot be read, BlockInUse and what `Writer.open` raises when the block cannot be
        taken.
        """
    def heartbeat(self) -> None:
        """Publish a heartbeat, so that readers know that somebody owns the block."""
    def ingested(self, symbol: str) -> Ingested | None:
        """What the newest response about a series of the block changed here.

        None before any, and while the series waits for its checkpoint.
        """
    def state(self, symbol: str) -> SeriesState | None:
        """The state of a series of the block; times as they were where it was recorded.

        None for symbols that the block does not carry, and while the series waits for its checkpoint.
        """
    def gaps(self, symbol: str) -> list[Gap]:
        """Gaps of the readable window of a series, oldest first; none where `state` is None."""
    @property
    def losses(self) -> int:
        """How often what is known of all series was lost: at the start of each run, and where records are missing."""
    @property
    def run(self) -> dict[str, Any] | None:
        """The newest run: name, market, price, interval, length, derived (names and intervals); None before any."""
    @property
    def blocks(self) -> list[str]:
        """Names of the blocks that are played into, the own one first; empty before the first run."""
    @property
    def played(self) -> dict[str, Any]:
        """What was played so far: records (a dict by kind), runs, left_out, differing, difference, missing, from_ms,
        until_ms (epoch ms), ended.
        """
    @property
    def cuts(self) -> list[tuple[Path, int, str]]:
        """Where files ended before their end: path, records read from it, reason."""
    def close(self) -> None:
        """Remove the block; safe twice."""

@final
class SeriesState:
    """The state of a series."""

    @property
    def newest_open_ms(self) -> int | None:
        """Open time of the newest row; None while the series has none."""

    @property
    def unsettled_open_ms(self) -> int | None:
        """Open time of the oldest row not yet final; None while the series has none."""

    @property
    def missing(self) -> int:
        """Rows of the window that are neither there nor holes."""

    @property
    def newest_missing_ms(self) -> tuple[int, int] | None:
        """The newest missing rows that no response lacked so far: half-open range of their open times, or None."""

    @property
    def unconfirmed_ms(self) -> tuple[int, int] | None:
        """Range of the missing rows that responses lacked and that are to be confirmed next, or None."""

    @property
    def confirm_from_ms(self) -> int:
        """Exchange time from which a request confirms them as holes."""

    @property
    def last_event_seconds(self) -> float:
        """When its stream brought the newest event: CLOCK_BOOTTIME, -inf for never."""

    @property
    def stream_pause_seconds(self) -> float:
        """How long its stream was lately silent between two events, at the longest."""

class NotMerged(Exception):
    """Merging was stopped, or the exchange's time was restarted after the request had left: nothing was merged."""

@final
class StreamThread:
    """One thread that serves the stream connections of a block: TLS, websocket, parse, merge, publish, wake.

    No Python runs in it. It opens no socket and decides nothing: it is given connected sockets, says what happened, and
    is told what to send and what to close. Methods may be called from any thread.
    """

    def __new__(
        cls, writer: Writer, *, roots_file: str | PathLike[str] | None = None, spin_seconds: float = 0.0
    ) -> Self: ...
    def open(
        self,
        connection: int,
        descriptor: int,
        *,
        host: str,
        target: str,
        streams: int,
        server_name: str | None = None,
    ) -> None:
        """Serve a connected TCP socket as `connection`, a number that none had before.

        `descriptor` is what `socket.detach()` returned; the thread closes it, also when this raises. `host` is the host
        and port of the URL, `target` its path and query, `streams` how many it names. With `server_name` the
        connection is by TLS, and the server has to show a certificate for that name. Raises ValueError when it is no
        socket, OSError when this machine has no certificate authorities.
        """

    def send(self, connection: int, text: bytes, streams: int) -> None:
        """Send a text on a connection, which then carries so many `streams`. Does nothing when it is not open."""

    def close(self, connection: int) -> None:
        """Begin the closing handshake of a connection."""

    def abort(self, connection: int, reason: str) -> None:
        """End a connection at once."""

    def wait(self, seconds: float) -> StreamNews:
        """Return what happened, as soon as anything did and at most after `seconds`.

        What is not urgent is returned at most every 50 ms.
        """

    def rouse(self) -> None:
        """Let a `wait` that is under way, or the next one, return at once."""

    @property
    def counts(self) -> StreamCounts:
        """Counts since the start."""

    def events(self, connection: int) -> int:
        """Klines that a connection has brought; 0 for one that is not open."""

    def stop(self, seconds: float) -> bool:
        """Close all connections and end the thread; return whether that was done within `seconds`."""

@final
class StreamCounts:
    """Counts of a stream thread since its start."""

    @property
    def batches(self) -> int:
        """Socket reads with texts."""

    @property
    def events(self) -> int:
        """Klines of the block's market, interval and symbols."""

    @property
    def stale(self) -> int:
        """Of these, klines that were older than what was known."""

    @property
    def verified(self) -> int:
        """Rows that became verified: by trade ids, or because a response had given the same values."""

    @property
    def conflicts(self) -> int:
        """Rows for which a response and the stream gave different values."""

    @property
    def refused(self) -> int:
        """Klines that cannot be true."""

    @property
    def faults(self) -> int:
        """Texts that could not be read."""

@final
class StreamNews:
    """What happened in a stream thread since it was last asked."""

    @property
    def opened(self) -> list[int]:
        """Connections whose upgrade is done."""

    @property
    def replies(self) -> list[tuple[int, bytes]]:
        """Replies to texts that were sent: connection and text."""

    @property
    def shutting_down(self) -> list[int]:
        """Connections whose server is about to end them."""

    @property
    def ended(self) -> list[tuple[int, str, int | None, bool]]:
        """Connections that are gone: number, reason, HTTP status of a refusal, whether the server misbehaved."""

    @property
    def repair_requests(self) -> list[tuple[str, str, int]]:
        """Series that have to be requested: (symbol, reason, open time of the oldest row concerned, epoch ms).

        As in `Pushed.repair_requests`.
        """

    @property
    def refused(self) -> int:
        """Klines that cannot be true."""

    @property
    def fault(self) -> str | None:
        """Why a text could not be read: the newest one; None without one."""

    @property
    def failure(self) -> str | None:
        """Why the thread ended although nobody stopped it; None otherwise."""

@final
class Older:
    """What of a derived series is to be requested, because it does not come by derivation."""

    @property
    def rows(self) -> int:
        """Rows that are neither there, nor holes, nor to come by derivation."""
    @property
    def missing_ms(self) -> tuple[int, int] | None:
        """The newest of them that no response lacked so far: half-open range of their open times, or None."""
    @property
    def unconfirmed_ms(self) -> tuple[int, int] | None:
        """Range of those that responses lacked and that are to be confirmed next, or None."""
    @property
    def confirm_from_ms(self) -> int:
        """Exchange time from which a request confirms them as holes."""
    @property
    def seam_end_ms(self) -> int:
        """Up to where derived rows follow `missing_ms` without a gap, to be compared with the response."""
    @property
    def suspect_ms(self) -> tuple[int, int] | None:
        """Range of the rows that the exchange sent otherwise than they are derived now, or None."""

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
        """Rows that became verified: by trade ids, or because a response had given the same values."""

    @property
    def conflicts(self) -> int:
        """Rows for which a response and the stream gave different values."""

    @property
    def shuts_down(self) -> bool:
        """Whether the server sent notice of its shutdown."""

    @property
    def acknowledgements(self) -> list[int]:
        """Places in the batch of acknowledgements: replies to what the client sent."""

    @property
    def faults(self) -> list[tuple[int, str]]:
        """Places in the batch of frames that could not be read, and why."""

    @property
    def repair_requests(self) -> list[tuple[str, Literal["rows", "close", "suspect"], int]]:
        """Series that have to be requested: (symbol, reason, open time of the oldest row concerned, epoch ms).

        ``rows``: the series has none yet. ``close``: a newer candle came, and one before it is not final or missing.
        ``suspect``: by its trade ids a row is not whole, or stream and response differ.
        """

@final
class Replay:
    """Publishes given rows in order of time, in lockstep with those who read.

    `symbols` are all that will ever be listed. `derived` are names, intervals and LENGTHs of further blocks, as
    `Writer.open` takes them. Candles that close after `start_ms` and until `end_ms` are shown, each when it closes;
    with `inside` they are shown before: "steps" in four steps, "1s" as candles of 1s make them.

    With a `speed` the replayed clock runs so many times as fast as the real one, from the first wait or `run` on.
    Without it time moves when everybody who ever waited waits again, once `consumers` have.

    `more` is called with the open time from which rows are needed, epoch ms. It gives rows of all symbols, and returns
    the open time up to which all were given. What it raises ends the replay, and comes out of `step` and `run`.
    """

    def __new__(
        cls,
        name: str,
        *,
        market: Literal["SPOT", "UM", "CM"],
        interval: str,
        length: int,
        symbols: Sequence[str],
        start_ms: int,
        end_ms: int,
        more: Callable[[int], int],
        price: Literal["trade", "mark", "index", "premium"] = "trade",
        derived: Sequence[tuple[str, str, int]] | None = None,
        exchange: str = "",
        inside: Literal["steps", "1s"] | None = None,
        speed: float | None = None,
        consumers: int = 1,
    ) -> Self: ...
    @property
    def name(self) -> str:
        """The name of the block."""

    @property
    def now_ms(self) -> int:
        """The replayed time, epoch ms."""

    def give(self, symbol: str, rows: npt.NDArray[np.float64], states: npt.NDArray[np.uint8]) -> None:
        """Give base candles of a symbol that are to come, ascending: float64 (n, 12), and uint8 (n,) of `ROW_STATES`.

        May be called many times; candles at or before the newest one that was given are left out. Closed and verified
        rows are shown, holes become known with the next row; what is left out or in another state is missing. A row of
        NaN lies behind the row before it. A symbol that the replay does not have is passed over.

        Raises ConfigError for other shapes.
        """

    def give_inside(self, symbol: str, rows: npt.NDArray[np.float64]) -> None:
        """Give candles of 1s of a symbol that are to come, ascending: float64 (n, 12). Raises ConfigError."""

    def set_life(self, symbol: str, listed_ms: int | None, ended_ms: int | None) -> None:
        """Say when the first candle of a symbol opens, and when its last one ends, epoch ms; None where that is not
        known, or not within the replay. To be called before `begin`.

        A symbol that is listed after the start joins the block then. One that ended is awaited no longer.
        """

    @property
    def readers(self) -> tuple[int, int]:
        """How many readers take part, and how many of them are at work: time waits for these."""

    @property
    def held_up(self) -> str | None:
        """Why time stands still although somebody waits for it, as text; None while it moves on, or nobody waits."""

    def begin(self, warm_rows: int) -> None:
        """Take the name, and publish the newest `warm_rows` candles of before the start: now readers can attach.

        Calls `more` with the open time of the oldest of them.

        Raises BlockInUse (a live process owns the name), ConfigError (also when a collector left the block of that
        name), OSError, and what `more` raises.
        """

    def step(self) -> bool:
        """Publish the next moment without awaiting anybody; return False, and do nothing, at the end.

        Raises what `more` raises.
        """

    def run(self) -> None:
        """Go on to the end, with whoever waits. Nobody is awaited before the first moment.

        Raises what `more` raises, and what signal handlers raise.
        """

    def close(self) -> None:
        """End the run and remove the names. What readers have mapped stays readable; their waits raise `ReplayEnded`.

        May be called twice.
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
        derive: Sequence[tuple[str, str, int]] | None = None,
        fetched: Mapping[str, str] | None = None,
        exchange: str = "",
        price: Literal["trade", "mark", "index", "premium"] = "trade",
    ) -> Writer:
        """Create the block, take over the one a dead collector left, or supersede it when its shape differs.

        Rows of the same market, interval and symbol come over from a block of another LENGTH or other symbols, each as
        it was and as old as it was.

        `derive` are names, intervals (`5m`, `1d@Asia/Shanghai`) and LENGTHs: further blocks of the same symbols, whose
        candles are derived from this block's in the same calls, each published before waiters of either are woken.
        Whatever is done to this block (symbols, trading, health, heartbeat, close) is done to them.

        `fetched` are, by the names of derived blocks, the intervals of which the exchange has candles for rows that do
        not come by derivation: that of the block, or a smaller one that makes it up; see `older`.

        `exchange` says whose candles these are. A block that a collector of another exchange left is replaced without
        its rows; an empty one stands for any.

        Raises BlockInUse (a live collector owns it), ConfigError (name, interval, length), BlockCorrupt,
        OSError (ENOSPC: /dev/shm is too small).
        """

    def record_into(self, directory: str | PathLike[str], *, bytes_max: int, offset_ms: int) -> None:
        """Record from now on what changes the block, into files of `directory`.

        It must exist and be of this block only. Together the files have at most `bytes_max`; the oldest go first.
        `offset_ms` is what the exchange's clock (epoch ms) shows beyond CLOCK_BOOTTIME in ms; a replay's clock starts
        from it. A thread of its own writes. Where the disk is too slow or full records are dropped, never candles: see
        `recording`. A second call does nothing. Raises OSError when the first file cannot be written.
        """
    def note(self, text: str) -> None:
        """Record a text, JSON, that a replay shows or checks; does nothing where nothing is recorded."""
    @property
    def recording(self) -> RecordingStatus | None:
        """What was recorded so far; None where nothing is."""
    @property
    def name(self) -> str:
        """The name of the block."""
    @property
    def taken_over(self) -> bool:
        """Whether the block is that of a collector that died, with its rows."""
    @property
    def carried_rows(self) -> int:
        """Rows that came over from the block of another shape that this one replaced."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that the block carries, in its order."""
    @property
    def derived(self) -> tuple[str, ...]:
        """Names of the blocks derived from this one."""

    @property
    def symbol_capacity(self) -> int:
        """How many symbols the block has room for."""
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

        `sent_ms` and `received_ms` are exchange time when the request left and when its response was there. A row is
        closed when its end lies at least `settle_ms` before `sent_ms`. `start_ms`, `end_ms` and `limit` are those of
        the request; with `from_end` a full response holds the newest `limit` rows of that range, not the oldest. Rows
        that should be final, inside the range, and are not in the response become holes when a second response agrees
        whose request left at least `settle_ms` later; below the oldest row of the exchange they count as before the
        first candle.

        The newest row of a response becomes final, and what lies behind it a hole, only `patience_ms` after its end: a
        response may be outdated, and only a later row in it proves that it is not. The series counts as received no
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
        final, holes where it has nothing; what is there already takes precedence. Rows of another state are left out,
        and so are those that had not ended at `sent_ms`, the exchange time at which the rows were requested: what was
        live then is never trusted. The series does not count as confirmed by it: its age stays.

        With `derived` they go into the derived block of that name; that has to be before its source gets rows.

        Raises UnknownSymbol, ConfigError for other shapes.
        """

    def ingest_older(
        self,
        derived: str,
        symbol: str,
        body: bytes,
        *,
        sent_ms: int,
        received_ms: int,
        settle_ms: int,
        limit: int,
        start_ms: int | None = None,
        end_ms: int | None = None,
        patience_ms: int = 0,
        sent_seconds: float = ...,
    ) -> tuple[Ingested, Older]:
        """As `ingest`, of a response about rows of the derived block `derived` that do not come by derivation.

        The request was for the interval that is fetched for that block (see `open`). Where rows were derived as well
        the exchange's stand; `conflicts` counts the differences. Rows from the oldest that is not final on are left
        out. Returns what it changed, and what is to be requested next. Raises as `ingest`, ConfigError for another
        name.
        """

    def older(self, derived: str) -> dict[str, Older]:
        """What is to be requested of each series of the derived block `derived`, by symbol.

        Series that lack nothing, or of which nothing could be derived so far, are left out. Raises ConfigError for
        another name.
        """

    def set_filled(self, derived: str, filled: bool) -> None:
        """Set whether the derived block `derived` has what is to be fetched; readers see it as ready only then."""

    def ingest_events(self, frames: Sequence[bytes | bytearray], *, received_ms: int) -> Pushed:
        """Parse the text frames of one socket read, merge, publish and wake waiters once; the GIL is released.

        `received_ms` is the exchange time that had certainly not passed when they came. An event replaces what is known
        of its candle when it is newer: by its time against events, by trades and volume against responses. ``x: true``
        makes the row final; a final row of a response is never overwritten. Frames that cannot be read are reported,
        and the others count. Several threads parse at the same time. Raises NotMerged after `stop_merging`.
        """

    def last_event_seconds(self) -> dict[str, float]:
        """When the stream of each symbol brought its newest event: CLOCK_BOOTTIME, -inf for never."""

    def trading_ages(self) -> list[float]:
        """How old the data of each symbol that trades is, seconds; infinite before its first response, and while
        its newest candle is older than the machine's start.
        """

    def state(self, symbol: str, note: str | None = None) -> SeriesState:
        """Return the state of the series. Raises UnknownSymbol.

        With a `note`, JSON, that is recorded as by `note`, between what was merged before and what will be.
        """

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
        """Put the block, and those derived from it, back under their names where these were removed or taken.

        A new block with the same rows takes the name, and readers follow. Returns the name of each that was
        gone, with None where it is back, or the error: BlockInUse when another live collector has the name,
        BlockCorrupt and BlockUnavailable when something else has it or there is no room.
        """

    def set_calendar(self, symbol: str, low: int, high: int, quiet_until_ms: int) -> None:
        """Store what the calendar of a symbol says: two halves of 32 bits, as docs/segment-format.md has them.

        Until `quiet_until_ms` (exchange time) no newer candle of it need come, and responses without one are current.
        """

    def calendar(self, symbol: str) -> tuple[int, int]:
        """What the calendar of a symbol says, as (low, high); zeroes while it says nothing."""

    def set_trading(self, symbol: str, trading: bool, *, silent: bool = False) -> None:
        """Mark a symbol as trading (the default) or ended; `silent` is one that trades without new candles.

        Closes and panels wait for neither an ended nor a silent one. Only an ended one is `StaleData` at any age.
        """

    def set_health(
        self,
        *,
        ready: bool,
        weight_used: int,
        weight_limit: int,
        banned_until_ms: int | None,
        failing: int = 0,
        polled: int = 0,
        last_error: tuple[int, int] = ...,
    ) -> None:
        """Publish what readers see as `Feed.health`.

        `last_error` is the kind of the newest failure and when it was (epoch ms), as the format document lists them.
        """

    def restart_time(self, now_seconds: float) -> None:
        """Let whatever is merged from now on count as newer: the exchange's clock was set.

        `now_seconds` is local time; a response to a request that left before it is not merged any more.
        """

    def set_exchange_clock(self, measured_seconds: float, lower_ms: float, upper_ms: float, drift: float) -> None:
        """Let the events of a `StreamThread` be judged by this measurement of the exchange's clock.

        At local time `measured_seconds` it showed `lower_ms` at least and `upper_ms` at most; two clocks run apart by
        at most `drift` seconds per second. Before the first measurement no event is merged. Readers of the block are
        told the middle, see `Feed.exchange_ms`.
        """

    def stop_merging(self) -> None:
        """Let `ingest` and `ingest_events` raise NotMerged from now on; what is being merged is finished first."""

    def follow(self, shards: int, led: Collection[int]) -> None:
        """Say how the symbols are divided into shards, and which of these this process leads itself.

        Those refuse messages; the symbols of all others come by `apply`. Before the first call, and with 0 shards,
        nothing is applied. Raises ConfigError for a shard that there is not.
        """
    def apply(self, message: bytes, clock_offset_ns: int) -> Applied:
        """Apply a message of changes, an answer or a heartbeat: publish what it tells and wake waiters.

        `clock_offset_ns` is this machine's CLOCK_BOOTTIME minus the leader's, the lowest that it can be: ages of data
        come out too high rather than too low. Answers need none (0), and may come from anybody: they were made after
        their request. Whatever cannot be used is refused, see `Applied.refused`, and changes nothing.
        The GIL is released. NotMerged is not raised: `stop_merging` stops only what comes from the exchange.
        """
    def apply_answer(self, answer: bytes, requested_ns: int) -> Applied:
        """Apply an answer to a request that left at `requested_ns` of our CLOCK_BOOTTIME; else as `apply`."""
    def differences(self, heartbeat: bytes, limit: int = 8) -> list[bytes]:
        """Return requests for exactly what this block has otherwise than a heartbeat says, at most `limit`.

        None where all agrees, and where the heartbeat is not of the newest epoch or was not applied before. Series that
        were requested are left out until their answer was applied, or for 3 s: call it again with the same heartbeat
        after each answer, and with each new one. The GIL is released.
        """
    def set_source(self, epoch: int, source: str) -> None:
        """Publish where the candles come from in a cluster, for `Feed.health`: the leader's epoch and its host/pid.

        For a leader's own block; `apply` does it in those of followers. Epoch 0 stands for a collector that is alone in
        its cluster; with an empty source, for no cluster.
        """
    def heartbeat(self) -> None:
        """Publish a heartbeat; to be called every 500 ms."""

    @property
    def universe_ms(self) -> int | None:
        """Newest open time at which every trading symbol is closed, verified or a hole."""

    def close(self, *, unlink: bool = True) -> None:
        """Mark the block CLOSED, wake every waiter, release the lock and, with `unlink`, remove the name."""

@final
class View:
    """A window of final rows that lies in the block itself: nothing is copied.

    Arrays are float64, read-only, oldest row first; slots without a row (holes) are NaN. The writer may overwrite the
    oldest rows after 64 further closes, or revise a row: call `valid()` after computing, and discard the result where
    it returns False. An array keeps the block mapped as long as it lives. A view cannot be pickled or copied.

    >>> with btc.read(1440) as view:  # doctest: +SKIP
    ...     mean = view.close.mean()  # OverwrittenView at the end of the block, if a row changed meanwhile
    """

    @property
    def array(self) -> _FloatArray:
        """All columns: float64 (n, 12), columns as in `candleshm.OPEN_TIME_MS` ... `candleshm.IGNORE`."""
    @property
    def open_time_ms(self) -> _FloatArray:
        """Open times, epoch ms: float64 (n,)."""
    @property
    def open(self) -> _FloatArray:
        """Open prices: float64 (n,)."""
    @property
    def high(self) -> _FloatArray:
        """Highest prices: float64 (n,)."""
    @property
    def low(self) -> _FloatArray:
        """Lowest prices: float64 (n,)."""
    @property
    def close(self) -> _FloatArray:
        """Close prices: float64 (n,)."""
    @property
    def volume(self) -> _FloatArray:
        """Volumes, in the base asset (CM: contracts): float64 (n,)."""
    @property
    def close_time_ms(self) -> _FloatArray:
        """Close times, epoch ms, the last millisecond of each candle: float64 (n,)."""
    @property
    def quote_volume(self) -> _FloatArray:
        """Volumes, in the quote asset (CM: base asset): float64 (n,)."""
    @property
    def trades(self) -> _FloatArray:
        """Numbers of trades: float64 (n,)."""
    @property
    def taker_buy_volume(self) -> _FloatArray:
        """Volumes bought by takers, units as `volume`: float64 (n,)."""
    @property
    def taker_buy_quote_volume(self) -> _FloatArray:
        """Volumes bought by takers, units as `quote_volume`: float64 (n,)."""
    @property
    def ignore(self) -> _FloatArray:
        """The column that the exchange says to ignore, always 0: float64 (n,)."""
    @property
    def complete(self) -> bool:
        """Whether every slot of the window has a row."""

    def valid(self) -> bool:
        """Return whether no row was overwritten or revised so far. Call it after computing, not before."""

    def __len__(self) -> int: ...
    def __array__(self, *_arguments: object, **_options: object) -> NoReturn: ...
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

    @property
    def is_lockstep(self) -> bool:
        """Whether a replay stands still while the caller is at work."""

    def sleep(self, slept: News | None = None) -> None:
        """Sleep until the block announces something newer, one second at the longest.

        The caller looks again afterwards in any case: another block may have the name by now, or the collector may
        have died, and neither wakes anybody.

        In a replay it waits for a later moment. Raises ReplayEnded when this was taken at the end of a replay. A replay
        stands still from then on until this object is gone, or given to the next sleep as what was `slept` on before.
        """

@final
class KlineEvents:
    """What changed in the watched series of a feed, as events of kline streams in the exchange's wording.

    The newest candle is told whenever it changes, with ``"x":false``; each candle once more when it is final, with
    ``"x":true``: once and in order, also those that closed while nobody looked, as far back as the window reaches.
    While a candle is missing, later ones wait to be told as final. Holes are passed over, and corrections of final
    rows are not told. It follows the feed to another block without telling anything twice. Methods may be called
    from any thread.

    >>> events = KlineEvents(feed)  # doctest: +SKIP
    >>> events.watch("BTCUSDT", (2, 5, 7, 8))  # doctest: +SKIP
    >>> news = events.announced()  # doctest: +SKIP
    >>> for symbol, event in events.take(): print(event)  # doctest: +SKIP
    >>> news.sleep()  # doctest: +SKIP
    """

    def __new__(cls, feed: Feed) -> Self: ...
    def watch(self, symbol: str, decimals: _Decimals | None) -> None:
        """Tell of a symbol from now on, beginning with its newest candle; `decimals` as for `Series.klines_text`.

        Of a symbol that is watched already only the decimals are taken over. Raises UnknownSymbol, ConfigError.
        """
    def unwatch(self, symbol: str) -> None:
        """Tell of a symbol no more. Watched again, it begins anew."""
    def announced(self) -> News:
        """Return what the block has announced so far, to sleep on. Take it before `take`, and no change is missed."""
    def take(self) -> list[tuple[str, bytes]]:
        """Return the events since the last call as (symbol, JSON), those of older candles first.

        ``E`` is the exchange's clock now, or, where the collector has not measured it, when the row was received.
        ``f`` and ``L`` are -1: a block has no ids of trades. Raises BlockNotFound once the feed was closed.
        """
    def __len__(self) -> int: ...

@final
class KlinesText:
    """Rows of a series as the exchange's JSON, or what is incomplete of them."""

    @property
    def body(self) -> bytes:
        """The JSON array, rows ascending; empty bytes when anything is `incomplete`."""
    @property
    def rows(self) -> int:
        """Rows in it."""
    @property
    def last_open_ms(self) -> int | None:
        """Open time of the newest of them, epoch ms; None without rows."""
    @property
    def unsettled_open_ms(self) -> int | None:
        """Open time of the oldest of them that may still change, epoch ms; None when all are final."""
    @property
    def incomplete(self) -> Literal["missing", "before"] | None:
        """None: the answer is whole. 'missing': a row of it is not fetched yet. 'before': it needs rows older than the
        window, and the symbol's first candle is older or not known.
        """
    @property
    def incomplete_ms(self) -> int | None:
        """Open time of the row that is missing, or of the oldest one of the window; None while there is none."""

@final
class Series:
    """The candles of one symbol. Cheap to keep; follows its symbol when the block is replaced.

    Every method raises UnknownSymbol when the block that took the name no longer carries the symbol, and BlockNotFound
    once the feed was closed. Those that hand out data raise StaleData when the series was last confirmed longer ago
    than the feed's `max_age`, or when the symbol is delisted; `states`, `gaps`, `age`, `last_open_time_ms` and
    `revision` never do. A series is pickled, and copied, as its name: the copy attaches anew.

    >>> btc = candleshm.attach("candleshm-spot-1m")["BTCUSDT"]  # doctest: +SKIP
    >>> btc.candles(100, closed_only=True)[:, candleshm.CLOSE].mean()  # doctest: +SKIP
    """

    @property
    def symbol(self) -> str:
        """The name of the symbol, such as BTCUSDT."""
    def candles(
        self, n: int | None = None, *, closed_only: bool = False, holes: _Holes = "drop", out: _FloatArray | None = None
    ) -> _FloatArray:
        """Return a private, consistent copy of the newest rows: float64 (m, 12), oldest first.

        Args:
            n: Newest time slots, the live row included unless `closed_only`. None: LENGTH of the block.
            closed_only: Leave out rows that are not final, and end before the first of them.
            holes: Slots without a row are left out ("drop", so m <= n), kept as their grid open time and NaN ("nan"),
                or an error ("raise").
            out: Filled, and its first m rows returned: a writable, contiguous float64 array of shape (n, 12), in C or
                Fortran order. Without it the result is a new array in Fortran order.

        Raises:
            StaleData, UnknownSymbol: See the class.
            GapError: `holes="raise"` and a row is missing or a hole.
            ConfigError: `n`, `holes` or `out` cannot be used.
        """

    def states(
        self, n: int | None = None, *, closed_only: bool = False, holes: _Holes = "drop"
    ) -> npt.NDArray[np.uint8]:
        """Return the states of the rows that `candles` with the same arguments returns: uint8 (m,), see `RowState`.

        `candles` and then `states` are two readings, with time for a candle to close in between; `snapshot` is one.
        Never raises StaleData.
        """

    def snapshot(
        self, n: int | None = None, *, closed_only: bool = False, holes: _Holes = "drop"
    ) -> tuple[_FloatArray, npt.NDArray[np.uint8]]:
        """Return rows and their states of one moment: float64 (m, 12) and uint8 (m,), see `candleshm.RowState`.

        Arguments and errors are those of `candles`.

        >>> rows, states = btc.snapshot(100)  # doctest: +SKIP
        >>> final = rows[states != candleshm.RowState.LIVE]  # doctest: +SKIP
        """

    def klines_text(
        self,
        low_ms: int | None,
        high_ms: int | None,
        limit: int,
        *,
        newest: bool,
        decimals: _Decimals | None,
        derived: bool = False,
    ) -> KlinesText:
        """Return rows of a range of open times as the exchange's JSON, from one moment. Never raises StaleData.

        Holes that the exchange confirmed are left out. The newest row is there also while it may still change; whether
        it is as new as the present is for the caller to judge, by `age`.

        Args:
            low_ms: Earliest open time, epoch ms; None begins at the symbol's first candle.
            high_ms: Latest open time, epoch ms; None ends at the newest row.
            limit: Most rows, 1 or more.
            newest: Take the newest `limit` rows of the range, not the oldest.
            decimals: Digits behind the point of (prices, volumes, turnovers), and to how many all are padded with
                zeroes; 18 at most. A value with more digits keeps them. None: the shortest text of each number.
            derived: Whether the block is derived from another. The first candle that it knows may then be the first
                that could be derived, so the rows before it may exist.

        Raises:
            ConfigError: `limit` or `decimals` cannot be used.
        """

    @property
    def live(self) -> _FloatArray:
        """The newest row: float64 (12,), a copy. NaN while the series is empty. Raises StaleData."""

    @property
    def last_close(self) -> float:
        """Close of the newest row. NaN while the series is empty. Raises StaleData."""

    @property
    def age(self) -> float:
        """Seconds since the exchange last confirmed this series; infinite before the first response, and while its
        newest candle is older than the machine's start.
        """

    @property
    def last_open_time_ms(self) -> int | None:
        """Open time of the newest row, epoch ms, as the exchange sent it; None while the series is empty."""

    @property
    def revision(self) -> int:
        """How many times closed rows were corrected so far."""

    def gaps(self) -> list[Gap]:
        """Return the gaps of the readable window, oldest first: see `Gap`."""

    def view(self, n: int | None = None) -> View:
        """Return the newest `n` final slots in place, without a copy; fewer if fewer exist. None: LENGTH of the block.

        Raises StaleData, UnknownSymbol, ConfigError (`n`).
        """

    def read(self, n: int | None = None) -> View:
        """Return a view as `view` does, for ``with``: its end raises OverwrittenView when a row changed meanwhile."""

    def asof(self, moments_ms: MomentsLike) -> _FloatArray:
        """Return, for each moment, the newest candle that had closed by then: float64 (m, 12), NaN before the window.

        Nothing from the future gets in: a candle counts from its end on. `moments_ms` are whole epoch ms (int64 or a
        list), datetimes with a time zone, datetime64 in UTC, or a pandas DatetimeIndex; (m,), or one of them. Raises
        StaleData, UnknownSymbol, ConfigError (moments in another unit or of another type).
        """

    def to_pandas(self, n: int | None = None, *, closed_only: bool = False, holes: _Holes = "drop") -> Any:
        """Return what `candles` with the same arguments returns as a pandas DataFrame with a UTC DatetimeIndex.

        Raises MissingExtra, and what `candles` raises.
        """

    def to_polars(self, n: int | None = None, *, closed_only: bool = False, holes: _Holes = "drop") -> Any:
        """Return what `candles` with the same arguments returns as a polars DataFrame.

        Raises MissingExtra, and what `candles` raises.
        """

    def to_arrow(self, n: int | None = None, *, closed_only: bool = False, holes: _Holes = "drop") -> Any:
        """Return what `candles` with the same arguments returns as a pyarrow Table.

        Raises MissingExtra, and what `candles` raises.
        """

    def __array__(self, *_arguments: object, **_options: object) -> NoReturn: ...
    def _repr_html_(self) -> str: ...
    def _news(self, thread_id: int | None = None) -> News: ...
    def _end_of(self, open_time_ms: MomentLike | None) -> int: ...
    def _look_newer(self, end: int, waited: float | None = None) -> int | None: ...
    def wait(self, after_open_time_ms: MomentLike | None = None, timeout: float | None = None) -> int:
        """Sleep until a candle opens that is newer than `after_open_time_ms`, and return its open time, epoch ms.

        Args:
            after_open_time_ms: Epoch ms, or a datetime with a time zone; None means the newest candle now.
            timeout: Seconds; None waits for ever.

        Raises:
            WaitTimeout: No newer candle opened in time; `.missing` holds the symbol.
            StaleData: The collector published no heartbeat for `max_age`, or the symbol is delisted.
            ConfigError: A time that is not in milliseconds, or a timeout that is not a duration.
        """

@final
class Closed:
    """A candle that closed. Equal closes compare equal, also after pickling.

    >>> closed = feed.wait_closed()  # doctest: +SKIP
    >>> closed.open_time_ms, closed.symbols, closed.missing  # doctest: +SKIP
    (1700000040000, ('BTCUSDT', 'ETHUSDT'), ())
    """

    def __new__(cls, open_time_ms: int, symbols: tuple[str, ...], missing: tuple[str, ...]) -> Self: ...
    @property
    def open_time_ms(self) -> int:
        """Open time of the candle, epoch ms."""
    @property
    def symbols(self) -> tuple[str, ...]:
        """The awaited symbols that have it final: closed, verified or a hole."""
    @property
    def missing(self) -> tuple[str, ...]:
        """The awaited symbols that do not have it final; empty with a quorum of 1.0."""

@disjoint_base
class Feed:
    """One attached block: a read-only mapping from symbols to `Series`. `candleshm.attach` makes one.

    >>> feed = candleshm.attach("candleshm-spot-1m", max_age=60.0)  # doctest: +SKIP
    >>> "BTCUSDT" in feed, len(feed), feed["BTCUSDT"].last_close  # doctest: +SKIP
    """

    def __new__(cls, name: str, max_age: float | None = None) -> Self: ...
    @property
    def name(self) -> str:
        """The name of the block."""
    @property
    def max_age(self) -> float | None:
        """The age limit of data that is handed out, seconds, as given to `attach`; None without one."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that the block carries, in its order."""
    @property
    def exchange(self) -> str:
        """Whose candles these are: "binance", or host and port of another exchange; empty where it is not known."""

    @property
    def market(self) -> Literal["SPOT", "UM", "CM"]:
        """'SPOT', 'UM' (USDT futures) or 'CM' (coin futures)."""
    @property
    def price(self) -> Literal["trade", "mark", "index", "premium"]:
        """What the prices are: 'trade', 'mark', 'index' or 'premium'."""
    @property
    def interval(self) -> str:
        """The length of a candle, such as 1m."""
    @property
    def length(self) -> int:
        """Candles of a full window, the live one included."""

    def __len__(self) -> int: ...
    def __contains__(self, symbol: object, /) -> bool: ...
    def __getitem__(self, symbol: str, /) -> Series: ...
    def __iter__(self) -> Iterator[str]: ...
    def __array__(self, *_arguments: object, **_options: object) -> NoReturn: ...
    def close(self) -> None:
        """End the use of the feed. Arrays and views already handed out stay readable: each keeps the block mapped."""

    def wait_closed(
        self,
        open_time_ms: MomentLike | None = None,
        *,
        symbols: Sequence[str] | None = None,
        quorum: float = 1.0,
        timeout: float | None = None,
    ) -> Closed:
        """Sleep until a candle is final for enough of the symbols, and return it. A hole counts as closed.

        In a loop use `closes()`: it leaves no close out, however long the work takes.

        Args:
            open_time_ms: Which candle: epoch ms, or a datetime with a time zone; None means the next one to close.
            symbols: None means all that trade and have candles. Delisted symbols are not awaited.
            quorum: The part of the symbols that is enough, above 0, at most 1.
            timeout: Seconds; None waits for ever.

        Raises:
            WaitTimeout: With `.missing`, the symbols that do not have the candle final.
            StaleData: The collector published no heartbeat for `max_age`.
            UnknownSymbol: The block does not carry a symbol.
            ConfigError: `quorum` or `timeout` cannot be used, or the 3d candles of the symbols open on different days.
        """

    def last(self, field: str, *, symbols: Sequence[str] | None = None, out: _FloatArray | None = None) -> _FloatArray:
        """Return the newest value of a field for each symbol: float64 (S,), NaN where there is none.

        Args:
            field: A column, such as "close".
            symbols: The order of the result; None means all that the block carries.
            out: Filled and returned: a writable, contiguous float64 array of shape (S,).

        Raises:
            StaleData, UnknownSymbol: As `Series.candles`; with None only symbols that trade can be stale.
            ConfigError: `field` or `out` cannot be used.
        """

    def _health(self, max_age: float | None = None) -> dict[str, Any]: ...
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
    def step(self, timeout: float | None = None) -> int:
        """Sleep until something newer is published, of any kind, and return what time it is then, epoch ms.

        That is the replayed time in a replay; else the exchange's clock, or this machine's where the collector has not
        measured it. What was published since the last step counts: then it returns at once. In a replay in lockstep
        each call goes to the next moment.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            WaitTimeout: Nothing was published.
            ReplayEnded: The replay has no later moment.
            StaleData: The collector published no heartbeat for `max_age`.
            ConfigError: `timeout` cannot be used.
        """

    def exchange_ms(self) -> int | None:
        """Return the exchange's clock now, epoch ms, as the collector measured it; None when it never did.

        It is right to half a round trip, and to what clocks drift apart in the minutes since. In a replay it is the
        replayed time.
        """
    def _calendars(self) -> list[tuple[str, int, int]]: ...
    def _news(self, thread_id: int | None = None) -> News: ...
    def _look_closed(
        self, open_time_ms: int | None, symbols: Sequence[str] | None, quorum: float, waited: float | None = None
    ) -> tuple[Closed, int, int] | None: ...
    def _next_close_ms(self, symbols: Sequence[str] | None, quorum: float) -> int | None: ...
    def _wait_closed_from(
        self, open_time_ms: int | None, symbols: Sequence[str] | None, quorum: float
    ) -> tuple[Closed | None, int, int]: ...
    def _listed_ms(self, open_time_ms: int, symbols: Sequence[str] | None) -> int: ...
    def _later_open_ms(self, open_time_ms: int, places: int, symbols: Sequence[str] | None) -> int: ...
    def _closed_since(self, open_time_ms: int, symbols: Sequence[str] | None, quorum: float) -> int: ...

def block_names() -> list[str]:
    """Return the names of all shared memory that may be blocks."""

def check_moment(moment_ms: float) -> None:
    """Raise ConfigError for a moment that is evidently in seconds, microseconds or nanoseconds."""

def check_timeout(timeout: float | None) -> None:
    """Raise ConfigError for a timeout that is no duration."""

def parse_archive_csv(file: bytes, price: str = "trade") -> tuple[_FloatArray, int]:
    """Parse a file of the exchange's archive, times in ms: its rows as they stand there, and how many cannot be true.

    With or without the header, in milliseconds or microseconds. As for `parse_klines` otherwise.
    """

def read_daily(file: bytes) -> tuple[bytes, _FloatArray] | None:
    """Return what is known about the rows of a daily file, JSON as it was written, and the rows: float64 (n, 12).

    Every check has passed then: of each page, and of all values with what is known about them. None is no verdict: the
    file is damaged, or of a form in which candleshm writes none, which a general reader of Parquet finds out.
    """

def frame_text(event: bytes, stream_name: str | None) -> bytes:
    """Return an event as a server's whole websocket frame; with `stream_name` in the wrapper of combined streams."""

def klines_text(rows: _FloatArray, decimals: _Decimals | None) -> bytes:
    """Return rows, float64 (n, 12), as the exchange's JSON array; `decimals` as for `Series.klines_text`.

    Raises ConfigError for another shape, for a value that is not finite, and for `decimals` that cannot be used.
    """

def parse_klines(body: bytes, price: str = "trade") -> tuple[_FloatArray, int]:
    """Parse a klines body: its rows as they stand there, float64 (n, 12), and how many rows cannot be true.

    Those are left out: non-finite, high < low, negative volume, negative prices unless `price` is premium. Raises
    BadResponse (with `.offset`).
    """

def derivation_parts(source: str, target: str) -> int:
    """Return how many candles of one interval the longest of another is made of. Raises ConfigError when it is not."""

def derive(
    rows: _FloatArray,
    source: str,
    target: str,
    start_ms: int | None,
    end_ms: int | None,
    anchor_ms: int | None,
    price: str = "trade",
) -> _FloatArray:
    """Return the rows of `candleshm.derive`, flat. Rows are C-ordered (n, 12)."""

def ended_ms() -> int:
    """Return a moment that is over by the exchange's clock, as far as final candles read here tell."""

def is_owned(name: str) -> bool:
    """Return whether a process owns the block that has this name now. Raises `BlockNotFound`, `BlockUnavailable`."""

def block_bytes(length: int, symbol_capacity: int) -> int:
    """Return the size of a block in bytes. Raises ConfigError for sizes that no block can have."""

def share_with(group: int | None) -> None:
    """Share the blocks of this process with the group of that number, None for nobody.

    Blocks made from here on have mode 0640 and that group; those of other users that have both are believed.
    """

def unlink(name: str) -> None:
    """Remove a block that no collector serves."""

@final
class PoolWords:
    """The words of a weight pool. Every method that changes them is one transaction: it changes the copy that does not
    count, and one store of one word makes that copy the one that counts. No method waits: while another process holds
    the lock, or if the owner `token` does not stand at `place`, it changes nothing and returns None or False.

    `header` is u64, `copies` are two of `WORDS` u64, all zero for a new pool, and `lock_path` names the file that
    other processes lock as well. Raises ValueError, OSError.
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
    ) -> Self: ...
    def claim(
        self, place: int, token: int, weight: float, now: float, closing: bool, urgent: bool, loading: bool
    ) -> float | None:
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
        """Return one of the words that count. Raises ValueError."""

    def changed_by(self) -> int:
        """Return the id of the process that changed the words last."""

    def used(self, now: float) -> float:
        """Return the weight that counts at a moment. Takes no lock."""

    def delay(self, weight: float, now: float, closing: bool) -> float:
        """Return how many seconds a request would have to wait. Takes no lock."""

    def is_burst_spent(self, now: float) -> bool:
        """Return whether what loads has had its burst, which still counts. Takes no lock."""

    def are_plausible(self) -> bool:
        """Return whether the words that count can be those of a pool."""

    def assume(self, other: PoolWords) -> None:
        """Copy what counts from other words into these, which no other process may use yet."""

def shard_of(symbol: str, shards: int) -> int:
    """Return the shard of a symbol, from 0 to `shards` - 1. Raises ConfigError for 0 shards."""

def message_feed(heartbeat: bytes) -> FeedShape:
    """Return what the block of a heartbeat's sender is. Raises ConfigError for what is no heartbeat of this version."""

def message_head(message: bytes) -> dict[str, Any]:
    """Return what a message begins with, as a dict: kind, shard, shards, epoch, sequence, sent_boot_ns, is_last.

    `kind` is 'changes', 'heartbeat', 'request' or 'answer'. Raises ConfigError for bytes that are no message of this
    version.
    """

@final
class Outlet:
    """Where a thread writes to the socket of an event loop without waiting for it. Any thread may call any method.

    What each of the two writes comes out whole and in its order: the loop claims the socket before it writes, and
    releases it once the system took everything.
    """
    def __new__(cls, descriptor: int) -> Self: ...
    def send(self, data: bytes) -> bool:
        """Send without waiting; return False where the loop has to, and nothing was sent.

        What the system took only in part, the loop has to write: see `has_rest`.
        """
    @property
    def has_rest(self) -> bool:
        """Whether the loop has to write the rest of something."""
    def claim(self) -> bytes:
        """Claim the socket for the loop, and return what it has to write first."""
    def release(self) -> None:
        """Give the socket free: the system took all that the loop had to write."""
    def close(self) -> None:
        """Send nothing more past the loop."""

@final
class Shadow:
    """What followers of a block were told, and what has changed since.

    A reader of the block: it follows a replaced one. For one thread at a time, but for `rouse` and `answer`. Messages
    are bytes; who carries them is up to the caller.
    """
    def __new__(cls, name: str, shards: int = 1, source: str = "") -> Self: ...
    @property
    def name(self) -> str:
        """The name of the block."""
    @property
    def led(self) -> list[int]:
        """The shards that are told of, ascending."""
    def lead(self, shard: int, epoch: int) -> None:
        """Tell of a shard from now on, under that epoch, with messages counted from 1.

        What its symbols hold now counts as told: followers find by the first heartbeat what they lack. Raises
        ConfigError for a shard that there is not.
        """
    def leave(self, shard: int) -> None:
        """Tell nothing more of a shard."""
    def wait(self, timeout: float) -> bool:
        """Sleep until the block has announced something since the last `collect`, `timeout` seconds at the longest.

        Returns whether it has, or is done (superseded or closed); False after the timeout, and after `rouse`. Raises
        ConfigError for a timeout that is no duration.
        """
    def tell(
        self, outlet: Outlet, led: list[tuple[int, str, int]], seconds: float, gather_seconds: float
    ) -> list[tuple[int, bytes]]:
        """Publish what changes, past Python, for `seconds` at the longest; [] then, and after `rouse`.

        `led` has the subject of each shard, and until when its lease holds, ns of CLOCK_BOOTTIME: nothing is sent of a
        shard whose lease is over. After each look at the block, what changes within `gather_seconds` is told together.
        Messages that `outlet` cannot send without the loop are returned as by `collect`, for the caller to send. Raises
        ConfigError for seconds that are no duration, BlockNotFound once the feed is closed.
        """
    def rouse(self) -> None:
        """End a `wait` or `tell` from another thread: the one that is under way, else the next."""
    def collect(self) -> list[tuple[int, bytes]]:
        """Return messages with what changed since the last call, as (shard, bytes), in order; [] when nothing did.

        Raises BlockNotFound once the feed is closed.
        """
    def heartbeat(self) -> list[tuple[int, bytes]]:
        """Return messages with where every series stands, as (shard, bytes), for each shard that is told of.

        They are about what `collect` returned so far: call that first.
        """
    def answer(self, request: bytes) -> list[bytes]:
        """Return messages with the rows that a request wants, from the block as it is. Any thread may call it.

        None for a request that cannot be read, is about other candles, or comes from a follower of a newer leader. Of
        shards that are not told of here it returns what the block has as well: whoever follows them completely may.
        """
    @property
    def counts(self) -> dict[str, int]:
        """What was sent so far: `messages`, `rows` (of the ring) and `bytes`."""

@final
class Applied:
    """What a message did to the block of a follower."""
    @property
    def shard(self) -> int:
        """The shard that it was about."""
    @property
    def shards(self) -> int:
        """How many shards its sender knows."""
    @property
    def epoch(self) -> int:
        """The leader's epoch."""
    @property
    def sequence(self) -> int:
        """Its number in the epoch; of an answer or a heartbeat, that of the newest message of changes before it."""
    @property
    def kind(self) -> Literal["changes", "answer", "heartbeat", "refused"]:
        """'changes', 'answer' or 'heartbeat'; 'refused' when nothing of it was applied."""
    @property
    def refused(self) -> Literal["epoch", "feed", "damaged", "version", "led", "shards"] | None:
        """Why nothing was applied, or None: 'epoch' (a newer leader was seen), 'feed' (other candles), 'damaged',
        'version' (another major version), 'led' (this process leads the shard), 'shards' (another number of them).
        """
    @property
    def gap(self) -> int:
        """How many messages of changes before it did not come."""
    @property
    def rows(self) -> int:
        """Rows that were new or had other values."""
    @property
    def closed(self) -> int:
        """Of these, rows that became final."""
    @property
    def symbols_missing(self) -> list[str]:
        """Symbols that it tells of and the block does not carry."""
    @property
    def sent_boot_ns(self) -> int:
        """When it was sent: the sender's CLOCK_BOOTTIME, ns."""

@final
class FeedShape:
    """What the block of a heartbeat's sender is: what it takes to open one for its rows."""
    @property
    def market(self) -> Literal["SPOT", "UM", "CM"]:
        """'SPOT', 'UM' or 'CM'."""
    @property
    def price(self) -> Literal["trade", "mark", "index", "premium"]:
        """What the prices are: 'trade', 'mark', 'index' or 'premium'."""
    @property
    def interval(self) -> str:
        """The length of a candle, such as 1m or 1d@Asia/Shanghai."""
    @property
    def length(self) -> int:
        """Candles of a full window, the live one included."""
    @property
    def symbols(self) -> list[str]:
        """The symbols of the heartbeat's shard, in the order of the sender's block."""
    @property
    def symbol_count(self) -> int:
        """How many symbols the sender's block carries, of all shards."""
    @property
    def symbol_capacity(self) -> int:
        """How many it has room for."""
    @property
    def exchange(self) -> str:
        """Whose candles they are: 'binance', or host and port of another exchange; '' where that is not known."""
    @property
    def shard(self) -> int:
        """The shard of the heartbeat."""
    @property
    def shards(self) -> int:
        """How many shards there are."""
    @property
    def epoch(self) -> int:
        """The leader's epoch."""

def freshness(ages: Sequence[float], max_age: float | None) -> tuple[int, float, bool]:
    """Return the fields of `candleshm.reader.freshness.Freshness` from ages in seconds."""

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
    """Return whether `name` can be a symbol's: 1 to 64 bytes of UTF-8, nothing that cannot be seen, no slash."""

def is_block_name(name: object) -> bool:
    """Return whether `name` can name a block: no slash, no leading dot, nothing that a shell or a log would split."""

@final
class Zone:
    """The days of a time zone; `name` is an IANA name in any case. Days are counted from 1970-01-01.

    The rules are those of `ZONES_VERSION`, for files and blocks alike; what the machine has installed does not count.
    Raises ConfigError for a name that the database does not have.
    """

    def __new__(cls, name: object) -> Self: ...
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
