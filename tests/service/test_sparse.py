"""Sparse vectors through the service: on the wire, on disk, through restarts, on each engine."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import scipy.sparse
from closeby.service.settings import Settings

DIM = 5_000
FEATURES = {"kind": "sparse", "dim": DIM}


def create(http: httpx.Client, name: str, **options: Any) -> str:
    answer = http.put(f"/v1/collections/{name}", json={"features": FEATURES, **options})
    assert answer.status_code == 201, answer.text
    return f"/v1/collections/{name}"


def post(http: httpx.Client, path: str, body: Any) -> Any:
    answer = http.post(path, json=body)
    assert answer.status_code in (200, 202), answer.text
    return answer.json()


def finished(http: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
        job = http.get(f"/v1/jobs/{job['id']}").json()
    assert job["state"] == "done", job
    return dict(job["result"])


def documents(count: int, seed: int = 0) -> list[dict[str, list[Any]]]:
    """Documents of 20 words with weights; every two of them are alike."""
    rng = np.random.default_rng(seed)
    found = []
    for at in range(count):
        if at % 2 == 0:
            words = rng.choice(DIM, 20, replace=False)
            weights = rng.exponential(1, 20) + 0.1
        near = weights * rng.normal(1, 0.05, 20)
        found.append({"indices": words.tolist(), "values": near.tolist()})
    return found


def dense(vectors: list[dict[str, list[Any]]]) -> np.ndarray[Any, Any]:
    matrix = np.zeros((len(vectors), DIM))
    for row, vector in enumerate(vectors):
        matrix[row, vector["indices"]] = vector["values"]
    return matrix


# --- the wire ------------------------------------------------------------------------------------


def test_points_are_stored_found_given_back_and_deleted(http: httpx.Client) -> None:
    at = create(http, "wire")
    told = http.get(at).json()
    assert (told["features"], told["metric"], told["threshold"]) == (FEATURES, "cosine", 0.8)
    unsorted = {"indices": [7, 3], "values": [0.5, 2]}
    points = [{"id": "a", "sparse": unsorted, "payload": {"n": 1}}]
    assert post(http, f"{at}/points:upsert", {"points": points})["upserted"] == 1
    columns = {"ids": [1, 2], "sparse": [{"indices": [DIM - 1], "values": [-4]}, unsorted]}
    assert post(http, f"{at}/points:upsert", columns)["upserted"] == 2
    asked = {"sparse": {"indices": [3, 7], "values": [4, 1]}, "threshold": 0.5}
    hits = post(http, f"{at}/query", asked)["hits"]
    assert [(hit["id"], round(hit["score"], 5)) for hit in hits] == [("a", 1.0), (2, 1.0)]
    batch = {"sparse": [{"indices": [DIM - 1], "values": [-0.25]}, unsorted], "limit": 1}
    results = post(http, f"{at}/query:batch", batch)["results"]
    assert [one["hits"][0]["id"] for one in results] == [1, "a"]
    got = post(http, f"{at}/points:get", {"ids": ["a", 1, 9]})
    assert got["points"] == [
        {"id": "a", "sparse": {"indices": [3, 7], "values": [2, 0.5]}, "payload": {"n": 1}},
        {"id": 1, "sparse": {"indices": [DIM - 1], "values": [-4]}, "payload": None},
    ]
    assert got["missing"] == [9]
    assert post(http, f"{at}/points:delete", {"ids": ["a"]})["deleted"] == 1
    assert [hit["id"] for hit in post(http, f"{at}/query", asked)["hits"]] == [2]


def test_zeros_are_as_if_they_were_not_given(http: httpx.Client) -> None:
    at = create(http, "zeros", metric="ip")
    given = {"indices": [1, 2, 3], "values": [0, 1.5, 1e-60]}
    post(http, f"{at}/points:upsert", {"points": [{"id": 1, "sparse": given}]})
    found = post(http, f"{at}/points:get", {"ids": [1]})["points"][0]["sparse"]
    assert found == {"indices": [2], "values": [1.5]}
    query = {"sparse": {"indices": [2, 9], "values": [2, 5]}}
    assert post(http, f"{at}/query", query)["hits"][0]["score"] == 3


@pytest.mark.parametrize(
    ("sparse", "field", "message"),
    [
        ([1, 2], "", "must be an object of indices and values, not a list"),
        ({"indices": [1]}, ".values", "is missing"),
        ({"values": [1]}, ".indices", "is missing"),
        ({"indices": 1, "values": [1]}, ".indices", "must be a list"),
        ({"indices": [1], "values": [1], "dim": 3}, ".dim", "does not belong here"),
        ({"indices": [1, 2], "values": [1]}, "", "2 indices for 1 values"),
        ({"indices": [], "values": []}, "", "has no values"),
        ({"indices": [0, 1.0], "values": [1, 1]}, ".indices[1]", "must be a whole number"),
        ({"indices": [True], "values": [1]}, ".indices[0]", "not a boolean"),
        ({"indices": [3, -1], "values": [1, 1]}, ".indices[1]", "must be from 0 to 4999"),
        ({"indices": [DIM], "values": [1]}, ".indices[0]", "must be from 0 to 4999, not 5000"),
        ({"indices": [2**64 - 1], "values": [1]}, ".indices[0]", "must be from 0"),
        ({"indices": [4, 9, 4], "values": [1, 1, 1]}, ".indices[2]", "is 4, which is given twice"),
        ({"indices": [1, 2], "values": [1, "2"]}, ".values[1]", "must be a number, not a string"),
        ({"indices": [1], "values": [None]}, ".values[0]", "must be a number, not null"),
        ({"indices": [1], "values": [1e39]}, "", "finite numbers within the range of float32"),
        ({"indices": [1, 2], "values": [0, 0]}, "", "zeros"),
        ({"indices": [*range(1001)], "values": [1] * 1001}, "", "the limit is 1000"),
    ],
)
def test_what_is_no_sparse_vector_is_refused_by_name(
    http: httpx.Client, sparse: Any, field: str, message: str
) -> None:
    at = "/v1/collections/refusing"
    http.put(at, json={"features": FEATURES})
    good = {"indices": [1], "values": [1]}
    bodies = {
        "points:upsert": (
            {"points": [{"id": 1, "sparse": good}, {"id": 2, "sparse": sparse}]},
            "points[1].sparse",
        ),
        "query": ({"sparse": sparse}, "sparse"),
        "query:batch": ({"sparse": [good, sparse]}, "sparse[1]"),
    }
    for action, (body, path) in bodies.items():
        answer = http.post(f"{at}/{action}", json=body)
        assert answer.status_code == 422, answer.text
        problem = answer.json()
        assert problem["code"] == "validation_error"
        assert problem["errors"][0]["field"] == path + field
        assert message in problem["errors"][0]["message"]
    assert http.get(at).json()["count"] == 0


def test_another_kind_of_input_is_refused_in_words(http: httpx.Client) -> None:
    at = create(http, "kinds")
    answer = http.post(f"{at}/query", json={"vector": [1, 2]})
    assert "holds sparse vectors, not vectors" in answer.json()["detail"]
    vectors = {"features": {"kind": "vector", "dim": 2}}
    assert http.put("/v1/collections/dense", json=vectors).status_code == 201
    answer = http.post("/v1/collections/dense/query", json={"sparse": {}})
    assert "holds vectors, not sparse vectors" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"features": {"kind": "sparse"}}, "features.dim", "need dim"),
        ({"features": {"kind": "sparse", "dim": 2**32 + 1}}, "features.dim", "4294967296"),
        ({"metric": "jaccard"}, "metric", "vectors by cosine or ip"),
        ({"index": "hnsw"}, "index", "hnsw does not search sparse vectors by cosine; take one of"),
        ({"index": "ivf"}, "index", "auto, flinng, lsh, flat"),
        ({"metric": "ip", "index": "maxip"}, "index", "take one of auto, flat"),
        ({"metric": "ip", "index": "flinng"}, "index", "take one of auto, flat"),
    ],
)
def test_a_collection_that_cannot_be_is_refused(
    http: httpx.Client, change: dict[str, Any], field: str, message: str
) -> None:
    answer = http.put("/v1/collections/wrong", json={"features": FEATURES, **change})
    assert answer.status_code == 422, answer.text
    error = answer.json()["errors"][0]
    assert error["field"] == field
    assert message in error["message"]


def test_jobs_that_need_dense_vectors_are_refused(http: httpx.Client) -> None:
    at = create(http, "jobs")
    vector = {"indices": [1], "values": [1]}
    tested = {"points": [{"id": 1, "sparse": vector}], "on_duplicate": "skip", "threshold": 0.9}
    target = [1.0]
    for path, body in {
        "points:upsert": tested,
        "duplicates": {"threshold": 0.9},
        "select": {"m": 1},
        "frank_wolfe": {"target": target},
    }.items():
        answer = http.post(f"{at}/{path}", json=body)
        assert answer.status_code == 422, answer.text
        assert "sparse vectors" in answer.json()["detail"], path


# --- a life --------------------------------------------------------------------------------------


def held(settings: Settings) -> list[str]:
    return [path.name for path in settings.data_dir.glob("shards/*/segment*")]


@pytest.mark.parametrize(
    ("index", "metric"),
    [("flat", "ip"), ("flinng", "cosine"), ("lsh", "cosine")],
)
def test_a_life_with_restarts(
    serve: Callable[..., Any], tmp_path: Path, index: str, metric: str
) -> None:
    settings = Settings(data_dir=tmp_path / "data", segment_points=150, port=0)
    vectors = documents(400)
    with serve(settings) as http:
        at = create(http, "docs", index=index, metric=metric)
        for start in range(0, 400, 100):
            rows = {"ids": [*range(start, start + 100)], "sparse": vectors[start : start + 100]}
            post(http, f"{at}/points:upsert", rows)
        post(http, f"{at}/points:delete", {"ids": [*range(0, 40, 2)]})
        replaced = {"id": 41, "sparse": vectors[43]}
        post(http, f"{at}/points:upsert", {"points": [replaced]})
    assert held(settings)
    with serve(settings) as http:
        assert http.get(at).json()["count"] == 380
        _check_answers(http, at, vectors, metric)
        # More behind the sealed files, and deletions in them.
        more = documents(20, seed=3)
        post(http, f"{at}/points:upsert", {"ids": [*range(400, 420)], "sparse": more})
        post(http, f"{at}/points:delete", {"ids": [399]})
        snapshot = http.post(f"{at}/snapshots").json()
        path = f"{at}/snapshots/{snapshot['name']}/restore"
        assert http.post(path, json={"into": "copy"}).status_code in (200, 201)
    with serve(settings) as http:
        for name in ("docs", "copy"):
            here = f"/v1/collections/{name}"
            assert http.get(here).json()["count"] == 399
            _check_answers(http, here, vectors, metric)
            asked = {"sparse": more[7], "limit": 1}
            assert post(http, f"{here}/query", asked)["hits"][0]["id"] in (406, 407)
        stored = post(http, f"{at}/points:get", {"ids": [41]})["points"][0]["sparse"]
        order = np.argsort(vectors[43]["indices"])
        assert stored["indices"] == np.array(vectors[43]["indices"])[order].tolist()
        np.testing.assert_allclose(stored["values"], np.array(vectors[43]["values"])[order], 1e-6)


def _check_answers(
    http: httpx.Client, at: str, vectors: list[dict[str, list[Any]]], metric: str
) -> None:
    """Twins are found, with the right score; what was deleted or replaced is not."""
    asked = [*range(1, 40, 2), *range(100, 160)]
    results = post(http, f"{at}/query:batch", {"sparse": [vectors[a] for a in asked]})["results"]
    matrix = dense(vectors)
    if metric == "cosine":
        matrix /= np.linalg.norm(matrix, axis=1)[:, None]
    for own, result in zip(asked, results, strict=True):
        found = {hit["id"]: hit["score"] for hit in result["hits"]}
        assert own in found
        assert (own ^ 1 in found) == (own >= 40)
        for other, score in found.items():
            if other < 400 and other != 41:
                assert score == pytest.approx(matrix[own] @ matrix[other], rel=1e-4, abs=1e-5)


def test_engines_are_planned_evaluated_and_changed(http: httpx.Client) -> None:
    at = create(http, "engines")
    vectors = documents(300)
    for start in range(0, 300, 50):
        rows = {"ids": [*range(start, start + 50)], "sparse": vectors[start : start + 50]}
        post(http, f"{at}/points:upsert", rows)
    plan = http.get(f"{at}/plan").json()
    assert plan["engine"] == "flat"
    assert {option["index"] for option in plan["options"]} == {"flat", "flinng", "lsh"}
    for index in ("flinng", "lsh", "auto"):
        result = finished(http, post(http, f"{at}:reindex", {"index": index}))
        assert result["engine"] == index or index == "auto"
        measured = finished(http, post(http, f"{at}/evaluate", {"sample": 100, "limit": 1}))
        assert measured["recall_near"] >= 0.9
    queries = [{"indices": [1, 5], "values": [1, 2.5]}]
    measured = finished(http, post(http, f"{at}/evaluate", {"queries": queries}))
    assert measured["recall"] == 1
    answer = http.post(f"{at}/evaluate", json={"queries": [{"indices": [DIM], "values": [1]}]})
    assert answer.json()["errors"][0]["field"] == "queries.0"
    answer = http.post(f"{at}:reindex", json={"index": "hnsw"})
    assert "hnsw does not search sparse vectors" in answer.json()["detail"]


def test_files_are_imported(http: httpx.Client) -> None:
    matrix = scipy.sparse.random(60, DIM, 0.002, "csr", random_state=1)
    saved = io.BytesIO()
    scipy.sparse.save_npz(saved, matrix)
    rows = [matrix[row] for row in range(60)]
    lines = [
        "1 " + " ".join(f"{i}:{v!r}" for i, v in zip(row.indices, row.data.tolist(), strict=True))
        for row in rows
    ]
    objects = [
        json.dumps({"sparse": {"indices": row.indices.tolist(), "values": row.data.tolist()}})
        for row in rows
    ]
    wrong = f"1 {DIM}:1\n1 3:1 3:2\n"
    files = {
        "npz": (saved.getvalue(), 0, 0),
        "libsvm": (("\n".join(lines) + "\n" + wrong).encode(), 1, 2),
        "jsonl": ("\n".join(objects).encode(), 1, 0),
    }
    for form, (content, first, bad) in files.items():
        at = create(http, f"from-{form}", metric="ip")
        result = finished(http, sent(http, at, form, content))
        assert (result["points"], result["bad"]) == (60, bad)
        got = post(http, f"{at}/points:get", {"ids": [7 + first]})["points"][0]["sparse"]
        order = np.argsort(rows[7].indices)
        assert got["indices"] == rows[7].indices[order].tolist()
        np.testing.assert_allclose(got["values"], rows[7].data[order], 1e-6)
    sets = http.put("/v1/collections/as-sets", json={"features": {"kind": "ids"}})
    assert sets.status_code == 201
    job = sent(http, "/v1/collections/as-sets", "npz", saved.getvalue())
    assert finished(http, job)["points"] == 60


def sent(http: httpx.Client, at: str, form: str, content: bytes) -> dict[str, Any]:
    kind = {"content-type": "application/octet-stream"}
    answer = http.post(f"{at}/imports", params={"format": form}, content=content, headers=kind)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def test_inner_products_are_planned_as_exact(http: httpx.Client) -> None:
    at = create(http, "products", metric="ip")
    post(http, f"{at}/points:upsert", {"ids": [*range(40)], "sparse": documents(40)})
    plan = http.get(f"{at}/plan").json()
    assert [option["index"] for option in plan["options"]] == ["flat"]
