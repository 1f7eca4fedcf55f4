"""nmslib's HNSW on exact sparse Jaccard, the rival of the FLINNG paper."""

from __future__ import annotations

from typing import Any

import nmslib
import numpy as np
from closeby.index import SetBatch

from .protocol import Int64Array, Subject


class SparseJaccardHnsw(Subject):
    """Sets go in as strings of numbers below 2**31, which is how nmslib takes them.

    Making the strings, and numbering the elements, is not counted.
    """

    def __init__(self, metric: str, seed: int, M: int = 16, ef_construction: int = 100) -> None:
        assert metric == "jaccard"
        del seed
        self._shape = {"M": M, "efConstruction": ef_construction, "post": 0, "indexThreadQty": 1}
        self._known: Any = None
        self._index: Any = None

    def convert(self, features: SetBatch) -> list[str]:
        """Strings; elements that no point has get numbers of their own."""
        if self._known is None:
            self._known = np.unique(features.indices)
        numbers = np.searchsorted(self._known, features.indices)
        at = np.minimum(numbers, len(self._known) - 1)
        strange = self._known[at] != features.indices
        strangers = np.unique(features.indices[strange])
        numbers[strange] = len(self._known) + np.searchsorted(strangers, features.indices[strange])
        # Numbers rise with the elements but for strangers, and nmslib wants them sorted.
        rows = np.split(numbers, features.indptr[1:-1])
        return [" ".join(map(str, np.sort(row).tolist())) for row in rows]

    def build(self, points: Any) -> None:
        """See :class:`Subject`."""
        self._index = nmslib.init(
            method="hnsw",
            space="jaccard_sparse",
            data_type=nmslib.DataType.OBJECT_AS_STRING,
            dtype=nmslib.DistType.FLOAT,
        )
        self._index.addDataPointBatch(points)
        self._index.createIndex(self._shape)

    def search(self, queries: Any, k: int, ef: int = 100) -> Int64Array:
        """See :class:`Subject`."""
        self._index.setQueryTimeParams({"efSearch": max(ef, k)})
        best = np.full((len(queries), k), -1, np.int64)
        answers = self._index.knnQueryBatch(queries, k, num_threads=1)
        for row, (ids, _) in enumerate(answers):
            best[row, : len(ids)] = ids
        return best
