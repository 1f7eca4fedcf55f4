"""A cluster on two Ray nodes of this machine, over a real PostgreSQL, by HTTP and the client."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from closeby.client import Client, ClosebyClientError, Collection

pytestmark = [
    pytest.mark.cluster,
    # Of Ray's own, at import and at shutdown.
    pytest.mark.filterwarnings("default"),
]

START_SECONDS = 180
WHOLE_SECONDS = 30
# Two cores carry both nodes, PostgreSQL and the clients: while a node starts again, the shard that
# is left may have to wait for one of them for seconds.
DEADLINE = 5.0
OBJECT_STORE = 100 << 20


@dataclass
class Running:
    """The head has the ingress and the first shard, `node` the second one.

    One CPU is free, for tasks: too few for a shard.
    """

    nodes: Any
    node: Any
    client: Client
    url: str
    options: Any

    def add_node(self) -> None:
        self.node = self.nodes.add_node(num_cpus=2, object_store_memory=OBJECT_STORE)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def running(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_SERVE_LOG_TO_STDERR", "0")
        import ray
        from closeby.service.cluster import serving
        from closeby.service.cluster.options import ClusterOptions
        from ray import serve
        from ray.cluster_utils import Cluster

        folder = tmp_path_factory.mktemp("cluster")
        options = ClusterOptions(
            store=new_database(),
            segments=f"file://{folder}/objects",
            cache=folder / "cache",
            segment_points=256,
            shard_deadline=DEADLINE,
            shard_cpus=2,
            ingress_cpus=2,
        )
        nodes = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 5,
                "object_store_memory": OBJECT_STORE,
                "include_dashboard": False,
            },
        )
        try:
            ray.init(address=nodes.address, log_to_driver=False)
            port = free_port()
            placement = serving.up(options, {}, host="127.0.0.1", port=port)
            assert list(placement.shards) == ["closeby-shard-0"]
            url = f"http://127.0.0.1:{port}"
            with Client(url, timeout=60) as client:
                made = Running(nodes, None, client, url, options)
                made.add_node()
                points = client.create_collection(
                    "before", metric="jaccard", features={"kind": "ids"}, index="flat"
                )
                points.upsert(ids=list(range(500)), sets=[[i, i + 1, i + 2] for i in range(500)])
                assert serving.add_shard(options) == "closeby-shard-1"
                yield made
        finally:
            serve.shutdown()
            ray.shutdown()
            nodes.shutdown()


def query(url: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{url}/v1/collections/load/query", json=body, timeout=60)


def eventually(true: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> float:
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, f"not in {seconds} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - start


def texts(count: int) -> list[str]:
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
    picked = itertools.islice(itertools.product(words, repeat=4), 0, count * 3, 3)
    return [" ".join(row) for row in picked]


def history(collection: Collection) -> None:
    """The same for a cluster and for one process."""
    given = texts(700)
    payloads = [{"n": i} if i % 2 else None for i in range(700)]
    for start in range(0, 700, 100):
        part = slice(start, start + 100)
        collection.upsert(ids=list(range(700))[part], texts=given[part], payloads=payloads[part])
    collection.upsert(ids=["7", "8", "9"], texts=given[:3])
    collection.upsert(ids=list(range(0, 700, 5)), texts=given[::-5])
    collection.delete(ids=list(range(0, 700, 9)))


def test_what_was_there_before_the_second_shard_came_is_found(running: Running) -> None:
    points = running.client.collection("before")
    assert points.info().count == 500
    found = points.query_batch(sets=[[i, i + 1, i + 2] for i in range(500)], limit=1)
    assert [result.hits[0].id for result in found] == list(range(500))
    stats = points.info().index_stats["shards"]
    assert min(one["points"] for one in stats.values()) > 150
    assert len(stats) == 2


def test_a_cluster_answers_the_client_as_one_process_does(running: Running, server: Any) -> None:
    asked: dict[str, Any] = {"texts": texts(100), "limit": 20}
    answers = []
    with Client(server.url) as one:
        for client in (one, running.client):
            collection = client.create_collection(
                "same",
                metric="jaccard",
                features={"kind": "shingles", "unit": "word", "n": 1},
                index="flat",
            )
            history(collection)
            found = collection.query_batch(**asked)
            hits = [[(hit.id, hit.score, hit.payload) for hit in result.hits] for result in found]
            points = collection.get(ids=list(range(100)))
            shown = [(p.id, p.text, p.payload) for p in points]
            answers.append((hits, shown, collection.info().count))
            assert [c.name for c in client.list_collections() if c.name == "same"]
            client.delete_collection("same")
    assert answers[0] == answers[1]


def test_jobs_through_the_ingress_answer_as_those_of_one_process(
    running: Running, server: Any, tmp_path: Path
) -> None:
    """An uploaded file is imported, points are selected, a vector is combined of few."""
    vectors = np.random.default_rng(5).standard_normal((300, 8)).astype(np.float32)
    path = tmp_path / "vectors.jsonl"
    rows = [{"id": f"v{i}", "vector": row} for i, row in enumerate(vectors.tolist())]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = []
    with Client(server.url) as one:
        for client in (one, running.client):
            collection = client.create_collection(
                "jobs", metric="cosine", features={"kind": "vector", "dim": 8}, index="flat"
            )
            imported = collection.import_file(path).wait(timeout=60).result
            assert imported is not None
            hits = collection.query(vector=vectors[7], limit=3).hits
            chosen = collection.select(10, timeout=60)
            mixed = collection.frank_wolfe(vectors[:9].mean(axis=0), tol=1e-5, timeout=60)
            weights = dict(zip(mixed.ids, mixed.weights, strict=True))
            answers.append((imported, hits, chosen.ids, weights))
            assert (chosen.points, mixed.status, mixed.certified) == (300, "converged", True)
            client.delete_collection("jobs")
    assert answers[0][:3] == answers[1][:3]
    assert answers[1][3] == pytest.approx(answers[0][3], abs=1e-5)
    assert answers[1][0] == {"points": 300, "bad": 0, "format": "jsonl"}


def test_a_bulk_build_on_ray_answers_as_an_import_does(running: Running, tmp_path: Path) -> None:
    from closeby.service.cluster import serving
    from closeby.service.errors import CollectionExistsError, ImportFileError

    given = texts(1200)
    paths = []
    for number in range(3):
        path = tmp_path / f"part-{number}.jsonl"
        rows = range(number * 300, number * 300 + 600)  # each one's second half is the next one's
        path.write_text("".join(json.dumps({"id": i, "text": given[i]}) + "\n" for i in rows))
        paths.append(str(path))
    wanted: dict[str, Any] = {"features": {"kind": "shingles", "unit": "word", "n": 1}}
    collection = running.client.create_collection("built", metric="jaccard", **wanted)
    vectors = tmp_path / "vectors.jsonl"
    vectors.write_text('{"id": 1, "vector": [1.0, 2.0]}\n')
    with pytest.raises(ImportFileError, match="points with a vector"):
        serving.build(running.options, "built", [str(vectors)])
    built = serving.build(running.options, "built", paths)
    assert (built.points, built.replaced, built.bad, built.files) == (1200, 600, 0, 3)
    eventually(lambda: collection.info().count == 1200, "the points are there")
    found = collection.query_batch(texts=given[::10], limit=1)
    assert [result.hits[0].score for result in found] == [1.0] * 120
    assert [p.text for p in collection.get(ids=list(range(1200)))] == given
    collection.delete(ids=[5])
    with pytest.raises(CollectionExistsError, match="--replace"):
        serving.build(running.options, "built", paths)
    running.client.delete_collection("built")


def test_a_node_dies_under_load_and_nothing_acknowledged_is_lost(running: Running) -> None:
    client = running.client
    collection = client.create_collection(
        "load", metric="jaccard", features={"kind": "ids"}, index="flinng"
    )
    stop = threading.Event()
    acknowledged: list[int] = []
    answers: list[bool] = []
    faults: list[str] = []

    def members(point: int) -> list[int]:
        return list(range(point * 20, point * 20 + 20))

    def write(writer: int) -> None:
        for i in itertools.count():
            if stop.is_set():
                return
            ids = [(i * 2 + writer) * 10 + j for j in range(10)]
            try:
                collection.upsert(ids=ids, sets=[members(point) for point in ids])
            except ClosebyClientError as error:
                faults.append(f"upsert: {error}")
            else:
                acknowledged.extend(ids)

    def read() -> None:
        while not stop.is_set():
            answer = query(running.url, {"set": members(0), "limit": 1})
            if answer.status_code == 200:
                answers.append(answer.json()["partial"])
            else:
                faults.append(f"query: {answer.text}")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(2)]
    threads.append(threading.Thread(target=read))
    for thread in threads:
        thread.start()
    eventually(lambda: len(acknowledged) > 1000 and len(answers) > 20, "load")

    killed = time.monotonic()
    running.nodes.remove_node(running.node, allow_graceful=False)
    before = len(acknowledged)
    eventually(lambda: any(answers), "an answer is partial")
    strict = {"set": [1], "strict": True}
    refused = query(running.url, strict)
    assert (refused.status_code, refused.json()["code"]) == (503, "shard_unavailable")
    running.add_node()
    eventually(lambda: query(running.url, strict).status_code == 200, "all shards answer")
    seconds = time.monotonic() - killed
    stop.set()
    for thread in threads:
        thread.join(60)

    assert not faults, faults[:5]
    assert len(acknowledged) > before, "writes stopped while a shard was away"
    assert seconds < WHOLE_SECONDS
    for start in range(0, len(acknowledged), 1000):
        ids = acknowledged[start : start + 1000]
        assert [point.id for point in collection.get(ids=ids)] == ids
        found = collection.query_batch(sets=[members(point) for point in ids], limit=1)
        assert [(r.hits[0].id, r.hits[0].score) for r in found] == [(point, 1.0) for point in ids]


def test_a_shard_is_removed_and_its_points_are_found(running: Running) -> None:
    from closeby.service.cluster import serving
    from ray import serve

    points = running.client.collection("before")
    count = points.info().count
    with pytest.raises(ValueError, match="there is no shard closeby-shard-7"):
        serving.remove_shard(running.options, "closeby-shard-7")
    assert serving.remove_shard(running.options) == "closeby-shard-1"
    assert "closeby-shard-1" not in serve.status().applications
    eventually(lambda: len(points.info().index_stats["shards"]) == 1, "the ingress knows")
    assert points.info().count == count == 500
    found = points.query_batch(sets=[[i, i + 1, i + 2] for i in range(500)], limit=1)
    assert [result.hits[0].id for result in found] == list(range(500))
