"""The two ways to run a flow: blocking, with threads; and awaited, with asyncio tasks.

Only this file touches the network. Whatever else the client decides, it decides in flows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import httpx

from .errors import (
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    RequestTimeoutError,
    TransportError,
)
from .flows import (
    Effect,
    Emit,
    Flow,
    InFlight,
    NextLine,
    Open,
    Request,
    Response,
    Schedule,
    Send,
    Sleep,
    StreamFlow,
    Task,
)

T = TypeVar("T")

PART_BYTES = 256 << 10
"""A file is sent in parts of this size."""


class BlockingDriver:
    """Runs flows in the calling thread; `InFlight` tasks in threads of their own."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def run(self, flow: Flow[T]) -> T:
        """Run ``flow`` to its end and return its value. Safe to call from several threads."""
        advance: Callable[[], Effect] = partial(next, flow)
        while True:
            try:
                effect = advance()
            except StopIteration as end:
                value: T = end.value
                return value
            try:
                outcome = self._perform(effect)
            except Exception as error:  # the flow decides what it means
                advance = partial(flow.throw, error)
            else:
                advance = partial(flow.send, outcome)

    def iterate(self, flow: StreamFlow[T]) -> Iterator[T]:
        """The values that ``flow`` emits, as they come; the stream is closed when nobody asks."""
        advance: Callable[[], Any] = partial(next, flow)
        stream: httpx.Response | None = None
        lines: Iterator[str] = iter(())
        try:
            while True:
                try:
                    effect = advance()
                except StopIteration:
                    return
                outcome: Any = None
                try:
                    if isinstance(effect, Emit):
                        yield effect.value
                    elif isinstance(effect, NextLine):
                        outcome = self._next_line(lines)
                    elif isinstance(effect, Open):
                        if stream is not None:
                            stream.close()
                        stream = self._open(effect.request)
                        lines = stream.iter_lines()
                        outcome = _head(stream)
                    else:
                        self._perform(effect)
                except TransportError as error:  # the flow decides what it means
                    advance = partial(flow.throw, error)
                else:
                    advance = partial(flow.send, outcome)
        finally:
            if stream is not None:
                stream.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _open(self, request: Request) -> httpx.Response:
        _refuse_closed(self._http.is_closed)
        try:
            outgoing = _http_request(self._http, request, None, None)
            answer = self._http.send(outgoing, stream=True)
            if answer.status_code >= 400:
                answer.read()
        except httpx.TransportError as error:
            raise _transport_error(error, self._http) from error
        return answer

    def _next_line(self, lines: Iterator[str]) -> str | None:
        try:
            return next(lines, None)
        except httpx.TransportError as error:
            raise _transport_error(error, self._http) from error

    def _perform(self, effect: Effect) -> Response | None:
        if isinstance(effect, Send):
            return self._send(effect.request)
        if isinstance(effect, Sleep):
            time.sleep(effect.seconds)
        else:
            self._run_all(effect)
        return None

    def _send(self, request: Request) -> Response:
        _refuse_closed(self._http.is_closed)
        try:
            with _content(request) as (content, size):
                outgoing = _http_request(self._http, request, content, size)
                return _response(self._http.send(outgoing))
        except httpx.TransportError as error:
            raise _transport_error(error, self._http) from error

    def _run_all(self, many: InFlight) -> None:
        schedule = Schedule(many.tasks, many.limit)
        running: dict[Future[Any], Task] = {}
        # Leaving the block waits for what is in flight, so that no thread outlives the call.
        with ThreadPoolExecutor(many.limit, thread_name_prefix="closeby-client") as pool:
            while True:
                for task in schedule.startable():
                    running[pool.submit(self.run, task.flow)] = task
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    schedule.finish(running.pop(future))
                    many.on_result(future.result())


class AwaitingDriver:
    """Runs flows on the asyncio event loop; `InFlight` tasks as asyncio tasks."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def run(self, flow: Flow[T]) -> T:
        """Run ``flow`` to its end and return its value."""
        advance: Callable[[], Effect] = partial(next, flow)
        while True:
            try:
                effect = advance()
            except StopIteration as end:
                value: T = end.value
                return value
            try:
                outcome = await self._perform(effect)
            except Exception as error:  # the flow decides what it means
                advance = partial(flow.throw, error)
            else:
                advance = partial(flow.send, outcome)

    async def iterate(self, flow: StreamFlow[T]) -> AsyncIterator[T]:
        """The values that ``flow`` emits, as they come; the stream is closed when nobody asks."""
        advance: Callable[[], Any] = partial(next, flow)
        stream: httpx.Response | None = None
        lines: AsyncIterator[str] | None = None
        try:
            while True:
                try:
                    effect = advance()
                except StopIteration:
                    return
                outcome: Any = None
                try:
                    if isinstance(effect, Emit):
                        yield effect.value
                    elif isinstance(effect, NextLine):
                        outcome = await self._next_line(lines)
                    elif isinstance(effect, Open):
                        if stream is not None:
                            await stream.aclose()
                        stream = await self._open(effect.request)
                        lines = stream.aiter_lines()
                        outcome = _head(stream)
                    else:
                        await self._perform(effect)
                except TransportError as error:  # the flow decides what it means
                    advance = partial(flow.throw, error)
                else:
                    advance = partial(flow.send, outcome)
        finally:
            if stream is not None:
                await stream.aclose()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _open(self, request: Request) -> httpx.Response:
        _refuse_closed(self._http.is_closed)
        try:
            outgoing = _http_request(self._http, request, None, None)
            answer = await self._http.send(outgoing, stream=True)
            if answer.status_code >= 400:
                await answer.aread()
        except httpx.TransportError as error:
            raise _transport_error(error, self._http) from error
        return answer

    async def _next_line(self, lines: AsyncIterator[str] | None) -> str | None:
        try:
            return None if lines is None else await anext(lines, None)
        except httpx.TransportError as error:
            raise _transport_error(error, self._http) from error

    async def _perform(self, effect: Effect) -> Response | None:
        if isinstance(effect, Send):
            return await self._send(effect.request)
        if isinstance(effect, Sleep):
            await asyncio.sleep(effect.seconds)
        else:
            await self._run_all(effect)
        return None

    async def _send(self, request: Request) -> Response:
        _refuse_closed(self._http.is_closed)
        try:
            with _content(request) as (content, size):
                if size is not None:
                    content = _in_threads(cast("Iterator[bytes]", content))
                outgoing = _http_request(self._http, request, content, size)
                return _response(await self._http.send(outgoing))
        except httpx.TransportError as error:
            raise _transport_error(error, self._http) from error

    async def _run_all(self, many: InFlight) -> None:
        schedule = Schedule(many.tasks, many.limit)
        running: dict[asyncio.Task[Any], Task] = {}
        try:
            while True:
                for task in schedule.startable():
                    running[asyncio.create_task(self.run(task.flow))] = task
                if not running:
                    return
                finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for done in finished:
                    schedule.finish(running.pop(done))
                    many.on_result(done.result())
        finally:
            for unfinished in running:
                unfinished.cancel()
            await asyncio.gather(*running, return_exceptions=True)


def _refuse_closed(closed: bool) -> None:
    if closed:
        raise ClientClosedError("this client is closed; make a new one")


Content = bytes | Iterator[bytes] | AsyncIterator[bytes] | None


def _http_request(
    http: httpx.Client | httpx.AsyncClient, request: Request, content: Content, size: int | None
) -> httpx.Request:
    headers = {} if content is None else {"content-type": request.media_type}
    if size is not None:
        headers["content-length"] = str(size)
    return http.build_request(
        request.method,
        request.path,
        content=content,
        params=request.params or None,
        headers=headers,
    )


@contextmanager
def _content(request: Request) -> Iterator[tuple[Content, int | None]]:
    """The body of a request; of a file also its size, which is sent though it should grow."""
    if not isinstance(request.body, Path):
        yield request.body, None
        return
    with request.body.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        yield _parts(file, size, request.sent), size


def _parts(file: BinaryIO, size: int, sent: Callable[[int], object] | None) -> Iterator[bytes]:
    done = 0
    while part := file.read(min(PART_BYTES, size - done)):
        yield part
        done += len(part)
        if sent is not None:
            sent(done)


async def _in_threads(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The same parts, read where they do not keep the event loop waiting."""
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        yield part


def _response(answer: httpx.Response) -> Response:
    return Response(answer.status_code, answer.headers, answer.content)


def _head(answer: httpx.Response) -> Response:
    """An answer that is being streamed; one that is a problem has been read."""
    content = answer.content if answer.status_code >= 400 else b""
    return Response(answer.status_code, answer.headers, content)


def _transport_error(
    error: httpx.TransportError, http: httpx.Client | httpx.AsyncClient
) -> TransportError:
    """The error of httpx as ours, with the URL and what to look at."""
    url = str(http.base_url).rstrip("/")
    cause = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        return ConnectError(
            f"no connection to {url} within {http.timeout.connect:g} s; "
            "is the host right, and reachable from here?"
        )
    if isinstance(error, httpx.ConnectError):
        return ConnectError(f"cannot connect to {url}: {cause}; is `closeby serve` running there?")
    if isinstance(error, httpx.TimeoutException):
        return RequestTimeoutError(
            f"no answer from {url} within {http.timeout.read:g} s; "
            "give the client a longer timeout=, or send less at once (batching=)"
        )
    if isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)):
        return ConnectionLostError(
            f"the connection to {url} broke before the answer came: {cause}; did the server stop?"
        )
    return TransportError(f"no exchange with {url}: {cause}")
