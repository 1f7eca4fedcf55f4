"""The segments of an exact index: points as they came, and sealed ones mapped from a file.

A file of arrays (``files``) of kind ``flat-segment``, its n points in order of arrival: ``ids`` and
their features, under the names that other segments give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .abandon import checkpoint
from .alive_points import AlivePoints, JoinedPoints, rows_of
from .batches import Batch, Int64Array, SetBatch, SparseBatch
from .buffers import marked
from .errors import unusable_is_corrupt
from .files import ArrayFileWriter, Shapes, check_offsets, read_arrays
from .hashed import HashedBatch, Stored
from .places import Places
from .points import Points, PointsView

__all__ = [
    "FlatSegment",
    "FlatSegments",
    "FlatTail",
    "feature_arrays",
    "features_of",
    "open_flat_segment",
]

KIND = "flat-segment"
BLOCK_POINTS = 16_384  # copied at a time when segments are written


class FlatSegment:
    """Points that take no more beside them; `view` is what a search compares."""

    def __init__(self, ids: Int64Array, features: Batch, path: Path | None = None) -> None:
        self.path = path
        self.removed = 0
        self.view = PointsView(ids, np.ones(len(ids), bool), features)
        self._places: Places | None = None

    def __len__(self) -> int:
        return len(self.view)

    @property
    def ids(self) -> Int64Array:
        """Ids of all points, int64 (n,)."""
        return self.view.ids

    def remove(self, ids: Int64Array) -> Int64Array:
        """Mark points as removed, ids rising; the ids that were here, int64."""
        ids = self._by_id.among(ids)
        places, here = self._by_id.find(ids)
        here[here] = self.view.alive[places[here]]
        self.view.alive[places[here]] = False
        self.removed += int(here.sum())
        return ids[here]

    def contains(self, ids: Int64Array) -> npt.NDArray[np.bool_]:
        """Which ids are here and not removed, bool (n,)."""
        places, here = self._by_id.find(ids)
        here[here] = self.view.alive[places[here]]
        return here

    @property
    def _by_id(self) -> Places:
        if self._places is None:
            self._places = Places(self.ids)
        return self._places

    def alive(self) -> AlivePoints:
        """The points that are not removed."""
        return _alive(self.view)

    def dead_ids(self) -> Int64Array:
        """Ids of the removed points."""
        return self.ids[~self.view.alive]

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part."""
        features = feature_arrays(self.view.features)
        return {
            "ids": self.ids.nbytes + self.view.alive.nbytes,
            "features": sum(array.nbytes for array in features.values()),
        }


class FlatTail:
    """Points in order of arrival; one thread may add and remove while others use a `view`."""

    def __init__(self) -> None:
        self.removed = 0
        self._points = Points()
        self._taken = 0
        self.view: PointsView | None = None

    def __len__(self) -> int:
        return self._taken

    @property
    def ids(self) -> Int64Array:
        """Ids of all points, int64 (n,)."""
        return np.zeros(0, np.int64) if self.view is None else self.view.ids

    def append(self, ids: Int64Array, features: Batch) -> None:
        """Add points with new ids."""
        if len(ids):
            self._points.append(ids, features)
            self.view = self._points.view()
            self._taken += len(ids)

    def remove(self, ids: Int64Array) -> Int64Array:
        """See `FlatSegment.remove`."""
        places = self._points.remove(ids)
        self.removed += len(places)
        return self.ids[places]

    def contains(self, ids: Int64Array) -> npt.NDArray[np.bool_]:
        """See `FlatSegment.contains`."""
        return self._points.are_present(ids)

    def alive(self) -> AlivePoints:
        """The points that are not removed."""
        assert self.view is not None
        return _alive(self.view)

    def dead_ids(self) -> Int64Array:
        """Ids of the removed points."""
        return self.ids[:0] if self.view is None else self.ids[~self.view.alive]

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part."""
        return self._points.nbytes


class FlatSegments:
    """Makes the segments of an exact index: a ``segments.SegmentMaker``."""

    def mutable(self, capacity: int, like: Stored) -> FlatTail:  # noqa: ARG002 - it grows
        """An empty segment."""
        return FlatTail()

    def append(self, segment: FlatTail, ids: Int64Array, features: Stored) -> None:
        """Add points."""
        assert not isinstance(features, HashedBatch)
        segment.append(ids, features)

    def seal(self, parts: Sequence[AlivePoints], path: Path | None) -> FlatSegment:
        """All points in a sealed segment, in memory or mapped from a file; raises OSError."""
        points = JoinedPoints(parts)
        rows = np.arange(len(points.ids))
        if path is None:
            return FlatSegment(points.ids, points.features(rows))
        blocks = [rows[i : i + BLOCK_POINTS] for i in range(0, len(rows), BLOCK_POINTS)]
        with ArrayFileWriter(path, {"index": KIND}, _shapes(points, blocks)) as writer:
            writer.arrays["ids"][:] = points.ids
            for block in blocks:
                checkpoint()
                _write(writer.arrays, block, points.features(block))
            writer.publish()
        return self.open(path)

    def open(self, path: Path) -> FlatSegment:
        """Map a file that was sealed for such an index."""
        return open_flat_segment(path, verify=False)


def open_flat_segment(path: Path, *, verify: bool = True) -> FlatSegment:
    """Map a segment file. Raises CorruptFileError, OSError."""
    _, arrays = read_arrays(path, KIND, verify=verify)
    with unusable_is_corrupt(path):
        features = features_of(arrays)
        if len(features) != len(arrays["ids"]):
            raise ValueError("ids and features do not fit together")
        return FlatSegment(arrays["ids"], features, path)


def feature_arrays(features: Batch) -> dict[str, npt.NDArray[Any]]:
    """The arrays of features, as files name them."""
    if not isinstance(features, SetBatch):
        return {"vectors": features}
    values = {"values": features.values} if isinstance(features, SparseBatch) else {}
    return {"indptr": features.indptr, "elements": features.indices, **values}


def features_of(arrays: dict[str, npt.NDArray[Any]]) -> Batch:
    """Features from the arrays of a file. Raises ValueError where they do not fit together."""
    if "vectors" in arrays:
        return arrays["vectors"]
    check_offsets(arrays["indptr"], arrays["elements"])
    if "values" not in arrays:
        return SetBatch(arrays["indptr"], arrays["elements"])
    if len(arrays["values"]) != len(arrays["elements"]):
        raise ValueError("values and elements do not fit together")
    return SparseBatch(arrays["indptr"], arrays["elements"], arrays["values"])


def _shapes(points: JoinedPoints, blocks: Sequence[Int64Array]) -> Shapes:
    count = len(points.ids)
    shapes: Shapes = {"ids": (np.int64, (count,))}
    first = points.features(np.arange(min(count, 1)))
    if not isinstance(first, SetBatch):
        return shapes | {"vectors": (np.float32, (count, first.shape[1]))}
    elements = sum(_elements(points.features(block)) for block in blocks)
    sizes: Shapes = {"indptr": (np.int64, (count + 1,)), "elements": (np.uint64, (elements,))}
    if isinstance(first, SparseBatch):
        sizes["values"] = (np.float32, (elements,))
    return shapes | sizes


def _elements(features: Batch) -> int:
    assert isinstance(features, SetBatch)
    return int(features.indptr[-1] - features.indptr[0])


def _write(arrays: dict[str, npt.NDArray[Any]], rows: Int64Array, features: Batch) -> None:
    first, last = int(rows[0]), int(rows[-1])
    if not isinstance(features, SetBatch):
        arrays["vectors"][first : last + 1] = features
        return
    starts = arrays["indptr"]
    starts[first + 1 : last + 2] = features.indptr[1:] - features.indptr[0] + starts[first]
    here, taken = (
        slice(starts[first], starts[last + 1]),
        slice(features.indptr[0], features.indptr[-1]),
    )
    arrays["elements"][here] = features.indices[taken]
    if isinstance(features, SparseBatch):
        arrays["values"][here] = features.values[taken]


def _alive(view: PointsView) -> AlivePoints:
    places = marked(view.alive)
    return AlivePoints(view.ids[places], places, partial(rows_of, view.features))
