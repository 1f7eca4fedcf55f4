"""What a point's value may be, whichever format it comes from."""

from __future__ import annotations

import math
from collections.abc import Callable

from .points import Field


def _text_refusal(value: object) -> str | None:
    if not isinstance(value, str):
        return "is no string"
    return None if value.strip() else "is empty"


def _set_refusal(value: object) -> str | None:
    if not isinstance(value, list):
        return "is no list"
    if not value:
        return "is empty"
    if all(isinstance(element, str) for element in value):
        return None
    # type() and not isinstance(): true and false are no elements.
    if all(type(element) is int and 0 <= element < 2**64 for element in value):
        return None
    return "has elements that are neither all integers in 0 .. 2**64-1 nor all strings"


def _vector_refusal(value: object) -> str | None:
    if not isinstance(value, list) or not value:
        return "is no list of numbers"
    if not all(type(element) in (int, float) and math.isfinite(element) for element in value):
        return "has elements that are no finite numbers"
    return None


def _sparse_refusal(value: object) -> str | None:
    if not isinstance(value, dict) or value.keys() != {"indices", "values"}:
        return "is no object of indices and values"
    indices, values = value["indices"], value["values"]
    reason = _vector_refusal(values)
    if reason is not None:
        return f"has values that are wrong: it {reason}"
    if not isinstance(indices, list) or len(indices) != len(values):
        return "has not as many indices as values"
    if not all(type(index) is int and 0 <= index < 2**64 for index in indices):
        return "has indices that are no integers in 0 .. 2**64-1"
    return None


REFUSALS: dict[Field, Callable[[object], str | None]] = {
    "text": _text_refusal,
    "sequence": _text_refusal,
    "set": _set_refusal,
    "vector": _vector_refusal,
    "sparse": _sparse_refusal,
}
"""By field, why a value cannot be a point's; None if it can."""
