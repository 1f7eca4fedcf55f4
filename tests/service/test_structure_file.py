"""An engine of FAISS has its structure again after a start, without building it."""

import time

import numpy as np
import pytest
from closeby.index.baselines import RebuiltIndex, structure_files
from closeby.index.baselines.rebuilt import STRUCTURE_FROM
from closeby.service.settings import Settings

from .conftest import serving

POINTS = STRUCTURE_FROM + 300
BODY = {"features": {"kind": "vector", "dim": 8}, "index": "hnsw", "threshold": 0.9}


def vectors(count=POINTS):
    return np.random.default_rng(5).standard_normal((count, 8)).astype(np.float32)


def fill(http, rows, first=0):
    points = [{"id": first + i, "vector": row} for i, row in enumerate(rows.tolist())]
    for start in range(0, len(points), 1000):
        part = {"points": points[start : start + 1000]}
        http.post("/v1/collections/c/points:upsert", json=part).raise_for_status()


def covered(http):
    return http.get("/v1/collections/c").json()["index_stats"]["explain"]["covered"]


def await_structure(http, least=1):
    deadline = time.monotonic() + 60
    while covered(http) < least:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(http, rows):
    body = {"vectors": rows.tolist(), "limit": 5}
    found = http.post("/v1/collections/c/query:batch", json=body).json()["results"]
    return [[hit["id"] for hit in one["hits"]] for one in found]


@pytest.fixture
def stopped(tmp_path):
    """A server that was stopped when its structure was there: its settings, and some answers."""
    settings = Settings(data_dir=tmp_path)
    with serving(settings) as http:
        http.put("/v1/collections/c", json=BODY).raise_for_status()
        fill(http, vectors())
        await_structure(http)
        before = answers(http, vectors()[:20])
    (file,) = tmp_path.glob("shards/*/structure")
    return settings, before, file


def test_a_start_builds_nothing_and_answers_as_before(stopped, monkeypatch):
    settings, before, _ = stopped
    monkeypatch.setattr(RebuiltIndex, "_build", lambda *_: pytest.fail("built anew"))
    with serving(settings) as http:
        assert covered(http) >= STRUCTURE_FROM
        assert answers(http, vectors()[:20]) == before
        http.post("/v1/collections/c/points:delete", json={"ids": [0]}).raise_for_status()
        fill(http, vectors()[5:6], first=1)  # another version of point 1
        after = answers(http, vectors()[:2])
        assert 0 not in after[0]
        assert after[1][0] != 1
    with serving(settings) as http:  # once more, with points of the structure gone from the log
        assert answers(http, vectors()[:2]) == after


@pytest.mark.parametrize("damage", ["flipped", "short", "foreign"])
def test_a_damaged_file_never_reaches_faiss_and_the_structure_is_built_anew(
    stopped, damage, monkeypatch
):
    settings, before, file = stopped
    whole = bytearray(file.read_bytes())
    if damage == "flipped":
        whole[-2_000] ^= 4
    file.write_bytes({"short": whole[:-64], "foreign": b"x" * 4_096}.get(damage, whole))
    monkeypatch.setattr(structure_files.faiss, "deserialize_index", pytest.fail)
    with serving(settings) as http:
        await_structure(http)
        assert answers(http, vectors()[:20]) == before


def test_a_collection_that_goes_takes_its_file_along(stopped):
    settings, _, file = stopped
    with serving(settings) as http:
        http.delete("/v1/collections/c").raise_for_status()
    assert not file.parent.exists()


def test_another_engine_has_a_file_of_its_own(stopped):
    settings, _, file = stopped
    with serving(settings) as http:
        http.post("/v1/collections/c:reindex", json={"index": "ivf"}).raise_for_status()
        deadline = time.monotonic() + 60
        while http.get("/v1/jobs").json()["jobs"][0]["state"] != "done":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        await_structure(http)
    assert not file.exists()
    assert len(list(settings.data_dir.glob("shards/*/structure"))) == 1
