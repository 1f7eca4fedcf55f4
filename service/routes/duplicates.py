"""A job that finds the near-duplicates among the points of a collection."""

from __future__ import annotations

from closeby.service.bodies import read_body
from closeby.service.duplicate_jobs import DUPLICATES, check_duplicates
from closeby.service.job_store import Job
from closeby.service.openapi import describe
from closeby.service.routes.collections import CollectionName
from closeby.service.routes.jobs import accepted
from closeby.service.schemas import DuplicatesBody, JobAnswer
from closeby.service.service import Service, service_of
from fastapi import APIRouter, Request
from starlette.responses import Response

__all__ = ["router"]

router = APIRouter(
    prefix="/v1/collections/{collection}", tags=["duplicates"], default_response_class=Response
)


@router.post(
    "/duplicates",
    status_code=202,
    openapi_extra=describe(
        {202: JobAnswer},
        body=(DuplicatesBody,),
        problems=("collection_not_found", "too_many_requests", "store_unavailable"),
    ),
)
async def duplicates(request: Request, collection: CollectionName) -> Response:
    """Find all pairs of near-duplicates, and whom to keep of each cluster of them."""
    service = service_of(request)
    async with service.admission.body(request) as body:
        job = await service.write(_queue, service, collection, body)
    service.deployment.jobs.announce()
    return accepted(job)


def _queue(service: Service, collection: str, body: bytes) -> Job:
    deployment = service.deployment
    shard = deployment.registry.get(collection)
    asked = read_body(body, DuplicatesBody)
    check_duplicates(shard, asked)
    return deployment.jobs.jobs.submit(
        DUPLICATES.name,
        asked.model_dump(),
        collection=shard.record.id,
        collection_name=collection,
        max_queued=service.settings.max_queued_jobs,
    )
