"""Exact search: every point is compared. The oracle of all recall figures, and a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .alive_points import JoinedPoints
from .batches import Batch, FloatArray, Int64Array, SetBatch, SparseBatch
from .engine import (
    Metric,
    check_features,
    check_ids,
    check_k,
    check_metric,
    smallest_hit,
)
from .errors import CorruptFileError, InvalidInputError, unusable_is_corrupt
from .files import read_arrays, write_arrays
from .flat_segments import (
    FlatSegment,
    FlatSegments,
    FlatTail,
    feature_arrays,
    features_of,
    open_flat_segment,
)
from .places import rising
from .segments import Merge, Sealed, Segments
from .topk import merge_topk

ENDLESS = 1 << 62  # points: a mutable segment that is never full


class FlatIndex:
    """Exact nearest neighbours by comparing with every point.

    Args:
        metric: ``"jaccard"`` (sets), ``"cosine"`` or ``"ip"`` (vectors, all dense or all sparse).
        capacity: points of a mutable segment, for whoever seals segments into files beside the
            writer (see ``segments``); unless given all points stay in one.
        settle: accepted for symmetry with other engines; sealing is never done here.

    One thread may add and remove while others search; a search sees what was complete when it
    began.
    """

    kind = "flat"

    def __init__(
        self,
        metric: Metric = "jaccard",
        *,
        capacity: int | None = None,
        settle: bool = True,  # noqa: ARG002
    ) -> None:
        self.metric = check_metric(metric, ("jaccard", "cosine", "ip"))
        self.capacity = ENDLESS if capacity is None else int(capacity)
        self.dim: int | None = None
        self.sparse: bool | None = None  # of vectors; the first decide
        self._next_id = 0
        self._segments: Segments[FlatSegment, FlatTail] = Segments(
            FlatSegments(), self.capacity, settle=False
        )

    def __len__(self) -> int:
        return len(self._segments)

    def check(self, batch: Any) -> Batch:
        """The batch as this index would store or search it; see :func:`engine.check_features`."""
        return check_features(batch, self.metric, self.dim, self.sparse)

    def add(self, batch: Any, ids: Any = None) -> None:
        """Add points.

        Args:
            batch: n sets, float32 (n, dim), or sparse vectors (a ``SparseBatch`` or scipy CSR).
            ids: int64 (n,), new ones; the next free numbers unless given.

        Raises:
            InvalidInputError: unusable features, or an id that is present or given twice.
        """
        features = self.check(batch)
        new_ids = check_ids(ids, len(features), self._next_id)
        present = self._segments.first_present(new_ids)
        if present is not None:
            raise InvalidInputError(
                f"id {present} is in the index already; remove it first", field="ids"
            )
        if not len(features):
            return
        self._hold(features)
        self._segments.append(new_ids, features)
        self._next_id = max(self._next_id, int(new_ids.max()) + 1)

    def _hold(self, features: Batch) -> None:
        """From now on take points of this kind alone."""
        self.sparse = isinstance(features, SparseBatch)
        if not isinstance(features, SetBatch):
            self.dim = features.shape[1]

    def remove(self, ids: Any) -> int:
        """Remove points by id; the number of those that were present."""
        return self._segments.remove(rising(np.asarray(ids, np.int64).reshape(-1)))

    # --- sealing beside a writer, see segments.py ------------------------------------------------

    @property
    def frozen(self) -> int:
        """Full mutable segments that wait to be sealed."""
        return self._segments.frozen

    def freeze(self) -> None:
        """Let the mutable segment wait to be sealed, full or not."""
        self._segments.freeze()

    def next_seal(self) -> Merge[FlatSegment, FlatTail] | None:
        """The oldest full mutable segment alone, if there is one; quick, for the writer."""
        return self._segments.next_seal()

    def next_tier(self) -> Merge[FlatSegment, FlatTail] | None:
        """Sealed segments that are to become one, if any are; quick, for the writer."""
        return self._segments.next_tier()

    def finish(self, merge: Merge[FlatSegment, FlatTail], segment: FlatSegment) -> None:
        """Put a built segment in the place of its sources; quick, for the writer."""
        self._segments.finish(merge, segment)

    @property
    def parameters(self) -> dict[str, Any]:
        """All that :meth:`restored` needs beside the segments, as JSON values."""
        return {"metric": self.metric, "dim": self.dim, "next_id": self._next_id}

    @classmethod
    def restored(
        cls,
        parameters: dict[str, Any],
        segments: Sequence[tuple[int, Path]] = (),
        *,
        verify: bool = True,
        settle: bool = True,
    ) -> FlatIndex:
        """An index over segment files.

        Args:
            parameters: of the index that wrote them; also ``capacity``.
            segments: chunks and path of each file, largest first.
            verify: compare all checksums first.
            settle: see the class.

        Raises:
            CorruptFileError: a file is damaged, or does not belong to these parameters.
        """
        index = cls(parameters["metric"], capacity=parameters.get("capacity"), settle=settle)
        index.dim = parameters["dim"]
        opened = []
        for chunks, path in segments:
            segment = open_flat_segment(Path(path), verify=verify)
            features = segment.view.features
            dim = None if isinstance(features, SetBatch) else features.shape[1]
            sparse = isinstance(features, SparseBatch)
            if dim != index.dim or index.sparse not in (None, sparse):
                raise CorruptFileError("the segment has points of another kind", path=str(path))
            index._hold(features)
            opened.append(Sealed(chunks, segment))
        index._segments.restore(opened)
        index._next_id = int(parameters["next_id"])
        return index

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
        # As they are now: a tail may grow while the others are searched.
        views = [s.view for s in self._segments.searchable() if s.view is not None]
        if not views:
            shape = (len(queries), k)
            return np.full(shape, -1, np.int64), np.full(shape, np.nan, np.float32)
        return merge_topk([view.search(queries, k, floor) for view in views], k)

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
        parts = [segment.nbytes for segment in self._segments.searchable()]
        return {name: sum(part[name] for part in parts) for name in ("ids", "features")}

    def save(self, path: str | Path) -> None:
        """Write the index to a file, replacing it atomically."""
        features: Batch
        parts = [segment.alive() for segment in self._segments.searchable()]
        if parts:
            points = JoinedPoints(parts)
            ids, features = points.ids, points.features(np.arange(len(points.ids)))
        else:
            ids = np.zeros(0, np.int64)
            features = SetBatch.concat([]) if self.metric == "jaccard" else np.zeros((0, 1), "f4")
        arrays: dict[str, np.ndarray[Any, Any]] = {"ids": ids, **feature_arrays(features)}
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
            features = features_of(arrays)
            of_sets = isinstance(features, SetBatch) and not isinstance(features, SparseBatch)
            if of_sets != (index.metric == "jaccard"):
                raise ValueError("features and metric do not fit together")
            if len(arrays["ids"]):
                index.add(features, arrays["ids"])
        return index
