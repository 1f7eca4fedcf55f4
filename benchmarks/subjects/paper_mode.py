"""The paper's own structure and decode, as closeby's reference has them (``PaperFlinngIndex``)."""

from __future__ import annotations

from typing import Any

import numpy as np
from closeby.index import SetBatch
from closeby.index.paper import PaperFlinngIndex

from .protocol import Int64Array, Subject, rerank


class PaperFlinng(Subject):
    """R rows of B cells, m tests each; answers in the order of the decode, or re-ranked exactly."""

    def __init__(self, metric: Any, seed: int, **parameters: Any) -> None:
        self._index = PaperFlinngIndex(metric, seed, **parameters)
        self._points: Any = None

    def build(self, points: Any) -> None:
        """See :class:`Subject`."""
        self._points = points
        self._index.add(points)

    def search(self, queries: Any, k: int, candidates: int = 0) -> Int64Array:
        """See :class:`Subject`; `candidates` are compared exactly (0: none)."""
        found = np.asarray(self._index.search(queries, max(k, candidates))[0], np.int64)
        if not candidates:
            return found[:, :k]
        if isinstance(self._points, SetBatch):
            return rerank(self._points, queries, found, k)
        best = np.full((len(found), k), -1, np.int64)
        for row, met in enumerate(found):
            places = met[met >= 0]
            order = np.argsort(-(self._points[places] @ queries[row]), kind="stable")[:k]
            best[row, : len(order)] = places[order]
        return best

    def nbytes(self) -> dict[str, int]:
        """See :class:`Subject`."""
        return dict(self._index.nbytes)
