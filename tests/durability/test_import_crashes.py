"""Imports while workers and servers are killed: in the end, every row once, as in a clean run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from closeby.client import Client, Job

SHINGLES = {"kind": "shingles", "unit": "byte", "n": 4}
Start = Callable[..., Any]


def texts(count: int) -> list[str]:
    return [f"https://shop{n % 17}.example/items/{n * n}/detail?ref={n}" for n in range(count)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "urls.txt"
    lines = texts(30_000)
    # Bad rows, so that what is counted is compared as well.
    raw = [*map(str.encode, lines[:9_000]), b"\xff\xfe", *map(str.encode, lines[9_000:])]
    path.write_bytes(b"\n".join(raw))
    return path


def content(data_dir: Path) -> dict[str, tuple[bytes, bytes]]:
    """What the log holds of each point; none may be there twice."""
    with contextlib.closing(sqlite3.connect(data_dir / "store.sqlite3")) as store:
        rows = store.execute("SELECT point, features, source FROM log").fetchall()
    assert len({row[0] for row in rows}) == len(rows), "a row was stored twice"
    return {point: (features, source) for point, features, source in rows}


def owner(data_dir: Path, job: str) -> int | None:
    """The process that has the job now."""
    with contextlib.closing(sqlite3.connect(data_dir / "store.sqlite3", timeout=30)) as store:
        row = store.execute("SELECT state, lease_owner FROM jobs WHERE id = ?", (job,)).fetchone()
    return int(row[1].split(":")[2]) if row and row[0] == "running" and row[1] else None


def begin(url: str, file: Path) -> str:
    with Client(url) as db:
        made = db.create_collection("urls", metric="jaccard", features=SHINGLES, seed=3)
        job: Job = made.import_file(file)
        return job.id


def check_end(url: str, job: str) -> dict[str, Any]:
    """Wait for the end, and see that queries find what the job tells of."""
    with Client(url) as db:
        urls = db.collection("urls")
        deadline = time.monotonic() + 120
        while not (info := db.job(job).info()).finished:
            assert urls.info().count >= info.progress.done
            assert time.monotonic() < deadline, info
            time.sleep(0.05)
        assert info.state == "done", info
        assert urls.info().count == 30_000
        assert urls.query(text=texts(30_000)[29_999]).hits[0].score == 1.0
        return dict(info.result or {})


@pytest.fixture(scope="module")
def clean(
    tmp_path_factory: pytest.TempPathFactory, file: Path, start_server: Start
) -> dict[str, tuple[bytes, bytes]]:
    data_dir = tmp_path_factory.mktemp("clean") / "data"
    with start_server(data_dir) as server:
        assert check_end(server.url, begin(server.url, file)) == {
            "points": 30_000,
            "bad": 1,
            "format": "lines",
        }
    return content(data_dir)


def import_with_kills(
    data_dir: Path, file: Path, start_server: Start, seed: int, worker_kills: int, server_kills: int
) -> None:
    chance = random.Random(seed)
    job = ""
    for _ in range(server_kills + 1):
        with start_server(data_dir, "--workers", "2") as server:
            job = job or begin(server.url, file)
            for _ in range(worker_kills):
                deadline = time.monotonic() + 20
                while (pid := owner(data_dir, job)) is None and time.monotonic() < deadline:
                    if httpx.get(f"{server.url}/v1/jobs/{job}").json()["state"] == "done":
                        break
                    time.sleep(0.01)
                time.sleep(chance.uniform(0, 0.4))
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
            if server_kills:
                server_kills -= 1
                server.process.send_signal(signal.SIGKILL)
                server.process.wait()
                continue
            result = check_end(server.url, job)
    assert result == {"points": 30_000, "bad": 1, "format": "lines"}


def test_killed_workers_are_replaced_and_nothing_is_lost_or_doubled(
    tmp_path: Path, file: Path, start_server: Start, clean: dict[str, Any]
) -> None:
    import_with_kills(tmp_path / "data", file, start_server, 1, worker_kills=1, server_kills=1)
    assert content(tmp_path / "data") == clean


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_many_kills(
    tmp_path: Path, file: Path, start_server: Start, clean: dict[str, Any], seed: int
) -> None:
    import_with_kills(tmp_path / "data", file, start_server, seed, worker_kills=3, server_kills=4)
    assert content(tmp_path / "data") == clean


def import_tested(
    data_dir: Path, file: Path, start_server: Start, kills: int, chance: random.Random
) -> tuple[Any, list[Any]]:
    """Result and list of duplicates of an import that leaves them out, its server killed often."""
    job = ""
    for left in range(kills, -1, -1):
        with start_server(data_dir) as server, Client(server.url) as db:
            if not job:
                made = db.create_collection("urls", metric="jaccard", features=SHINGLES, seed=3)
                job = made.import_file(file, on_duplicate="skip", threshold=0.9).id
            if left:
                # From a batch on, not from the start: else nothing may have been done yet.
                reached = db.job(job).info().progress.done
                deadline = time.monotonic() + 20
                while (info := db.job(job).info()).progress.done == reached and not info.finished:
                    assert time.monotonic() < deadline, info
                    time.sleep(0.01)
                time.sleep(chance.uniform(0, 0.1))
                server.process.send_signal(signal.SIGKILL)
                server.process.wait()
                continue
            assert db.job(job).wait(timeout=120).state == "done"
            return db.job(job).result(), list(db.job(job).rows())
    raise AssertionError("no server was left to end the import")


def test_a_killed_import_that_looks_for_duplicates_ends_as_a_clean_one(
    tmp_path: Path, start_server: Start
) -> None:
    chance = random.Random(0)
    fresh = [chance.randbytes(20).hex() for _ in range(6_000)]
    file = tmp_path / "near.txt"
    # Copies lie all over the file: in the batch of their original, the next one, and at the end.
    lines = [line for n, text in enumerate(fresh) for line in ((text, text + "s")[: 1 + n % 2])]
    file.write_text("\n".join([*lines, *(text + "t" for text in fresh[::2])]))
    clean = import_tested(tmp_path / "clean", file, start_server, 0, chance)
    killed = import_tested(tmp_path / "killed", file, start_server, 2, chance)
    assert clean[0] == {"points": 6_000, "bad": 0, "format": "lines", "duplicates": 6_000}
    assert len(clean[1]) == 6_000
    assert killed == clean
    assert content(tmp_path / "killed") == content(tmp_path / "clean")


def test_workers_end_with_their_server(tmp_path: Path, start_server: Start) -> None:
    for stop in (signal.SIGTERM, signal.SIGKILL):
        with start_server(tmp_path / "data", "--workers", "2") as server:
            deadline = time.monotonic() + 20
            while "closeby_workers 2.0" not in httpx.get(f"{server.url}/metrics").text:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            pids = workers_of(server.process.pid)
            assert len(pids) == 2
            log = tmp_path / "data.log"
            while log.read_text().count('"event": "working"') < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            server.process.send_signal(stop)
            status = server.process.wait(30)
            assert status == (0 if stop == signal.SIGTERM else -signal.SIGKILL)
            if stop == signal.SIGTERM:
                assert log.read_text().count('"event": "stopped"') == 2
            assert "Fatal Python error" not in log.read_text()
            deadline = time.monotonic() + 20
            while any(Path(f"/proc/{pid}").exists() for pid in pids):
                assert time.monotonic() < deadline, "a worker outlived its server"
                time.sleep(0.05)


def workers_of(server: int) -> list[int]:
    """Process ids of the children of all threads of a process."""
    files = Path(f"/proc/{server}/task").glob("*/children")
    return [int(pid) for file in files for pid in file.read_text().split()]
