"""A real server is killed under load; nothing acknowledged is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("kill_many.py")


def run(kills: int, seed: int, workers: int) -> dict[str, object]:
    # In a process of its own without other threads: it forks the servers.
    command = [sys.executable, str(RUN), "--kills", str(kills), "--seed", str(seed)]
    command += ["--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr[-3000:]
    result: dict[str, object] = json.loads(done.stdout)
    return result


def check(kills: int, seed: int, workers: int = 0) -> dict[str, object]:
    result = run(kills, seed, workers)
    assert result["faults"] == []
    assert result["kills"] == kills
    assert int(str(result["acknowledged_requests"])) > kills
    return result


def test_nothing_acknowledged_is_lost_when_the_server_is_killed() -> None:
    check(6, 1)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_server_is_killed_often() -> None:
    check(30, 2)


def test_nothing_acknowledged_is_lost_when_workers_are_killed_too() -> None:
    assert check(2, 3, workers=2)["worker_kills"] in range(2, 5)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_workers_are_killed_often() -> None:
    assert check(12, 4, workers=2)["worker_kills"] in range(12, 25)
