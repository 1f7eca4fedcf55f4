"""Upsert, get and delete points."""

from __future__ import annotations

import time
from typing import Any

import orjson
from closeby.index.errors import InvalidInputError
from closeby.service.near_duplicates import upsert_tested
from closeby.service.openapi import describe
from closeby.service.routes.collections import CollectionName
from closeby.service.schemas import (
    DeleteAnswer,
    DeleteBody,
    IdsBody,
    PointsAnswer,
    UpsertAnswer,
    UpsertColumns,
    UpsertPoints,
)
from closeby.service.service import service_of
from closeby.service.settings import Settings
from closeby.service.shard import Shard
from closeby.service.wire import at_path, dump_points, parse_delete, parse_ids, parse_upsert
from fastapi import APIRouter, Request
from starlette.responses import Response

__all__ = ["router"]

router = APIRouter(
    prefix="/v1/collections/{collection}", tags=["points"], default_response_class=Response
)

_PROBLEMS = ("collection_not_found", "too_many_requests", "not_ready", "store_unavailable")


@router.post(
    "/points:upsert",
    openapi_extra=describe(
        {200: UpsertAnswer},
        body=(UpsertPoints, UpsertColumns),
        problems=(*_PROBLEMS, "near_duplicate"),
    ),
)
async def upsert(request: Request, collection: CollectionName) -> Response:
    """Store points; those whose id exists are replaced. Answered as `durability` says."""
    start = time.perf_counter()
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    async with service.admission.body(request) as body:
        answer = await service.write(_upsert, shard, body, service.settings)
    service.metrics.upserted.inc(answer["upserted"])
    return _json(answer | {"took_ms": _ms_since(start)})


@router.post(
    "/points:get",
    openapi_extra=describe({200: PointsAnswer}, body=(IdsBody,), problems=_PROBLEMS),
)
async def get_points(request: Request, collection: CollectionName) -> Response:
    """Points by id, with the input they were made from."""
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    async with service.admission.body(request) as body:
        answer = await service.read(_get, shard, body, service.settings)
    return Response(answer, media_type="application/json")


@router.post(
    "/points:delete",
    openapi_extra=describe({200: DeleteAnswer}, body=(DeleteBody,), problems=_PROBLEMS),
)
async def delete_points(request: Request, collection: CollectionName) -> Response:
    """Delete points by id; ids which do not exist are no error."""
    start = time.perf_counter()
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    async with service.admission.body(request) as body:
        count = await service.write(_delete, shard, body, service.settings)
    return _json({"deleted": count, "took_ms": _ms_since(start)})


def _upsert(shard: Shard, body: bytes, settings: Settings) -> dict[str, Any]:
    asked = parse_upsert(body, shard.featurizer, settings)
    try:
        if asked.on_duplicate is None:
            return {"upserted": shard.upsert(asked.batch, asked.durability)}
        done = upsert_tested(shard, asked.batch, asked.on_duplicate, asked.durability)
    except InvalidInputError as error:
        raise at_path(error, asked.path) from error
    return {"upserted": done.stored, "duplicates": [one.as_json() for one in done.found]}


def _get(shard: Shard, body: bytes, settings: Settings) -> bytes:
    found, missing = shard.get(parse_ids(body, settings))
    return dump_points(found, missing, shard.featurizer.field)


def _delete(shard: Shard, body: bytes, settings: Settings) -> int:
    return shard.delete(*parse_delete(body, settings))


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")


def _ms_since(start: float) -> float:
    return round((time.perf_counter() - start) * 1e3, 3)
