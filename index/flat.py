"""Exact search: every point is compared. The oracle of all recall figures, and a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .batches import Batch, FloatArray, Int64Array, SetBatch
from .engine import Metric, check_batch, check_ids, check_k, check_metric, smallest_hit
from .files import read_arrays, unusable_is_corrupt, write_arrays
from .points import Points, PointsView


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
        self._points = Points()
        self._view: PointsView | None = None

    def __len__(self) -> int:
        return len(self._points)

    def check(self, batch: Any) -> Batch:
        """The batch as this index would store or search it; see :func:`engine.check_batch`."""
        return check_batch(batch, self.metric, self._points.dim)

    def add(self, batch: Any, ids: Any = None) -> None:
        """Add points.

        Args:
            batch: n sets, or float32 (n, dim).
            ids: int64 (n,), new ones; the next free numbers unless given.

        Raises:
            InvalidInputError: unusable features, or an id that is present or given twice.
        """
        features = self.check(batch)
        new_ids = check_ids(ids, len(features), self._points.next_id)
        self._points.refuse_present(new_ids)
        if not len(features):
            return
        self._points.append(new_ids, features)
        self._view = self._points.view()

    def remove(self, ids: Any) -> int:
        """Remove points by id; the number of those that were present."""
        return len(self._points.remove(ids))

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
        floor = smallest_hit(self.metric, threshold)
        view = self._view
        if view is None:
            shape = (len(queries), k)
            return np.full(shape, -1, np.int64), np.full(shape, np.nan, np.float32)
        return view.search(queries, k, floor)

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
        return self._points.nbytes

    def save(self, path: str | Path) -> None:
        """Write the index to a file, replacing it atomically."""
        empty = SetBatch.concat([]) if self.metric == "jaccard" else np.zeros((0, 1), np.float32)
        ids, features = self._points.alive() or (np.zeros(0, np.int64), empty)
        arrays: dict[str, np.ndarray[Any, Any]] = {"ids": ids}
        if isinstance(features, SetBatch):
            arrays |= {"indptr": features.indptr, "elements": features.indices}
        else:
            arrays["vectors"] = features
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
