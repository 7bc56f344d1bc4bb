"""A cluster on the command line: settings of a member, `cluster status`, and nothing of NATS without a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("nats")

from candleshm.cluster.connection import ClusterConnection
from candleshm.cluster.presence import Exit, Presence, encoded
from candleshm.cluster.settings import ClusterSettings
from candleshm.cluster.subjects import Subjects
from candleshm.commands.cluster_status import status_table
from candleshm.commands.settings import configuration
from candleshm.errors import ConfigError
from candleshm.sim import SimulatedExchange
from tests.support.commanding import complaint, run, serving
from tests.support.nats_servers import nats_server

FEED = "test-status"
SERVED = {"market": "spot", "symbols": ["BTCUSDT"]}


def test_a_member_has_a_feed_and_a_block(tmp_path: Path) -> None:
    given = configuration(SERVED | {"cluster": "nats://h", "name": "f", "as": "b", "shards": 3, "derive": ["5m"]}, None)
    assert [config.block_names for config in given.feeds] == [("b", "b-5m")]
    assert given.members == {"b": ("f", 3)}
    path = tmp_path / "feeds.toml"
    path.write_text(
        'cluster = "nats://h"\nshards = 2\n[[feed]]\nmarket = "spot"\nas = "x"\n[[feed]]\nmarket = "um"\nshards = 4\n'
    )
    given = configuration({}, path)
    assert given.members == {"x": ("candleshm-spot-1m", 2), "candleshm-um-1m": ("candleshm-um-1m", 4)}
    assert configuration(SERVED, None).members == {}


def test_variables_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CLUSTER": "nats://h", "SHARDS": "2", "AS": "b"}.items():
        monkeypatch.setenv(f"CANDLESHM_{name}", value)
    assert configuration(SERVED, None).members == {"b": ("candleshm-spot-1m", 2)}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"as": "b"}, "as is given without cluster"),
        ({"shards": 2}, "shards is given without cluster"),
        ({"cluster": "nats://h", "shards": 0}, "shards cannot be `0`; allowed: a whole number, 1 to 64"),
        ({"cluster": "nats://h", "as": "a/b"}, "as cannot be `a/b`"),
    ],
)
def test_wrong_settings_are_one_line(given: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        configuration(SERVED | given, None)


def test_nothing_of_nats_is_imported_without_a_cluster(block_name: str) -> None:
    code = (
        "import sys, candleshm.cli\n"
        "from candleshm.collector.supervisor import Supervisor\n"
        "def look(self, *_, **__):\n"
        "    print(sorted(name for name in sys.modules if name.partition('.')[0] in ('nats', 'nkeys')))\n"
        "Supervisor.run = look\n"
        "candleshm.cli.main(sys.argv[1:])\n"
    )
    with SimulatedExchange(symbols=2) as exchange:
        done = subprocess.run(
            [sys.executable, "-c", code, *serving(exchange, block_name)], capture_output=True, text=True, check=False
        )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    ("tables", "owners", "name"),
    [
        ('[[mirror]]\nname = "b"', "feed 1 and mirror 1", "b"),
        ('[[mirror]]\nname = "f"\nas = "b-5m"', "feed 1 and mirror 1", "b-5m"),
        ('[[mirror]]\nname = "x"\n[[mirror]]\nname = "c"\nderive = ["1h"]', "feed 2 and mirror 2", "c-1h"),
        ('[[mirror]]\nname = "x"\n[[mirror]]\nname = "y"\nas = "x"', "mirror 1 and mirror 2", "x"),
        (
            '[[mirror]]\nname = "candleshm-um-1m"\nderive = ["1h"]\n[[mirror]]\nname = "candleshm-um-1h"',
            "mirror 1 and mirror 2",
            "candleshm-um-1h",
        ),
    ],
)
def test_a_feed_and_a_mirror_of_one_block_do_not_start(tables: str, owners: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "feeds.toml"
    path.write_text(
        'cluster = "nats://127.0.0.1:1"\nmarket = "spot"\n[[feed]]\nname = "b"\nderive = ["5m"]\n'
        f'[[feed]]\nname = "c-1h"\n{tables}\n'
    )
    line = f"candleshm: {path}: {owners} both have the block `{name}`; give one of them another name by `as`\n"
    assert complaint("serve", "--config", str(path)) == line


def test_a_check_says_whether_the_servers_respond(block_name: str) -> None:
    with SimulatedExchange(symbols=2) as exchange, nats_server() as server:
        words = [*serving(exchange, block_name), "--check", "--cluster"]
        done = run(*words, server.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1] == f"cluster main: connected to {server.url}"
        dead = run(*words, "nats://127.0.0.1:1")
    assert dead.returncode == os.EX_TEMPFAIL
    assert dead.stderr == "candleshm: cluster nats://127.0.0.1:1: nothing listens there\n"


@contextmanager
def saying(connection: ClusterConnection, *present: Presence) -> Iterator[None]:
    """Have members say what they are, again and again."""
    ended = threading.Event()

    def say() -> None:
        while not ended.wait(0.2):
            for each in present:
                subject = Subjects("candleshm", "main", each.feed).present(each.member)
                connection.publish([(subject, encoded(each))]).result()

    thread = threading.Thread(target=say)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_status_shows_who_is_there() -> None:
    exit = Exit(way="h1 direct", to="exchange SPOT", weight_used=120, weight_limit=6000)
    leader = Presence(
        member="a",
        host="h1",
        pid=11,
        role="leader",
        feed=FEED,
        block=FEED,
        length=2880,
        symbols=400,
        shards=2,
        epochs={0: 7, 1: 9},
        is_complete=True,
        exits=(exit,),
    )
    standby = Presence(member="b", host="h2", pid=12, role="standby", feed=FEED, block="local", shards=2, lag_ms=3.6)
    alone = Presence(member="d", host="h4", pid=14, role="alone", feed=FEED, block=FEED, why="h1 has 2 shards")
    mirror = Presence(member="c", host="h3", pid=13, role="mirror", feed=FEED, block=FEED, differing=4)
    with nats_server() as server:
        assert run("cluster", "status", "--cluster", server.url).stdout == "nobody is present\n"
        with (
            ClusterConnection(ClusterSettings(urls=(server.url,)), "test") as connection,
            saying(connection, leader, standby, alone, mirror),
        ):
            table = run("cluster", "status", "--cluster", server.url).stdout.splitlines()
            found = json.loads(run("cluster", "status", "--json", "--cluster", server.url).stdout)
            other = run("cluster", "status", "--cluster", server.url, "--cluster-name", "other")
    assert table[0] == f"feed {FEED}, in 2 shards"
    assert [line.split() for line in table[1:6]] == [
        ["HOST", "PID", "ROLE", "LEADS", "EPOCH", "LAG", "SYMBOLS", "LENGTH", "BLOCK", "DIFFERS", "NOTE"],
        f"h1 11 leader all 7 9 400 2880 {FEED}".split(),
        ["h2", "12", "standby", "4", "ms", "0", "0", "local", "incomplete"],
        f"h4 14 alone 0 0 {FEED} incomplete h1 has 2 shards".split(),
        f"h3 13 mirror 0 0 {FEED} 4 requests".split(),
    ]
    assert [line.split() for line in table[7:]] == [
        ["EXIT", "TO", "WEIGHT"],
        ["h1", "direct", "exchange", "SPOT", "120/6000"],
    ]
    assert [each["role"] for each in found["present"]] == ["leader", "standby", "alone", "mirror"]
    assert found["present"][0]["epochs"] == {"0": 7, "1": 9}
    assert found["exits"] == [{"exit": "h1 direct", "to": "exchange SPOT", "weight_used": 120, "weight_limit": 6000}]
    assert other.stdout == "nobody is present\n"


def test_status_fits_a_terminal_and_says_who_leads_what() -> None:
    members = [
        Presence(
            member=str(pid),
            host=f"trading-host-{pid}",
            pid=3_000_000 + pid,
            role="leader" if epochs else "standby",
            feed=FEED,
            block=FEED,
            length=2880,
            symbols=400,
            shards=4,
            epochs=epochs,
            lag_ms=None if epochs else 31_000.0,
            why="" if epochs else "h1 has 2 shards and this collector 4; give all the same number",
        )
        for pid, epochs in enumerate(({0: 7}, {1: 9, 3: 12}, {}))
    ]
    wide, narrow = status_table(members), status_table(members, 80)
    assert max(map(len, wide.splitlines())) > 140
    assert max(map(len, narrow.splitlines())) <= 80
    for table in (wide, narrow):
        lines = table.splitlines()
        assert lines[0] == f"feed {FEED}, in 4 shards"
        assert " leader   shard 0 " in lines[2]
        assert " leader   shards 1,3 " in lines[3]
        assert " nothing for 31.0 s " in lines[4]
        assert "h1 has 2 shards and this collector 4; give all the same number" in table


def test_status_without_servers_is_one_line() -> None:
    line = complaint("cluster", "status", "--cluster", "nats://127.0.0.1:1")
    assert line == "candleshm: cluster nats://127.0.0.1:1: nothing listens there\n"
    assert complaint("cluster", "status") == "candleshm: cluster is missing; give --cluster nats://HOST\n"
