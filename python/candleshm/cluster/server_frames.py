"""What a server of NATS sends, cut into messages: bytes in, messages out. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from candleshm.cluster.message import TakeAhead

__all__ = ["Frame", "ServerFrames"]

CAPACITY_BYTES = 1 << 20
# A line of more bytes is none of a server.
LINE_BYTES_MAX = 1 << 20
# Where more has come, it takes longer than the loop should wait.
AHEAD_BYTES_MAX = 64 << 10
_END = b"\r\n"


class Frame(NamedTuple):
    """A message, as the server sends it."""

    subscription: int
    """The number of the subscription that it is for."""
    subject: bytes
    reply: bytes
    headers: bytes
    payload: bytes


class ServerFrames:
    """Cuts bytes into messages, for those subscriptions that are wanted. Everything else is passed on as it came.

    Bytes are received into `room`, then `take` says how many they were. A message is one whole run of bytes to whoever
    gets the rest, so the two never share one.
    """

    def __init__(
        self,
        *,
        is_wanted: Callable[[int], bool],
        take_ahead: TakeAhead,
        receive: Callable[[Frame], None],
        rest: Callable[[bytes], None],
    ) -> None:
        """`is_wanted` is asked for each message with the number of its subscription; `rest` gets what else comes.

        `take_ahead` is asked for those that are wanted, with what follows; `receive` gets what it does not take.
        """
        self._is_wanted = is_wanted
        self._take_ahead = take_ahead
        self._receive = receive
        self._rest = rest
        self._buffer = bytearray(CAPACITY_BYTES)
        # What is not cut yet.
        self._start = self._end = 0
        self._needed = 0

    def room(self) -> memoryview:
        """Return where the next bytes go."""
        kept = self._end - self._start
        if self._start and len(self._buffer) - self._end < max(self._needed - kept, CAPACITY_BYTES // 4):
            self._move(self._buffer)
        if len(self._buffer) - self._end < max(self._needed - kept, 1):
            self._move(bytearray(max(self._needed, 2 * kept)))
        return memoryview(self._buffer)[self._end :]

    def feed(self, data: bytes) -> None:
        """Take in bytes that were received elsewhere."""
        while data:
            room = self.room()
            count = min(len(room), len(data))
            room[:count] = data[:count]
            data = data[count:]
            self.take(count)

    def take(self, count: int) -> None:
        """Take in so many bytes, which were received into `room`, and hand on every message that is whole."""
        self._end += count
        self._needed = 0
        while self._start < self._end and (size := self._size_of_first()):
            self._start += size
        if self._start == self._end:
            self._start = self._end = 0

    def _size_of_first(self) -> int:
        """Hand on the first message or line; return its size, 0 where it is not whole."""
        buffer, start = self._buffer, self._start
        line_end = buffer.find(_END, start, self._end) + len(_END)
        if line_end < len(_END):
            if self._end - start < LINE_BYTES_MAX:
                return 0
            line_end = self._end
        words = bytes(buffer[start:line_end]).split()
        is_message = bool(words) and words[0] in (b"MSG", b"HMSG") and len(words) >= 4 and words[-1].isdigit()
        if not is_message or not words[2].isdigit():
            self._rest(bytes(memoryview(buffer)[start:line_end]))
            return line_end - start
        end = line_end + int(words[-1]) + len(_END)
        if end > self._end:
            self._needed = end - start
            return 0
        subscription = int(words[2])
        if not self._is_wanted(subscription):
            self._rest(bytes(memoryview(buffer)[start:end]))
            return end - start
        if used := self._take_ahead(
            subscription, bytes(memoryview(buffer)[start : min(self._end, start + AHEAD_BYTES_MAX)])
        ):
            return used
        has_headers = words[0] == b"HMSG"
        behind_headers = line_end + (int(words[-2]) if has_headers else 0)
        self._receive(
            Frame(
                subscription,
                words[1],
                words[3] if len(words) == 5 + has_headers else b"",
                bytes(buffer[line_end:behind_headers]),
                bytes(memoryview(buffer)[behind_headers : end - len(_END)]),
            )
        )
        return end - start

    def _move(self, target: bytearray) -> None:
        """Move what is not cut yet to the beginning of a buffer."""
        kept = self._buffer[self._start : self._end]
        target[: len(kept)] = kept
        self._buffer, self._start, self._end = target, 0, len(kept)
