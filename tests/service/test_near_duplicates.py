"""Near-duplicates among points that come in, against one-by-one comparison."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

POLICIES = ("keep", "link", "skip")
THRESHOLD = 0.6


@pytest.fixture
def collection(http: httpx.Client, request: pytest.FixtureRequest) -> Iterator[str]:
    path = f"/v1/collections/{re.sub('[^a-z]+', '-', request.node.name)}"
    assert http.put(path, json={"features": {"kind": "ids"}}).status_code == 201
    yield path
    http.delete(path)


def stream(count: int, seed: int) -> list[tuple[Any, list[int]]]:
    """Points of which many are near an earlier one; some replace an earlier one."""
    chance = random.Random(seed)
    made: list[tuple[Any, list[int]]] = []
    for n in range(count):
        if made and chance.random() < 0.6:
            base = chance.choice(made)[1]
            changed = chance.choice((0, 1, 3, 8, 15))
            elements = {*base[changed:], *(chance.randrange(10**6) for _ in range(changed))}
        else:
            elements = {chance.randrange(10**6) for _ in range(40)}
        point = chance.choice(made)[0] if made and chance.random() < 0.1 else f"p{n}"
        made.append((point, sorted(elements)))
    return made


class Twin:
    """The same, slowly: every point against every stored one."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.stored: dict[Any, set[int]] = {}

    def upsert(self, batch: list[tuple[Any, list[int]]]) -> dict[Any, float]:
        last = {point: n for n, (point, _) in enumerate(batch)}
        batch = [batch[n] for n in sorted(last.values())]
        before, fresh = dict(self.stored), {}
        found = {}
        for point, elements in batch:
            mine = set(elements)
            scores = [
                len(mine & other) / len(mine | other)
                for known in (before, fresh)
                for name, other in known.items()
                if name != point
            ]
            best = max(scores, default=0.0)
            if best >= THRESHOLD:
                found[point] = best
            if best < THRESHOLD or self.policy != "skip":
                fresh[point] = mine
        self.stored |= fresh
        return found


def send(http: httpx.Client, path: str, batch: Any, policy: str) -> httpx.Response:
    body = {
        "ids": [point for point, _ in batch],
        "sets": [elements for _, elements in batch],
        "on_duplicate": policy,
        "threshold": THRESHOLD,
    }
    return http.post(f"{path}/points:upsert", json=body)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_duplicate_is_told_and_treated(
    http: httpx.Client, collection: str, policy: str
) -> None:
    points = stream(300, 5)
    twin = Twin(policy)
    told = 0
    for start in range(0, len(points), 30):
        batch = points[start : start + 30]
        answer = send(http, collection, batch, policy).json()
        wanted = twin.upsert(batch)
        found = {one["id"]: one["score"] for one in answer["duplicates"]}
        assert found == pytest.approx(wanted, abs=1e-6)
        told += len(found)
        for one in answer["duplicates"]:
            assert one["duplicate_of"] != one["id"]
    assert told > 50
    ids = [*twin.stored]
    assert http.get(collection).json()["count"] == len(ids)
    for start in range(0, len(ids), 50):
        got = http.post(f"{collection}/points:get", json={"ids": ids[start : start + 50]}).json()
        assert got["missing"] == []
        for point in got["points"]:
            assert set(point["set"]) == twin.stored[point["id"]]
            linked = point["payload"] is not None
            assert not linked or policy == "link"
            if linked:
                assert {*point["payload"]["duplicate_of"]} == {"id", "score"}


def test_reject_stores_nothing(http: httpx.Client, collection: str) -> None:
    first = [("a", [*range(40)]), ("b", [*range(100, 140)])]
    assert send(http, collection, first, "reject").json()["upserted"] == 2
    # Its own former version is no duplicate.
    assert send(http, collection, [("a", [*range(1, 41)])], "reject").json()["duplicates"] == []
    mixed = [("c", [*range(500, 540)]), ("d", [*range(2, 42)]), ("e", [*range(500, 541)])]
    answer = send(http, collection, mixed, "reject")
    assert (answer.status_code, answer.json()["code"]) == (409, "near_duplicate")
    assert [error["field"] for error in answer.json()["errors"]] == ["ids[1]", "ids[2]"]
    assert "'a'" in answer.json()["errors"][0]["message"]
    assert http.get(collection).json()["count"] == 2


def test_link_keeps_the_payload(http: httpx.Client, collection: str) -> None:
    points = [
        {"id": 1, "set": [*range(40)], "payload": {"x": 1}},
        {"id": 2, "set": [*range(40)], "payload": {"x": 2}},
    ]
    body = {"points": points, "on_duplicate": "link", "threshold": 0.5}
    answer = http.post(f"{collection}/points:upsert", json=body).json()
    assert answer["duplicates"] == [{"id": 2, "duplicate_of": 1, "score": 1.0}]
    got = http.post(f"{collection}/points:get", json={"ids": [1, 2]}).json()["points"]
    assert got[0]["payload"] == {"x": 1}
    assert got[1]["payload"] == {"x": 2, "duplicate_of": {"id": 1, "score": 1.0}}


def test_of_two_that_come_at_once_one_is_the_duplicate(http: httpx.Client, collection: str) -> None:
    answers: list[dict[str, Any]] = []
    barrier = threading.Barrier(6)

    def one(n: int) -> None:
        barrier.wait()
        answers.append(send(http, collection, [(n, [*range(n, n + 60)])], "skip").json())

    threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(answer["upserted"] for answer in answers) == 1
    assert http.get(collection).json()["count"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_duplicate": "drop", "threshold": 0.5},
        {"on_duplicate": ["skip"], "threshold": 0.5},
        {"on_duplicate": "skip"},
        {"on_duplicate": "skip", "threshold": 0},
        {"on_duplicate": "skip", "threshold": 1.5},
        {"threshold": 0.5},
    ],
)
def test_wrong_options(http: httpx.Client, collection: str, wrong: dict[str, Any]) -> None:
    body = {"ids": [1], "sets": [[1, 2]], **wrong}
    answer = http.post(f"{collection}/points:upsert", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


def test_not_for_inner_products(http: httpx.Client) -> None:
    body = {"features": {"kind": "vector", "dim": 2}, "metric": "ip"}
    assert http.put("/v1/collections/near-ip", json=body).status_code == 201
    upsert = {"ids": [1], "vectors": [[1, 2]], "on_duplicate": "skip", "threshold": 0.5}
    answer = http.post("/v1/collections/near-ip/points:upsert", json=upsert)
    assert answer.status_code == 422
    assert "inner products" in answer.json()["detail"]
