"""What the simulated exchange's stream side can push, and what that costs: it must leave the machine to its clients.

    python benches/pushes.py             500 symbols at 4, 20 and 40 events/s each, about a minute and a half
    python benches/pushes.py --symbols N

The exchange is a process of its own, whose CPU time is told apart. The client only drains its socket and takes the time
of receipt of every event, so its latency is the floor for any real one: from the making of the event's text, through
the batch it is sent in, to the return of the client's `recv`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

from websockets.client import ClientProtocol
from websockets.uri import parse_uri

PERIODS_MS = (250, 50, 25)
WARM_SECONDS, MEASURED_SECONDS = 8.0, 20.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STAMP = re.compile(rb'"ns":(\d+)')


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def subscribed(url: str, names: list[str]) -> socket.socket:
    """Return the socket of a connection that has subscribed to streams, in two messages."""
    protocol = ClientProtocol(parse_uri(url))
    host, port = url.removeprefix("ws://").split("/")[0].split(":")
    client = socket.create_connection((host, int(port)))
    protocol.send_request(protocol.connect())
    client.sendall(b"".join(protocol.data_to_send()))
    protocol.receive_data(client.recv(65_536))
    half = -(-len(names) // 2)
    for part in (names[:half], names[half:]):
        protocol.send_text(json.dumps({"method": "SUBSCRIBE", "params": part, "id": 1}).encode())
    client.sendall(b"".join(protocol.data_to_send()))
    return client


def drain(client: socket.socket, seconds: float) -> list[int]:
    """Read for a while; return every event's latency in ns."""
    latencies: list[int] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = client.recv(1 << 20)
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        latencies += [now_ns - int(stamp) for stamp in STAMP.findall(data)]
    return latencies


def measure(base_url: str, pid: int, names: list[str], period_ms: int) -> str:
    """Return one line of the table."""
    markets = ("SPOT", "UM", "CM")
    rules = {
        "period_ms": dict.fromkeys(markets, period_ms),
        "unchanged": dict.fromkeys(markets, True),
        "stamp": True,
    }
    urllib.request.urlopen(f"{base_url}/sim/stream-rules", json.dumps(rules).encode(), timeout=10).close()
    with subscribed(f"{base_url.replace('http', 'ws')}/market/ws", names) as client:
        drain(client, WARM_SECONDS)
        before, started = cpu_seconds(pid), time.monotonic()
        latencies = sorted(drain(client, MEASURED_SECONDS))
        used, elapsed = cpu_seconds(pid) - before, time.monotonic() - started
    middle, late = (latencies[int(len(latencies) * share)] / 1e3 for share in (0.5, 0.99))
    return (
        f"{1000 // period_ms:>8} {len(latencies) / elapsed:>10.0f} {used / elapsed:>8.0%}"
        f" {used / len(latencies) * 1e6:>10.1f} {middle:>9.0f} {late:>9.0f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=500)
    symbols: int = parser.parse_args().symbols
    command = [sys.executable, "-m", "candleshm", "sim", "--symbols", str(symbols)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as exchange:
        assert exchange.stdout is not None
        base_url = exchange.stdout.readline().strip()
        try:
            with urllib.request.urlopen(f"{base_url}/fapi/v1/exchangeInfo", timeout=60) as answer:
                listed = [item for item in json.load(answer)["symbols"] if item["status"] == "TRADING"]
            names = [f"{item['symbol'].lower()}@kline_1m" for item in listed][:symbols]
            print(f"{len(names)} UM symbols, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; latency in us")
            print(f"{'each/s':>8} {'events/s':>10} {'CPU':>8} {'us/event':>10} {'p50':>9} {'p99':>9}")
            for period_ms in PERIODS_MS:
                print(measure(base_url, exchange.pid, names, period_ms), flush=True)
        finally:
            exchange.terminate()


if __name__ == "__main__":
    main()
