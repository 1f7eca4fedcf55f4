"""Tables of Arrow columns to rows: what Parquet and Arrow files share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .confinement import confined
from .errors import WrongFormatError
from .points import Field, PointBatch, Row, collect, or_damage
from .report import Report
from .source import Source
from .values import REFUSALS

NAMES: tuple[Field, ...] = ("text", "sequence", "set", "vector")
_NOT_UTF8 = object()  # in place of a string that is none


@dataclass(frozen=True, slots=True)
class Table(ABC):
    """Columns of a table to points.

    column: the column that makes the point; None takes the first of ``text``, ``sequence``,
        ``set`` and ``vector`` that there is.
    field: which of these it is; None goes by the column's name, else by its type: strings are
        text, lists of integers or strings a set, lists of floats a vector.
    id: the column with the ids, integers or strings; None, or where there is no column ``id``,
        takes the number of the row, from 0.
    payload: the columns that go into the payload; None takes all others that JSON can hold.
        Times and decimals become strings; nulls are left out.

    A row with a null or unusable value, or without an id, is a bad row; its "line" is its number
    from 1.
    """

    name: ClassVar[str]
    package: ClassVar[str] = "pyarrow"

    column: str | None = None
    field: Field | None = None
    id: str | None = "id"
    payload: tuple[str, ...] | None = None

    def batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """The rows that have a value."""
        return confined(self, source, report, size)

    @abstractmethod
    def read(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """See `ConfinedFormat`."""

    def _points(
        self,
        tables: Iterable[tuple[int, Any]],
        columns: Columns,
        source: Source,
        report: Report,
        size: int,
    ) -> Iterator[PointBatch]:
        """Batches of record batches, each with the number (from 0) of its first row."""
        # pyarrow raises nearly anything, so no narrower class would do.
        rows = or_damage(_rows(tables, columns, source.limits.record), report, (Exception,))
        return collect(rows, columns.field, report, size, given_ids=columns.id is not None)

    def chosen(self, source: Source, schema: Any) -> Columns:
        """The columns of a schema; WrongFormatError if it lacks one or one is of no use."""
        names = list(schema.names)
        if len(set(names)) < len(names):
            raise WrongFormatError(source.path, "has two columns of one name")
        value = self.column or next((name for name in NAMES if name in names), None)
        if value is None or value not in names:
            wanted = self.column or ", ".join(NAMES)
            raise WrongFormatError(source.path, f"has no column {wanted}; it has {_listed(names)}")
        found = self.field or _field(value, schema.field(value).type)
        if found is None or not _holds(schema.field(value).type, found):
            kind = schema.field(value).type
            raise WrongFormatError(source.path, f"its column {value!r} of {kind} is no {found}")
        if self.id not in (None, "id") and self.id not in names:
            raise WrongFormatError(source.path, f"has no column {self.id}; it has {_listed(names)}")
        ids = self.id if self.id in names else None
        if ids is not None and not _is_id(schema.field(ids).type):
            kind = schema.field(ids).type
            raise WrongFormatError(source.path, f"its ids are {kind}, not integers or strings")
        return Columns(value, found, ids, self._payload(source, schema, {value, ids}))

    def _payload(self, source: Source, schema: Any, taken: set[str | None]) -> tuple[str, ...]:
        if self.payload is None:
            others = (name for name in schema.names if name not in taken)
            return tuple(name for name in others if _is_json(schema.field(name).type))
        for name in self.payload:
            if name not in schema.names:
                raise WrongFormatError(source.path, f"has no column {name}")
            if not _is_json(schema.field(name).type):
                kind = schema.field(name).type
                raise WrongFormatError(source.path, f"its column {name!r} of {kind} is no payload")
        return self.payload


class Columns(NamedTuple):
    """Which columns make the points; `id` None counts the rows."""

    value: str
    field: Field
    id: str | None
    payload: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        """The columns that are read, each once."""
        ids = () if self.id is None else (self.id,)
        return list(dict.fromkeys((self.value, *ids, *self.payload)))


def use_plain_memory() -> None:
    """Let pyarrow take memory where a bound on it is an error and not the end."""
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    pa.set_cpu_count(1)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


# --- types ---------------------------------------------------------------------------------------


def _is_string(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_id(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind)) or _is_string(kind)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _field(name: str, kind: Any) -> Field | None:
    from pyarrow import types

    if name in NAMES:
        return next(field for field in NAMES if field == name)
    if _is_string(kind):
        return "text"
    if not _is_list(kind):
        return None
    return "vector" if types.is_floating(kind.value_type) else "set"


def _holds(kind: Any, field: Field) -> bool:
    from pyarrow import types

    if field in ("text", "sequence"):
        return _is_string(kind)
    if field == "sparse" or not _is_list(kind):
        return False
    item = kind.value_type
    if field == "set":
        return bool(types.is_integer(item)) or _is_string(item)
    return bool(types.is_integer(item) or types.is_floating(item))


def _is_json(kind: Any) -> bool:
    """Whether its values can go into a payload: times and decimals as strings, only outside."""
    from pyarrow import types

    if types.is_temporal(kind) or types.is_decimal(kind):
        return not types.is_interval(kind)
    return _is_plain(kind)


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    if _is_list(kind):
        return _is_plain(kind.value_type)
    return _is_string(kind) or bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )


# --- values --------------------------------------------------------------------------------------


def _rows(tables: Iterable[tuple[int, Any]], columns: Columns, record: int) -> Iterator[Row]:
    for first, table in tables:
        count = table.num_rows
        names = table.schema.names
        read = {
            name: _checked(table.column(names.index(name))) for name in columns.all if name in names
        }
        ids = list(range(first, first + count)) if columns.id is None else _items(read[columns.id])
        if columns.value not in read:  # rows that an earlier reading gave: only their ids matter
            for i in range(count):
                yield Row(first + i + 1, _known_id(ids[i]), None, None)
            continue
        values = _values(read[columns.value], columns.field, record)
        payloads = [(name, _items(_as_json(read[name]))) for name in columns.payload]
        for i in range(count):
            value, refusal = next(values)
            if refusal is not None:
                refusal = f"its {columns.value!r} {refusal}"
            elif ids[i] is None or ids[i] is _NOT_UTF8:
                refusal = "has no id that is one"
            payload = {name: items[i] for name, items in payloads if items[i] is not None}
            if refusal is None and _NOT_UTF8 in payload.values():
                refusal = "has a payload that is not UTF-8"
            yield Row(first + i + 1, _known_id(ids[i]), value, payload or None, refusal)


def _known_id(point_id: Any) -> int | str:
    """The id; for a row without one, one that no row can have."""
    return -1 if point_id is None or point_id is _NOT_UTF8 else point_id


def _checked(array: Any) -> Any:
    """The array after a look at its offsets and numbers; strings as bytes, whatever they hold."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(array.type):
        array.validate(full=True)
        array = array.dictionary_decode()
    if types.is_string_view(array.type):
        array.validate()
    if _is_string(array.type):
        large = types.is_large_string(array.type)
        array = array.cast(pa.large_binary() if large else pa.binary())
    array.validate(full=True)
    return array


def _as_json(array: Any) -> Any:
    import pyarrow as pa
    from pyarrow import types

    if types.is_temporal(array.type) or types.is_decimal(array.type):
        return array.cast(pa.string())
    return array


def _items(array: Any) -> list[Any]:
    """Python values of a column; bytes become strings, or `_NOT_UTF8`."""
    values: list[Any] = array.to_pylist()
    if any(isinstance(value, bytes) for value in values):
        return [_decoded(value) if isinstance(value, bytes) else value for value in values]
    return values


def _decoded(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _NOT_UTF8


def _values(array: Any, field: Field, record: int) -> Iterator[tuple[Any, str | None]]:
    """Each value, and why it cannot be a point's."""
    if field in ("text", "sequence"):
        for text in _items(array):
            if text is _NOT_UTF8:
                yield None, "is not UTF-8"
            elif isinstance(text, str) and len(text) > record:
                yield None, f"is longer than {record} characters"
            else:
                yield text, REFUSALS[field](text)
        return
    for value, sound in _lists(array, field, record):
        yield value, None if sound else REFUSALS[field](value)


def _lists(array: Any, field: Field, record: int) -> Iterator[tuple[Any, bool]]:
    """Each list, and whether it is known to be sound; None for a null or one over the limit."""
    import pyarrow.compute as pc
    from pyarrow import types

    lengths = pc.fill_null(pc.list_value_length(array), 0).to_pylist()
    elements = array.flatten()
    sound = False
    if types.is_integer(elements.type) or types.is_floating(elements.type):
        if elements.null_count == 0:
            numbers = elements.to_numpy(zero_copy_only=False)
            good = np.isfinite(numbers) if field == "vector" else numbers >= 0
            sound = bool(good.all())
        if field == "vector" and not types.is_floating(elements.type):
            elements = elements.cast("float64")
    flat = elements.to_numpy(zero_copy_only=False).tolist() if sound else elements.to_pylist()
    nulls = array.is_null().to_pylist()
    for null, (start, stop) in zip(nulls, pairwise(accumulate(lengths, initial=0)), strict=True):
        if null or 8 * (stop - start) > record:
            yield None, False
        else:
            yield flat[start:stop], sound and stop > start
