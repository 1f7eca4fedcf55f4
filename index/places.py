"""Where points lie, by id."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .batches import Int64Array

# Ids so close together that a table over their range is smaller than a sorted order.
DENSE_IDS = 2


def rising(ids: Int64Array) -> Int64Array:
    """The same ids, int64 (n,), rising and without repeats; quick if they are nearly so."""
    if np.all(ids[1:] > ids[:-1]):
        return ids
    # np.unique puts integers into a hash table first, ten times as slow for a million.
    ids = np.sort(ids, kind="stable")
    return ids[np.concatenate(([True], ids[1:] != ids[:-1]))]


class Places:
    """Where in `ids` (unique, any order) each id is."""

    def __init__(self, ids: Int64Array) -> None:
        self._ids = ids
        self._least, self._most = (int(ids.min()), int(ids.max())) if len(ids) else (0, -1)
        self._table: npt.NDArray[np.int32] | None = None
        self._by_id: Int64Array | None = None

    def among(self, ids: Int64Array) -> Int64Array:
        """Those of rising `ids` that may be here: the rest is not looked at."""
        first, stop = np.searchsorted(ids, (self._least, self._most + 1))
        return ids[first:stop]

    def find(self, ids: Int64Array) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
        """Place of each id, int64 (n,), and whether it is here at all, bool (n,)."""
        places = np.zeros(len(ids), np.int64)
        here = (ids >= self._least) & (ids <= self._most)
        # New ids are mostly above all known ones: then nothing is ever sorted.
        if not here.any():
            return places, here
        if self._most - self._least < DENSE_IDS * len(self._ids):
            table = self._dense_table()
            places[here] = table[ids[here] - self._least]
            here[here] = places[here] >= 0
            return np.maximum(places, 0), here
        if self._by_id is None:
            self._by_id = np.argsort(self._ids, kind="stable").astype(np.int64)
        ranks = np.searchsorted(self._ids, ids, sorter=self._by_id)
        places = self._by_id[np.minimum(ranks, len(self._ids) - 1)]
        return places, self._ids[places] == ids

    def _dense_table(self) -> npt.NDArray[np.int32]:
        if self._table is None:
            table = np.full(self._most - self._least + 1, -1, np.int32)
            table[self._ids - self._least] = np.arange(len(self._ids), dtype=np.int32)
            self._table = table
        return self._table
