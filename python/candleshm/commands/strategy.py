"""The demo's strategy: a process that knows two names, attaches, and shows what it reads eight times a second.

`python -m candleshm.commands.strategy NAME...` works with any blocks. This is the whole of what a strategy has to do.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from dataclasses import dataclass

from candleshm.commands.outcome import outcome
from candleshm.commands.screen import Screen
from candleshm.commands.signals import UNTIL_STDIN_CLOSES, on_stdin_closed, on_stop_signal
from candleshm.reader.feed import Feed, attach
from candleshm.reader.figures import change, kind_of, price
from candleshm.row_state import RowState

__all__ = ["Board", "Quote", "quote"]

# The change is that of the live close against the close this many candles before.
BACK = 60
HEAD = f"{'SYMBOL':<10} {'LIVE CLOSE':>16}   {'CHANGE':>10} {'CLOSED ROWS':>12} {'AGE':>9}  STATE"


@dataclass(frozen=True, slots=True)
class Quote:
    """What one line of the table shows."""

    symbol: str
    live_close: float
    change: float
    """Against `BACK` candles before, as a fraction; NaN while there is no such candle."""
    closed: int
    """Final rows in the window."""
    age_seconds: float
    state: str


def quote(feed: Feed, symbol: str) -> Quote:
    """Read one symbol: the live row, and the closed ones in place without a copy."""
    series = feed[symbol]
    live_close = series.last_close
    view = series.view()
    change = live_close / view.close[-BACK] - 1 if len(view) >= BACK else math.nan
    if not view.valid():
        change = math.nan  # The row was overwritten while we computed; the next frame reads again.
    states = series.states(1)
    state = RowState(states[-1] if len(states) else RowState.EMPTY).word
    return Quote(symbol, live_close, change, len(view), series.age, state)


class Board:
    """The table: one line per symbol of every feed, with the direction of its last move."""

    def __init__(self, feeds: list[Feed], screen: Screen) -> None:
        self._feeds = feeds
        self._screen = screen
        self._seen: dict[tuple[str, str], tuple[float, str]] = {}

    def frame(self) -> list[str]:
        """Read everything and return the lines."""
        faint = self._screen.faint
        began_seconds = time.perf_counter()
        quotes = [(feed, [quote(feed, symbol) for symbol in feed.symbols]) for feed in self._feeds]
        took_us = (time.perf_counter() - began_seconds) * 1e6
        lines = [faint(HEAD)]
        for feed, of_feed in quotes:
            attach_text = f'candleshm.attach("{feed.name}")'
            lines.append(faint(f"{attach_text}: {kind_of(feed)} {feed.interval}, change over {BACK} candles"))
            lines += [self._line(feed.name, shown) for shown in of_feed]
        count = sum(len(of_feed) for _, of_feed in quotes)
        lines.append(faint(f"{count} series read in {took_us:.0f} µs: no request, no lock, no wait"))
        return lines

    def _line(self, name: str, shown: Quote) -> str:
        close = shown.live_close
        before, tick = self._seen.get((name, shown.symbol), (close, " "))
        tick = "▲" if close > before else "▼" if close < before else tick
        self._seen[name, shown.symbol] = close, tick
        close_text = f"{price(close):>16} {tick}"
        if tick != " ":
            close_text = self._screen.signed(close_text, 1 if tick == "▲" else -1)
        change_text = self._screen.signed(change(shown.change), shown.change)
        age_text = f"{shown.age_seconds:.2f} s" if math.isfinite(shown.age_seconds) else "-"
        return f"{shown.symbol:<10} {close_text} {change_text} {shown.closed:>12,} {age_text:>9}  {shown.state}"


def _show(names: list[str], *, until_stdin_closes: bool) -> None:
    stop = threading.Event()
    on_stop_signal(stop.set)
    if until_stdin_closes:
        on_stdin_closed(stop.set)
    feeds = [attach(name) for name in names]
    with Screen() as screen:
        board = Board(feeds, screen)
        screen.show(board.frame())
        while not stop.wait(screen.frame_seconds):
            screen.show(board.frame())


if __name__ == "__main__":
    until_stdin_closes = sys.argv[-1] == UNTIL_STDIN_CLOSES
    names = sys.argv[1:-1] if until_stdin_closes else sys.argv[1:]
    sys.exit(outcome(lambda: _show(names, until_stdin_closes=until_stdin_closes)))
