"""Every error that the client raises, as one tree.

::

    ClosebyClientError
    ├── InvalidInputError          (also ValueError)  refused before anything was sent
    ├── ClientClosedError                             used after close()
    ├── JobFailedError                                a job failed or was cancelled
    ├── JobTimeoutError            (also TimeoutError)      a job is not finished in time
    ├── TransportError                                no usable answer came
    │   ├── ConnectError           (also ConnectionError)   nobody answered at the URL
    │   ├── ConnectionLostError    (also ConnectionError)   the connection broke half-way
    │   ├── RequestTimeoutError    (also TimeoutError)      no answer within ``timeout``
    │   └── UnexpectedAnswerError                           an answer, but not closeby's
    └── ApiError                                      the server answered with a problem
        ├── UnauthorizedError      401, 403
        ├── NotFoundError          404
        ├── ConflictError          409
        ├── TooLargeError          413
        ├── ValidationError        400, 415, 422
        ├── RateLimitedError       429
        └── ServerError            5xx

An :class:`ApiError` carries the server's problem document (RFC 9457): branch on ``code``, which is
stable, never on the words of ``detail``.
"""

from __future__ import annotations

from typing import NamedTuple

from .results import JobInfo


class ClosebyClientError(Exception):
    """The root: catches everything that this client raises on purpose."""


class InvalidInputError(ClosebyClientError, ValueError):
    """An argument cannot be sent; nothing of the request that holds it was sent.

    ``field`` is the name of the argument (``"vectors"``); ``row`` the position in it, or None when
    it is not about one row.
    """

    def __init__(self, message: str, *, field: str | None = None, row: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.row = row


class ClientClosedError(ClosebyClientError):
    """The client was used after ``close()`` or outside its ``with`` block."""


class JobFailedError(ClosebyClientError):
    """A job has no result: it failed, was cancelled, or is not finished.

    ``job`` is its `JobInfo`; ``code`` the stable name of what went wrong, or its state.
    """

    def __init__(self, job: JobInfo) -> None:
        error = job.error or {}
        self.job = job
        self.code = str(error.get("code", job.state))
        detail = error.get("detail")
        super().__init__(
            f"job {job.id} ({job.kind}) {'failed' if job.state == 'failed' else f'is {job.state}'}"
            + (f": {self.code}: {detail}" if detail else "")
        )


class JobTimeoutError(ClosebyClientError, TimeoutError):
    """A job was not finished within ``timeout`` seconds; it goes on."""


class TransportError(ClosebyClientError):
    """No usable answer came: the network, not the request, is the cause."""


class ConnectError(TransportError, ConnectionError):
    """No connection could be made: nothing listens there, or the name or certificate is wrong."""


class ConnectionLostError(TransportError, ConnectionError):
    """The connection broke before the whole answer came; a write may or may not be stored."""


class RequestTimeoutError(TransportError, TimeoutError):
    """No answer within ``timeout`` seconds; a write may or may not be stored."""


class UnexpectedAnswerError(TransportError):
    """Something answered, but not as closeby does (a proxy's page, another service)."""


class FieldProblem(NamedTuple):
    """One entry of a problem's ``errors``: what is wrong with one field of the request.

    ``field`` counts rows as the caller does, also when the client had split the call.
    """

    field: str
    message: str
    limit: float | None = None


class ApiError(ClosebyClientError):
    """The server answered with a problem document.

    ``status``      HTTP status
    ``code``        the stable name of the problem, such as ``"collection_not_found"``
    ``detail``      a sentence for people
    ``errors``      tuple of :class:`FieldProblem`, empty when no single field is to blame
    ``request_id``  names this request in the server's log; None when the server gave none
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "unknown",
        detail: str = "",
        errors: tuple[FieldProblem, ...] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.request_id = request_id
        self.retry_after = retry_after


class UnauthorizedError(ApiError):
    """The API key is missing, wrong or not allowed to do this."""


class NotFoundError(ApiError):
    """The collection, the job (or the URL) does not exist."""


class ConflictError(ApiError):
    """The collection exists, with another configuration or against ``exist_ok=False``.

    Or what was asked for does not fit the state of things: a job is not finished, or the server
    only reads.
    """


class ValidationError(ApiError):
    """The request is malformed or holds a value that the server refuses; see ``errors``."""


class TooLargeError(ApiError):
    """The body, or one point, is over the server's limit, which ``detail`` names in bytes."""


class RateLimitedError(ApiError):
    """The server is at its limit; ``retry_after`` is the wait that it asks for, in seconds."""


class ServerError(ApiError):
    """The server failed (5xx); ``request_id`` finds the cause in its log."""


_BY_CODE: dict[str, type[ApiError]] = {
    "unauthorized": UnauthorizedError,
    "read_only": ConflictError,
    "collection_not_found": NotFoundError,
    "job_not_found": NotFoundError,
    "job_result_not_found": NotFoundError,
    "job_not_finished": ConflictError,
    "not_found": NotFoundError,
    "collection_exists": ConflictError,
    "near_duplicate": ConflictError,
    "validation_error": ValidationError,
    "import_failed": ValidationError,
    "malformed_json": ValidationError,
    "unsupported_media_type": ValidationError,
    "body_too_large": TooLargeError,
    "too_many_requests": RateLimitedError,
}

_BY_STATUS: dict[int, type[ApiError]] = {
    400: ValidationError,
    401: UnauthorizedError,
    403: UnauthorizedError,
    404: NotFoundError,
    409: ConflictError,
    413: TooLargeError,
    415: ValidationError,
    422: ValidationError,
    429: RateLimitedError,
}


def api_error_class(status: int, code: str) -> type[ApiError]:
    """The class for a problem: by ``code`` when it is known, else by ``status``."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return ServerError if status >= 500 else ApiError
