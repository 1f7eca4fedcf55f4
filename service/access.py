"""What surrounds every request: its id, the API key, metrics, one log line, the last catch."""

from __future__ import annotations

import hmac
import re
import time
import uuid

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problem import problem_response
from .telemetry import Metrics

__all__ = ["AccessMiddleware", "internal_error", "request_id_of"]

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

log = structlog.get_logger("closeby.access")


def request_id_of(request: Request) -> str:
    """The id of a request: the caller's `X-Request-ID` if it is a sane one, else a new one."""
    found: str = request.scope["closeby.request_id"]
    return found


def internal_error(request_id: str) -> Response:
    """The answer to a request that met a defect."""
    detail = "a defect of the server; its log tells more under this request_id"
    return problem_response("internal_error", detail, request_id)


class AccessMiddleware:
    """The outermost layer. `api_key` None means that no key is asked for."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, api_key: str | None) -> None:
        self._app = app
        self._metrics = metrics
        self._api_key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        scope["closeby.request_id"] = request_id
        status, answered = 0, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)
            answered = message["type"] == "http.response.body" and not message.get("more_body")

        self._metrics.in_progress.inc()
        try:
            if self._api_key is not None and scope["path"] not in OPEN_PATHS:
                refusal = self._refusal(headers)
                if refusal is not None:
                    response = problem_response("unauthorized", refusal, request_id)
                    await response(scope, receive, send_with_id)
                    return
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("internal_error", request_id=request_id, path=scope["path"])
            if status and not answered:
                raise
            if not answered:
                await internal_error(request_id)(scope, receive, send_with_id)
        finally:
            self._metrics.in_progress.dec()
            self._record(scope, status, time.perf_counter() - start, request_id)

    def _refusal(self, headers: dict[bytes, bytes]) -> str | None:
        """Why the request may not pass; None if it may."""
        given = headers.get(b"x-api-key")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if given is None and scheme.lower() == b"bearer":
            given = token.strip()
        if given is None:
            return "send the API key as 'Authorization: Bearer …' or 'X-API-Key: …'"
        key = self._api_key or b""
        return None if hmac.compare_digest(given, key) else "the API key is wrong"

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        # Methods are the caller's words: unknown ones share a label, so that there are few.
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.observe(method, route, status, seconds)
        write = log.warning if status >= 500 else log.debug
        write(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            ms=round(seconds * 1e3, 3),
            request_id=request_id,
        )


def _request_id(given: bytes | None) -> str:
    if given is not None:
        text = given.decode("latin-1")
        if _SANE_ID.fullmatch(text):
            return text
    return uuid.uuid4().hex
