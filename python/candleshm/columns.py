"""The twelve columns of a candle, as indices, in the exchange's order."""

OPEN_TIME_MS = 0
OPEN = 1
HIGH = 2
LOW = 3
CLOSE = 4
VOLUME = 5
CLOSE_TIME_MS = 6
QUOTE_VOLUME = 7
TRADES = 8
TAKER_BUY_VOLUME = 9
TAKER_BUY_QUOTE_VOLUME = 10
IGNORE = 11

NAMES = (
    "open_time_ms",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time_ms",
    "quote_volume",
    "trades",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "ignore",
)

# Columns of whole numbers.
WHOLE = frozenset({OPEN_TIME_MS, CLOSE_TIME_MS, TRADES, IGNORE})
