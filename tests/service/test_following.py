"""Servers and other processes of one data directory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from closeby.service import sealing
from closeby.service.deployment import Deployment
from closeby.service.job_store import JobStore
from closeby.service.settings import Settings
from closeby.service.shard import Shard
from closeby.service.store import Store


def elements(i: int) -> list[int]:
    return [i, i + 1, 2**40 + i]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


WORKER = """
import sys
from pathlib import Path
from closeby.index.batches import as_set_batch
from closeby.service.encoding import encode_rows
from closeby.service.store import Entry, Op, Store
store = Store.open_directory(Path(sys.argv[1]))
rows = encode_rows(as_set_batch([[i, i + 1, 2**40 + i] for i in range(100, 200)]))
entries = [Entry(str(100 + i), Op.PUT, row) for i, row in enumerate(rows)]
store.append(int(sys.argv[2]), entries).result()
store.close()
"""


def test_a_server_finds_what_a_worker_process_stored(
    serve: Callable[[Settings], Any], tmp_path: Path
) -> None:
    with serve(Settings(data_dir=tmp_path)) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        http.put("/v1/collections/c", json={"features": {"kind": "ids"}}).raise_for_status()
        subprocess.run([sys.executable, "-c", WORKER, str(tmp_path), "1"], check=True, timeout=60)
        until(lambda: http.get("/v1/collections/c").json()["count"] == 100)
        hits = http.post("/v1/collections/c/query", json={"set": elements(150), "limit": 1})
        assert [hit["id"] for hit in hits.json()["hits"]] == [150]


def test_a_read_only_server_follows_the_one_that_writes(
    serve: Callable[[Settings], Any], tmp_path: Path
) -> None:
    body = {"features": {"kind": "ids"}, "index": "flinng"}

    def count(http: httpx.Client) -> int | None:
        answer = http.get("/v1/collections/c")
        return answer.json()["count"] if answer.status_code == 200 else None

    settings = Settings(data_dir=tmp_path, segment_points=64)
    with serve(settings) as writer:
        writer.put("/v1/collections/c", json=body).raise_for_status()
        with serve(settings.model_copy(update={"read_only": True})) as http:
            until(lambda: http.get("/readyz").status_code == 200)
            for start in range(0, 600, 100):
                ids = [*range(start, start + 100)]
                points = {"ids": ids, "sets": [elements(i) for i in ids]}
                writer.post("/v1/collections/c/points:upsert", json=points).raise_for_status()
            until(lambda: count(http) == 600)
            hits = http.post("/v1/collections/c/query", json={"set": elements(599), "limit": 1})
            assert [hit["id"] for hit in hits.json()["hits"]] == [599]
            for method, path in (
                ("PUT", "/v1/collections/d"),
                ("DELETE", "/v1/collections/c"),
                ("POST", "/v1/collections/c/points:upsert"),
                ("POST", "/v1/collections/c/points:delete"),
                ("POST", "/v1/collections/c/snapshots"),
            ):
                refused = http.request(method, path, json={})
                assert refused.status_code == 403
                assert refused.json()["code"] == "read_only"
            # Collections come and go with those of the writer.
            writer.put("/v1/collections/d", json=body).raise_for_status()
            until(lambda: http.get("/v1/collections/d").status_code == 200)
            writer.delete("/v1/collections/c").raise_for_status()
            until(lambda: count(http) is None)
    # The directory is the writer's alone: another one starts as ever.
    with serve(settings) as writer:
        until(lambda: writer.get("/readyz").status_code == 200)
        assert writer.get("/v1/collections/d").status_code == 200


def test_a_read_only_server_takes_over_a_change_of_engine_and_answers_meanwhile(
    serve: Callable[[Settings], Any], tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, segment_points=64)
    with serve(settings) as writer:
        body = {"features": {"kind": "ids"}, "index": "flinng"}
        writer.put("/v1/collections/c", json=body).raise_for_status()
        ids = [*range(300)]
        points = {"ids": ids, "sets": [elements(i) for i in ids]}
        writer.post("/v1/collections/c/points:upsert", json=points).raise_for_status()
        with serve(settings.model_copy(update={"read_only": True})) as http:
            until(lambda: http.get("/readyz").status_code == 200)

            def finds(point: int) -> bool:
                query = {"set": elements(point), "limit": 1, "threshold": 0.99}
                answer = http.post("/v1/collections/c/query", json=query)
                assert answer.status_code == 200, answer.text
                return [hit["id"] for hit in answer.json()["hits"]] == [point]

            def has(engine: str) -> bool:
                assert finds(17)
                info = http.get("/v1/collections/c").json()
                return bool(info["index_stats"]["engine"] == info["index"] == engine)

            last = 299
            for engine in ("lsh", "binary_hnsw", "flat"):
                body = {"index": engine}
                writer.post("/v1/collections/c:reindex", json=body).raise_for_status()
                until(lambda engine=engine: has(engine))  # type: ignore[misc]
                last += 1
                new = {"ids": [last], "sets": [elements(last)]}
                writer.post("/v1/collections/c/points:upsert", json=new).raise_for_status()
                until(lambda last=last: finds(last))  # type: ignore[misc]
            assert http.get("/v1/collections/c").json()["count"] == 303


def test_reading_a_job_never_waits_for_segments_to_be_sealed(
    serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "ROOM_SECONDS", 0.05)
    monkeypatch.setattr(Shard, "seal", lambda _: False)
    settings = Settings(data_dir=tmp_path, segment_points=16)
    with serve(settings, Deployment(settings, kinds=dict)) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        body = {"features": {"kind": "ids"}, "index": "flinng"}
        http.put("/v1/collections/c", json=body).raise_for_status()
        with contextlib.closing(Store.open_directory(tmp_path)) as store:
            jobs = JobStore(store)
            job = jobs.submit("import", {}, collection=1, collection_name="c", max_queued=1)
            jobs.claim("worker:here:1:a", ["import"], 60)
        subprocess.run([sys.executable, "-c", WORKER, str(tmp_path), "1"], check=True, timeout=60)
        for path in (f"/v1/jobs/{job.id}", "/v1/jobs"):
            assert http.get(path).status_code == 200
            assert http.get("/v1/collections/c").json()["count"] == 100
        # Writers do wait.
        points = {"ids": [1], "sets": [elements(1)]}
        assert http.post("/v1/collections/c/points:upsert", json=points).status_code == 429
