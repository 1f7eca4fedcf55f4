"""Large writes take turns where they need a processor: queries come in between.

A write that is parsed and hashed wants the interpreter many times. Of several at once each query
would have to wait for all, at each of its own steps, and they are no sooner done together.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

__all__ = ["LARGE_BODY", "LARGE_ROWS", "Turns", "ahead", "turn"]

LARGE_BODY = 1 << 16
"""Bytes from which a request takes turns; smaller ones never wait."""
LARGE_ROWS = 64


class Turns:
    """So much large work at once. Work that others wait for goes ahead, and the rest after it."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._busy = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, *, wait: bool) -> Iterator[None]:
        """Be counted as work in progress; with `wait`, not before there is a turn."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._busy < self._at_once)
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify()


_TURNS = Turns(max(1, (os.cpu_count() or 2) // 2))


def turn(*, large: bool) -> contextlib.AbstractContextManager[None]:
    """Wait for a turn if the work is large. Nothing that waits for anything else belongs in it."""
    return _TURNS.take(wait=True) if large else contextlib.nullcontext()


def ahead(*, large: bool) -> contextlib.AbstractContextManager[None]:
    """Go ahead with large work that holds what others wait for: a lock, the one writing thread.

    No turn begins meanwhile.
    """
    return _TURNS.take(wait=False) if large else contextlib.nullcontext()
