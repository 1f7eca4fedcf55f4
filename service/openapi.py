"""The OpenAPI document: routes tell their shapes with `describe`, `install` adds the schemas."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .problem import MEDIA_TYPE, PROBLEMS
from .schemas import MODELS, ProblemBody, schema_ref

__all__ = ["describe", "install"]

ALWAYS = ("unauthorized", "internal_error", "store_unavailable")
BODY = ("malformed_json", "body_too_large", "unsupported_media_type", "validation_error")


def describe(
    answers: dict[int, type[BaseModel]],
    *,
    body: tuple[type[BaseModel], ...] = (),
    problems: tuple[str, ...] = (),
) -> dict[str, Any]:
    """`openapi_extra` of a route: its JSON body (any of `body`), answers and problem codes."""
    responses: dict[str, Any] = {
        str(status): {
            "description": (model.__doc__ or "").splitlines()[0],
            "content": {"application/json": {"schema": schema_ref(model)}},
        }
        for status, model in answers.items()
    }
    codes: dict[int, list[str]] = {}
    for code in (*problems, *ALWAYS, *(BODY if body else ())):
        codes.setdefault(PROBLEMS[code].status, []).append(code)
    for status, names in sorted(codes.items()):
        responses.setdefault(
            str(status),
            {
                "description": " or ".join(f"`{name}`" for name in sorted(set(names))),
                "content": {MEDIA_TYPE: {"schema": schema_ref(ProblemBody)}},
            },
        )
    extra: dict[str, Any] = {"responses": responses}
    if body:
        refs = [schema_ref(model) for model in body]
        schema: dict[str, Any] = dict(refs[0]) if len(refs) == 1 else {"anyOf": refs}
        extra["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return extra


def install(app: FastAPI) -> None:
    """Make `app.openapi()` give the whole document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
    )
    _, definitions = models_json_schema(
        [(model, "validation") for model in MODELS],
        ref_template="#/components/schemas/{model}",
    )
    components = document.setdefault("components", {})
    components["schemas"] = definitions["$defs"]
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, item in document["paths"].items():
        for operation in item.values():
            _trim(operation, open_to_all=path in ("/healthz", "/readyz"))
    return document


def _trim(operation: dict[str, Any], *, open_to_all: bool) -> None:
    """Drop what the framework assumes and the routes do not do."""
    responses = operation["responses"]
    for status, response in list(responses.items()):
        content = response.get("content", {})
        if content.get("application/json") == {"schema": {}}:
            del content["application/json"]
        if "HTTPValidationError" in str(content):
            del content["application/json"]
            content[MEDIA_TYPE] = {"schema": schema_ref(ProblemBody)}
            response["description"] = "`validation_error`"
        if not content and status != "204":
            del responses[status]
    if not open_to_all:
        # The empty alternative: a server without a key asks for none.
        operation["security"] = [{"bearer": []}, {"key": []}, {}]
