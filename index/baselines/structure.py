"""FAISS's structure over the first points of an index, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from closeby.index.abandon import checkpoint
from closeby.index.batches import Int64Array
from closeby.index.points import PointsView

from .curve import RecallCurve

# Points added at a time: between two of these a build can be given up.
ADDED_AT_ONCE = 16_384


@dataclass(frozen=True, eq=False)
class Structure:
    """FAISS's structure over the first points, and what is known of it.

    Attributes:
        faiss_index: it; only searched from now on.
        places: int64 (n,), place among the points of each position in the structure; -1 where the
            point is not among them any more.
        positions: int64 (covered,), the inverse: of the first points, in order of arrival; -1 where
            a removed point is in no structure.
        kept: uint8 (ceil(n / 8),), bit i is set unless the point at position i was removed.
        curve: recall by breadth.
        measured_at: points that it had when that was measured.
        trained_at: points that it had when it was built anew.
    """

    faiss_index: Any
    places: Int64Array
    positions: Int64Array
    kept: npt.NDArray[np.uint8]
    curve: RecallCurve
    measured_at: int
    trained_at: int
    removed: list[int] = field(default_factory=lambda: [0])

    def __len__(self) -> int:
        """Points that it covers, the first in order of arrival."""
        return len(self.positions)

    @property
    def gone(self) -> int:
        """Positions whose point is not among the points any more."""
        return int(np.count_nonzero(self.places < 0))

    @classmethod
    def of(
        cls,
        faiss_index: Any,
        places: Int64Array,
        covered: int,
        curve: RecallCurve,
        measured_at: int,
        trained_at: int,
    ) -> Structure:
        """A structure of which no point is removed but those that have no place."""
        here = places >= 0
        positions = np.full(covered, -1, np.int64)
        positions[places[here]] = np.flatnonzero(here)
        kept = np.packbits(here, bitorder="little")
        removed = [int(np.count_nonzero(~here))]
        return cls(faiss_index, places, positions, kept, curve, measured_at, trained_at, removed)

    def remove(self, places: Int64Array) -> None:
        """Mask the points at these places, as far as they are covered."""
        gone = self.positions[places[places < len(self)]]
        gone = gone[gone >= 0]
        np.bitwise_and.at(self.kept, gone >> 3, ~(1 << (gone & 7)).astype(np.uint8))
        self.removed[0] += len(gone)

    @property
    def nbytes(self) -> int:
        """Bytes of places and marks."""
        return self.places.nbytes + self.positions.nbytes + self.kept.nbytes


@dataclass(frozen=True, eq=False)
class Asked:
    """What one call asks: a structure, finished or not.

    Attributes: as of :class:`Structure`; `removed` of its points are not alive.
    """

    points: PointsView
    faiss_index: Any
    places: Int64Array
    kept: npt.NDArray[np.uint8]
    removed: int

    @classmethod
    def unfinished(cls, points: PointsView, faiss_index: Any, places: Int64Array) -> Asked:
        """A structure that is being built."""
        alive = alive_at(points, places)
        kept = np.packbits(alive, bitorder="little")
        return cls(points, faiss_index, places, kept, int(np.count_nonzero(~alive)))


def alive_at(points: PointsView, places: Int64Array) -> npt.NDArray[np.bool_]:
    """Which positions of a structure hold a point that is alive, bool (n,)."""
    return (places >= 0) & points.alive[places]


def add_all(faiss_index: Any, codes: npt.NDArray[Any]) -> None:
    """Let FAISS take in points, some at a time."""
    for start in range(0, len(codes), ADDED_AT_ONCE):
        checkpoint()
        faiss_index.add(codes[start : start + ADDED_AT_ONCE])


@contextmanager
def faiss_threads(threads: int) -> Iterator[None]:
    """FAISS takes its number of threads from the calling thread, so it is put back after."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
