"""One value that a caller passes, checked and encoded: a text, a set, a vector, an id, a payload.

NumPy is used where the caller's own arrays brought it along; nothing here needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from .errors import InvalidInputError
from .results import PointId
from .wire import encode, place


class SupportsArray(Protocol):
    """Anything that NumPy can read: arrays, pandas Series, CPU tensors."""

    def __array__(self) -> Any: ...


OneSet: TypeAlias = "Collection[int] | Collection[str] | SupportsArray"
OneVector: TypeAlias = "Collection[float] | SupportsArray"

_LARGEST_ID = 2**63 - 1


def _encode_text(value: Any, field: str, row: int | None) -> bytes:
    _check_text(value, field, row)
    return encode(value, field=field, row=row)


def _check_text(value: Any, field: str, row: int | None) -> None:
    if not isinstance(value, str):
        raise wrong(field, row, f"must be a string, not {shown(value)}")


def encoded_vector(value: OneVector, field: str) -> bytes:
    """One vector as JSON."""
    return _encode_vector(value, field, None)


def _encode_vector(value: Any, field: str, row: int | None) -> bytes:
    return encode(finite_numbers(value, field, row), field=field, row=row)


def _check_vector(value: Any, field: str, row: int | None) -> None:
    finite_numbers(value, field, row)


def finite_numbers(value: Any, field: str, row: int | None) -> Any:
    """``value`` as a float32 array or a list of finite numbers. Raises InvalidInputError."""
    if hasattr(value, "__array__"):
        array = array_of(value, field)
        if array.ndim != 1:
            raise wrong(field, row, f"must have one dimension, not shape {array.shape}")
        return float32_rows(array[None, :], field, row, single=True)[0]
    if not _is_many(value):
        raise wrong(field, row, f"must be a list or array of numbers, not {shown(value)}")
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
        raise wrong(field, row, f"element {at} is {shown(number)}, not a number") from None
    except OverflowError:
        finite = False
    if not finite:
        raise wrong(field, row, f"element {at} is {number}; all must be finite numbers")


def encode_set(value: Any, field: str, row: int | None) -> bytes:
    """One set as JSON."""
    return encode(_checked_set(value, field, row), field=field, row=row)


def check_set(value: Any, field: str, row: int | None) -> None:
    """Raise InvalidInputError if it is no set."""
    _checked_set(value, field, row)


def _checked_set(value: Any, field: str, row: int | None) -> Any:
    """``value`` as an integer array, or a list of only integers or only strings."""
    if hasattr(value, "__array__"):
        array = array_of(value, field)
        if array.ndim != 1 or array.dtype.kind not in "iuUO":
            raise wrong(
                field,
                row,
                "must have one dimension of integers or strings, "
                f"not shape {array.shape} of {array.dtype}",
            )
        if array.dtype.kind in "iu":
            if array.size and int(array.min()) < 0:
                raise wrong(field, row, f"element {int(array.min())} is negative")
            return array
        value = array.tolist()
    if not _is_many(value):
        raise wrong(field, row, f"must be a list, set or array of elements, not {shown(value)}")
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
    whole = whole_number(element)
    if whole is None:
        raise wrong(field, row, f"element {at} is {shown(element)}, not an integer or a string")
    return whole


def checked_id(value: Any, field: str = "ids", row: int | None = None) -> PointId:
    """``value`` as a point id: a non-empty string, or an integer 0..2**63-1."""
    if type(value) is int and 0 <= value <= _LARGEST_ID:  # nearly all of them
        return value
    if isinstance(value, str):
        if not value:
            raise wrong(field, row, "is empty; an id is an integer or a non-empty string")
        return value
    whole = whole_number(value)
    if whole is None:
        raise wrong(field, row, f"must be an integer or a string, not {shown(value)}")
    if not 0 <= whole <= _LARGEST_ID:
        raise wrong(field, row, f"is {whole}; an integer id lies between 0 and 2**63-1")
    return whole


def whole_number(value: Any) -> int | None:
    """``value`` as a Python int, NumPy's integers included; None for anything else."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    return int(value)


def encode_payload(value: Any, field: str, row: int | None) -> bytes:
    """One payload as JSON."""
    if value is None:
        return b"null"
    if not isinstance(value, Mapping):
        raise wrong(field, row, f"must be a dictionary or None, not {shown(value)}")
    return encode(value if isinstance(value, dict) else dict(value), field=field, row=row)


ENCODERS: dict[str, Callable[[Any, str, int | None], bytes]] = {
    "text": _encode_text,
    "sequence": _encode_text,
    "set": encode_set,
    "vector": _encode_vector,
}
CHECKS: dict[str, Callable[[Any, str, int | None], None]] = {
    "text": _check_text,
    "sequence": _check_text,
    "set": check_set,
    "vector": _check_vector,
}


# --- arrays and faults --------------------------------------------------------------------------


def float32_rows(block: Any, field: str, first: int | None, *, single: bool = False) -> Any:
    """``block`` (n, d) as C-contiguous float32, all finite.

    The server computes in float32: rounding here changes no result and halves what is sent.
    """
    import numpy as np

    if block.dtype.kind not in "fiu":
        raise wrong(field, first if single else None, f"holds {block.dtype}, not numbers")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(block, dtype=np.float32)
    finite = np.isfinite(rows)
    if not finite.all():
        at, column = (int(part) for part in np.argwhere(~finite)[0])
        row = first if single else (first or 0) + at
        raise wrong(
            field,
            row,
            f"element {column} is {block[at, column]}; all must be finite numbers in float32",
        )
    return rows


def array_of(values: Any, name: str) -> Any:
    """``values``, which has ``__array__``, as a NumPy array."""
    try:
        import numpy as np
    except ImportError:
        raise InvalidInputError(
            f"{name} is an array, but NumPy is not installed; pass lists", field=name
        ) from None
    return np.asarray(values)


def wrong(field: str, row: int | None, fault: str) -> InvalidInputError:
    """The error for a fault of one argument, or of one row of it."""
    return InvalidInputError(f"{place(field, row)} {fault}", field=field, row=row)


def shown(value: Any) -> str:
    """A value in an error: its type, and itself when that is short."""
    text = repr(value)
    kind = type(value).__name__
    return f"{kind} {text}" if len(text) <= 40 else kind
