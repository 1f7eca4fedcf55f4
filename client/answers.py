"""Answers to objects: the JSON of good ones to results, of problems to errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import ApiError, FieldProblem, TooLargeError, api_error_class
from .flows import Response, retry_after
from .inputs import Row
from .results import (
    CollectionConfig,
    CollectionInfo,
    Duplicate,
    Hit,
    JobInfo,
    JobProgress,
    Point,
    QueryResult,
    Snapshot,
)
from .wire import decode


def hits(answer: Mapping[str, Any]) -> list[Hit]:
    """The hits of one answer."""
    return [Hit(hit["id"], hit["score"], hit.get("payload")) for hit in answer["hits"]]


def shared_results(answer: Mapping[str, Any], queries: int) -> list[QueryResult]:
    """The results of one batch request; its time is shared out evenly."""
    share = answer["took_ms"] / queries
    recall = answer.get("recall_estimate")
    estimated = bool(answer.get("estimated", False))
    return [
        QueryResult(hits(one), share, one.get("recall_estimate", recall), estimated)
        for one in answer["results"]
    ]


def duplicates_of(answer: Mapping[str, Any]) -> list[Duplicate]:
    """What the points of an upsert duplicate; empty where that was not asked for."""
    return [
        Duplicate(one["id"], one["duplicate_of"], one["score"])
        for one in answer.get("duplicates") or []
    ]


def point(document: Mapping[str, Any]) -> Point:
    """A stored point."""
    return Point(
        document["id"],
        document.get("payload"),
        document.get("text"),
        document.get("sequence"),
        document.get("set"),
        document.get("vector"),
        document.get("sparse"),
    )


def collection_info(document: Mapping[str, Any]) -> CollectionInfo:
    """A collection: its configuration apart from its state."""
    known = CollectionConfig.__annotations__
    config: Any = {key: value for key, value in document.items() if key in known}
    return CollectionInfo(
        document["name"],
        document["count"],
        config,
        document.get("ready", True),
        document.get("created_at"),
        document.get("index_stats") or {},
    )


def snapshot_of(document: Mapping[str, Any]) -> Snapshot:
    """A snapshot."""
    config: Any = document.get("config") or {}
    return Snapshot(
        document["name"],
        document["collection"],
        document["points"],
        document["bytes"],
        document["created_at"],
        config,
    )


def job_info(document: Mapping[str, Any]) -> JobInfo:
    """A job."""
    progress = document.get("progress") or {}
    known = {key: value for key, value in progress.items() if key in JobProgress._fields}
    return JobInfo(
        document["id"],
        document.get("kind", ""),
        document.get("collection"),
        document["state"],
        JobProgress(**known),
        document.get("params") or {},
        document.get("result"),
        document.get("error"),
        document.get("errors") or [],
        document.get("created_at"),
        document.get("started_at"),
        document.get("finished_at"),
    )


def api_error(response: Response) -> ApiError:
    """The error of a problem document; of any other page, what can be said of it."""
    try:
        problem = decode(response.content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    code = str(problem.get("code") or f"http_{response.status}")
    text = response.content[:200].decode("utf-8", "replace").strip()
    detail = str(problem.get("detail") or problem.get("title") or text or "no detail given")
    entries = problem.get("errors")
    errors = tuple(
        FieldProblem(str(one.get("field", "")), str(one.get("message", "")), one.get("limit"))
        for one in (entries if isinstance(entries, list) else [])
        if isinstance(one, dict)
    )
    return _new_api_error(
        response.status,
        code,
        detail,
        errors,
        problem.get("request_id") or response.headers.get("x-request-id"),
        retry_after(response.headers),
    )


def _new_api_error(
    status: int,
    code: str,
    detail: str,
    errors: tuple[FieldProblem, ...],
    request_id: str | None,
    wait: float | None,
) -> ApiError:
    message = f"{status} {code}: {detail}"
    for one in errors[:5]:
        if one.message not in detail or one.field not in detail:
            message += f"; {one.field}: {one.message}"
    if len(errors) > 5:
        message += f"; and {len(errors) - 5} more"
    if code == "unauthorized":
        message += "; pass api_key= to the client"
    if request_id:
        message += f" [request {request_id}]"
    return api_error_class(status, code)(
        message,
        status=status,
        code=code,
        detail=detail,
        errors=errors,
        request_id=request_id,
        retry_after=wait,
    )


def too_many_rows(error: ApiError, rows: int) -> bool:
    """Whether the problem is the size of the request or the number of its ``rows``.

    The server's limits are its operator's choice and may be below ours.
    """
    return isinstance(error, TooLargeError) or any(
        one.field in _COLUMNS and one.limit is not None and one.limit < rows for one in error.errors
    )


_COLUMNS = ("ids", "texts", "sequences", "sets", "vectors", "payloads", "points")
_ROW_IN_FIELD = re.compile(rf"^({'|'.join(_COLUMNS)})\[(\d+)\]")


def counted_from_caller(error: ApiError, rows: list[Row]) -> ApiError:
    """The same error with rows counted as in the caller's arguments, not as in one request."""

    def renumbered(text: str) -> str:
        match = _ROW_IN_FIELD.match(text)
        if match is None or int(match[2]) >= len(rows):
            return text
        return f"{match[1]}[{rows[int(match[2])].position}]{text[match.end() :]}"

    errors = tuple(one._replace(field=renumbered(one.field)) for one in error.errors)
    return _new_api_error(
        error.status,
        error.code,
        renumbered(error.detail),
        errors,
        error.request_id,
        error.retry_after,
    )
