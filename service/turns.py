"""Large writes take turns where they need a processor: queries come in between.

A write that is parsed and hashed wants the interpreter many times. Of several at once each query
would have to wait for all, at each of its own steps, and they are no sooner done together.
"""

from __future__ import annotations

import contextlib
import os
import threading

__all__ = ["LARGE_BODY", "LARGE_ROWS", "turn"]

LARGE_BODY = 1 << 16
"""Bytes from which a request takes turns; smaller ones never wait."""
LARGE_ROWS = 64

_TURNS = threading.BoundedSemaphore(max(1, (os.cpu_count() or 2) // 2))


def turn(*, large: bool) -> contextlib.AbstractContextManager[object]:
    """Wait for a turn if the work is large. Nothing that waits for anything else belongs in it."""
    return _TURNS if large else contextlib.nullcontext()
