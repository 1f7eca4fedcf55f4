"""The server's outermost app: it answers what is asked most, and hands on the rest.

    exec ──► socket, store ──► Front answers health, queries, writes (`hot`) ──► …
                           └─► collections are loaded ──► the rest is imported: FastAPI and all
                                                          other routes; who asks for one waits

So a server is ready long before all of it is imported, and queries and writes never pass through
the framework of the other routes.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass

import structlog
from closeby.index.errors import InvalidInputError
from starlette.datastructures import State
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from . import hot
from .access import AccessMiddleware, request_id_of
from .admission import Admission
from .deployment import Deployment
from .errors import ServiceError
from .problem import problem_of, problem_response
from .service import Service
from .settings import Settings
from .telemetry import Metrics

__all__ = ["Front", "guarded", "open_service"]

LOAD_FIRST_SECONDS = 1.0
"""How long the rest lets the loading of collections have the processor for itself."""

_HEALTH: dict[str, Callable[[Request], Awaitable[Response]]] = {
    "/healthz": hot.healthz,
    "/readyz": hot.readyz,
}
_Endpoint = Callable[[Request, str], Awaitable[Response]]
_READS: dict[str, _Endpoint] = {
    "query": hot.query,
    "query:batch": hot.query_batch,
    "points:get": hot.get_points,
}
_WRITES: dict[str, _Endpoint] = {"points:upsert": hot.upsert, "points:delete": hot.delete_points}
_POINTS = re.compile(r"/v1/collections/([^/]+)/([^/]+)")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Route:
    """What the metrics call a route."""

    path: str


_ROUTES = {name: _Route("/v1/collections/{collection}/" + name) for name in (*_READS, *_WRITES)}


def open_service(settings: Settings, deployment: Deployment, metrics: Metrics) -> Service:
    """Start a deployment, and what its routes need beside it."""
    admission = Admission(
        settings.max_waiting_requests, settings.max_waiting_bytes, settings.max_body_bytes
    )
    metrics.watch(deployment, admission)
    deployment.start()
    return Service(settings, deployment, admission, metrics)


def guarded(front: Front) -> ASGIApp:
    """The whole server as an app: what surrounds every request, and `front`."""
    service = front.state.service
    return AccessMiddleware(front, metrics=service.metrics, api_key=service.deployment.api_key)


class Front:
    """Answers by `service`, whose deployment it closes at the end. To be served `guarded`."""

    def __init__(self, service: Service) -> None:
        self.state = State()
        self.state.service = service
        self._service = service
        # A server that only reads refuses writes, which the rest does.
        self._points = _READS if service.settings.read_only else _READS | _WRITES
        self.rest: Future[ASGIApp] = Future()
        """All other routes, once they are imported."""
        self._importer = threading.Thread(target=self._import, name="closeby-import", daemon=True)
        self._importer.start()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        answer = self._answer(scope, receive) if scope["type"] == "http" else None
        if answer is None:
            if not self.rest.done():
                await asyncio.shield(asyncio.wrap_future(self.rest))
            await self.rest.result()(scope, receive, send)
            return
        response = await answer
        await response(scope, receive, send)

    def _answer(self, scope: Scope, receive: Receive) -> Awaitable[Response] | None:
        """The answer to a request, if it is one of ours."""
        path: str = scope["path"]
        if scope["method"] == "GET" and path in _HEALTH:
            scope["app"], scope["route"] = self, _Route(path)
            return _HEALTH[path](Request(scope))
        if scope["method"] != "POST" or (found := _POINTS.fullmatch(path)) is None:
            return None
        endpoint = self._points.get(found[2])
        if endpoint is None:
            return None
        scope["app"], scope["route"] = self, _ROUTES[found[2]]
        return _or_problem(endpoint, Request(scope, receive), found[1])

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(self._importer.join)
        await asyncio.to_thread(self._service.deployment.close)
        await send({"type": "lifespan.shutdown.complete"})

    def _import(self) -> None:
        deployment = self._service.deployment
        deployment.loaded.wait(LOAD_FIRST_SECONDS)
        try:
            from .app import create_rest

            self.rest.set_result(create_rest(self._service))
        except BaseException as error:  # told to whoever asks
            log.exception("import_failed")
            self.rest.set_exception(error)


async def _or_problem(endpoint: _Endpoint, request: Request, collection: str) -> Response:
    try:
        return await endpoint(request, collection)
    except (ServiceError, InvalidInputError, OSError) as error:
        response = problem_of(error, request_id_of(request))
        if response is None:
            raise
        return response
    except ClientDisconnect:
        # Nobody reads this answer.
        detail = "the request was cut short"
        return problem_response("bad_request", detail, request_id_of(request))
