"""Strict reading of JSON bodies on the hot routes, and fast writing of their answers.

Every check is explicit, since a validation model takes longer for a 768-float query than the query
itself. A bool is no number, a string is no number, unknown fields are refused by name. Each fault
names its field (`points[3].vector`), the limit, and what would do. The shapes are described for
people and machines in `schemas`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from closeby.index import Featurizer
from closeby.index.errors import InvalidInputError
from closeby.index.json_rows import take_integer_rows

from .errors import BodyTooLargeError, FieldError, MalformedJsonError, ValidationError
from .near_duplicates import POLICIES, OnDuplicate
from .raw_inputs import NUMBERS, checked_inputs, kind_of
from .settings import Settings
from .shard import Answer, Hit, Point, PointBatch, Search
from .store import Durability

__all__ = [
    "PLURALS",
    "QueryRequest",
    "UpsertRequest",
    "check_id",
    "dump_answer",
    "dump_points",
    "parse_delete",
    "parse_ids",
    "parse_json",
    "parse_query",
    "parse_query_batch",
    "parse_upsert",
]

PLURALS = {
    "text": "texts",
    "sequence": "sequences",
    "set": "sets",
    "vector": "vectors",
    "sparse": "sparse",
}
"""Name of a point's input field -> name of the column of many."""

DURABILITIES = {durability.name.lower(): durability for durability in reversed(Durability)}
MAX_INT_ID = 2**63 - 1
_UPSERT_OPTIONS = ("durability", "on_duplicate", "threshold")
_QUERY_OPTIONS = ("limit", "threshold", "target_recall", "with_payload", "filter", "strict")


@dataclass(frozen=True, slots=True)
class UpsertRequest:
    """Points to upsert, and how the body names the input in a row."""

    batch: PointBatch
    path: Callable[[int], str]
    durability: Durability
    on_duplicate: OnDuplicate | None


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """Raw inputs to search for, what is asked, and how the body names the input in a row."""

    inputs: Sequence[Any]
    search: Search
    path: Callable[[int], str]


def parse_json(body: bytes) -> Any:
    """The JSON value. Raises MalformedJsonError which says where the fault is.

    `NaN`, `Infinity`, lone surrogates, and nesting deeper than 1,024 are not JSON here. Of a key
    which is given twice the last one counts.
    """
    if not body:
        raise MalformedJsonError("the body is empty; a JSON object is expected")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedJsonError(
            f"{error.msg} (line {error.lineno}, column {error.colno})"
        ) from error


def parse_upsert(body: bytes, featurizer: Featurizer, settings: Settings) -> UpsertRequest:
    """Points as `{"points": […]}` or as columns `{"ids": […], "texts": […], "payloads": […]}`."""
    found = _object(_parse_sets(body, featurizer))
    name = featurizer.field
    if "points" in found:
        return _upsert_rows(found, name, featurizer, settings)
    return _upsert_columns(found, name, featurizer, settings)


def _parse_sets(body: bytes, featurizer: Featurizer) -> Any:
    """The body, in which a column of integer sets has become a list of arrays, if it can be."""
    column = PLURALS[featurizer.field]
    if column != "sets" or featurizer.element is not int:
        return parse_json(body)
    taken = take_integer_rows(body, column)
    if taken is None:
        return parse_json(body)
    rest, rows = taken
    try:
        found = parse_json(rest)
    except MalformedJsonError:
        return parse_json(body)  # so that it tells of places in what was sent
    found[column] = rows
    return found


def _upsert_rows(
    found: dict[str, Any], name: str, featurizer: Featurizer, settings: Settings
) -> UpsertRequest:
    _refuse_unknown(found, ("points", *_UPSERT_OPTIONS), "")
    points = _list(found["points"], "points", settings.max_points)
    allowed = ("id", name, "payload")
    ids, inputs, payloads = [], [], []
    for row, point in enumerate(points):
        at = f"points[{row}]"
        if type(point) is not dict:
            raise ValidationError.of(at, f"must be an object, not {kind_of(point)}")
        if not point.keys() <= {*allowed}:
            _refuse_unknown(point, allowed, at + ".", featurizer)
        if "id" not in point:
            raise ValidationError.of(f"{at}.id", "is missing")
        if name not in point:
            raise ValidationError.of(
                f"{at}.{name}", f"is missing; this collection holds {_many(name)}"
            )
        ids.append(check_id(point["id"], f"{at}.id", settings))
        inputs.append(point[name])
        payloads.append(_payload(point.get("payload"), f"{at}.payload", settings))

    def path(row: int) -> str:
        return f"points[{row}].{name}"

    checked = checked_inputs(inputs, featurizer, path, settings)
    batch = PointBatch(ids, checked, payloads)
    return UpsertRequest(batch, path, _durability(found), _on_duplicate(found))


def _upsert_columns(
    found: dict[str, Any], name: str, featurizer: Featurizer, settings: Settings
) -> UpsertRequest:
    column = PLURALS[name]
    _refuse_unknown(found, ("ids", column, "payloads", "points", *_UPSERT_OPTIONS), "", featurizer)
    for needed in ("ids", column):
        if needed not in found:
            raise ValidationError.of(
                needed, f'is missing; send {{"points": […]}} or {{"ids": […], "{column}": […]}}'
            )
    ids = [
        check_id(value, f"ids[{row}]", settings)
        for row, value in enumerate(_list(found["ids"], "ids", settings.max_points))
    ]
    inputs = _list(found[column], column, settings.max_points)
    given = found.get("payloads")
    raw = [None] * len(ids) if given is None else _list(given, "payloads", settings.max_points)
    for label, values in ((column, inputs), ("payloads", raw)):
        if len(values) != len(ids):
            raise ValidationError.of(label, f"has {len(values)} values for {len(ids)} ids")
    payloads = [_payload(value, f"payloads[{row}]", settings) for row, value in enumerate(raw)]

    def path(row: int) -> str:
        return f"{column}[{row}]"

    checked = checked_inputs(inputs, featurizer, path, settings)
    batch = PointBatch(ids, checked, payloads)
    return UpsertRequest(batch, path, _durability(found), _on_duplicate(found))


def _on_duplicate(found: dict[str, Any]) -> OnDuplicate | None:
    """What to do with near-duplicates, from which similarity on; None: they are not looked for."""
    wanted = found.get("on_duplicate")
    threshold = _number(found.get("threshold"), "threshold", 0.0, 1.0)
    if wanted is None:
        if threshold is not None:
            raise ValidationError.of("threshold", "belongs to on_duplicate, which is missing")
        return None
    if wanted not in POLICIES:
        raise ValidationError.of("on_duplicate", f"must be one of {', '.join(POLICIES)}")
    if not threshold:
        raise ValidationError.of(
            "threshold", "is needed with on_duplicate: the least similarity, above 0", 1
        )
    return OnDuplicate(wanted, threshold)


def parse_ids(body: bytes, settings: Settings) -> list[int | str]:
    """The ids of a get or delete."""
    found = _object(parse_json(body))
    _refuse_unknown(found, ("ids",), "")
    return _ids(found, settings)


def parse_delete(body: bytes, settings: Settings) -> tuple[list[int | str], Durability]:
    """The ids of a delete, and when it is acknowledged."""
    found = _object(parse_json(body))
    _refuse_unknown(found, ("ids", "durability"), "")
    return _ids(found, settings), _durability(found)


def _ids(found: dict[str, Any], settings: Settings) -> list[int | str]:
    if "ids" not in found:
        raise ValidationError.of("ids", 'is missing; send {"ids": […]}')
    values = _list(found["ids"], "ids", settings.max_points)
    return [check_id(value, f"ids[{row}]", settings) for row, value in enumerate(values)]


def _durability(found: dict[str, Any]) -> Durability:
    wanted = found.get("durability", "fsync")
    if not isinstance(wanted, str) or wanted not in DURABILITIES:
        raise ValidationError.of("durability", f"must be one of {', '.join(DURABILITIES)}")
    return DURABILITIES[wanted]


def parse_query(
    body: bytes, featurizer: Featurizer, metric: str, settings: Settings
) -> QueryRequest:
    """One query: the raw input under the collection's field name, and options."""
    found = _object(parse_json(body))
    name = featurizer.field
    _refuse_unknown(found, (name, *_QUERY_OPTIONS), "", featurizer)
    if name not in found:
        raise ValidationError.of(name, f"is missing; this collection holds {_many(name)}")

    def path(_row: int) -> str:
        return name

    inputs = checked_inputs([found[name]], featurizer, path, settings)
    return QueryRequest(inputs, _search(found, metric, settings), path)


def parse_query_batch(
    body: bytes, featurizer: Featurizer, metric: str, settings: Settings
) -> QueryRequest:
    """Many queries with the same options."""
    found = _object(parse_json(body))
    column = PLURALS[featurizer.field]
    _refuse_unknown(found, (column, *_QUERY_OPTIONS), "", featurizer)
    if column not in found:
        raise ValidationError.of(column, f'is missing; send {{"{column}": […]}}')
    values = _list(found[column], column, settings.max_queries)

    def path(row: int) -> str:
        return f"{column}[{row}]"

    inputs = checked_inputs(values, featurizer, path, settings)
    return QueryRequest(inputs, _search(found, metric, settings), path)


def at_path(error: InvalidInputError, path: Callable[[int], str]) -> ValidationError:
    """A fault found by featuriser or engine, under the name which the body has for its place."""
    row = error.row
    if row is None:
        return ValidationError.of(error.field or "body", str(error), error.limit)
    return ValidationError.of(path(row), str(error), error.limit)


# --- answers ----------------------------------------------------------------------------------


def dump_answer(answer: Answer, took_ms: float, *, single: bool) -> bytes:
    """A query's answer as JSON; payloads go through as the bytes they were stored as."""
    body: dict[str, Any]
    if single:
        body = {"hits": _hits(answer.hits[0])}
    else:
        body = {"results": [{"hits": _hits(hits)} for hits in answer.hits]}
    body["recall_estimate"] = answer.recall_estimate
    body["took_ms"] = round(took_ms, 3)
    if answer.estimated:
        body["estimated"] = True
    if answer.shards is not None:
        answered, total = answer.shards
        body["partial"] = answered < total
        body["shards"] = {"answered": answered, "total": total}
    return orjson.dumps(body)


def dump_points(points: Sequence[Point], missing: Sequence[int | str], field: str) -> bytes:
    """Stored points as JSON; without the input where it is not kept."""
    shown = [
        {"id": point.id}
        | ({} if point.value is None else {field: point.value})
        | {"payload": _fragment(point.payload)}
        for point in points
    ]
    return orjson.dumps({"points": shown, "missing": missing})


def _hits(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    # Scores are float32: more than seven decimals would be noise.
    return [
        {"id": hit.id, "score": round(hit.score, 7), "payload": _fragment(hit.payload)}
        for hit in hits
    ]


def _fragment(payload: bytes | None) -> orjson.Fragment | None:
    return None if payload is None else orjson.Fragment(payload)


def _many(field: str) -> str:
    """Points that have this input, in words."""
    return "sparse vectors" if field == "sparse" else PLURALS[field]


# --- single values ----------------------------------------------------------------------------


def _object(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValidationError.of("body", f"must be a JSON object, not {kind_of(value)}")
    return value


def _list(value: Any, path: str, most: int) -> list[Any]:
    if type(value) is not list:
        raise ValidationError.of(path, f"must be a list, not {kind_of(value)}")
    if not value:
        raise ValidationError.of(path, "is empty; give at least one")
    if len(value) > most:
        raise ValidationError.of(
            path, f"has {len(value)} items, the limit is {most}; send several requests", most
        )
    return value


def _refuse_unknown(
    found: dict[str, Any],
    allowed: Sequence[str],
    at: str,
    featurizer: Featurizer | None = None,
) -> None:
    unknown = [key for key in found if key not in allowed]
    if not unknown:
        return
    errors = []
    for key in unknown[:10]:
        singular = next((one for one, many in PLURALS.items() if key in (one, many)), None)
        if featurizer is not None and singular is not None and singular != featurizer.field:
            hint = f"this collection holds {_many(featurizer.field)}, not {_many(singular)}"
        elif featurizer is not None and singular is not None:
            hint = "does not belong here"
        else:
            hint = "is not a field of this request"
        shown = [name for name in allowed if name != "filter"]
        message = f"{hint}; known are {', '.join(shown)}"
        errors.append(FieldError(at + key[:100], message))
    raise ValidationError(f"{errors[0].field}: {errors[0].message}", errors=errors)


def check_id(value: Any, path: str, settings: Settings) -> int | str:
    """`value` as an id of a point. Raises ValidationError."""
    if type(value) is int:
        if 0 <= value <= MAX_INT_ID:
            return value
        raise ValidationError.of(path, f"must be from 0 to {MAX_INT_ID}", MAX_INT_ID)
    if type(value) is not str:
        hint = " (or one beyond 64 bits)" if type(value) is float else ""
        raise ValidationError.of(
            path, f"must be a whole number or a string, not {kind_of(value)}{hint}"
        )
    if not value:
        raise ValidationError.of(path, "is empty; an id has at least one character")
    most = settings.max_id_bytes
    size = len(value) if len(value) > most else len(value.encode())
    if size > most:
        raise ValidationError.of(
            path, f"has {size} bytes or more, the limit is {most} bytes of UTF-8", most
        )
    return value


def _payload(value: Any, path: str, settings: Settings) -> bytes | None:
    if value is None:
        return None
    if type(value) is not dict:
        raise ValidationError.of(path, f"must be an object or null, not {kind_of(value)}")
    try:
        encoded = orjson.dumps(value)
    except TypeError as error:
        raise ValidationError.of(path, "is nested too deeply; 250 levels will do", 250) from error
    most = settings.max_payload_bytes
    if len(encoded) > most:
        raise ValidationError.of(
            path, f"has {len(encoded)} bytes as compact JSON, the limit is {most}", most
        )
    return encoded


def _search(found: dict[str, Any], metric: str, settings: Settings) -> Search:
    if found.get("filter") is not None:
        raise ValidationError.of(
            "filter", "is not supported yet; leave it out and filter the hits by their payload"
        )
    limit = found.get("limit", 10)
    if type(limit) is not int:
        raise ValidationError.of("limit", f"must be a whole number, not {kind_of(limit)}")
    if not 1 <= limit <= settings.max_limit:
        raise ValidationError.of(
            "limit", f"must be from 1 to {settings.max_limit}, not {limit}", settings.max_limit
        )
    with_payload = _flag(found, "with_payload", True)
    strict = _flag(found, "strict", False)
    least = {"jaccard": 0.0, "cosine": -1.0}.get(metric, -math.inf)
    most = math.inf if metric == "ip" else 1.0
    target = _number(found.get("target_recall"), "target_recall", 0.0, 1.0)
    if target == 0.0:
        raise ValidationError.of("target_recall", "must be greater than 0")
    return Search(
        limit=limit,
        threshold=_number(found.get("threshold"), "threshold", least, most),
        target_recall=target,
        with_payload=with_payload,
        strict=strict,
    )


def _flag(found: dict[str, Any], path: str, default: bool) -> bool:
    value = found.get(path, default)
    if type(value) is not bool:
        raise ValidationError.of(path, f"must be true or false, not {kind_of(value)}")
    return value


def _number(value: Any, path: str, least: float, most: float) -> float | None:
    if value is None:
        return None
    if type(value) not in NUMBERS:
        raise ValidationError.of(path, f"must be a number, not {kind_of(value)}")
    if not least <= value <= most:
        raise ValidationError.of(path, f"must be from {least:g} to {most:g}, not {value:g}", most)
    return float(value)


def too_large(limit: int) -> BodyTooLargeError:
    """The error for a body of more than `limit` bytes."""
    return BodyTooLargeError(
        f"the body has more than {limit} bytes; send several smaller requests",
        errors=[FieldError("body", f"the limit is {limit} bytes", limit)],
    )
