"""Control messages: what a client asks for in a text, and the replies in the exchange's wording. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

__all__ = ["MESSAGE_BYTES_MAX", "STREAMS_MAX", "Command", "ControlError", "Method"]

STREAMS_MAX = 1024
"""Streams of one connection."""
MESSAGE_BYTES_MAX = 131_072
"""All streams of a connection in one message, with names as long as there are."""

ID_MAX = 2**63
TEXT_ID_LENGTH_MAX = 36

Method = Literal["SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY"]
METHODS: tuple[Method, ...] = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


class ControlError(Exception):
    """A message that is refused: the exchange's code, the text, and the id of the message."""

    def __init__(self, code: int, message: str, request_id: str | int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.request_id = request_id

    @property
    def reply(self) -> bytes:
        """The reply that refuses. The documents print code and msg alone; what the exchange sends has them in error."""
        return encoded({"error": {"code": self.code, "msg": self.message}, "id": self.request_id})


@dataclass(frozen=True, slots=True)
class Command:
    """A control message that can be obeyed."""

    method: Method
    request_id: str | int | None
    names: tuple[str, ...] = ()
    """Streams of SUBSCRIBE and UNSUBSCRIBE."""
    is_combined: bool | None = None
    """What SET_PROPERTY sets."""

    @classmethod
    def of(cls, text: str) -> Command:
        """Read a message. Raises ControlError."""
        try:
            request = json.loads(text)
        except (ValueError, RecursionError) as error:
            where = f"line {getattr(error, 'lineno', 1)} column {getattr(error, 'colno', 1)}"
            raise ControlError(3, f"Invalid JSON: expected value at {where}") from None
        if not isinstance(request, dict):
            raise ControlError(2, "Invalid request: expected an object")
        request_id = id_of(request)
        try:
            return cls._of(request, request_id)
        except ControlError as error:
            error.request_id = request_id
            raise

    @classmethod
    def _of(cls, request: dict[str, object], request_id: str | int | None) -> Command:
        given, params = request.get("method"), request.get("params", [])
        if not isinstance(given, str):
            raise ControlError(2, "Invalid request: missing field `method`")
        method = next((known for known in METHODS if known == given), None)
        if method is None:
            known = ", ".join(f"`{name}`" for name in METHODS)
            raise ControlError(2, f"Invalid request: unknown variant `{given[:80]}`, expected one of {known}")
        if not isinstance(params, list):
            raise ControlError(2, "Invalid request: params must be an array")
        if method == "LIST_SUBSCRIPTIONS":
            return cls(method, request_id)
        if method in {"SET_PROPERTY", "GET_PROPERTY"}:
            return cls(method, request_id, is_combined=property_of(params, sets=method == "SET_PROPERTY"))
        if not all(isinstance(name, str) for name in params):
            raise ControlError(2, "Invalid request: stream names must be strings")
        return cls(method, request_id, tuple(params))

    def reply(self, result: object = None) -> bytes:
        """Return the reply to a command that was obeyed."""
        return encoded({"result": result, "id": self.request_id})


def id_of(request: dict[str, object]) -> str | int | None:
    """Return the id of a message: an integer of 64 bits, a short text or null."""
    request_id = request.get("id")
    if request_id is None or (isinstance(request_id, str) and len(request_id) <= TEXT_ID_LENGTH_MAX):
        return request_id
    if isinstance(request_id, int) and not isinstance(request_id, bool) and -ID_MAX <= request_id < ID_MAX:
        return request_id
    raise ControlError(2, "Invalid request: request ID must be an integer, a string of at most 36 characters or null")


def property_of(params: list[object], *, sets: bool) -> bool | None:
    """Return what `combined`, the only property, is set to; None where it is not set."""
    if not params or not isinstance(params[0], str):
        raise ControlError(2, "Invalid request: property name must be a string")
    if params[0] != "combined":
        raise ControlError(0, "Unknown property")
    if not sets:
        return None
    if len(params) != 2 or not isinstance(params[1], bool):
        raise ControlError(1, "Invalid value type: expected Boolean")
    return params[1]


def encoded(reply: dict[str, object]) -> bytes:
    """Return a reply as the exchange writes it: UTF-8, without blanks."""
    # A text from a client can hold half of a character, which UTF-8 cannot.
    return json.dumps(reply, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
