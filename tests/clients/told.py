"""What a client's program is told by the test, and what it tells in return: JSON on stdin and stdout.

Told: `snippets` (the recipe as printed in docs/gateway.md), `start_ms` and `end_ms` of a range of final candles, and
`stream_seconds`, how long to wait for a candle to close.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

TOLD: dict[str, Any] = json.load(sys.stdin)


def follow() -> dict[str, Any]:
    """Run the recipe and return what it defines."""
    namespace: dict[str, Any] = {"__name__": "recipe"}
    for snippet in TOLD["snippets"]:
        exec(compile(snippet, "docs/gateway.md", "exec"), namespace)
    return namespace


def error_of(call: Callable[[], Any]) -> list[str]:
    """Return the classes of the error that a call raises, the error's own first, and its text."""
    try:
        call()
    except Exception as error:
        return told_error(error)
    return []


async def async_error_of(call: Callable[[], Awaitable[Any]]) -> list[str]:
    """As `error_of`, of a coroutine."""
    try:
        await call()
    except Exception as error:
        return told_error(error)
    return []


def told_error(error: Exception) -> list[str]:
    """Return an error's classes, its own first, and its text."""
    return [*(kind.__name__ for kind in type(error).__mro__), str(error)]


def tell(**results: Any) -> None:
    """Say what came out, and end."""
    json.dump(results, sys.stdout)
