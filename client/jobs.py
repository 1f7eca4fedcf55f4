"""What a client does with jobs: the server's work which outlives the request that asked for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from .answers import api_error, job_info
from .errors import (
    ApiError,
    ConnectError,
    ConnectionLostError,
    InvalidInputError,
    JobFailedError,
    JobTimeoutError,
    RequestTimeoutError,
    UnexpectedAnswerError,
)
from .faces import Operation, Streamed
from .flows import Emit, Flow, NextLine, Open, Request, Sleep, StreamFlow
from .results import JobInfo
from .session import Session
from .wire import decode

ResultFormat: TypeAlias = Literal["ndjson", "parquet"]

FIRST_LOOK, LAST_LOOK = 0.05, 1.0
"""Seconds between two looks at a job that is waited for; each is half as long again."""

JOBS = "/v1/jobs"


class JobOperations:
    """A job of the server: watch it, wait for it, cancel it, fetch what it made."""

    def __init__(self, session: Session, job_id: str) -> None:
        if not isinstance(job_id, str) or job_id in ("", ".", ".."):
            raise InvalidInputError(f"{job_id!r} is no id of a job", field="job_id")
        self._session = session
        self.id = job_id
        self._path = f"{JOBS}/{quote(job_id, safe='')}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r} at {self._session.url})"

    @Operation
    def info(self) -> Flow[JobInfo]:
        """The job as it is now.

        Raises NotFoundError if there is none, or it finished so long ago that it was forgotten.
        """
        return (yield from self._info())

    @Operation
    def wait(
        self,
        *,
        progress: Callable[[JobInfo], object] | None = None,
        timeout: float | None = None,
    ) -> Flow[JobInfo]:
        """The job once it is done; ``progress(info)`` is called whenever something changed.

        Raises JobFailedError if it failed or was cancelled, JobTimeoutError if it is not finished
        within ``timeout`` seconds; it goes on then.
        """
        return (yield from self._finished(progress, timeout))

    @Operation
    def cancel(self) -> Flow[JobInfo]:
        """Ask the server to cancel the job: at once if it waits, at its next step if it runs.

        What it has stored stays. One that is finished stays as it is.
        """
        response = yield from self._session.call("POST", f"{self._path}:cancel")
        return job_info(self._session.read(response, "id", "state"))

    @Operation
    def result(self) -> Flow[dict[str, Any]]:
        """What the job answers once it is done: counts and the like, by its kind.

        Raises JobFailedError if it failed, was cancelled or is not finished.
        """
        info = _done((yield from self._info()))
        return dict(info.result or {})

    @Operation
    def download(self, *, format: ResultFormat = "ndjson") -> Flow[bytes]:  # noqa: A002
        """The file that the job made, as bytes in memory; `rows` reads it row by row.

        Raises NotFoundError if it made none of that format, ConflictError if it is not done.
        """
        return (yield from self._content(format))

    @Streamed
    def events(self) -> StreamFlow[JobInfo]:
        """The job as it goes on, pushed by the server; the last one is finished.

        Goes on after a broken connection.
        """
        failures = 0
        while True:
            try:
                head = yield Open(Request("GET", f"{self._path}/events"))
                if head.status >= 400:
                    raise api_error(head)
                while (line := (yield NextLine())) is not None:
                    if line.startswith("data:"):
                        info = job_info(self._document(line[5:]))
                        failures = 0
                        yield Emit(info)
                        if info.finished:
                            return
                failures += 1  # it ended early: the server is being stopped
            except (ConnectError, ConnectionLostError, RequestTimeoutError, ApiError) as error:
                failures += 1
                lasting = isinstance(error, ApiError) and error.status not in (429, 502, 503, 504)
                if lasting or failures > self._session.retry.retries:
                    raise
            if failures > self._session.retry.retries:
                raise ConnectionLostError(f"the events of job {self.id} broke off")
            yield Sleep(self._session.retry.backoff(failures))

    @Streamed
    def rows(self) -> StreamFlow[dict[str, Any]]:
        """The rows of the file that the job made, read as they come: bounded memory.

        Raises NotFoundError if it made none, ConflictError if the job is not done.
        """
        path, _, params = self._result("ndjson")
        head = yield Open(Request("GET", path, None, params))
        if head.status >= 400:
            raise api_error(head)
        while (line := (yield NextLine())) is not None:
            if line.strip():
                yield Emit(self._document(line))

    def _finished(
        self, progress: Callable[[JobInfo], object] | None, timeout: float | None
    ) -> Flow[JobInfo]:
        """The flow of `wait`, for operations that wait for a job of theirs."""
        shown: JobInfo | None = None
        waited, pause = 0.0, FIRST_LOOK
        while True:
            info = yield from self._info()
            if progress is not None and info != shown:
                progress(info)
            shown = info
            if info.finished:
                return _done(info)
            if timeout is not None and waited >= timeout:
                raise JobTimeoutError(f"job {self.id} is {info.state} after {timeout:g} s")
            yield Sleep(pause)
            waited, pause = waited + pause, min(LAST_LOOK, pause * 1.5)

    def _content(self, format: ResultFormat) -> Flow[bytes]:  # noqa: A002
        """The flow of `download`."""
        response = yield from self._session.call("GET", *self._result(format))
        return response.content

    def _info(self) -> Flow[JobInfo]:
        response = yield from self._session.call("GET", self._path)
        return job_info(self._session.read(response, "id", "state"))

    def _result(self, format: ResultFormat) -> tuple[str, None, Mapping[str, str]]:  # noqa: A002
        return f"{self._path}/result", None, {"format": format}

    def _document(self, text: str) -> dict[str, Any]:
        try:
            document = decode(text.encode())
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise UnexpectedAnswerError(f"{self._session.url} sent {text[:80]!r}, which is no row")
        return document


def _done(info: JobInfo) -> JobInfo:
    if info.state == "done":
        return info
    raise JobFailedError(info)
