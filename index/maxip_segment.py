"""Segments of a MaxIP index: the tail, compared exactly, and sealed segments of lists.

What ``segments`` moves points through; ``MaxIPSegments`` makes both kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _maxip
from .alive_points import AlivePoints, JoinedPoints, rows_of
from .batches import FloatArray, Int64Array
from .buffers import Column, marked
from .errors import unusable_is_corrupt
from .files import read_arrays, write_arrays
from .hashed import Stored
from .maxip_effort import Calibration, calibrate
from .maxip_lists import ByteRows, CodeSet, Lists, MaxIPEffort, longest_norm, precise_products, tiny

KIND = "maxip-segment"
_QUERIES_AT_ONCE = 256

Answer = tuple[Int64Array, FloatArray, Int64Array]
"""Ids (q, k), scores (q, k), and how many codes or points were read for each query (q,)."""


@dataclass(frozen=True, eq=False)
class _View:
    """What a search of the tail sees; replaced as a whole."""

    ids: Int64Array
    alive: npt.NDArray[np.bool_]
    vectors: FloatArray


class MaxIPTail:
    """Points in order of arrival, all compared with every query.

    Args:
        dim: of the vectors.
    """

    def __init__(self, dim: int) -> None:
        self._ids = Column(np.int64)
        self._alive = Column(np.bool_)
        self._vectors = Column(np.float32, (dim,))
        self._rows: dict[int, int] = {}
        self.removed = 0
        self._publish()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Int64Array:
        """Ids in order of arrival, removed ones included, int64 (n,)."""
        return self._view.ids

    @property
    def view(self) -> _View:
        """Ids, which are alive, and vectors, as of now."""
        return self._view

    def append(self, ids: Int64Array, vectors: FloatArray) -> None:
        """Add points; those whose ids are here already take the place of the old ones."""
        first = len(self)
        stale = [self._rows[i] for i in ids.tolist() if i in self._rows]
        self._ids.append(ids)
        self._vectors.append(vectors)
        self._alive.append(np.ones(len(ids), bool))
        self._publish()
        self._rows.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))
        self._mark(stale)

    def _publish(self) -> None:
        self._view = _View(self._ids.snapshot(), self._alive.snapshot(), self._vectors.snapshot())

    def _mark(self, rows: list[int]) -> None:
        self._view.alive[rows] = False
        self.removed += len(rows)

    def remove(self, ids: Int64Array) -> Int64Array:
        """Mark points as removed; the ids that were here, int64."""
        rows = [self._rows.pop(i, -1) for i in ids.tolist()]
        here = np.array(rows, np.int64) >= 0
        self._mark([row for row in rows if row >= 0])
        return ids[here]

    def contains(self, ids: Int64Array) -> npt.NDArray[np.bool_]:
        """Which ids are here and not removed, bool (n,)."""
        return np.array([i in self._rows for i in ids.tolist()], bool)

    def alive(self) -> AlivePoints:
        """The points that are not removed."""
        view = self._view
        rows = marked(view.alive)
        return AlivePoints(view.ids[rows], rows, partial(rows_of, view.vectors))

    def dead_ids(self) -> Int64Array:
        """Ids of the removed points."""
        view = self._view
        return view.ids[~view.alive]

    def vectors_of(self, ids: Int64Array) -> tuple[npt.NDArray[np.bool_], FloatArray]:
        """Which ids are here, bool (n,), and the vectors of those."""
        rows = np.array([self._rows.get(i, -1) for i in ids.tolist()], np.int64)
        return rows >= 0, self._view.vectors[rows[rows >= 0]]

    def search(self, queries: FloatArray, k: int, floor: float) -> Answer:
        """The k best points of each query, of a score of at least `floor`."""
        view = self._view
        ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), np.nan, np.float32)
        rows = marked(view.alive)
        vectors = view.vectors[rows] if len(rows) < len(view.ids) else view.vectors
        points = view.ids[rows]
        short = np.flatnonzero(tiny(vectors))
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            asked = queries[start : start + _QUERIES_AT_ONCE]
            products = _maxip.products(vectors, asked)
            if len(short):
                products[:, short] = precise_products(vectors[short], asked)
            for row, product in enumerate(products, start):
                good = np.flatnonzero(product >= floor)
                if len(good) > k:
                    kth = np.partition(product[good], len(good) - k)[len(good) - k]
                    good = good[product[good] >= kth]
                best = good[np.lexsort((points[good], -product[good]))[:k]]
                ids[row, : len(best)] = points[best]
                scores[row, : len(best)] = product[best]
        return ids, scores, np.full(len(queries), len(points), np.int64)

    def longest(self) -> float:
        """The greatest norm of a point."""
        return longest_norm(self._view.vectors)

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part."""
        return {
            "ids": self._ids.nbytes + self._alive.nbytes,
            "features": self._vectors.nbytes,
        }


class MaxIPSegment:
    """A sealed segment: lists, and what they must be asked for a recall.

    Attributes:
        path: the file that the arrays are mapped from, if one.
    """

    def __init__(self, lists: Lists, calibration: Calibration, path: Path | None = None) -> None:
        self.lists = lists
        self.calibration = calibration
        self.path = path
        self.removed = int(np.count_nonzero(np.isnan(lists.code_sets[0].factors[lists.filled])))
        self._efforts: dict[tuple[float, int], MaxIPEffort] = {}

    def __len__(self) -> int:
        return self.lists.points

    @cached_property
    def ids(self) -> Int64Array:
        """Ids of all points, removed ones included, int64 (n,)."""
        return self.lists.ids[self.lists.filled]

    def effort(self, target: float, k: int) -> MaxIPEffort:
        """What a search looks at for this recall."""
        effort = self._efforts.get((target, k))
        if effort is None:
            effort = self.calibration.effort(target, self.lists.dim, k)
            self._efforts = {} if len(self._efforts) >= 64 else self._efforts
            self._efforts[target, k] = effort
        return effort

    def search(
        self, queries: FloatArray, k: int, effort: MaxIPEffort, floor: float, turn: int
    ) -> Answer:
        """The k best points found of each query."""
        return self.lists.search(queries, k, effort, floor, turn)

    def remove(self, ids: Int64Array) -> Int64Array:
        """Mark points as removed; the ids that were here, int64."""
        places = self.lists.find(ids)
        here = places >= 0
        self.remove_places(places[here])
        return ids[here]

    def remove_places(self, places: Int64Array) -> None:
        """Mark the points at these places of the lists as removed: all alive, without repeats."""
        self.lists.remove(places)
        self.removed += len(places)

    def contains(self, ids: Int64Array) -> npt.NDArray[np.bool_]:
        """Which ids are here and not removed, bool (n,)."""
        return self.lists.find(ids) >= 0

    def alive(self) -> AlivePoints:
        """The points that are not removed."""
        places = np.flatnonzero(self.lists.alive())
        return AlivePoints(self.lists.ids[places], places, partial(rows_of, self.lists.vectors))

    def dead_ids(self) -> Int64Array:
        """Ids of the removed points."""
        return self.ids[~self.lists.alive()[self.lists.filled]]

    def fork(self) -> MaxIPSegment:
        """The same points in the same memory, with marks of removed points of its own."""
        return MaxIPSegment(self.lists.fork(), self.calibration, self.path)

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays by name; :meth:`of_arrays` is the inverse."""
        lists = self.lists
        arrays: dict[str, npt.NDArray[Any]] = {
            "ids": lists.ids,
            "vectors": lists.vectors,
            "bytes": lists.rounded.rows,
            "scales": lists.rounded.scales,
            "centroids": lists.centroids.rows,
            "centroid_scales": lists.centroids.scales,
            "spreads": lists.spreads,
            "starts": lists.starts,
        }
        for number, code_set in enumerate(lists.code_sets):
            arrays |= {
                f"signs{number}": code_set.signs,
                f"codes{number}": code_set.codes,
                f"factors{number}": code_set.factors,
            }
        return arrays

    @classmethod
    def of_arrays(
        cls,
        arrays: dict[str, npt.NDArray[Any]],
        calibration: dict[str, Any],
        path: Path | None = None,
    ) -> MaxIPSegment:
        """The segment whose arrays these are; raises what arrays that do not fit raise."""
        code_sets = tuple(
            # Removals mark factors and spreads, so they are copied.
            CodeSet(arrays[f"signs{i}"], arrays[f"codes{i}"], np.array(arrays[f"factors{i}"]))
            for i in range(sum(name.startswith("codes") for name in arrays))
        )
        if not code_sets:
            raise ValueError("a segment has no codes")
        lists = Lists(
            arrays["ids"], arrays["vectors"], ByteRows(arrays["bytes"], arrays["scales"]),
            ByteRows(arrays["centroids"], arrays["centroid_scales"]), np.array(arrays["spreads"]),
            arrays["starts"], code_sets,
        )  # fmt: skip
        return cls(lists, Calibration.from_json(calibration), path)


@dataclass(frozen=True)
class MaxIPSegments:
    """Makes the segments of a MaxIP index: a ``segments.SegmentMaker``.

    Attributes:
        dim: of the vectors.
        seed: of clustering and codes.
        rotations: independent sets of codes.
    """

    dim: int
    seed: int
    rotations: int

    def mutable(self, capacity: int, like: Stored) -> MaxIPTail:  # noqa: ARG002
        """An empty tail."""
        return MaxIPTail(self.dim)

    def append(self, segment: MaxIPTail, ids: Int64Array, features: Stored) -> None:
        """Add points."""
        assert isinstance(features, np.ndarray)
        segment.append(ids, features)

    def seal(self, parts: Sequence[AlivePoints], path: Path | None) -> MaxIPSegment:
        """All points in lists; with a path, written there durably and mapped. Raises OSError."""
        points = JoinedPoints(parts)
        # By id, so that the segment does not depend on the order of arrival.
        order = np.argsort(points.ids, kind="stable")
        if len(order):
            vectors = np.asarray(points.take(order))
            lists = Lists.build(points.ids[order], vectors, self.seed, self.rotations)
        else:
            lists = Lists.nothing(self.dim, self.seed, self.rotations)
        segment = MaxIPSegment(lists, calibrate(lists, self.seed))
        if path is None:
            return segment
        header = {"index": KIND, "calibration": segment.calibration.as_json()}
        write_arrays(path, header, segment.arrays)
        return self.open(path)

    def open(self, path: Path) -> MaxIPSegment:
        """Map a file that was sealed for such an index."""
        return open_segment(path, self.dim, verify=False)


def open_segment(path: Path, dim: int | None, *, verify: bool = True) -> MaxIPSegment:
    """Map a segment file.

    Args:
        path: the file; it must stay unchanged while the segment is in use.
        dim: of the index that it belongs to.
        verify: compare the checksums of all arrays.

    Raises:
        CorruptFileError: the file is damaged, or does not belong to such an index.
        OSError: it cannot be opened.
    """
    header, arrays = read_arrays(path, KIND, verify=verify)
    with unusable_is_corrupt(path):
        segment = MaxIPSegment.of_arrays(arrays, header["calibration"], path)
        if segment.lists.dim != dim:
            raise ValueError("the vectors are of another dimension")
    return segment
