"""Workers killed while they build segments for the server: nothing is lost, sealing goes on."""

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

import numpy as np
import pytest
from closeby.client import Client
from closeby.service.build_orders import MERGE_KIND, SEAL_KIND
from closeby.service.manifest import Manifest

DIM = 64
BATCH = 1_000
Start = Callable[..., Any]


def vectors(first: int) -> list[list[float]]:
    made = np.random.default_rng(first).normal(size=(BATCH, DIM)).astype(np.float32)
    rows: list[list[float]] = made.tolist()
    return rows


def builder(data_dir: Path, kinds: tuple[str, ...]) -> int | None:
    """The process that builds a segment now."""
    with contextlib.closing(sqlite3.connect(data_dir / "store.sqlite3", timeout=30)) as store:
        row = store.execute(
            "SELECT lease_owner FROM jobs WHERE state = 'running' AND kind IN"
            f" ({','.join('?' * len(kinds))})",
            kinds,
        ).fetchone()
    return int(row[0].split(":")[2]) if row else None


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOSEBY_SEGMENT_POINTS", "500")


def check(db: Client, stored: int) -> None:
    points = db.collection("points")
    assert points.info().count == stored
    for first in range(0, stored, 3 * BATCH):
        expected = vectors(first)
        asked = range(0, BATCH, 97)
        found = points.query_batch(vectors=[expected[row] for row in asked], limit=1)
        assert [answer.hits[0].id for answer in found] == [first + row for row in asked]


def kill_builders(
    data_dir: Path, start_server: Start, kinds: tuple[str, ...], kills: int, seed: int
) -> None:
    """Points come in; whoever builds a segment is killed, a little later than it began."""
    chance = random.Random(seed)
    stored = killed = 0
    with start_server(data_dir, "--workers", "1") as server:
        with Client(server.url) as db:
            made = db.create_collection(
                "points",
                metric="cosine",
                features={"kind": "vector", "dim": DIM},
                index="flinng",
                threshold=0.9,
                seed=3,
            )
            deadline = time.monotonic() + 60
            while killed < kills:
                made.upsert(ids=range(stored, stored + BATCH), vectors=vectors(stored))
                stored += BATCH
                until = time.monotonic() + 0.5
                while time.monotonic() < until:
                    if (pid := builder(data_dir, kinds)) is not None:
                        time.sleep(chance.uniform(0, 0.1))
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                        killed += 1
                        break
                    time.sleep(0.002)
                assert time.monotonic() < deadline, f"{killed} builders were found"
            check(db, stored)
            # Sealing goes on, by whomever.
            manifest = data_dir / "shards" / "1"
            while sum(e.chunks for e in sealed(manifest)) < stored // 500:
                assert time.monotonic() < deadline, sealed(manifest)
                time.sleep(0.05)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with start_server(data_dir) as server, Client(server.url) as db:
        check(db, stored)
    assert not any((data_dir / "jobs").glob("*")), "files of orders stayed"
    names = {file.name for file in (data_dir / "shards" / "1").iterdir()}
    listed = Manifest.read(data_dir / "shards" / "1")
    assert listed is not None
    assert names == {"MANIFEST", *(file.name for file in listed.files())}


def sealed(folder: Path) -> tuple[Any, ...]:
    found = Manifest.read(folder)
    return () if found is None else found.segments


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [(SEAL_KIND,), (MERGE_KIND,)], ids=["sealing", "merging"])
def test_workers_that_are_killed_while_they_build_are_no_loss(
    tmp_path: Path, start_server: Start, kinds: tuple[str, ...]
) -> None:
    kill_builders(tmp_path / "data", start_server, kinds, kills=3, seed=1)
