"""The command `demo`: the whole product on one machine, without network."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from candleshm.commands.children import Children
from candleshm.commands.gateway import check_libraries
from candleshm.commands.screen import Screen
from candleshm.commands.signals import on_stop_signal
from candleshm.errors import BlockError, BlockNotFound, CandleShmError, MissingExtra
from candleshm.gateway.listening import listen
from candleshm.reader.feed import attach, unlink
from candleshm.sim import SimulatedExchange

__all__ = ["demo"]

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "ADAUSDT", "LINKUSDT")
# Both collectors share the weight of one egress, as they would at the real exchange: this leaves some of it unused.
UPDATE_SECONDS = {"1s": 0.5, "1m": 1.0}
READY_SECONDS = 30.0


def demo(seconds: float, name: str) -> None:
    """Run for `seconds` after everything is up, or until a signal, with the blocks `{name}-1s` and `{name}-1m`.

    Leaves no process and no block behind. Raises CandleShmError when a process ends early.
    """
    stop = threading.Event()
    on_stop_signal(stop.set)
    names = {interval: f"{name}-{interval}" for interval in UPDATE_SECONDS}
    try:
        with (
            # The port, and with it the ledger of its weight, may belong to another simulated exchange tomorrow.
            tempfile.TemporaryDirectory(prefix="candleshm-demo-") as ledgers,
            SimulatedExchange(symbols=len(SYMBOLS)) as exchange,
            Children(stop, {"XDG_RUNTIME_DIR": ledgers}) as children,
        ):
            port = _gateway_port()
            _tell(seconds, names["1m"], port)
            for interval, block_name in names.items():
                children.start(
                    f"the collector of `{block_name}`",
                    *("-m", "candleshm", "serve", "--market", "spot", "--symbols", ",".join(SYMBOLS)),
                    *("--interval", interval, "--name", block_name, "--base-url", exchange.base_url),
                    *("--update-interval-seconds", str(UPDATE_SECONDS[interval])),
                )
            if port:
                children.start(
                    "the gateway",
                    *("-m", "candleshm", "gateway", "--listen", f"127.0.0.1:{port}", "--base-url", exchange.base_url),
                    *(word for block_name in names.values() for word in ("--block", block_name)),
                )
            if not children.watch(READY_SECONDS, until=lambda: all(map(_is_ready, names.values()))):
                if stop.is_set():
                    return
                raise CandleShmError(f"the collectors are not ready after {READY_SECONDS:g} s")
            children.start("the strategy", "-m", "candleshm.commands.strategy", *names.values(), shows=True)
            children.watch(seconds)
    finally:
        Screen().restore()
        for block_name in names.values():
            # A collector that was killed leaves its block; one that runs elsewhere under the name keeps its own.
            with contextlib.suppress(BlockError):
                unlink(block_name)
    sys.stdout.write("Next: First candles in five minutes, docs/tutorials/first-candles.md\n")


def _gateway_port() -> int:
    """Return a free port for the gateway, 0 without the extra `web`. The usual one may be taken a moment later."""
    try:
        check_libraries()
    except MissingExtra:
        return 0
    with listen("127.0.0.1", 0) as listener:
        return int(listener.getsockname()[1])


def _tell(seconds: float, block_name: str, port: int) -> None:
    script = Path(sys.executable).with_name("candleshm")
    command = "candleshm" if shutil.which("candleshm") else os.path.relpath(script)
    if not script.exists():
        command = f"{os.path.relpath(sys.executable)} -m candleshm"
    page = f"Meanwhile open http://127.0.0.1:{port} in a browser." if port else "The extra `web` adds a page to it."
    sys.stdout.write(
        f"A simulated exchange, two collectors and a strategy, each a process; {seconds:g} s or Ctrl-C. {page}\n"
        f"From another shell: {command} read {block_name} {SYMBOLS[0]}\n"
    )
    sys.stdout.flush()


def _is_ready(block_name: str) -> bool:
    try:
        with attach(block_name) as feed:
            return feed.health.ready
    except BlockNotFound:
        return False
