from __future__ import annotations

import inspect

import orjson
import pytest
from closeby.index.errors import InvalidInputError
from closeby.service import errors
from closeby.service.errors import FieldError, ServiceError, StartupError, ValidationError
from closeby.service.problem import PROBLEMS, problem_of, problem_response

WIRE_ERRORS = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, ServiceError) and not issubclass(each, StartupError)
]


@pytest.mark.parametrize("kind", WIRE_ERRORS)
def test_every_error_has_a_problem(kind: type[ServiceError]) -> None:
    response = problem_of(kind("why", retry_after=0.2), "id-1")
    assert response is not None
    body = orjson.loads(response.body)
    assert body["code"] == kind.code
    assert body["status"] == response.status_code == PROBLEMS[kind.code].status
    assert body["request_id"] == "id-1"
    assert response.headers["retry-after"] == "1"


def test_every_problem_can_happen() -> None:
    raised = {kind.code for kind in WIRE_ERRORS}
    assert set(PROBLEMS) - raised == {"bad_request"}


def test_the_tree_is_drawn_in_the_docstring() -> None:
    for name, each in inspect.getmembers(errors, inspect.isclass):
        if issubclass(each, ServiceError):
            assert name in (errors.__doc__ or "")


def test_library_errors_are_the_callers_fault_and_others_are_ours() -> None:
    response = problem_of(InvalidInputError("too odd", field="vector"), "id")
    assert response is not None
    assert response.status_code == 422
    assert problem_of(RuntimeError("a defect"), "id") is None


def test_any_text_can_be_shown() -> None:
    error = ValidationError("x" * 10_000, errors=[FieldError("a\ud800", "b\udfff", 3)])
    response = problem_response("validation_error", error.detail, "id", errors=error.errors)
    body = orjson.loads(response.body)
    assert body["errors"] == [{"field": "a?", "message": "b?", "limit": 3}]
    assert len(body["detail"]) == 2000
