"""Values to JSON and back: orjson where it is installed, else the standard library.

Both ways accept the same values and refuse the same ones. NaN and infinities have no JSON form;
orjson would send them as ``null``, so every ``null`` in its output is traced to its cause.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from .errors import InvalidInputError

try:
    import orjson
except ImportError:  # the fast way is optional
    _orjson_dumps: Callable[[Any], bytes] | None = None
    _loads: Callable[[bytes], Any] = json.loads
else:

    def _orjson_dumps(value: Any) -> bytes:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)

    _loads = orjson.loads


def encode(value: Any, *, field: str, row: int | None = None) -> bytes:
    """JSON (UTF-8, compact) of ``value``; NumPy scalars and arrays, dates and UUIDs included.

    Raises InvalidInputError that names ``field`` and ``row`` for NaN, infinities, keys that are no
    strings, lone surrogates, integers beyond 64 bits, and types without a JSON form.
    """
    try:
        encoded = _orjson_dumps(value) if _orjson_dumps else _json_dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        # json and orjson word this differently; a non-finite number is the cause worth naming.
        path = _find_non_finite(value)
        if path is not None:
            raise _non_finite(path, field, row) from None
        raise InvalidInputError(
            f"{place(field, row)} cannot be sent as JSON: {error}", field=field, row=row
        ) from error
    if b"null" in encoded:
        path = _find_non_finite(value)
        if path is not None:
            raise _non_finite(path, field, row)
    return encoded


def decode(content: bytes) -> Any:
    """The value of a JSON document; ValueError when it is none."""
    return _loads(content)


def place(field: str, row: int | None) -> str:
    """``vectors[17]``, or ``vector`` when there is no row."""
    return field if row is None else f"{field}[{row}]"


def _json_dumps(value: Any) -> bytes:
    _check_keys_and_integers(value)
    text = json.dumps(
        value, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return text.encode("utf-8")


def _check_keys_and_integers(value: Any) -> None:
    """Refuse what orjson refuses and json lets pass."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError("Dict key must be str")
            _check_keys_and_integers(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_keys_and_integers(item)
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise TypeError("Integer exceeds 64-bit range")


def _plain(value: Any) -> Any:
    """The JSON-able form of the few other types that payloads are made of."""
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, also those not contiguous
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"Type is not JSON serializable: {type(value).__name__}")


def _non_finite(path: str, field: str, row: int | None) -> InvalidInputError:
    return InvalidInputError(
        f"{place(field, row)}{path} is not a finite number (NaN or infinity)", field=field, row=row
    )


def _find_non_finite(value: Any, path: str = "", depth: int = 0) -> str | None:
    """Where in ``value`` the first NaN or infinity is (``.size[3]``), or None."""
    if depth > 100:
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    if isinstance(value, Mapping):
        children = ((f"{path}.{key}", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        children = ((f"{path}[{at}]", item) for at, item in enumerate(value))
    else:
        return None
    for where, item in children:
        found = _find_non_finite(item, where, depth + 1)
        if found is not None:
            return found
    return None
