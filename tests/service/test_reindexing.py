"""Plans, measured recall, and a change of engine, over HTTP."""

import threading
import time

import numpy as np
import pytest
from closeby.client import Client
from closeby.service.reindexing import REINDEX
from closeby.service.settings import Settings

from .conftest import serving

DIM = 8


def vectors(count=2_500):
    rng = np.random.default_rng(8)
    centres = np.repeat(rng.standard_normal((count // 10, DIM)), 10, axis=0)
    return (centres + 0.1 * rng.standard_normal(centres.shape)).astype(np.float32).round(3).tolist()


def fill(http, name="c", **options):
    body = {"features": {"kind": "vector", "dim": DIM}} | options
    assert http.put(f"/v1/collections/{name}", json=body).status_code == 201
    points = vectors()
    body = {"ids": [*range(len(points))], "vectors": points}
    answer = http.post(f"/v1/collections/{name}/points:upsert", json=body)
    assert answer.status_code == 200, answer.text
    return points


def done(http, answer):
    assert answer.status_code == 202, answer.text
    deadline = time.monotonic() + 60
    while True:
        job = http.get(answer.headers["Location"]).json()
        if job["state"] in ("done", "failed", "cancelled"):
            return job
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path):
    with serving(Settings(data_dir=tmp_path, segment_points=1_000)) as http:
        yield http


def nearest(http, vector, name="c"):
    answer = http.post(f"/v1/collections/{name}/query", json={"vector": vector, "limit": 1})
    assert answer.status_code == 200, answer.text
    return answer.json()["hits"][0]["id"]


def test_every_engine_takes_over_from_another_and_is_there_after_a_restart(tmp_path):
    settings = Settings(data_dir=tmp_path, segment_points=1_000)
    with serving(settings) as http:
        points = fill(http, index="flinng", threshold=0.8)
        http.post("/v1/collections/c/points:delete", json={"ids": [3]})
        for body in (
            {"index": "hnsw", "index_params": {"M": 8}},
            {"index": "lsh"},
            {"index": "ivf", "target_recall": 0.9},
            {"index": "flat"},
            {"index": "flinng"},
        ):
            job = done(http, http.post("/v1/collections/c:reindex", json=body))
            assert job["state"] == "done", job
            assert job["result"]["engine"] == body["index"]
            info = http.get("/v1/collections/c").json()
            assert info["index_stats"]["engine"] == info["index"] == body["index"]
            assert info["index_params"] == body.get("index_params", {})
            assert info["count"] == len(points) - 1
            assert nearest(http, points[7]) == 7
            assert nearest(http, points[3]) != 3
        http.post("/v1/collections/c/points:upsert", json={"ids": [9_000], "vectors": [points[3]]})
        assert http.get("/v1/collections/c").json()["target_recall"] == 0.9
    with serving(settings) as http:
        while http.get("/readyz").status_code != 200:
            time.sleep(0.05)
        info = http.get("/v1/collections/c").json()
        assert (info["index_stats"]["engine"], info["count"]) == ("flinng", len(points))
        assert nearest(http, points[3]) == 9_000
    folders = [path.name for path in (tmp_path / "shards").iterdir()]
    assert len(folders) == 1


def test_writes_and_queries_go_on_while_the_engine_changes(server):
    points = fill(server, index="flat")
    stop, wrong = threading.Event(), []

    def ask():
        while not stop.is_set():
            if nearest(server, points[11]) != 11:
                wrong.append("lost")

    asking = threading.Thread(target=ask)
    asking.start()
    answer = server.post("/v1/collections/c:reindex", json={"index": "hnsw"})
    new = []
    for number in range(30):
        new.append(10_000 + number)
        server.post(
            "/v1/collections/c/points:upsert",
            json={"ids": new[-1:], "vectors": [[float(number), *[9.0] * (DIM - 1)]]},
        )
        server.post("/v1/collections/c/points:delete", json={"ids": [20 + number]})
    assert done(server, answer)["state"] == "done"
    stop.set()
    asking.join()
    assert not wrong
    info = server.get("/v1/collections/c").json()
    assert info["count"] == len(points)
    assert info["index_stats"]["points"] == len(points)
    for number in range(30):
        assert nearest(server, [float(number), *[9.0] * (DIM - 1)]) == 10_000 + number


def test_an_attempt_that_failed_leaves_the_engine_that_there_was(server, monkeypatch):
    from closeby.service import shard as module

    points = fill(server, index="flat")

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "renew", full)
    job = done(server, server.post("/v1/collections/c:reindex", json={"index": "hnsw"}))
    assert (job["state"], job["error"]["code"]) == ("failed", "io_error")
    monkeypatch.undo()
    info = server.get("/v1/collections/c").json()
    assert info["index"] == info["index_stats"]["engine"] == "flat"
    assert nearest(server, points[5]) == 5
    assert REINDEX.place == "server"


def test_auto_is_planned_and_says_why(server):
    fill(server, index="auto")
    job = done(server, server.post("/v1/collections/c:reindex", json={}))
    assert job["state"] == "done"
    assert (job["result"]["engine"], job["result"]["changed"]) == ("flat", False)
    assert "answers are exact" in job["result"]["why"]
    info = server.get("/v1/collections/c").json()
    assert (info["index"], info["index_stats"]["engine"]) == ("auto", "flat")
    assert not {"plan", "generation"} & info.keys()


def test_a_plan_names_every_engine(server):
    fill(server)
    plan = server.get("/v1/collections/c/plan").json()
    assert plan["index"] == plan["engine"] == "flat"
    assert {each["index"] for each in plan["options"]} == {"flat", "flinng", "lsh", "hnsw", "ivf"}
    assert all(each["why"] for each in plan["options"])
    tight = server.get("/v1/collections/c/plan", params={"memory_bytes": 1000}).json()
    assert "nothing meets" in tight["why"]


def test_recall_is_measured_and_told(server):
    points = fill(server, index="hnsw")
    job = done(server, server.post("/v1/collections/c/evaluate", json={"sample": 50, "limit": 5}))
    result = job["result"]
    assert result["queries"] == 50
    assert 0.9 <= result["recall_near"] <= 1
    assert result["drift"] == pytest.approx(result["recall_near"] - result["recall_estimate"])
    metrics = server.get("/metrics").text
    assert 'closeby_recall{collection="c"}' in metrics
    assert 'closeby_recall_drift{collection="c"}' in metrics
    given = {"queries": points[:20], "limit": 3}
    job = done(server, server.post("/v1/collections/c/evaluate", json=given))
    assert job["result"]["recall"] >= 0.9


def test_the_client_plans_evaluates_and_reindexes(server):
    fill(server)
    with Client(str(server.base_url)) as client:
        collection = client.collection("c")
        assert collection.plan(memory_bytes=10**9)["index"] == "flat"
        assert collection.evaluate(sample=20).wait().result["recall"] == 1
        assert collection.reindex(index="ivf").wait().result["before"] == "flat"
        assert collection.info().index_stats["engine"] == "ivf"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/evaluate", {"sample": 0}, "sample"),
        ("/evaluate", {"queries": [[1.0]]}, "queries.0"),
        ("/evaluate", {"queries": []}, "queries"),
        (":reindex", {"index": "binary_hnsw"}, "index"),
        (":reindex", {"index": "hnsw", "index_params": {"M": 0}}, "index_params.M"),
        (":reindex", {"index_params": {"M": 8}}, "index_params"),
        (":reindex", {"seed": 1}, "seed"),
    ],
)
def test_what_cannot_be_done_is_refused(path, body, field, http):
    http.put("/v1/collections/refuse", json={"features": {"kind": "vector", "dim": DIM}})
    answer = http.post(f"/v1/collections/refuse{path}", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"].startswith(field)


def test_one_point_has_no_plan_and_no_recall(http):
    http.put("/v1/collections/one", json={"features": {"kind": "vector", "dim": DIM}})
    http.post("/v1/collections/one/points:upsert", json={"ids": [1], "vectors": [[1.0] * DIM]})
    answer = http.get("/v1/collections/one/plan")
    assert answer.status_code == 422
    assert "at least two" in answer.json()["detail"]
    answer = http.post("/v1/collections/one/evaluate", json={})
    assert answer.status_code == 422
    assert "holds one point; at least two" in answer.json()["detail"]


def test_a_plan_is_the_collections_own(http):
    http.put("/v1/collections/own", json={"features": {"kind": "vector", "dim": DIM}})
    answer = http.get("/v1/collections/own/plan", params={"target_recall": 0.8})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "target_recall"
