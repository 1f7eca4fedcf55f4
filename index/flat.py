"""Exact search: every point is compared. The oracle of all recall figures, and a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import _native
from .batches import Batch, FloatArray, Int64Array, SetBatch
from .buffers import Column, SetColumn, VectorColumn, feature_column
from .engine import Metric, check_batch, check_ids, check_k, check_metric, smallest_hit
from .errors import InvalidInputError
from .files import read_arrays, unusable_is_corrupt, write_arrays
from .segment import SALT

_BLOCK = 256  # queries compared at a time, with at most so many scores
_BLOCK_SCORES = 1 << 25


class FlatIndex:
    """Exact nearest neighbours by comparing with every point.

    Args:
        metric: ``"jaccard"`` (sets), ``"cosine"`` or ``"ip"`` (vectors).

    One thread may add and remove while others search; a search sees what was complete when it
    began.
    """

    kind = "flat"

    def __init__(self, metric: Metric = "jaccard") -> None:
        self.metric = check_metric(metric, ("jaccard", "cosine", "ip"))
        self._ids = Column(np.int64)
        self._alive = Column(np.bool_)
        self._features: SetColumn | VectorColumn | None = None
        self._places: dict[int, int] = {}
        self._snapshot: tuple[Int64Array, np.ndarray[Any, Any], Batch] | None = None

    def __len__(self) -> int:
        return len(self._places)

    def check(self, batch: Any) -> Batch:
        """The batch as this index would store or search it; see :func:`engine.check_batch`."""
        stored = self._snapshot[2] if self._snapshot else None
        dim = stored.shape[1] if isinstance(stored, np.ndarray) else None
        return check_batch(batch, self.metric, dim)

    def add(self, batch: Any, ids: Any = None) -> None:
        """Add points.

        Args:
            batch: n sets, or float32 (n, dim).
            ids: int64 (n,), new ones; the next free numbers unless given.

        Raises:
            InvalidInputError: unusable features, or an id that is present or given twice.
        """
        features = self.check(batch)
        new_ids = check_ids(ids, len(features), next_id=self._next_id())
        present = [i for i in new_ids.tolist() if i in self._places]
        if present:
            raise InvalidInputError(f"id {present[0]} is in the index already", field="ids")
        if not len(features):
            return
        if self._features is None:
            self._features = feature_column(features)
        first = len(self._ids)
        self._features.append(features)
        self._ids.append(new_ids)
        self._alive.append(np.ones(len(new_ids), bool))
        self._places.update(zip(new_ids.tolist(), range(first, first + len(new_ids)), strict=True))
        self._snapshot = (self._ids.snapshot(), self._alive.snapshot(), self._features.snapshot())

    def _next_id(self) -> int:
        return int(self._ids.snapshot().max()) + 1 if len(self._ids) else 0

    def remove(self, ids: Any) -> int:
        """Remove points by id; the number of those that were present."""
        removed = 0
        alive = self._alive.snapshot()
        for i in np.atleast_1d(np.asarray(ids, np.int64)).tolist():
            place = self._places.pop(i, None)
            if place is not None:
                alive[place] = False
                removed += 1
        return removed

    def search(
        self,
        batch: Any,
        k: int,
        threshold: float | None = None,
        target_recall: float | None = None,  # noqa: ARG002 - an exact answer meets any target
    ) -> tuple[Int64Array, FloatArray]:
        """The k most similar points of each query.

        Args:
            batch: q sets, or float32 (q, dim).
            k: hits wanted for each query.
            threshold: least similarity of a hit.
            target_recall: accepted for symmetry with other engines.

        Returns:
            ids int64 (q, k) and scores float32 (q, k) by falling score, then rising id; -1 and
            NaN after the last hit. For Jaccard a point that shares no element is no hit.
        """
        k = check_k(k)
        queries = self.check(batch)
        ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), np.nan, np.float32)
        if self._snapshot is None:
            return ids, scores
        points, alive, features = self._snapshot
        live = np.flatnonzero(alive)
        floor = smallest_hit(self.metric, threshold)
        for row, similarity in enumerate(self._similarities(queries, features, live)):
            best = _best(similarity, points[live], k, floor)
            ids[row, : len(best)] = points[live[best]]
            scores[row, : len(best)] = similarity[best]
        return ids, scores

    def _similarities(self, queries: Batch, features: Batch, live: Int64Array) -> Any:
        """Similarities of one query after another with all live points, float32 (live,)."""
        everything = len(live) == len(features)
        block = max(1, min(_BLOCK, _BLOCK_SCORES // max(1, len(features))))
        for start in range(0, len(queries), block):
            if isinstance(features, SetBatch):
                assert isinstance(queries, SetBatch)
                part = queries.slice(start, min(start + block, len(queries)))
                scores = _native.jaccard_of_all(
                    features.indptr, features.indices, part.indptr, part.indices, SALT
                )
            else:
                assert not isinstance(queries, SetBatch)
                scores = queries[start : start + block] @ features.T
            yield from scores if everything else scores[:, live]

    def explain(self) -> dict[str, Any]:
        """What the index is and promises, in words and numbers."""
        return {
            "index": self.kind,
            "metric": self.metric,
            "points": len(self),
            "predicted_recall": 1.0,
            "why": "every point is compared; answers are exact",
        }

    def recall_estimate(self, target_recall: float | None = None) -> float:  # noqa: ARG002
        """Expected recall of an answer: 1."""
        return 1.0

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part: ``"ids"`` and ``"features"``."""
        features = self._features.nbytes if self._features is not None else 0
        return {"ids": self._ids.nbytes + self._alive.nbytes, "features": features}

    def save(self, path: str | Path) -> None:
        """Write the index to a file, replacing it atomically."""
        ids, alive, features = self._snapshot or (
            np.zeros(0, np.int64),
            np.zeros(0, bool),
            SetBatch.concat([]) if self.metric == "jaccard" else np.zeros((0, 1), np.float32),
        )
        live = np.flatnonzero(alive)
        arrays: dict[str, np.ndarray[Any, Any]] = {"ids": ids[live]}
        if isinstance(features, SetBatch):
            kept = features.take(live)
            arrays |= {"indptr": kept.indptr, "elements": kept.indices}
        else:
            arrays["vectors"] = features[live]
        write_arrays(Path(path), {"index": self.kind, "metric": self.metric}, arrays)

    @classmethod
    def load(cls, path: str | Path) -> FlatIndex:
        """Read an index that :meth:`save` wrote.

        Raises:
            CorruptFileError: the file is damaged or of another kind.
        """
        header, arrays = read_arrays(Path(path), kind=cls.kind)
        with unusable_is_corrupt(path):
            index = cls(header["metric"])
            if index.metric == "jaccard":
                features: Batch = SetBatch(arrays["indptr"], arrays["elements"])
            else:
                features = arrays["vectors"]
            if len(arrays["ids"]):
                index.add(features, arrays["ids"])
        return index


def _best(similarity: FloatArray, ids: Int64Array, k: int, floor: float) -> Int64Array:
    """Places of the k highest scores of at least `floor`; ties by rising id."""
    places = np.flatnonzero(similarity >= floor)
    if len(places) > k:
        kth = np.partition(similarity[places], len(places) - k)[len(places) - k]
        places = places[similarity[places] >= kth]
    order = np.lexsort((ids[places], -similarity[places]))[:k]
    return np.asarray(places[order], np.int64)
