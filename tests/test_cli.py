"""The commands as people and scripts meet them: real processes, their output, their exit codes, their one line."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import requests

import candleshm
from candleshm import columns
from candleshm._core import Writer
from candleshm.commands.settings import add_flags, collector_configs, configuration
from candleshm.config import CollectorConfig
from candleshm.errors import ConfigError
from candleshm.sim import Fault, SimulatedExchange, html
from tests.support.commanding import DEADLINE_SECONDS, complaint, first_line, run, serving, started, until
from tests.support.klines import MINUTE_MS, START_MS, body_of, ingest, kline

SHM = Path("/dev/shm")
COMMANDS = (
    *("demo", "serve", "mirror", "gateway", "download", "import-csv", "history", "replay", "sim", "ls", "read", "top"),
    *("check", "cluster", "rm"),
)


@pytest.fixture(scope="module")
def shared_exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=7, symbols=4, spot_limit=10**6, futures_limit=10**6) as exchange:
        yield exchange


@pytest.fixture
def exchange(shared_exchange: SimulatedExchange) -> Iterator[SimulatedExchange]:
    yield shared_exchange
    shared_exchange.faults.clear()


@pytest.fixture
def collector(exchange: SimulatedExchange, block_name: str) -> Iterator[subprocess.Popen[str]]:
    """A collector of the block `block_name`, loaded."""
    with started(*serving(exchange, block_name)) as process:
        assert first_line(process) == f'serving {block_name}: candleshm.attach("{block_name}")\n'
        until(lambda: candleshm.attach(block_name).health.ready)
        yield process


@pytest.fixture
def leftover(block_name: str) -> str:
    """A block whose collector was killed: 4 closed rows, a hole in the third place, and a live one."""
    script = (
        "import os, signal, sys\n"
        "from candleshm._core import Writer\n"
        "name, body, times = sys.argv[1], sys.argv[2].encode(), [int(text) for text in sys.argv[3:]]\n"
        "symbols = ['BTCUSDT', 'ETHUSDT']\n"
        "writer = Writer.open(name, market='SPOT', interval='1m', length=10, symbols=symbols)\n"
        "for ms in times:\n"
        "    writer.ingest('BTCUSDT', body, sent_ms=ms, received_ms=ms, settle_ms=1000, limit=99)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    body = body_of(*(kline(START_MS + slot * MINUTE_MS, 100 + slot) for slot in (0, 1, 3, 4, 5)))
    sent_ms = START_MS + 5 * MINUTE_MS + 10_000
    arguments = [block_name, body.decode(), str(sent_ms), str(sent_ms + 5000)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], check=False, timeout=DEADLINE_SECONDS)
    assert done.returncode == -signal.SIGKILL
    return block_name


# Usage.


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_shows_an_example_that_its_parser_knows(command: str) -> None:
    shown = run(command, "--help")

    assert shown.returncode == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    examples = re.findall(r"^(?:example:|  (?=candleshm)) ?candleshm (.+)$", shown.stdout, re.MULTILINE)
    assert examples
    for example in examples:
        assert example.startswith(command)
        # What the parser refuses ends with 2; help wins over everything else that is there.
        assert run(*example.split(), "--help").returncode == 0


def test_help_lists_every_command_and_version_names_the_version() -> None:
    shown = run("--help").stdout
    assert all(re.search(rf"\n    {command}\s", shown) for command in COMMANDS)
    assert run("--version").stdout.split()[:2] == ["candleshm", "0.1.0"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("collect",),
        ("serve", "--speed", "3"),
        ("serve", "--market", "spot", "--length", "many"),
        ("serve", "--market", "spot", "--proxies", "http://h:1"),
        ("read", "x"),
        ("read", "x", "BTCUSDT", "--rows", "0"),
        ("read", "x", "BTCUSDT", "--json", "--csv"),
        ("sim", "--port", "65536"),
        ("demo", "--seconds", "-1"),
        ("serve", "--metrics", "localhost"),
        ("top", "x", "--interval-seconds", "0"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: Sequence[str]) -> None:
    result = run(*arguments)

    assert (result.returncode, result.stdout) == (2, "")
    assert "usage: candleshm" in result.stderr


# Reading.


def test_read_shows_a_table_of_the_rows_that_are_there(leftover: str) -> None:
    title, head, *lines = run("read", leftover, "BTCUSDT").stdout.splitlines()

    assert title.startswith(f"BTCUSDT  SPOT 1m  {leftover}  confirmed ")
    assert head.split() == ["TIME", "(UTC)", "OPEN", "HIGH", "LOW", "CLOSE", "VOLUME", "TRADES", "STATE"]
    assert [line.split()[:3] for line in lines] == [
        ["2023-11-14", f"22:{minute}:00", close]
        for minute, close in ((14, "100"), (15, "101"), (17, "103"), (18, "104"), (19, "105"))
    ]
    assert [line.split()[-1] for line in lines] == ["closed"] * 4 + ["live"]
    assert len({line.index(" 10") for line in lines}) == 1


def test_read_counts_slots_from_the_newest(leftover: str) -> None:
    rows = json.loads(run("read", leftover, "BTCUSDT", "--rows", "4", "--json").stdout)

    assert [row["open"] for row in rows] == [103.0, 104.0, 105.0]


def test_read_json_and_csv_carry_every_column_and_the_state(leftover: str) -> None:
    rows = json.loads(run("read", leftover, "BTCUSDT", "--json").stdout)
    lines = list(csv.DictReader(io.StringIO(run("read", leftover, "BTCUSDT", "--csv").stdout)))

    assert len(rows) == 5
    assert list(rows[0]) == list(lines[0]) == [*columns.NAMES, "state"]
    assert rows[0] == {
        **dict.fromkeys(columns.NAMES, 100.0),
        "open_time_ms": START_MS,
        "close_time_ms": START_MS + MINUTE_MS - 1,
        "ignore": 0,
        "state": "closed",
    }
    assert [[str(value) for value in row.values()] for row in rows] == [list(line.values()) for line in lines]


def test_read_of_a_series_without_rows_is_an_empty_table(leftover: str) -> None:
    assert len(run("read", leftover, "ETHUSDT").stdout.splitlines()) == 2
    assert json.loads(run("read", leftover, "ETHUSDT", "--json").stdout) == []


def test_read_of_what_is_not_there(leftover: str) -> None:
    assert "`no-such-block`" in complaint("read", "no-such-block", "BTCUSDT")
    assert "`DOGEUSDT`" in complaint("read", leftover, "DOGEUSDT")
    assert "a/b" in complaint("read", "a/b", "BTCUSDT")


def test_a_reader_that_leaves_is_no_error(leftover: str) -> None:
    with started("read", leftover, "BTCUSDT", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(DEADLINE_SECONDS) == 0
        assert process.stderr.read() == ""
        process.stdout = None


# Listing and removing.


def test_leftover_is_listed_and_removed(leftover: str) -> None:
    (listed,) = (row for row in json.loads(run("ls", "--json").stdout) if row["name"] == leftover)
    pid, age = listed.pop("pid"), listed.pop("heartbeat_age")
    assert list(listed.values())[:5] == [leftover, "SPOT", "1m", 10, 2]
    assert (listed["state"] in ("ready", "dead"), listed["ready"]) == (True, False)
    assert list(listed)[:6] == ["name", "market", "interval", "length", "symbols", "state"]
    assert pid > 0
    assert age >= 0
    assert listed["condition"] in ("loading", "dead")
    fields = {field.name for field in dataclasses.fields(candleshm.Health)}
    assert listed.keys() == fields - {"pid", "heartbeat_age"} | {"condition", "note"}
    head, *lines = run("ls").stdout.splitlines()
    assert head.split()[:3] == ["NAME", "MARKET", "INTERVAL"]
    shown = next(line for line in lines if line.startswith(leftover)).split()
    assert shown[1:5] == ["SPOT", "1m", "2", "10"]
    assert shown[5] in ("loading", "dead")

    assert run("rm", leftover).stdout == f"removed {leftover}\n"
    assert not (SHM / leftover).exists()
    assert f"`{leftover}`" in complaint("rm", leftover)


def test_ls_says_what_a_living_collector_is_waiting_for(block_name: str) -> None:
    writer = Writer.open(block_name, market="SPOT", interval="1m", length=10, symbols=["BTCUSDT"])

    ingest(writer, "BTCUSDT", kline(START_MS, 1), sent_ms=START_MS + 10_000)

    def note() -> list[str]:
        writer.heartbeat()
        head, *lines = run("ls").stdout.splitlines()
        assert "EXCHANGE" in head.split()
        words = next(line for line in lines if line.startswith(block_name)).split()[9:]
        return [words[0], *words[2:]]

    try:
        assert note()[:2] == ["0/0", "loading,"]
        writer.set_health(ready=True, weight_used=12, weight_limit=6000, banned_until_ms=START_MS)
        assert note() == ["12/6000", "banned", "until", "22:14:00", "UTC"]
        writer.set_health(ready=True, weight_used=34, weight_limit=6000, banned_until_ms=None)
        assert note() == ["34/6000"]
    finally:
        writer.close()


def test_block_of_another_format_is_named_and_can_be_removed(leftover: str) -> None:
    other = f"candleshm-{leftover}-abi"
    block = bytearray((SHM / leftover).read_bytes())
    block[8] += 1  # the low byte of the ABI's major number
    (SHM / other).write_bytes(block)

    said = complaint("read", other, "BTCUSDT")
    listed = run("ls")

    assert re.search(r"written in format 2\.\d", said)
    assert re.search(r"this version reads 1\.\d", said)
    assert listed.returncode == 0
    assert said in listed.stderr
    assert other not in listed.stdout
    assert run("rm", other).returncode == 0


def test_shared_memory_of_others_is_left_alone(block_name: str) -> None:
    (SHM / block_name).write_bytes(b"something else" * 1000)

    advice = f"not a candleshm block; if no program needs it, remove /dev/shm/{block_name}\n"
    assert advice in complaint("rm", block_name)
    assert "not a candleshm block" in complaint("read", block_name, "BTCUSDT")
    listed = run("ls")
    assert block_name not in listed.stdout + listed.stderr


# Serving.


def test_served_rows_are_the_exchange_s_rows(
    exchange: SimulatedExchange, collector: subprocess.Popen[str], block_name: str
) -> None:
    for symbol in ("BTCUSDT", "ETHUSDT"):
        rows = json.loads(run("read", block_name, symbol, "--json").stdout)
        final = [row for row in rows if row["state"] == "closed"]

        assert len(rows) == 300
        assert rows[-1]["state"] == "live"
        assert len(final) >= 298
        for row in final:
            row.pop("state")
            told = exchange.truth.kline("SPOT", symbol, "1m", row["open_time_ms"])
            assert told is not None
            assert list(row.values()) == [float(value) for value in told]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_serve_in_order(
    number: signal.Signals, collector: subprocess.Popen[str], block_name: str
) -> None:
    collector.send_signal(number)
    _, logged = collector.communicate(timeout=DEADLINE_SECONDS)

    assert collector.returncode == 0
    assert not (SHM / block_name).exists()
    assert "loaded 2 of 2 symbols" in logged
    assert "Traceback" not in logged


def test_a_signal_ends_a_start_that_is_stuck(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.faults.add(Fault(kind="hang"))
    asked = len(exchange.served())
    with started(*serving(exchange, block_name)) as process:
        until(lambda: len(exchange.served()) > asked)
        process.send_signal(signal.SIGTERM)

        assert process.wait(DEADLINE_SECONDS) == 0
    assert not (SHM / block_name).exists()


def test_a_live_block_is_neither_removed_nor_served_twice(
    exchange: SimulatedExchange, collector: subprocess.Popen[str], block_name: str
) -> None:
    for arguments in (["rm", block_name], serving(exchange, block_name)):
        said = complaint(*arguments)
        assert f"block `{block_name}`: a collector (process {collector.pid}) already serves it" in said
    assert (SHM / block_name).exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--market", "um", "--interval", "1s"], ["interval", "`1s`", "UM", "1m 3m"]),
        (["--interval", "7m"], ["interval", "`7m`"]),
        (["--market", "futures"], ["market", "`futures`", "SPOT | UM | CM"]),
        (["--name", "a/b"], ["name", "`a/b`"]),
        (["--symbols", "NOSUCH,NEITHER"], ["SPOT", "`NOSUCH, NEITHER`"]),
        (["--symbols", "btcusdt"], ["lists none of `btcusdt`", "did you mean BTCUSDT?"]),
        (["--length", "1"], ["length", "`1`", "2 to 100000"]),
        (["--live", "ws"], ["live", "`ws`", "rest | auto"]),
        (["--live", "udp"], ["live", "`udp`", "rest | ws | auto"]),
        (["--server-weight", "nan"], ["server_weight", "`nan`"]),
        (["--config", "/nonexistent/x.toml"], ["/nonexistent/x.toml: No such file"]),
        (["--config", "/dev/zero"], ["/dev/zero cannot be a configuration", "bytes"]),
        (["--base-url", "http://127.0.0.1:1", "--start-seconds", "0.1"], ["127.0.0.1:1", "refused"]),
    ],
    ids=lambda value: value[-1] if value[0].startswith("--") else "",
)
def test_what_cannot_be_served(exchange: SimulatedExchange, block_name: str, more: list[str], words: list[str]) -> None:
    command = serving(exchange, block_name)
    if more[0] == "--symbols":  # a list that is given twice is joined
        at = command.index("--symbols")
        del command[at : at + 2]
    said = complaint(*command, *more)

    assert all(word in said for word in words)
    assert not (SHM / block_name).exists()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (html(200), "86 bytes of text/html"),
        (html(451), "451"),
        (Fault(kind="truncate"), "before its announced end"),
        (Fault(kind="status", status=200, body='{"serverTime":'), "/api/v3/time: not JSON"),
        (Fault(kind="reset"), "no response"),
    ],
    ids=["html", "blocked", "truncated", "half-json", "reset"],
)
def test_responses_that_are_none(exchange: SimulatedExchange, block_name: str, fault: Fault, words: str) -> None:
    exchange.faults.add(fault)

    assert words in complaint(*serving(exchange, block_name, "--start-seconds", "0.1"))


def test_loading_shows_a_bar_on_a_terminal(exchange: SimulatedExchange, block_name: str) -> None:
    exchange.faults.add(Fault(kind="latency", path="/klines", delay_ms=1500))
    ours, theirs = pty.openpty()
    with started(*serving(exchange, block_name), stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while b"loaded 2 of 2" not in shown:
            assert select.select([ours], [], [], DEADLINE_SECONDS)[0], shown
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_SECONDS) == 0
    os.close(ours)

    assert b"loading [      " in shown
    assert b"0 of 2 symbols" in shown


# Settings.


def test_every_setting_is_a_flag_and_flags_win_over_the_file(tmp_path: Path) -> None:
    shown = run("serve", "--help").stdout
    assert all(f"--{field.name.replace('_', '-')}" in shown for field in dataclasses.fields(CollectorConfig))

    path = tmp_path / "spot.toml"
    path.write_text('market = "um"\nlength = 50\nUPDATE_INTERVAL_SECONDS = 2\n[proxies]\nhttps = "http://h:1"\n')
    (config,) = collector_configs({"length": 60, "rows": 3}, path)

    assert config == CollectorConfig(market="UM", length=60, update_interval_seconds=2, proxies={"https": "http://h:1"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lenght = 5", r"unknown key `lenght`; did you mean length\?"),
        ('[[feeds]]\nmarket = "spot"', r"unknown key `feeds`; did you mean \[\[feed\]\]\?"),
        ('symbol = "BTCUSDT"', r"unknown key `symbol`; did you mean symbols\?"),
        ("interval_seconds = 5", r"did you mean update_interval_seconds\?"),
        ("port = 9100", r"unknown key `port`; did you mean metrics\?"),
        ("xyzzy = 1", "unknown key `xyzzy`; `candleshm serve --help` lists the settings"),
        (
            'market = "spot"\nmetrics = "no port"',
            'metrics cannot be `no port`; allowed: a port such as 9100, or "host:port"',
        ),
        ("[[feed]]\nmetrics = 9100", "feed 1: `metrics` holds for the whole process; put it above the first"),
        ("length = 5\nLENGTH = 6", "`LENGTH` is given twice"),
        ("length = ", "is not TOML"),
        ('market = "spot"\nlength = "5"', "length cannot be `5`, a text, not a number; allowed"),
        ("", "market is missing"),
        ('market = "spot"\nlive = "udp"', "live cannot be `udp`"),
        ('market = "spot"\nfeed = 3', r"begin each with a line \[\[feed\]\]"),
        ('market = "spot"\n[feed]\nlength = 5', r"begin each with a line \[\[feed\]\]"),
        ('[[feed]]\nmarket = "spot"\n[[feed]]\nmarkt = "um"', "feed 2: unknown key `markt`; did you mean market\\?"),
        ('[[feed]]\nmarket = "spot"\n[[feed]]\nlength = 5', "market is missing"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=words):
        collector_configs({}, path)


@pytest.mark.parametrize(
    ("value", "address"),
    [("9100", ("127.0.0.1", 9100)), ('"9100"', ("127.0.0.1", 9100)), ('"[::1]:9100"', ("::1", 9100))],
)
def test_the_port_of_the_metrics_may_stand_in_the_file(tmp_path: Path, value: str, address: tuple[str, int]) -> None:
    path = tmp_path / "feeds.toml"
    path.write_text(f'metrics = {value}\n[[feed]]\nmarket = "spot"\n')

    given = configuration({}, path)

    assert (given.feeds, given.process) == ([CollectorConfig(market="SPOT")], {"metrics": address})
    assert configuration({"metrics": ("0.0.0.0", 1)}, path).process == {"metrics": ("0.0.0.0", 1)}
    assert collector_configs({}, path) == given.feeds


def test_serve_takes_its_settings_from_a_file(exchange: SimulatedExchange, block_name: str, tmp_path: Path) -> None:
    path = tmp_path / "cm.toml"
    path.write_text(f'market = "CM"\nsymbols = ["BTCUSD_PERP"]\nlength = 20\nname = "{block_name}"\n')
    with started("serve", "--config", str(path), "--length", "30", "--base-url", exchange.base_url) as process:
        first_line(process)
        feed = candleshm.attach(block_name)

        assert (feed.market, feed.symbols, feed.length) == ("CM", ("BTCUSD_PERP",), 30)


# The simulated exchange.


def test_sim_prints_its_address_and_ends_on_a_signal() -> None:
    with started("sim", "--symbols", "3", "--seed", "5", "--spot-limit", "77") as process:
        base_url = first_line(process).strip()
        info = requests.get(f"{base_url}/api/v3/exchangeInfo", timeout=10).json()
        weights = [limit["limit"] for limit in info["rateLimits"] if limit["rateLimitType"] == "REQUEST_WEIGHT"]
        assert weights == [77]

        port = base_url.rpartition(":")[2]
        assert complaint("sim", "--port", port) == f"candleshm: 127.0.0.1:{port}: Address already in use\n"
        assert complaint("sim", "--host", "no.invalid").startswith("candleshm: no.invalid:0: ")

        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_SECONDS) == 0


def test_a_list_may_be_given_in_parts(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    flags = parser.parse_args(
        [
            "--derive",
            "5m",
            "--symbols",
            "A,B",
            "--derive",
            "1h,4h",
            "--symbols",
            "C",
            "--proxies",
            "http=x",
            "--proxies",
            "https=y",
        ]
    )
    assert (flags.derive, flags.symbols) == (["5m", "1h", "4h"], ["A", "B", "C"])
    assert flags.proxies == {"http": "x", "https": "y"}
    with pytest.raises(SystemExit):
        parser.parse_args(["--symbols", "A", "--symbols", "all"])
    assert "contradict each other" in capsys.readouterr().err
