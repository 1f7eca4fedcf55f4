"""What a sample of a segment's own points finds, each asking as if it were not there.

Formulas say what recall to expect of unrelated points, whose neighbours are of any similarity.
Here the segment itself is asked: points spread over it are held out (their bits are not set yet,
and they are marked as removed) and ask for their nearest. For each of those that is a neighbour
it is kept how far a query must go to find it, so that any threshold and any recall can be asked of
that later:

    breadth    how far the selector must look: the place of the neighbour's cell among all cells, by
               the tests that they pass, or the first LSH table in which it shares a bucket
    level      how many candidates must be compared exactly; the farther a search looks, the more
               compete for those, so it is measured on two rungs: a narrow breadth, and a wide one

So what is learned counts all that a query can lose: cells or buckets that are not looked at, points
that their sketches misplace, and hits that are crowded out by others.
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
from .minhash import UInt32Array
from .tuning import Effort

LEAST_ASKED, MOST_ASKED = 256, 384
# One of so many points asks, within these bounds.
POINTS_AN_ASKER = 128
# Nearest points that each asks for.
WANTED = 10
LEVELS = (20, 32, 50, 100, 200, 400)
# Segments of fewer points are not asked: so many held out would be missed.
LEAST_POINTS = 4 * LEAST_ASKED
# With fewer neighbours to find, the formulas know better than the sample.
LEAST_NEIGHBOURS = 64
# A neighbour that is found on no level, or however far the selector looks.
MISSED, NOWHERE = 255, (1 << 32) - 1
# What there is to find is what a search finds that compares exactly one of so many points that it
# scans, and so many at least, as far as their sketches do not show that they are too far,
SCANNED_A_CANDIDATE, LEAST_CANDIDATES = 64, 1_000
# and looks much farther than needed: all but so few of what it finds must take half of that.
MOST_BEYOND = 0.01
# How near points are is known down to this share of the threshold.
KNOWN_SHARE = 0.75
# Levels are measured with the breadths that find so many of the neighbours, and for those that are
# farther with all that they need.
RUNG_SHARES = (0.7, 0.97)

Answer = tuple[Int64Array, FloatArray]


class Asked(Protocol):
    """Queries that a segment can be asked; ``HashedQueries`` are."""

    def __len__(self) -> int: ...

    def take(self, rows: Int64Array) -> Any:
        """Some of them."""
        ...


class Asking(Protocol):
    """How a segment is asked; hits are called by their places."""

    points: int
    """How many there are."""

    def everything(self, queries: Any, effort: Effort, floor: float) -> Answer:
        """The nearest by a scan of all sketches: places int64 and scores (q, WANTED)."""
        ...

    def selected(self, queries: Any, effort: Effort, floor: float) -> Answer:
        """The nearest as queries get them. floor: least score of a hit."""
        ...

    def scanned(self, breadth: int) -> float:
        """How many points a search scans that looks so far."""
        ...

    def reach(self, queries: Any, places: Int64Array) -> UInt32Array:
        """How far the selector must look for these places, uint32 (q, WANTED); NOWHERE for -1."""
        ...


@dataclass(frozen=True, eq=False)
class RecallSample:
    """How far points of a segment must look for their neighbours.

    Attributes:
        scores: float32 (asked, WANTED), similarities of the nearest, falling; NaN where none is as
            near as KNOWN_SHARE of the threshold.
        breadths: uint32 (asked, WANTED), how far the selector must look for each.
        levels: uint8 (rungs, asked, WANTED), the first of LEVELS that finds each; MISSED if none.
        rungs: int64 (rungs,), the breadths with which those were found.
        points: int64 (1,), how many there were.
    """

    scores: FloatArray
    breadths: UInt32Array
    levels: npt.NDArray[np.uint8]
    rungs: Int64Array
    points: Int64Array
    _curves: dict[float, tuple[UInt32Array, FloatArray]] = field(
        default_factory=dict, init=False, repr=False
    )

    @staticmethod
    def shapes(points: int) -> Shapes:
        """Type and shape of the arrays for so many points, by name."""
        wide = (asked_of(points), WANTED)
        return {
            "recall_scores": (np.float32, wide),
            "recall_breadths": (np.uint32, wide),
            "recall_levels": (np.uint8, (len(RUNG_SHARES), *wide)),
            "recall_rungs": (np.int64, (len(RUNG_SHARES),)),
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
        values = (self.scores, self.breadths, self.levels, self.rungs, self.points)
        return dict(zip(self.shapes(0), values, strict=True))

    # --- asking ----------------------------------------------------------------------------------

    def ask(
        self,
        queries: Asked,
        segment: Asking,
        threshold: float,
        *,
        broad: int | None,
        farthest: int,
    ) -> None:
        """Fill the arrays.

        Args:
            queries: so many points as there is room for, that no search of the segment finds.
            segment: is asked.
            threshold: least similarity of the neighbours that are looked for.
            broad: a breadth with which hardly any neighbour is missed; None to compare all.
            farthest: how far queries look at most.
        """
        self._curves.clear()
        self.points[0] = segment.points
        truth = self._find(queries, segment, threshold, broad)
        near = self.scores >= threshold
        if broad is not None:
            beyond = near & (self.breadths > broad // 2)
            if beyond.sum() > MOST_BEYOND * near.sum():
                truth = self._find(queries, segment, threshold, None)
                near = self.scores >= threshold
        self.levels[:] = MISSED
        there = near & (self.breadths <= farthest)
        if not there.any():
            return
        reached = np.sort(self.breadths[there])
        for rung, share in enumerate(RUNG_SHARES):
            self.rungs[rung] = breadth = int(reached[math.ceil(share * len(reached)) - 1])
            left = there & (self.breadths <= breadth)
            self._compare(queries, segment, truth, left, threshold, rung, breadth)
        left = there & (self.breadths > breadth)
        self._compare(queries, segment, truth, left, threshold, rung, int(reached[-1]))
        # What the narrow rung did not reach, no search as narrow will find.
        self.levels[0] = np.where(self.breadths > self.rungs[0], self.levels[1], self.levels[0])

    def _find(
        self, queries: Asked, segment: Asking, threshold: float, broad: int | None
    ) -> Int64Array:
        """Look for the nearest of each, and how far away they are for the selector."""
        checkpoint()
        floor = threshold * KNOWN_SHARE
        scanned = segment.points if broad is None else segment.scanned(broad)
        candidates = max(LEAST_CANDIDATES, int(scanned) // SCANNED_A_CANDIDATE)
        if broad is None:
            places, scores = segment.everything(queries, Effort(1, candidates), floor)
        else:
            places, scores = segment.selected(queries, Effort(broad, candidates), floor)
        self.scores[:] = scores
        self.breadths[:] = segment.reach(queries, places)
        return places

    def _compare(
        self,
        queries: Asked,
        segment: Asking,
        truth: Int64Array,
        left: npt.NDArray[np.bool_],
        threshold: float,
        rung: int,
        breadth: int,
    ) -> None:
        """On which level the nearest that are left are found by looking so far."""
        for level, candidates in enumerate(LEVELS):
            rows = np.flatnonzero(left.any(axis=1))
            if not len(rows):
                return
            checkpoint()
            effort = Effort(breadth, candidates)
            places, scores = segment.selected(queries.take(rows), effort, threshold)
            found = left[rows] & _found(truth[rows], self.scores[rows], places, scores)
            self.levels[rung, rows] = np.where(found, level, self.levels[rung, rows])
            left[rows] &= ~found

    # --- what it says ----------------------------------------------------------------------------

    def neighbours(self, threshold: float) -> int:
        """How many of the nearest points are that similar."""
        return int((self.scores >= threshold).sum()) if self.points[0] else 0

    def recall(self, threshold: float, breadth: float, candidates: int) -> float:
        """Share of the neighbours that are found so."""
        level = max(0, int(np.searchsorted(LEVELS, candidates, side="right")) - 1)
        breadths, curves = self._curve(threshold)
        at = int(np.searchsorted(breadths, breadth, side="right"))
        return float(curves[level, at - 1]) if at else 0.0

    def most(self, threshold: float) -> float:
        """The largest share of the neighbours that any effort finds."""
        _, curves = self._curve(threshold)
        return float(curves.max(initial=0.0))

    def effort(self, threshold: float, target: float, cost: Callable[[Effort], float]) -> Effort:
        """The cheapest effort that finds so much; where none does, one that finds the most.

        By one standard error of the sample more than the target, so that it is mostly reached.
        """
        expected = self._cheapest(threshold, target, cost)
        return self._cheapest(threshold, target + self._error(threshold, expected), cost)

    def _cheapest(self, threshold: float, target: float, cost: Callable[[Effort], float]) -> Effort:
        breadths, curves = self._curve(threshold)
        if not len(breadths):
            return Effort(1, LEVELS[-1])
        target = min(target, float(curves.max()))
        enough = [
            Effort(int(breadths[np.argmax(curve >= target)]), candidates)
            for curve, candidates in zip(curves, LEVELS, strict=True)
            if curve.max() >= target
        ]
        return min(enough, key=cost)

    def _error(self, threshold: float, effort: Effort) -> float:
        """One standard error of the recall of an effort: what one asker finds hangs together."""
        near = self.scores >= threshold
        level = LEVELS.index(effort.candidates)
        rung = int(np.argmin(np.abs(np.log(np.maximum(1, self.rungs) / effort.breadth))))
        missed = near & ((self.breadths > effort.breadth) | (self.levels[rung] > level))
        share = missed.sum() / near.sum()
        # One more asker missing a neighbour, so that a sample that misses none is not taken at its
        # word.
        excess = missed.sum(axis=1) - share * near.sum(axis=1)
        return float(math.sqrt((excess**2).sum() + 1) / near.sum())

    def _curve(self, threshold: float) -> tuple[UInt32Array, FloatArray]:
        """Breadths, rising, and the recall of each by level, float64 (len(LEVELS), breadths)."""
        known = self._curves.get(threshold)
        if known is not None:
            return known
        near = self.scores >= threshold
        here = near & (self.levels[-1] != MISSED)
        order = np.argsort(self.breadths[here], kind="stable")
        breadths = self.breadths[here][order]
        low, high = np.log(np.maximum(1, self.rungs))
        wide = np.clip((np.log(breadths) - low) / max(high - low, 1e-9), 0, 1)
        levels = self.levels[:, here][:, order]
        narrow_found, wide_found = np.cumsum(
            levels[:, None] <= np.arange(len(LEVELS))[:, None], axis=2
        )
        curves = ((1 - wide) * narrow_found + wide * wide_found) / max(1, near.sum())
        self._curves[threshold] = breadths, curves
        return breadths, curves


def asked_of(points: int) -> int:
    """How many of so many points are asked."""
    return min(MOST_ASKED, max(LEAST_ASKED, points // POINTS_AN_ASKER))


def _found(truth: Int64Array, scores: FloatArray, places: Int64Array, found: FloatArray) -> Any:
    """Which of the nearest are in an answer, bool; of equally near ones any will do."""
    rank = np.arange(1, truth.shape[1] + 1)
    same = (truth[:, :, None] == places[:, None, :]).any(axis=2)
    as_near = (found[:, None, :] >= scores[:, :, None]).sum(axis=2)
    return same | (as_near >= rank)
