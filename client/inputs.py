"""What callers pass, made into rows of JSON: checked, encoded once, counted in bytes.

Each row is encoded on its own, so that a fault can be laid to its row and the size of a request is
known before it is put together (``splitting.py``). Arguments that can be read twice (lists, arrays)
are checked to their end before the first request; generators are checked row by row, as they come.
NumPy is used where the caller's own arrays brought it along; nothing here needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, TypeAlias

from .errors import InvalidInputError
from .results import Point, PointId
from .wire import encode, place


class SupportsArray(Protocol):
    """Anything that NumPy can read: arrays, pandas Series, CPU tensors."""

    def __array__(self) -> Any: ...


class SupportsCsr(Protocol):
    """A scipy sparse matrix or array: a row is a set of column numbers."""

    def tocsr(self) -> Any:
        """The same in compressed rows."""


OneSet: TypeAlias = "Collection[int] | Collection[str] | SupportsArray"
OneVector: TypeAlias = "Collection[float] | SupportsArray"
Ids: TypeAlias = "Iterable[PointId] | SupportsArray"
Texts: TypeAlias = "Iterable[str] | SupportsArray"
Sets: TypeAlias = "Iterable[OneSet] | tuple[SupportsArray, SupportsArray] | SupportsCsr"
Vectors: TypeAlias = "Iterable[OneVector] | SupportsArray"
Payloads: TypeAlias = "Iterable[Mapping[str, Any] | None]"
PointLike: TypeAlias = "Mapping[str, Any] | Point"

#: the input field of a point, and the argument that holds many of them
COLUMNS = {"text": "texts", "sequence": "sequences", "set": "sets", "vector": "vectors"}

_BLOCK = 4096  # rows of an array that are turned into Python objects at once
_LARGEST_ID = 2**63 - 1


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


# --- one value ---------------------------------------------------------------------------------


def one_input(inputs: Mapping[str, Any]) -> tuple[str, bytes]:
    """The one of ``text``, ``sequence``, ``set``, ``vector`` that is given: its name and JSON."""
    name, value = _only(inputs)
    return name, _ENCODERS[name](value, name, None)


def _encode_text(value: Any, field: str, row: int | None) -> bytes:
    _check_text(value, field, row)
    return encode(value, field=field, row=row)


def _check_text(value: Any, field: str, row: int | None) -> None:
    if not isinstance(value, str):
        raise _wrong(field, row, f"must be a string, not {_shown(value)}")


def encoded_vector(value: OneVector, field: str) -> bytes:
    """One vector as JSON."""
    return _encode_vector(value, field, None)


def _encode_vector(value: Any, field: str, row: int | None) -> bytes:
    return encode(_checked_vector(value, field, row), field=field, row=row)


def _check_vector(value: Any, field: str, row: int | None) -> None:
    _checked_vector(value, field, row)


def _checked_vector(value: Any, field: str, row: int | None) -> Any:
    """``value`` as a float32 array or a list of finite numbers."""
    if hasattr(value, "__array__"):
        array = _array(value, field)
        if array.ndim != 1:
            raise _wrong(field, row, f"must have one dimension, not shape {array.shape}")
        return _float32_rows(array[None, :], field, row, single=True)[0]
    if not _is_many(value):
        raise _wrong(field, row, f"must be a list or array of numbers, not {_shown(value)}")
    numbers = value if isinstance(value, list) else list(value)
    try:
        # A sum is finite unless a term is not, or it overflows: one pass in C decides nearly all.
        finite = math.isfinite(sum(numbers))
    except (TypeError, OverflowError):
        finite = False
    if not finite:
        for at, number in enumerate(numbers):
            _check_number(number, at, field, row)
    return numbers


def _check_number(number: Any, at: int, field: str, row: int | None) -> None:
    try:
        finite = math.isfinite(number)
    except TypeError:
        raise _wrong(field, row, f"element {at} is {_shown(number)}, not a number") from None
    except OverflowError:
        finite = False
    if not finite:
        raise _wrong(field, row, f"element {at} is {number}; all must be finite numbers")


def _encode_set(value: Any, field: str, row: int | None) -> bytes:
    return encode(_checked_set(value, field, row), field=field, row=row)


def _check_set(value: Any, field: str, row: int | None) -> None:
    _checked_set(value, field, row)


def _checked_set(value: Any, field: str, row: int | None) -> Any:
    """``value`` as an integer array, or a list of only integers or only strings."""
    if hasattr(value, "__array__"):
        array = _array(value, field)
        if array.ndim != 1 or array.dtype.kind not in "iuUO":
            raise _wrong(
                field,
                row,
                "must have one dimension of integers or strings, "
                f"not shape {array.shape} of {array.dtype}",
            )
        if array.dtype.kind in "iu":
            if array.size and int(array.min()) < 0:
                raise _wrong(field, row, f"element {int(array.min())} is negative")
            return array
        value = array.tolist()
    if not _is_many(value):
        raise _wrong(field, row, f"must be a list, set or array of elements, not {_shown(value)}")
    elements = value if isinstance(value, list) else list(value)
    kinds = set(map(type, elements))
    if not (kinds <= {int} or kinds <= {str}):
        elements = [_element(element, at, field, row) for at, element in enumerate(elements)]
    return elements


def _is_many(value: Any) -> bool:
    """Whether ``value`` holds elements that can be read again: checking must not use them up."""
    return (
        isinstance(value, Iterable)
        and not isinstance(value, Iterator)
        and not isinstance(value, (str, bytes, Mapping))
    )


def _element(element: Any, at: int, field: str, row: int | None) -> int | str:
    if isinstance(element, str):
        return element
    whole = _integer(element)
    if whole is None:
        raise _wrong(field, row, f"element {at} is {_shown(element)}, not an integer or a string")
    return whole


def checked_id(value: Any, field: str = "ids", row: int | None = None) -> PointId:
    """``value`` as a point id: a non-empty string, or an integer 0..2**63-1."""
    if type(value) is int and 0 <= value <= _LARGEST_ID:  # nearly all of them
        return value
    if isinstance(value, str):
        if not value:
            raise _wrong(field, row, "is empty; an id is an integer or a non-empty string")
        return value
    whole = _integer(value)
    if whole is None:
        raise _wrong(field, row, f"must be an integer or a string, not {_shown(value)}")
    if not 0 <= whole <= _LARGEST_ID:
        raise _wrong(field, row, f"is {whole}; an integer id lies between 0 and 2**63-1")
    return whole


def _integer(value: Any) -> int | None:
    """``value`` as a Python int, NumPy's integers included; None for anything else."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    return int(value)


def _encode_payload(value: Any, field: str, row: int | None) -> bytes:
    if value is None:
        return b"null"
    if not isinstance(value, Mapping):
        raise _wrong(field, row, f"must be a dictionary or None, not {_shown(value)}")
    return encode(value if isinstance(value, dict) else dict(value), field=field, row=row)


_ENCODERS: dict[str, Callable[[Any, str, int | None], bytes]] = {
    "text": _encode_text,
    "sequence": _encode_text,
    "set": _encode_set,
    "vector": _encode_vector,
}
_CHECKS: dict[str, Callable[[Any, str, int | None], None]] = {
    "text": _check_text,
    "sequence": _check_text,
    "set": _check_set,
    "vector": _check_vector,
}


# --- many values -------------------------------------------------------------------------------


def query_rows(inputs: Mapping[str, Any]) -> Rows:
    """The rows of a batch query: the one of ``texts``, ``sequences``, ``sets``, ``vectors``."""
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
            _encode_payload(payload, "payloads", row)
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
        payload_json = b"null" if payload is end else _encode_payload(payload, "payloads", position)
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
        raise _wrong("points", None, f"must be a list of points, not {_shown(points)}")
    if _readable_twice(points):
        name = None
        for at, point in enumerate(points):
            _, name, value, payload = _parts(point, at, name)
            with _laid_to_point(at):
                _CHECKS[name](value, f"points[{at}].{name}", None)
                _encode_payload(payload, f"points[{at}].payload", None)
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
                _encode_payload(payload, f"points[{at}].payload", None),
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
        raise _wrong("points", at, f"must be a dictionary or a Point, not {_shown(point)}")
    if "id" not in point:
        raise _wrong("points", at, "has no id")
    unknown = [key for key in point if key not in ("id", "payload") and key not in COLUMNS]
    if unknown:
        raise _wrong(
            "points",
            at,
            f"has an unknown field {unknown[0]!r}; a point has id, payload and one of "
            + ", ".join(COLUMNS),
        )
    with _laid_to_point(at):
        found, value = _only({key: point.get(key) for key in COLUMNS}, f"points[{at}]")
        one_id = checked_id(point["id"], f"points[{at}].id")
    if name is not None and found != name:
        raise _wrong("points", at, f"has a {found}, but the points before it have a {name}")
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
    array = _array(values, name)
    if array.ndim != 2:
        raise _wrong(name, None, f"must have two dimensions (rows, dim), not shape {array.shape}")

    def blocks() -> Iterator[Any]:
        for start in range(0, len(array), _BLOCK):
            yield _float32_rows(array[start : start + _BLOCK], name, start)

    def encoded() -> Iterator[bytes]:
        return (encode(row, field=name) for block in blocks() for row in block)

    def check() -> None:
        for _ in blocks():
            pass

    return _Column(name, len(array), encoded, check)


def _float32_rows(block: Any, field: str, first: int | None, *, single: bool = False) -> Any:
    """``block`` (n, d) as C-contiguous float32, all finite.

    The server computes in float32: rounding here changes no result and halves what is sent.
    """
    import numpy as np

    if block.dtype.kind not in "fiu":
        raise _wrong(field, first if single else None, f"holds {block.dtype}, not numbers")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(block, dtype=np.float32)
    finite = np.isfinite(rows)
    if not finite.all():
        at, column = (int(part) for part in np.argwhere(~finite)[0])
        row = first if single else (first or 0) + at
        raise _wrong(
            field,
            row,
            f"element {column} is {block[at, column]}; all must be finite numbers in float32",
        )
    return rows


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
        _array(part, name) if hasattr(part, "__array__") else part for part in values
    )
    bounds = [_integer(bound) for bound in indptr]
    rising = all(
        low is not None and high is not None and low <= high for low, high in pairwise(bounds)
    )
    if not bounds or bounds[0] != 0 or bounds[-1] != len(indices) or not rising:
        raise _wrong(
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

    def encoded() -> Iterator[bytes]:
        return (_encode_set(one, name, row) for row, one in enumerate(sets()))

    def check() -> None:
        for row, one in enumerate(sets()):
            _check_set(one, name, row)

    return _Column(name, len(indptr) - 1, encoded, check)


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
        raise _wrong(name, None, f"must be a list, not {_shown(values)}; put one row in a list")
    if isinstance(values, (set, frozenset)):
        raise _wrong(name, None, "must have an order, which a set has not; pass a list")
    if hasattr(values, "__array__"):
        array = _array(values, name)
        if array.ndim == 0:
            raise _wrong(name, None, f"must be a list or array, not {_shown(values)}")
        return _array_rows(array)
    if not isinstance(values, Iterable):
        raise _wrong(name, None, f"must be a list, not {_shown(values)}")
    return values


def _array_rows(array: Any) -> Iterator[Any]:
    if array.ndim > 1:
        yield from array
        return
    for start in range(0, len(array), _BLOCK):
        yield from array[start : start + _BLOCK].tolist()


def _array(values: Any, name: str) -> Any:
    """``values``, which has ``__array__``, as a NumPy array."""
    try:
        import numpy as np
    except ImportError:
        raise InvalidInputError(
            f"{name} is an array, but NumPy is not installed; pass lists", field=name
        ) from None
    return np.asarray(values)


def _readable_twice(values: Any) -> bool:
    return isinstance(values, Sized) and not isinstance(values, Iterator)


def _size(values: Any) -> int | None:
    try:
        return len(values)
    except TypeError:  # a generator, or an array without dimensions
        return None


def _wrong(field: str, row: int | None, fault: str) -> InvalidInputError:
    return InvalidInputError(f"{place(field, row)} {fault}", field=field, row=row)


def _shown(value: Any) -> str:
    """A value in an error: its type, and itself when that is short."""
    text = repr(value)
    kind = type(value).__name__
    return f"{kind} {text}" if len(text) <= 40 else kind
