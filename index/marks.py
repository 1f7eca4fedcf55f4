"""Marks of removed points: a bit set over the places of a segment."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .batches import Int64Array
from .minhash import UInt8Array


def is_dead(dead: UInt8Array, places: Int64Array) -> npt.NDArray[np.bool_]:
    """Which places are marked, bool (n,)."""
    return np.asarray(dead[places >> 3] >> (places & 7).astype(np.uint8) & 1, bool)


def mark_dead(segment: Any, places: Int64Array, ids: Int64Array) -> Int64Array:
    """Mark the places of these ids in a segment; the ids that were not marked before."""
    fresh = ~is_dead(segment.dead, places)
    places, ids = places[fresh], ids[fresh]
    segment._view.any_dead = segment._view.any_dead or len(places) > 0
    np.bitwise_or.at(segment.dead, places >> 3, (1 << (places & 7)).astype(np.uint8))
    segment.removed += len(places)
    return ids
