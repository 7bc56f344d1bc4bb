"""`replay_recording`: what the exchange sent, once more through the parser, the merge, the planner and the writer."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from candleshm._core import RecordingPlayer
from candleshm.collector.replayed_plans import ReplayedPlans
from candleshm.errors import ConfigError
from candleshm.reader.feed import Feed, attach

__all__ = ["RecordedRun", "RecordingReport", "replay_recording"]

BATCH_RECORDS = 2000
HEARTBEAT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class RecordingReport:
    """What was replayed of a recording, and how it ended."""

    directory: Path
    blocks: tuple[str, ...]
    """Names of the blocks, while they are there: the one that was recorded, then those derived from it."""
    from_ms: int | None
    """When the first record was made, epoch ms; None without any."""
    until_ms: int | None
    """When the newest record was made, epoch ms; None without any."""
    seconds: float
    """How long the replay took."""
    runs: int
    """Starts of the collector."""
    ended: bool
    """Whether the newest run ended in order: else the collector was killed, or still runs."""
    records: Mapping[str, int] = field(default_factory=dict)
    """Records by kind."""
    left_out: int = 0
    """Records about series before their first checkpoint, where the beginning of a recording is gone."""
    differing: int = 0
    """Records that did something else here than where they were recorded."""
    difference: str | None = None
    """The first of them."""
    missing: int = 0
    """Records that were dropped while it was recorded, because the disk was too slow or full."""
    cuts: tuple[tuple[Path, int, str], ...] = ()
    """Files that end before their end: path, records read from it, reason."""
    requests: Mapping[str, int] = field(default_factory=dict)
    """Requests that were sent for candles of the block, by kind; those before the first policy are left out."""
    unasked: int = 0
    """Of these, the ones that the planner does not ask for."""
    first_unasked: str | None = None
    """The first of them: when (UTC), what was requested, and what the planner asks for instead."""
    strayed: int = 0
    """Of the requests, those whose plan came out otherwise here: something else was learned from the same responses."""
    first_strayed: str | None = None
    """The first of them: when (UTC), of which series, and what differs."""

    @property
    def is_whole(self) -> bool:
        """Whether everything was there and did here what it did there."""
        differences = self.differing or self.unasked or self.strayed
        return not (self.cuts or self.missing or self.left_out or differences) and self.ended


class RecordedRun:
    """A recording that was replayed into a block, see `replay_recording`; a context manager that removes the block."""

    def __init__(self, player: RecordingPlayer, report: RecordingReport) -> None:
        self.report = report
        """What was replayed."""
        self._player = player
        self._ending = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="candleshm-recorded", daemon=True)
        self._heart.start()
        self.feed: Feed = attach(report.blocks[0])
        """The block as the recording left it, attached."""
        self.derived = {
            interval: attach(name)
            for (_, interval), name in zip((player.run or {})["derived"], report.blocks[1:], strict=True)
        }
        """The derived blocks, attached, by their intervals."""

    def close(self) -> None:
        """Remove the blocks; may be called twice."""
        self._ending.set()
        self._heart.join()
        for feed in (self.feed, *self.derived.values()):
            feed.close()
        self._player.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _beat(self) -> None:
        while not self._ending.wait(HEARTBEAT_SECONDS):
            self._player.heartbeat()


def replay_recording(
    directory: str | os.PathLike[str],
    *,
    name: str | None = None,
    progress: Callable[[int, int | None], object] | None = None,
) -> RecordedRun:
    """Replay what `serve --record` wrote, into a block as it was when the recording ended; a context manager.

    >>> with candleshm.replay_recording("recorded/candleshm-spot-1m") as run:  # doctest: +SKIP
    ...     print(run.report.is_whole, run.feed["BTCUSDT"].gaps())

    Args:
        directory: That of one block, or the one given to `--record` when that holds one block only.
        name: The name of the block; None for one that nobody else uses.
        progress: Called now and then with the number of records and the time, epoch ms, at which the newest was made.

    Raises:
        ConfigError: There is no recording, or several blocks were recorded there.
        BlockInUse, BlockUnavailable: The block cannot be taken.
    """
    path = _one_block(Path(directory))
    began_seconds = time.monotonic()
    try:
        player = RecordingPlayer(path, name or f"recording-{os.getpid()}-{secrets.token_hex(4)}")
    except OSError as error:
        raise ConfigError(f"{path} cannot be replayed: {error}") from None
    try:
        plans = _play(player, progress)
        played = player.played
        if not player.blocks:
            raise ConfigError(f"{path} cannot be replayed: {_reason(player)}")
        report = RecordingReport(
            directory=path,
            blocks=tuple(player.blocks),
            seconds=time.monotonic() - began_seconds,
            cuts=tuple(player.cuts),
            requests=dict(plans.requests),
            unasked=plans.unasked,
            first_unasked=plans.first_unasked,
            strayed=plans.strayed,
            first_strayed=plans.first_strayed,
            **played,
        )
        return RecordedRun(player, report)
    except BaseException:
        player.close()
        raise


def _play(player: RecordingPlayer, progress: Callable[[int, int | None], object] | None) -> ReplayedPlans:
    plans, is_more, batch_seconds = ReplayedPlans(player), True, 0.0
    while is_more:
        is_more, note = player.play(BATCH_RECORDS)
        # A note that another version wrote is no fault of the recording.
        with suppress(msgspec.DecodeError, TypeError, KeyError, ValueError, AttributeError):
            if note is not None:
                plans.take(note, player.run or {})
        if progress is not None and time.monotonic() - batch_seconds > HEARTBEAT_SECONDS:
            batch_seconds = time.monotonic()
            player.heartbeat()
            played = player.played
            progress(sum(played["records"].values()), played["until_ms"])
    return plans


def _reason(player: RecordingPlayer) -> str:
    path, _, reason = player.cuts[0] if player.cuts else (Path(), 0, "it holds no record")
    return f"{path.name}: {reason}" if path.name else reason


def _one_block(directory: Path) -> Path:
    """Return the directory of the one block that is recorded in `directory`, or is `directory` itself."""
    if not directory.is_dir():
        what = "it is no directory" if directory.exists() else "there is no such directory"
        raise ConfigError(f"the recording cannot be `{directory}`: {what}; `candleshm serve --record DIR` fills one")
    if any(directory.glob("*.cshmrec")):
        return directory
    found = sorted({file.parent for file in directory.glob("*/*.cshmrec")})
    if not found:
        raise ConfigError(f"{directory} holds no recording; `candleshm serve --record DIR` writes one")
    if len(found) > 1:
        names = " ".join(path.name for path in found)
        raise ConfigError(f"{directory} holds the recordings of {len(found)} blocks; give one of its: {names}")
    return found[0]
