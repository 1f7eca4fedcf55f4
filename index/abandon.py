"""Giving up long builds between two of their steps, when the process is to end.

Who runs a build says when it is not wanted any more (:func:`abandonable`); the build asks between
blocks of points (:func:`checkpoint`), wherever it is in the call tree. What is within a step is
bounded by the size of the block. Nothing asks outside of :func:`abandonable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .errors import AbandonedError

__all__ = ["abandonable", "checkpoint"]

_unwanted: ContextVar[Callable[[], bool] | None] = ContextVar("unwanted", default=None)


@contextmanager
def abandonable(unwanted: Callable[[], bool]) -> Iterator[None]:
    """Builds of this thread raise AbandonedError soon after `unwanted` returns true."""
    token = _unwanted.set(unwanted)
    try:
        yield
    finally:
        _unwanted.reset(token)


def checkpoint() -> None:
    """Raise AbandonedError if the build that this thread is in is not wanted any more."""
    unwanted = _unwanted.get()
    if unwanted is not None and unwanted():
        raise AbandonedError("not wanted any more")
