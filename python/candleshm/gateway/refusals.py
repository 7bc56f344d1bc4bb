"""What the gateway refuses: an HTTP status, a code and a text, in the form of the exchange's own errors."""

from __future__ import annotations

import json
import math

__all__ = ["Refused"]

JSON_TYPE = b"application/json;charset=UTF-8"


class Refused(Exception):
    """A request that gets an error as its answer: ``{"code": .., "msg": ..}``.

    The clients' libraries know the codes of the exchange. What the gateway itself cannot answer is a 503: -1001 while
    it may be asked again at once, -1003 with `retry_after_seconds` while the exchange has to be left alone.
    """

    def __init__(self, status: int, code: int, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(status, code, message, retry_after_seconds)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def body(self) -> bytes:
        """The body of the response, JSON in UTF-8."""
        return json.dumps({"code": self.code, "msg": self.message}, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the response: names in lower case, as ASGI has them."""
        headers = [(b"content-type", JSON_TYPE), (b"content-length", b"%d" % len(self.body))]
        if self.retry_after_seconds is not None:
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(self.retry_after_seconds))))
        return headers
