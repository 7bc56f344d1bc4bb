"""The thread that watches all blocks for all open pages, and tells each page what changed."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from candleshm import _core
from candleshm.errors import BlockError, UnknownSymbol
from candleshm.gateway.page.viewer import Viewer, frames_of
from candleshm.gateway.page.watched_block import WatchedBlock, absent_row, is_gone
from candleshm.gateway.page.watched_series import WatchedSeries
from candleshm.reader.events import Event
from candleshm.reader.freshness import STALE_SECONDS

__all__ = ["Watch"]

logger = logging.getLogger(__name__)

# How often prices are read: while a page is open, and otherwise.
STEP_SECONDS, IDLE_SECONDS = 0.2, 1.0
# So many steps make a round: blocks are listed, and every series is read, once in it.
ROUND_STEPS = 5
# Healths are told every so many steps, and at once when a condition changes. The page takes silence for a lost gateway.
HEALTH_STEPS = 2
EVENTS_KEPT = 200
# A block that its collector removed in order is shown for so long.
CLOSED_SECONDS = 600.0

_text = msgspec.json.Encoder().encode


class Watch:
    """All blocks, or those that are named; `with` starts the thread. Methods may be called from any thread."""

    def __init__(self, names: Sequence[str] | None = None, why_left_out: Callable[[str], str] = lambda _: "") -> None:
        """`names` None means all blocks of this machine; blocks that are named may appear later.

        `why_left_out` says of the name of a block why the gateway answers nothing from it, or nothing.
        """
        self._why_left_out = why_left_out
        self._names = None if names is None else frozenset(names)
        self._blocks: dict[str, WatchedBlock] = {}
        self._left: dict[str, float] = {}  # when a block was first seen without its name
        self._conditions: dict[str, str] = {}
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self._event_number = 0
        self._viewers: set[Viewer] = set()
        self._step = 0
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gateway-page", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and the use of all blocks."""
        self._stopping = True
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            while self._blocks:
                self._blocks.popitem()[1].close()

    def join(self, viewer: Viewer) -> None:
        """Tell a viewer everything, and from now on what changes."""
        with self._lock:
            if not self._blocks:
                self._advance(is_round=True)
            hello = {"k": "hello", "now": _now_ms(), "max_age": STALE_SECONDS, "events": list(self._events)}
            tables = [block.table() for block in self._blocks.values() if block.is_base]
            viewer.put(frames_of(_text(hello), self._blocks_text(), *map(_text, tables)))
            self._viewers.add(viewer)
        self._wanted.set()

    def leave(self, viewer: Viewer) -> None:
        """Tell a viewer nothing any more."""
        with self._lock:
            self._viewers.discard(viewer)

    def draw(self, viewer: Viewer, block_name: str, symbol: str) -> None:
        """Tell a viewer all candles of a series, and from now on what changes in it instead of the one before."""
        with self._lock:
            viewer.series = None
            block = self._blocks.get(block_name)
            try:
                if block is None:
                    raise UnknownSymbol(f"the gateway does not have the block `{block_name}`")
                series = WatchedSeries(block_name, block.feed.interval, block.feed[symbol])
                viewer.put(frames_of(_text(series.all())))
                viewer.series = series
            except (BlockError, UnknownSymbol) as error:
                refusal = {"k": "refused", "block": block_name, "symbol": symbol, "text": str(error)}
                viewer.put(frames_of(_text(refusal)))

    def _run(self) -> None:
        while not self._stopping:
            began_seconds = time.monotonic()
            try:
                with self._lock:
                    self._step += 1
                    self._advance(is_round=self._step % ROUND_STEPS == 0)
                    pause_seconds = STEP_SECONDS if self._viewers else IDLE_SECONDS
            except Exception:
                logger.exception("the page's look at the blocks failed; it is repeated")
                pause_seconds = IDLE_SECONDS
            # On a machine that is busy the rest of it gets at least as much time as the page.
            spent_seconds = time.monotonic() - began_seconds
            self._wanted.wait(max(pause_seconds - spent_seconds, spent_seconds))
            self._wanted.clear()

    def _advance(self, *, is_round: bool) -> None:
        """Do one step, and tell the viewers."""
        texts: list[bytes] = []
        if is_round:
            self._list_blocks()
        for name in [name for name, block in self._blocks.items() if is_gone(block)]:
            self._drop(name)
        conditions = {name: block.health.condition for name, block in self._blocks.items()}
        now_ms = _now_ms()
        for block in [block for block in self._blocks.values() if block.is_base]:
            try:
                message = block.advance(now_ms, ROUND_STEPS)
                if message is not None:
                    texts.append(_text(message))
                if is_round or conditions[block.name] != self._conditions.get(block.name):
                    texts += [self._happened(block.name, event) for event in block.events()]
            except BlockError:
                continue  # It is gone, and dropped by the next step.
        if self._step % HEALTH_STEPS == 0 or conditions != self._conditions:
            self._conditions = conditions
            texts.append(self._blocks_text())
        frames = frames_of(*texts)
        for viewer in self._viewers:
            viewer.put(frames + self._candles(viewer))

    def _candles(self, viewer: Viewer) -> bytes:
        if viewer.series is None:
            return b""
        try:
            message = viewer.series.changes()
        except (BlockError, UnknownSymbol):
            viewer.series = None  # The page sees the block's state, and draws what is there once it is there again.
            return b""
        return b"" if message is None else frames_of(_text(message))

    def _list_blocks(self) -> None:
        """Attach to new blocks, and leave those whose collector ended a while ago."""
        names = {name for name in _core.block_names() if self._names is None or name in self._names}
        now_seconds = time.monotonic()
        for name in sorted(names - self._blocks.keys()):
            try:
                block = WatchedBlock(name)
            except BlockError:
                continue  # Memory of another program, or a block that is being made.
            self._blocks[name] = block
        for name in list(self._blocks):
            if name in names:
                self._left.pop(name, None)
            elif now_seconds - self._left.setdefault(name, now_seconds) > CLOSED_SECONDS:
                self._drop(name)
        for block in self._blocks.values():
            parents = [other for other in self._blocks.values() if other.is_parent_of(block)]
            block.parent = min(parents, key=lambda other: other.interval_ms).name if parents else None

    def _drop(self, name: str) -> None:
        self._blocks.pop(name).close()
        self._left.pop(name, None)

    def _happened(self, block: str, event: Event) -> bytes:
        """Keep an event; a routine one replaces the one before it of its block, if that was routine as well."""
        last = next((known for known in reversed(self._events) if known["block"] == block), None)
        replaced = last if last is not None and last["routine"] and event.is_routine else None
        if replaced is not None:
            self._events.remove(replaced)
        self._event_number += 1
        told = {
            "number": self._event_number,
            "at": _now_ms(),
            "block": block,
            "text": event.text,
            "bad": event.is_bad,
            "routine": event.is_routine,
        }
        self._events.append(told)
        return _text({"k": "event", "replaced": None if replaced is None else replaced["number"], **told})

    def _blocks_text(self) -> bytes:
        rows = [block.as_row(self._why_left_out(block.name)) for block in self._blocks.values()]
        rows += [absent_row(name) for name in sorted((self._names or frozenset()) - self._blocks.keys())]
        return _text({"k": "blocks", "now": _now_ms(), "blocks": rows})


def _now_ms() -> int:
    return math.floor(time.time() * 1000)
