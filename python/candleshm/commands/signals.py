"""Requests to stop (SIGINT, SIGTERM, SIGHUP, the end of stdin), turned into a call that a thread makes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

__all__ = ["UNTIL_STDIN_CLOSES", "on_stdin_closed", "on_stop_signal"]

UNTIL_STDIN_CLOSES = "--until-stdin-closes"


def on_stop_signal(action: Callable[[], object], *, on_hangup: Callable[[], object] | None = None) -> None:
    """Call `action` at every stop signal, for the rest of the process. Only the main thread may call this.

    With `on_hangup` SIGHUP is no stop signal, and makes that call instead.

    A Python handler runs inside whatever the main thread is doing, perhaps while that holds the very lock which
    `action` needs. So the handlers do nothing; the interpreter also writes the signal to a pipe, and a thread that
    waits there makes the call.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    def wait_for_signals() -> None:
        while number := os.read(read_end, 1):
            if on_hangup is not None and number[0] == signal.SIGHUP:
                on_hangup()
            else:
                action()

    threading.Thread(target=wait_for_signals, name="candleshm-signals", daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Under nohup the end of the terminal is ignored.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)


def on_stdin_closed(action: Callable[[], object]) -> None:
    """Call `action` when stdin ends, as a pipe does with the process that holds its other end, however that dies."""

    def wait_for_the_end() -> None:
        # Not sys.stdin: the interpreter would wait for its lock at the end. A stdin that was never open has ended.
        with suppress(OSError):
            while os.read(0, 4096):
                pass
        action()

    threading.Thread(target=wait_for_the_end, name="candleshm-stdin", daemon=True).start()
