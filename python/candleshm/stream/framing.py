"""Whole text frames, cut out of what one read of a socket brought.

Nearly all of the traffic consists of whole texts of 126 to 65535 bytes. They are cut out here, which takes a twentieth
of the time of the library. Every other frame goes to the library.
"""

from __future__ import annotations

__all__ = ["CONTROL_BYTES_MAX", "FRAME_BYTES_MAX", "PING", "FrameBuffer", "cut"]

# A kline is about 400 bytes. What is longer than this is not one, and not worth the memory.
FRAME_BYTES_MAX = 1 << 20
READ_BYTES = 1 << 17
# Whole, text.
PLAIN_TEXT = 0x81
PING, CONTROL_BYTES_MAX = 0x89, 125


def cut(data: bytes, frames: list[bytes]) -> tuple[list[bytes], bytes]:
    """Append the plain texts of `data` to `frames`; return the frames of other kinds, whole, and the incomplete rest.

    A frame begins with a byte for its kind and one for its length, 126 and 127 meaning that it follows in two or eight
    bytes (RFC 6455, section 5.2). Frames of servers are not masked; one that is goes to the library, which refuses it.
    """
    others: list[bytes] = []
    start, size = 0, len(data)
    while start + 2 <= size:
        length = data[start + 1] & 0x7F
        begin = start + (2 if length < 126 else 4 if length == 126 else 10)
        if begin > size:
            break
        if length >= 126:
            length = int.from_bytes(data[start + 2 : begin])
        end = begin + length
        if end > size and length <= FRAME_BYTES_MAX:
            break
        if data[start] == PLAIN_TEXT and data[start + 1] == 126:
            frames.append(data[begin:end])
        else:
            others.append(data[start:end])
        start = end
    return others, data[start:]


class FrameBuffer:
    """The memory that a socket is read into, and the bytes that are no whole frame yet."""

    def __init__(self) -> None:
        # One piece for all reads: a new one for every read would be mapped and unmapped.
        self.memory = memoryview(bytearray(READ_BYTES))
        self.rest = b""

    def take(self, nbytes: int) -> bytes:
        """Return the rest of the last read and the `nbytes` of this one."""
        data = self.rest + bytes(self.memory[:nbytes])
        self.rest = b""
        return data
