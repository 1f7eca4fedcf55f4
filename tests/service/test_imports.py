"""Imports over HTTP: files of every kind, bad rows, hostile uploads, paths, crashes."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from closeby.service.deployment import Deployment
from closeby.service.imports import BATCH_POINTS
from closeby.service.settings import Settings

SHINGLES = {"features": {"kind": "shingles", "unit": "byte", "n": 4}, "index": "flat"}
FILE = {"content-type": "application/octet-stream"}
TEXTS = [f"https://shop{n % 7}.example/items/{n}/detail?ref={n * n}" for n in range(5_000)]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("roots")
    (folder / "in").mkdir()
    (folder / "in" / "deep").mkdir()
    (folder / "in" / "urls.txt").write_text("\n".join(TEXTS))
    (folder / "in" / "deep" / "few.txt").write_text("one text\nanother text\n")
    (folder / "secret.txt").write_text("nobody may read this\n")
    (folder / "in" / "link.txt").symlink_to(folder / "secret.txt")
    (folder / "in" / "good-link.txt").symlink_to(folder / "in" / "deep" / "few.txt")
    (folder / "in" / "up").symlink_to(folder)
    os.mkfifo(folder / "in" / "pipe.txt")
    return folder


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory, roots: Path, serving: Any) -> Iterator[Any]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        import_roots=(roots / "in",),
        max_import_bytes=2_000_000,
        max_payload_bytes=200,
    )
    with serving(settings) as client:
        yield client


@pytest.fixture
def collection(http: httpx.Client, request: pytest.FixtureRequest) -> str:
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:120]
    assert http.put(f"/v1/collections/{name}", json=SHINGLES).status_code == 201
    return name


def upload(
    http: httpx.Client, collection: str, name: str, content: Any, **options: str
) -> httpx.Response:
    return http.post(
        f"/v1/collections/{collection}/imports",
        params={"filename": name, **options},
        content=content,
        headers=FILE,
    )


def finished(http: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    deadline = time.monotonic() + 60
    while True:
        job: dict[str, Any] = http.get(answer.headers["location"]).json()
        if job["state"] not in ("queued", "running"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.02)


def count(http: httpx.Client, collection: str) -> int:
    found: int = http.get(f"/v1/collections/{collection}").json()["count"]
    return found


def test_lines_are_imported_and_found(http: httpx.Client, collection: str) -> None:
    content = gzip.compress("\n".join(TEXTS).encode())
    job = finished(http, upload(http, collection, "urls.txt.gz", content))
    assert (job["state"], job["kind"], job["collection"]) == ("done", "import", collection)
    assert job["result"] == {"points": len(TEXTS), "bad": 0, "format": "lines"}
    assert job["progress"]["done"] == len(TEXTS)
    counters = job["progress"]["counters"]
    assert counters["bytes_read"] == counters["bytes_total"] == len(content)
    assert count(http, collection) == len(TEXTS)
    hits = http.post(f"/v1/collections/{collection}/query", json={"text": TEXTS[77]}).json()["hits"]
    assert (hits[0]["id"], hits[0]["score"]) == (78, 1.0)


def test_importing_again_replaces_and_a_prefix_keeps_apart(
    http: httpx.Client, collection: str
) -> None:
    content = "\n".join(TEXTS[:10]).encode()
    for _ in range(2):
        finished(http, upload(http, collection, "a.txt", content))
    assert count(http, collection) == 10
    finished(http, upload(http, collection, "b.txt", content, id_prefix="b:"))
    assert count(http, collection) == 20
    got = http.post(f"/v1/collections/{collection}/points:get", json={"ids": [3, "b:3"]}).json()
    assert [point["text"] for point in got["points"]] == [TEXTS[2], TEXTS[2]]


def test_bad_rows_are_counted_and_sampled_with_their_lines(
    http: httpx.Client, collection: str
) -> None:
    rows: list[Any] = [{"id": i, "text": text} for i, text in enumerate(TEXTS[:4_000])]
    rows[5] = {"id": 5, "text": 7}
    rows[6] = {"id": 6, "text": ""}  # no shingle at all
    rows[2_100] = {"id": 4, "text": "the id of an earlier row"}
    rows[2_200] = {"id": 2_200, "text": "a large payload", "payload": {"x": "y" * 300}}
    content = b"\n".join(json.dumps(row).encode() for row in rows)
    job = finished(http, upload(http, collection, "rows.jsonl", content))
    assert job["result"] == {"points": 3_996, "bad": 4, "format": "jsonl"}
    assert sorted(error["line"] for error in job["errors"]) == [6, 7, 2_101, 2_201]
    assert all(error["detail"] for error in job["errors"])
    assert count(http, collection) == 3_996
    stopped = finished(http, upload(http, collection, "r.jsonl", content, on_error="stop"))
    assert stopped["state"] == "failed"
    assert stopped["error"]["code"] == "import_failed"
    assert "line 6" in stopped["error"]["detail"]


@pytest.mark.parametrize(
    ("features", "name", "content", "points"),
    [
        ({"kind": "kmers", "k": 8}, "g.fasta", b">a\nACGTACGTACGT\n>b\nTTTTGGGGCCCC\n", 2),
        ({"kind": "vector", "dim": 4}, "v.npy", None, 30),
        ({"kind": "ids"}, "s.jsonl", b'{"id":1,"set":[1,2]}\n{"id":2,"set":[3]}\n', 2),
        ({"kind": "tokens"}, "t.jsonl", b'{"id":1,"set":["a","b"]}\n', 1),
        ({"kind": "vector", "dim": 2}, "h.jsonl", b'{"id":1,"vector":[1,2]}\n', 1),
        (SHINGLES["features"], "c.csv", b"id,text\n1,first text\n2,second text\n", 2),
    ],
)
def test_files_of_every_kind(
    http: httpx.Client, features: Any, name: str, content: bytes | None, points: int
) -> None:
    if content is None:
        file = io.BytesIO()
        np.save(file, np.random.default_rng(0).normal(size=(points, 4)).astype(np.float32))
        content = file.getvalue()
    collection = f"kind-{name.replace('.', '-')}"
    assert http.put(f"/v1/collections/{collection}", json={"features": features}).is_success
    job = finished(http, upload(http, collection, name, content))
    assert job["state"] == "done", job
    assert job["result"]["points"] == count(http, collection) == points


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("x.txt.gz", b"not gzip", "gz"),
        ("x.jsonl", b"not json\n", "JSON"),
        ("x.fasta", b"no header\n", ">"),
        ("x.txt", b"\0\0\0", "bytes"),
        ("x.npy", b"\x93NUMPY\x01\x00\xff\xff", ""),
        ("unknown", b"whatever this is", "format"),
        ("x.zip", b"PK\x03\x04", ""),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused_early(
    http: httpx.Client, collection: str, name: str, content: bytes, detail: str
) -> None:
    answer = upload(http, collection, name, content)
    assert (answer.status_code, answer.json()["code"]) == (422, "import_failed")
    assert detail in answer.json()["detail"]
    assert "/tmp" not in answer.text


def test_damage_further_on_fails_the_job_and_keeps_what_came_before(
    http: httpx.Client, collection: str
) -> None:
    lines = [os.urandom(30).hex() for _ in range(6_000)]
    content = gzip.compress("\n".join(lines).encode())[:-2_000]
    job = finished(http, upload(http, collection, "cut.txt.gz", content))
    assert job["state"] == "failed"
    assert job["error"]["code"] == "import_failed"
    assert "damaged at line" in job["error"]["detail"]
    assert 2_000 < count(http, collection) < 6_000


def test_a_file_of_another_kind_than_the_collection(http: httpx.Client, collection: str) -> None:
    job = finished(http, upload(http, collection, "s.jsonl", b'{"id":1,"set":[1,2]}\n'))
    assert job["state"] == "failed"
    assert "with a set" in job["error"]["detail"]
    assert count(http, collection) == 0


def test_hostile_uploads(http: httpx.Client, collection: str) -> None:
    path = f"/v1/collections/{collection}/imports"
    for kind in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded", ""):
        answer = http.post(path, content=b"x", headers={"content-type": kind})
        assert answer.status_code == 415, kind
    for wrong in ({"on_error": "no"}, {"nonsense": "1"}, {"format": "no-such"}):
        assert upload(http, collection, "a.txt", b"text", **wrong).status_code == 422
    assert upload(http, collection, "a.txt", b"").status_code == 422
    assert upload(http, collection, "a.txt", b"x" * 2_000_001).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"y" * 50_000

    # It may be refused while it is still being sent.
    with contextlib.suppress(httpx.TransportError):
        assert upload(http, collection, "a.txt", endless()).status_code == 413
    assert upload(http, "absent", "a.txt", b"text").status_code == 404
    for name in ("../../../etc/passwd", "a/../../b.txt", "..", "\0.txt", "x" * 9_000 + ".txt"):
        answer = upload(http, collection, name, b"some text\n", format="lines")
        assert finished(http, answer)["state"] == "done"
    assert count(http, collection) == 1


def test_a_bomb_is_cancelled_while_nothing_comes_of_it(http: httpx.Client, collection: str) -> None:
    bomb = gzip.compress(b"\n" * 100_000_000, 9)
    assert len(bomb) < 500_000
    answer = upload(http, collection, "bomb.txt.gz", bomb)
    while http.get(answer.headers["location"]).json()["state"] == "queued":
        time.sleep(0.01)
    http.post(answer.headers["location"] + ":cancel")
    assert finished(http, answer)["state"] == "cancelled"


def test_a_path_under_the_roots(http: httpx.Client, collection: str, roots: Path) -> None:
    def ask(path: str, **options: Any) -> httpx.Response:
        return http.post(f"/v1/collections/{collection}/imports", json={"path": path, **options})

    job = finished(http, ask("urls.txt"))
    assert job["result"]["points"] == count(http, collection) == len(TEXTS)
    for good in (str(roots / "in" / "deep" / "few.txt"), "deep/../deep/few.txt", "good-link.txt"):
        assert finished(http, ask(good, id_prefix="x"))["result"]["points"] == 2
    refused = [
        "/etc/passwd",
        "../secret.txt",
        "link.txt",
        "up/secret.txt",
        "deep",
        "",
        ".",
        "absent.txt",
        "pipe.txt",
        "a\0b",
        "x" * 5_000,
        "/proc/self/environ",
    ]
    said = set()
    for path in refused:
        answer = ask(path)
        assert answer.status_code == 422, path
        assert answer.json()["errors"][0]["field"] == "path"
        said.add(answer.json()["detail"])
    assert len(said) == 1
    for wrong in (
        {"path": 7},
        {},
        {"path": "urls.txt", "on_error": 3},
        {"path": "urls.txt", "on_duplicate": "skip"},
    ):
        assert http.post(f"/v1/collections/{collection}/imports", json=wrong).status_code == 422


def test_without_roots_no_path_is_read(tmp_path: Path, serve: Callable[..., Any]) -> None:
    with serve(Settings(data_dir=tmp_path)) as client:
        client.put("/v1/collections/c", json=SHINGLES)
        answer = client.post("/v1/collections/c/imports", json={"path": "/etc/passwd"})
    assert answer.status_code == 422
    assert "no import_roots" in answer.json()["detail"]


def test_a_file_that_changed_since_is_not_mixed(tmp_path: Path, serve: Callable[..., Any]) -> None:
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "urls.txt"
    file.write_text("\n".join(TEXTS))
    settings = Settings(data_dir=tmp_path / "data", import_roots=(tmp_path / "in",))
    deployment = Deployment(settings, dict)  # nobody works yet
    with serve(settings, deployment) as client:
        client.put("/v1/collections/c", json=SHINGLES)
        job = client.post("/v1/collections/c/imports", json={"path": "urls.txt"}).json()["id"]
    file.write_text("another file")
    with serve(settings) as client:
        answer = client.get(f"/v1/jobs/{job}")
        deadline = time.monotonic() + 30
        while answer.json()["state"] in ("queued", "running") and time.monotonic() < deadline:
            answer = client.get(f"/v1/jobs/{job}")
    assert answer.json()["state"] == "failed"
    assert "was changed" in answer.json()["error"]["detail"]


def test_an_upload_survives_a_restart_and_leaves_nothing_behind(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    settings = Settings(data_dir=tmp_path)
    with serve(settings, Deployment(settings, dict)) as client:
        client.put("/v1/collections/c", json=SHINGLES)
        answer = upload(client, "c", "urls.txt", "\n".join(TEXTS).encode())
        stray = tmp_path / "jobs" / "stray"
        stray.mkdir()
    with serve(settings) as client:
        job = finished(client, answer)
        assert job["result"]["points"] == count(client, "c") == len(TEXTS)
    assert not stray.exists()
    assert [*(tmp_path / "jobs").iterdir()] == []


def test_a_cancelled_import_keeps_what_it_stored(tmp_path: Path, serve: Callable[..., Any]) -> None:
    settings = Settings(data_dir=tmp_path)
    with serve(settings) as client:
        client.put("/v1/collections/c", json=SHINGLES)
        content = "\n".join(f"{n} of very many texts {n * n}" for n in range(150_000)).encode()
        answer = upload(client, "c", "many.txt", content)
        path = answer.headers["location"]
        while client.get(path).json()["progress"]["done"] < BATCH_POINTS:
            time.sleep(0.01)
        client.post(f"{path}:cancel")
        job = finished(client, answer)
        assert job["state"] == "cancelled"
        assert BATCH_POINTS <= job["progress"]["done"] <= count(client, "c") < 150_000


def test_near_duplicates_are_left_out_of_an_import(http: httpx.Client, collection: str) -> None:
    # Each text and, far behind it, a near copy of it: some in another batch.
    chance = random.Random(0)
    fresh = [chance.randbytes(30).hex() for _ in range(1_500)]
    content = "\n".join([*fresh, *(text + "x" for text in fresh)]).encode()
    options = {"on_duplicate": "skip", "threshold": "0.85"}
    job = finished(http, upload(http, collection, "near.txt", content, **options))
    assert (job["state"], job["kind"]) == ("done", "import_tested")
    assert job["result"]["points"] == count(http, collection)
    assert job["result"]["points"] + job["result"]["duplicates"] == 3_000
    assert job["result"]["duplicates"] >= 1_490
    lines = http.get(f"/v1/jobs/{job['id']}/result").text.splitlines()
    told = [json.loads(line) for line in lines]
    assert len(told) == job["result"]["duplicates"]
    # Ids are numbers of lines: each copy is 1,500 lines behind what it was made of.
    assert all(one["id"] == one["duplicate_of"] + 1_500 for one in told)
    assert all(0.85 <= one["score"] < 1 for one in told)
    assert [one["id"] for one in told] == sorted(one["id"] for one in told)
    none = finished(
        http, upload(http, collection, "one.txt", b"unlike all others", id_prefix="y", **options)
    )
    assert http.get(f"/v1/jobs/{none['id']}/result").content == b""
    again = finished(http, upload(http, collection, "n.txt", content, id_prefix="x", **options))
    assert again["result"]["points"] == 0
    rejected = finished(
        http,
        upload(http, collection, "n.txt", content, on_duplicate="reject", threshold="0.85"),
    )
    assert rejected["error"]["code"] == "near_duplicate"
    for wrong in ({"on_duplicate": "skip"}, {"threshold": "0.5"}, {"threshold": "2"}):
        assert upload(http, collection, "n.txt", content, **wrong).status_code == 422
