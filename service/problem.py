"""How an error looks on the wire: RFC 9457 `application/problem+json`.

Every answer of status 400 or more has this shape; `code` is stable, `title` and `detail` are for
people.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from closeby.index.errors import InvalidInputError
from starlette.responses import Response

from .errors import FieldError, ServiceError

__all__ = ["MEDIA_TYPE", "PROBLEMS", "Problem", "problem_of", "problem_response"]

MEDIA_TYPE = "application/problem+json"
DOCS = "https://github.com/closeby/closeby/blob/main/docs/http.md"


@dataclass(frozen=True, slots=True)
class Problem:
    """The fixed part of a problem: its HTTP status and its title."""

    status: int
    title: str


PROBLEMS: dict[str, Problem] = {
    "malformed_json": Problem(400, "The body is not valid JSON"),
    "bad_request": Problem(400, "The request is not valid HTTP for this endpoint"),
    "unauthorized": Problem(401, "A valid API key is needed"),
    "read_only": Problem(403, "This server only reads"),
    "not_found": Problem(404, "No such path"),
    "collection_not_found": Problem(404, "No such collection"),
    "job_not_found": Problem(404, "No such job"),
    "job_result_not_found": Problem(404, "The job has no such result"),
    "snapshot_not_found": Problem(404, "No such snapshot"),
    "method_not_allowed": Problem(405, "The path does not have this method"),
    "collection_exists": Problem(409, "The collection exists with another configuration"),
    "job_not_finished": Problem(409, "The job is not done"),
    "near_duplicate": Problem(409, "A point is a near-duplicate"),
    "body_too_large": Problem(413, "The body is too large"),
    "unsupported_media_type": Problem(415, "The body is not of a supported media type"),
    "validation_error": Problem(422, "The request is not valid"),
    "import_failed": Problem(422, "The file cannot be imported"),
    "snapshot_damaged": Problem(422, "The snapshot is damaged"),
    "too_many_requests": Problem(429, "Too much work is waiting"),
    "internal_error": Problem(500, "Internal error"),
    "not_ready": Problem(503, "Not ready yet"),
    "shard_unavailable": Problem(503, "A shard of the cluster does not answer"),
    "store_unavailable": Problem(503, "The durable store is unavailable"),
}


REFUSALS = frozenset(
    {
        errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
        errno.ENOSPC, errno.EROFS,
    }
)  # fmt: skip
"""What the operating system cannot do now; it is no defect of ours."""


def problem_response(
    code: str,
    detail: str,
    request_id: str,
    *,
    errors: tuple[FieldError, ...] = (),
    retry_after: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response for `code`, one of `PROBLEMS`."""
    problem = PROBLEMS[code]
    body: dict[str, Any] = {
        "type": f"{DOCS}#{code}",
        "title": problem.title,
        "status": problem.status,
        "code": code,
        "detail": _printable(detail),
        "errors": [_field(error) for error in errors],
        "request_id": request_id,
    }
    response = Response(orjson.dumps(body), problem.status, headers, MEDIA_TYPE)
    if retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    if code == "unauthorized":
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def problem_of(error: Exception, request_id: str) -> Response | None:
    """The response for one of our exceptions, and for what the operating system refuses.

    None for any other (a defect of ours).
    """
    if isinstance(error, ServiceError):
        return problem_response(
            error.code,
            error.detail,
            request_id,
            errors=error.errors,
            retry_after=error.retry_after,
        )
    if isinstance(error, InvalidInputError):
        field = getattr(error, "field", None) or "body"
        return problem_response(
            "validation_error",
            str(error),
            request_id,
            errors=(FieldError(str(field), str(error)),),
        )
    if isinstance(error, OSError) and error.errno in REFUSALS:
        detail = f"the machine cannot do it now: {error.strerror}"
        return problem_response("store_unavailable", detail, request_id, retry_after=5)
    return None


def _field(error: FieldError) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "field": _printable(error.field),
        "message": _printable(error.message),
    }
    if error.limit is not None:
        shown["limit"] = error.limit
    return shown


def _printable(text: str) -> str:
    """`text` without lone surrogates, which no JSON encoder takes, and of bounded length."""
    return text[:2000].encode("utf-8", "replace").decode()
