"""Collections that keep hashes of their points alone: what they answer, and what they refuse."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from closeby.client import Client
from closeby.loaders.samples import urls
from closeby.service.settings import Settings

from .conftest import SHINGLES, serving

URLS = "/v1/collections/u"
COUNT = 400
TEXTS = [url for url in urls() if len(url) > 20][:COUNT]


def upsert(http: httpx.Client, name: str, column: str, values: list[Any], first: int = 0) -> None:
    ids = [*range(first, first + len(values))]
    body = {"ids": ids, column: values, "payloads": [{"n": i} if i % 2 else None for i in ids]}
    http.post(f"/v1/collections/{name}/points:upsert", json=body).raise_for_status()


def answers(http: httpx.Client, name: str, column: str, values: list[Any]) -> Any:
    body = {column: values, "limit": 5, "threshold": 0.2}
    found = http.post(f"/v1/collections/{name}/query:batch", json=body).raise_for_status().json()
    assert found["estimated"] is True
    return found["results"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("data")
    with serving(Settings(data_dir=folder, segment_points=64)) as http:
        body = {"features": SHINGLES, "store": "none"}
        assert http.put(URLS, json=body).status_code == 201
        upsert(http, "u", "texts", TEXTS)
        yield http


def test_the_configuration_says_what_points_are_hashed_with(server: httpx.Client) -> None:
    found = server.get(URLS).json()
    assert (found["store"], found["index"], found["count"]) == ("none", "flinng", COUNT)
    assert found["index_params"] == {
        "tables": found["index_stats"]["explain"]["tables"],
        "K": 1,
        "sketch_bits": 512,
        "scheme": "permutations",
    }
    assert "features" not in found["index_stats"]["bytes"]
    assert found["index_stats"]["bytes"]["hashes"] > 0
    # What was asked for first, and what was made of it, are the same collection.
    for again in (
        {"features": SHINGLES, "store": "none"},
        {name: found[name] for name in ("features", "store", "index", "index_params")},
    ):
        assert server.put(URLS, json=again).status_code == 200
    other = server.put(URLS, json={"features": SHINGLES})
    assert other.status_code == 409
    assert "store" in other.json()["detail"]
    plain = server.put("/v1/collections/plain", json={"features": SHINGLES}).json()
    assert plain["store"] == "features"
    assert "estimated" not in server.post(
        "/v1/collections/plain/query", json={"text": "abcdefgh"}
    ).json()  # fmt: skip


def test_a_point_has_a_payload_and_no_input(server: httpx.Client) -> None:
    found = server.post(f"{URLS}/points:get", json={"ids": [1, 2, 9_999]}).json()
    assert found == {
        "points": [{"id": 1, "payload": {"n": 1}}, {"id": 2, "payload": None}],
        "missing": [9_999],
    }
    with Client(str(server.base_url)) as db:
        (point,) = db.collection("u").get(ids=[1])
        assert (point.id, point.payload, point.text) == (1, {"n": 1}, None)
        result = db.collection("u").query(text=TEXTS[7], limit=1)
        assert result.estimated
        assert (result.hits[0].id, result.hits[0].score) == (7, 1.0)
        batch = db.collection("u").query_batch(texts=TEXTS[:3], limit=1)
        assert [one.estimated for one in batch] == [True] * 3


REFUSED: list[tuple[str, str, Any, str, str]] = [
    ("POST", f"{URLS}/evaluate", {}, "collection", "measuring recall"),
    ("GET", f"{URLS}/plan", None, "collection", "a plan"),
    ("POST", f"{URLS}:reindex", {"index": "flat"}, "index", "another engine"),
    ("POST", f"{URLS}:reindex", {"index": "auto"}, "index", "another engine"),
    ("POST", f"{URLS}:reindex", {"index_params": {"K": 2}}, "index_params", "another engine"),
    ("POST", f"{URLS}/duplicates", {"threshold": 0.8}, "collection", "duplicates"),
    ("POST", f"{URLS}/select", {"m": 3}, "collection", "features"),
    ("POST", f"{URLS}/frank_wolfe", {"target": [1.0]}, "collection", "features"),
    (
        "POST",
        f"{URLS}/points:upsert",
        {"ids": [1], "texts": ["abcdefgh"], "on_duplicate": "skip", "threshold": 0.8},
        "on_duplicate",
        "features",
    ),
    ("PUT", "/v1/collections/x", {"features": SHINGLES, "index": "flat"}, "index", "flinng, lsh"),
    ("PUT", "/v1/collections/x", {"features": SHINGLES, "index": "binary_flat"}, "index", "lsh"),
    (
        "PUT",
        "/v1/collections/x",
        {"features": {"kind": "vector", "dim": 4}, "metric": "ip"},
        "store",
        "inner products",
    ),
    (
        "PUT",
        "/v1/collections/x",
        {"features": SHINGLES, "index_params": {"K": 2}},
        "index_params",
        "auto chooses",
    ),
    (
        "PUT",
        "/v1/collections/x",
        {"features": SHINGLES, "index": "flinng", "index_params": {"scheme": "both"}},
        "index_params.scheme",
        "permutations",
    ),
    ("PUT", "/v1/collections/x", {"features": SHINGLES, "store": "some"}, "store", "none"),
    ("PUT", "/v1/collections/x", {"features": SHINGLES, "threshold": 1e-300}, "threshold", "far"),
    (
        "PUT",
        "/v1/collections/x",
        {"features": {"kind": "vector", "dim": 4}, "threshold": 0.01},
        "threshold",
        "far",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "field", "why"), REFUSED)
def test_what_needs_features_is_refused_by_name(
    server: httpx.Client, method: str, path: str, body: Any, field: str, why: str
) -> None:
    if method == "PUT":
        body = {"store": "none"} | body
    answer = server.request(method, path, **({} if body is None else {"json": body}))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "validation_error"), problem
    assert problem["errors"][0]["field"] == field
    assert why in problem["errors"][0]["message"]


def test_an_import_that_looks_for_duplicates_is_refused(server: httpx.Client) -> None:
    asked = {"filename": "a.txt", "on_duplicate": "skip", "threshold": "0.8"}
    kind = {"Content-Type": "application/octet-stream"}
    answer = server.post(f"{URLS}/imports", params=asked, content=b"abcdefgh\n", headers=kind)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "on_duplicate"
    assert "features" in answer.json()["detail"]


def test_what_the_index_is_laid_out_for_can_be_changed(server: httpx.Client) -> None:
    before = answers(server, "u", "texts", TEXTS[:50])
    job = server.post(f"{URLS}:reindex", json={"threshold": 0.4, "target_recall": 0.97})
    assert job.status_code == 202
    deadline = time.monotonic() + 30
    while (state := server.get(job.headers["Location"]).json())["state"] != "done":
        assert state["state"] in ("queued", "running"), state
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = server.get(URLS).json()
    assert (found["threshold"], found["target_recall"], found["store"]) == (0.4, 0.97, "none")
    assert answers(server, "u", "texts", TEXTS[:50]) == before


def test_a_snapshot_holds_hashes_and_is_restored_from_them(server: httpx.Client) -> None:
    made = server.post(f"{URLS}/snapshots").raise_for_status().json()
    assert made["points"] == COUNT
    content = server.get(f"{URLS}/snapshots/{made['name']}").content
    assert TEXTS[3].encode() not in content
    server.put("/v1/collections/v/snapshots/uploaded", content=content).raise_for_status()
    answer = server.post("/v1/collections/v/snapshots/uploaded/restore", json={"into": "v"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["store"] == "none"
    assert answers(server, "v", "texts", TEXTS) == answers(server, "u", "texts", TEXTS)


def vectors(count: int) -> list[list[float]]:
    rng = np.random.default_rng(4)
    base = np.repeat(rng.normal(size=(count // 4, 16)), 4, axis=0)
    return (base + 0.2 * rng.normal(size=base.shape)).round(4).tolist()  # type: ignore[no-any-return]


KINDS: dict[str, tuple[dict[str, Any], str, list[Any]]] = {
    "texts": ({"features": SHINGLES}, "texts", TEXTS),
    "lsh": ({"features": SHINGLES, "index": "lsh"}, "texts", TEXTS),
    "sequences": (
        {
            "features": {"kind": "kmers", "k": 5},
            "index": "flinng",
            "index_params": {"scheme": "one_permutation", "sketch_bits": 256},
        },
        "sequences",
        ["".join(np.random.default_rng(i // 2).choice([*"ACGT"], 80)) for i in range(200)],
    ),
    "vectors": ({"features": {"kind": "vector", "dim": 16}}, "vectors", vectors(300)),
    "sparse": (
        {"features": {"kind": "sparse", "dim": 16}, "index": "lsh"},
        "sparse",
        [{"indices": [*range(16)], "values": row} for row in vectors(300)],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_changes_nothing(tmp_path: Path, kind: str) -> None:
    config, column, values = KINDS[kind]
    settings = Settings(data_dir=tmp_path, segment_points=64)
    with serving(settings) as http:
        http.put("/v1/collections/c", json=config | {"store": "none"}).raise_for_status()
        upsert(http, "c", column, values)
        upsert(http, "c", column, values[10:20], first=30)
        http.post("/v1/collections/c/points:delete", json={"ids": [0, 31]}).raise_for_status()
        asked = [*values[:30], *values[40:100]]
        before = answers(http, "c", column, asked)
        itself = [row["hits"][0]["score"] for row in before[1:]]
        assert itself == pytest.approx([1.0] * 89, abs=1e-6)
        assert 0 not in [hit["id"] for row in before for hit in row["hits"]]
    with serving(settings.model_copy(update={"read_only": True})) as http:
        while http.get("/readyz").status_code != 200:
            time.sleep(0.01)
        assert answers(http, "c", column, asked) == before
    with serving(settings) as http:
        while http.get("/readyz").status_code != 200:
            time.sleep(0.01)
        assert answers(http, "c", column, asked) == before
        stats = http.get("/v1/collections/c").json()["index_stats"]
        assert stats["sealed_segments"] > 0
