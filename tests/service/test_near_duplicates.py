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
        self.links: dict[Any, Any] = {}

    def leads_back(self, name: Any, later: set[Any], batch: set[Any]) -> bool:
        """Whether a stored point is linked to one that is to come."""
        while (name := self.links.get(name)) is not None:
            if name in batch:
                return name in later
        return False

    def upsert(self, batch: list[tuple[Any, list[int]]]) -> dict[Any, float]:
        last = {point: n for n, (point, _) in enumerate(batch)}
        batch = [batch[n] for n in sorted(last.values())]
        before, fresh = dict(self.stored), {}
        found = {}
        for row, (point, elements) in enumerate(batch):
            mine = set(elements)
            later = {name for name, _ in batch[row:]}
            scores = [
                len(mine & other) / len(mine | other)
                for known in (before, fresh)
                for name, other in known.items()
                if name != point
                # What is skipped replaces nothing; all else of the batch does.
                if known is fresh or self.policy == "skip" or name not in last
                if known is fresh or not self.leads_back(name, later, {*last})
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
        if policy == "link":
            twin.links |= dict.fromkeys(point for point, _ in batch)
            twin.links |= {one["id"]: one["duplicate_of"] for one in answer["duplicates"]}
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


@pytest.mark.parametrize("policy", POLICIES)
def test_a_request_that_is_repeated_is_answered_as_it_was(
    http: httpx.Client, collection: str, policy: str
) -> None:
    for start in range(0, 120, 30):
        batch = stream(120, 9)[start : start + 30]
        first = send(http, collection, batch, policy).json()
        for _ in range(2):
            again = send(http, collection, batch, policy).json()
            assert again["duplicates"] == first["duplicates"]
            assert again["upserted"] == first["upserted"]
    assert first["duplicates"]


def links(http: httpx.Client, path: str, ids: list[Any]) -> dict[Any, Any]:
    """What each point is linked to."""
    got = http.post(f"{path}/points:get", json={"ids": ids}).json()
    return {
        point["id"]: point["payload"]["duplicate_of"]["id"] if point["payload"] else None
        for point in got["points"]
    }


def test_links_make_no_circles_however_often_points_come_again(
    http: httpx.Client, collection: str
) -> None:
    points = [(f"p{n}", [*range(n % 4, 40 + n % 5)]) for n in range(24)]
    chance = random.Random(2)
    for size in (24, 5, 2):
        for start in range(0, len(points), size):
            send(http, collection, points[start : start + size], "link").raise_for_status()
        found = links(http, collection, [point for point, _ in points])
        assert None in found.values()
        assert sum(target is not None for target in found.values()) > 10
        for point in found:
            at, steps = point, 0
            while (at := found[at]) is not None:
                steps += 1
                assert steps < len(points), f"{point} leads back to itself"
        chance.shuffle(points)


def test_a_point_that_comes_back_is_not_linked_to_one_that_is_linked_to_it(
    http: httpx.Client, collection: str
) -> None:
    send(http, collection, [("a", [*range(40)]), ("b", [*range(1, 41)])], "link")
    http.post(f"{collection}/points:delete", json={"ids": ["a"]}).raise_for_status()
    assert send(http, collection, [("a", [*range(40)])], "link").json()["duplicates"] == []
    assert links(http, collection, ["a", "b"]) == {"a": None, "b": "a"}
