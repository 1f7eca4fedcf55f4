"""Jobs that choose and combine points: select, frank_wolfe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from closeby.service.bodies import read_body
from closeby.service.job_store import Job
from closeby.service.openapi import describe
from closeby.service.optimize_jobs import (
    FRANK_WOLFE,
    SELECT,
    check_frank_wolfe,
    check_select,
)
from closeby.service.routes.collections import CollectionName
from closeby.service.routes.jobs import accepted
from closeby.service.schemas import FrankWolfeBody, JobAnswer, SelectBody
from closeby.service.service import Service, service_of
from closeby.service.wire import check_id
from fastapi import APIRouter, Request
from starlette.responses import Response

__all__ = ["router"]

router = APIRouter(
    prefix="/v1/collections/{collection}", tags=["optimize"], default_response_class=Response
)

_PROBLEMS = ("collection_not_found", "too_many_requests", "not_ready", "store_unavailable")


@router.post(
    "/select",
    status_code=202,
    openapi_extra=describe({202: JobAnswer}, body=(SelectBody,), problems=_PROBLEMS),
)
async def select(request: Request, collection: CollectionName) -> Response:
    """Choose points whose mean represents that of all."""
    return await _submit(request, collection, SELECT.name, SelectBody, check_select)


@router.post(
    "/frank_wolfe",
    status_code=202,
    openapi_extra=describe({202: JobAnswer}, body=(FrankWolfeBody,), problems=_PROBLEMS),
)
async def frank_wolfe(request: Request, collection: CollectionName) -> Response:
    """Approximate a vector by a combination of few points."""
    return await _submit(request, collection, FRANK_WOLFE.name, FrankWolfeBody, check_frank_wolfe)


async def _submit(
    request: Request,
    collection: str,
    kind: str,
    model: type[Any],
    check: Callable[..., None],
) -> Response:
    service = service_of(request)
    async with service.admission.body(request) as body:
        job = await service.write(_queue, service, collection, kind, body, model, check)
    service.deployment.jobs.announce()
    return accepted(job)


def _queue(
    service: Service,
    collection: str,
    kind: str,
    body: bytes,
    model: type[Any],
    check: Callable[..., None],
) -> Job:
    deployment, settings = service.deployment, service.settings
    shard = deployment.registry.get(collection)
    asked = read_body(body, model)
    for row, point in enumerate(asked.exclude):
        check_id(point, f"exclude[{row}]", settings)
    check(shard, asked, settings.max_job_bytes)
    return deployment.jobs.jobs.submit(
        kind,
        asked.model_dump(),
        collection=shard.record.id,
        collection_name=collection,
        max_queued=settings.max_queued_jobs,
    )
