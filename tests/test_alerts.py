"""Alerts and the dashboard: what Prometheus itself says of them, and that they name metrics which there are."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

import candleshm
from candleshm.sim import SimulatedExchange
from tests.support.apt import installed
from tests.support.commanding import DEADLINE_SECONDS, first_lines, serving, started, until
from tests.support.gateways import gateway_command

ROOT = Path(__file__).parents[1]
OPS = ROOT / "ops"
ALERTS = OPS / "prometheus/alerts.yml"
PROMTOOL = {"promtool": "prometheus"}
# What Prometheus adds by itself, and the words of its language in front of a bracket or brace.
OWN = {"up", "ALERTS"}
NAME = re.compile(r"\b((?:candleshm|process)_\w+|up|ALERTS)\b")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The pages of a collector with streams, and of a gateway that was asked for candles."""
    name = f"test-alerts-{tmp_path_factory.mktemp('x').name}"
    with SimulatedExchange(symbols=2) as exchange:
        words = [*serving(exchange, name), "--ws-url", exchange.ws_url, "--metrics", "0", "--derive", "5m"]
        with started(*words) as process, gateway_command([name], exchange.base_url) as gateway:
            url = first_lines(process, 3)[-1].removeprefix("metrics: ").strip()
            until(lambda: candleshm.attach(name).health.ready)
            query = {"symbol": "BTCUSDT", "interval": "1m", "limit": "5"}
            until(lambda: requests.get(f"{gateway}/api/v3/klines", query, timeout=DEADLINE_SECONDS).ok)
            until(lambda: "candleshm_stream_losses_total" in requests.get(url, timeout=DEADLINE_SECONDS).text)
            pages = [requests.get(where, timeout=DEADLINE_SECONDS).text for where in (url, f"{gateway}/metrics")]
            yield pages[0], pages[1]
    # The collector was killed.
    for left in Path("/dev/shm").glob(f"*{name}*"):
        left.unlink()


def names_of(page: str) -> set[str]:
    """Return the names of samples, and of counters that have none yet."""
    samples = re.findall(r"^(\w+)(?:\{| )", page, re.MULTILINE)
    return {*samples, *re.findall(r"^# TYPE (\w+) ", page, re.MULTILINE)}


@pytest.mark.parametrize(
    "words", ["check rules alerts.yml", "check config prometheus.yml", "test rules alerts_test.yml"]
)
def test_prometheus_accepts_the_alerts_and_each_fires_on_its_fault_alone(words: str) -> None:
    [promtool] = installed(PROMTOOL)
    done = subprocess.run([promtool, *words.split()], cwd=ALERTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_and_says_what_to_do() -> None:
    tried = re.findall(r"^  - name: (Candleshm\w+)$", (ALERTS.parent / "alerts_test.yml").read_text(), re.MULTILINE)
    listed = re.findall(r"^\| `(Candleshm\w+)` \|", (ROOT / "docs/operating.md").read_text(), re.MULTILINE)
    assert [rule["alert"] for rule in rules()] == tried == listed
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "action", "docs"}
        page, _, anchor = rule["annotations"]["docs"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, f"{rule['alert']}: {page} has no {anchor}"


def test_metrics_are_as_prometheus_wants_them(scraped: tuple[str, str]) -> None:
    [promtool] = installed(PROMTOOL)
    for page in scraped:
        done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_alerts_and_dashboard_name_metrics_that_there_are(scraped: tuple[str, str]) -> None:
    there = names_of(scraped[0]) | names_of(scraped[1]) | OWN
    dashboard = json.loads((OPS / "grafana/candleshm.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked += [variable["query"]["query"] for variable in dashboard["templating"]["list"] if "refresh" in variable]
    for expression in [*asked, *(rule["expr"] for rule in rules())]:
        names = set(NAME.findall(expression))
        assert names
        assert names <= there, f"{expression}: {names - there} are no metrics"


def test_the_dashboard_has_no_panel_twice_and_none_beside_the_grid() -> None:
    panels = json.loads((OPS / "grafana/candleshm.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
