"""Other people's engines behind the protocol of closeby's own, so that both can be measured alike.

They hold the same sketches or features, answer in the same form, and can be granted the same exact
re-rank; what differs is how the candidates are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from . import _native
from .batches import FloatArray, Int64Array, SetBatch, as_set_batch
from .buffers import Column, SetColumn
from .engine import Metric, check_ids, check_k, check_metric, smallest_hit
from .errors import InvalidInputError
from .minhash import MinHashFamily
from .segment import SALT

UInt8Array = npt.NDArray[np.uint8]


class BinaryHnswIndex:
    """FAISS's graph search (HNSW, Malkov and Yashunin 2016) over 1-bit MinHash sketches.

    A score is the sketch's estimate of Jaccard, 2 * (fraction of equal bits) - 1, unless
    `candidates` asks for an exact re-rank. FAISS cannot delete from such a graph, so there is no
    ``remove``.

    Args:
        metric: ``"jaccard"``.
        seed: of the sketches; equal seeds and bits give those of ``MinHashFamily``.
        sketch_bits: bits a sketch, a multiple of 8.
        M: links of a point in the graph (twice as many in its lowest layer).
        ef_construction, ef_search: points kept in view while one is added, or searched.
        candidates: how many of the best by sketch are compared exactly; 0 for none. Needs the
            sets themselves, which are then kept.
        threads: threads of FAISS in ``add`` and ``search``.

    """

    kind = "binary_hnsw"

    def __init__(
        self,
        metric: Metric = "jaccard",
        seed: int = 0,
        *,
        sketch_bits: int = 512,
        M: int = 16,
        ef_construction: int = 100,
        ef_search: int = 128,
        candidates: int = 0,
        threads: int = 1,
    ) -> None:
        self.metric = check_metric(metric, ("jaccard",))
        self.family = MinHashFamily(seed, tables=0, sketch_bits=sketch_bits)
        self.candidates = candidates
        self.threads = threads
        self._graph = faiss.IndexBinaryHNSW(sketch_bits, M)
        self._graph.hnsw.efConstruction = ef_construction
        self._graph.hnsw.efSearch = max(ef_search, candidates)
        self._ids = Column(np.int64)
        self._present: set[int] = set()
        self._sets = SetColumn()

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, batch: Any, ids: Any = None) -> None:
        """Add points.

        Args:
            batch: n sets, or n finished sketches as uint8 (n, sketch_bits / 8).
            ids: int64 (n,), new ones; the next free numbers unless given.

        Raises:
            InvalidInputError: neither sets nor such sketches, or an id that is not new.

        """
        sketches, sets = self._sketched(batch)
        new_ids = check_ids(ids, len(sketches), next_id=max(self._present, default=-1) + 1)
        known = self._present.intersection(new_ids.tolist())
        if known:
            raise InvalidInputError(f"id {min(known)} is in the index already", field="ids")
        if not len(sketches):
            return
        with _faiss_threads(self.threads):
            self._graph.add(sketches)
        if self.candidates and sets is not None:
            self._sets.append(sets)
        self._ids.append(new_ids)
        self._present.update(new_ids.tolist())

    def search(
        self,
        batch: Any,
        k: int,
        threshold: float | None = None,
        target_recall: float | None = None,  # noqa: ARG002 - ef_search is what there is to set
    ) -> tuple[Int64Array, FloatArray]:
        """The k most similar points that the graph leads to.

        Args:
            batch: q sets, or q sketches as uint8 (q, sketch_bits / 8).
            k: hits wanted for each query.
            threshold: least score of a hit.
            target_recall: accepted for symmetry with other engines.

        Returns:
            ids int64 (q, k) and scores float32 (q, k) by falling score, then rising id; -1 and
            NaN after the last hit.

        """
        k = check_k(k)
        sketches, sets = self._sketched(batch)
        floor = smallest_hit(self.metric, threshold)
        ids = np.full((len(sketches), k), -1, np.int64)
        scores = np.full((len(sketches), k), np.nan, np.float32)
        if not len(self) or not len(sketches):
            return ids, scores
        with _faiss_threads(self.threads):
            wanted = min(max(k, self.candidates), len(self))
            distances, places = self._graph.search(sketches, wanted)
        points = self._ids.snapshot()
        for row in range(len(sketches)):
            found = places[row][places[row] >= 0]
            if self.candidates and sets is not None:
                score = self._exact(sets.row(row), found)
            else:
                score = _estimate(distances[row][: len(found)], self.family.sketch_bits)
            kept = np.flatnonzero(score >= floor)
            order = kept[np.lexsort((points[found[kept]], -score[kept]))[:k]]
            ids[row, : len(order)] = points[found[order]]
            scores[row, : len(order)] = score[order]
        return ids, scores

    def _sketched(self, batch: Any) -> tuple[UInt8Array, SetBatch | None]:
        """Sketches, and the sets that they are of unless sketches were given."""
        if isinstance(batch, np.ndarray) and batch.dtype == np.uint8 and batch.ndim == 2:
            if batch.shape[1] * 8 != self.family.sketch_bits:
                raise InvalidInputError(
                    f"sketches must have {self.family.sketch_bits // 8} bytes, "
                    f"not {batch.shape[1]}",
                    field="sketch",
                )
            if self.candidates:
                raise InvalidInputError("an exact re-rank needs sets, not sketches", field="set")
            return np.ascontiguousarray(batch), None
        sets = as_set_batch(batch)
        return self.family.sketch(sets), sets

    def _exact(self, query: npt.NDArray[np.uint64], places: Int64Array) -> FloatArray:
        sets = self._sets.snapshot()
        return np.asarray(_native.jaccard_of_rows(sets.indptr, sets.indices, places, query, SALT))

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part: ``"graph"`` (links), ``"sketches"``, ``"ids"`` and ``"features"``."""
        graph = self._graph.hnsw
        links = graph.neighbors.size() * 4 + graph.offsets.size() * 8 + graph.levels.size() * 4
        return {
            "graph": links,
            "sketches": len(self) * self.family.sketch_bits // 8,
            "ids": self._ids.nbytes,
            "features": self._sets.nbytes if self.candidates else 0,
        }


def _estimate(distances: npt.NDArray[Any], bits: int) -> FloatArray:
    return (1 - 2 * distances / bits).astype(np.float32)


@contextmanager
def _faiss_threads(threads: int) -> Iterator[None]:
    """FAISS takes its number of threads from the calling thread, so it is put back after."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
