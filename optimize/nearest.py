"""An index for the choice of herding: the point that brings a sum nearest to its goal.

|r - x|² is least where ⟨x, r⟩ - |x|²/2 is greatest, an inner product of (x, |x|²/2 / s) with
(r, -s): so a ``MaxIPIndex`` of one dimension more finds it. The scale s is the median norm, for
which that dimension weighs about as much as the others together.

What is left of a sum is nearly at right angles to all points, so that thousands of them are nearly
as good as the best one, and no code of theirs tells which: recall says nothing here. A few wide
lists hold a point that is good enough, and the next step mends what it lacks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from closeby.index import MaxIPIndex

from .atoms import MatrixAtoms
from .trace import Array, Ids

# What is read for one choice. More brings little: of a million factors with long-tailed norms four
# times as much leaves the same.
PROBES = 64
CANDIDATES = 256
KAPPA = 3.0
# Keeps the added coordinate of the longest point in the range of an index.
_MOST = 5e17


class NearestSumIndex:
    """Points of which :func:`~closeby.optimize.herding` finds the next without reading all.

    Build it once to choose many times; a matrix or ``MaxIPIndex`` given to herding is made one.

    Args:
        features: matrix (n, d) of norms up to 1e17, or a ``MaxIPIndex``, of which ids are kept.
        seed: of clustering and codes.

    Raises:
        InvalidInputError: unusable features.
    """

    def __init__(self, features: Any, seed: int = 0) -> None:
        ids: Ids | None = None
        if isinstance(features, MaxIPIndex):
            ids, features = features.points()
        rows = MatrixAtoms(features).rows
        halves = half_squares(rows)
        median, longest = float(np.median(halves)), float(halves.max())
        self.scale = max((2 * (median or longest)) ** 0.5, longest / _MOST) or 1.0
        self.dim = rows.shape[1]
        self.index = MaxIPIndex(seed)
        self.index.add(np.hstack([rows, (halves / self.scale)[:, None].astype(rows.dtype)]), ids)
        self.index.fix_effort(PROBES, CANDIDATES, KAPPA)

    def query(self, direction: Array, relaxation: float = 1.0) -> Array:
        """What the index is asked for, float64 (d + 1,).

        Args:
            direction: float64 (d,), of which the nearest point is wanted.
            relaxation: by which the squares of norms are divided.
        """
        whole: Array = np.empty(self.dim + 1)
        whole[:-1] = direction
        whole[-1] = -self.scale / relaxation
        whole /= length(whole)
        return whole


def length(vector: Array) -> float:
    """Norm of a short vector of which squares do not overflow, without NumPy's preparations."""
    return math.sqrt(float(vector @ vector))


def half_squares(rows: npt.NDArray[Any]) -> Array:
    """|x|²/2 of each row, float64 (n,)."""
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64) / 2, np.float64)
