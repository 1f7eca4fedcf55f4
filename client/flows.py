"""Operations without I/O: what is to be done, told to whoever can do it.

A *flow* is a generator. It yields effects and is sent their outcome; its return value is the
operation's. Three effects are enough for the whole client:

=============  ==================================================  ======================
effect         asks the driver to                                  is sent
=============  ==================================================  ======================
`Send`         make one HTTP exchange                              `Response`
`Sleep`        wait                                                None
`InFlight`     run many flows, several at once, in a fair order    None
=============  ==================================================  ======================

So retries, splitting and ordering are written once, are tested without a network, and behave the
same under the blocking driver and the asyncio one (``drivers.py``).

A *stream flow* gives its caller many values instead of one: it may yield `Open`, `NextLine`, `Emit`
and `Sleep`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from .errors import ConnectError, ConnectionLostError, TransportError
from .results import PointId

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """One HTTP request; ``path`` is relative to the client's URL, ``media_type`` the body's.

    A ``Path`` as body is a file, sent as it is read; ``sent`` is told how many bytes were.
    """

    method: str
    path: str
    body: bytes | Path | None = None
    params: Mapping[str, str | int] = field(default_factory=dict)
    media_type: str = "application/json"
    sent: Callable[[int], object] | None = None


@dataclass(frozen=True)
class Response:
    """One HTTP answer, read to its end; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    attempts: int = 1


@dataclass(frozen=True)
class Send:
    """Make one exchange. The driver throws a TransportError into the flow when none came."""

    request: Request


@dataclass(frozen=True)
class Sleep:
    """Wait this many seconds."""

    seconds: float


@dataclass(frozen=True)
class Task:
    """A flow to run among others; ``keys`` are the point ids that it writes."""

    flow: Flow[Any]
    keys: Collection[PointId] = ()


@dataclass(frozen=True)
class InFlight:
    """Run ``tasks``, at most ``limit`` at once; ``on_result`` gets each outcome as it comes.

    ``tasks`` is drawn from only when there is room, so that it may be endless. The first failure
    ends it: no further task is started, and the failure is thrown into the flow.
    """

    tasks: Iterator[Task]
    limit: int
    on_result: Callable[[Any], None]


Effect: TypeAlias = "Send | Sleep | InFlight"
Flow: TypeAlias = "Generator[Effect, Any, T]"


@dataclass(frozen=True)
class Open:
    """Make an exchange whose answer is read line by line; is sent its `Response`.

    That has no content, unless its status is 400 or more: then it is read to its end. The stream
    that was open before is closed. The driver throws a TransportError when no answer came.
    """

    request: Request


@dataclass(frozen=True)
class NextLine:
    """The next line of the open stream, without its end; is sent None after the last one."""


@dataclass(frozen=True)
class Emit(Generic[T]):
    """Hand a value to whoever iterates."""

    value: T


StreamFlow: TypeAlias = "Generator[Open | NextLine | Emit[T] | Sleep, Any, None]"


class Schedule:
    """Which task of an `InFlight` may start now.

    Two tasks that write the same point id never overlap: a task waits until every started task that
    shares one of its keys has finished, and all later tasks wait behind it. So for each id the
    writes reach the server one after the other, in the caller's order, and the last one wins,
    however many requests are in flight.
    """

    def __init__(self, tasks: Iterator[Task], limit: int) -> None:
        self._tasks = tasks
        self._limit = limit
        self._waiting: Task | None = None
        self._running = 0
        self._written: set[PointId] = set()

    def startable(self) -> Iterator[Task]:
        """Draw the tasks that may start now; each counts as running until `finish`."""
        while self._running < self._limit:
            task = self._waiting or next(self._tasks, None)
            if task is None:
                return
            if not self._written.isdisjoint(task.keys):
                self._waiting = task
                return
            self._waiting = None
            self._written.update(task.keys)
            self._running += 1
            yield task

    def finish(self, task: Task) -> None:
        """The task has ended: its keys are free again."""
        self._written.difference_update(task.keys)
        self._running -= 1


@dataclass(frozen=True)
class RetryPolicy:
    """When and how long to wait before the same request is sent again.

    The wait before retry ``n`` (from 1) is drawn between half of and the whole of
    ``first_wait * 2**(n-1)`` seconds, never above ``longest_wait``: clients that failed together do
    not come back together. A ``Retry-After`` from the server is kept to instead; one beyond
    ``longest_asked_wait`` is not waited for, but becomes the error it came with.
    """

    retries: int = 3
    first_wait: float = 0.2
    longest_wait: float = 10.0
    longest_asked_wait: float = 60.0
    draw: Callable[[], float] = random.random

    def backoff(self, attempt: int) -> float:
        """Seconds to wait after the failed ``attempt`` (from 1)."""
        # 2**30 is far above any longest_wait; more would overflow a float.
        whole = min(self.longest_wait, self.first_wait * 2.0 ** min(attempt - 1, 30))
        return whole * (0.5 + 0.5 * self.draw())


RETRIED_STATUSES = frozenset({429, 502, 503, 504})


def exchange(request: Request, policy: RetryPolicy) -> Flow[Response]:
    """Send until an answer comes that is worth having, or the retries are used up.

    Sent again: after a failed or broken connection, and after 429, 502, 503 and 504. Every request
    of this client may be repeated, for an upsert is idempotent by id. Not after a timeout: the
    server may still be at work, and the same work again would only make it slower.
    """
    attempt = 0
    while True:
        attempt += 1
        last = attempt > policy.retries
        try:
            response: Response = yield Send(request)
        except TransportError as error:
            if last or not isinstance(error, (ConnectError, ConnectionLostError)):
                raise
            wait = policy.backoff(attempt)
        else:
            asked = retry_after(response.headers)
            if (
                last
                or response.status not in RETRIED_STATUSES
                or (asked is not None and asked > policy.longest_asked_wait)
            ):
                return replace(response, attempts=attempt)
            wait = policy.backoff(attempt) if asked is None else asked
        yield Sleep(wait)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a ``Retry-After`` header (a number or an HTTP date), or None."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
