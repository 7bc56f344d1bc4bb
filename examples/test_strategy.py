"""A test of your own strategy against the simulated exchange: `pytest examples/test_strategy.py`.

The strategy attaches by name, as it does in production. The exchange is deterministic from its seed, and faults can be
added to it: `exchange.faults.add(candleshm.sim.rate_limited(...))`.
"""

import candleshm
from candleshm.sim import SimulatedExchange


def strategy(feed: candleshm.Feed) -> dict[str, bool]:
    """Return for each symbol whether its newest final close is above the mean of the last 20."""
    above = {}
    for symbol in feed:
        with feed[symbol].read(20) as view:
            above[symbol] = bool(view.close[-1] > view.close.mean())
    return above


def test_strategy_sees_what_the_exchange_sent() -> None:
    symbols = ["BTCUSDT", "ETHUSDT"]
    with SimulatedExchange(seed=7, symbols=5) as exchange:
        config = candleshm.CollectorConfig(
            market="SPOT", symbols=symbols, length=60, name="my-strategy-test", base_url=exchange.base_url
        )
        with candleshm.Collector(config) as collector, candleshm.attach("my-strategy-test", max_age=60.0) as feed:
            assert collector.wait_loaded(30)
            signals = strategy(feed)
            for symbol in symbols:
                rows = feed[symbol].candles(20, closed_only=True)
                start_ms = int(rows[0, candleshm.OPEN_TIME_MS])
                end_ms = int(rows[-1, candleshm.OPEN_TIME_MS]) + 60_000
                truth = exchange.truth.floats("SPOT", symbol, "1m", start_ms, end_ms)
                assert (rows == truth).all()
                assert signals[symbol] == (truth[-1][candleshm.CLOSE] > truth[:, candleshm.CLOSE].mean())
