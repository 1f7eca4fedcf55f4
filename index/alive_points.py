"""Points on their way into a sealed segment: ids, and features when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import overload

import numpy as np

from .batches import Batch, Int64Array, SetBatch, SparseBatch
from .hashed import HashedBatch, Stored


@overload
def rows_of(features: Batch, rows: Int64Array) -> Batch: ...


@overload
def rows_of(features: Stored, rows: Int64Array) -> Stored: ...


def rows_of(features: Stored, rows: Int64Array) -> Stored:
    """Chosen rows of a batch; of vectors the batch itself where all are chosen in order."""
    if not isinstance(features, np.ndarray):
        return features.take(rows)
    if len(rows) == len(features) and np.array_equal(rows, np.arange(len(features))):
        return features
    return features[rows]


@dataclass(frozen=True, eq=False)
class AlivePoints:
    """Points to merge: their ids, and their features when they are asked for.

    Attributes:
        ids: int64 (n,).
        places: int64 (n,), what `take_places` calls them.
        take_places: features at places.
    """

    ids: Int64Array
    places: Int64Array
    take_places: Callable[[Int64Array], Stored]

    def take(self, rows: Int64Array) -> Stored:
        """Features of the points with these numbers, 0 .. n."""
        return self.take_places(self.places[rows])

    @staticmethod
    def of(ids: Int64Array, features: Stored) -> AlivePoints:
        """Points that lie in a batch."""
        return AlivePoints(ids, np.arange(len(ids)), partial(rows_of, features))


class JoinedPoints:
    """Several parts as one, without bringing their features together."""

    def __init__(self, parts: Sequence[AlivePoints]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0] + [len(part.ids) for part in parts])
        self.ids: Int64Array = np.concatenate([part.ids for part in parts])

    def take(self, rows: Int64Array) -> Stored:
        """Features of the points with these numbers over all parts, in this order."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        owners = np.unique(owner)
        if len(owners) <= 1:
            only = int(owners[0]) if len(owners) else 0
            return self._parts[only].take(rows - self._starts[only])
        grouped = np.argsort(owner, kind="stable")
        taken: list[Stored] = [
            self._parts[o].take(rows[owner == o] - self._starts[o]) for o in owners
        ]
        back = np.empty(len(rows), np.int64)
        back[grouped] = np.arange(len(rows))
        return rows_of(concat(taken), back)

    def features(self, rows: Int64Array) -> Batch:
        """As :meth:`take`, of points whose features are kept."""
        taken = self.take(rows)
        assert not isinstance(taken, HashedBatch)
        return taken


@overload
def concat(batches: Sequence[Batch]) -> Batch: ...


@overload
def concat(batches: Sequence[Stored]) -> Stored: ...


def concat(batches: Sequence[Stored]) -> Stored:
    """All rows of batches of one kind, in order."""
    if len(batches) == 1:
        return batches[0]
    if isinstance(batches[0], SparseBatch):
        return SparseBatch.concat([rows for rows in batches if isinstance(rows, SparseBatch)])
    if isinstance(batches[0], SetBatch):
        return SetBatch.concat([rows for rows in batches if isinstance(rows, SetBatch)])
    if isinstance(batches[0], HashedBatch):
        return HashedBatch.concat([rows for rows in batches if isinstance(rows, HashedBatch)])
    return np.concatenate([rows for rows in batches if isinstance(rows, np.ndarray)])
