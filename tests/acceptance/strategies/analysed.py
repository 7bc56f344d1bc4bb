"""Two strategies for freqtrade that trade, and write down the newest candles of every analysis."""

import json
import os
import time

from freqtrade.strategy import IStrategy


class Analysed(IStrategy):
    """Writes a line for every analysis: when, which pair, and the two newest candles."""

    startup_candle_count = 30
    process_only_new_candles = True
    stoploss = -0.05

    def populate_indicators(self, dataframe, metadata):
        line = {
            "at_ms": time.time_ns() // 1_000_000,
            "pair": metadata["pair"],
            "candles": [
                [row["date"].value // 1_000_000, *map(float, row[["open", "high", "low", "close", "volume"]])]
                for _, row in dataframe.tail(2).iterrows()
            ],
        }
        with open(os.environ["ANALYSED"], "a") as file:
            file.write(json.dumps(line) + "\n")
        dataframe["mean"] = dataframe["close"].rolling(10).mean()
        return dataframe


class Follower(Analysed):
    """Buys above the mean, minute by minute."""

    timeframe = "1m"
    minimal_roi = {"0": 0.002}

    def populate_entry_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["close"] > dataframe["mean"], "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["close"] < dataframe["mean"], "exit_long"] = 1
        return dataframe


class Reverter(Analysed):
    """Buys below the mean of larger candles."""

    timeframe = "3m"
    minimal_roi = {"0": 0.001}

    def populate_entry_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["close"] < dataframe["mean"], "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["close"] > dataframe["mean"] * 1.002, "exit_long"] = 1
        return dataframe
