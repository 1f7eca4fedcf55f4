"""Raw inputs of points and queries as they stand in a JSON body: checked by hand, made arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from closeby.index import Featurizer

from .errors import ValidationError
from .settings import Settings

__all__ = ["NUMBERS", "checked_inputs", "kind_of"]

NUMBERS = {int, float}


def checked_inputs(
    values: list[Any],
    featurizer: Featurizer,
    path: Callable[[int], str],
    settings: Settings,
) -> Sequence[Any]:
    """Raw inputs of the type that the featuriser takes; it checks what is inside."""
    if featurizer.field in ("text", "sequence"):
        for row, value in enumerate(values):
            if type(value) is not str:
                raise ValidationError.of(path(row), f"must be a string, not {kind_of(value)}")
        return values
    if featurizer.field == "sparse":
        dim, most = featurizer.spec["dim"], settings.max_set_elements
        return [_sparse(v, path(r), dim, most) for r, v in enumerate(values)]
    if featurizer.field == "vector":
        return [_vector(v, path(r), featurizer.spec["dim"]) for r, v in enumerate(values)]
    member = _token_set if featurizer.element is str else _id_set
    return [member(v, path(r), settings.max_set_elements) for r, v in enumerate(values)]


def _vector(value: Any, path: str, dim: int) -> np.ndarray[Any, Any]:
    if type(value) is not list:
        raise ValidationError.of(path, f"must be a list of numbers, not {kind_of(value)}")
    if len(value) != dim:
        raise ValidationError.of(
            path, f"has {len(value)} dimensions, this collection has {dim}", dim
        )
    _check_numbers(value, path)
    return np.array(value, np.float64)


def _check_numbers(values: list[Any], path: str) -> None:
    if not set(map(type, values)) <= NUMBERS:
        at, item = next((i, v) for i, v in enumerate(values) if type(v) not in NUMBERS)
        raise ValidationError.of(f"{path}[{at}]", f"must be a number, not {kind_of(item)}")


def _sparse(value: Any, path: str, dim: int, most: int) -> dict[str, np.ndarray[Any, Any]]:
    if type(value) is not dict:
        raise ValidationError.of(
            path, f"must be an object of indices and values, not {kind_of(value)}"
        )
    for name in ("indices", "values"):
        if name not in value:
            raise ValidationError.of(f"{path}.{name}", "is missing")
        if type(value[name]) is not list:
            raise ValidationError.of(
                f"{path}.{name}", f"must be a list of numbers, not {kind_of(value[name])}"
            )
    unknown = next((name for name in value if name not in ("indices", "values")), None)
    if unknown is not None:
        raise ValidationError.of(
            f"{path}.{unknown[:100]}", "does not belong here; known are indices, values"
        )
    indices, values = value["indices"], value["values"]
    if len(indices) != len(values):
        raise ValidationError.of(path, f"has {len(indices)} indices for {len(values)} values")
    if not values:
        raise ValidationError.of(path, "has no values, and is near to nothing")
    if len(values) > most:
        raise ValidationError.of(path, f"has {len(values)} values, the limit is {most}", most)
    _check_indices(indices, f"{path}.indices", dim)
    _check_numbers(values, f"{path}.values")
    return {"indices": np.array(indices, np.uint64), "values": np.array(values, np.float64)}


def _check_indices(indices: list[Any], path: str, dim: int) -> None:
    range_of = f"from 0 to {dim - 1}"
    if set(map(type, indices)) != {int}:
        at, item = next((i, v) for i, v in enumerate(indices) if type(v) is not int)
        raise ValidationError.of(
            f"{path}[{at}]", f"must be a whole number {range_of}, not {kind_of(item)}"
        )
    if min(indices) < 0 or max(indices) >= dim:
        at = next(i for i, v in enumerate(indices) if not 0 <= v < dim)
        raise ValidationError.of(f"{path}[{at}]", f"must be {range_of}, not {indices[at]}", dim - 1)
    if len(set(indices)) < len(indices):
        first = {v: i for i, v in reversed([*enumerate(indices)])}
        at = next(i for i, v in enumerate(indices) if first[v] != i)
        raise ValidationError.of(f"{path}[{at}]", f"is {indices[at]}, which is given twice")


def _id_set(value: Any, path: str, most: int) -> np.ndarray[Any, Any]:
    _check_size(value, path, most)
    if type(value) is np.ndarray:  # as closeby.index.json_rows has read it
        return value
    if set(map(type, value)) != {int}:
        at, item = next((i, v) for i, v in enumerate(value) if type(v) is not int)
        hint = (
            "a number with a fraction or beyond 64 bits" if type(item) is float else kind_of(item)
        )
        raise ValidationError.of(
            f"{path}[{at}]", f"must be a whole number from 0 to 2**64 - 1, not {hint}"
        )
    if min(value) < 0:
        at = value.index(min(value))
        raise ValidationError.of(f"{path}[{at}]", "must be from 0 to 2**64 - 1, not negative")
    return np.array(value, np.uint64)


def _token_set(value: Any, path: str, most: int) -> list[str]:
    _check_size(value, path, most)
    tokens: list[str] = value
    if set(map(type, tokens)) != {str}:
        at, item = next((i, v) for i, v in enumerate(tokens) if type(v) is not str)
        raise ValidationError.of(f"{path}[{at}]", f"must be a string, not {kind_of(item)}")
    return tokens


def _check_size(value: Any, path: str, most: int) -> None:
    if type(value) is not list and type(value) is not np.ndarray:
        raise ValidationError.of(path, f"must be a list, not {kind_of(value)}")
    if not len(value):
        raise ValidationError.of(path, "is an empty set, which is near to nothing")
    if len(value) > most:
        raise ValidationError.of(path, f"has {len(value)} elements, the limit is {most}", most)


def kind_of(value: Any) -> str:
    """What JSON calls the type of `value`."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a whole number", float: "a number with a fraction"}
    names |= {str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")
