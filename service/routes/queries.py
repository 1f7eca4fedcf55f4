"""Queries, one or many at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from closeby.index import Featurizer
from closeby.index.errors import InvalidInputError
from closeby.service.openapi import describe
from closeby.service.routes.collections import CollectionName
from closeby.service.schemas import QueryAnswer, QueryBatchAnswer, QueryBatchBody, QueryBody
from closeby.service.service import service_of
from closeby.service.settings import Settings
from closeby.service.shard import Shard
from closeby.service.wire import QueryRequest, at_path, dump_answer, parse_query, parse_query_batch
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
_Parse = Callable[[bytes, Featurizer, str, Settings], QueryRequest]


@router.post(
    "/query",
    openapi_extra=describe({200: QueryAnswer}, body=(QueryBody,), problems=_PROBLEMS),
)
async def query(request: Request, collection: CollectionName) -> Response:
    """The nearest points of one input."""
    return await _answer(request, collection, parse_query)


@router.post(
    "/query:batch",
    openapi_extra=describe({200: QueryBatchAnswer}, body=(QueryBatchBody,), problems=_PROBLEMS),
)
async def query_batch(request: Request, collection: CollectionName) -> Response:
    """The nearest points of each of many inputs, with the same options."""
    return await _answer(request, collection, parse_query_batch)


async def _answer(request: Request, collection: str, parse: _Parse) -> Response:
    start = time.perf_counter()
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    async with service.admission.body(request) as body:
        count, answer = await service.read(_search, shard, body, parse, service.settings, start)
    service.metrics.queries.inc(count)
    return Response(answer, media_type="application/json")


def _search(
    shard: Shard, body: bytes, parse: _Parse, settings: Settings, start: float
) -> tuple[int, bytes]:
    """Number of queries and the answer as JSON; all of the CPU's work, in a worker thread."""
    asked = parse(body, shard.featurizer, shard.metric, settings)
    try:
        answer = shard.search(asked.inputs, asked.search)
    except InvalidInputError as error:
        raise at_path(error, asked.path) from error
    took_ms = (time.perf_counter() - start) * 1e3
    return len(answer.hits), dump_answer(answer, took_ms, single=parse is parse_query)
