"""Which engine suits a collection, what its answers are worth, and changing it."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from closeby.index.errors import InvalidInputError
from closeby.service.bodies import read_body
from closeby.service.engines import check_engine
from closeby.service.errors import ValidationError
from closeby.service.evaluation import EVALUATE, check_enough, plan_for
from closeby.service.feature_keeping import require_features
from closeby.service.job_store import Job
from closeby.service.openapi import describe
from closeby.service.reindexing import REINDEX
from closeby.service.replanning import planned_for
from closeby.service.routes.collections import CollectionName
from closeby.service.routes.jobs import accepted
from closeby.service.schemas import EvaluateBody, JobAnswer, PlanAnswer, ReindexBody
from closeby.service.service import Service, service_of
from closeby.service.shard import Shard
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

__all__ = ["router"]

router = APIRouter(
    prefix="/v1/collections/{collection}", tags=["engines"], default_response_class=Response
)

_PROBLEMS = ("collection_not_found", "not_ready", "too_many_requests", "store_unavailable")


@router.get(
    "/plan",
    openapi_extra=describe({200: PlanAnswer}, problems=(*_PROBLEMS, "validation_error")),
)
async def plan(
    request: Request,
    collection: CollectionName,
    memory_bytes: Annotated[
        int | None,
        Query(ge=1, le=2**63 - 1, description="For features and index together."),
    ] = None,
) -> Response:
    """What each engine would cost and find on the points that there are, and which to take."""
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    for name in request.query_params.keys() - {"memory_bytes"}:
        raise ValidationError.of(
            name, "is no parameter; there is memory_bytes, all else is the collection's"
        )
    try:
        found = await service.read(plan_for, shard, memory_bytes)
    except InvalidInputError as error:
        raise ValidationError.of(error.field or "collection", str(error), error.limit) from error
    body = found.as_json() | {
        "engine": shard.engine_kind,
        "planned_for": planned_for(shard),
        "planned_again_at": service.deployment.replanning.due_at(shard),
    }
    return Response(orjson.dumps(body), media_type="application/json")


@router.post(
    "/evaluate",
    status_code=202,
    openapi_extra=describe({202: JobAnswer}, body=(EvaluateBody,), problems=_PROBLEMS),
)
async def evaluate(request: Request, collection: CollectionName) -> Response:
    """Measure recall against exact search, on sampled points or on given queries, as a job."""
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    async with service.admission.body(request) as body:
        asked = read_body(body or b"{}", EvaluateBody)
        require_features(shard, "measuring recall")
        if asked.queries is not None:
            await service.read(_check_queries, shard, asked.queries)
        else:
            check_enough(await service.read(shard.count_now))
        job = await service.write(_submit, service, shard, EVALUATE.name, asked.model_dump())
    return accepted(job)


@router.post(
    ":reindex",
    status_code=202,
    openapi_extra=describe({202: JobAnswer}, body=(ReindexBody,), problems=_PROBLEMS),
)
async def reindex(request: Request, collection: CollectionName) -> Response:
    """Change engine and parameters, as a job; queries and writes go on meanwhile."""
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    async with service.admission.body(request) as body:
        asked = read_body(body or b"{}", ReindexBody).model_dump()
        for name in ("index", "index_params"):
            if asked[name] is not None:
                require_features(shard, "another engine", name)
        config = shard.record.config | {k: v for k, v in asked.items() if v is not None}
        if asked["index"] is not None and asked["index_params"] is None:
            config["index_params"] = {}
        try:
            check_engine(config)
        except InvalidInputError as error:
            raise ValidationError.of(error.field or "index", str(error), error.limit) from error
        job = await service.write(_submit, service, shard, REINDEX.name, asked)
    return accepted(job)


def _check_queries(shard: Shard, queries: list[Any]) -> None:
    try:
        shard.features(queries)
    except InvalidInputError as error:
        where = "queries" if error.row is None else f"queries.{error.row}"
        raise ValidationError.of(where, str(error), error.limit) from error


def _submit(service: Service, shard: Shard, kind: str, params: dict[str, Any]) -> Job:
    runner = service.deployment.jobs
    job = runner.jobs.submit(
        kind,
        params,
        collection=shard.record.id,
        collection_name=shard.record.name,
        max_queued=service.settings.max_queued_jobs,
    )
    runner.announce()
    return job
