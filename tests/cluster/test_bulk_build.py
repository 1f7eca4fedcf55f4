"""Bulk builds over a real PostgreSQL and object storage, one task after the other, without Ray."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from closeby.index.errors import ClosebyError
from closeby.loaders import BadRowError
from closeby.service.cluster.build_log import BUILDING
from closeby.service.cluster.bulk_build import Built, Row, build, job_for
from closeby.service.cluster.joining import join
from closeby.service.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    ImportFileError,
    NotReadyError,
)
from closeby.service.hits import Search
from closeby.service.store import Store

from .test_cluster import FLINNG, SETS, VECTORS, batch, eventually, hits, opened, some_sets

pytestmark = pytest.mark.cluster


class InTurn:
    """Tasks one after the other, each given what a wire would give it, and some of them twice."""

    def __init__(self, disturb: Callable[[str], None] = lambda step: None) -> None:
        self.disturb = disturb

    def flow(
        self,
        files: Sequence[Row],
        read: Callable[[Row], Iterator[Row]],
        store: Callable[[Row], Row],
    ) -> Iterable[Row]:
        points = [row for file in reversed(files) for row in read(file)]
        for number, row in enumerate(reversed(points)):
            if number % 3 == 0:
                store(row)
            yield store(row)
        self.disturb("stored")

    def each(self, asked: Sequence[Row], work: Callable[[Row], Row]) -> Iterable[Row]:
        for one in asked:
            given = orjson.loads(orjson.dumps(one))
            work(given)
            yield work(given)
        self.disturb("done")


def written(path: Path, ids: list[Any], inputs: list[Any], field: str = "set") -> str:
    rows = [
        {"id": point, field: np.asarray(value).tolist(), "payload": {"n": i} if i % 2 else None}
        for i, (point, value) in enumerate(zip(ids, inputs, strict=True))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(
    cluster: Any, name: str, paths: list[str], spread: Any = None, *, replace: bool = False,
    **options: Any,
) -> Built:  # fmt: skip
    store = Store(cluster.store)
    try:
        job = job_for(
            store,
            name,
            store_url=cluster.store,
            segments=cluster.segments,
            segment_points=cluster.segment_points,
            max_set_elements=1000,
            **options,
        )
        return build(store, spread or InTurn(), job, name, paths, replace_points=replace)
    finally:
        store.close()


def count(deployment: Any, name: str) -> int:
    found: int = deployment.registry.get(name).describe()["count"]
    return found


@pytest.mark.parametrize("config", [FLINNG, VECTORS | {"index": "maxip"}], ids=["sets", "vectors"])
def test_a_build_answers_as_an_import_does(
    make_cluster: Any, tmp_path: Path, config: dict[str, Any]
) -> None:
    cluster = make_cluster(2)
    sets: list[Any] = some_sets(900)
    field = "set"
    if config["metric"] == "ip":
        sets = list(np.random.default_rng(1).integers(-9, 9, (900, 8)).astype(np.float32))
        field = "vector"
    ids: list[Any] = [i if i % 3 else str(i) for i in range(900)]
    # Later files have ids of earlier ones: of each the last point stays.
    paths = [
        written(tmp_path / "a.jsonl", ids[:600], sets[:600], field),
        written(tmp_path / "b.jsonl", ids[500:800], sets[500:800], field),
        written(tmp_path / "c.jsonl", ids[550:560], sets[800:810], field),
    ]
    wanted = Search(limit=10)
    with opened(cluster) as deployment:
        one, _ = deployment.registry.create("one", config)
        other, _ = deployment.registry.create("other", config)
        one.upsert(batch(ids[:800], sets[:800]))
        one.upsert(batch(ids[550:560], sets[800:810]))

        built = run(cluster, "other", paths)
        assert (built.points, built.bad, built.files) == (800, 0, 3)
        assert built.replaced == 600 + 310 - 800
        assert built.segments >= 2

        eventually(lambda: count(deployment, "other") == 800, "the name is taken over")
        other = deployment.registry.get("other")
        found, answered = other.search(sets[:50], wanted), one.search(sets[:50], wanted)
        scores = [[hit[1] for hit in row][:3] for row in hits(found)]
        assert scores == [[hit[1] for hit in row][:3] for row in hits(answered)]
        points, absent = other.get(ids[:800])
        assert not absent
        expected = {p.id: p.value for p in one.get(ids[:800])[0]}
        assert {p.id: p.value for p in points} == expected
        with other.points_now() as now:
            assert now.count == len(list(now.rows)) == 800
        number = other.record.id
        for host in cluster.hosts.values():
            assert host._shards[number].progress.total == 0, "something was replayed"
            assert not host._shards[number].merge(), "something was left to merge"

        # All goes on as with points that came one by one: deletions, replacements, a start
        # elsewhere, a shard that joins.
        assert other.delete(ids[:100]) == 100
        other.upsert(batch(ids[100:110], sets[890:900]))
        before = hits(other.search(sets[100:150], wanted))
        cluster.kill("shard-0").close()
        cluster.start("shard-0", machine="elsewhere")
        store = Store(cluster.store)
        assert join(store, deployment.state.fanout, "shard-2", lambda: cluster.start("shard-2"))
        store.close()
        eventually(lambda: not deployment.state.fanout.suspects, "all answer")
        after = hits(other.search(sets[100:150], wanted))
        assert [[h[:2] for h in row][:3] for row in after] == [
            [h[:2] for h in row][:3] for row in before
        ]
        assert other.describe()["count"] == 700
        assert not other.get(ids[:100])[0]


def test_bad_rows_are_told_and_files_may_be_compressed_text(
    make_cluster: Any, tmp_path: Path
) -> None:
    cluster = make_cluster(1)
    config = SETS | {"features": {"kind": "shingles", "unit": "word", "n": 1}}
    path = tmp_path / "words.jsonl.gz"
    lines = [json.dumps({"id": i, "text": f"word{i} and"}) for i in range(50)]
    lines[7], lines[9] = '{"id": 7, "text": "..."}', "no json"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    with opened(cluster) as deployment:
        deployment.registry.create("texts", config)
        with pytest.raises((BadRowError, ClosebyError)):
            run(cluster, "texts", [str(path)], on_error="stop")
        built = run(cluster, "texts", [str(path), str(path)], prefix_ids=True)
        # Both files are called the same, so are their points.
        assert (built.points, built.bad, built.replaced) == (48, 4, 48)
        assert any("line 10:" in why for why in built.reasons)
        assert any("line 8: is empty" in why for why in built.reasons)
        eventually(lambda: count(deployment, "texts") == 48, "there")
        (point,) = deployment.registry.get("texts").get(["words:3"])[0]
        assert point.value == "word3 and"


def test_files_and_segments_may_be_in_object_storage(
    make_cluster: Any, tmp_path: Path, bucket: Callable[[], str]
) -> None:
    import obstore
    import pyarrow as pa
    from pyarrow import parquet

    records = "".join(f">r{i}\n{''.join(random.choices('ACGT', k=80))}\n" for i in range(60))
    table = tmp_path / "rows.parquet"
    parquet.write_table(
        pa.table({"id": [f"p{i}" for i in range(60)], "sequence": ["ACGTTGCA" * 9] * 60}), table
    )
    url = bucket()
    storage = obstore.store.from_url(url)
    obstore.put(storage, "reads.fasta", records.encode())
    obstore.put(storage, "rows.parquet", table)
    cluster = make_cluster(2, segments=f"{url}/segments")
    config = FLINNG | {"features": {"kind": "kmers", "k": 8}}
    with opened(cluster) as deployment:
        deployment.registry.create("reads", config)
        with pytest.raises(ImportFileError, match="no such object"):
            run(cluster, "reads", [f"{url}/missing.fasta"])
        built = run(cluster, "reads", [f"{url}/reads.fasta", f"{url}/rows.parquet"])
        assert (built.points, built.bad) == (120, 0)
        eventually(lambda: count(deployment, "reads") == 120, "there")
        (found,) = deployment.registry.get("reads").search(["ACGTTGCA" * 9], Search(limit=60)).hits
        assert {hit.id for hit in found} == {f"p{i}" for i in range(60)}


def test_a_build_that_cannot_be_published_leaves_all_as_it_was(
    make_cluster: Any, tmp_path: Path
) -> None:
    cluster = make_cluster(1)
    sets = some_sets(100)
    path = written(tmp_path / "a.jsonl", list(range(100)), sets)
    vectors = written(tmp_path / "v.jsonl", [1, 2], [[1.0, 2.0], [2.0, 1.0]], "vector")
    with opened(cluster) as deployment:
        collection, _ = deployment.registry.create("a", FLINNG)

        def nothing_is_left() -> None:
            names = [record.name for record in deployment.store.list_collections()]
            assert names == ["a"]
            assert not list((cluster.directory / "objects").rglob("segment-*"))

        with pytest.raises(CollectionNotFoundError, match="create it"):
            run(cluster, "missing", [path])
        with pytest.raises(ImportFileError, match="points with a vector"):
            run(cluster, "a", [path, vectors])
        nothing_is_left()

        def write(step: str) -> None:
            if step == "stored":
                collection.upsert(batch(["mine"], sets[:1]))

        # Written while it was built: acknowledged, so the build gives way.
        with pytest.raises(CollectionExistsError, match="--replace"):
            run(cluster, "a", [path], InTurn(write))
        nothing_is_left()
        assert [point.id for point in collection.get(["mine"])[0]] == ["mine"]
        with pytest.raises(CollectionExistsError, match="--replace"):
            run(cluster, "a", [path])

        def remove(step: str) -> None:
            if step == "stored":
                (hidden,) = (
                    r for r in deployment.store.list_collections() if r.name.startswith(BUILDING)
                )
                deployment.store.delete_collection(hidden.id)

        # Whoever comes too late writes nothing.
        with pytest.raises(ClosebyError):
            run(cluster, "a", [path], InTurn(remove), replace=True)
        nothing_is_left()

        def change(step: str) -> None:
            if step == "stored":
                cluster.begin_join("shard-1")

        assert run(cluster, "a", [path], replace=True).points == 100
        eventually(lambda: count(deployment, "a") == 100, "published")
        with pytest.raises(NotReadyError, match="build again"):
            run(cluster, "a", [path], InTurn(change), replace=True)
        with pytest.raises(NotReadyError, match="build afterwards"):
            run(cluster, "a", [path], replace=True)
