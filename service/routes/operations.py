"""/healthz, /readyz, /metrics."""

from __future__ import annotations

from closeby.service import hot
from closeby.service.openapi import describe
from closeby.service.schemas import HealthAnswer, ReadyAnswer
from closeby.service.service import service_of
from fastapi import APIRouter, Request
from starlette.responses import Response

__all__ = ["router"]

router = APIRouter(tags=["operations"], default_response_class=Response)


@router.get("/healthz", openapi_extra=describe({200: HealthAnswer}))
async def healthz(request: Request) -> Response:
    """The process is alive and answers."""
    return await hot.healthz(request)


@router.get("/readyz", openapi_extra=describe({200: ReadyAnswer, 503: ReadyAnswer}))
async def readyz(request: Request) -> Response:
    """Whether all collections are loaded; 503 until then, with how far each is."""
    return await hot.readyz(request)


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
