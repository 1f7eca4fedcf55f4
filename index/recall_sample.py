"""What a sample of a segment's own points finds, each asking as if it were not there.

Formulas say what recall to expect of unrelated points, whose neighbours are of any similarity.
Here the search itself is asked: points spread over the segment are held out of it (their bits are
not set yet, or they are marked as removed), ask for their nearest with the settings that queries
will have, and are compared with a scan of all sketches. So what is learned counts all that a query
can lose: cells or buckets that are not looked at, points that their sketches misplace, and hits
that are crowded out by others.

    rung       how far the selector looks: cells of the group tests, or LSH tables
    level      how many candidates are compared exactly

For each nearest point the first rung is kept on which it is found, on each level: any threshold and
any recall can be asked of that later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .abandon import checkpoint
from .batches import FloatArray, Int64Array
from .files import Shapes
from .tuning import Effort

LEAST_ASKED, MOST_ASKED = 256, 512
# One of so many points asks, within these bounds: a tenth of the time that building takes.
POINTS_AN_ASKER = 128
# Nearest points that each asks for.
WANTED = 10
RUNGS = 16
LEVELS = (100, 400)
# Segments of fewer points are not asked: so many held out would be missed.
LEAST_POINTS = 4 * LEAST_ASKED
# With fewer neighbours to find, the formulas know better than the sample.
LEAST_NEIGHBOURS = 64
MISSED = 255
# What there is to find is what a scan of all sketches finds, which compares so many exactly.
TRUTH_CANDIDATES = 2_000

Answer = tuple[Int64Array, FloatArray]


class Asked(Protocol):
    """Queries that a segment can be asked; ``HashedQueries`` are."""

    def __len__(self) -> int: ...

    def take(self, rows: Int64Array) -> Any:
        """Some of them."""
        ...


@dataclass(frozen=True, eq=False)
class RecallSample:
    """How much of their neighbours points of a segment find.

    Attributes:
        scores: float32 (asked, WANTED), similarities of the nearest, falling; NaN where none is.
        rungs: uint8 (len(LEVELS), asked, WANTED), on which rung each is found; MISSED if on none.
        ladder: int64 (RUNGS,), how far a query looks on each rung, rising; the last repeats.
        points: int64 (1,), how many there were.
    """

    scores: FloatArray
    rungs: npt.NDArray[np.uint8]
    ladder: Int64Array
    points: Int64Array
    _curves: dict[float, npt.NDArray[np.float64]] = field(
        default_factory=dict, init=False, repr=False
    )

    @staticmethod
    def shapes(points: int) -> Shapes:
        """Type and shape of the arrays for so many points, by name."""
        asked = asked_of(points)
        return {
            "recall_scores": (np.float32, (asked, WANTED)),
            "recall_rungs": (np.uint8, (len(LEVELS), asked, WANTED)),
            "recall_ladder": (np.int64, (RUNGS,)),
            "recall_points": (np.int64, (1,)),
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> RecallSample | None:
        """The sample whose arrays are among these, if there is one."""
        if "recall_scores" not in arrays:
            return None
        return cls(*(arrays[name] for name in cls.shapes(0)))

    @classmethod
    def empty(cls, points: int) -> RecallSample:
        """Room for a sample of so many points."""
        return cls(*(np.zeros(shape, dtype) for dtype, shape in cls.shapes(points).values()))

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name."""
        values = (self.scores, self.rungs, self.ladder, self.points)
        return dict(zip(self.shapes(0), values, strict=True))

    # --- asking ----------------------------------------------------------------------------------

    def ask(
        self,
        queries: Asked,
        everything: Callable[[Any, Effort, int], Answer],
        selected: Callable[[Any, Effort, int], Answer],
        ladder: Int64Array,
        points: int,
        threshold: float,
    ) -> None:
        """Fill the arrays.

        Args:
            queries: so many points as there is room for, that neither search finds.
            everything: a search of all sketches: queries, effort, k -> ids and scores.
            selected: the search that queries get.
            ladder: int64 (at most RUNGS,), rising.
            points: how many there are.
            threshold: least similarity of the neighbours that are looked for.
        """
        self._curves.clear()
        self.points[0] = points
        self.ladder[:] = np.pad(ladder, (0, RUNGS - len(ladder)), mode="edge")
        truth, scores = everything(queries, Effort(1, TRUTH_CANDIDATES), WANTED)
        self.scores[:] = scores
        self.rungs[:] = MISSED
        there = scores >= threshold
        for level, candidates in enumerate(LEVELS):
            if level:
                self.rungs[level] = self.rungs[level - 1]
            for rung, breadth in enumerate(ladder.tolist()):
                # What was found by looking less far is found: only the others ask again.
                left = there & (self.rungs[level] > rung)
                rows = np.flatnonzero(left.any(axis=1))
                if not len(rows):
                    break
                checkpoint()
                ids, found = selected(queries.take(rows), Effort(breadth, candidates), WANTED)
                here = _found(truth[rows], scores[rows], ids, found)
                better = left[rows] & here
                self.rungs[level, rows] = np.where(better, rung, self.rungs[level, rows])

    # --- what it says ----------------------------------------------------------------------------

    def neighbours(self, threshold: float) -> int:
        """How many of the nearest points are that similar."""
        return int((self.scores >= threshold).sum()) if self.points[0] else 0

    def recall(self, threshold: float, breadth: float, candidates: int) -> float:
        """Share of the neighbours that were found so."""
        curve = self._curve(threshold)[_level(candidates)]
        rungs = self._rungs
        return float(np.interp(np.log2(max(1.0, breadth)), np.log2(self.ladder[:rungs]), curve))

    def most(self, threshold: float) -> float:
        """The largest share of the neighbours that any effort found."""
        return float(self._curve(threshold).max())

    def effort(self, threshold: float, target: float, cost: Callable[[Effort], float]) -> Effort:
        """The cheapest effort that finds so much; where none does, the one that finds most.

        By one standard error of the sample more than the target, so that it is mostly reached.
        """
        curves = self._curve(threshold)
        askers = max(1, int((self.scores >= threshold).any(axis=1).sum()))
        target += math.sqrt(target * (1 - target) / askers)
        target = min(target, float(curves.max()))
        enough = [self._least(curves[level], target, level) for level in range(len(LEVELS))]
        return min((effort for effort in enough if effort is not None), key=cost)

    def _least(self, curve: npt.NDArray[np.float64], target: float, level: int) -> Effort | None:
        at = int(np.searchsorted(curve, target))
        if at == len(curve):
            return None
        breadth = float(self.ladder[at])
        if at:
            low, high = float(curve[at - 1]), float(curve[at])
            before = float(self.ladder[at - 1])
            breadth = before * (breadth / before) ** ((target - low) / (high - low))
        return Effort(max(1, round(breadth)), LEVELS[level])

    @property
    def _rungs(self) -> int:
        """Rungs that differ."""
        return len(np.unique(self.ladder))

    def _curve(self, threshold: float) -> npt.NDArray[np.float64]:
        """Recall by level and rung, float64 (len(LEVELS), rungs), rising."""
        known = self._curves.get(threshold)
        if known is None:
            near = self.rungs[:, self.scores >= threshold]
            first = np.arange(self._rungs)[:, None]
            known = np.stack([(level <= first).mean(axis=1) for level in near])
            self._curves[threshold] = known
        return known


def asked_of(points: int) -> int:
    """How many of so many points are asked."""
    return min(MOST_ASKED, max(LEAST_ASKED, points // POINTS_AN_ASKER))


def _found(truth: Int64Array, scores: FloatArray, ids: Int64Array, found: FloatArray) -> Any:
    """Which of the nearest are in an answer, bool; of equally near ones any will do."""
    rank = np.arange(1, truth.shape[1] + 1)
    same = (truth[:, :, None] == ids[:, None, :]).any(axis=2)
    as_near = (found[:, None, :] >= scores[:, :, None]).sum(axis=2)
    return same | (as_near >= rank)


def _level(candidates: int) -> int:
    return max(0, int(np.searchsorted(LEVELS, candidates, side="right")) - 1)
