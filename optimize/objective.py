"""What the caller gives a solver: numbers, and functions whose answers must be checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from closeby.index import InvalidInputError

from .errors import ObjectiveError
from .trace import Array

# Entries of which products with atoms, and sums of them, stay finite in float64.
MAX_ENTRY = 1e100


def answer(
    function: Callable[..., Any], *arguments: Any, shapes: tuple[tuple[int, ...], ...], at: int
) -> tuple[Array, Array]:
    """Value and gradient that a function gives, float64 of the shapes wanted.

    Raises:
        ObjectiveError: no pair of numbers, another shape, not finite or beyond ``MAX_ENTRY``. What
            the function itself raises is passed on.
    """
    given = function(*arguments)
    try:
        value, gradient = given
    except (TypeError, ValueError):
        raise ObjectiveError(
            "the function must give a value and a gradient", iteration=at
        ) from None
    return _part(value, "value", shapes[0], at), _part(gradient, "gradient", shapes[1], at)


def _part(given: Any, name: str, shape: tuple[int, ...], at: int) -> Array:
    try:
        part = np.asarray(given)
    except (TypeError, ValueError):
        raise ObjectiveError(f"the {name} must be numbers", iteration=at) from None
    if part.shape != shape:
        raise ObjectiveError(f"the {name} must be {shape}, not {part.shape}", iteration=at)
    if part.dtype.kind not in "fiu":
        raise ObjectiveError(f"the {name} must be numbers, not {part.dtype}", iteration=at)
    if not np.isfinite(part).all():
        raise ObjectiveError(f"the {name} must be finite", iteration=at)
    checked = part.astype(np.float64)
    if name == "gradient" and checked.size and np.abs(checked).max() > MAX_ENTRY:
        raise ObjectiveError(f"the gradient must be below {MAX_ENTRY:g}", iteration=at)
    return checked


def whole(value: Any, field: str, least: int) -> int:
    """An integer of at least so much. Raises InvalidInputError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InvalidInputError(f"{field} must be an integer from {least} on", field=field)
    return int(value)


def number(value: Any, field: str) -> float:
    """A number that is not NaN. Raises InvalidInputError."""
    if isinstance(value, int | float | np.number) and value == value:
        return float(value)
    raise InvalidInputError(f"{field} must be a number", field=field)


def a_function(value: Any, field: str) -> None:
    """Raises InvalidInputError for what cannot be called."""
    if not callable(value):
        raise InvalidInputError(f"{field} must be a function", field=field)


def share(value: Any) -> float:
    """A step length, from 0 to 1. Raises InvalidInputError."""
    length = number(value, "step")
    if not 0 <= length <= 1:
        raise InvalidInputError("a step must be from 0 to 1", field="step")
    return length


def resumed(start: Any, kind: type) -> None:
    """Raises InvalidInputError for what is no earlier result of this kind."""
    if start is not None and not isinstance(start, kind):
        raise InvalidInputError(f"start must be a {kind.__name__}", field="start")


def finite_vector(given: npt.ArrayLike, dim: int, field: str) -> Array:
    """A vector float64 (dim,) of entries up to ``MAX_ENTRY``. Raises InvalidInputError."""
    try:
        vector = np.asarray(given)
    except (TypeError, ValueError):
        vector = np.zeros(0)
    if vector.shape == (dim,) and vector.dtype.kind in "fiu":
        checked = vector.astype(np.float64)
        if (np.abs(checked) <= MAX_ENTRY).all():
            return checked
    raise InvalidInputError(
        f"{field} must be {dim} finite numbers of at most {MAX_ENTRY:g}", field=field
    )
