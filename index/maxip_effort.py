"""How much of a segment a MaxIP search must look at: measured, not guessed.

Where the high inner products lie depends on the data and on the queries, so a segment is searched
once with sample queries of which the true answers are known. Half of them are points of its own;
half are sums of a few points, as gradients and the users of a factorisation are. What counts is
the worse half.

A recall can be reached with more lists or with more candidates of each code scan. The curves of
recall over lists are measured for several numbers of candidates, and a search takes the cheapest
way to its target.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .abandon import checkpoint
from .batches import FloatArray
from .maxip_lists import Lists, MaxIPEffort

SAMPLES = 64
NEIGHBOURS = 10
SUMMED = 4
# Smaller segments are scanned whole: it takes less time than to choose.
SCAN_ALL = 8_192
KAPPAS = (1.0, 2.0, 3.0, 4.5)
CANDIDATES = (64, 128, 256, 512, 1024, 2048)
MIN_FINALS = 32
# Comparing a candidate takes as long as scanning so many codes.
CANDIDATE_COST = 128
GRID = 1.6
# A curve that rises by less in one step of the grid has reached what its candidates allow.
FLAT = 0.001
EXACT_BLOCK = 65_536
# Scores that differ by less, relatively, differ by rounding.
TIE = 1e-5


@dataclass(frozen=True)
class Curve:
    """Recall of the best ten points by lists scanned, for one number of candidates.

    Attributes:
        candidates: points compared by their bytes.
        probes: lists scanned, rising.
        scanned: codes read at each of `probes`.
        recall: at each of `probes`, not falling.
    """

    candidates: int
    probes: tuple[int, ...]
    scanned: tuple[float, ...]
    recall: tuple[float, ...]

    def reach(self, target: float) -> tuple[int, float]:
        """Lists for this recall, and the cost; as many as there are and infinity beyond it."""
        if self.recall[-1] < target:
            return self.probes[-1], np.inf
        at = int(np.searchsorted(self.recall, target))
        share = 1.0
        if at and self.recall[at] > self.recall[at - 1]:
            share = (target - self.recall[at - 1]) / (self.recall[at] - self.recall[at - 1])
        before = max(at - 1, 0)
        probes = self.probes[before] + share * (self.probes[at] - self.probes[before])
        scanned = self.scanned[before] + share * (self.scanned[at] - self.scanned[before])
        return int(np.ceil(probes)), scanned + CANDIDATE_COST * self.candidates


@dataclass(frozen=True)
class Calibration:
    """What a segment's samples say.

    Attributes:
        kappa: in units of 1 / √dim; the one that needed the fewest codes.
        curves: one for each number of candidates.
    """

    kappa: float
    curves: tuple[Curve, ...]

    def effort(self, target: float, dim: int, k: int = NEIGHBOURS) -> MaxIPEffort:
        """The cheapest that reached the target; the most that was measured if nothing did."""
        reached = [curve.reach(target) for curve in self.curves]
        best = min(range(len(reached)), key=lambda i: reached[i][1])
        if not np.isfinite(reached[best][1]):
            best = max(range(len(reached)), key=lambda i: self.curves[i].recall[-1])
        finals = max(MIN_FINALS, 2 * k)
        candidates = max(self.curves[best].candidates, 4 * k)
        return MaxIPEffort(reached[best][0], candidates, finals, self.kappa / dim**0.5)

    @cached_property
    def best(self) -> float:
        """The highest recall that was measured."""
        return max(curve.recall[-1] for curve in self.curves)

    def as_json(self) -> dict[str, Any]:
        """For a file's header."""
        return {"kappa": self.kappa, "curves": [vars(curve) for curve in self.curves]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Calibration:
        """What :meth:`as_json` made."""
        curves = tuple(
            Curve(
                int(curve["candidates"]),
                tuple(int(p) for p in curve["probes"]),
                tuple(float(s) for s in curve["scanned"]),
                tuple(float(r) for r in curve["recall"]),
            )
            for curve in values["curves"]
        )
        if not all(len(c.probes) == len(c.scanned) == len(c.recall) > 0 for c in curves):
            raise ValueError("a curve's columns are of different lengths")
        if not curves or min(min(c.probes) for c in curves) < 1:
            raise ValueError("a calibration needs curves over at least one list")
        return cls(float(values["kappa"]), curves)


def calibrate(lists: Lists, seed: int, queries: FloatArray | None = None) -> Calibration:
    """Measure a segment with sample queries, or with the given ones, float32 (q, dim)."""
    if lists.points <= SCAN_ALL and queries is None:
        everything = (lists.lists,), (float(len(lists.ids)),)
        return Calibration(KAPPAS[2], (Curve(256, *everything, (0.99,)),))
    families = sample_queries(lists, seed) if queries is None else (queries,)
    truths = [exact_best(lists, family) for family in families]
    scale = lists.dim**-0.5

    def measured(probes: int, candidates: int, kappa: float) -> tuple[float, float]:
        """Recall of the worse family and codes read."""
        checkpoint()
        effort = MaxIPEffort(probes, candidates, MIN_FINALS, kappa * scale)
        shares, read = [], []
        for family, truth in zip(families, truths, strict=True):
            _, scores, scanned = lists.search(family, truth.shape[1], effort, -np.inf)
            shares.append(_hit_share(scores, truth))
            read.append(float(scanned.mean()))
        return min(shares), max(read)

    grid = _grid(lists.lists)
    middle = max(1, lists.lists // 20)

    def waste(kappa: float) -> tuple[float, float]:
        # What is missed falls about as fast as the codes that are read grow.
        recall, scanned = measured(middle, CANDIDATES[3], kappa)
        return (1.01 - recall) * scanned, kappa

    kappa = min(KAPPAS, key=waste)
    curves = []
    for candidates in CANDIDATES:
        points: list[tuple[int, float, float]] = []
        for probes in grid:
            recall, scanned = measured(probes, candidates, kappa)
            rise = recall - points[-1][2] if points else 1.0
            points.append((probes, scanned, max(recall, points[-1][2] if points else 0.0)))
            if recall >= 0.999 or (rise < FLAT and recall > 0.5):
                break
        curves.append(Curve(candidates, *map(tuple, zip(*points, strict=True))))
        if curves[-1].recall[-1] >= 0.995 or points[0][2] >= 0.995:
            break
    return Calibration(kappa, tuple(curves))


def _grid(lists: int) -> tuple[int, ...]:
    """Numbers of lists to try, each about 1.6 times the one before."""
    steps = int(np.ceil(np.log(max(lists, 2)) / np.log(GRID)))
    return tuple(sorted({min(lists, round(GRID**i)) for i in range(steps + 1)}))


def sample_queries(lists: Lists, seed: int) -> tuple[FloatArray, FloatArray]:
    """Points of the segment, and sums of a few points, float32 (samples, dim) each."""
    rng = np.random.default_rng(seed)
    places = np.flatnonzero(lists.alive())
    single = lists.vectors[rng.choice(places, SAMPLES)]
    several = lists.vectors[rng.choice(places, (SAMPLES, SUMMED))].astype(np.float64)
    norms = np.sqrt(np.einsum("ijk,ijk->ij", several, several))
    directions = several / np.maximum(norms, 1e-300)[:, :, None]
    return np.ascontiguousarray(single), directions.sum(axis=1).astype(np.float32)


def exact_best(lists: Lists, queries: FloatArray, k: int = NEIGHBOURS) -> FloatArray:
    """Scores of the k best points of each query, by comparing all: float32 (q, k), falling."""
    alive = lists.alive()
    k = min(k, int(alive.sum()))
    best = np.zeros((len(queries), 0), np.float32)
    for at in range(0, len(alive), EXACT_BLOCK):
        part = slice(at, at + EXACT_BLOCK)
        scores = queries @ lists.vectors[part].T
        scores[:, ~alive[part]] = -np.inf
        scores = np.hstack([best, scores])
        if scores.shape[1] > k:
            scores = -np.partition(-scores, k, axis=1)[:, :k]
        best = scores
    return np.asarray(-np.sort(-best, axis=1), np.float32)


def _hit_share(found: FloatArray, truth: FloatArray) -> float:
    """Share of the best scores that were found; which of equal points answers does not matter."""
    least = truth[:, -1:] - TIE * np.abs(truth[:, -1:])
    return float((found >= least).mean())
