"""freqtrade against the gateway: `python -m tests.acceptance.bots [--seconds 300]`.

A simulated exchange, a collector of 20 symbols with derived candles of 3m, and a gateway that passes on what is not
about candles. freqtrade, unmodified, has nothing but the settings that docs/gateway.md prints. Judged, and told by the
exit code:

- `download-data` ends well, and every candle in its files is the exchange's;
- two bots with a strategy each trade 20 pairs in a dry run for so many seconds, without an error in their logs;
- the newest candle that they analysed is the newest that has ended, and equals the exchange's final one. Only by stream
  it may be an earlier state of it: freqtrade takes a candle as complete once its time is over, and does not wait for
  the event that closes it. The candle before is final always;
- every pair was analysed, candle after candle.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from candleshm.collector.collector import Collector
from candleshm.config import CollectorConfig
from candleshm.sim import SimulatedExchange
from tests.support.commanding import first_line, started
from tests.test_snippets import FENCE

ROOT = Path(__file__).parent.parent.parent
FREQTRADE = ROOT / ".venv-acceptance" / "bin" / "freqtrade"
STRATEGIES = Path(__file__).parent / "strategies"
ADDRESS = "127.0.0.1:8700"
MINUTE = 60_000
PAIRS = 20
LENGTH = 3000
DOWNLOADED_MINUTES = 1980
STOP_SECONDS = 60
COLUMNS = ["open", "high", "low", "close", "volume"]
# freqtrade has all pairs before it analyses the first, and so may be about to learn of a candle that has just ended.
SLACK_MS = 15_000
# freqtrade writes such a line when a step takes long, whatever is slow.
HARMLESS = re.compile(r"Strategy analysis took")


@dataclass(frozen=True)
class Bot:
    """A strategy of freqtrade, the length of its candles, and whether they come by stream, which is the default."""

    strategy: str
    interval: str
    step_ms: int
    by_stream: bool


BOTS = (Bot("Follower", "1m", MINUTE, True), Bot("Reverter", "3m", 3 * MINUTE, False))


@dataclass(frozen=True)
class Stage:
    """The exchange, the gateway's address, the symbols, and a directory for everything that is written."""

    exchange: SimulatedExchange
    address: str
    symbols: Sequence[str]
    directory: Path

    @property
    def pairs(self) -> list[str]:
        """Return the symbols as freqtrade spells them."""
        return [f"{symbol.removesuffix('USDT')}/USDT" for symbol in self.symbols]

    def settings(self, bot: Bot) -> dict[str, Any]:
        """Return the page's settings, with the gateway's address, and what freqtrade wants to know besides."""
        section = (ROOT / "docs" / "gateway.md").read_text().split("\n### freqtrade\n")[1]
        printed = next(text for _, language, text in FENCE.findall(section) if language == "json")
        settings: dict[str, Any] = json.loads(printed.replace(ADDRESS, self.address))
        settings["exchange"]["pair_whitelist"] = self.pairs
        if not bot.by_stream:
            settings["exchange"]["enable_ws"] = False
        pricing = {"price_side": "same", "use_order_book": True, "order_book_top": 1}
        return settings | {
            "bot_name": bot.strategy,
            "initial_state": "running",
            "dry_run": True,
            "dry_run_wallet": 1000,
            "stake_currency": "USDT",
            "stake_amount": 20,
            "max_open_trades": 5,
            "db_url": "sqlite://",
            "entry_pricing": pricing,
            "exit_pricing": pricing,
            "pairlists": [
                {"method": "StaticPairList"},
                {"method": "VolumePairList", "number_assets": PAIRS, "sort_key": "quoteVolume"},
            ],
        }

    def command(self, bot: Bot, *words: str) -> list[str]:
        """Return a command of freqtrade with a bot's settings."""
        home = self.directory / bot.strategy
        home.mkdir(exist_ok=True)
        (home / "config.json").write_text(json.dumps(self.settings(bot), indent=1))
        return [str(FREQTRADE), *words, "--config", str(home / "config.json"), "--userdir", str(home)]


@contextmanager
def stage(directory: Path) -> Iterator[Stage]:
    """Run the exchange, a collector and a gateway."""
    name = f"candleshm-acceptance-{os.getpid()}"
    with ExitStack() as stack:
        exchange = stack.enter_context(SimulatedExchange(seed=5, symbols=30))
        symbols = [item.symbol for item in exchange.truth.instruments("SPOT") if item.quote == "USDT"][:PAIRS]
        config = CollectorConfig(
            market="SPOT",
            symbols=symbols,
            interval="1m",
            length=LENGTH,
            derive=["3m"],
            name=name,
            base_url=exchange.base_url,
            ws_url=exchange.ws_url_of("SPOT"),
        )
        collector = stack.enter_context(Collector(config))
        if not collector.wait_loaded(120):
            raise RuntimeError("the collector was not loaded within 120 s")
        words = f"gateway --listen 127.0.0.1:0 --pass-through --base-url {exchange.base_url}".split()
        words += ["--cache-dir", str(directory / "gateway")]
        words += ["--block", name, "--block", f"{name}-3m"]
        log = stack.enter_context(open(directory / "gateway.log", "w"))
        gateway = stack.enter_context(started(*words, stderr=log))
        address = first_line(gateway).strip().removeprefix("gateway: http://")
        yield Stage(exchange, address, symbols, directory)


def rows_of(file: Path) -> list[list[Any]]:
    """Return the candles of a file of freqtrade."""
    frame = pd.read_feather(file)
    opens = frame["date"].dt.tz_convert("UTC").dt.as_unit("ms").astype("int64")
    return [[int(open_ms), *values] for open_ms, values in zip(opens, frame[COLUMNS].to_numpy().tolist(), strict=True)]


def true_row(exchange: SimulatedExchange, symbol: str, interval: str, open_ms: int) -> list[Any] | None:
    """Return the exchange's final candle as freqtrade has it."""
    row = exchange.truth.kline("SPOT", symbol, interval, open_ms)
    return None if row is None else [row[0], *(float(value) for value in row[1:6])]


def judge_download(scene: Stage) -> list[str]:
    """Download candles of both intervals; return what is wrong."""
    begin_ms = scene.exchange.now_ms() // (3 * MINUTE) * 3 * MINUTE - DOWNLOADED_MINUTES * MINUTE
    words = ["download-data", "--timerange", f"{begin_ms}-", "--timeframes", *(bot.interval for bot in BOTS)]
    run = subprocess.run(scene.command(BOTS[0], *words), capture_output=True, text=True, timeout=600, check=False)
    wrong = [f"download-data: exit code {run.returncode}\n{run.stderr}"] if run.returncode else []
    wrong += [f"download-data: {line}" for line in error_lines(run.stdout + run.stderr)]
    count = 0
    for bot in BOTS:
        for symbol, pair in zip(scene.symbols, scene.pairs, strict=True):
            base = pair.replace("/", "_")
            rows = rows_of(scene.directory / BOTS[0].strategy / "data" / "binance" / f"{base}-{bot.interval}.feather")
            count += len(rows)
            if [row[0] for row in rows] != list(range(begin_ms, rows[-1][0] + 1, bot.step_ms)):
                wrong.append(f"download-data: {pair} {bot.interval} is not complete")
            wrong += [
                f"download-data: {pair} {bot.interval} differs: {row}"
                for row in rows
                if row != true_row(scene.exchange, symbol, bot.interval, row[0])
            ]
    print(f"download-data: {count} candles of {PAIRS} pairs, 1m and 3m, compared with the exchange's")
    return wrong


def error_lines(log: str) -> list[str]:
    """Return the lines of a log of freqtrade that tell of an error or a warning."""
    return [
        line
        for line in log.splitlines()
        if re.search(r" - (ERROR|CRITICAL|WARNING) - |Traceback", line) and not HARMLESS.search(line)
    ]


def judge_bots(scene: Stage, seconds: float) -> list[str]:
    """Let the bots trade side by side; return what is wrong."""
    running: list[tuple[Bot, subprocess.Popen[bytes], Path]] = []
    begin_ms = scene.exchange.now_ms()
    for bot in BOTS:
        log, analysed = (scene.directory / f"{bot.strategy}.{kind}" for kind in ("log", "analysed"))
        analysed.touch()
        words = scene.command(bot, "trade", "--strategy", bot.strategy, "--strategy-path", str(STRATEGIES))
        environment = {**os.environ, "ANALYSED": str(analysed)}
        with open(log, "wb") as file:
            process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment)
        running.append((bot, process, log))
    time.sleep(seconds)
    wrong = []
    for bot, process, log in running:
        if process.poll() is not None:
            wrong.append(f"{bot.strategy}: ended by itself, exit code {process.returncode}")
        process.send_signal(signal.SIGINT)
        process.wait(STOP_SECONDS)
        text = log.read_text()
        wrong += [f"{bot.strategy}: {line}" for line in error_lines(text)]
        print(f"{bot.strategy}: {text.count('Long signal found')} entries, {text.count('Exit for')} exits")
        wrong += judge_analyses(scene, bot, begin_ms)
    return wrong


def judge_analyses(scene: Stage, bot: Bot, begin_ms: int) -> list[str]:
    """Compare what a bot analysed with the exchange's final candles; return what is wrong."""
    lines = [json.loads(line) for line in (scene.directory / f"{bot.strategy}.analysed").read_text().splitlines()]
    wrong: list[str] = []
    opens: dict[str, list[int]] = {pair: [] for pair in scene.pairs}
    ages_ms = [0]
    early = 0
    for line in lines:
        pair, (before, newest) = line["pair"], line["candles"]
        opens[pair].append(newest[0])
        age_ms = line["at_ms"] - newest[0] - bot.step_ms
        ages_ms.append(age_ms)
        finals = [true_row(scene.exchange, pair.replace("/", ""), bot.interval, row[0]) for row in (before, newest)]
        if before != finals[0]:
            wrong.append(f"{bot.strategy}: {pair} analysed {before}, which is not the exchange's {finals[0]}")
        if newest != finals[1]:
            if bot.by_stream and finals[1] is not None and grows_into(newest, finals[1]):
                early += 1
            else:
                wrong.append(f"{bot.strategy}: {pair} analysed {newest}, {age_ms} ms after its end, not {finals[1]}")
        if age_ms >= bot.step_ms + SLACK_MS:
            wrong.append(f"{bot.strategy}: {pair} was analysed {age_ms / 1000:.0f} s after its newest candle ended")
    for pair, found in opens.items():
        if not found:
            wrong.append(f"{bot.strategy}: {pair} was never analysed")
        elif sorted({*found}) != list(range(found[0], found[-1] + 1, bot.step_ms)):
            moments = [datetime.fromtimestamp(open_ms / 1000, UTC).strftime("%H:%M") for open_ms in found]
            wrong.append(f"{bot.strategy}: {pair} missed a candle: {' '.join(moments)}")
    spent_seconds = (scene.exchange.now_ms() - begin_ms) / 1000
    print(
        f"{bot.strategy}: {len(lines)} analyses of {bot.interval} in {spent_seconds:.0f} s, "
        f"by {'stream' if bot.by_stream else 'REST'}; {early} before the last event of their newest candle, "
        f"which had ended {statistics.median(ages_ms) / 1000:.1f} s before (median), {max(ages_ms) / 1000:.1f} s (most)"
    )
    return wrong


def grows_into(row: list[float], final: list[float]) -> bool:
    """Say whether a candle can be an earlier state of the final one."""
    _, opening, high, low, _, volume = row
    return opening == final[1] and high <= final[2] and low >= final[3] and volume <= final[5]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long the bots trade")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="candleshm-acceptance-") as directory, stage(Path(directory)) as scene:
        wrong = judge_download(scene) + judge_bots(scene, options.seconds)
        stats = scene.exchange.stats()
        print(f"the exchange saw {stats.count('/klines')} requests for candles, all by the collector or its gateway")
        print(f"weight: {stats.pools['SPOT'].total} in all, {stats.pools['SPOT'].peak_60s} at most in 60 seconds")
        if wrong:
            print("gateway's log:", (Path(directory) / "gateway.log").read_text(), sep="\n")
    print("\n".join(wrong[:40]) or "all is well")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
