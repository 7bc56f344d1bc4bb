"""The other clients of the exchange's streams that `live.py` measures: URL, streams, warm and measured seconds.

They hand nothing to another process and are measured up to where their own has the row in an array, which flatters
them.
"""

# The peer of one's own: the usual client, json and an array in one process.
JSON_PEER = """
import asyncio, json, sys, time
import numpy as np
from websockets.asyncio.client import connect

FIELDS = "tohlcvTqnVQ"
async def main():
    names = sys.argv[2].split("/")
    rows, places = np.zeros((len(names), 12)), {name.split("@")[0].upper(): i for i, name in enumerate(names)}
    latencies = []
    async with connect(sys.argv[1] + "/market/stream?streams=" + names[0], compression=None, max_queue=None) as stream:
        await stream.send(json.dumps({"method": "SUBSCRIBE", "params": names[1:], "id": 1}))
        print("flows", flush=True)
        warm = time.monotonic() + float(sys.argv[3])
        end = warm + float(sys.argv[4])
        cpu = None
        events = 0
        while (now := time.monotonic()) < end:
            event = json.loads(await stream.recv())
            if "data" not in event:
                continue
            kline = event["data"]["k"]
            row = rows[places[kline["s"]]]
            for column, field in enumerate(FIELDS):
                row[column] = float(kline[field])
            if now >= warm:
                if cpu is None:
                    cpu, began = time.process_time(), now
                events += 1
                latencies.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - row[7])
        used = time.process_time() - cpu
    print(json.dumps({"latencies_us": np.percentile(latencies, [50, 99]).tolist(), "events": events,
                      "cpu_seconds": used, "seconds": end - began}), flush=True)
asyncio.run(main())
"""
UNICORN_PEER = """
import json, sys, time
import numpy as np
from unicorn_binance_websocket_api import BinanceWebSocketApiManager

FIELDS = "tohlcvTqnVQ"
names = sys.argv[2].split("/")
rows, places = np.zeros((len(names), 12)), {name.split("@")[0].upper(): i for i, name in enumerate(names)}
latencies, events, cpu = [], 0, None
warm = time.monotonic() + float(sys.argv[3])
end = warm + float(sys.argv[4])

def take(text):
    global events, cpu, began
    now = time.monotonic()
    event = json.loads(text)
    if "data" not in event:
        return
    kline = event["data"]["k"]
    row = rows[places[kline["s"]]]
    for column, field in enumerate(FIELDS):
        row[column] = float(kline[field])
    if warm <= now < end:
        if cpu is None:
            cpu, began = time.process_time(), now
        events += 1
        latencies.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - row[7])

manager = BinanceWebSocketApiManager(
    exchange="binance.com", websocket_base_uri=sys.argv[1] + "/", process_stream_data=take, disable_colorama=True
)
interval = names[0].split("_")[-1]
manager.create_stream(channels=["kline_" + interval], markets=[name.split("@")[0] for name in names])
print("flows", flush=True)
time.sleep(max(0.0, end - time.monotonic()))
used, seconds = time.process_time() - (cpu or 0.0), time.monotonic() - began
manager.stop_manager()
print(json.dumps({"latencies_us": np.percentile(latencies, [50, 99]).tolist(), "events": events,
                  "cpu_seconds": used, "seconds": seconds}), flush=True)
import os; os._exit(0)
"""

CRYPTOFEED_PEER = """
import json, sys, time, threading, os
import numpy as np
import cryptofeed.connection
from cryptofeed import FeedHandler
from cryptofeed.connection import WebsocketEndpoint
from cryptofeed.defines import CANDLES
from cryptofeed.exchanges import Binance
from cryptofeed.symbols import Symbols

names = [name.split("@")[0].upper() for name in sys.argv[2].split("/")]
interval = sys.argv[2].split("_")[-1]
known = {f"{name[:-4]}-{name[-4:]}": name for name in names}
kinds = {"instrument_type": dict.fromkeys(known, "spot"), "tick_size": dict.fromkeys(known, "1")}
Symbols.set(Binance.id, known, kinds)
# It takes no address without TLS, so that is taken off behind its back.
Binance.websocket_endpoints = [WebsocketEndpoint(sys.argv[1].replace("ws://", "wss://"))]
dial = cryptofeed.connection.connect
cryptofeed.connection.connect = lambda address, **options: dial(address.replace("wss://", "ws://"), **options)
rows, places = np.zeros((len(names), 12)), {name: place for place, name in enumerate(known)}
latencies, events, cpu = [], 0, None
warm = time.monotonic() + float(sys.argv[3])
end = warm + float(sys.argv[4])

async def take(candle, receipt):
    global events, cpu, began
    now = time.monotonic()
    row = rows[places[candle.symbol]]
    row[:6] = (candle.start, candle.open, candle.high, candle.low, candle.close, candle.volume)
    row[6:9] = (candle.stop, float(candle.raw["k"]["q"]), candle.trades)
    if warm <= now < end:
        if cpu is None:
            cpu, began = time.process_time(), now
        events += 1
        latencies.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - row[7])

def finish():
    time.sleep(max(0.0, end - time.monotonic()))
    print(json.dumps({"latencies_us": np.percentile(latencies, [50, 99]).tolist(), "events": events,
                      "cpu_seconds": time.process_time() - cpu, "seconds": time.monotonic() - began}), flush=True)
    os._exit(0)

handler = FeedHandler(config={"log": {"disabled": True}})
handler.add_feed(Binance(symbols=list(known), channels=[CANDLES], candle_interval=interval, candle_closed_only=False,
                         callbacks={CANDLES: take}))
print("flows", flush=True)
threading.Thread(target=finish, daemon=True).start()
handler.run()
"""
