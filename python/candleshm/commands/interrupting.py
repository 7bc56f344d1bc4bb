"""What Ctrl-C does to a command: it raises KeyboardInterrupt, except where that would come out as another error."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from candleshm_command import end_at_once

__all__ = ["interruptible"]

IMPORTING = "<frozen importlib._bootstrap>"


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt in a command, and end the process at once before and after.

    While a module is imported it ends the process as well: what is half imported makes any error of an interruption,
    or swallows it. A program that is no command, or has a handler of its own, keeps that.
    """
    if signal.getsignal(signal.SIGINT) is not end_at_once:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        # The interpreter would report an interruption of its end.
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, end_at_once)


def _interrupt(number: int, frame: FrameType | None) -> None:
    below = frame
    while below is not None:
        if below.f_code.co_filename == IMPORTING:
            end_at_once(number, frame)
        below = below.f_back
    raise KeyboardInterrupt
