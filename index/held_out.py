"""A segment as it is without some of its points, which ask it for their neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import _native
from .batches import FloatArray, Int64Array
from .hashed import HashedBatch
from .minhash import UInt32Array
from .recall_sample import WANTED, RecallSample
from .selectors import Arrays, Selector
from .tuning import Effort
from .views import HashedQueries, estimate_view, search_view, view_of


class HeldOut:
    """A segment that is asked by some of its points, which are hidden from each other.

    Args:
        arrays: of the segment; only those of the features and sketches are read.
        selector: of the segment.
        points: how many there are.
        held: int64, places of those that ask.
        keys_of: keys of points by their places, uint32 (n, tables).
    """

    def __init__(
        self,
        arrays: Arrays,
        selector: Selector,
        points: int,
        held: Int64Array,
        keys_of: Callable[[Int64Array], UInt32Array],
    ) -> None:
        dead = np.zeros(-(-points // 8), np.uint8)
        np.bitwise_or.at(dead, held >> 3, (1 << (held & 7)).astype(np.uint8))
        unnamed = {name: array for name, array in arrays.items() if name != "ids"}
        self.points = points
        self.selector = selector
        self._keys_of = keys_of
        self._all = view_of(unnamed, points, dead, None)
        self._selected = view_of(unnamed, points, dead, selector)

    def everything(
        self, queries: HashedQueries, effort: Effort, floor: float
    ) -> tuple[Int64Array, FloatArray]:
        """See :class:`recall_sample.Asking`."""
        return _search_places(self._all, queries, effort, floor)

    def selected(
        self, queries: HashedQueries, effort: Effort, floor: float
    ) -> tuple[Int64Array, FloatArray]:
        """See :class:`recall_sample.Asking`."""
        return _search_places(self._selected, queries, effort, floor)

    def scanned(self, breadth: int) -> float:
        """See :class:`recall_sample.Asking`."""
        return self.selector.scanned(breadth, self.points)

    def reach(self, queries: HashedQueries, places: Int64Array) -> UInt32Array:
        """See :class:`recall_sample.Asking`."""
        return self.selector.reach(queries.keys, places, self.points, self._keys_of)


def ask_sample(
    sample: RecallSample, asked: HashedQueries, segment: HeldOut, threshold: float
) -> None:
    """Fill a recall sample: `asked` are the points that the segment holds out."""
    points, selector = segment.points, segment.selector
    sample.ask(
        asked,
        segment,
        threshold,
        broad=selector.broad(points),
        farthest=selector.farthest(points),
    )


def _search_places(
    view: _native.SegmentView, queries: HashedQueries, effort: Effort, floor: float
) -> tuple[Int64Array, FloatArray]:
    """The nearest points of a view without ids: by their features, or by what there is of them."""
    if isinstance(queries.features, HashedBatch):
        return estimate_view(view, queries, effort, WANTED, floor)
    return search_view(view, queries, effort, WANTED, floor)
