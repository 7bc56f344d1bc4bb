"""What people meet who use a command for the first time: names of other libraries, several names, plain numbers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from candleshm import CollectorConfig, ConfigError
from candleshm._core import Writer
from candleshm.cli import make_parser
from candleshm.commands.settings import GROUPS, OTHERS
from candleshm.history.lock import writing
from candleshm.sim import SimulatedExchange
from tests.support.commanding import complaint, first_line, run, started

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%d")


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=5, symbols=4) as running:
        yield running


def download(exchange: SimulatedExchange, folder: Path, *words: str) -> str:
    """Return the last line of a download that has to fail; nothing may be left of it."""
    given = ["--base-url", exchange.base_url, "--start", YESTERDAY, "--candle-dir", str(folder / "candles")]
    result = run("download", *words, *given)
    assert result.returncode == os.EX_CONFIG, result.stderr
    assert not (folder / "candles").exists()
    return result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("market", "symbol", "hint"),
    [
        ("spot", "BTC/USDT", "a symbol has no slash; did you mean `BTCUSDT`?"),
        ("spot", "btcusdt", "did you mean BTCUSDT?"),
        ("spot", "BTC-USDT", "did you mean BTCUSDT?"),
        ("spot", "BTC", "did you mean BTCUSDT?"),
        ("spot", "BTCUSDT_261225", "that is the name of a contract of UM, not of SPOT"),
        ("um", "BTCUSD_PERP", "that is the name of a contract of CM, not of UM"),
        ("cm", "BTCUSD", "which is a pair; its symbols: BTCUSD_PERP"),
        ("spot", "BTCUSDT:PERPETUAL", "market SPOT, which has no contracts"),
    ],
)
def test_a_download_of_a_name_from_elsewhere_says_what_was_meant(
    market: str, symbol: str, hint: str, exchange: SimulatedExchange, tmp_path: Path
) -> None:
    assert hint in download(exchange, tmp_path, "--market", market, "--symbols", symbol)


def test_a_list_with_a_slash_says_so() -> None:
    with pytest.raises(ConfigError, match="symbols_filter cannot have `ETH/BTC`: a symbol has no slash"):
        CollectorConfig(market="SPOT", symbols_filter=["BTCUSDT", "ETH/BTC"])


def test_files_of_funding_rates_are_parquet(exchange: SimulatedExchange, tmp_path: Path) -> None:
    said = download(exchange, tmp_path, "--market", "um", "--symbols", "BTCUSDT", "--funding", "--format", "csv")
    assert said == "candleshm: --funding cannot be given with --format csv: files of funding rates are Parquet"


def test_a_price_may_be_written_in_capitals() -> None:
    assert CollectorConfig(market="UM", price="MARK", symbols=["BTCUSDT"]).price == "mark"  # type: ignore[arg-type]


def test_a_tree_that_was_there_and_one_with_files_stay(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    with writing(there / "market=SPOT"):
        pass
    assert there.is_dir()
    assert not list(there.iterdir())
    with writing(there):
        pass
    assert there.is_dir()
    with writing(tmp_path / "new" / "market=SPOT"):
        (tmp_path / "new" / "market=SPOT" / "file").write_text("x")
    assert (tmp_path / "new" / "market=SPOT" / "file").exists()


@pytest.fixture
def blocks(block_name: str) -> Iterator[list[str]]:
    """Two blocks that their collector left behind."""
    names = [f"{block_name}-{number}" for number in (1, 2)]
    for name in names:
        writer = Writer.open(name, market="SPOT", interval="1m", length=10, symbols=["BTCUSDT"], exchange="a.example")
        Path("/dev/shm", name).rename(Path("/dev/shm", f"{name}.kept"))
        writer.close()
        Path("/dev/shm", f"{name}.kept").rename(Path("/dev/shm", name))
    yield names
    for name in names:
        Path("/dev/shm", name).unlink(missing_ok=True)


def test_several_blocks_are_removed_at_once(blocks: list[str], block_name: str) -> None:
    result = run("rm", blocks[0], f"{block_name}-none", blocks[1])
    assert result.stdout.splitlines() == [f"removed {name}" for name in blocks]
    assert result.stderr == (
        f"candleshm: block `{block_name}-none`: no block has that name; `candleshm ls` lists the blocks\n"
    )
    assert result.returncode == 1


def test_ls_shows_the_exchange_of_blocks_that_have_another_one(blocks: list[str]) -> None:
    head, *lines = run("ls").stdout.splitlines()
    assert "EXCHANGE" in head.split()
    (shown,) = (line for line in lines if line.startswith(f"{blocks[0]} "))
    assert "a.example" in shown.split()


def test_serve_has_its_flags_in_groups() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    every = {field.name for field in fields(CollectorConfig)}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) < every
    shown = run("serve", "--help").stdout
    for title in (*GROUPS, OTHERS, "gateway and metrics", "cluster", "log, and the end"):
        assert f"\n{title}:\n" in shown
    assert shown.startswith("usage: candleshm serve --market spot|um|cm [--symbols A,B,...] [OPTION ...]\n")
    assert shown.count("\n  candleshm serve --") > 1
    for name in every:
        assert re.search(rf"^  --{name.replace('_', '-')}[ ,\n]", shown, re.MULTILINE), name


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("XX=http://a.example", "`XX` is no market; use SPOT=URL, UM=URL, CM=URL, or a URL alone"),
        ("UM=a.example", "`a.example` is no URL of a REST host; use UM=https://host"),
        ("SPOT", "`SPOT` is no URL of a REST host; use https://host, or SPOT=https://host for one market"),
    ],
)
def test_a_url_of_the_gateway_that_is_none_is_refused_with_the_form(
    url: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        make_parser().parse_args(["gateway", "--base-url", url])
    assert capsys.readouterr().err.endswith(f"argument --base-url: {said}\n")


def test_the_gateway_takes_the_url_of_the_environment(exchange: SimulatedExchange) -> None:
    before = len(exchange.served())
    words = ["gateway", "--listen", "0", "--pass-through"]
    with started(*words, env={**os.environ, "CANDLESHM_BASE_URL": exchange.base_url}) as process:
        url = first_line(process).split()[1]
        import requests

        assert requests.get(f"{url}/api/v3/ticker/price?symbol=BTCUSDT", timeout=30).json()["symbol"] == "BTCUSDT"
    assert len(exchange.served()) > before
    said = complaint(*words, env={**os.environ, "CANDLESHM_BASE_URL": "ftp://a.example"})
    assert said.startswith("candleshm: CANDLESHM_BASE_URL cannot be ")


def test_a_check_says_how_many_symbols_pass_the_filters(exchange: SimulatedExchange, block_name: str) -> None:
    words = ["serve", "--market", "spot", "--base-url", exchange.base_url, "--name", block_name, "--check"]
    assert "see the filters" not in run(*words).stdout
    shown = run(*words, "--top", "2").stdout
    assert re.search(rf"^{block_name}: 2 of \d+ symbols that trade pass, see the filters$", shown, re.MULTILINE)
    named = [*words, "--symbols", "BTCUSDT,ETHUSDT", "--symbol-contains", "ETH"]
    assert f"{block_name}: 1 of 2 symbols named passes, see the filters\n" in run(*named).stdout


def test_times_have_one_form_in_both_commands(exchange: SimulatedExchange, block_name: str) -> None:
    writer = Writer.open(block_name, market="SPOT", interval="1m", length=10, symbols=["BTCUSDT"])
    try:
        writer.set_health(ready=True, weight_used=1, weight_limit=2, banned_until_ms=1_700_000_000_000)
        (listed,) = (each for each in json.loads(run("ls", "--json").stdout) if each["name"] == block_name)
        (watched,) = json.loads(run("top", block_name, "--json").stdout)
        assert listed["banned_until"] == watched["banned_until"] == "2023-11-14T22:13:20Z"
    finally:
        writer.close()
