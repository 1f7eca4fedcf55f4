"""How much of a segment a MaxIP search must look at: measured, not guessed.

Where the high inner products lie depends on the data and on the queries, so a segment is searched
once with sample queries of which the true answers are known. Half of them are points of its own;
half are sums of a few points, as gradients and the users of a factorisation are. What counts is
the worse half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .batches import FloatArray
from .maxip_lists import Lists, MaxIPEffort

SAMPLES = 40
NEIGHBOURS = 10
SUMMED = 4
# Smaller segments are scanned whole: it takes less time than to choose.
SCAN_ALL = 8_192
KAPPAS = (1.0, 2.0, 3.0, 4.5)
CANDIDATES = (64, 100, 200, 400, 800)
MIN_CANDIDATES = 64
# Up to this target a quarter of the candidates will do.
LENIENT = 0.75
EXACT_BLOCK = 65_536
# Scores that differ by less, relatively, differ by rounding.
TIE = 1e-5


@dataclass(frozen=True)
class Calibration:
    """Measured recall of the best ten points, by lists scanned.

    Attributes:
        kappa: in units of 1 / √dim; the one that needed the fewest codes.
        candidates: points compared exactly.
        probes: lists scanned, rising.
        recall: at each of `probes`, not falling.
    """

    kappa: float
    candidates: int
    probes: tuple[int, ...]
    recall: tuple[float, ...]

    def effort(self, target: float, dim: int) -> MaxIPEffort:
        """The least that reached the target; everything if nothing did."""
        at = int(np.searchsorted(self.recall, target))
        probes = self.probes[min(at, len(self.probes) - 1)]
        candidates = self.candidates if target <= 0.98 else 2 * self.candidates
        if target <= LENIENT:
            candidates = max(MIN_CANDIDATES, self.candidates // 4)
        return MaxIPEffort(probes, candidates, self.kappa / dim**0.5)

    def recall_of(self, probes: int) -> float:
        """Recall to expect when so many lists are scanned."""
        return float(np.interp(probes, self.probes, self.recall))

    def as_json(self) -> dict[str, Any]:
        """For a file's header."""
        return {
            "kappa": self.kappa,
            "candidates": self.candidates,
            "probes": list(self.probes),
            "recall": list(self.recall),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Calibration:
        """What :meth:`as_json` made."""
        return cls(
            float(values["kappa"]),
            int(values["candidates"]),
            tuple(int(p) for p in values["probes"]),
            tuple(float(r) for r in values["recall"]),
        )


def calibrate(lists: Lists, seed: int, queries: FloatArray | None = None) -> Calibration:
    """Measure a segment with sample queries, or with the given ones, float32 (q, dim)."""
    if lists.points <= SCAN_ALL and queries is None:
        return Calibration(KAPPAS[2], 100, (lists.lists,), (0.99,))
    families = sample_queries(lists, seed) if queries is None else (queries,)
    truths = [exact_best(lists, family) for family in families]
    scale = lists.dim**-0.5

    def recall(probes: int, candidates: int, kappa: float) -> float:
        effort = MaxIPEffort(probes, candidates, kappa * scale)
        return min(
            _hit_share(lists.search(family, truth.shape[1], effort, -np.inf)[1], truth)
            for family, truth in zip(families, truths, strict=True)
        )

    reached = [recall(lists.lists, candidates, KAPPAS[2]) for candidates in CANDIDATES]
    enough = min(0.99, max(reached) - 0.004)
    candidates = next(c for c, r in zip(CANDIDATES, reached, strict=True) if r >= enough)
    grid = _grid(lists.lists)
    half = grid[len(grid) // 2]
    kappa = max(KAPPAS, key=lambda kappa: (recall(half, candidates, kappa), -kappa))
    measured: list[float] = []
    for probes in grid:
        measured.append(recall(probes, candidates, kappa))
        if measured[-1] >= 0.995:
            break
    rising = np.maximum.accumulate(measured)
    return Calibration(kappa, candidates, grid[: len(measured)], tuple(map(float, rising)))


def _grid(lists: int) -> tuple[int, ...]:
    """Numbers of lists to try, each about 1.25 times the one before."""
    steps = int(np.ceil(np.log(max(lists, 2)) / np.log(1.25)))
    return tuple(sorted({min(lists, round(1.25**i)) for i in range(steps + 1)}))


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
