"""ccxt, the plain one."""

from told import TOLD, error_of, follow, tell

recipe = follow()
exchange = recipe["exchange"]
symbols = {"SPOT": "BTC/USDT", "UM": "BTC/USDT:USDT", "CM": "BTC/USD:BTC"}
uncollected = {"SPOT": "XRP/USDT", "UM": "XRP/USDT:USDT", "CM": "XRP/USD:XRP"}
count = (TOLD["end_ms"] - TOLD["start_ms"]) // 60_000

with_key = recipe["ccxt"].binance({**recipe["gateway"], "apiKey": "key", "secret": "secret"})
# With a key, `load_markets` asks the exchange itself about currencies.
with_key.set_markets(exchange.markets)

tell(
    with_key=len(with_key.fetch_ohlcv("BTC/USDT", "1m", limit=3)),
    printed=len(recipe["candles"]),
    time_ms=exchange.fetch_time(),
    listed=sorted(exchange.markets),
    newest={market: exchange.fetch_ohlcv(symbol, "1m", limit=3) for market, symbol in symbols.items()},
    ranges={market: exchange.fetch_ohlcv(symbol, "1m", TOLD["start_ms"], count) for market, symbol in symbols.items()},
    unlisted=error_of(lambda: exchange.fetch_ohlcv("NOPE/USDT", "1m")),
    unknown=error_of(lambda: exchange.public_get_klines({"symbol": "NOPEUSDT", "interval": "1m"})),
    refused={
        market: error_of(lambda symbol=symbol: exchange.fetch_ohlcv(symbol, "1m", limit=3))
        for market, symbol in uncollected.items()
    },
)
