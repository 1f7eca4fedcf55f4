"""What the server does most: queries, upserts, gets and deletes of points, and its health.

Endpoints of Starlette alone: a start answers them before the framework of the other routes is
imported (`front`), and they cost nothing of it. `routes` describes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson
from closeby.index import Featurizer
from closeby.index.errors import InvalidInputError
from starlette.requests import Request
from starlette.responses import Response

from .near_duplicates import upsert_tested
from .service import service_of
from .settings import Settings
from .shard import Shard
from .turns import LARGE_BODY, turn
from .wire import (
    QueryRequest,
    at_path,
    dump_answer,
    dump_points,
    parse_delete,
    parse_ids,
    parse_query,
    parse_query_batch,
    parse_upsert,
)

__all__ = [
    "delete_points",
    "get_points",
    "healthz",
    "query",
    "query_batch",
    "readyz",
    "upsert",
]

_Parse = Callable[[bytes, Featurizer, str, Settings], QueryRequest]


async def healthz(_request: Request) -> Response:
    """The process is alive and answers."""
    return _json(b'{"status":"ok"}')


async def readyz(request: Request) -> Response:
    """Whether all collections are loaded; 503 until then, with how far each is."""
    shards = service_of(request).deployment.registry.shards()
    loading: dict[str, dict[str, Any]] = {}
    for shard in shards:
        if not shard.ready:
            progress = shard.progress
            loading[shard.record.name] = {
                "rows": progress.rows,
                "total": progress.total,
                "fault": shard.fault,
            }
    body = {"ready": not loading, "collections": len(shards), "loading": loading}
    response = _json(orjson.dumps(body), 503 if loading else 200)
    if loading:
        response.headers["Retry-After"] = "1"
    return response


# --- points --------------------------------------------------------------------------------------


async def upsert(request: Request, collection: str) -> Response:
    """Store points; those whose id exists are replaced. Answered as `durability` says."""
    start = time.perf_counter()
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    async with service.admission.body(request) as body:
        answer = await service.write(_upsert, shard, body, service.settings)
    service.metrics.upserted.inc(answer["upserted"])
    return _json(orjson.dumps(answer | {"took_ms": _ms_since(start)}))


async def get_points(request: Request, collection: str) -> Response:
    """Points by id, with the input they were made from."""
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    async with service.admission.body(request) as body:
        return _json(await service.read(_get, shard, body, service.settings))


async def delete_points(request: Request, collection: str) -> Response:
    """Delete points by id; ids which do not exist are no error."""
    start = time.perf_counter()
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    async with service.admission.body(request) as body:
        count = await service.write(_delete, shard, body, service.settings)
    return _json(orjson.dumps({"deleted": count, "took_ms": _ms_since(start)}))


def _upsert(shard: Shard, body: bytes, settings: Settings) -> dict[str, Any]:
    with turn(large=len(body) >= LARGE_BODY):
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


# --- queries -------------------------------------------------------------------------------------


async def query(request: Request, collection: str) -> Response:
    """The nearest points of one input."""
    return await _answer(request, collection, parse_query)


async def query_batch(request: Request, collection: str) -> Response:
    """The nearest points of each of many inputs, with the same options."""
    return await _answer(request, collection, parse_query_batch)


async def _answer(request: Request, collection: str, parse: _Parse) -> Response:
    start = time.perf_counter()
    service = service_of(request)
    shard = service.deployment.registry.get(collection)
    async with service.admission.body(request) as body:
        count, answer = await service.read(_search, shard, body, parse, service.settings, start)
    service.metrics.queries.inc(count)
    return _json(answer)


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


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _ms_since(start: float) -> float:
    return round((time.perf_counter() - start) * 1e3, 3)
