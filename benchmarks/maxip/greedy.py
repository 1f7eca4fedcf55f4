"""Exact greedy herding for thousands of choices: the mark that an index is held against.

All points are compared at each choice, but in a quarter of the memory: as bytes, whose error is
bounded, and then in float64 those that the bound leaves in doubt, some dozens of a million.
"""

from __future__ import annotations

import numpy as np
from closeby.index import _maxip
from closeby.index.maxip_lists import ByteRows


def greedy_discrepancy(items: np.ndarray, choose: int, target: np.ndarray) -> np.ndarray:
    """|mean of the first t + 1 points - target| of exact greedy herding, float64 (choose,)."""
    rounded = ByteRows.of(items)
    halves = np.einsum("ij,ij->i", items, items, dtype=np.float64) / 2
    rough_halves = halves.astype(np.float32)
    total = np.zeros(items.shape[1])
    curve = np.empty(choose)
    for t in range(choose):
        direction = (t + 1) * target - total
        scores = _maxip.byte_products(rounded.rows, rounded.scales, direction.astype(np.float32))
        scores -= rough_halves
        error = rounded.scales * np.float32(_most_error(direction))
        least = float((scores - error).max())
        # Sums in float32 miss by far less than this.
        near = np.flatnonzero(scores + error >= least - 1e-5 * (abs(least) + error.min()))
        precise = items[near].astype(np.float64) @ direction - halves[near]
        best = int(near[precise.argmax()])
        halves[best] = rough_halves[best] = np.inf  # chosen once
        total += items[best]
        curve[t] = np.linalg.norm(total / (t + 1) - target)
    return curve


def _most_error(direction: np.ndarray) -> float:
    """Most by which a product with bytes misses, for a scale of one.

    A coordinate in bytes is at most half a unit off, of one of the direction, rounded to 16 bits,
    no more than half of its unit, and bytes are at most 127.
    """
    unit = np.abs(direction).max() / 32_000
    return float(0.505 * np.abs(direction).sum() + 127 * len(direction) * unit / 2)
