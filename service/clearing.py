"""Removing log rows that nobody needs any more: replaced versions, deleted points, deletions.

A row may go once the sealed files tell what it told (its seq is at most the manifest's), the write
that made it superfluous is on disk, and no request can still look it up. What stays is one row for
each point. Rows go in rising order: a deletion never goes before the points it deletes, so a crash
in between brings nothing back.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numpy as np

from .contents import Contents
from .points_file import Seqs
from .store import Store

__all__ = ["Clearing"]

LEAST_GARBAGE = 2_000
"""Superfluous log rows that are worth removing, if they are also a quarter of the points."""
GRACE_SECONDS = 2.0
"""How long a superfluous row stays at least."""


class Clearing:
    """The log of one collection, as far as it can be cleared. `lock` is that of the contents."""

    def __init__(
        self, store: Store, collection: int, contents: Contents, lock: threading.Lock
    ) -> None:
        self._store = store
        self._collection = collection
        self._contents = contents
        self._lock = lock
        # Whoever reads old versions from the log keeps it from being cleared.
        self._reading = threading.Lock()
        self._readers = 0

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Within the context nothing is removed."""
        with self._reading:
            self._readers += 1
        try:
            yield
        finally:
            with self._reading:
                self._readers -= 1

    def clear(self, sealed_seq: int | None, stop: threading.Event) -> bool:
        """Remove rows that nobody needs; False if there are too few to bother.

        `sealed_seq`: where the sealed files end (None: there are none, and starts replay all that
        is left). Raises StoreUnavailableError.
        """
        contents = self._contents
        garbage = contents.garbage
        if garbage < max(LEAST_GARBAGE, len(contents) // 4):
            return False
        with self._lock:
            live = contents.live.all_seqs()
            upto = contents.applied_seq
        if sealed_seq is not None:
            upto = min(upto, sealed_seq)
        # What made a row superfluous must be on disk before the row goes.
        self._store.sync()
        # A search that found a version just now may still read its payload.
        if stop.wait(GRACE_SECONDS):
            return False
        for gone in _superfluous(self._store, self._collection, live, upto):
            with self._reading:
                if self._readers or stop.is_set():
                    return False
                self._store.delete_rows(self._collection, gone)
            contents.garbage -= len(gone)
        # What is left lies behind the sealed files, or was counted too often.
        contents.garbage = min(contents.garbage, garbage // 2)
        return True


def _superfluous(store: Store, collection: int, live: Seqs, upto: int) -> Iterator[list[int]]:
    """Seqs of the rows up to `upto` that are not among `live` (rising), some at a time."""
    for seqs in store.seqs(collection, 0, upto):
        found = np.array(seqs, np.int64)
        at = np.searchsorted(live, found)
        known = np.zeros(len(found), bool)
        inside = at < len(live)
        known[inside] = live[at[inside]] == found[inside]
        gone = found[~known]
        if len(gone):
            yield gone.tolist()
