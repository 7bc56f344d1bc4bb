"""A strategy that runs once per close, in asyncio: `python examples/asyncio_closes.py candleshm-spot-1m [CLOSES]`."""

import asyncio
import sys

import candleshm

FAST, SLOW = 5, 20


def signal(series: candleshm.Series) -> str:
    """Compare two moving averages of final closes."""
    with series.read(SLOW) as view:
        return "long" if view.close[-FAST:].mean() > view.close.mean() else "flat"


async def main(name: str, closes: int) -> None:
    with candleshm.attach(name, max_age=60.0) as feed:
        async for closed in feed.closes():  # every close comes exactly once, also when the work takes longer
            signals = {symbol: signal(feed[symbol]) for symbol in closed.symbols}
            print(f"{closed.open_time_ms}: {signals}")
            closes -= 1
            if closes == 0:
                return


asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else -1))
