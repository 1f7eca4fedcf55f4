"""What a server that only reads lets through."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from .problem import problem_response

__all__ = ["READING", "ReadOnlyMiddleware"]

READING = ("/points:get", "/query", "/query:batch")
"""Ends of the paths which are asked with POST and change nothing."""


class ReadOnlyMiddleware:
    """Refuses what may write, whatever routes there are: all but known ways to read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or _only_reads(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        refusal = problem_response(
            "read_only",
            "this server follows another one of its data directory; write to that one",
            scope["closeby.request_id"],
        )
        await refusal(scope, receive, send)


def _only_reads(method: str, path: str) -> bool:
    return method in ("GET", "HEAD", "OPTIONS") or (method == "POST" and path.endswith(READING))
