"""Whether an index is the right one for its points, as a sample of them tells.

Group tests and LSH tables are for neighbours of high similarity among many points. On other data
they must lose: then the advice names what to take instead, and the numbers that say so.

It is a formula over what the index knows of itself, and costs nothing. A plan (`planner`) builds
every engine over a sample and measures it; both say `flat` where comparing all takes no longer than
`EXACT_ENOUGH_US`. Whoever wants to change an engine asks for a plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .batches import FloatArray
from .engine import Metric

# Neighbours that are farther do not stand out from other points by the hashes that they share.
FAR = {"jaccard": 0.3, "cosine": 0.7}
# What to take for those: graphs need no threshold.
GRAPH = {"jaccard": "binary_hnsw", "cosine": "hnsw"}
# Comparing all is quick enough where it takes no longer than this, whatever an index takes.
EXACT_ENOUGH_US = 100.0
# Nanoseconds of exact comparison: of a coordinate in order, and of an element of a set or sparse
# vector, as measured over eight data sets (`flat` in benchmarks/results/planner.md: .2, 4 to 5).
NUMBER_NS = {"dense": 0.2, "elements": 5.0}
NUMBER_BYTES = 4  # elements of eight bytes count twice
# Below so many points comparing all their sketches is as quick as looking for some.
FEW_POINTS = 50_000
# A selector that leaves more than this share of the points to be scanned selects too little.
MOST_SCANNED = 0.25
# Recall may fall short of the target by so much.
SLACK = 0.02


@dataclass(frozen=True)
class Evidence:
    """What is known of an index.

    Attributes:
        index: its engine.
        metric, threshold, target_recall: of the index.
        points: how many there are.
        nearest: float32 (asked, 10), similarities of the nearest of points that were asked, NaN
            where none is near the threshold; no rows where none was asked.
        recall: what the best effort that was tried gives.
        scanned: share of the points whose sketches a query compares.
        numbers: coordinates or elements of all points together; None where no features are kept,
            so that nothing can be compared exactly.
        dense: whether they are coordinates of vectors.
        sparse: whether the points are sparse vectors, which graphs do not take.
    """

    index: str
    metric: Metric
    threshold: float
    target_recall: float
    points: int
    nearest: FloatArray
    recall: float
    scanned: float
    numbers: int | None
    dense: bool = False
    sparse: bool = False

    @property
    def exact_us(self) -> float:
        """Microseconds of comparing a query with every point."""
        if self.numbers is None:
            return math.inf
        return self.numbers * NUMBER_NS["dense" if self.dense else "elements"] / 1e3


def advise(known: Evidence) -> dict[str, str]:
    """``index``, which to take, and ``why``, in words and numbers."""
    n = f"{known.points:,} points"
    if known.exact_us <= EXACT_ENOUGH_US:
        return {"index": "flat", "why": f"{n} are so few that comparing all of them is quick"}
    if not len(known.nearest):
        return {
            "index": known.index,
            "why": f"of {n} none was asked for its neighbours yet; sealed segments do that",
        }
    best = np.nan_to_num(known.nearest[:, 0], nan=0.0)
    middle, near = float(np.median(best)), float((best >= known.threshold).mean())
    seen = (
        f"of {len(best):,} points that were asked, {near:.0%} have a neighbour at {known.metric} "
        f"{known.threshold:g} or more, and the nearest of the middle one is "
        + (f"at {middle:.2f}" if middle > 0 else "much farther")
    )
    far = FAR[known.metric]
    if middle < far and near < 0.5:
        return {
            "index": _without_threshold(known),
            "why": f"{seen}: below {far:g} neighbours do not stand out from strangers. Keep "
            f"{known.index} if only those at {known.threshold:g} matter, however few",
        }
    if known.recall < known.target_recall - SLACK:
        other = "lsh" if known.index == "flinng" else _without_threshold(known)
        return {
            "index": other,
            "why": f"{seen}; of those {known.recall:.3f} are found at most, and "
            f"{known.target_recall:g} is wanted",
        }
    if known.scanned > MOST_SCANNED and known.points >= FEW_POINTS:
        return {
            "index": "lsh" if known.index == "flinng" else _without_threshold(known),
            "why": f"{seen}; to find {known.target_recall:g} of those, the sketches of "
            f"{known.scanned:.0%} of {n} are compared: strangers are too much alike",
        }
    return {
        "index": known.index,
        "why": f"{seen}; {known.recall:.3f} of those can be found, {known.target_recall:g} by "
        f"comparing the sketches of {known.scanned:.2%} of {n}",
    }


def _without_threshold(known: Evidence) -> str:
    """What finds neighbours however far they are."""
    return "flat" if known.sparse else GRAPH[known.metric]
