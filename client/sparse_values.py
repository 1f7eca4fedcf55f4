"""Sparse vectors that a caller passes, checked and encoded: pairs, dictionaries, scipy's rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from .values import SupportsArray, array_of, finite_numbers, shown, whole_number, wrong
from .wire import encode


class SupportsCsr(Protocol):
    """A scipy sparse matrix or array; its rows are sparse vectors, or sets of column numbers."""

    def tocsr(self) -> Any:
        """The same in compressed rows."""


OneSparse: TypeAlias = (
    "tuple[Collection[int] | SupportsArray, Collection[float] | SupportsArray]"
    " | Mapping[int, float] | Mapping[str, Any] | SupportsCsr"
)
"""``(indices, values)``, ``{index: value}``, the form that the server gives, or a scipy row."""


def encode_sparse(value: Any, field: str, row: int | None) -> bytes:
    """One sparse vector as JSON."""
    indices, values = _checked(value, field, row)
    return encode({"indices": indices, "values": values}, field=field, row=row)


def check_sparse(value: Any, field: str, row: int | None) -> None:
    """Raise InvalidInputError if it is no sparse vector."""
    _checked(value, field, row)


def rows_of_matrix(values: Any) -> tuple[int, Callable[[], Iterator[Any]]]:
    """How many rows a scipy matrix has, and these as pairs of arrays."""
    matrix = values.tocsr()
    if not getattr(matrix, "has_canonical_format", True):
        matrix = matrix.copy()
        matrix.sum_duplicates()

    def rows() -> Iterator[Any]:
        bounds = matrix.indptr
        for row in range(len(bounds) - 1):
            part = slice(int(bounds[row]), int(bounds[row + 1]))
            yield matrix.indices[part], matrix.data[part]

    return len(matrix.indptr) - 1, rows


def _checked(value: Any, field: str, row: int | None) -> tuple[Any, Any]:
    """Indices and values of one length: arrays, or lists of numbers."""
    given_indices, given_values = _parts(value, field, row)
    indices = _indices(given_indices, field, row)
    values = finite_numbers(given_values, field, row)
    if len(indices) != len(values):
        raise wrong(field, row, f"has {len(indices)} indices for {len(values)} values")
    if len(set(_plain(indices))) < len(indices):
        raise wrong(field, row, "has an index twice")
    return indices, values


def _parts(value: Any, field: str, row: int | None) -> tuple[Any, Any]:
    if hasattr(value, "tocsr"):
        count, rows = rows_of_matrix(value)
        if count != 1:
            raise wrong(field, row, f"must be one row of a matrix, not {count}")
        found: tuple[Any, Any] = next(rows())
        return found
    if isinstance(value, Mapping):
        if value.keys() == {"indices", "values"}:
            return value["indices"], value["values"]
        return list(value.keys()), list(value.values())
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return value[0], value[1]
    raise wrong(
        field,
        row,
        "must be (indices, values), {index: value} or a row of a scipy matrix,"
        f" not {shown(value)}",
    )


def _indices(given: Any, field: str, row: int | None) -> Any:
    if hasattr(given, "__array__"):
        array = array_of(given, field)
        if array.ndim == 1 and array.dtype.kind in "iu":
            if array.size and int(array.min()) < 0:
                raise wrong(field, row, f"index {int(array.min())} is negative")
            return array.astype("u8")
        given = array.tolist()
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        raise wrong(field, row, f"must have a list or array of indices, not {shown(given)}")
    found = [whole_number(index) for index in given]
    for index, whole in zip(given, found, strict=True):
        if whole is None:
            raise wrong(field, row, f"index {shown(index)} is not a whole number")
        if whole < 0:
            raise wrong(field, row, f"index {whole} is negative")
    return found


def _plain(indices: Any) -> list[int]:
    plain: list[int] = indices if isinstance(indices, list) else indices.tolist()
    return plain
