"""Upsert, get and delete points."""

from __future__ import annotations

from closeby.service import hot
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
    return await hot.upsert(request, collection)


@router.post(
    "/points:get",
    openapi_extra=describe({200: PointsAnswer}, body=(IdsBody,), problems=_PROBLEMS),
)
async def get_points(request: Request, collection: CollectionName) -> Response:
    """Points by id, with the input they were made from."""
    return await hot.get_points(request, collection)


@router.post(
    "/points:delete",
    openapi_extra=describe({200: DeleteAnswer}, body=(DeleteBody,), problems=_PROBLEMS),
)
async def delete_points(request: Request, collection: CollectionName) -> Response:
    """Delete points by id; ids which do not exist are no error."""
    return await hot.delete_points(request, collection)
