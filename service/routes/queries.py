"""Queries, one or many at a time."""

from __future__ import annotations

from closeby.service import hot
from closeby.service.openapi import describe
from closeby.service.routes.collections import CollectionName
from closeby.service.schemas import QueryAnswer, QueryBatchAnswer, QueryBatchBody, QueryBody
from fastapi import APIRouter, Request
from starlette.responses import Response

__all__ = ["router"]

router = APIRouter(
    prefix="/v1/collections/{collection}", tags=["queries"], default_response_class=Response
)

_PROBLEMS = (
    "collection_not_found",
    "too_many_requests",
    "not_ready",
    "shard_unavailable",
    "store_unavailable",
)


@router.post(
    "/query",
    openapi_extra=describe({200: QueryAnswer}, body=(QueryBody,), problems=_PROBLEMS),
)
async def query(request: Request, collection: CollectionName) -> Response:
    """The nearest points of one input."""
    return await hot.query(request, collection)


@router.post(
    "/query:batch",
    openapi_extra=describe({200: QueryBatchAnswer}, body=(QueryBatchBody,), problems=_PROBLEMS),
)
async def query_batch(request: Request, collection: CollectionName) -> Response:
    """The nearest points of each of many inputs, with the same options."""
    return await hot.query_batch(request, collection)
