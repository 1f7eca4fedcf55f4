"""Sets of integers out of a JSON body, without making a Python number of each element.

A body of a thousand sets takes a JSON parser some milliseconds in which no other thread can run;
the lists of numbers are all of that, so they are read by a kernel that lets others run.
"""

from __future__ import annotations

from . import _native
from .batches import UInt64Array


def take_integer_rows(body: bytes, key: str) -> tuple[bytes, list[UInt64Array]] | None:
    """The rows of integers under a key of a JSON object, and the body without them.

    Args:
        body: JSON text of an object.
        key: of its outermost level.

    Returns:
        The body with ``null`` in the place of the rows, and uint64 arrays, a row each, in their
        order and with repeats; None if the key's value is anything else than a list of lists of
        integers 0 .. 2**64 - 1. The rest of the body is not checked, nor is the size of anything.
    """
    found = _native.json_rows(body, key.encode())
    if found is None:
        return None
    begin, end, indptr, values = found
    bounds = indptr.tolist()
    rows = [values[bounds[i] : bounds[i + 1]] for i in range(len(bounds) - 1)]
    return body[:begin] + b"null" + body[end:], rows
