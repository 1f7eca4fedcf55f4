"""The HTTP service as an ASGI app: `create_app(settings)`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from closeby.index.errors import InvalidInputError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Lifespan

from . import openapi
from .access import AccessMiddleware, internal_error, request_id_of
from .deployment import Deployment
from .errors import FieldError, ServiceError
from .front import open_service
from .problem import problem_of, problem_response
from .read_only import ReadOnlyMiddleware
from .routes import (
    collections,
    duplicates,
    engines,
    imports,
    jobs,
    operations,
    optimize,
    points,
    queries,
    snapshots,
)
from .service import Service
from .settings import Settings
from .telemetry import Metrics
from .version import closeby_version

__all__ = ["create_app"]

DESCRIPTION = """\
Near-neighbour search for sets, sequences, text and vectors at high similarity.

Errors are `application/problem+json` with a stable `code`.
"""


def create_app(settings: Settings, deployment: Deployment | None = None) -> FastAPI:
    """The app. Opens the deployment at start-up unless given one, and closes it at the end.

    A start-up that fails raises StartupError from the lifespan.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opened = deployment or Deployment(settings)
        app.state.service = open_service(settings, opened, metrics)
        try:
            yield
        finally:
            opened.close()

    app = _create(settings, lifespan)
    app.add_middleware(AccessMiddleware, metrics=metrics, api_key=settings.read_api_key())
    return app


def create_rest(service: Service) -> FastAPI:
    """The app as `front` has it behind itself: `service` is open, and requests are let in."""
    app = _create(service.settings, None)
    app.state.service = service
    return app


def _create(settings: Settings, lifespan: Lifespan[FastAPI] | None) -> FastAPI:
    app = FastAPI(
        title="closeby",
        summary="Near-neighbour search at high similarity",
        description=DESCRIPTION,
        version=closeby_version(),
        redirect_slashes=False,
        redoc_url=None,
        lifespan=lifespan,
    )
    if settings.read_only:
        app.add_middleware(ReadOnlyMiddleware)
    for module in (
        operations,
        collections,
        points,
        queries,
        imports,
        duplicates,
        engines,
        optimize,
        jobs,
        snapshots,
    ):
        app.include_router(module.router)
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(InvalidInputError, _on_service_error)
    app.add_exception_handler(OSError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_defect)
    openapi.install(app)
    return app


async def _on_service_error(request: Request, error: Exception) -> Response:
    response = problem_of(error, request_id_of(request))
    if response is None:
        raise error
    return response


async def _on_validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    faults = tuple(
        FieldError(".".join(str(part) for part in fault["loc"][1:]), fault["msg"])
        for fault in error.errors()
    )
    return problem_response(
        "validation_error",
        f"{faults[0].field}: {faults[0].message}",
        request_id_of(request),
        errors=faults,
    )


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """The framework's own errors: no route, no such method, unreadable request."""
    if not isinstance(error, HTTPException):
        raise error
    codes = {
        404: ("not_found", f"there is no {request.url.path[:200]}"),
        405: ("method_not_allowed", f"{request.method} is not a method of this path"),
    }
    code, detail = codes.get(error.status_code, ("bad_request", str(error.detail)))
    if error.status_code >= 500:
        raise error
    return problem_response(code, detail, request_id_of(request), headers=error.headers)


async def _on_disconnect(request: Request, _error: Exception) -> Response:
    """The caller left before the body was there; nobody reads this answer."""
    return problem_response("bad_request", "the request was cut short", request_id_of(request))


async def _on_defect(request: Request, _error: Exception) -> Response:
    """Anything else. The framework raises it again, so that it is logged."""
    return internal_error(request_id_of(request))
