"""/healthz, /readyz, /metrics."""

from __future__ import annotations

from typing import Any

import orjson
from closeby.service.openapi import describe
from closeby.service.schemas import HealthAnswer, ReadyAnswer
from closeby.service.service import service_of
from fastapi import APIRouter, Request
from starlette.responses import Response

__all__ = ["router"]

router = APIRouter(tags=["operations"], default_response_class=Response)


@router.get("/healthz", openapi_extra=describe({200: HealthAnswer}))
async def healthz() -> Response:
    """The process is alive and answers."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get("/readyz", openapi_extra=describe({200: ReadyAnswer, 503: ReadyAnswer}))
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
    response = Response(orjson.dumps(body), 503 if loading else 200, media_type="application/json")
    if loading:
        response.headers["Retry-After"] = "1"
    return response


@router.get(
    "/metrics",
    openapi_extra={
        "responses": {
            "200": {
                "description": "Metrics for Prometheus",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        }
    },
)
async def metrics(request: Request) -> Response:
    """Counters and gauges in Prometheus' text format."""
    return Response(
        service_of(request).metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )
