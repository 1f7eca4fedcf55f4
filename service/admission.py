"""Bounds on what is taken on at once: over them a request is told to come back later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request

from .errors import TooManyRequestsError, UnsupportedMediaTypeError
from .wire import too_large

__all__ = ["Admission"]


@dataclass(slots=True)
class Admission:
    """Counts requests and bytes of bodies in memory. To be used from the event loop only."""

    max_requests: int
    max_bytes: int
    max_body: int
    requests: int = 0
    held: int = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a JSON request; it counts as held until the context is left.

        Refuses what is too large as soon as that is known, without reading on.
        """
        _require_json(request)
        if self.requests >= self.max_requests:
            raise TooManyRequestsError(
                f"{self.requests} requests are in progress or waiting", retry_after=1
            )
        self.requests += 1
        held = 0
        try:
            announced = _content_length(request)
            if announced > self.max_body:
                raise too_large(self.max_body)
            parts = []
            async for part in request.stream():
                held += len(part)
                self.held += len(part)
                if held > self.max_body:
                    raise too_large(self.max_body)
                if self.held > self.max_bytes and self.held > held:
                    raise TooManyRequestsError(
                        f"bodies of {self.held} bytes are being worked on", retry_after=1
                    )
                parts.append(part)
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            self.requests -= 1
            self.held -= held


def _content_length(request: Request) -> int:
    value = request.headers.get("content-length", "0")
    return int(value) if value.isascii() and value.isdigit() else 0


def _require_json(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaTypeError(
            f"Content-Encoding {encoding[:100]!r} is not supported; send the body as it is"
        )
    kind = request.headers.get("content-type", "")
    main, _, parameters = kind.partition(";")
    main = main.strip().lower()
    if main != "application/json":
        # Asked for even where the body could be guessed: a web page of another origin cannot
        # send this type without the browser asking us first.
        raise UnsupportedMediaTypeError(
            f"Content-Type is {kind[:100]!r}; send JSON with 'Content-Type: application/json'"
        )
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if charset not in ("", "utf-8", "utf8"):
        raise UnsupportedMediaTypeError(f"charset {charset[:100]!r} is not supported; send UTF-8")
