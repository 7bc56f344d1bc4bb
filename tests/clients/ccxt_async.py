"""ccxt.async_support and ccxt.pro: requests, and candles by stream."""

import asyncio

from told import TOLD, async_error_of, follow, tell

recipe = follow()
symbols = {"SPOT": "BTC/USDT", "UM": "BTC/USDT:USDT", "CM": "BTC/USD:BTC"}
count = (TOLD["end_ms"] - TOLD["start_ms"]) // 60_000


async def closed(exchange, symbol):
    """Watch until a candle that was seen growing is followed by the next one; return its last state."""
    first_ms = None
    while True:
        candles = await exchange.watch_ohlcv(symbol, "1m")
        first_ms = first_ms or candles[-1][0]
        if candles[-1][0] > first_ms:
            return next(candle for candle in exchange.ohlcvs[symbol]["1m"] if candle[0] == first_ms)


async def main():
    plain = recipe["ccxt"].async_support.binance(recipe["gateway"])
    pro = recipe["ccxt"].pro.binance(recipe["gateway"])
    waiting = asyncio.gather(*(closed(pro, symbol) for symbol in symbols.values()))
    try:
        tell(
            printed=len(recipe["candles"]),
            time_ms=await plain.fetch_time(),
            newest={market: await plain.fetch_ohlcv(symbol, "1m", limit=3) for market, symbol in symbols.items()},
            ranges={
                market: await plain.fetch_ohlcv(symbol, "1m", TOLD["start_ms"], count)
                for market, symbol in symbols.items()
            },
            unknown=await async_error_of(lambda: plain.public_get_klines({"symbol": "NOPEUSDT", "interval": "1m"})),
            refused={"SPOT": await async_error_of(lambda: plain.fetch_ohlcv("XRP/USDT", "1m", limit=3))},
            closed=dict(zip(symbols, await asyncio.wait_for(waiting, TOLD["stream_seconds"]), strict=True)),
        )
    finally:
        await plain.close()
        await pro.close()


asyncio.run(main())
