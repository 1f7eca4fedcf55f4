"""Injected faults of the file system at every operation of store, segments and snapshots."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KINDS = {
    "full disk": 1,
    "failing writes": 2,
    "failing fsync": 3,
    "too many open files": 4,
    "short writes": 5,
    "failing rename": 6,
    "read-only file system": 7,
}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    built = tmp_path_factory.mktemp("faults") / "faults.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(HERE / "faults.c")]
    subprocess.run([*command, "-ldl"], check=True)
    return built


def run(library: Path, kind: int, step: int) -> dict[str, int]:
    command = [sys.executable, str(HERE / "fault_run.py"), str(library), str(kind), str(step)]
    environment = os.environ | {"LD_PRELOAD": str(library)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, int] = json.loads(done.stdout)
    return result


def check(result: dict[str, int], kind: int) -> None:
    assert result["struck"] > 0
    # Short writes are no errors: what is left is written after them.
    assert (result["errors"] > 0) == (kind != 5)


@pytest.mark.parametrize("kind", [1, 3], ids=["full disk", "failing fsync"])
def test_nothing_is_lost_by_faults_of_the_disk(library: Path, kind: int) -> None:
    check(run(library, kind, 11), kind)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_lost_by_any_kind_of_fault(library: Path, name: str) -> None:
    check(run(library, KINDS[name], 1 if name == "failing rename" else 3), KINDS[name])
