"""What the gateway's page costs: ``python benches/gateway_page.py [--symbols 2000] [--seconds 20]``.

A process writes every series of a block twice a second, a gateway serves the page, and Chromium shows it (apt install
chromium chromium-driver; pip install selenium). Printed: first paint, what an update of all rows costs the main thread,
bytes per second, and the CPU of the gateway without a page, with one, and with ten more that only read.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from candleshm import _core

MINUTE_MS = 60_000
LENGTH = 1440
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def write(name: str, count: int) -> None:
    """Write until stdin ends: all series have a new price every half second."""
    symbols = [f"SIM{number:04d}USDT" for number in range(count)]
    writer = _core.Writer.open(name, market="SPOT", interval="1m", length=LENGTH, symbols=symbols)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    live_ms = int(time.time() * 1000) // MINUTE_MS * MINUTE_MS
    for number, symbol in enumerate(symbols):
        opens_ms = range(live_ms - (LENGTH - 1) * MINUTE_MS, live_ms + 1, MINUTE_MS)
        ingest(writer, symbol, [row(open_ms, 100 + number, 1) for open_ms in opens_ms])
    writer.set_health(ready=True, weight_used=120, weight_limit=6000, banned_until_ms=None)
    print("written", flush=True)
    trades = 1
    try:
        while not ended.wait(0.5):
            trades += 1
            open_ms = int(time.time() * 1000) // MINUTE_MS * MINUTE_MS
            for number, symbol in enumerate(symbols):
                ingest(writer, symbol, [row(open_ms, 100 + number + trades % 7 / 100, trades)])
            writer.heartbeat()
    finally:
        writer.close()


def row(open_ms: int, close: float, trades: int) -> str:
    """Return a kline that has had so many trades."""
    return (
        f'[{open_ms},"{close:.2f}","{close + 1:.2f}","{close - 1:.2f}","{close:.2f}","{trades}",'
        f'{open_ms + MINUTE_MS - 1},"{trades}",{trades},"0","0","0"]'
    )


def ingest(writer: _core.Writer, symbol: str, rows: list[str]) -> None:
    now_ms = int(time.time() * 1000)
    body = f"[{','.join(rows)}]".encode()
    writer.ingest(symbol, body, sent_ms=now_ms, received_ms=now_ms, settle_ms=0, limit=LENGTH, from_end=True)


@contextmanager
def process(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a program that ends with its stdin; give it and its first line."""
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout
        assert started.stdin
        try:
            yield started, started.stdout.readline()
        finally:
            started.stdin.close()
            started.wait()


def cpu_part(pid: int, seconds: float) -> float:
    """Return which part of a core a process uses."""

    def spent() -> int:
        with open(f"/proc/{pid}/stat") as file:
            return sum(map(int, file.read().rpartition(")")[2].split()[11:13]))

    before = spent()
    time.sleep(seconds)
    return (spent() - before) / TICKS_PER_SECOND / seconds


def task_seconds(driver: webdriver.Chrome) -> float:
    """Return the CPU time of all tasks of the page's main thread so far."""
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--window-size=1440,900")
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


def read_on(url: str, read: list[int], number: int) -> None:
    """Read as a page does, and count bytes."""
    try:
        with connect(url, max_size=None) as socket:
            while True:
                read[number] += len(socket.recv())
    except (ConnectionClosed, OSError):
        return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--symbols", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    name = f"bench-page-{os.getpid()}"
    with ExitStack() as stack:
        stack.enter_context(process(sys.executable, __file__, "--write", name, str(arguments.symbols)))
        words = (sys.executable, "-m", "candleshm", "gateway", "--listen", "127.0.0.1:0", "--until-stdin-closes")
        words += ("--block", name)
        gateway, line = stack.enter_context(process(*words))
        url = re.findall(r"http://\S+", line)[0]
        print(
            f"{arguments.symbols} series of {LENGTH} candles, all changed twice a second; load {os.getloadavg()[0]:.1f}"
        )
        time.sleep(3)
        print(f"gateway without a page: {cpu_part(gateway.pid, arguments.seconds):.1%} of a core")
        driver = stack.enter_context(browser())
        paints = []
        for _ in range(5):
            driver.get("about:blank")
            driver.get(url)
            time.sleep(2)
            script = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
            paints.append(driver.execute_script(script))
        print(f"first paint: median {statistics.median(paints):.0f} ms of {[round(paint) for paint in paints]}")
        # Time of the thread, not of the clock: other programs may use the machine.
        driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        before = driver.execute_script("return candleshm.link.bytes")
        began = task_seconds(driver)
        first = driver.execute_script("return candleshm.frames")
        part = cpu_part(gateway.pid, arguments.seconds)
        task_ms = (task_seconds(driver) - began) * 1000
        told = (driver.execute_script("return candleshm.link.bytes") - before) / arguments.seconds
        frames = driver.execute_script("return candleshm.frames") - first
        spent = sorted(driver.execute_script("return candleshm.spentMs.slice(-arguments[0])", frames))
        print(f"gateway with a page: {part:.1%} of a core, {told / 1e3:.0f} kB/s")
        print(f"main thread: {task_ms / frames:.1f} ms of CPU for each of {frames} frames, drawing included")
        median_ms = statistics.median(spent)
        print(f"the page's own code, by the clock: median {median_ms:.1f} ms, most {spent[-1]:.1f} ms a frame")
        read = [0] * 10
        for number in range(10):
            live = url.replace("http", "ws", 1) + "/page/live"
            threading.Thread(target=read_on, args=(live, read, number), daemon=True).start()
        time.sleep(2)
        print(f"gateway with eleven pages: {cpu_part(gateway.pid, arguments.seconds):.1%} of a core")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(sys.argv[2], int(sys.argv[3]))
    else:
        main()
