"""A worker that imports faster than the server seals waits for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from closeby.service import imports
from closeby.service.imports import IMPORT
from closeby.service.job_store import JobStore, new_job_id
from closeby.service.jobs import JobRunner
from closeby.service.settings import Settings
from closeby.service.shard import Sealing, Shard
from closeby.service.store import Store

CONFIG: dict[str, Any] = {
    "metric": "jaccard",
    "features": {"kind": "shingles", "unit": "byte", "n": 4},
    "index": "flinng",
    "target_recall": 0.95,
    "threshold": 0.5,
    "seed": 0,
}
ROWS, SEGMENT, BATCH = 400, 16, 20


def waits_at(store: Store) -> int:
    """How many rows the log has once no more come in."""
    deadline = time.monotonic() + 20
    before, since = store.count_rows(1), time.monotonic()
    while time.monotonic() - since < 0.25 or not before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        if (now := store.count_rows(1)) != before:
            before, since = now, time.monotonic()
    return before


@pytest.mark.parametrize("generation", [0, 2])
def test_a_worker_pauses_while_the_log_behind_the_sealed_files_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generation: int
) -> None:
    monkeypatch.setattr(imports, "BATCH_POINTS", BATCH)
    monkeypatch.setattr(imports, "LOOK_BATCHES", 1)
    monkeypatch.setattr(imports, "PAUSE_SECONDS", 0.02)
    most = imports.MAX_TAIL_SEGMENTS * SEGMENT
    settings = Settings(data_dir=tmp_path, segment_points=SEGMENT)
    server, own = (Store.open_directory(tmp_path) for _ in range(2))
    config = CONFIG | ({"generation": generation} if generation else {})
    record = server.create_collection("c", config)
    # As the registry names it: each engine that a collection had has its own.
    folder = tmp_path / "shards" / (f"1.{generation}" if generation else "1")
    folder.parent.mkdir()
    shard = Shard(server, record, sealing=Sealing(folder, SEGMENT))
    shard.load()
    job = new_job_id()
    (tmp_path / "jobs" / job).mkdir(parents=True)
    lines = "\n".join(f"https://shop.example/items/{n * n}" for n in range(ROWS))
    (tmp_path / "jobs" / job / "urls.txt").write_text(lines)
    params = {"upload": "urls.txt", "options": {}}
    jobs = JobStore(server)
    jobs.submit("import", params, collection=1, job_id=job, max_queued=1)
    worker = JobRunner(
        own,
        settings,
        lambda: {"import": IMPORT},
        tmp_path / "jobs",
        owner="worker:here:1:a",
        threads=1,
    )
    worker.start()
    try:
        stored = waits_at(server)
        assert most < stored <= most + BATCH
        assert jobs.get(job).state == "running"
        shard.catch_up()
        assert shard.seal()
        assert waits_at(server) > stored, "it does not go on after a seal"
        deadline = time.monotonic() + 20
        while jobs.get(job).state != "done":
            assert time.monotonic() < deadline
            shard.catch_up()
            shard.seal()
        shard.catch_up()
        assert len(shard) == ROWS
    finally:
        worker.stop()
        own.close()
        server.close()
