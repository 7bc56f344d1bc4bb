"""python-binance: Client, AsyncClient and BinanceSocketManager."""

import asyncio

from binance.enums import FuturesType
from told import TOLD, error_of, follow, tell

recipe = follow()
client, AsyncClient, BinanceSocketManager = (recipe[name] for name in ("client", "AsyncClient", "BinanceSocketManager"))
bounds = {"startTime": TOLD["start_ms"], "endTime": TOLD["end_ms"] - 1}
calls = {
    "SPOT": (client.get_klines, "BTCUSDT"),
    "UM": (client.futures_klines, "BTCUSDT"),
    "CM": (client.futures_coin_klines, "BTCUSD_PERP"),
}


async def first_closed(socket):
    """Return the first event of a closed candle."""
    async with socket as stream:
        while True:
            message = await stream.recv()
            event = message.get("data", message)
            if event["k"]["x"]:
                return event


async def streams():
    asynchronous = await AsyncClient.create()
    manager = BinanceSocketManager(asynchronous)
    sockets = {
        "SPOT": manager.kline_socket("BTCUSDT", "1m"),
        "UM": manager.futures_multiplex_socket(["btcusdt@kline_1m"]),
        "CM": manager.futures_multiplex_socket(["btcusd_perp@kline_1m"], futures_type=FuturesType.COIN_M),
    }
    try:
        waiting = asyncio.gather(*(first_closed(socket) for socket in sockets.values()))
        rows = await asynchronous.get_klines(symbol="BTCUSDT", interval="1m", **bounds)
        events = await asyncio.wait_for(waiting, TOLD["stream_seconds"])
        return rows, dict(zip(sockets, events, strict=True))
    finally:
        await asynchronous.close_connection()


def history():
    """Return candles by the call that first looks for a symbol's very first candle."""
    return client.get_historical_klines("BTCUSDT", "1m", TOLD["start_ms"], TOLD["end_ms"] - 1)


asynchronous_rows, closed = asyncio.run(streams())
tell(
    printed=len(recipe["candles"]),
    time_ms=client.get_server_time()["serverTime"],
    listed=sorted(item["symbol"] for item in client.get_exchange_info()["symbols"]),
    futures_listed=sorted(item["symbol"] for item in client.futures_exchange_info()["symbols"]),
    newest={market: call(symbol=symbol, interval="1m", limit=3) for market, (call, symbol) in calls.items()},
    ranges={market: call(symbol=symbol, interval="1m", **bounds) for market, (call, symbol) in calls.items()},
    histories={
        "by AsyncClient": asynchronous_rows,
        "continuous": client.futures_continuous_klines(
            pair="BTCUSDT", contractType="PERPETUAL", interval="1m", **bounds
        ),
    },
    unknown=error_of(lambda: client.get_klines(symbol="NOPEUSDT", interval="1m")),
    refused={
        market: error_of(lambda call=call, symbol=symbol: call(symbol=symbol.replace("BTC", "XRP"), interval="1m"))
        for market, (call, symbol) in calls.items()
    },
    closed=closed,
    with_key=error_of(
        lambda: recipe["Client"]("key", "secret", ping=False).get_klines(symbol="BTCUSDT", interval="1m")
    ),
    history_refused=error_of(history),
    history=(setattr(client, "API_URL", f"http://{TOLD['passing_address']}/api"), history())[1],
)
