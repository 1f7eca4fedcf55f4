"""The six classes that users hold: two faces of one client, of one collection, of one job."""

from __future__ import annotations

import ipaddress
from types import TracebackType
from typing import Any

import httpx

from ._version import __version__
from .drivers import AwaitingDriver, BlockingDriver
from .errors import InvalidInputError
from .faces import Awaiting, Blocking
from .flows import RetryPolicy
from .jobs import JobOperations
from .operations import ClientOperations, CollectionOperations
from .session import Session
from .splitting import Batching


class Job(JobOperations, Blocking):
    """A job of the server. Made by `Client` and `Collection`."""


class AsyncJob(JobOperations, Awaiting):
    """A job of the server. Made by `AsyncClient` and `AsyncCollection`."""


class Collection(CollectionOperations[Job], Blocking):
    """One collection: its points, and queries over them. Made by `Client`.

    Safe to use from several threads.
    """

    _job_type = Job


class AsyncCollection(CollectionOperations[AsyncJob], Awaiting):
    """One collection: its points, and queries over them. Made by `AsyncClient`."""

    _job_type = AsyncJob


class Client(ClientOperations[Collection, Job], Blocking):
    """A connection to a closeby server.

    ``url`` such as ``"http://127.0.0.1:8080"``, ``api_key`` if the server asks for one,
    ``timeout`` in seconds for connecting and for each answer, ``retries`` how often a request is
    sent again after a failed connection or a 429, 502, 503 or 504, ``batching`` how large calls are
    split. ``transport`` puts an httpx transport in the place of the network.

    A context manager; without ``with``, call ``close()``. Safe to use from several threads.
    Raises InvalidInputError for a URL that is none; the server is not asked before the first call.
    """

    _collection_type = Collection
    _job_type = Job

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 3,
        batching: Batching | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        options = _http_options(url, api_key, timeout)
        driver = BlockingDriver(httpx.Client(transport=transport, **options))
        self._session = Session(driver, RetryPolicy(retries), batching or Batching(), url)

    def close(self) -> None:
        """Close the connections. The client cannot be used any more."""
        self._session.driver.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._session.url!r})"


class AsyncClient(ClientOperations[AsyncCollection, AsyncJob], Awaiting):
    """A connection to a closeby server, for asyncio: the methods of `Client`, awaited.

    ``url`` such as ``"http://127.0.0.1:8080"``, ``api_key`` if the server asks for one,
    ``timeout`` in seconds for connecting and for each answer, ``retries`` how often a request is
    sent again after a failed connection or a 429, 502, 503 or 504, ``batching`` how large calls are
    split. ``transport`` puts an httpx transport in the place of the network.

    An async context manager; without ``async with``, call ``await close()``.
    Raises InvalidInputError for a URL that is none; the server is not asked before the first call.
    """

    _collection_type = AsyncCollection
    _job_type = AsyncJob

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 3,
        batching: Batching | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        options = _http_options(url, api_key, timeout)
        driver = AwaitingDriver(httpx.AsyncClient(transport=transport, **options))
        self._session = Session(driver, RetryPolicy(retries), batching or Batching(), url)

    async def close(self) -> None:
        """Close the connections. The client cannot be used any more."""
        await self._session.driver.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._session.url!r})"


def _http_options(url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    """What both httpx clients are made with."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise InvalidInputError(f"{url!r} is no URL: {error}", field="url") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInputError(
            f"{url!r} is no URL of a server; it looks like http://127.0.0.1:8080", field="url"
        )
    headers = {"user-agent": f"closeby-client/{__version__}", "accept": "application/json"}
    if api_key is not None:
        if not api_key.isascii() or not api_key.isprintable():
            raise InvalidInputError("api_key holds characters no header can", field="api_key")
        headers["authorization"] = f"Bearer {api_key}"
    return {
        "base_url": url,
        "headers": headers,
        "timeout": httpx.Timeout(timeout),
        # A proxy from the environment cannot reach this machine's own addresses.
        "trust_env": not _is_loopback(parsed.host),
    }


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
