"""Removing log rows that nobody needs any more: replaced versions, deleted points, deletions.

A row may go once the sealed files tell what it told (its seq is at most the manifest's), the write
that made it superfluous is on disk, and no request can still look it up. What stays is one row for
each point. Rows go in rising order: a deletion never goes before the points it deletes, so a crash
in between brings nothing back.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .points_file import Seqs
from .store import Store

__all__ = ["superfluous"]


def superfluous(store: Store, collection: int, live: Seqs, upto: int) -> Iterator[list[int]]:
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
