"""Alerts, seen firing: a real Prometheus scrapes a real collector and gateway while the simulated exchange fails.

`python -m tests.acceptance.alerts`. The rules are those of ops/prometheus/alerts.yml, with waits of seconds in place
of minutes. Not provoked: CandleshmNoHeartbeat (a process that is stopped cannot be scraped either), and two that take
hours or a full machine (CandleshmDailyFilesFailing, CandleshmSharedMemoryFull); `promtool test rules` covers these.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import requests

import candleshm
from candleshm.sim import Fault, SimulatedExchange
from candleshm.sim.faults import rate_limited
from candleshm.sim.stream.faults import StreamFault
from candleshm.sim.world.events import Restatement
from tests.support.apt import installed
from tests.support.commanding import first_line, first_lines, started

ALERTS = Path(__file__).parents[2] / "ops/prometheus/alerts.yml"
NAME = "acceptance-alerts"
PORT = 9790
WAIT_SECONDS = 150.0
SPOT_LIMIT = 1200
NOT_PROVOKED = {"CandleshmNoHeartbeat", "CandleshmDailyFilesFailing", "CandleshmSharedMemoryFull"}


class Watch:
    """What Prometheus says of the alerts."""

    def __init__(self, names: Sequence[str]) -> None:
        self.unseen = set(names)

    def firing(self) -> set[str]:
        """Return which alerts fire now."""
        with suppress(requests.ConnectionError):
            alerts = requests.get(f"http://127.0.0.1:{PORT}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
            return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
        return set()

    def wait(self, cause: str, *names: str) -> None:
        """Wait until these fire. Exits with 1 when they do not."""
        began, left = time.monotonic(), set(names)
        while left:
            left -= self.firing()
            if time.monotonic() - began > WAIT_SECONDS:
                sys.exit(f"{cause}: {', '.join(sorted(left))} did not fire within {WAIT_SECONDS:.0f} s")
            time.sleep(0.5)
        self.unseen -= set(names)
        print(f"  {time.monotonic() - began:5.1f} s after: {cause}: {', '.join(names)}", flush=True)

    def wait_silent(self, *lasting: str) -> None:
        """Wait until nothing fires but what looks back over minutes."""
        began = time.monotonic()
        while firing := self.firing() - set(lasting):
            if time.monotonic() - began > WAIT_SECONDS:
                sys.exit(f"still firing in health: {', '.join(sorted(firing))}")
            time.sleep(0.5)
        print(f"  {time.monotonic() - began:5.1f} s later nothing else fires", flush=True)


@contextmanager
def prometheus(directory: Path, collector: str, gateway: str) -> Iterator[None]:
    """Run the server with the project's rules, whose waits are two seconds."""
    rules = re.sub(r"for: \d+[mhs]\b", "for: 2s", ALERTS.read_text())
    (directory / "alerts.yml").write_text(rules)
    targets = {"candleshm": collector, "candleshm-gateway": gateway}
    jobs = "".join(
        f'  - job_name: {job}\n    static_configs: [{{ targets: ["{target}"] }}]\n' for job, target in targets.items()
    )
    (directory / "prometheus.yml").write_text(
        f"global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [alerts.yml]\nscrape_configs:\n{jobs}"
    )
    [program] = installed({"prometheus": "prometheus"})
    words = [program, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
    with (directory / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*words, f"--web.listen-address=127.0.0.1:{PORT}"], stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    """Provoke one fault after the other."""
    names = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    watch = Watch([name for name in names if name not in NOT_PROVOKED])
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stage:
        directory = Path(temporary)
        cache = directory / "cache"
        exchange = stage.enter_context(SimulatedExchange(symbols=6, spot_limit=SPOT_LIMIT))
        address = ["--base-url", exchange.base_url]
        words = ["serve", "--market", "spot", "--interval", "1m", "--length", "60", "--name", NAME, *address]
        streams = ["--ws-url", exchange.ws_url, "--cache-dir", str(cache), "--cache-delay-seconds", "2"]
        log = stage.enter_context((directory / "log").open("w"))
        collector = stage.enter_context(started(*words, *streams, "--metrics", "0", stderr=log))
        metrics = first_lines(collector, 2)[-1].split()[-1].removeprefix("http://").removesuffix("/metrics")
        gateway = stage.enter_context(started("gateway", "--listen", "0", "--block", NAME, *address, stderr=log))
        url = first_line(gateway).split()[-1]
        stage.enter_context(prometheus(directory, metrics, url.removeprefix("http://")))

        print("in health", flush=True)
        time.sleep(20.0)
        watch.wait_silent()

        exchange.faults.add(rate_limited(20, count=1))
        watch.wait("the exchange answers 429", "CandleshmStoppedByExchange")
        watch.wait_silent()

        for _ in range(SPOT_LIMIT // 2 - 40):
            requests.get(f"{exchange.base_url}/api/v3/klines?symbol=BTCUSDT&interval=1m", timeout=10)
        watch.wait("another program spends the weight of this address", "CandleshmWeightHigh")
        watch.wait_silent()

        cache.rename(directory / "moved")
        cache.write_text("a file where the directory was")
        watch.wait("the cache's directory is gone", "CandleshmCacheFailing")
        cache.unlink()
        shutil.move(directory / "moved", cache)
        watch.wait_silent()

        for _ in range(200):
            requests.get(f"{url}/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=1000", timeout=10)
        watch.wait("bots ask the gateway for more than the window", "CandleshmGatewayRefuses")

        exchange.stream_faults.add(StreamFault(kind="mute"))
        watch.wait("every stream is mute", "CandleshmStreamsStalled", "CandleshmFailedOverToRequests")
        exchange.faults.add(Fault(kind="status", status=503))
        watch.wait("and every request fails", "CandleshmStaleSeries", "CandleshmNotReady")
        exchange.stream_faults.clear()
        watch.wait("streams flow again, requests do not", "CandleshmRowsMissing")
        exchange.faults.clear()
        watch.wait_silent("CandleshmGatewayRefuses")

        minute_ms = exchange.now_ms() // 60_000 * 60_000
        for instrument in (item for item in exchange.truth.instruments("SPOT") if item.quote == "USDT"):
            for back in range(3, 20):
                at_ms = minute_ms - back * 60_000
                minute = Restatement(market="SPOT", symbol=instrument.symbol, minute_ms=at_ms, lots=1000)
                with suppress(ValueError):  # a minute without trades
                    exchange.truth.restate(minute)
        watch.wait("the exchange corrects closed rows", "CandleshmCorrectionsRise")

        exchange.faults.add(Fault(kind="hang", path="/klines"))
        port = str(int(metrics.rpartition(":")[2]))
        collector.terminate()
        collector.wait()
        watch.wait("the collector has ended", "CandleshmCollectorDown")
        shutil.rmtree(cache)
        stage.enter_context(started(*words, "--metrics", port, stderr=log))
        watch.wait("a start gets no candles", "CandleshmNotLoaded")
        gateway.kill()
        watch.wait("the gateway is killed", "CandleshmGatewayDown")
    # The last collector was killed.
    candleshm.unlink(NAME)
    if watch.unseen:
        sys.exit(f"never provoked: {', '.join(sorted(watch.unseen))}")
    print(f"all {len(names) - len(NOT_PROVOKED)} alerts that can be provoked were seen firing", flush=True)


if __name__ == "__main__":
    main()
