"""Ctrl-C while a command begins: it ends without a word, at whatever moment; later it ends in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commanding import DEADLINE_SECONDS

AS_MODULE = ("-m", "candleshm")
AS_SCRIPT = ("-c", "import sys; from candleshm_command.entry import run; sys.exit(run())")
COMMANDS = (
    *("demo", "sim", "ls", "top", "replay", "mirror x --cluster nats://127.0.0.1:1", "gateway --listen 0"),
    *("cluster status --cluster nats://127.0.0.1:1", "rm no-such-block", "check no-such-block"),
    *("serve --market spot --check --base-url http://127.0.0.1:1 --start-seconds 0.1", "read no-such-block BTCUSDT"),
    *(
        "download --market spot --start 2026-11-01 --base-url http://127.0.0.1:1 --start-seconds 0.1",
        "history repack --candle-dir /nowhere",
    ),
    "import-csv /nowhere",
)
# An import that ends is a line on stderr: a moment that can be hit.
MOMENTS = (0, 1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 160, 192, 224, 256, 270, 280, 290)


def interrupted(how: tuple[str, ...], command: str, imports: int) -> tuple[int | None, str]:
    """Interrupt a command after so many imports, if there are as many; return its exit code and what it printed."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *how, *command.split()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines, seen = [], -1
        for line in process.stderr:
            lines.append(line)
            if seen >= 0 or line.rpartition("|")[2].strip() == "candleshm_command.entry":
                seen += 1
            if seen == imports:
                break
        process.send_signal(signal.SIGINT)
        lines += process.communicate(timeout=DEADLINE_SECONDS)[1].splitlines(keepends=True)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, "".join(line for line in lines if not line.startswith("import time:"))


@pytest.mark.parametrize("how", [AS_MODULE, AS_SCRIPT], ids=["module", "script"])
def test_ctrl_c_ends_a_command_that_begins_without_a_word(how: tuple[str, ...]) -> None:
    for imports in MOMENTS:
        assert interrupted(how, "ls", imports) == (130, ""), imports


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_shows_a_traceback_at_ctrl_c(command: str) -> None:
    for imports in (64, 220, 290):
        code, said = interrupted(AS_SCRIPT, command, imports)
        assert "Traceback" not in said, (imports, said)
        assert "KeyboardInterrupt" not in said, (imports, said)
        assert code is not None
        assert code >= 0, (imports, said)


PROGRAM = """
import candleshm_command.entry, sys, time
from candleshm.commands.outcome import outcome

def command():
    print("begun", flush=True)
    {statement}

sys.exit(outcome(command))
"""
SLEEPING = """
import time
try:
    time.sleep(60)
except KeyboardInterrupt:
    pass
"""


@pytest.mark.parametrize("statement", ["time.sleep(60)", "import sleeping"])
def test_ctrl_c_interrupts_what_a_command_does(statement: str, tmp_path: Path) -> None:
    """Also an import, which would make any error of it, or none."""
    (tmp_path / "sleeping.py").write_text(
        "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(statement=statement)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, said) == (130, "")


def test_programs_that_are_no_command_keep_their_ctrl_c(tmp_path: Path) -> None:
    """Of another package that begins with `-m`, one that imports ours, and a command whose SIGINT is ignored."""
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "__init__.py").write_text("import candleshm\n")
    main = "import signal\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
    (tmp_path / "strategy" / "__main__.py").write_text(main)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-m", "strategy"]
    assert subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout == "True\n"
    embedding = "import candleshm.cli, signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    words = [sys.executable, "-c", embedding]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "True\n"
    ignoring = "import candleshm_command.entry, signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    words = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, ignoring]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "True\n"
