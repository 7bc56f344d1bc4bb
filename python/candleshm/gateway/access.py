"""Whom a gateway admits."""

from __future__ import annotations

from dataclasses import dataclass

from candleshm.gateway.token import Token

__all__ = ["Access"]


@dataclass(frozen=True, slots=True)
class Access:
    """What a request must show, and where it may come from."""

    token: Token | None = None
    """What it must show; None: nothing."""
    origins: frozenset[bytes] = frozenset()
    """Origins whose web pages may read responses, beside the gateway's own."""
    hosts: frozenset[bytes] = frozenset()
    """Host names, in lower case, under which it is reached, beside addresses and names without a dot."""
    is_loopback: bool = True
    """Whether only this machine can connect."""
