"""Collections by `auto` that are planned again by themselves as they grow."""

import dataclasses
import threading
import time

import numpy as np
import pytest
from closeby.index import predictions
from closeby.index.errors import InvalidInputError
from closeby.service import reindexing
from closeby.service.deployment import Deployment
from closeby.service.settings import Settings, SettingsError, load_settings

from .conftest import serving

DIM = 8
FEATURES = {"kind": "vector", "dim": DIM}


def vectors(first, last):
    rng = np.random.default_rng(8)
    centres = np.repeat(rng.standard_normal((100, DIM)), 10, axis=0)
    found = centres + 0.1 * rng.standard_normal(centres.shape)
    return found.astype(np.float32).round(3).tolist()[first:last]


def fill(http, first, last, name="c"):
    body = {"ids": [*range(first, last)], "vectors": vectors(first, last)}
    http.post(f"/v1/collections/{name}/points:upsert", json=body).raise_for_status()


def jobs(http, state=None):
    found = http.get("/v1/jobs").json()["jobs"]
    return [job for job in found if state in (None, job["state"])]


def await_jobs(http, count):
    deadline = time.monotonic() + 60
    while len(jobs(http, "done")) < count:
        assert time.monotonic() < deadline, jobs(http)
        time.sleep(0.05)


@pytest.fixture
def comparing_is_slow(monkeypatch):
    """Plans as of very many points, of which one engine alone is fit."""
    flat, _, lsh, *_ = predictions.OPTIONS["cosine"]
    slow = (lambda task: dataclasses.replace(flat(task), us=1e9), lsh)
    monkeypatch.setitem(predictions.OPTIONS, "cosine", slow)


def test_a_collection_that_has_grown_gets_another_engine_while_it_serves(
    tmp_path, comparing_is_slow
):
    settings = Settings(data_dir=tmp_path, segment_points=100, replan_from=400, replan_growth=2)
    with serving(settings) as http:
        body = {"features": FEATURES, "threshold": 0.9}
        http.put("/v1/collections/c", json=body).raise_for_status()
        fill(http, 0, 399)
        told = http.get("/v1/collections/c/plan").json()
        assert (told["engine"], told["planned_for"], told["planned_again_at"]) == (
            "flat",
            None,
            400,
        )
        assert 'closeby_collection_engine{collection="c",engine="flat"} 1.0' in (
            http.get("/metrics").text
        )
        stop, wrong = threading.Event(), []

        def ask():
            while not stop.is_set():
                query = {"vector": vectors(7, 8)[0], "limit": 1}
                answer = http.post("/v1/collections/c/query", json=query)
                if answer.status_code != 200 or answer.json()["hits"][0]["id"] != 7:
                    wrong.append(answer.text)

        asking = threading.Thread(target=ask)
        asking.start()
        fill(http, 399, 420)
        await_jobs(http, 1)
        stop.set()
        asking.join()
        assert not wrong
        result = jobs(http)[0]["result"]
        assert (result["before"], result["changed"]) == ("flat", True)
        told = http.get("/v1/collections/c/plan").json()
        assert told["engine"] == result["engine"] != "flat"
        assert (told["planned_for"], told["planned_again_at"]) == (420, 840)
        metrics = http.get("/metrics").text
        assert 'closeby_planned_points{collection="c"} 420.0' in metrics
        assert "closeby_replans_total 1.0" in metrics
        # What it has now is right for twice as many too: planned, and kept.
        fill(http, 420, 860)
        await_jobs(http, 2)
        assert [job["result"]["changed"] for job in jobs(http)] == [False, True]
        assert http.get("/v1/collections/c/plan").json()["planned_for"] == 860
        info = http.get("/v1/collections/c").json()
        assert (info["index"], info["count"]) == ("auto", 860)
    assert len(list((tmp_path / "shards").iterdir())) == 1


@pytest.fixture
def deployment(tmp_path, request):
    """Not started: nothing happens but what the test does."""
    settings = Settings(data_dir=tmp_path, replan_from=20, **getattr(request, "param", {}))
    opened = Deployment(settings)
    yield opened
    opened.close()


def grown(deployment, index, points, name="c"):
    config = {
        "metric": "cosine",
        "features": FEATURES,
        "index": index,
        "target_recall": 0.95,
        "threshold": 0.5,
        "seed": 0,
    }
    shard, _ = deployment.registry.create(name, config)
    put(shard, points)
    return shard


def put(shard, points):
    from closeby.service.shard import PointBatch

    shard.upsert(PointBatch([*range(points)], vectors(0, points)))


def test_a_plan_is_queued_once(deployment):
    shard = grown(deployment, "auto", 19)
    look = deployment.replanning.look
    look()
    assert deployment.replanning.queued == 0
    put(shard, 20)
    for _ in range(3):
        look()
    assert deployment.replanning.queued == 1
    assert deployment.replanning.due_at(shard) == 80


def test_a_plan_that_failed_is_not_tried_again_before_the_collection_has_grown(
    deployment, monkeypatch
):
    def fail(_shard):
        raise InvalidInputError("no plan", field="collection")

    monkeypatch.setattr(reindexing, "plan_for", fail)
    shard = grown(deployment, "auto", 25)
    deployment.start()
    deadline = time.monotonic() + 30
    while not deployment.jobs.jobs.counts()["failed"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    deployment.upkeep.stop()
    for _ in range(3):
        deployment.replanning.look()
    assert deployment.replanning.queued == 1
    put(shard, 100)
    deployment.replanning.look()
    assert deployment.replanning.queued == 2


def test_who_asked_meanwhile_is_enough(deployment):
    shard = grown(deployment, "auto", 30)
    deployment.jobs.jobs.submit("reindex", {}, collection=shard.record.id, max_queued=9)
    deployment.replanning.look()
    assert deployment.replanning.queued == 0


@pytest.mark.parametrize("deployment", [{"max_queued_jobs": 1}], indirect=True)
def test_with_too_many_jobs_waiting_it_waits_too(deployment):
    shard = grown(deployment, "auto", 30)
    other = deployment.jobs.jobs.submit("evaluate", {}, collection=9, max_queued=9)
    deployment.replanning.look()
    assert deployment.replanning.queued == 0
    deployment.jobs.cancel(other.id)
    deployment.replanning.look()
    assert deployment.replanning.queued == 1
    assert deployment.replanning.due_at(shard) == 120


def test_an_engine_that_was_asked_for_stays(deployment):
    shard = grown(deployment, "flat", 30)
    deployment.replanning.look()
    assert deployment.replanning.queued == 0
    assert deployment.replanning.due_at(shard) is None


@pytest.mark.parametrize("deployment", [{"replan_growth": 0}], indirect=True)
def test_it_can_be_turned_off(deployment):
    shard = grown(deployment, "auto", 30)
    deployment.replanning.look()
    assert deployment.replanning.queued == 0
    assert deployment.replanning.due_at(shard) is None


def test_a_factor_that_would_plan_all_the_time_is_refused():
    with pytest.raises(SettingsError, match="replan_growth: must be 0"):
        load_settings(replan_growth=1.1)


def test_two_changes_of_an_engine_come_one_after_the_other(tmp_path):
    with serving(Settings(data_dir=tmp_path, segment_points=100, job_threads=2)) as http:
        body = {"features": FEATURES, "index": "flat"}
        http.put("/v1/collections/c", json=body).raise_for_status()
        fill(http, 0, 900)
        for index in ("flinng", "lsh"):
            answer = http.post("/v1/collections/c:reindex", json={"index": index})
            assert answer.status_code == 202
        await_jobs(http, 2)
        before = {job["result"]["before"] for job in jobs(http)}
        assert before in ({"flat", "flinng"}, {"flat", "lsh"})
        info = http.get("/v1/collections/c").json()
        assert info["index"] == info["index_stats"]["engine"]
        assert info["count"] == info["index_stats"]["points"] == 900
    assert len(list((tmp_path / "shards").iterdir())) == 1
