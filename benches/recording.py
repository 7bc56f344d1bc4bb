"""What recording costs a collector: CPU per event, memory and bytes on disk, beside the same collector without.

    python benches/recording.py              both, about two minutes
    python benches/recording.py --quick
    python benches/recording.py --json FILE

The sender of `live.py` sends the events of 500 symbols four times a second to two collectors, of which one records.
They take turns by the second; each has an exchange and a sender of its own. Then each gets bursts, as fast as it reads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import live
import numpy as np
import pyarrow as pa

PLAIN, RECORDING = "without", "recording"
RECORD_BYTES = "2GiB"
OPEN_MS = 1_790_000_000_000


def memory_bytes(pid: int) -> int:
    """Return the memory of a process that is its own: no page of a block, which all share."""
    pages = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    return sum(int(pages[pages.index(key) + 1]) * 1024 for key in ("Private_Clean:", "Private_Dirty:"))


def disk_bytes(directory: Path) -> int:
    """Return the bytes of all files."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def packed_bytes(symbols: int = 500, batch_events: int = 400, batches: int = 50) -> float:
    """Return the bytes on disk of an event whose prices, volumes and trade ids go at random, as those of an exchange.

    The sender's events differ in times and counts only. A batch is what comes in the 0.2 s between two writes.
    """
    chance = np.random.default_rng(1)
    opened, volumes, trades = (
        np.exp(chance.normal(1, 3, symbols)),
        chance.random(symbols) * 1e5,
        np.full(symbols, 10**8),
    )
    closed, packed = opened.copy(), 0
    codec = pa.Codec("zstd", compression_level=3)
    for batch in range(batches):
        events = []
        for symbol in chance.permutation(symbols)[:batch_events]:
            closed[symbol] *= 1 + chance.normal() * 1e-4
            volumes[symbol] += chance.random() * 100
            trades[symbol] += chance.integers(1, 30)
            name, price, volume = f"SYM{symbol:03}USDT", closed[symbol], volumes[symbol]
            kline = {
                "t": OPEN_MS,
                "T": OPEN_MS + 59_999,
                "s": name,
                "i": "1m",
                "f": int(trades[symbol]) - 500,
                "L": int(trades[symbol]),
                "o": f"{opened[symbol]:.6f}",
                "c": f"{price:.6f}",
                "h": f"{max(opened[symbol], price):.6f}",
                "l": f"{min(opened[symbol], price):.6f}",
                "v": f"{volume:.3f}",
                "n": int(volume) % 5000,
                "x": False,
                "q": f"{volume * price:.8f}",
                "V": f"{volume * 0.4:.3f}",
                "Q": f"{volume * price * 0.4:.8f}",
                "B": "0",
            }
            data = {"e": "kline", "E": OPEN_MS + batch * 200 + int(chance.integers(200)), "s": name, "k": kline}
            events.append(json.dumps({"stream": f"{name.lower()}@kline_1m", "data": data}, separators=(",", ":")))
        packed += len(codec.compress("".join(events).encode()))
    return packed / (batches * batch_events)


def run(directory: Path, rounds: int, burst_count: int) -> dict[str, dict[str, float]]:
    """Measure both by turns."""
    starts = {
        PLAIN: live.collector,
        RECORDING: partial(live.collector, changes={"record": str(directory), "record_bytes": RECORD_BYTES}),
    }
    with ExitStack() as stack:
        names, contenders = {}, {}
        for kind, start in starts.items():
            names[kind], contenders[kind] = stack.enter_context(live.collecting(start))
        samples = {kind: live.Samples() for kind in contenders}
        before_bytes, before_events = 0, 0
        for number in range(rounds + 1):
            for kind in sorted(contenders, reverse=bool(number % 2)):
                # The first round warms up.
                contenders[kind].turn(samples[kind] if number else live.Samples())
            if number == 0:
                time.sleep(1)  # what waited is written five times a second
                before_bytes, before_events = disk_bytes(directory), contenders[RECORDING].sender.ask("sent")["sent"]
        time.sleep(1)
        written_bytes = disk_bytes(directory) - before_bytes
        recorded = contenders[RECORDING].sender.ask("sent")["sent"] - before_events
        results = {kind: samples[kind].summary for kind in samples}
        for kind, contender in contenders.items():
            results[kind]["memory_mb"] = memory_bytes(contender.receiver.pid) / 1e6
        results[RECORDING]["disk_bytes_per_event"] = written_bytes / recorded
        for kind, contender in contenders.items():
            found = live.bursts(names[kind], contender, burst_count)
            results[kind] |= {f"burst_{key}": value for key, value in found.items()}
            results[kind]["burst_memory_mb"] = memory_bytes(contender.receiver.pid) / 1e6
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns, one burst")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    subprocess.run(live.BUILD, cwd=live.PROGRAMS.parents[2], check=True)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        results = run(Path(directory), *((8, 1) if arguments.quick else (30, 5)))
    for kind, result in results.items():
        live.shown(kind, result)
    print(f"on disk, an event with prices of a random walk: {packed_bytes():.0f} bytes", flush=True)
    plain, recording = results[PLAIN], results[RECORDING]
    for key in ("cpu_us_per_event", "p50_us", "memory_mb", "burst_cpu_us_per_event", "burst_events_per_second"):
        ratio = recording[key] / plain[key]
        print(f"  {key:<28} {recording[key] - plain[key]:+,.2f}  {np.round(ratio, 2)}x", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
