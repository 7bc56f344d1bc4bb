"""Tables in terminals of several widths: what an operator needs most stays, and no line is wider than the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import termios
import threading

import pytest

from candleshm.commands.table import fitted
from tests.support.commanding import CLI, DEADLINE_SECONDS
from tests.support.confined import script, with_small_shm

HEADS = ("NAME", "STATE", "AGE", "WEIGHT", "NOTE")
LEFT = ("NAME", "STATE", "NOTE")
REMARK = "collector 11 is dead: start it again, or `candleshm rm candleshm-spot-1m` if not needed"
ROWS: list[tuple[str, ...]] = [
    ("candleshm-spot-1m", "dead", "12.0 s", "12/6000", REMARK),
    ("candleshm-um-5m", "ready", "0.1 s", "0/2400", ""),
]
END = "--end--"
LEAVE = (
    "import os, sys; from candleshm._core import Writer; "
    "left = Writer.open(sys.argv[1], market='SPOT', interval='1m', length=10, symbols=['BTCUSDT'], "
    "exchange='exchange.example:8400'); os._exit(0)"
)


def table(width: int | None, rows: list[tuple[str, ...]] = ROWS) -> list[str]:
    found = fitted(HEADS, rows, left=LEFT, width=width, first_to_go=("WEIGHT", "AGE"), narrowed="NAME")
    return [line for lines in found for line in lines]


def test_a_table_loses_what_is_needed_least() -> None:
    whole = table(None)
    assert whole[0].split() == list(HEADS)
    assert whole[1].endswith(REMARK)
    assert table(140) == whole
    assert [line.split() for line in table(80)[:2]] == [
        [*HEADS[:-1]],
        ["candleshm-spot-1m", "dead", "12.0", "s", "12/6000"],
    ]
    assert table(36)[0].split() == ["NAME", "STATE", "AGE"]
    assert table(28)[0].split() == ["NAME", "STATE"]
    assert table(22)[1].split() == ["candles…spot-1m", "dead"]
    assert table(22)[-1].split() == ["candleshm-um-5m", "ready"]


def test_remarks_stand_below_where_they_do_not_fit() -> None:
    for width in (80, 60, 40):
        head, first, *below, second = table(width)
        assert max(map(len, (head, first, *below, second))) <= width
        assert " ".join(line.strip() for line in below) == REMARK
        assert second.startswith("candleshm-um-5m")
    assert table(40, [row for row in ROWS if not row[-1]])[0].split() == ["NAME", "STATE", "AGE", "WEIGHT"]


def shown(width: int, block_name: str) -> list[list[str]]:
    """Return what `ls`, `top` and `top NAME` show of two blocks of dead collectors, on a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
    environment |= {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"}
    leave, command = shlex.join(script(LEAVE, block_name)), shlex.join(CLI)
    until_dead = f"until [ $({command} ls | grep -c ' dead ') = 2 ]; do sleep 0.1; done"
    commands = (f"{command} ls", f"{command} top --once", f"{command} top --once {block_name}")
    words = with_small_shm(8192, "sh", "-c", f"{leave}; {leave}-b; {until_dead}; {f'; echo {END}; '.join(commands)}")
    text = b""

    def read() -> None:
        nonlocal text
        while True:
            try:
                text += os.read(ours, 65536)
            except OSError:
                return  # Linux says that nobody holds the other end any more.

    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait(DEADLINE_SECONDS) == 0
    reader.join(DEADLINE_SECONDS)
    os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    return [[line.rstrip() for line in part.splitlines()] for part in plain.split(END)]


@pytest.mark.parametrize(
    ("width", "listed", "watched"),
    [
        (
            80,
            "NAME MARKET INTERVAL STATE PID AGE EXCHANGE",
            "# NAME STATE MARKET INTERVAL SYMBOLS STALE OLDEST MISSING",
        ),
        (
            140,
            "NAME MARKET INTERVAL SYMBOLS LENGTH STATE PID AGE WEIGHT EXCHANGE",
            "# NAME STATE MARKET INTERVAL SYMBOLS STALE OLDEST MISSING WEIGHT",
        ),
    ],
)
def test_commands_fit_a_terminal(width: int, listed: str, watched: str, block_name: str) -> None:
    ls, top, one = shown(width, block_name)
    for lines, head in ((ls, listed), (top, watched)):
        assert max(map(len, lines)) <= width, lines
        assert head.split() in [line.split() for line in lines], lines
        assert sum(" dead " in line for line in lines) >= 2, lines
        for name in (block_name, f"{block_name}-b"):
            assert f"`candleshm rm {name}` if not needed" in in_one_line(lines)
    assert max(map(len, one)) < width, one
    assert re.search(r" dead: collector \d+ is dead: ", in_one_line(one))
    assert f"`candleshm rm {block_name}` if not needed" in in_one_line(one)
    (head,) = (line for line in one if line.startswith("SYMBOL "))
    assert {"STATE", "MISSING", "HOLES"} <= set(head.split())


def in_one_line(lines: list[str]) -> str:
    return " ".join(" ".join(line.split()) for line in lines)
