"""Twenty leaders are killed one after the other, and no reader loses a row or sees a different one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.long.leader_kills import kill_leaders


@pytest.mark.long
def test_twenty_leaders_are_killed(block_name: str, tmp_path: Path) -> None:
    assert len(kill_leaders(block_name, tmp_path, 20).waits_seconds) == 20
