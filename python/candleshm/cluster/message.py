"""What comes for a subject of the cluster's servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Message", "Receive"]


class Message(NamedTuple):
    """One message. `reply` is where an answer goes, empty where none is expected."""

    subject: str
    data: bytes
    reply: str = ""
    is_unheard: bool = False
    """Whether the server says by it that nobody subscribes to what was requested."""


Receive = Callable[[Message], None]
"""Called in the connection's own thread; it must not wait."""
