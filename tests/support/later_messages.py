"""Messages of a cluster as a later version would send them: with records and fields that nobody knows today."""

from __future__ import annotations

import struct

__all__ = ["of_later_major", "of_later_minor"]

MAGIC = b"CNDLREPL"
HEAD_BYTES = 72
UNKNOWN_KIND, UNKNOWN = 999, b"what a later version has to say"


def of_later_minor(message: bytes) -> bytes:
    """Return it with a field at the end of each record, and a record of another kind at the end of all."""
    if not message.startswith(MAGIC):
        return message
    head, rest, records = bytearray(message[:HEAD_BYTES]), message[HEAD_BYTES:], b""
    while rest:
        size, kind = struct.unpack_from("<IH", rest)
        records += struct.pack("<IHH", size + len(UNKNOWN), kind, 0) + rest[8 : 8 + size] + UNKNOWN
        rest = rest[8 + size :]
    records += struct.pack("<IHH", len(UNKNOWN), UNKNOWN_KIND, 0) + UNKNOWN
    head[9] += 1
    return _sealed(head, records)


def of_later_major(message: bytes) -> bytes:
    """Return it with the next major version."""
    if not message.startswith(MAGIC):
        return message
    head = bytearray(message[:HEAD_BYTES])
    head[8] += 1
    return _sealed(head, message[HEAD_BYTES:])


def _sealed(head: bytearray, records: bytes) -> bytes:
    struct.pack_into("<I", head, 16, len(head) + len(records))
    struct.pack_into("<I", head, 12, _crc32c(bytes(head[:12]) + bytes(head[16:]) + records))
    return bytes(head) + records


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ 0x82F63B78 if byte & 1 else byte >> 1
    return byte


_TABLE = [_entry(byte) for byte in range(256)]
