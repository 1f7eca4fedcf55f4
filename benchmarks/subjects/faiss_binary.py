"""FAISS over the sketches that closeby makes: 512 one-bit MinHash values a set."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from closeby.index import MinHashFamily, SetBatch

from .protocol import Int64Array, Subject, rerank

BITS = 512


class _Binary(Subject):
    """Shared by the three: sketches in, candidates out, exact re-rank if asked for."""

    def __init__(self, metric: str, seed: int) -> None:
        assert metric == "jaccard"
        faiss.omp_set_num_threads(1)
        self._family = MinHashFamily(seed, tables=0, sketch_bits=BITS)
        self._points: SetBatch | None = None
        self._index: Any = None
        self._links = 0

    def _add(self, sketches: Any) -> None:
        self._index.add(sketches)

    def _set(self, **setting: Any) -> None:
        assert not setting

    def build(self, points: Any) -> None:
        """Sketch the points and index the sketches; keep a copy of the points for re-rank."""
        self._add(self._family.sketch(points))
        self._points = SetBatch(points.indptr.copy(), points.indices.copy())

    def search(self, queries: Any, k: int, candidates: int = 0, **setting: Any) -> Int64Array:
        """See :class:`Subject`; ``candidates`` are re-ranked exactly, 0 for none."""
        self._set(**setting)
        wanted = max(k, candidates)
        places = self._index.search(self._family.sketch(queries), wanted)[1]
        if not candidates:
            return np.asarray(places, np.int64)
        assert self._points is not None
        return rerank(self._points, queries, places, k)

    def nbytes(self) -> dict[str, int]:
        """See :class:`Subject`."""
        assert self._points is not None
        features = self._points.indptr.nbytes + self._points.indices.nbytes
        ids_of_lists = self._index.ntotal * 8 if hasattr(self._index, "nlist") else 0
        return {
            "sketches": self._index.ntotal * BITS // 8,
            "links": self._links,
            "ids": ids_of_lists,
            "features": features,
        }


class BinaryFlat(_Binary):
    """A scan of all sketches."""

    def _add(self, sketches: Any) -> None:
        self._index = faiss.IndexBinaryFlat(BITS)
        self._index.add(sketches)


class BinaryIvf(_Binary):
    """Inverted lists under binary k-means."""

    def __init__(self, metric: str, seed: int, lists: int = 1024) -> None:
        super().__init__(metric, seed)
        self._lists = lists

    def _add(self, sketches: Any) -> None:
        self._coarse = faiss.IndexBinaryFlat(BITS)
        self._index = faiss.IndexBinaryIVF(self._coarse, BITS, self._lists)
        self._index.cp.seed = 1
        chosen = np.random.default_rng(0).permutation(len(sketches))[: self._lists * 64]
        self._index.train(sketches[np.sort(chosen)])
        self._index.add(sketches)

    def _set(self, **setting: Any) -> None:
        self._index.nprobe = setting["nprobe"]


class BinaryHnsw(_Binary):
    """A graph over the sketches."""

    def __init__(self, metric: str, seed: int, M: int = 16, ef_construction: int = 100) -> None:
        super().__init__(metric, seed)
        self._shape = (M, ef_construction)

    def _add(self, sketches: Any) -> None:
        self._index = faiss.IndexBinaryHNSW(BITS, self._shape[0])
        self._index.hnsw.efConstruction = self._shape[1]
        self._index.add(sketches)
        graph = self._index.hnsw
        self._links = (
            graph.neighbors.size() * 4 + graph.offsets.size() * 8 + graph.levels.size() * 4
        )

    def _set(self, **setting: Any) -> None:
        self._index.hnsw.efSearch = setting["ef"]
