"""Near-duplicates of a collection, against all pairs compared one by one."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from closeby.client import Client, Collection, ValidationError


@pytest.fixture
def db(server: Any) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def near_sets(count: int, seed: int) -> dict[int | str, set[int]]:
    """Sets in families of near ones; every third id is a string."""
    chance = random.Random(seed)
    made: dict[int | str, set[int]] = {}
    family: list[int] = []
    for n in range(count):
        if n % 4 == 0:
            family = chance.sample(range(100_000), 60)
        changed = chance.choice((0, 2, 5, 20))
        elements = {*family[changed:], *chance.sample(range(100_000), changed)}
        made[n if n % 3 else f"p{n}"] = elements
    return made


def brute_force(sets: dict[int | str, set[int]], threshold: float) -> dict[tuple[Any, Any], float]:
    found = {}
    for (a, one), (b, other) in itertools.combinations(sets.items(), 2):
        score = len(one & other) / len(one | other)
        if score >= threshold:
            found[a, b] = score
    return found


def clustered(pairs: Any, points: Any) -> dict[Any, Any]:
    """The first point of each one's cluster."""
    order = {point: n for n, point in enumerate(points)}
    root = {point: point for point in points}

    def find(point: Any) -> Any:
        while root[point] != point:
            point = root[point]
        return point

    for a, b in pairs:
        one, other = sorted((find(a), find(b)), key=order.__getitem__)
        root[other] = one
    return {point: find(point) for point in points}


def filled(db: Client, name: str, sets: dict[int | str, set[int]]) -> Collection:
    made = db.create_collection(name, metric="jaccard", features={"kind": "ids"})
    # In one request each, so that the order of writing is known.
    payloads = [{"even": n % 2 == 0} for n in range(len(sets))]
    made.upsert(ids=[*sets], sets=[sorted(each) for each in sets.values()], payloads=payloads)
    return made


def test_all_pairs_and_whom_to_keep(db: Client) -> None:
    sets = near_sets(400, 1)
    made = filled(db, "dup-sets", sets)
    wanted = brute_force(sets, 0.7)
    job = made.duplicates(0.7, target_recall=0.9999)
    info = job.wait(timeout=60)
    rows = [*job.rows()]
    found = {(row["a"], row["b"]): row["score"] for row in rows}
    assert len(found) == len(rows)
    assert found == pytest.approx(wanted, abs=1e-6)
    keep = clustered(wanted, sets)
    assert all(row["keep"] == keep[row["a"]] == keep[row["b"]] for row in rows)
    groups = [[*group] for _, group in itertools.groupby(sorted(map(str, keep.values())))]
    assert info.result is not None
    assert info.result["points"] == len(sets)
    assert info.result["pairs"] == len(wanted)
    assert info.result["clusters"] == sum(len(group) > 1 for group in groups)
    assert info.result["duplicates"] == len(sets) - len(groups)
    db.delete_collection("dup-sets")


def test_a_filter_and_a_rule(db: Client) -> None:
    sets = near_sets(200, 2)
    made = filled(db, "dup-filter", sets)
    even = dict([*sets.items()][::2])
    wanted = brute_force(even, 0.5)
    assert wanted
    job = made.duplicates(0.5, filter={"even": True}, keep="last", target_recall=0.9999)
    job.wait(timeout=60)
    rows = [*job.rows()]
    assert {(row["a"], row["b"]) for row in rows} == {*wanted}
    order = {point: n for n, point in enumerate(sets)}
    assert all(order[row["keep"]] >= max(order[row["a"]], order[row["b"]]) for row in rows)
    db.delete_collection("dup-filter")


def test_vectors_and_parquet(db: Client) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 16))
    vectors = np.concatenate([base, base + 0.1 * rng.normal(size=base.shape)]).astype(np.float32)
    made = db.create_collection(
        "dup-vectors", metric="cosine", features={"kind": "vector", "dim": 16}
    )
    made.upsert(ids=range(80), vectors=vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = {(a, b) for a, b in np.argwhere(np.triu(unit @ unit.T, 1) >= 0.9).tolist()}
    job = made.duplicates(0.9, formats=["ndjson", "parquet"], target_recall=0.9999)
    job.wait(timeout=60)
    assert {(row["a"], row["b"]) for row in job.rows()} == wanted
    table = parquet.read_table(io.BytesIO(job.download(format="parquet")))
    columns = table.to_pydict()
    assert {*zip(columns["a"], columns["b"], strict=True)} == wanted
    assert [*columns] == ["a", "b", "score", "keep"]
    db.delete_collection("dup-vectors")


def test_what_cannot_be_asked(db: Client) -> None:
    made = filled(db, "dup-wrong", near_sets(8, 3))
    for wrong in (
        {"threshold": 0},
        {"threshold": 1.5},
        {"threshold": "high"},
        {"threshold": 0.5, "keep": "best"},
        {"threshold": 0.5, "filter": {}},
        {"threshold": 0.5, "formats": []},
    ):
        with pytest.raises(ValidationError):
            made.duplicates(**wrong)  # type: ignore[arg-type]
    inner = db.create_collection("dup-ip", metric="ip", features={"kind": "vector", "dim": 2})
    with pytest.raises(ValidationError, match="inner product"):
        inner.duplicates(0.9)
    for name in ("dup-wrong", "dup-ip"):
        db.delete_collection(name)
