"""List, watch and cancel jobs, and fetch what they made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any, BinaryIO, Literal

import orjson
from closeby.service.deployment import Deployment
from closeby.service.errors import (
    JobNotFinishedError,
    NoJobResultError,
    ServiceError,
    TooManyRequestsError,
)
from closeby.service.job_kinds import KINDS
from closeby.service.job_store import Job
from closeby.service.jobs import RESULT_TYPES, JobRunner
from closeby.service.openapi import describe
from closeby.service.schemas import JobAnswer, JobList
from closeby.service.service import Service, service_of
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response, StreamingResponse

__all__ = ["accepted", "router"]

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], default_response_class=Response)

JobId = Annotated[str, Path(description="Id of the job.")]
State = Literal["queued", "running", "done", "failed", "cancelled"]
PART = 1 << 20
LOOK_SECONDS = 0.2
"""How often a stream of events looks at its job."""
HEARTBEAT_SECONDS = 10.0
"""A comment is sent after so long without an event, so that nobody on the way gives up."""
MAX_WATCHERS = 256
"""Streams of events at once."""


@router.get("", openapi_extra=describe({200: JobList}, problems=("validation_error",)))
async def list_jobs(
    request: Request,
    collection: Annotated[str | None, Query(description="Only those of this one.")] = None,
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Jobs a page.")] = 100,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the page before.", pattern="^[0-9a-f]{24}$")
    ] = None,
) -> Response:
    """Jobs, newest first, a page at a time."""
    service = service_of(request)

    def read() -> dict[str, Any]:
        jobs, more = service.deployment.jobs.jobs.page(
            limit, before=cursor, collection_name=collection, state=state
        )
        _catch_up(service.deployment, jobs)
        return {
            "jobs": [describe_job(job) for job in jobs],
            "next_cursor": jobs[-1].id if more else None,
        }

    return _json(await service.read(read))


@router.get("/{job}", openapi_extra=describe({200: JobAnswer}, problems=("job_not_found",)))
async def get_job(request: Request, job: JobId) -> Response:
    """State, progress, result or error of a job."""
    service = service_of(request)
    return _json(describe_job(await service.read(_look, service.deployment, job)))


@router.post("/{job}:cancel", openapi_extra=describe({200: JobAnswer}, problems=("job_not_found",)))
async def cancel_job(request: Request, job: JobId) -> Response:
    """Cancel a job: at once if it waits, at its next step if it runs. What it stored stays."""
    service = service_of(request)
    return _json(describe_job(await service.write(service.deployment.jobs.cancel, job)))


@router.get(
    "/{job}/events",
    openapi_extra={
        "responses": describe({}, problems=("job_not_found", "too_many_requests"))["responses"]
        | {
            "200": {
                "description": "Server-sent events: `progress`, then `done`, `failed` or"
                " `cancelled`, each with the job as data",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            }
        }
    },
)
async def watch_job(request: Request, job: JobId) -> Response:
    """The job as server-sent events, until it is finished."""
    service = service_of(request)
    found = await service.read(_look, service.deployment, job)
    if service.watchers >= MAX_WATCHERS:
        raise TooManyRequestsError(f"{MAX_WATCHERS} jobs are being watched", retry_after=5)
    return StreamingResponse(
        _events(service, found),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


@router.get(
    "/{job}/result",
    openapi_extra={
        "responses": describe(
            {}, problems=("job_not_found", "job_not_finished", "job_result_not_found")
        )["responses"]
        | {
            "200": {
                "description": "The file that the job made",
                "content": {
                    kind: {"schema": {"type": "string", "format": "binary"}}
                    for kind in RESULT_TYPES.values()
                },
            }
        }
    },
)
async def job_result(
    request: Request,
    job: JobId,
    format: Annotated[  # noqa: A002
        Literal["ndjson", "parquet"], Query(description="What the file shall be.")
    ] = "ndjson",
) -> Response:
    """The file that a finished job made."""
    service = service_of(request)
    file = await service.read(_open_result, service.deployment.jobs, job, format)
    size = file.seek(0, 2)
    file.seek(0)
    return StreamingResponse(
        _parts(file), media_type=RESULT_TYPES[format], headers={"content-length": str(size)}
    )


def accepted(job: Job) -> Response:
    """202, with where the job is to be found."""
    response = _json(describe_job(job), 202)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return response


def describe_job(job: Job) -> dict[str, Any]:
    """A job as it is answered."""
    return {
        "id": job.id,
        "kind": job.kind,
        "collection": job.collection_name,
        "state": job.state,
        "params": job.params,
        "progress": job.progress,
        "result": job.result,
        "error": job.error,
        "errors": job.errors,
        "cancel_requested": job.cancel_requested,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }


async def _events(service: Service, job: Job) -> AsyncIterator[bytes]:
    """An event when something changed, the last one when the job is finished."""
    shown: tuple[Any, ...] | None = None
    sent = time.monotonic()
    with service.watching():
        while not service.deployment.ending.is_set():
            now = (job.state, job.progress, job.cancel_requested)
            if now != shown:
                shown, sent = now, time.monotonic()
                name = job.state if job.finished else "progress"
                yield b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(describe_job(job)))
            elif time.monotonic() - sent > HEARTBEAT_SECONDS:
                sent = time.monotonic()
                yield b": still here\n\n"
            if job.finished:
                return
            await asyncio.sleep(LOOK_SECONDS)
            try:
                job = await service.read(_look, service.deployment, job.id)
            except ServiceError:
                # Forgotten, or the store is gone: whoever asks again is told which.
                return


def _look(deployment: Deployment, job: str) -> Job:
    """The job; all rows that it tells of are found by queries."""
    found = deployment.jobs.jobs.get(job)
    _catch_up(deployment, [found])
    return found


def _catch_up(deployment: Deployment, jobs: Sequence[Job]) -> None:
    """Apply what other processes have stored for these jobs.

    Whoever only looks does not wait for segments to be sealed: that workers pause until they are
    bounds what is not.
    """
    wanted = {
        job.collection for job in jobs if job.kind in KINDS and KINDS[job.kind].place == "anywhere"
    }
    for shard in deployment.registry.shards() if wanted - {None} else ():
        if shard.record.id in wanted and shard.ready:
            shard.catch_up(throttled=False)


def _open_result(jobs: JobRunner, job: str, format: str) -> BinaryIO:  # noqa: A002
    found = jobs.jobs.get(job)
    if found.state != "done":
        raise JobNotFinishedError(f"job {job} is {found.state}; only done jobs have a result")
    try:
        return (jobs.folder / found.id / f"result.{format}").open("rb")
    except FileNotFoundError:
        raise NoJobResultError(
            f"job {job} of kind {found.kind} made no {format} file; `result` of the job says what"
            " it did make"
        ) from None


def _parts(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while part := file.read(PART):
            yield part


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
