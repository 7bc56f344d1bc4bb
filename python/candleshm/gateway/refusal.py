"""Refusals that come before any route: error bodies in the exchange's form, for clients' libraries to understand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

__all__ = ["FORBIDDEN", "TOO_MANY", "UNKNOWN", "Refusal"]

# The exchange's codes: an error without a code of its own, too many requests, a key or a token that is not accepted.
UNKNOWN, TOO_MANY, FORBIDDEN = -1000, -1003, -2015


class Refusal(NamedTuple):
    """A status, and why."""

    status: int
    code: int
    message: str
    headers: Mapping[str, str] = {}

    @property
    def body(self) -> bytes:
        """The error as the exchange writes it."""
        return json.dumps({"code": self.code, "msg": self.message}, separators=(",", ":")).encode()

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of the response; its connection ends."""
        given = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        return [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
            (b"connection", b"close"),
            *given,
        ]

    def as_bytes(self) -> bytes:
        """Return the whole response as it goes through a socket."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}".encode()]
        lines += [name + b": " + value for name, value in self.fields()]
        return b"\r\n".join([*lines, b"", self.body])
