"""A real server is killed while the engine of a collection changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("kill_reindex.py")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    # In a process of its own without other threads: it forks the servers.
    command = [sys.executable, str(RUN), str(tmp_path_factory.mktemp("reindex"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("moment", ["begun", "building", "built", "stored", "switched", "removed"])
def test_a_start_after_a_kill_has_one_engine_with_all_points_and_ends_the_change(
    outcome: dict[str, list[str]], moment: str
) -> None:
    assert outcome[moment] == []
