"""The contract on the wire: every endpoint, and every kind of wrong input."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from closeby.service.problem import PROBLEMS
from closeby.service.settings import Settings

TEXTS = {"features": {"kind": "shingles", "unit": "byte", "n": 4}, "index": "flat"}
VECTORS = {"features": {"kind": "vector", "dim": 3}}
IDS = {"features": {"kind": "ids"}}
TOKENS = {"features": {"kind": "tokens"}}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module", autouse=True)
def collections(http: httpx.Client) -> None:
    for name, body in {"t": TEXTS, "v": VECTORS, "s": IDS, "k": TOKENS}.items():
        assert http.put(f"/v1/collections/{name}", json=body).status_code == 201
    points = [{"id": 1, "text": "a first text", "payload": {"n": 1}}]
    assert http.post("/v1/collections/t/points:upsert", json={"points": points}).json()


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status == PROBLEMS[code].status
    assert body["code"] == code
    assert body["type"].endswith(f"#{code}")
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["title"] == PROBLEMS[code].title
    assert body["detail"]
    return body


def still_answers(http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    hits = http.post("/v1/collections/t/query", json={"text": "a first text"}).json()["hits"]
    assert hits[0] == {"id": 1, "score": 1.0, "payload": {"n": 1}}


# --- what works -----------------------------------------------------------------------------------


def test_collection_life(http: httpx.Client) -> None:
    path = "/v1/collections/life"
    body = {"features": {"kind": "kmers"}, "metric": "jaccard", "target_recall": 0.9, "seed": 7}
    created = http.put(path, json=body)
    assert created.status_code == 201
    shown = created.json()
    assert shown["features"] == {"kind": "kmers", "k": 16, "canonical": True}
    assert {k: shown[k] for k in ("name", "metric", "index", "threshold", "seed", "count")} == {
        "name": "life",
        "metric": "jaccard",
        "index": "auto",
        "threshold": 0.5,
        "seed": 7,
        "count": 0,
    }
    assert shown["created_at"].endswith("+00:00")
    assert shown["index_stats"]["engine"] == "flinng"
    assert http.put(path, json=body).status_code == 200
    refused = check_problem(http.put(path, json=body | {"seed": 8}), 409, "collection_exists")
    assert "seed" in refused["detail"]
    assert http.get(path).json() == shown
    deleted = http.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    check_problem(http.get(path), 404, "collection_not_found")
    check_problem(http.delete(path), 404, "collection_not_found")
    assert http.put(path, json=body).status_code == 201
    http.delete(path)


def test_collections_are_listed_in_pages(http: httpx.Client) -> None:
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        params = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = http.get("/v1/collections", params=params).json()
        assert len(page["collections"]) <= 3
        seen += [each["name"] for each in page["collections"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(seen)
    assert {"t", "v", "s", "k"} <= {*seen}


@pytest.mark.parametrize(
    ("collection", "field", "column", "value"),
    [
        ("t", "text", "texts", "späße \U0001f600\x00"),
        ("v", "vector", "vectors", [1, 0.5, -2.0]),
        ("s", "set", "sets", [0, 2**64 - 1]),
        ("k", "set", "sets", ["b", "a"]),
    ],
)
def test_points_of_every_kind(
    http: httpx.Client, collection: str, field: str, column: str, value: Any
) -> None:
    base = f"/v1/collections/{collection}"
    payload = {"nested": [{"a": None}], "é": 1.5}
    rows = {"points": [{"id": "row", field: value, "payload": payload}, {"id": 2, field: value}]}
    assert http.post(base + "/points:upsert", json=rows).json()["upserted"] == 2
    columns = {"ids": ["2", "none"], column: [value, value], "payloads": [payload, None]}
    assert http.post(base + "/points:upsert", json=columns).json()["upserted"] == 2
    got = http.post(base + "/points:get", json={"ids": ["row", 2, "2", "absent"]}).json()
    assert got["missing"] == ["absent"]
    assert [point["id"] for point in got["points"]] == ["row", 2, "2"]
    assert got["points"][0] == {"id": "row", field: value, "payload": payload}
    assert got["points"][1]["payload"] is None

    answer = http.post(base + "/query", json={field: value, "limit": 1000}).json()
    assert {hit["id"] for hit in answer["hits"]} >= {"row", 2, "2", "none"}
    assert answer["hits"][0]["score"] == pytest.approx(1, abs=1e-6)
    assert answer["took_ms"] > 0
    assert 0 < answer["recall_estimate"] <= 1
    short = {field: value, "limit": 2, "threshold": 0.9, "target_recall": 0.99}
    bare = http.post(base + "/query", json=short | {"with_payload": False}).json()["hits"]
    assert len(bare) == 2
    assert all(hit["payload"] is None for hit in bare)
    many = http.post(base + "/query:batch", json={column: [value, value], "limit": 3}).json()
    assert [len(result["hits"]) for result in many["results"]] == [3, 3]

    gone = http.post(base + "/points:delete", json={"ids": ["row", 2, "2", "none", "x"]}).json()
    assert gone["deleted"] == 4
    left = http.post(base + "/query", json={field: value, "threshold": 0.99}).json()["hits"]
    assert left == []


def test_an_answer_is_short_where_there_are_few_points(http: httpx.Client) -> None:
    hits = http.post("/v1/collections/t/query", json={"text": "zzzzzzz", "limit": 1000}).json()
    assert hits["hits"] == []


def test_health_metrics_and_documents(http: httpx.Client) -> None:
    assert http.get("/readyz").json() == {
        "ready": True,
        "collections": len(http.get("/v1/collections").json()["collections"]),
        "loading": {},
    }
    metrics = http.get("/metrics").text
    route = 'route="/v1/collections/{collection}/points:upsert"'
    assert f'closeby_requests_total{{method="POST",{route},status="200"}}' in metrics
    assert 'closeby_points{collection="t"}' in metrics
    assert "closeby_store_queued_points 0.0" in metrics
    assert http.get("/docs").status_code == 200


def test_request_ids(http: httpx.Client) -> None:
    sane = http.get("/healthz", headers={"x-request-id": "abc-1.2"})
    assert sane.headers["x-request-id"] == "abc-1.2"
    for strange in ("a b", "x" * 200, 'quote"', "é"):
        given = http.get("/healthz", headers={"x-request-id": strange.encode()})
        assert given.headers["x-request-id"] != strange
        assert len(given.headers["x-request-id"]) == 32


# --- wrong input ----------------------------------------------------------------------------------

DEEP = "[" * 900 + "]" * 900
LONG_ID = "x" * 100_000
GOOD = {"id": 1, "text": "x"}
LARGE = {"a": "y" * 70_000}
VARIED = "".join(map(str, range(9999)))


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("t/query", {"text": "x", "limit": 0}, "limit"),
        ("t/query", {"text": "x", "limit": 1001}, "limit"),
        ("t/query", {"text": "x", "limit": -1}, "limit"),
        ("t/query", {"text": "x", "limit": True}, "limit"),
        ("t/query", {"text": "x", "limit": "10"}, "limit"),
        ("t/query", {"text": "x", "limit": 1.0}, "limit"),
        ("t/query", {"text": "x", "limit": None}, "limit"),
        ("t/query", {"text": "x", "limit": 10**30}, "limit"),
        ("t/query", {"text": "x", "threshold": False}, "threshold"),
        ("t/query", {"text": "x", "threshold": 1.5}, "threshold"),
        ("t/query", {"text": "x", "threshold": -0.1}, "threshold"),
        ("t/query", {"text": "x", "threshold": "0.5"}, "threshold"),
        ("v/query", {"vector": [1, 2, 3], "threshold": -1.1}, "threshold"),
        ("t/query", {"text": "x", "target_recall": 0}, "target_recall"),
        ("t/query", {"text": "x", "target_recall": 2}, "target_recall"),
        ("t/query", {"text": "x", "with_payload": 1}, "with_payload"),
        ("t/query", {"text": "x", "filter": {"a": 1}}, "filter"),
        ("t/query", {"text": "x", "k": 5}, "k"),
        ("t/query", {"text": ""}, "text"),
        ("t/query", {"text": False}, "text"),
        ("t/query", {"text": None}, "text"),
        ("t/query", {"vector": [1.0]}, "vector"),
        ("t/query", {}, "text"),
        ("t/query", [], "body"),
        ("t/query", "text", "body"),
        ("v/query", {"vector": [1, 2]}, "vector"),
        ("v/query", {"vector": [1, 2, 3, 4]}, "vector"),
        ("v/query", {"vector": [1, False, 3]}, "vector[1]"),
        ("v/query", {"vector": [1, "2", 3]}, "vector[1]"),
        ("v/query", {"vector": [1, None, 3]}, "vector[1]"),
        ("v/query", {"vector": [1, [2], 3]}, "vector[1]"),
        ("v/query", {"vector": [0, 0, 0]}, "vector"),
        ("v/query", {"vector": [1e300, 1, 1]}, "vector"),
        ("v/query", {"vector": {"0": 1}}, "vector"),
        ("v/query", {"vector": []}, "vector"),
        ("s/query", {"set": []}, "set"),
        ("s/query", {"set": [1, -1]}, "set[1]"),
        ("s/query", {"set": [2**64]}, "set[0]"),
        ("s/query", {"set": [1, 1.5]}, "set[1]"),
        ("s/query", {"set": [True]}, "set[0]"),
        ("s/query", {"set": ["1"]}, "set[0]"),
        ("s/query", {"set": list(range(1001))}, "set"),
        ("k/query", {"set": ["a", 1]}, "set[1]"),
        ("k/query", {"set": "abc"}, "set"),
        ("t/query:batch", {"texts": []}, "texts"),
        ("t/query:batch", {"texts": ["x"] * 21}, "texts"),
        ("t/query:batch", {"texts": ["x", ""]}, "texts[1]"),
        ("t/query:batch", {"texts": "x"}, "texts"),
        ("t/query:batch", {"text": "x"}, "text"),
        ("v/query:batch", {"vectors": [[1, 2, 3], [1, 2]]}, "vectors[1]"),
        ("t/points:upsert", {"points": []}, "points"),
        ("t/points:upsert", {}, "ids"),
        ("t/points:upsert", {"points": [{"id": i, "text": "x"} for i in range(51)]}, "points"),
        ("t/points:upsert", {"points": [1]}, "points[0]"),
        ("t/points:upsert", {"points": [{"text": "x"}]}, "points[0].id"),
        ("t/points:upsert", {"points": [{"id": 1}]}, "points[0].text"),
        ("t/points:upsert", {"points": [{"id": True, "text": "x"}]}, "points[0].id"),
        ("t/points:upsert", {"points": [{"id": 1.0, "text": "x"}]}, "points[0].id"),
        ("t/points:upsert", {"points": [{"id": None, "text": "x"}]}, "points[0].id"),
        ("t/points:upsert", {"points": [{"id": "", "text": "x"}]}, "points[0].id"),
        ("t/points:upsert", {"points": [{"id": LONG_ID, "text": "x"}]}, "points[0].id"),
        ("t/points:upsert", {"points": [{"id": "é" * 257, "text": "x"}]}, "points[0].id"),
        ("t/points:upsert", {"points": [{"id": -1, "text": "x"}]}, "points[0].id"),
        ("t/points:upsert", {"points": [{"id": 2**63, "text": "x"}]}, "points[0].id"),
        ("t/points:upsert", {"points": [{"id": 10**40, "text": "x"}]}, "points[0].id"),
        ("t/points:upsert", {"points": [{"id": 1, "text": 5}]}, "points[0].text"),
        ("t/points:upsert", {"points": [GOOD, GOOD | {"text": ""}]}, "points[1].text"),
        ("t/points:upsert", {"points": [GOOD | {"vector": [1]}]}, "points[0].vector"),
        ("t/points:upsert", {"points": [GOOD | {"payload": [1]}]}, "points[0].payload"),
        ("t/points:upsert", {"points": [GOOD | {"payload": LARGE}]}, "points[0].payload"),
        ("t/points:upsert", {"points": [GOOD | {"text": VARIED}]}, "points[0].text"),
        ("t/points:upsert", {"ids": [1, 2], "texts": ["x"]}, "texts"),
        ("t/points:upsert", {"ids": [1], "texts": ["x"], "payloads": []}, "payloads"),
        ("t/points:upsert", {"ids": [1], "vectors": [[1]]}, "vectors"),
        ("t/points:upsert", {"ids": [1]}, "texts"),
        ("t/points:upsert", {"texts": ["x"]}, "ids"),
        ("t/points:upsert", {"ids": {"a": 1}, "texts": ["x"]}, "ids"),
        ("v/points:upsert", {"ids": [1, 2], "vectors": [[1, 2, 3], [0, 0, 0]]}, "vectors[1]"),
        ("t/points:get", {"ids": []}, "ids"),
        ("t/points:get", {"ids": [1, [2]]}, "ids[1]"),
        ("t/points:get", {"id": 1}, "id"),
        ("t/points:delete", {"ids": list(range(51))}, "ids"),
        ("t/points:delete", {}, "ids"),
    ],
)  # fmt: skip
def test_wrong_values(http: httpx.Client, path: str, body: Any, field: str) -> None:
    content = json.dumps(body).encode()
    answer = http.post(f"/v1/collections/{path}", content=content, headers=JSON)
    problem = check_problem(answer, 422, "validation_error")
    assert problem["errors"][0]["field"] == field
    assert len(answer.content) < 6000
    still_answers(http)


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({"text": "x", "limit": 1001}, 1000),
        ({"text": "x", "threshold": 2}, 1.0),
    ],
)
def test_the_limit_is_named(http: httpx.Client, body: Any, limit: float) -> None:
    answer = http.post("/v1/collections/t/query", json=body).json()
    assert answer["errors"][0]["limit"] == limit
    assert f"{limit:g}" in answer["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'text': 'x'}",
        b'{"text": "x",}',
        b'{"text": NaN}',
        b'{"text": "x", "threshold": Infinity}',
        b'{"text": "\\ud800"}',
        b'{"text": "\xff"}',
        b'{"text": "x", "threshold": 1e999}',
        b"[" * 100_000,
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b"\xef\xbb\xbf{}",
        b"text=x",
    ],
)
def test_malformed_json(http: httpx.Client, body: bytes) -> None:
    for path in ("t/query", "t/points:upsert", "t/points:get", "t/query:batch"):
        answer = http.post(f"/v1/collections/{path}", content=body, headers=JSON)
        check_problem(answer, 400, "malformed_json")
    check_problem(
        http.put("/v1/collections/new", content=body, headers=JSON), 400, "malformed_json"
    )
    still_answers(http)


def test_deep_payloads_and_doubled_keys(http: httpx.Client) -> None:
    body = f'{{"points": [{{"id": 1, "text": "x", "payload": {{"a": {DEEP}}}}}]}}'
    answer = http.post("/v1/collections/t/points:upsert", content=body, headers=JSON)
    assert (
        check_problem(answer, 422, "validation_error")["errors"][0]["field"] == "points[0].payload"
    )
    twice = b'{"text": "nothing", "text": "a first text"}'
    hits = http.post("/v1/collections/t/query", content=twice, headers=JSON).json()["hits"]
    assert hits[0]["score"] == 1.0
    still_answers(http)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": ""},
        {"content-type": "application/json; charset=utf-16"},
        JSON | {"content-encoding": "gzip"},
        {},
    ],
)
def test_other_media_types(http: httpx.Client, headers: dict[str, str]) -> None:
    body = gzip.compress(b'{"text": "x"}') if "content-encoding" in headers else b'{"text": "x"}'
    answer = http.post("/v1/collections/t/query", content=body, headers=headers)
    check_problem(answer, 415, "unsupported_media_type")
    still_answers(http)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "features"),
        ({"features": None}, "features"),
        ({"features": {}}, "features.kind"),
        ({"features": {"kind": "magic"}}, "features.kind"),
        ({"features": {"kind": "shingles", "n": 0}}, "features.n"),
        ({"features": {"kind": "shingles", "n": True}}, "features.n"),
        ({"features": {"kind": "shingles", "unit": "page"}}, "features.unit"),
        ({"features": {"kind": "kmers", "k": 65}}, "features.k"),
        ({"features": {"kind": "kmers", "canonical": 1}}, "features.canonical"),
        ({"features": {"kind": "vector"}}, "features.dim"),
        ({"features": {"kind": "vector", "dim": 65_537}}, "features.dim"),
        ({"features": {"kind": "vector", "dim": 2.0}}, "features.dim"),
        ({"features": {"kind": "ids", "n": 4}}, "features.n"),
        (IDS | {"metric": "cosine"}, "metric"),
        (VECTORS | {"metric": "jaccard"}, "metric"),
        (IDS | {"metric": "l2"}, "metric"),
        (IDS | {"index": "hnsw"}, "index"),
        (VECTORS | {"metric": "ip", "index": "flinng"}, "index"),
        (IDS | {"target_recall": False}, "target_recall"),
        (IDS | {"target_recall": 1.0}, "target_recall"),
        (IDS | {"target_recall": "0.9"}, "target_recall"),
        (IDS | {"threshold": 0}, "threshold"),
        (IDS | {"threshold": 0.001}, "threshold"),
        (IDS | {"seed": -1}, "seed"),
        (IDS | {"seed": 2**70}, "seed"),
        (IDS | {"shards": 2}, "shards"),
        ([], "body"),
    ],
)
def test_wrong_configurations(http: httpx.Client, body: Any, field: str) -> None:
    answer = http.put("/v1/collections/wrong", content=json.dumps(body), headers=JSON)
    problem = check_problem(answer, 422, "validation_error")
    assert problem["errors"][0]["field"] == field
    check_problem(http.get("/v1/collections/wrong"), 404, "collection_not_found")
    still_answers(http)


@pytest.mark.parametrize("name", ["-a", "a b", "é", "a" * 129, ".a", "a\n", "%2e%2e"])
def test_wrong_names(http: httpx.Client, name: str) -> None:
    url = httpx.URL(f"/v1/collections/{name}" if "%" in name else "/").copy_with(
        raw_path=b"/v1/collections/" + httpx.URL(f"/{name}").raw_path[1:]
        if "\n" not in name
        else b"/v1/collections/a%0A"
    )
    problem = check_problem(http.put(url, json=IDS), 422, "validation_error")
    assert problem["errors"][0]["field"] == "collection"
    check_problem(http.get(url), 404, "collection_not_found")


def test_unknown_collections_paths_and_methods(http: httpx.Client) -> None:
    for path in ("points:upsert", "points:get", "points:delete", "query", "query:batch"):
        answer = http.post(f"/v1/collections/none/{path}", json={})
        assert "none" in check_problem(answer, 404, "collection_not_found")["detail"]
        refused = http.get(f"/v1/collections/t/{path}")
        check_problem(refused, 405, "method_not_allowed")
        assert refused.headers["allow"] == "POST"
    for path in ("/", "/v2", "/v1/collections/", "/v1/collections/t/", "/v1/collections/t/nothing"):
        check_problem(http.get(path), 404, "not_found")
    check_problem(http.request("PATCH", "/v1/collections/t"), 405, "method_not_allowed")
    for params in (
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "true"},
        {"cursor": "§"},
        {"cursor": "a"},
    ):
        answer = http.get("/v1/collections", params=params)
        problem = check_problem(answer, 422, "validation_error")
        assert problem["errors"][0]["field"] == next(iter(params))


def test_a_body_over_the_limit_is_refused_before_it_is_read(http: httpx.Client) -> None:
    body = b'{"text": "' + b"x" * 300_000 + b'"}'
    answer = http.post("/v1/collections/t/query", content=body, headers=JSON)
    problem = check_problem(answer, 413, "body_too_large")
    assert problem["errors"][0]["limit"] == 200_000
    assert "200000" in problem["detail"]
    # Announced but not sent: the answer comes without it.
    connection = http_connection(http)
    connection.putrequest("POST", "/v1/collections/t/query")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    # Not announced: refused once it is too long.
    chunked = http.post(
        "/v1/collections/t/query", content=(b"x" * 10_000 for _ in range(100)), headers=JSON
    )
    check_problem(chunked, 413, "body_too_large")
    still_answers(http)


def test_a_caller_who_leaves_early_harms_nobody(http: httpx.Client) -> None:
    connection = http_connection(http)
    connection.putrequest("POST", "/v1/collections/t/query")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    connection.send(b'{"text":')
    connection.close()
    still_answers(http)
    metrics = http.get("/metrics").text
    assert "closeby_body_bytes 0.0" in metrics
    assert 'status="500"' not in metrics


def http_connection(client: httpx.Client) -> http.client.HTTPConnection:
    port = client.base_url.port
    assert port is not None
    return http.client.HTTPConnection(client.base_url.host, port, timeout=10)


# --- servers with settings of their own -----------------------------------------------------------

Serve = Callable[[Settings], Any]


def test_points_survive_a_restart(serve: Serve, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with serve(settings) as http:
        http.put("/v1/collections/c", json=IDS)
        rows = [{"id": i, "set": [i, i + 1], "payload": {"i": i}} for i in range(100)]
        http.post("/v1/collections/c/points:upsert", json={"points": rows})
        http.post("/v1/collections/c/points:delete", json={"ids": [5]})
        before = http.get("/v1/collections/c").json()
    with serve(settings) as http:
        wait_until_ready(http)
        after = http.get("/v1/collections/c").json()
        assert {k: after[k] for k in ("count", "created_at", "features")} == {
            k: before[k] for k in ("count", "created_at", "features")
        }
        assert after["count"] == 99
        got = http.post("/v1/collections/c/points:get", json={"ids": [5, 6]}).json()
        assert got == {
            "points": [{"id": 6, "set": [6, 7], "payload": {"i": 6}}],
            "missing": [5],
        }
        hit = http.post("/v1/collections/c/query", json={"set": [6, 7], "limit": 1}).json()
        assert hit["hits"] == [{"id": 6, "score": 1.0, "payload": {"i": 6}}]


def wait_until_ready(http: httpx.Client) -> None:
    for _ in range(300):
        if http.get("/readyz").status_code == 200:
            return
        threading.Event().wait(0.02)
    pytest.fail("the server did not become ready")


def test_not_ready_until_the_log_is_replayed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from closeby.service.shard import Shard

    settings = Settings(data_dir=tmp_path)
    with serve(settings) as http:
        http.put("/v1/collections/c", json=IDS)
        http.post("/v1/collections/c/points:upsert", json={"ids": [1], "sets": [[1]]})
    go_on = threading.Event()
    replay = Shard._replay

    def held(shard: Shard, contents: Any, stop: threading.Event | None) -> bool:
        assert go_on.wait(10)
        return replay(shard, contents, stop)

    monkeypatch.setattr(Shard, "_replay", held)
    with serve(settings) as http:
        state = http.get("/readyz")
        assert state.status_code == 503
        assert state.json()["loading"] == {"c": {"rows": 0, "total": 0, "fault": None}}
        answer = http.post("/v1/collections/c/query", json={"set": [1]})
        check_problem(answer, 503, "not_ready")
        assert answer.headers["retry-after"] == "1"
        assert http.get("/healthz").status_code == 200
        go_on.set()
        wait_until_ready(http)
        assert http.post("/v1/collections/c/query", json={"set": [1]}).json()["hits"]


def test_a_collection_whose_start_meets_a_defect_does_not_keep_others_from_serving(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from closeby.service.shard import Shard

    settings = Settings(data_dir=tmp_path)
    with serve(settings) as http:
        for name in ("a", "b"):
            http.put(f"/v1/collections/{name}", json=IDS).raise_for_status()
    replay = Shard._replay

    def broken(shard: Shard, *arguments: Any) -> bool:
        if shard.record.name == "a":
            raise RuntimeError("a defect")
        return replay(shard, *arguments)

    monkeypatch.setattr(Shard, "_replay", broken)
    with serve(settings) as http:
        point = {"ids": [1], "sets": [[1]]}
        deadline = time.monotonic() + 20
        while http.post("/v1/collections/b/points:upsert", json=point).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert http.get("/readyz").json()["loading"]["a"]["fault"] == "a defect"
        answer = http.post("/v1/collections/a/points:upsert", json=point)
        check_problem(answer, 503, "not_ready")


def test_an_api_key_is_asked_for(serve: Serve, tmp_path: Path) -> None:
    with serve(Settings(data_dir=tmp_path, api_key="gehe1m")) as http:  # type: ignore[arg-type]
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Basic gehe1m"},
            {"x-api-key": ""},
            {"x-api-key": b"gehe1m\xff"},
        ):
            for path in ("/v1/collections", "/metrics", "/docs", "/nothing"):
                answer = http.get(path, headers=headers)
                check_problem(answer, 401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 200
        for headers in ({"authorization": "Bearer gehe1m"}, {"x-api-key": "gehe1m"}):
            assert http.get("/v1/collections", headers=headers).status_code == 200


def test_too_many_requests(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from closeby.service.shard import Shard

    with serve(Settings(data_dir=tmp_path, max_waiting_requests=1)) as http:
        http.put("/v1/collections/c", json=IDS)
        entered, go_on = threading.Event(), threading.Event()
        search = Shard.search

        def slow(*arguments: Any) -> Any:
            entered.set()
            assert go_on.wait(10)
            return search(*arguments)

        monkeypatch.setattr(Shard, "search", slow)
        body = {"set": [1]}
        first = threading.Thread(
            target=http.post, args=("/v1/collections/c/query",), kwargs={"json": body}
        )
        first.start()
        assert entered.wait(10)
        answer = http.post("/v1/collections/c/query", json=body)
        check_problem(answer, 429, "too_many_requests")
        assert int(answer.headers["retry-after"]) >= 1
        go_on.set()
        first.join()
        assert http.post("/v1/collections/c/query", json=body).status_code == 200


def test_too_many_bytes_of_bodies_at_once(serve: Serve, tmp_path: Path) -> None:
    with serve(Settings(data_dir=tmp_path, max_waiting_bytes=1000)) as http:
        http.put("/v1/collections/c", json=IDS)
        body = b'{"set": [1]' + b" " * 700 + b"}"
        first = http_connection(http)
        first.putrequest("POST", "/v1/collections/c/query")
        first.putheader("Content-Type", "application/json")
        first.putheader("Content-Length", str(len(body)))
        first.endheaders()
        first.send(body[:600])
        deadline = time.monotonic() + 10
        while "closeby_body_bytes 600.0" not in http.get("/metrics").text:
            assert time.monotonic() < deadline
        answer = http.post("/v1/collections/c/query", content=body, headers=JSON)
        check_problem(answer, 429, "too_many_requests")
        assert int(answer.headers["retry-after"]) >= 1
        first.send(body[600:])
        assert first.getresponse().status == 200
        first.close()
        assert http.post("/v1/collections/c/query", content=body, headers=JSON).status_code == 200


def test_a_defect_is_a_problem_without_internals(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from closeby.service.shard import Shard

    def fail(*_: Any) -> None:
        raise RuntimeError("secret internals")

    with serve(Settings(data_dir=tmp_path)) as http:
        http.put("/v1/collections/c", json=IDS)
        monkeypatch.setattr(Shard, "search", fail)
        answer = http.post("/v1/collections/c/query", json={"set": [1]})
        check_problem(answer, 500, "internal_error")
        assert "secret" not in answer.text
        # Behind the framework of the other routes as well.
        monkeypatch.setattr(Shard, "describe", fail)
        check_problem(http.get("/v1/collections/c"), 500, "internal_error")
        assert http.get("/healthz").status_code == 200


def test_a_number_that_no_answer_can_hold_is_refused(http: httpx.Client) -> None:
    answer = http.get("/v1/collections/t/plan", params={"memory_bytes": 2**63})
    assert check_problem(answer, 422, "validation_error")["errors"][0]["field"] == "memory_bytes"


def test_reads_and_writes_at_once(serve: Serve, tmp_path: Path) -> None:
    faults: list[Any] = []

    def write(http: httpx.Client, worker: int) -> None:
        for turn in range(15):
            ids = [worker * 1000 + turn * 10 + i for i in range(10)]
            body = {"ids": ids, "sets": [[i, i + 1, i + 2] for i in ids]}
            if http.post("/v1/collections/c/points:upsert", json=body).status_code != 200:
                faults.append("upsert")
            hits = http.post("/v1/collections/c/query", json={"set": body["sets"][0]}).json()[
                "hits"
            ]
            if hits[0]["id"] != ids[0]:
                faults.append(hits)

    with serve(Settings(data_dir=tmp_path)) as http:
        http.put("/v1/collections/c", json=IDS)
        threads = [threading.Thread(target=write, args=(http, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        assert http.get("/v1/collections/c").json()["count"] == 600
