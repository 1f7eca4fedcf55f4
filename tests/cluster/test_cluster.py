"""Shards, ingress and moves over a real PostgreSQL and object storage, without Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.service.cluster.collection import ClusterCollection
from closeby.service.cluster.deployment import ClusterDeployment
from closeby.service.cluster.joining import join, leave
from closeby.service.cluster.placement import read_placement
from closeby.service.errors import NotReadyError, ShardUnavailableError
from closeby.service.feature_keeping import without_features
from closeby.service.hits import Answer, Search
from closeby.service.inputs import PointBatch
from closeby.service.shard import Shard
from closeby.service.store import Store

pytestmark = pytest.mark.cluster

SECONDS = 60.0
SETS = {
    "metric": "jaccard",
    "features": {"kind": "ids"},
    "index": "flat",
    "target_recall": 0.95,
    "threshold": 0.5,
    "seed": 0,
}
FLINNG = SETS | {"index": "flinng"}
HASHES = without_features(FLINNG)
VECTORS = SETS | {"metric": "ip", "features": {"kind": "vector", "dim": 8}}


@contextmanager
def opened(cluster: Any, name: str = "ingress", **options: Any) -> Iterator[ClusterDeployment]:
    deployment = cluster.deployment(name, **options)
    deployment.start()
    try:
        yield deployment
    finally:
        deployment.close()


def some_sets(count: int, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Sets in families of near neighbours, with many ties."""
    random = np.random.default_rng(seed)
    bases = random.integers(0, 10_000, (max(1, count // 10), 20))
    found = []
    for i in range(count):
        base = bases[i % len(bases)].copy()
        changed = random.integers(0, 20, 3)
        base[changed] = random.integers(0, 10_000, 3)
        found.append(np.unique(base).astype(np.uint64))
    return found


def batch(ids: list[Any], inputs: list[Any]) -> PointBatch:
    return PointBatch(ids, inputs, [b'{"n":%d}' % i if i % 2 else None for i in range(len(ids))])


def hits(answer: Answer) -> list[list[tuple[Any, float, bytes | None]]]:
    return [[(hit.id, hit.score, hit.payload) for hit in row] for row in answer.hits]


def eventually(true: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not in {seconds} s: {what}"
        time.sleep(0.05)


def fill(target: Shard, sets: list[Any]) -> None:
    """The same history for both: puts, replacements, deletions."""
    n = len(sets)
    for start in range(0, n, 100):
        ids: list[Any] = [i if i % 3 else str(i) for i in range(start, min(start + 100, n))]
        target.upsert(batch(ids, sets[start : start + 100]))
    replaced = [i for i in range(0, n, 7) if i % 3]
    target.upsert(batch(list(replaced), [sets[-1 - i] for i in replaced]))
    target.delete([i for i in range(n) if i % 11 == 0] + [str(i) for i in range(n) if i % 11 == 0])


@pytest.mark.parametrize(
    ("shards", "config"),
    [(1, SETS), (3, SETS), (1, VECTORS), (3, VECTORS), (3, HASHES)],
    ids=["one-sets", "sets", "one-vectors", "vectors", "hashes"],
)
def test_shards_answer_as_one_process_does(
    make_cluster: Any, tmp_path: Path, shards: int, config: dict[str, Any]
) -> None:
    inputs: list[Any] = some_sets(600)
    if config is VECTORS:
        # Whole numbers: their products are exact, however they are added up.
        inputs = list(np.random.default_rng(1).integers(-9, 9, (600, 8)).astype(np.float32))
    store = Store.open_directory(tmp_path)
    one = Shard(store, store.create_collection("a", config))
    one.load()
    fill(one, inputs)
    with opened(make_cluster(shards)) as deployment:
        collection, created = deployment.registry.create("a", config)
        assert created
        fill(collection, inputs)
        for wanted in (Search(limit=10), Search(limit=200, threshold=0.4), Search(limit=1)):
            expected, found = (
                one.search(inputs[:50], wanted),
                collection.search(inputs[:50], wanted),
            )
            assert hits(found) == hits(expected)
            assert found.estimated is expected.estimated is (config is HASHES)
            assert found.recall_estimate == expected.recall_estimate
            assert found.shards == (shards, shards)
        ids = [*range(40), *map(str, range(40))]
        (mine, absent), (theirs, also) = one.get(ids), collection.get(ids)
        assert [(p.id, p.value, p.payload) for p in mine] == [
            (p.id, p.value, p.payload) for p in theirs
        ]
        assert absent == also
        assert collection.describe()["count"] == len(one)
        with one.points_now() as here, collection.points_now() as there:
            assert here.count == there.count == len(one)
            kept = {(row.point, row.features, row.source, row.payload) for row in here.rows}
            assert {(r.point, r.features, r.source, r.payload) for r in there.rows} == kept
    store.close()


def test_what_was_written_is_found_by_the_next_query(make_cluster: Any) -> None:
    with opened(make_cluster(2)) as deployment:
        collection, _ = deployment.registry.create("a", SETS)
        for i in range(40):
            mine = np.arange(i * 10, i * 10 + 10, dtype=np.uint64)
            collection.upsert(batch([i], [mine]))
            (found,) = collection.search([mine], Search(limit=1)).hits
            assert [(hit.id, hit.score) for hit in found] == [(i, 1.0)]
            if i % 3 == 0:
                assert collection.delete([i]) == 1
                assert collection.search([mine], Search(limit=1)).hits == [[]]
                assert collection.get([i]) == ([], [i])


def test_another_ingress_sees_collections_and_points(make_cluster: Any) -> None:
    cluster = make_cluster(2)
    with opened(cluster) as first, opened(cluster, "second") as second:
        collection, _ = first.registry.create("a", SETS)
        sets = some_sets(50)
        collection.upsert(batch(list(range(50)), sets))
        other = second.registry.get("a")
        wanted = Search(limit=5)
        eventually(
            lambda: hits(other.search(sets, wanted)) == hits(collection.search(sets, wanted)),
            "the shards follow the log",
        )
        first.delete_collection("a")
        eventually(lambda: not second.registry.shards(), "the collection is gone")


def test_a_dead_shard_is_left_out_and_its_writes_are_found_after_its_restart(
    make_cluster: Any,
) -> None:
    cluster = make_cluster(3)
    sets = some_sets(300)
    wanted = Search(limit=20)
    with opened(cluster, deadline=2.0) as deployment:
        collection, _ = deployment.registry.create("a", SETS)
        fill(collection, sets)
        before = collection.search(sets[:20], wanted)
        dead = cluster.kill("shard-1")

        during = collection.search(sets[:20], wanted)
        assert during.shards == (2, 3)
        lost = {h.id for row in before.hits for h in row} - {h.id for r in during.hits for h in r}
        assert lost
        start = time.monotonic()
        for _ in range(20):
            assert collection.search(sets[:20], wanted).shards == (2, 3)
        assert time.monotonic() - start < 10, "one deadline a request"
        with pytest.raises(ShardUnavailableError, match="shard-1"):
            collection.search(sets[:20], Search(strict=True))
        with pytest.raises(ShardUnavailableError, match="shard-1"):
            collection.get(list(range(50)))

        new = some_sets(100, seed=5)
        collection.upsert(batch([f"new-{i}" for i in range(100)], new))
        collection.delete(list(range(300)))

        # It comes back on another machine, while the old process is still there.
        cluster.start("shard-1", machine="elsewhere")
        eventually(
            lambda: collection.search(sets[:1], wanted).shards == (3, 3), "all shards answer"
        )
        found, absent = collection.get([f"new-{i}" for i in range(100)])
        assert len(found) == 100
        assert not absent
        assert not collection.get(list(range(300)))[0]
        for i, row in enumerate(collection.search(new, Search(limit=1)).hits):
            assert row[0].score == 1.0, i
        dead.close()


def test_a_shard_starts_elsewhere_from_object_storage(make_cluster: Any) -> None:
    """Segments are fetched, what is later is replayed, the former owner publishes no more."""
    cluster = make_cluster(2)
    sets = some_sets(1000)
    wanted = Search(limit=10)
    with opened(cluster, deadline=2.0) as deployment:
        collection, _ = deployment.registry.create("a", FLINNG)
        fill(collection, sets)
        number = collection.record.id
        for host in cluster.hosts.values():
            shard = host._shards[number]
            eventually(lambda s=shard: s.describe()["index_stats"]["sealed_segments"], "sealed")
        before = hits(collection.search(sets[:50], wanted))
        old = cluster.kill("shard-0")
        cluster.start("shard-0", machine="elsewhere")
        new = cluster.hosts["shard-0"]
        eventually(lambda: new.status().ready, "ready")
        assert len(new._shards[number]) == len(old._shards[number])
        files = {path.name for path in (cluster.directory / "elsewhere").rglob("segment-*")}
        assert files
        assert new._shards[number].progress.total < len(sets) // 2, "all was replayed"
        eventually(lambda: collection.search(sets[:1], wanted).shards == (2, 2), "both answer")
        after = hits(collection.search(sets[:50], wanted))
        score = [[(h[1]) for h in row][:3] for row in before]
        assert [[h[1] for h in row][:3] for row in after] == score

        collection.upsert(batch([f"x{i}" for i in range(400)], some_sets(400, seed=9)))
        eventually(
            lambda: old._shards[number]._sealer._fault is not None,  # type: ignore[union-attr]
            "the former owner is refused",
        )
        old._stop.set()
        assert "another process" in str(old._shards[number]._sealer._fault)  # type: ignore[union-attr]
        eventually(lambda: not new._shards[number].frozen, "the new owner seals")
        old.close()


def test_a_damaged_object_is_noticed(make_cluster: Any) -> None:
    cluster = make_cluster(1)
    with opened(cluster) as deployment:
        collection, _ = deployment.registry.create("a", FLINNG)
        fill(collection, some_sets(500))
        number = collection.record.id
        shard = cluster.hosts["shard-0"]._shards[number]
        eventually(lambda: not shard.frozen and shard._sealer.segments, "sealed")  # type: ignore[union-attr]
        cluster.kill("shard-0").close()
        objects = sorted((cluster.directory / "objects").rglob("segment-*"))
        data = bytearray(objects[-1].read_bytes())
        data[len(data) // 2] ^= 1
        objects[-1].write_bytes(bytes(data))
        cluster.start("shard-0", machine="elsewhere")
        host = cluster.hosts["shard-0"]
        eventually(lambda: bool(host.status().faults), "the fault is told")
        assert "not what was stored" in host.status().faults[number]
        data[len(data) // 2] ^= 1
        objects[-1].write_bytes(bytes(data))
        eventually(lambda: host.status().ready, "it is mended")


@contextmanager
def load(
    collection: Shard, sets: list[Any], kept: list[int], expected: Any
) -> Iterator[tuple[list[str], list[str]]]:
    """Write and read without pause; what was written, and what went wrong."""
    stop = threading.Event()
    faults: list[str] = []
    written: list[str] = []

    def write() -> None:
        """Far from all that is asked for, so that answers must not change."""
        for i in range(100_000):
            if stop.is_set():
                return
            far = np.arange(10**9 + i * 10, 10**9 + i * 10 + 5, dtype=np.uint64)
            collection.upsert(batch([f"w{i}"], [far]))
            written.append(f"w{i}")
            (row,) = collection.search([far], Search(limit=1)).hits
            if [hit.id for hit in row] != [f"w{i}"]:
                faults.append(f"w{i} is not found: {row}")

    def read() -> None:
        while not stop.is_set():
            answer = collection.search(sets[:30], Search(limit=10))
            points, absent = collection.get(kept)
            if absent or len(points) != len(kept):
                faults.append(f"points are missing: {absent}")
            if hits(answer) != expected or answer.shards[0] != answer.shards[1]:  # type: ignore[index]
                faults.append(f"another answer: {answer.shards}")

    def noted(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            faults.append(repr(error))

    threads = [threading.Thread(target=noted, args=(work,)) for work in (write, read, read)]
    for thread in threads:
        thread.start()
    try:
        yield written, faults
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_shard_joins_while_reads_and_writes_go_on(make_cluster: Any) -> None:
    cluster = make_cluster(2)
    sets = some_sets(800)
    wanted = Search(limit=10)
    with opened(cluster) as deployment:
        collection, _ = deployment.registry.create("a", SETS)
        fill(collection, sets)
        expected = hits(collection.search(sets[:30], wanted))
        kept = [i for i in range(200) if i % 3 and i % 11]
        with load(collection, sets, kept, expected) as (written, faults):
            store = Store(cluster.store)
            assert join(store, deployment.state.fanout, "shard-2", lambda: cluster.start("shard-2"))
            time.sleep(1)
        assert not faults
        assert collection.search(sets[:1], wanted).shards == (3, 3)
        counts = {
            name: len(host._shards[collection.record.id]) for name, host in cluster.hosts.items()
        }
        total = sum(counts.values())
        assert total == collection.describe()["count"]
        assert all(count > total / 5 for count in counts.values()), counts
        found, absent = collection.get(written)
        assert len(found) == len(written) > 5
        assert not absent

        # What was moved stays moved when shards start again.
        cluster.kill("shard-0").close()
        cluster.start("shard-0")
        eventually(
            lambda: (
                deployment.state.fanout.suspects == frozenset()
                and hits(collection.search(sets[:30], wanted)) == expected
            ),
            "the same answers",
        )
        store.close()


def test_a_shard_leaves_while_reads_and_writes_go_on(make_cluster: Any) -> None:
    cluster = make_cluster(3)
    sets = some_sets(800)
    wanted = Search(limit=10)
    with opened(cluster) as deployment:
        collection, _ = deployment.registry.create("a", SETS)
        fill(collection, sets)
        expected = hits(collection.search(sets[:30], wanted))
        kept = [i for i in range(200) if i % 3 and i % 11]
        with load(collection, sets, kept, expected) as (written, faults):
            store = Store(cluster.store)
            assert leave(store, deployment.state.fanout, "shard-1")
            placement = read_placement(store)
            assert placement is not None
            assert sorted(placement.shards) == ["shard-0", "shard-2"]
            time.sleep(0.5)
            left = cluster.kill("shard-1")
            time.sleep(0.5)
        assert not faults
        assert len(left._shards[collection.record.id]) == 0
        left.close()
        assert collection.search(sets[:1], wanted).shards == (2, 2)
        counts = [len(host._shards[collection.record.id]) for host in cluster.hosts.values()]
        assert sum(counts) == collection.describe()["count"]
        found, absent = collection.get(written)
        assert len(found) == len(written) > 5
        assert not absent

        # What the others took is in files of theirs, and is there when they start elsewhere.
        (key,) = set(left._keys.values())
        assert key == "shard-1"
        assert leave(store, deployment.state.fanout, "shard-1"), "has left already"
        with pytest.raises(ValueError, match="last shard"):
            placement.with_leaving("shard-0").settled().with_leaving("shard-2")
        cluster.kill("shard-0").close()
        cluster.start("shard-0", machine="elsewhere")
        eventually(
            lambda: (
                deployment.state.fanout.suspects == frozenset()
                and hits(collection.search(sets[:30], wanted)) == expected
            ),
            "the same answers",
        )
        # A shard of the same name comes again; the files of the one before are none of its own.
        assert join(store, deployment.state.fanout, "shard-1", lambda: cluster.start("shard-1"))
        assert hits(collection.search(sets[:30], wanted)) == expected
        assert collection.search(sets[:1], wanted).shards == (3, 3)
        store.close()


def finished(deployment: ClusterDeployment, kind: str, collection: Shard, params: Any) -> Any:
    jobs = deployment.jobs.jobs
    job = jobs.submit(
        kind,
        params,
        collection=collection.record.id,
        collection_name=collection.record.name,
        max_queued=10,
    )
    deployment.jobs.announce()
    eventually(lambda: jobs.get(job.id).finished_at is not None, f"{kind} has finished")
    found = jobs.get(job.id)
    assert found.error is None, found.error
    return found.result


def test_jobs_of_a_cluster_answer_as_those_of_one_process(make_cluster: Any) -> None:
    cluster = make_cluster(2)
    sets = some_sets(600)
    with opened(cluster) as deployment, opened(cluster, "second") as second:
        collection, _ = deployment.registry.create("a", FLINNG)
        fill(collection, sets)
        count = collection.describe()["count"]
        eventually(lambda: len(collection) == count, "counted")
        asked = {"queries": None, "sample": 100, "seed": 1, "limit": 5, "target_recall": 0.99}
        measured = finished(deployment, "evaluate", collection, asked)
        assert measured["points"] == count
        assert measured["recall_near"] > 0.9
        assert 0.9 < measured["recall_estimate"] <= 1

        wanted = Search(limit=10)
        other = second.registry.get("a")
        keys = [host._keys[collection.record.id] for host in cluster.hosts.values()]
        changed = finished(deployment, "reindex", collection, {"index": "flat"})
        assert (changed["before"], changed["engine"], changed["changed"]) == (
            "flinng",
            "flat",
            True,
        )
        assert not {h._keys[collection.record.id] for h in cluster.hosts.values()} & set(keys)
        eventually(lambda: other.engine_kind == "flat", "the other ingress knows")
        stats = other.describe()["index_stats"]["shards"].values()
        assert {one["engine"] for one in stats} == {"flat"}
        exact = finished(deployment, "evaluate", collection, asked)
        assert exact["recall"] == exact["recall_near"] == exact["recall_estimate"] == 1

        new = some_sets(100, seed=7)
        collection.upsert(batch([f"new-{i}" for i in range(100)], new))
        before = hits(collection.search(sets[:20] + new, wanted))
        cluster.kill("shard-1").close()
        cluster.start("shard-1", machine="elsewhere")
        eventually(
            lambda: (
                not deployment.state.fanout.suspects
                and hits(collection.search(sets[:20] + new, wanted)) == before
            ),
            "it starts elsewhere with the other engine",
        )
        pairs = {"threshold": 0.5, "keep": "first", "formats": ["ndjson"]}
        found = finished(deployment, "duplicates", collection, pairs)
        assert found["points"] == collection.describe()["count"]
        assert found["pairs"] > 100
        # The files of the engine before are gone.
        folder = cluster.directory / "objects" / str(collection.record.id)
        eventually(
            lambda: not [path for key in keys for path in folder.rglob(f"{key}/segment-*")],
            "removed",
        )


def test_what_a_cluster_does_not_do_is_refused(make_cluster: Any) -> None:
    with opened(make_cluster(1)) as deployment:
        collection, _ = deployment.registry.create("a", SETS)
        for refused in (
            lambda: collection.live_seqs([1]),
            lambda: collection.reindex(SETS, None, threading.Event()),
        ):
            with pytest.raises(NotReadyError, match="a cluster does not do this"):
                refused()


def test_a_collection_of_a_cluster_does_not_fall_back_to_an_empty_engine(
    make_cluster: Any,
) -> None:
    """Every public method of a shard is one of the cluster's, or refuses, or needs no points."""
    pointless = {
        "append", "bound_tail", "check", "clear_log", "close", "complete_seq", "drop",
        "featurizer", "frozen", "live_seqs", "merge", "publish_marks", "seal",
        "seal_tail", "versions", "reindex", "features", "engine_kind",
    }  # fmt: skip
    public = {name for name in vars(Shard) if not name.startswith("_")}
    assert public - pointless <= set(vars(ClusterCollection)), "new in Shard: what of a cluster?"
