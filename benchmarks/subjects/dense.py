"""Peers for dense vectors at cosine similarity; vectors come normalised."""

from __future__ import annotations

from typing import Any

import numpy as np

from .protocol import Int64Array, Subject


class FaissHnsw(Subject):
    """FAISS's graph over inner products."""

    def __init__(self, metric: str, seed: int, M: int = 16, ef_construction: int = 100) -> None:
        assert metric == "cosine"
        del seed
        self._shape = (M, ef_construction)
        self._index: Any = None

    def build(self, points: Any) -> None:
        """See :class:`Subject`."""
        import faiss

        faiss.omp_set_num_threads(1)
        self._index = faiss.IndexHNSWFlat(
            points.shape[1], self._shape[0], faiss.METRIC_INNER_PRODUCT
        )
        self._index.hnsw.efConstruction = self._shape[1]
        self._index.add(points)

    def search(self, queries: Any, k: int, ef: int = 100) -> Int64Array:
        """See :class:`Subject`."""
        self._index.hnsw.efSearch = ef
        return np.asarray(self._index.search(queries, k)[1], np.int64)

    def nbytes(self) -> dict[str, int]:
        """See :class:`Subject`."""
        graph = self._index.hnsw
        links = graph.neighbors.size() * 4 + graph.offsets.size() * 8 + graph.levels.size() * 4
        return {"links": links, "features": self._index.ntotal * self._index.d * 4}


class Hnswlib(Subject):
    """hnswlib's graph over inner products."""

    def __init__(self, metric: str, seed: int, M: int = 16, ef_construction: int = 100) -> None:
        assert metric == "cosine"
        self._options = {"M": M, "ef_construction": ef_construction, "random_seed": seed + 1}
        self._index: Any = None

    def build(self, points: Any) -> None:
        """See :class:`Subject`."""
        import hnswlib

        self._index = hnswlib.Index(space="ip", dim=points.shape[1])
        self._index.init_index(max_elements=len(points), **self._options)
        self._index.set_num_threads(1)
        self._index.add_items(points)

    def search(self, queries: Any, k: int, ef: int = 100) -> Int64Array:
        """See :class:`Subject`."""
        self._index.set_ef(max(ef, k))
        return np.asarray(self._index.knn_query(queries, k)[0], np.int64)


class Blas(Subject):
    """Exact: one matrix product for all queries together, then a partial sort of each row."""

    def __init__(self, metric: str, seed: int) -> None:
        assert metric == "cosine"
        del seed
        self._points: Any = None

    def build(self, points: Any) -> None:
        """See :class:`Subject`."""
        self._points = points.copy()

    def search(self, queries: Any, k: int) -> Int64Array:
        """See :class:`Subject`."""
        best = np.empty((len(queries), k), np.int64)
        for start in range(0, len(queries), 256):
            scores = queries[start : start + 256] @ self._points.T
            some = np.argpartition(-scores, k, axis=1)[:, :k]
            order = np.argsort(-np.take_along_axis(scores, some, axis=1), axis=1)
            best[start : start + 256] = np.take_along_axis(some, order, axis=1)
        return best

    def nbytes(self) -> dict[str, int]:
        """See :class:`Subject`."""
        return {"features": self._points.nbytes}
