"""The segment that takes new points."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from . import _native
from .alive_points import AlivePoints, rows_of
from .batches import Int64Array, SetBatch, SparseBatch
from .buffers import Column, HashedColumn, feature_column
from .hashed import Family, HashedBatch, Stored, hashes_of
from .held_out import HeldOut, ask_sample
from .marks import is_dead, mark_dead
from .minhash import UInt8Array, UInt32Array
from .recall_sample import RecallSample, asked_of
from .segment import selector_bytes, split_sketches, spread, zeros
from .selectors import Arrays, GroupTests, Selector
from .tuning import Effort, GroupShape, Shape
from .views import HashedQueries, Viewed, view_of

# With so many points, and whenever there are twice as many, some of them are asked.
SAMPLE_FROM = 8_192


class MutableSegment(Viewed):
    """Points in order of arrival, searchable at once; an insert sets one bit a table.

    Where the selector of the layout cannot grow, every query scans all sketches.

    Args:
        family: hashes of the index.
        capacity: how many points it can take before it must be sealed.
        like: a batch of the kind of features that it will hold.
        layout: the selector's shape, by the number of points.
        threshold: least similarity of the neighbours whose recall is measured.
    """

    def __init__(
        self,
        family: Family,
        capacity: int,
        like: Stored,
        layout: Callable[[int], Shape | None],
        threshold: float,
    ) -> None:
        self.capacity = capacity
        self._family = family
        self._threshold = threshold
        self._ids = Column(np.int64)
        self._coarse = Column(np.uint8, (_native.COARSE_BYTES,))
        self._fine = Column(np.uint8, (family.sketch_bits // 8 - _native.COARSE_BYTES,))
        self._features = feature_column(like)
        shape = layout(capacity)
        self.selector: Selector | None = None
        if isinstance(shape, GroupShape):
            arrays = zeros(GroupTests.shapes(capacity, shape, family.tables))
            self.selector = GroupTests(arrays["bitmaps"], shape.group_size)
        self.dead = np.zeros(-(-capacity // 8), np.uint8)
        self.removed = 0
        self.sample: RecallSample | None = None
        self.outlooks: dict[tuple[int, float, int], tuple[Effort, float]] = {}
        self._places: dict[int, int] = {}
        self._publish()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def shape(self) -> Shape | None:
        """The parameters of the selector, if there is one."""
        return self.selector.shape if self.selector is not None else None

    @property
    def ids(self) -> Int64Array:
        """Ids in order of arrival, int64 (n,)."""
        return self._ids.snapshot()

    def append(
        self, ids: Int64Array, features: Stored, keys: UInt32Array, sketches: UInt8Array
    ) -> None:
        """Add hashed points; at most ``capacity - len(self)``."""
        # Asked at fixed sizes, whatever the batches: then answers do not depend on those.
        at = self._next_sample() - len(self)
        if self.selector is not None and at <= len(ids):
            self._append(ids[:at], rows_of(features, np.arange(at)), keys[:at], sketches[:at])
            self._ask()
            rest = np.arange(at, len(ids))
            ids, keys, sketches = ids[at:], keys[at:], sketches[at:]
            features = rows_of(features, rest)
        if len(ids):
            self._append(ids, features, keys, sketches)

    def _next_sample(self) -> int:
        return 2 * int(self.sample.points[0]) if self.sample is not None else SAMPLE_FROM

    def _ask(self) -> None:
        """Let some of the points ask for their neighbours: how far must queries look?"""
        assert self.selector is not None
        n = len(self)
        places = spread(n, asked_of(n))
        features = self._features.snapshot()

        def keys_of(at: Int64Array) -> UInt32Array:
            return hashes_of(rows_of(features, at), self._family)[0]

        asked = HashedQueries.of(rows_of(features, places), self._family)
        sample = RecallSample.empty(n)
        held_out = HeldOut(self._arrays(), self.selector, n, places, keys_of)
        ask_sample(sample, asked, held_out, self._threshold)
        self.sample = sample
        self.outlooks = {}  # those for as many points were told without it

    def _append(
        self, ids: Int64Array, features: Stored, keys: UInt32Array, sketches: UInt8Array
    ) -> None:
        first = len(self)
        self._features.append(features)
        coarse, fine = split_sketches(sketches)
        self._coarse.append(coarse)
        self._fine.append(fine)
        if self.selector is not None:
            self.selector.insert(keys, first)
        self._ids.append(ids)
        self._places.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))
        self._publish()

    def _publish(self) -> None:
        """Let searches from now on see all points so far, with one assignment."""
        view = view_of(self._arrays(), len(self._ids), self.dead, self.selector)
        view.any_dead = self.removed > 0
        self._view = view

    def _arrays(self) -> Arrays:
        features = self._features.snapshot()
        arrays: Arrays = {"coarse": self._coarse.snapshot(), "fine": self._fine.snapshot()}
        arrays["ids"] = self._ids.snapshot()
        if isinstance(features, SetBatch):
            arrays |= {"indptr": features.indptr, "elements": features.indices}
            if isinstance(features, SparseBatch):
                arrays["values"] = features.values
        elif not isinstance(features, HashedBatch):
            arrays["vectors"] = features
        return arrays

    def remove(self, ids: Int64Array) -> Int64Array:
        """See :meth:`Segment.remove`."""
        places = np.array([self._places.pop(int(i), -1) for i in ids], np.int64)
        return mark_dead(self, places[places >= 0], ids[places >= 0])

    def contains(self, ids: Int64Array) -> npt.NDArray[np.bool_]:
        """Which ids are here and not removed, bool (n,)."""
        return np.array([int(i) in self._places for i in ids], bool)

    def alive(self) -> AlivePoints:
        """See :meth:`Segment.alive`."""
        places = np.flatnonzero(~is_dead(self.dead, np.arange(len(self))))
        features = self._features.snapshot()
        return AlivePoints(self.ids[places], places, partial(rows_of, features))

    def dead_ids(self) -> Int64Array:
        """Ids of the removed points."""
        return self.ids[is_dead(self.dead, np.arange(len(self)))]

    @property
    def nbytes(self) -> dict[str, int]:
        """See :attr:`Segment.nbytes`."""
        kept = self._features.nbytes
        hashed = isinstance(self._features, HashedColumn)
        return selector_bytes(self.selector, self.sample) | {
            "sketches": self._coarse.nbytes + self._fine.nbytes,
            "ids": self._ids.nbytes + self.dead.nbytes,
            "features": 0 if hashed else kept,
            "hashes": kept if hashed else 0,
        }
