"""binance-connector: Spot and SpotWebsocketStreamClient."""

import json
import time

from told import TOLD, error_of, follow, tell

recipe = follow()
client = recipe["client"]
bounds = {"startTime": TOLD["start_ms"], "endTime": TOLD["end_ms"] - 1}


def first_closed():
    """Wait for the first event of a closed candle among the messages of the recipe's stream."""
    for _ in range(10 * TOLD["stream_seconds"]):
        for message in map(json.loads, list(recipe["messages"])):
            if message.get("e") == "kline" and message["k"]["x"]:
                return message
        time.sleep(0.1)
    raise TimeoutError("no candle closed")


closed = first_closed()
recipe["stream"].stop()
tell(
    printed=len(recipe["candles"]),
    time_ms=client.time()["serverTime"],
    listed=sorted(item["symbol"] for item in client.exchange_info()["symbols"]),
    newest={"SPOT": client.klines("BTCUSDT", "1m", limit=3)},
    ranges={"SPOT": client.klines("BTCUSDT", "1m", **bounds)},
    histories={"uiKlines": client.ui_klines("BTCUSDT", "1m", **bounds)},
    unknown=error_of(lambda: client.klines("NOPEUSDT", "1m")),
    refused={"SPOT": error_of(lambda: client.klines("XRPUSDT", "1m"))},
    closed={"SPOT": closed},
)
