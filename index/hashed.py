"""Points of which nothing is kept but their hashes.

What group tests, LSH tables and sketches need of a point is a few hundred bytes, whatever it was
made of: an index that keeps no features keeps these instead. It adds, merges and reloads them as
others do features, and its answers are what sketches estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .batches import Batch
from .errors import InvalidInputError
from .minhash import MinHashFamily, UInt8Array, UInt32Array
from .projection import SignedRandomProjection

Family: TypeAlias = MinHashFamily | SignedRandomProjection


@dataclass(frozen=True, eq=False)
class HashedBatch:
    """Hashes of n points, in the place of their features.

    Attributes:
        keys: (n, tables), uint32; or uint16, their upper halves, where no more is looked at.
        sketches: uint8 (n, sketch bytes).
        order: uint32 (n, words), sort keys that put similar points side by side.
    """

    keys: npt.NDArray[Any]
    sketches: UInt8Array
    order: UInt32Array

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def table_keys(self) -> UInt32Array:
        """Keys as selectors take them, uint32 (n, tables)."""
        if self.keys.dtype == np.uint16:
            return self.keys.astype(np.uint32) << np.uint32(16)
        return np.asarray(self.keys, np.uint32)

    @property
    def widths(self) -> tuple[npt.DTypeLike, int, int, int]:
        """Type of the keys, their number, bytes of a sketch, words of a sort key."""
        return self.keys.dtype, self.keys.shape[1], self.sketches.shape[1], self.order.shape[1]

    def check(self, family: Family, key_type: npt.DTypeLike) -> None:
        """Raise InvalidInputError unless this is what :func:`hash_all` makes with these."""
        words = 4 if isinstance(family, MinHashFamily) else 2
        if self.widths != (key_type, family.tables, family.sketch_bits // 8, words):
            raise InvalidInputError(
                "the hashes are of an index with other parameters", field="batch"
            )

    def slice(self, start: int, stop: int) -> HashedBatch:
        """Points start .. stop, without copying them."""
        rows = slice(start, stop)
        return HashedBatch(self.keys[rows], self.sketches[rows], self.order[rows])

    def take(self, rows: npt.ArrayLike) -> HashedBatch:
        """The points with these numbers, in this order."""
        chosen = np.asarray(rows, np.int64)
        return HashedBatch(self.keys[chosen], self.sketches[chosen], self.order[chosen])

    @staticmethod
    def concat(batches: Sequence[HashedBatch]) -> HashedBatch:
        """All the points of several batches, at least one, in order."""
        return HashedBatch(
            np.concatenate([batch.keys for batch in batches]),
            np.concatenate([batch.sketches for batch in batches]),
            np.concatenate([batch.order for batch in batches]),
        )


Stored: TypeAlias = Batch | HashedBatch
"""What an index keeps of its points."""


def hash_all(batch: Batch, family: Family, key_type: npt.DTypeLike) -> HashedBatch:
    """All that an index needs of points, so that their features can go.

    key_type: uint32, or uint16 if the upper halves of the keys will do.
    """
    keys, sketches = family.hash(batch)
    kept = (keys >> np.uint32(16)).astype(np.uint16) if key_type == np.uint16 else keys
    return HashedBatch(kept, sketches, order_of(batch, family))


def hashes_of(batch: Stored, family: Family) -> tuple[UInt32Array, UInt8Array]:
    """Keys uint32 (n, tables) and sketches uint8 (n, sketch bytes), computed unless known."""
    if isinstance(batch, HashedBatch):
        return batch.table_keys, batch.sketches
    return family.hash(batch)


def order_of(batch: Stored, family: Family) -> UInt32Array:
    """Sort keys, uint32 (n, words), computed unless known."""
    if isinstance(batch, HashedBatch):
        return batch.order
    return family.similarity_keys(batch)  # type: ignore[arg-type]
