"""What every test shares: block names and weight ledgers of its own, and nothing left in /dev/shm."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SHM = Path("/dev/shm")
_numbers = itertools.count()

# A machine that is busy with other things fails no test.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture
def block_name() -> Iterator[str]:
    """A block name nobody else uses; whatever stands under it, or under names that begin with it, goes at the end."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    yield name
    for left in SHM.glob(f"*{name}*"):
        left.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for the weight ledgers of this test alone: a port, and with it a pool, may have had another owner."""
    directory = tmp_path_factory.mktemp("runtime")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return directory


@pytest.fixture(autouse=True)
def levels_of_loggers() -> Iterator[None]:
    """Take back what a test did to the levels of our loggers: snippets of the docs set them, as programs do."""
    before = levels()
    yield
    for name in before | levels():
        logging.getLogger(name).setLevel(before.get(name, logging.NOTSET))


def levels() -> dict[str, int]:
    """Return the levels of our loggers that have one of their own."""
    ours = (logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("candleshm"))
    return {logger.name: logger.level for logger in ours if logger.level}
