"""What a segment's own points say about its group tests.

The formulas of ``tuning`` take all points but the neighbour as unrelated. Real data are not: the
pages of one site pass many of each other's tests, so the neighbour's cell has stronger rivals than
chance gives it. So a sealed segment asks its bitmaps about a sample of its own points, and keeps
for each of them, beside the share of tests that its cells pass on average, how many tests the T-th
best of the other cells passes, for several T. From that follows for any key probability s

    recall(T) = mean over the sample of P[Binomial(m, s + (1 - s) f) beats the T-th best cell]

where ties are broken evenly: a query takes some of the cells that tie, and which is chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _native
from .files import Shapes
from .minhash import UInt32Array

SAMPLE = 256
# Numbers of cells at which the rivals are kept: 8, 16, … 2^18.
BREADTHS = 8 << np.arange(16)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Group tests of a sample of a segment's points.

    Attributes:
        chance: float32 (sample,), f: share of the tests that a cell passes on average.
        rivals: uint16 (sample, len(BREADTHS)), tests that the T-th best other cell passes.
        above: float32 (sample, len(BREADTHS)), share of the T places that cells with more tests
            take, and
        tied: float32, likewise, number of cells with just as many tests over T.
    """

    chance: npt.NDArray[np.float32]
    rivals: npt.NDArray[np.uint16]
    above: npt.NDArray[np.float32]
    tied: npt.NDArray[np.float32]
    # Average recalls by what they were asked for: an engine asks for the same with each query.
    _averages: dict[tuple[tuple[float, ...], int], npt.NDArray[np.float64]] = field(
        default_factory=dict, init=False, repr=False
    )

    @staticmethod
    def shapes() -> Shapes:
        """Type and shape of the arrays, by name."""
        wide = (SAMPLE, len(BREADTHS))
        return {
            "sample_chance": (np.float32, (SAMPLE,)),
            "sample_rivals": (np.uint16, wide),
            "sample_above": (np.float32, wide),
            "sample_tied": (np.float32, wide),
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> Calibration | None:
        """The calibration whose arrays are among these, if there is one."""
        if "sample_chance" not in arrays:
            return None
        return cls(
            arrays["sample_chance"],
            arrays["sample_rivals"],
            arrays["sample_above"],
            arrays["sample_tied"],
        )

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name."""
        return {
            "sample_chance": self.chance,
            "sample_rivals": self.rivals,
            "sample_above": self.above,
            "sample_tied": self.tied,
        }

    def measure(
        self,
        bitmaps: npt.NDArray[np.uint8],
        cells: int,
        keys: UInt32Array,
        own_cells: npt.NDArray[np.int64],
    ) -> None:
        """Fill the arrays.

        Args:
            bitmaps: uint8 (tables, 2^r, stride), complete.
            cells: how many there are.
            keys: uint32 (SAMPLE, tables), of points of the segment.
            own_cells: int64 (SAMPLE,), where they lie: a point is no rival of itself.
        """
        tables = len(bitmaps)
        self._averages.clear()
        histogram, passed, _ = _native.ranked_cells(bitmaps, cells, keys, own_cells[:, None])
        self.chance[:] = histogram @ np.arange(tables + 1) / (cells * tables)
        rows = np.arange(len(keys))
        histogram[rows, passed[:, 0]] -= 1
        histogram[:, 0] += 1
        reached = np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1]  # cells with as many tests or more
        # The T-th best passes the largest number that at least T cells reach.
        ranks = np.minimum(BREADTHS, max(1, cells - 1))
        rivals = (reached[:, :, None] >= ranks).sum(axis=1) - 1
        self.rivals[:] = rivals
        as_many = np.take_along_axis(histogram, rivals, axis=1)
        self.above[:] = (np.take_along_axis(reached, rivals, axis=1) - as_many) / ranks
        self.tied[:] = as_many / ranks

    def recalls(self, s: float, tables: int) -> npt.NDArray[np.float64]:
        """Recall of neighbours of key probability s at each of BREADTHS, rising."""
        more, as_many = _binomial_tail(tables, s + (1 - s) * self.chance.astype(np.float64))
        row = np.arange(SAMPLE)[:, None]
        rivals = self.rivals.astype(np.int64)
        # Of the places that the better cells leave, the neighbour's cell gets its share of the tie.
        share = np.clip((1 - self.above) / np.maximum(self.tied, 1e-9), 0, 1)
        recall = (more[row, rivals] + share * as_many[row, rivals]).mean(axis=0)
        return np.maximum.accumulate(np.asarray(recall, np.float64))

    def recall(self, probabilities: Sequence[float], tables: int, breadth: int) -> float:
        """Recall of neighbours of these key probabilities, on average, in so many cells."""
        mean = self._average(tuple(probabilities), tables)
        return float(np.interp(math.log2(max(1, breadth)), np.log2(BREADTHS), mean))

    def breadth(self, probabilities: Sequence[float], tables: int, target_recall: float) -> int:
        """How many cells give that recall, on average over these key probabilities."""
        mean = self._average(tuple(probabilities), tables)
        at = int(np.searchsorted(mean, target_recall))
        if at == 0:
            return int(BREADTHS[0])
        if at == len(BREADTHS):
            return int(BREADTHS[-1])
        low, high = mean[at - 1], mean[at]
        step = (target_recall - low) / (high - low)
        return math.ceil(float(BREADTHS[at - 1]) * 2 ** float(step))

    def _average(self, probabilities: tuple[float, ...], tables: int) -> npt.NDArray[np.float64]:
        known = self._averages.get((probabilities, tables))
        if known is None:
            known = np.mean([self.recalls(s, tables) for s in probabilities], axis=0)
            self._averages[probabilities, tables] = known
        return known


def _binomial_tail(
    m: int, q: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """P[Binomial(m, q) > c] and P[= c] for c = 0 .. m, each float64 (len(q), m + 1)."""
    c = np.arange(m + 1)
    choose = np.array([math.lgamma(m + 1) - math.lgamma(i + 1) - math.lgamma(m - i + 1) for i in c])
    q = np.clip(q, 1e-12, 1 - 1e-12)[:, None]
    exactly = np.exp(choose + c * np.log(q) + (m - c) * np.log1p(-q))
    more = np.cumsum(exactly[:, ::-1], axis=1)[:, ::-1] - exactly
    return more, exactly
