"""Threads that help a search with its cells, kept for the next one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from . import _native


class Crew:
    """Threads of one index that help whoever searches it.

    A search waits for no helper: those that come late find less to do, or nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0

    @contextmanager
    def team(self, helpers: int) -> Iterator[_native.Team]:
        """A team of whoever searches with it, and so many helpers."""
        team = _native.Team()
        pool = self._of(helpers)
        try:
            for _ in range(helpers):
                pool.submit(team.help)
            yield team
        finally:
            team.end()

    def _of(self, size: int) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._size < size:
                self._pool = ThreadPoolExecutor(size, "closeby-cells")
                self._size = size
            return self._pool
