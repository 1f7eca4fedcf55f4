"""What callers pass, made into rows of JSON: checked, encoded once, counted in bytes.

Each row is encoded on its own, so that a fault can be laid to its row and the size of a request is
known before it is put together (``splitting.py``). Arguments that can be read twice (lists, arrays)
are checked to their end before the first request; generators are checked row by row, as they come.
NumPy is used where the caller's own arrays brought it along; nothing here needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from .errors import InvalidInputError
from .results import Point, PointId
from .sparse_values import OneSparse, SupportsCsr, check_sparse, encode_sparse, rows_of_matrix
from .values import (
    CHECKS,
    ENCODERS,
    OneSet,
    OneVector,
    SupportsArray,
    array_of,
    check_set,
    checked_id,
    encode_payload,
    encode_set,
    float32_rows,
    shown,
    whole_number,
    wrong,
)
from .wire import encode

Ids: TypeAlias = "Iterable[PointId] | SupportsArray"
Texts: TypeAlias = "Iterable[str] | SupportsArray"
Sets: TypeAlias = "Iterable[OneSet] | tuple[SupportsArray, SupportsArray] | SupportsCsr"
Vectors: TypeAlias = "Iterable[OneVector] | SupportsArray"
Sparse: TypeAlias = "Iterable[OneSparse] | SupportsCsr"
Payloads: TypeAlias = "Iterable[Mapping[str, Any] | None]"
PointLike: TypeAlias = "Mapping[str, Any] | Point"

#: the input field of a point, and the argument that holds many of them
COLUMNS = {
    "text": "texts",
    "sequence": "sequences",
    "set": "sets",
    "vector": "vectors",
    "sparse": "sparse",
}
_ENCODERS = ENCODERS | {"sparse": encode_sparse}
_CHECKS = CHECKS | {"sparse": check_sparse}

_BLOCK = 4096  # rows of an array that are turned into Python objects at once


class Row(NamedTuple):
    """One row of a request, encoded. For a query, ``id`` is None and two parts are empty."""

    position: int
    id: PointId | None
    id_json: bytes
    input_json: bytes
    payload_json: bytes

    @property
    def size(self) -> int:
        """Bytes that the row adds to a body, commas included."""
        return len(self.id_json) + len(self.input_json) + len(self.payload_json) + 3


@dataclass(frozen=True)
class Rows:
    """Rows to send: ``column`` is the plural name of their input, ``total`` None if unknown."""

    column: str
    total: int | None
    rows: Iterator[Row]


@dataclass(frozen=True)
class _Column:
    """One argument, ready to be read: ``encoded`` yields the JSON of each row in turn."""

    name: str
    size: int | None
    encoded: Callable[[], Iterator[bytes]]
    check: Callable[[], None]


def one_input(inputs: Mapping[str, Any]) -> tuple[str, bytes]:
    """The input that is given, one of ``COLUMNS``: its name and JSON."""
    name, value = _only(inputs)
    return name, _ENCODERS[name](value, name, None)


def query_rows(inputs: Mapping[str, Any]) -> Rows:
    """The rows of a batch query: the column that is given."""
    column = _input_column(inputs)
    column.check()
    rows = (Row(at, None, b"", part, b"") for at, part in enumerate(column.encoded()))
    return Rows(column.name, column.size, rows)


def id_list(ids: Ids) -> list[PointId]:
    """All ids, checked, as Python values."""
    return [checked_id(value, "ids", row) for row, value in enumerate(_many(ids, "ids"))]


def point_rows(
    ids: Ids | None,
    inputs: Mapping[str, Any],
    payloads: Payloads | None,
    points: Iterable[PointLike] | None,
) -> Rows:
    """The rows of an upsert, from columns or from points; exactly one of the two ways.

    Raises InvalidInputError, at once for what can be read twice, else from the iterator.
    """
    if points is None:
        return _rows_of_columns(ids, inputs, payloads)
    beside = ["ids"] * (ids is not None) + ["payloads"] * (payloads is not None)
    beside += [name for name, value in inputs.items() if value is not None]
    if beside:
        raise InvalidInputError(
            f"points= holds ids, inputs and payloads itself; leave out {', '.join(beside)}",
            field="points",
        )
    return _rows_of_points(points)


def _rows_of_columns(ids: Ids | None, inputs: Mapping[str, Any], payloads: Payloads | None) -> Rows:
    column = _input_column(inputs)
    if ids is None:
        raise InvalidInputError(f"ids= is missing: one id for each of {column.name}", field="ids")
    sizes = {
        name: size
        for name, size in (
            ("ids", _size(ids)),
            (column.name, column.size),
            ("payloads", None if payloads is None else _size(payloads)),
        )
        if size is not None
    }
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise InvalidInputError(f"all columns must be equally long: {told}", field="ids")
    if _readable_twice(ids):
        id_list(ids)
    column.check()
    if payloads is not None and _readable_twice(payloads):
        for row, payload in enumerate(payloads):
            encode_payload(payload, "payloads", row)
    total = next(iter(sizes.values()), None)
    return Rows(column.name, total, _zipped(ids, column, payloads))


def _zipped(ids: Ids, column: _Column, payloads: Payloads | None) -> Iterator[Row]:
    """The columns side by side; their ends must coincide, which generators tell only now."""
    id_values = iter(_many(ids, "ids"))
    encoded = column.encoded()
    payload_values = None if payloads is None else iter(payloads)
    end: Any = object()
    position = 0
    while True:
        one_id = next(id_values, end)
        input_json = next(encoded, end)
        payload = end if payload_values is None else next(payload_values, end)
        ended = [one_id is end, input_json is end]
        ended += [] if payload_values is None else [payload is end]
        if any(ended):
            break
        checked = checked_id(one_id, "ids", position)
        payload_json = b"null" if payload is end else encode_payload(payload, "payloads", position)
        id_json = encode(checked, field="ids", row=position)
        yield Row(position, checked, id_json, input_json, payload_json)
        position += 1
    if not all(ended):
        raise InvalidInputError(
            f"all columns must be equally long: one ended after {position} rows, another goes on",
            field="ids",
            row=position,
        )


def _rows_of_points(points: Iterable[PointLike]) -> Rows:
    if isinstance(points, (str, bytes, Mapping)) or not isinstance(points, Iterable):
        raise wrong("points", None, f"must be a list of points, not {shown(points)}")
    if _readable_twice(points):
        name = None
        for at, point in enumerate(points):
            _, name, value, payload = _parts(point, at, name)
            with _laid_to_point(at):
                _CHECKS[name](value, f"points[{at}].{name}", None)
                encode_payload(payload, f"points[{at}].payload", None)
        return Rows(COLUMNS[name or "text"], _size(points), _encoded_points(iter(points), name))
    # A generator: its first point says which column the others must fill too.
    rest = iter(points)
    first = next(rest, None)
    if first is None:
        return Rows("texts", 0, iter(()))
    name = _parts(first, 0, None)[1]
    return Rows(COLUMNS[name], None, _encoded_points(_chain(first, rest), name))


def _chain(first: PointLike, rest: Iterator[PointLike]) -> Iterator[PointLike]:
    yield first
    yield from rest


def _encoded_points(points: Iterator[PointLike], name: str | None) -> Iterator[Row]:
    for at, point in enumerate(points):
        one_id, name, value, payload = _parts(point, at, name)
        with _laid_to_point(at):
            row = Row(
                at,
                one_id,
                encode(one_id, field=f"points[{at}].id"),
                _ENCODERS[name](value, f"points[{at}].{name}", None),
                encode_payload(payload, f"points[{at}].payload", None),
            )
        yield row


@contextmanager
def _laid_to_point(at: int) -> Iterator[None]:
    """Errors inside name the row ``at`` of ``points``; their message does already."""
    try:
        yield
    except InvalidInputError as error:
        error.field, error.row = "points", at
        raise


def _parts(point: PointLike, at: int, name: str | None) -> tuple[PointId, str, Any, Any]:
    """A point's id, the name and value of its input, its payload; ``name`` is the one expected."""
    if isinstance(point, Point):
        point = {key: part for key, part in vars(point).items() if part is not None}
    if not isinstance(point, Mapping):
        raise wrong("points", at, f"must be a dictionary or a Point, not {shown(point)}")
    if "id" not in point:
        raise wrong("points", at, "has no id")
    unknown = [key for key in point if key not in ("id", "payload") and key not in COLUMNS]
    if unknown:
        raise wrong(
            "points",
            at,
            f"has an unknown field {unknown[0]!r}; a point has id, payload and one of "
            + ", ".join(COLUMNS),
        )
    with _laid_to_point(at):
        found, value = _only({key: point.get(key) for key in COLUMNS}, f"points[{at}]")
        one_id = checked_id(point["id"], f"points[{at}].id")
    if name is not None and found != name:
        raise wrong("points", at, f"has a {found}, but the points before it have a {name}")
    return one_id, found, value, point.get("payload")


def _input_column(inputs: Mapping[str, Any]) -> _Column:
    name, values = _only(inputs)
    kind = next(kind for kind, plural in COLUMNS.items() if plural == name)
    if kind == "vector" and hasattr(values, "__array__"):
        return _vector_array_column(values, name)
    if kind == "set":
        pair = _csr_pair(values, name)
        if pair is not None:
            return _csr_column(*pair, name)
    if kind == "sparse" and hasattr(values, "tocsr"):
        return _column_of(name, *rows_of_matrix(values), encode_sparse, check_sparse)
    _many(values, name)  # refuses what is no collection of rows
    encoder, checker = _ENCODERS[kind], _CHECKS[kind]

    def encoded() -> Iterator[bytes]:
        return (encoder(value, name, row) for row, value in enumerate(_many(values, name)))

    def check() -> None:
        if _readable_twice(values):
            for row, value in enumerate(_many(values, name)):
                checker(value, name, row)

    return _Column(name, _size(values), encoded, check)


def _vector_array_column(values: Any, name: str) -> _Column:
    array = array_of(values, name)
    if array.ndim != 2:
        raise wrong(name, None, f"must have two dimensions (rows, dim), not shape {array.shape}")

    def blocks() -> Iterator[Any]:
        for start in range(0, len(array), _BLOCK):
            yield float32_rows(array[start : start + _BLOCK], name, start)

    def encoded() -> Iterator[bytes]:
        return (encode(row, field=name) for block in blocks() for row in block)

    def check() -> None:
        for _ in blocks():
            pass

    return _Column(name, len(array), encoded, check)


def _csr_pair(values: Any, name: str) -> tuple[Any, Any] | None:
    """``(indptr, indices)`` if ``values`` is a scipy matrix or such a pair, else None."""
    if hasattr(values, "tocsr"):
        matrix = values.tocsr()
        return matrix.indptr, matrix.indices
    if not (isinstance(values, tuple) and len(values) == 2):
        return None
    if not all(isinstance(part, (list, tuple)) or hasattr(part, "__array__") for part in values):
        return None
    indptr, indices = (
        array_of(part, name) if hasattr(part, "__array__") else part for part in values
    )
    bounds = [whole_number(bound) for bound in indptr]
    rising = all(
        low is not None and high is not None and low <= high for low, high in pairwise(bounds)
    )
    if not bounds or bounds[0] != 0 or bounds[-1] != len(indices) or not rising:
        raise wrong(
            name,
            None,
            "is a pair, so it is read as (indptr, indices), but indptr does not rise from 0 to "
            "len(indices); for two sets, pass a list of them",
        )
    return indptr, indices


def _csr_column(indptr: Any, indices: Any, name: str) -> _Column:
    def sets() -> Iterator[Any]:
        for row in range(len(indptr) - 1):
            yield indices[int(indptr[row]) : int(indptr[row + 1])]

    return _column_of(name, len(indptr) - 1, sets, encode_set, check_set)


def _column_of(
    name: str,
    size: int,
    rows: Callable[[], Iterator[Any]],
    encoder: Callable[[Any, str, int | None], bytes],
    checker: Callable[[Any, str, int | None], None],
) -> _Column:
    """A column of rows that are cut out of arrays."""

    def encoded() -> Iterator[bytes]:
        return (encoder(one, name, row) for row, one in enumerate(rows()))

    def check() -> None:
        for row, one in enumerate(rows()):
            checker(one, name, row)

    return _Column(name, size, encoded, check)


# --- reading arguments --------------------------------------------------------------------------


def _only(inputs: Mapping[str, Any], owner: str = "") -> tuple[str, Any]:
    """The one name whose value is given; InvalidInputError for none and for several."""
    given = [name for name, value in inputs.items() if value is not None]
    if len(given) == 1:
        return given[0], inputs[given[0]]
    names = ", ".join(inputs)
    start = f"{owner} has" if owner else "got"
    raise InvalidInputError(
        f"{start} {' and '.join(given) or 'no input'}; give exactly one of {names}",
        field=given[0] if given else next(iter(inputs)),
    )


def _many(values: Any, name: str) -> Iterable[Any]:
    """``values`` as rows of Python objects, arrays in blocks so that memory stays bounded."""
    if isinstance(values, (str, bytes, Mapping)):
        raise wrong(name, None, f"must be a list, not {shown(values)}; put one row in a list")
    if isinstance(values, (set, frozenset)):
        raise wrong(name, None, "must have an order, which a set has not; pass a list")
    if hasattr(values, "__array__"):
        array = array_of(values, name)
        if array.ndim == 0:
            raise wrong(name, None, f"must be a list or array, not {shown(values)}")
        return _array_rows(array)
    if not isinstance(values, Iterable):
        raise wrong(name, None, f"must be a list, not {shown(values)}")
    return values


def _array_rows(array: Any) -> Iterator[Any]:
    if array.ndim > 1:
        yield from array
        return
    for start in range(0, len(array), _BLOCK):
        yield from array[start : start + _BLOCK].tolist()


def _readable_twice(values: Any) -> bool:
    return isinstance(values, Sized) and not isinstance(values, Iterator)


def _size(values: Any) -> int | None:
    try:
        return len(values)
    except TypeError:  # a generator, or an array without dimensions
        return None
