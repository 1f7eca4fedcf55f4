"""Jobs from the client's side: waiting, watching, reading rows, on both faces."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from closeby.client import (
    ConflictError,
    ConnectionLostError,
    InvalidInputError,
    JobFailedError,
    JobInfo,
    JobTimeoutError,
    NotFoundError,
)


def described(state: str, done: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": "j1",
        "kind": "import",
        "collection": "urls",
        "state": state,
        "params": {},
        "progress": {"done": done, "total": 9, "rate": 3.0, "eta_s": None, "counters": {"bad": 1}},
        "result": None,
        "error": None,
        "errors": [],
        "cancel_requested": False,
        "created_at": "2026-01-02T03:04:05Z",
        "started_at": None,
        "finished_at": None,
    } | more


def sse(*documents: dict[str, Any]) -> bytes:
    return b": hello\n\n" + b"".join(
        f"event: {one['state']}\ndata: {json.dumps(one)}\n\n".encode() for one in documents
    )


async def all_of(values: Any) -> list[Any]:
    return [value async for value in values]


def gathered(faces: Any, values: Any) -> list[Any]:
    return list(values) if faces.kind == "sync" else faces.run(all_of(values))


def scripted(faces: Any, *answers: Any) -> tuple[Any, list[httpx.Request]]:
    """A job whose server gives these answers in turn."""
    requests: list[httpx.Request] = []
    script = list(answers)

    def next_answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        answer = script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    async def next_answer_async(request: httpx.Request) -> httpx.Response:
        return next_answer(request)

    handler = next_answer if faces.kind == "sync" else next_answer_async
    return faces.client(handler).job("j1"), requests


def test_waiting_tells_what_changed(faces: Any, naps: list[float]) -> None:
    running = described("running", 3)
    done = described("done", 9, result={"points": 9})
    job, requests = scripted(faces, described("queued"), running, running, done)
    told: list[JobInfo] = []
    info = faces.run(job.wait(progress=told.append))
    assert [(one.state, one.progress.done) for one in told] == [
        ("queued", 0),
        ("running", 3),
        ("done", 9),
    ]
    assert info == told[-1]
    assert info.result == {"points": 9}
    assert (info.progress.rate, info.progress.counters) == (3.0, {"bad": 1})
    assert {request.url.path for request in requests} == {"/v1/jobs/j1"}
    assert naps == sorted(naps)
    assert len(naps) == 3


def test_what_failed_and_what_takes_too_long_is_raised(faces: Any, naps: list[float]) -> None:
    error = {"code": "io_error", "detail": "no space"}
    job, _ = scripted(faces, described("failed", error=error), described("cancelled"))
    with pytest.raises(JobFailedError, match="io_error: no space") as caught:
        faces.run(job.wait())
    assert (caught.value.code, caught.value.job.state) == ("io_error", "failed")
    with pytest.raises(JobFailedError, match="is cancelled"):
        faces.run(job.result())
    job, _ = scripted(faces, *[described("running")] * 20)
    with pytest.raises(JobTimeoutError, match="running after 1 s"):
        faces.run(job.wait(timeout=1))
    assert sum(naps) >= 1


def test_events_come_as_they_are_sent(faces: Any) -> None:
    stream = sse(described("running", 1), described("running", 2), described("done", 9))
    job, requests = scripted(faces, httpx.Response(200, content=stream))
    seen = gathered(faces, job.events())
    assert [one.progress.done for one in seen] == [1, 2, 9]
    assert seen[-1].finished
    assert requests[0].url.path == "/v1/jobs/j1/events"


def test_events_go_on_after_a_break(faces: Any, naps: list[float], problem: Any) -> None:
    job, requests = scripted(
        faces,
        httpx.Response(200, content=sse(described("running", 1))),
        httpx.ConnectError("refused"),
        problem(503, "not_ready", "wait"),
        httpx.Response(200, content=sse(described("running", 2), described("done", 9))),
    )
    assert [one.progress.done for one in gathered(faces, job.events())] == [1, 2, 9]
    assert len(requests) == 4
    assert len(naps) == 3


def test_events_end_with_an_error_that_lasts(faces: Any, naps: list[float], problem: Any) -> None:
    job, _ = scripted(faces, problem(404, "job_not_found", "no job"))
    with pytest.raises(NotFoundError):
        gathered(faces, job.events())
    assert naps == []
    job, requests = scripted(faces, *[httpx.Response(200, content=b"")] * 9)
    with pytest.raises(ConnectionLostError, match="broke off"):
        gathered(faces, job.events())
    assert len(requests) == 4


def test_rows_are_read_one_by_one(faces: Any, problem: Any) -> None:
    lines = b'{"a": 1}\n\n{"a": 2}\n{"a": 3}'
    job, requests = scripted(
        faces,
        httpx.Response(200, content=lines),
        problem(409, "job_not_finished", "running"),
        httpx.Response(200, content=lines),
    )
    assert gathered(faces, job.rows()) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert requests[0].url.params["format"] == "ndjson"
    with pytest.raises(ConflictError):
        gathered(faces, job.rows())
    assert faces.run(job.download(format="parquet")) == lines
    assert requests[-1].url.params["format"] == "parquet"


def test_a_job_is_cancelled_and_listed(faces: Any) -> None:
    pages = [
        {"jobs": [described("done")], "next_cursor": "c"},
        {"jobs": [described("failed", error={"code": "x", "detail": "y"})], "next_cursor": None},
    ]
    job, requests = scripted(faces, described("cancelled"))
    assert faces.run(job.cancel()).state == "cancelled"
    assert (requests[0].method, requests[0].url.path) == ("POST", "/v1/jobs/j1:cancel")
    seen: list[httpx.Request] = []

    def page(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=pages.pop(0))

    async def page_async(request: httpx.Request) -> httpx.Response:
        return page(request)

    db = faces.client(page if faces.kind == "sync" else page_async)
    found = faces.run(db.list_jobs(collection="urls"))
    assert [one.state for one in found] == ["done", "failed"]
    assert dict(seen[0].url.params) == {"collection": "urls"}
    assert dict(seen[1].url.params) == {"collection": "urls", "cursor": "c"}


def test_an_id_that_is_none_is_refused(faces: Any) -> None:
    db = faces.client(lambda request: httpx.Response(500))
    for wrong in ("", "..", 3):
        with pytest.raises(InvalidInputError):
            db.job(wrong)
