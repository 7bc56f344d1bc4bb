"""The official SDKs: binance-sdk-spot and binance-sdk-derivatives-trading-usds-futures."""

import asyncio

from told import TOLD, error_of, follow, tell

recipe = follow()
spot, futures = recipe["spot"], recipe["futures"]
bounds = {"start_time": TOLD["start_ms"], "end_time": TOLD["end_ms"] - 1}
KLINE = ("t", "T", "i", "o", "c", "h", "l", "v", "n", "x", "q", "V", "Q")
klines = {"SPOT": spot.rest_api.klines, "UM": futures.rest_api.kline_candlestick_data}


async def first_closed(client, subscribe):
    """Return the first event of a closed candle."""
    connection = await client.websocket_streams.create_connection()
    found = asyncio.get_running_loop().create_future()

    def take(event):
        if event.k.x and not found.done():
            kline = {name: getattr(event.k, name) for name in KLINE}
            found.set_result({"s": event.s, "k": kline})

    stream = await subscribe(connection)
    stream.on("message", take)
    try:
        return await asyncio.wait_for(found, TOLD["stream_seconds"])
    finally:
        await connection.close_connection(close_session=True)


async def streams():
    return await asyncio.gather(
        first_closed(spot, lambda connection: connection.kline(symbol="btcusdt", interval="1m")),
        first_closed(futures, lambda connection: connection.kline_candlestick_streams(symbol="btcusdt", interval="1m")),
    )


closed = asyncio.run(streams())
tell(
    printed=len(recipe["candles"]),
    time_ms=spot.rest_api.time().data().server_time,
    listed=sorted(item.symbol for item in spot.rest_api.exchange_info().data().symbols),
    futures_listed=sorted(item.symbol for item in futures.rest_api.exchange_information().data().symbols),
    newest={market: call("BTCUSDT", "1m", limit=3).data() for market, call in klines.items()},
    ranges={market: call("BTCUSDT", "1m", **bounds).data() for market, call in klines.items()},
    unknown=error_of(lambda: spot.rest_api.klines("NOPEUSDT", "1m")),
    refused={market: error_of(lambda call=call: call("XRPUSDT", "1m")) for market, call in klines.items()},
    closed=dict(zip(klines, closed, strict=True)),
)
