"""A real server whose system allows it no more: files that may not grow, no more open files.

Its log is a file too, and grows no more than the others.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

COLLECTION = "/v1/collections/c"
IDS = {"features": {"kind": "ids"}, "index": "flinng"}
BATCH = 20
Start = Callable[..., Any]


@contextlib.contextmanager
def limited(pid: int, what: int, most: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (most, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, what, (soft, hard))


def elements(point: int) -> list[int]:
    return [point * 10 + i for i in range(8)]


def upsert(http: httpx.Client, first: int) -> httpx.Response:
    ids = [*range(first, first + BATCH)]
    body = {"ids": ids, "sets": [elements(point) for point in ids]}
    return http.post(f"{COLLECTION}/points:upsert", json=body)


def ask(http: httpx.Client, what: str, body: dict[str, Any]) -> Any:
    """The answer; when no file can be opened, others may use the store's open ones just now."""
    for _ in range(20):
        answer = http.post(f"{COLLECTION}/{what}", json=body)
        if answer.status_code != 503:
            break
        time.sleep(0.1)
    return answer.raise_for_status().json()


def found(http: httpx.Client, point: int) -> bool:
    hits = ask(http, "query", {"set": elements(point), "limit": 1})["hits"]
    return [hit["id"] for hit in hits] == [point]


def check_all(http: httpx.Client, acknowledged: list[int]) -> None:
    answer = ask(http, "points:get", {"ids": acknowledged})
    assert [point["set"] for point in answer["points"]] == [elements(i) for i in acknowledged]
    assert all(found(http, point) for point in acknowledged[::17])


def everything(http: httpx.Client) -> Iterator[httpx.Response]:
    """Requests of every kind that may need more than there is."""
    yield http.put("/v1/collections/new", json=IDS)
    yield http.get("/v1/collections/new")
    yield http.post(f"{COLLECTION}/points:delete", json={"ids": [10**6]})
    yield http.get(f"{COLLECTION}/plan")
    yield http.post(f"{COLLECTION}/snapshots")
    yield http.get(f"{COLLECTION}/snapshots")
    binary = {"content-type": "application/octet-stream"}
    lines = b'{"id": 9, "set": [1, 2]}\n' * 5_000
    yield http.post(f"{COLLECTION}/imports?filename=a.jsonl", content=lines, headers=binary)
    yield http.post(f"{COLLECTION}/duplicates", json={"threshold": 0.8})
    yield http.get("/v1/jobs")
    yield http.get("/metrics")


def few_bytes(pid: int) -> contextlib.AbstractContextManager[None]:
    return limited(pid, resource.RLIMIT_FSIZE, 4096)


def few_files(pid: int) -> contextlib.AbstractContextManager[None]:
    # Those that are open stay so, whatever their numbers.
    return limited(pid, resource.RLIMIT_NOFILE, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "refuses"), [(few_bytes, True), (few_files, False)])
def test_at_a_limit_of_the_system_writes_are_refused_or_kept_and_all_else_goes_on(
    limit: Callable[[int], contextlib.AbstractContextManager[None]],
    refuses: bool,
    tmp_path: Path,
    start_server: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLOSEBY_SEGMENT_POINTS", "64")
    acknowledged: list[int] = []
    with start_server(tmp_path / "data") as server:
        with httpx.Client(base_url=server.url, timeout=30) as http:
            http.put(COLLECTION, json=IDS).raise_for_status()
            for first in range(0, 200, BATCH):
                upsert(http, first).raise_for_status()
                acknowledged += range(first, first + BATCH)
            with limit(server.process.pid):
                refused = 0
                for first in range(1_000, 1_600, BATCH):
                    answer = upsert(http, first)
                    if answer.status_code == 200:
                        acknowledged += range(first, first + BATCH)
                        continue
                    refused += 1
                    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
                    assert int(answer.headers["retry-after"]) >= 1
                assert refused or not refuses
                assert len(acknowledged) > 200 or refuses
                check_all(http, acknowledged)
                answers = [*everything(http)]
                assert {answer.status_code for answer in answers} <= {200, 201, 202, 404, 503}
                assert 503 in {answer.status_code for answer in answers}
            # The cause is gone: all is as before, and what failed leaves nothing behind.
            upsert(http, 2_000).raise_for_status()
            acknowledged += range(2_000, 2_000 + BATCH)
            check_all(http, acknowledged)
            assert http.put("/v1/collections/new", json=IDS).status_code in (200, 201)
            segments = tmp_path / "data" / "shards" / "1"
            deadline = time.monotonic() + 60
            while not any(segments.glob("segment-*")) or any(segments.glob("*.partial")):
                assert time.monotonic() < deadline, [*segments.iterdir()]
                time.sleep(0.05)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with start_server(tmp_path / "data") as server, httpx.Client(base_url=server.url) as http:
        check_all(http, acknowledged)
