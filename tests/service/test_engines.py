"""Every engine that a collection can have, through the HTTP surface."""

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from closeby.index import FlatIndex, as_set_batch
from closeby.index.errors import InvalidInputError
from closeby.service.engines import ENGINES, check_engine, chosen
from closeby.service.hits import Search
from closeby.service.inputs import PointBatch
from closeby.service.settings import Settings
from closeby.service.shard import Shard
from closeby.service.store import Store
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from .conftest import configuration, serving

POINTS, DIM = 2_400, 16
CASES = [
    (name, metric, {})
    for name, kind in ENGINES.items()
    for metric in kind.metrics
    if (name, metric) != ("flat", "ip")
] + [
    ("ivf", "cosine", {"codes": "pq", "pq_bytes": 8}),
    ("ivf", "cosine", {"codes": "rabitq", "lists": 16}),
    ("hnsw", "cosine", {"M": 8, "ef_construction": 40}),
    ("lsh", "jaccard", {"K": 3, "tables": 24}),
]


def rows(metric):
    """Points in groups of ten that are near each other."""
    rng = np.random.default_rng(11)
    if metric == "jaccard":
        firsts = rng.integers(0, 2**40, (POINTS // 10, 40))
        return [
            sorted({*firsts[i // 10, :34].tolist(), *rng.integers(0, 2**40, 6).tolist()})
            for i in range(POINTS)
        ]
    centres = rng.standard_normal((POINTS // 10, DIM))
    noise = 0.15 * rng.standard_normal((POINTS, DIM))
    return (np.repeat(centres, 10, axis=0) + noise).astype(np.float32).round(3).tolist()


def body(metric):
    return {"kind": "ids"} if metric == "jaccard" else {"kind": "vector", "dim": DIM}


def exactly(metric, points):
    """Hits of an exact comparison: {id: row} -> function of queries."""
    ids = np.array(sorted(points))
    values = [points[i] for i in ids.tolist()]
    flat = FlatIndex(metric)
    flat.add(as_set_batch(values) if metric == "jaccard" else np.array(values, np.float32), ids)
    return lambda queries, k: flat.search(
        as_set_batch(queries) if metric == "jaccard" else np.array(queries, np.float32), k
    )


def share_found(client, name, field, queries, truth):
    """Of the neighbours that there are, by score; ids and order are checked on the way."""
    answer = client.post(
        f"/v1/collections/{name}/query:batch",
        json={f"{field}s": queries, "limit": truth.shape[1], "target_recall": 0.99},
    )
    assert answer.status_code == 200, answer.text
    assert 0 < answer.json()["recall_estimate"] <= 1
    found = wanted = 0
    for result, exact in zip(answer.json()["results"], truth, strict=True):
        scores = np.array([hit["score"] for hit in result["hits"]])
        assert (np.diff(scores) <= 0).all()
        best = exact[np.isfinite(exact)]
        wanted += len(best)
        found += min(len(best), int((scores >= best.min() - 1e-4).sum()))
    return found / wanted


def wait_until(told):
    deadline = time.monotonic() + 30
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("engine", "metric", "params"), CASES)
def test_a_life_with_every_engine(engine, metric, params, tmp_path):
    field = "set" if metric == "jaccard" else "vector"
    points = dict(enumerate(rows(metric)))
    options = Settings(data_dir=tmp_path, segment_points=1_000)
    with serving(options) as client:
        asked = {
            "features": body(metric),
            "metric": metric,
            "index": engine,
            "index_params": params,
            "threshold": 0.5 if metric == "jaccard" else 0.8,
        }
        made = client.put("/v1/collections/c", json=asked)
        assert made.status_code == 201, made.text
        assert made.json()["index_params"] == params
        assert client.put("/v1/collections/c", json=asked).status_code == 200
        for start in (0, 1_200):
            part = range(start, start + 1_200)
            upserted = {"ids": [*part], f"{field}s": [points[i] for i in part]}
            answer = client.post("/v1/collections/c/points:upsert", json=upserted)
            assert answer.status_code == 200, answer.text
        stats = made.json()["index_stats"]
        assert stats["engine"] == engine

        def settled():
            info = client.get("/v1/collections/c").json()["index_stats"]
            return info["explain"].get("covered", POINTS) == POINTS

        wait_until(settled)
        queries = [points[i] for i in range(5, POINTS, 60)]
        truth = exactly(metric, points)(queries, 10)[1]
        assert share_found(client, "c", field, queries, truth) >= 0.9
        near = client.post(
            "/v1/collections/c/query", json={field: points[7], "threshold": 0.6, "limit": 50}
        ).json()["hits"]
        assert near
        assert all(hit["score"] >= 0.6 for hit in near)
        gone = [i for i in points if i % 10 in (0, 5, 6)]
        deleted = client.post("/v1/collections/c/points:delete", json={"ids": gone}).json()
        assert deleted["deleted"] == len(gone)
        for i in gone:
            del points[i]
        points[POINTS + 5] = points[1]
        client.post(
            "/v1/collections/c/points:upsert",
            json={"points": [{"id": POINTS + 5, field: points[1], "payload": {"new": True}}]},
        )
        snapshot = client.post("/v1/collections/c/snapshots").json()["name"]
        left = exactly(metric, points)(queries, 7)[1]
        assert share_found(client, "c", field, queries, left) >= 0.9
    with serving(options) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        info = client.get("/v1/collections/c").json()
        assert info["count"] == len(points)
        assert info["index_stats"]["engine"] == engine
        assert share_found(client, "c", field, queries, left) >= 0.9
        first = client.post("/v1/collections/c/query", json={field: points[1], "limit": 2}).json()
        if metric != "ip":  # of inner products the highest is not one's own
            assert {hit["id"] for hit in first["hits"]} == {1, POINTS + 5}
        restored = client.post(
            f"/v1/collections/c/snapshots/{snapshot}/restore", json={"into": "again"}
        )
        assert restored.status_code in (200, 201), restored.text
        again = client.get("/v1/collections/again").json()
        assert (again["index"], again["index_params"]) == (engine, params)
        assert share_found(client, "again", field, queries, left) >= 0.9


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"index": "hnsw", "features": {"kind": "ids"}}, "index"),
        ({"index": "binary_hnsw"}, "index"),
        ({"index": "flinng", "metric": "ip"}, "index"),
        ({"index": "nosuch"}, "index"),
        ({"index": "hnsw", "index_params": {"lists": 4}}, "index_params.lists"),
        ({"index": "hnsw", "index_params": {"M": 1}}, "index_params.M"),
        ({"index": "hnsw", "index_params": {"M": "16"}}, "index_params.M"),
        ({"index": "hnsw", "index_params": 5}, "index_params"),
        ({"index": "ivf", "index_params": {"codes": "sq8"}}, "index_params.codes"),
        ({"index": "ivf", "index_params": {"codes": "pq", "pq_bytes": 5}}, "index_params.pq_bytes"),
        ({"index": "flat", "index_params": {"M": 4}}, "index_params.M"),
        ({"index": "auto", "index_params": {"M": 4}}, "index_params"),
        ({"index": "lsh", "index_params": {"tables": "many"}}, "index_params"),
        ({"index": "flinng", "index_params": {"tables": 2}}, "index_params.tables"),
        ({"index": "flinng", "index_params": {"expected_points": 10**30}}, "index_params"),
    ],
)
def test_an_engine_that_cannot_be_had_is_refused(asked, field, http):
    body = {"features": {"kind": "vector", "dim": DIM}} | asked
    answer = http.put("/v1/collections/refused", json=body)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["errors"][0]["field"].startswith(field)
    assert http.get("/v1/collections/refused").status_code == 404


def test_the_engine_of_auto_is_that_of_its_plan():
    config = configuration({"kind": "ids"}, index="auto")
    assert chosen(config) == ("flinng", {})
    assert chosen(configuration({"kind": "vector", "dim": 4}, index="auto")) == ("flat", {})
    by_product = configuration({"kind": "vector", "dim": 4}, metric="ip", index="auto")
    assert chosen(by_product) == ("maxip", {})
    plan = {"index": "binary_hnsw", "index_params": {"M": 8}}
    assert chosen(config | {"plan": plan}) == ("binary_hnsw", {"M": 8})


def test_parameters_of_another_type_are_refused_by_name():
    config = configuration({"kind": "vector", "dim": 8}, index="ivf", index_params={"lists": None})
    check_engine(config)
    with pytest.raises(InvalidInputError, match="lists"):
        check_engine(config | {"index_params": {"lists": 2.5}})


class Life(RuleBasedStateMachine):
    """A shard whose structure is renewed by hand, against a dictionary, with restarts."""

    engine, metric = "hnsw", "cosine"

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open_directory(Path(self.folder.name))
        config = configuration(body(self.metric), index=self.engine, metric=self.metric)
        self.record = self.store.create_collection("c", config)
        self.rows = rows(self.metric)
        self.points = {}
        self.open()

    def open(self):
        self.shard = Shard(self.store, self.record)
        # As a server has it: somebody else renews.
        engine = self.shard._contents.engine
        engine._settles = False
        self.shard.load()

    @rule(first=st.sampled_from([0, 800, 1_500]), count=st.sampled_from([1, 30, 900]))
    def upsert(self, first, count):
        ids = [*range(first, first + count)]
        values = [self.rows[(i * 7) % POINTS] for i in ids]
        self.shard.upsert(PointBatch(ids, values))
        self.points |= dict(zip(ids, values, strict=True))

    @rule(step=st.sampled_from([2, 3, 50]))
    def delete(self, step):
        gone = [i for i in self.points if i % step == 0]
        assert self.shard.delete(gone) == len(gone)
        for i in gone:
            del self.points[i]

    @rule()
    def renew(self):
        self.shard.merge()

    @rule()
    def restart(self):
        self.open()

    @invariant()
    def answers_hold_what_is_there(self):
        assert len(self.shard) == len(self.points)
        answer = self.shard.search(self.rows[:3], Search(limit=5, target_recall=0.99))
        for query, hits in zip(self.rows[:3], answer.hits, strict=True):
            assert len(hits) <= min(5, len(self.points))
            assert all(hit.id in self.points for hit in hits)
            if query in self.points.values():
                assert hits[0].score == pytest.approx(1, abs=1e-5)

    def teardown(self):
        self.store.close()
        self.folder.cleanup()


class LifeOfLists(Life):
    engine, metric = "binary_ivf", "jaccard"


for machine in (Life, LifeOfLists):
    machine.TestCase.settings = settings(
        max_examples=5,
        stateful_step_count=10,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
TestLife = Life.TestCase
TestLifeOfLists = LifeOfLists.TestCase


def test_writes_and_queries_go_on_while_a_structure_is_built(tmp_path, config):
    store = Store.open_directory(tmp_path)
    made = config(body("cosine"), index="hnsw")
    shard = Shard(store, store.create_collection("c", made))
    shard._contents.engine._settles = False
    shard.load()
    points = rows("cosine")
    shard.upsert(PointBatch([*range(2_100)], points[:2_100]))
    begun, go_on = threading.Event(), threading.Event()
    build = shard._contents.engine._build

    def slow(*args):
        begun.set()
        assert go_on.wait(10)
        return build(*args)

    shard._contents.engine._build = slow
    builder = threading.Thread(target=shard.merge)
    builder.start()
    assert begun.wait(10)
    shard.upsert(PointBatch([5_000, 0], [points[2_200], points[2_300]]))
    assert shard.delete([1]) == 1
    assert shard.search([points[2_200]], Search(limit=1)).hits[0][0].id == 5_000
    go_on.set()
    builder.join()
    assert shard.describe()["index_stats"]["explain"]["covered"] == 2_100
    assert shard.search([points[2_200]], Search(limit=1)).hits[0][0].id == 5_000
    assert shard.search([points[2_300]], Search(limit=1)).hits[0][0].id == 0
    assert all(hit.id != 1 for hit in shard.search([points[1]], Search(limit=10)).hits[0])
    store.close()
