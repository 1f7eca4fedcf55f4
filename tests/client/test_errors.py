"""The tree of errors, and how problems of the server find their place in it."""

import copy
import re
from typing import Any

import closeby.client
import pytest
from closeby.client import (
    ApiError,
    ClosebyClientError,
    ConflictError,
    FieldProblem,
    NotFoundError,
    RateLimitedError,
    ServerError,
    TooLargeError,
    UnauthorizedError,
    ValidationError,
    errors,
)
from closeby.client.answers import api_error
from closeby.client.flows import Response
from closeby.client.wire import encode


def answered(status: int, body: Any = b"", **headers: str) -> ApiError:
    content = body if isinstance(body, bytes) else encode(body, field="body")
    return api_error(Response(status, headers, content))


def test_every_error_has_one_root_is_exported_and_is_drawn() -> None:
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    drawn = re.findall(r"(\w+Error)\b", errors.__doc__.split("An :class:")[0])  # type: ignore[union-attr]
    for one in classes:
        assert issubclass(one, ClosebyClientError)
        assert one.__name__ in closeby.client.__all__
        assert one.__name__ in drawn


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthorized", UnauthorizedError),
        (403, "forbidden", UnauthorizedError),
        (404, "collection_not_found", NotFoundError),
        (404, "not_found", NotFoundError),
        (405, "method_not_allowed", ApiError),
        (409, "collection_exists", ConflictError),
        (413, "body_too_large", TooLargeError),
        (400, "malformed_json", ValidationError),
        (400, "bad_request", ValidationError),
        (415, "unsupported_media_type", ValidationError),
        (422, "validation_error", ValidationError),
        (429, "too_many_requests", RateLimitedError),
        (500, "internal_error", ServerError),
        (503, "not_ready", ServerError),
        (503, "store_unavailable", ServerError),
        (418, "collection_not_found", NotFoundError),  # the code counts more than the status
    ],
)
def test_code_and_status_choose_the_class(status: int, code: str, kind: Any) -> None:
    error = answered(status, {"code": code, "detail": "why"})
    assert type(error) is kind
    assert (error.status, error.code, error.detail) == (status, code, "why")
    assert str(error).startswith(f"{status} {code}: why")


def test_all_of_a_problem_is_kept() -> None:
    error = answered(
        422,
        {
            "title": "The request is not valid",
            "code": "validation_error",
            "detail": "limit: must be from 1 to 1000",
            "errors": [
                {"field": "limit", "message": "must be from 1 to 1000", "limit": 1000},
                {"field": "vector", "message": "has 3 dimensions"},
            ],
            "request_id": "r-9",
        },
    )
    assert error.errors == (
        FieldProblem("limit", "must be from 1 to 1000", 1000),
        FieldProblem("vector", "has 3 dimensions", None),
    )
    assert error.request_id == "r-9"
    assert str(error) == (
        "422 validation_error: limit: must be from 1 to 1000; vector: has 3 dimensions "
        "[request r-9]"
    )


def test_a_missing_key_says_how_to_give_it() -> None:
    assert "api_key=" in str(answered(401, {"code": "unauthorized", "detail": "a key is needed"}))


def test_many_faults_are_counted_not_listed() -> None:
    faults = [{"field": f"points[{n}]", "message": f"fault {n}"} for n in range(50)]
    error = answered(422, {"code": "validation_error", "detail": "no", "errors": faults})
    assert len(error.errors) == 50
    assert str(error).endswith("points[4]: fault 4; and 45 more")


@pytest.mark.parametrize(
    "body",
    [b"", b"<h1>Bad gateway</h1>", b"[1]", b"\xff\xfe", {"errors": "no list"}, {"code": None}],
)
def test_problems_that_are_not_closebys(body: Any) -> None:
    error = answered(502, body, **{"retry-after": "5", "x-request-id": "p-1"})
    assert type(error) is ServerError
    assert (error.code, error.retry_after, error.request_id) == ("http_502", 5.0, "p-1")
    assert error.detail


def test_errors_survive_copying_as_between_processes() -> None:
    error = answered(404, {"code": "collection_not_found", "detail": "no collection 'x'"})
    twin = copy.copy(error)
    assert (type(twin), twin.args, vars(twin)) == (type(error), error.args, vars(error))
