"""Every snippet of the README, the docs and the docstrings runs, against a real collector and the simulated exchange.

Python snippets of a page share one namespace, in order. Where a page names the exchange's hosts, default block names or
days, the test puts its own in their place. Loops over closes end after the first one. Console snippets: commands of
candleshm are parsed, verbs of make exist. A snippet that cannot run has `<!-- not run: REASON -->` in front of it.

Examples in docstrings are compared with what they show. Those marked `+SKIP` need a collector, or show prices: they run
as the snippets of pages do.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import candleshm
from candleshm import cli
from candleshm.commands.settings import configuration
from candleshm.sim import SimulatedExchange
from tests.support.commanding import run

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"(<!-- not run: [^\n]+ -->\n+)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    page: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def snippets(*languages: str) -> list[Snippet]:
    return [
        Snippet(page, number, language, text)
        for page in PAGES
        for number, (skipped, language, text) in enumerate(FENCE.findall((ROOT / page).read_text()))
        if language in languages and not skipped
    ]


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=3, symbols=6) as running:
        yield running


@pytest.fixture
def stage(
    exchange: SimulatedExchange, block_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """A collector of 1s candles and a derived block, three days of files; yields what stands for what on the pages."""
    days = [(datetime.now(UTC) - timedelta(days=back)).strftime("%Y-%m-%d") for back in (3, 1)]
    monkeypatch.chdir(tmp_path)
    symbols = ["--market", "spot", "--symbols", "BTCUSDT,ETHUSDT", "--base-url", exchange.base_url]
    downloaded = run("download", *symbols, "--start", days[0], "--candle-dir", "candles", "--timezone", "UTC")
    assert downloaded.returncode == 0, downloaded.stderr
    config = candleshm.CollectorConfig(
        market="SPOT",
        symbols=["BTCUSDT", "ETHUSDT"],
        interval="1s",
        length=3000,
        derive=["5m"],
        name=f"{block_name}-spot-1m",
        base_url=exchange.base_url,
    )
    prices = [
        candleshm.CollectorConfig(
            market="UM", price=price, symbols=["BTCUSDT"], name=f"{block_name}-{price}", base_url=exchange.base_url
        )
        for price in ("mark", "index")
    ]
    with ExitStack() as stack:
        for each in (config, *prices):
            assert stack.enter_context(candleshm.Collector(each)).wait_loaded(60)
        yield {
            "candleshm-um-mark-1m": prices[0].block_name,
            "candleshm-um-index-1m": prices[1].block_name,
            "candleshm-spot-5m": f"{block_name}-spot-1m-5m",
            "candleshm-spot-1m": f"{block_name}-spot-1m",
            "https://api.binance.com": exchange.base_url,
            'funding("UM", "BTCUSDT", "2026-11-01", "2026-11-27")': (
                f"funding('UM', 'BTCUSDT', {days[0]!r}, {days[1]!r}, base_url={exchange.base_url!r})"
            ),
            'funding("UM", "BTCUSDT")': f"funding('UM', 'BTCUSDT', base_url={exchange.base_url!r})",
            "2026-11-01": days[0],
            "2026-11-27": days[1],
            'symbols=["BTCUSDT"])': f"symbols=['BTCUSDT'], base_url={exchange.base_url!r}, name={block_name!r})",
            '("SPOT", MyRule)': f"('SPOT', MyRule, base_url={exchange.base_url!r}, name={block_name!r})",
            "rule=MyRule)": f"rule=MyRule, base_url={exchange.base_url!r}, name={block_name!r})",
            "proxy_host=None)": f"proxy_host=None, base_url={exchange.base_url!r}, name={block_name!r})",
        }


class OneClose(ast.NodeTransformer):
    """Ends every loop over closes after its first round, and makes `async for` run."""

    def visit_For(self, node: ast.For) -> ast.For:
        if "closes()" in ast.unparse(node.iter):
            node.body.append(ast.Break())
        return node


def execute(text: str, place: str, stage: dict[str, str], namespace: dict[str, object]) -> None:
    """Run a snippet on the stage; what it defines stays in the namespace."""
    for shown, ours in stage.items():
        text = text.replace(shown, ours)
    tree = ast.fix_missing_locations(OneClose().visit(ast.parse(text)))
    exec(compile(tree, place, "exec"), namespace)


@pytest.mark.parametrize("page", sorted({snippet.page for snippet in snippets("python")}))
def test_the_python_snippets_of_a_page_run_in_order(page: str, stage: dict[str, str]) -> None:
    namespace: dict[str, object] = {"__name__": "snippet", "candleshm": candleshm}
    feed = candleshm.attach(stage["candleshm-spot-1m"])
    namespace |= {"feed": feed, "btc": feed["BTCUSDT"], "start": stage["2026-11-01"], "end": stage["2026-11-27"]}
    for snippet in snippets("python"):
        if snippet.page == page:
            execute(snippet.text, str(snippet), stage, namespace)
    feed.close()


@pytest.mark.parametrize("snippet", snippets("console"), ids=str)
def test_the_commands_of_a_page_can_be_parsed(snippet: Snippet) -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [line[2:] for line in snippet.text.splitlines() if line.startswith("$ ")]
    assert commands
    for command in commands:
        words = shlex.split(command, comments=True)
        if words[0] == "candleshm":
            cli.make_parser().parse_args(words[1:])
        elif words[0] == "make":
            assert words[1] in verbs, command


@pytest.mark.parametrize("snippet", snippets("toml"), ids=str)
def test_the_settings_of_a_page_are_settings(snippet: Snippet, tmp_path: Path) -> None:
    path = tmp_path / "page.toml"
    path.write_text(snippet.text)
    # A part of a file may leave out what the whole must have.
    found = configuration({} if "market" in snippet.text else {"market": "spot"}, path)
    assert found.feeds or found.mirrors


def docstrings() -> list[doctest.DocTest]:
    """Return the examples of every docstring of the package, the compiled module's among them."""
    names = [found.name for found in pkgutil.walk_packages(candleshm.__path__, "candleshm.")]
    modules = [importlib.import_module(name) for name in ("candleshm", *names) if not name.endswith("__main__")]
    finder = doctest.DocTestFinder()
    found = {
        test.docstring: test
        for module in modules
        for test in finder.find(module, extraglobs={"candleshm": candleshm})
        if test.examples
    }
    return list(found.values())


def needs_a_collector(example: doctest.Example) -> bool:
    return example.options.get(doctest.SKIP, False)


def test_the_examples_of_docstrings_show_what_comes_out() -> None:
    runner = doctest.DocTestRunner()
    lines: list[str] = []
    tests = docstrings()
    for test in tests:
        runner.run(test, out=lines.append)
    failed, tried = runner.summarize()
    assert failed == 0, "".join(lines)
    assert tried >= 15
    assert sum(needs_a_collector(example) for test in tests for example in test.examples) >= 12


def test_the_examples_of_docstrings_that_need_a_collector_run(stage: dict[str, str]) -> None:
    with (
        candleshm.attach(stage["candleshm-spot-1m"]) as feed,
        candleshm.attach(stage["candleshm-spot-5m"]) as five_minutes,
    ):
        shared = {"feed": feed, "btc": feed["BTCUSDT"], "five_minutes": five_minutes, "minutes": feed.panel("close")}
        for test in docstrings():
            if any(map(needs_a_collector, test.examples)):
                namespace = test.globs | shared
                for example in test.examples:
                    if doctest.SKIP not in example.options:
                        execute(example.source, test.name, stage, namespace)


def test_there_are_snippets_of_every_kind() -> None:
    assert len(snippets("python")) >= 11
    assert len(snippets("console")) >= 8
    assert len(snippets("toml")) >= 1
