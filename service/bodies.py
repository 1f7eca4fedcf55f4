"""JSON bodies of the cold routes: checked by a model, faults told field by field."""

from __future__ import annotations

from typing import Any, TypeVar

import pydantic

from .errors import FieldError, ValidationError
from .wire import parse_json

__all__ = ["read_body", "read_model"]

M = TypeVar("M", bound=pydantic.BaseModel)


def read_body(body: bytes, model: type[M]) -> M:
    """The body as `model`. Raises MalformedJsonError, ValidationError."""
    return read_model(parse_json(body), model)


def read_model(found: Any, model: type[M]) -> M:
    """A JSON value as `model`. Raises ValidationError."""
    try:
        return model.model_validate(found)
    except pydantic.ValidationError as error:
        raise _explain(error, model) from error


def _explain(error: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> ValidationError:
    faults = []
    for fault in error.errors(include_url=False, include_input=False):
        message = fault["msg"]
        if fault["type"] == "extra_forbidden":
            message = f"is not a field of this request; known are {', '.join(model.model_fields)}"
        bounds = [fault.get("ctx", {}).get(name) for name in ("le", "lt", "ge", "gt")]
        limit = next((bound for bound in bounds if isinstance(bound, (int, float))), None)
        name = ".".join(str(part) for part in fault["loc"]) or "body"
        faults.append(FieldError(name, message, limit))
    return ValidationError(f"{faults[0].field}: {faults[0].message}", errors=faults[:20])
