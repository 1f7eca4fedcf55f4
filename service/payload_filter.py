"""Which points are meant: those whose payload has given values."""

from __future__ import annotations

from typing import Any

import orjson

from .errors import ValidationError

__all__ = ["PayloadFilter"]

MAX_FIELDS = 32
MAX_VALUES = 1_000
"""Values that may be given for one field."""

_SCALARS = (str, int, float, bool, type(None))


class PayloadFilter:
    """Payloads that have, in each of some fields, the value or one of the values given for it.

    `{"lang": "en", "year": [2020, 2021]}`: fields of the payload's top level; values are strings,
    numbers, booleans and null. A payload without the field does not match, not even null; 1 and
    true are two values, 1 and 1.0 are one.
    """

    def __init__(self, wanted: dict[str, Any]) -> None:
        self._wanted: dict[str, set[tuple[bool, Any]]] = {}
        for name, given in wanted.items():
            values = given if isinstance(given, list) else [given]
            self._wanted[name] = {_key(value) for value in values}

    @classmethod
    def parse(cls, found: Any, path: str = "filter") -> PayloadFilter:
        """A filter as a request gives it. Raises ValidationError."""
        if not isinstance(found, dict) or not found:
            raise ValidationError.of(
                path, 'must be an object of fields and their values, {"lang": "en"}'
            )
        if len(found) > MAX_FIELDS:
            raise ValidationError.of(path, f"has more than {MAX_FIELDS} fields", MAX_FIELDS)
        for name, given in found.items():
            at = f"{path}.{name}"
            values = given if isinstance(given, list) else [given]
            if not 1 <= len(values) <= MAX_VALUES:
                raise ValidationError.of(at, f"must have from 1 to {MAX_VALUES} values", MAX_VALUES)
            if not all(isinstance(value, _SCALARS) for value in values):
                raise ValidationError.of(
                    at, "values must be strings, numbers, booleans or null, or a list of them"
                )
        return cls(found)

    def matches(self, payload: bytes | None) -> bool:
        """Whether a payload, compact JSON, has what is wanted."""
        if payload is None:
            return False
        found = orjson.loads(payload)
        return all(
            name in found and _matches(found[name], values) for name, values in self._wanted.items()
        )


def _key(value: Any) -> tuple[bool, Any]:
    return isinstance(value, bool), value


def _matches(value: Any, wanted: set[tuple[bool, Any]]) -> bool:
    return isinstance(value, _SCALARS) and _key(value) in wanted
