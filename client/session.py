"""What a client and the handles that it gives out share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .answers import api_error
from .errors import UnexpectedAnswerError
from .flows import Flow, Request, Response, RetryPolicy, exchange
from .splitting import Batching
from .wire import decode


class Session:
    """What a client and its collections share: a driver, and how to split and to retry."""

    def __init__(self, driver: Any, retry: RetryPolicy, batching: Batching, url: str) -> None:
        self.driver = driver
        self.retry = retry
        self.batching = batching
        self.url = url

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        params: Mapping[str, str | int] | None = None,
        media_type: str = "application/json",
    ) -> Flow[Response]:
        """One exchange with retries; raises the ApiError of an answer that is a problem."""
        request = Request(method, path, body, params or {}, media_type)
        response = yield from exchange(request, self.retry)
        if response.status >= 400:
            raise api_error(response)
        return response

    def read(self, response: Response, *needed: str) -> dict[str, Any]:
        """The JSON object of a good answer, which has the keys ``needed``."""
        try:
            document = decode(response.content)
        except ValueError:
            document = None
        if response.status >= 300 or not isinstance(document, dict) or set(needed) - set(document):
            raise UnexpectedAnswerError(
                f"{self.url} answered {response.status} with "
                f"{response.content[:80]!r}, which is no answer of closeby's; is the URL right?"
            )
        return document
