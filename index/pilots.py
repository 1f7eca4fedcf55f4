"""Engines tried on a sample: built over a part of it, asked for the rest, timed and counted.

    sample ─┬─ pool ────► an engine as a collection would hold it ─┐
            └─ queries ─► exact answers, then one call for each ───┴─► µs, bytes, recall

The queries are in no engine, so recall is that of points which the engine has not seen. Times are
processor time of the calling thread: they hold the call from Python, the hashing, the candidates
that these points really meet, and their exact comparison, on the machine that will answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from .alive_points import rows_of
from .baselines.curve import count_found
from .batches import Batch, FloatArray
from .engine import Engine
from .topk import merge_topk

Clock: TypeAlias = Callable[[], float]
"""Seconds of processor time."""

NEIGHBOURS = 10
# Queries of which each call is timed, and how often: the least time of each counts, since whatever
# else runs can only make a call slower.
TIMED, PASSES = 64, 5
# An engine slower than this is timed on fewer queries.
SECONDS_A_PASS, LEAST_TIMED = 0.1, 8
FEATURES = "features"


@dataclass(frozen=True, eq=False)
class Held:
    """Queries that no engine holds, and what they should find.

    Attributes:
        rows: the queries.
        near: exact scores of the neighbours that count of each, falling.
        ten: of the ten nearest of each.
        clock: what calls are timed with.
    """

    rows: Batch
    near: list[FloatArray]
    ten: list[FloatArray]
    clock: Clock
    _singles: list[Batch] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, rows: Batch, scores: FloatArray, kept: int, floor: float, clock: Clock) -> Held:
        """What queries should find among points of these scores, float32 (q, n).

        kept: the nearest that count; fewer than ten where the sample has but some of the points,
        so that these are about as near as the ten nearest of all points.
        """
        kept = min(kept, scores.shape[1])
        nearest = np.partition(scores, scores.shape[1] - kept, axis=1)[:, -kept:]
        nearest = -np.sort(-nearest, axis=1)
        return cls(rows, [row[row >= floor] for row in nearest], list(nearest), clock)

    @property
    def asked(self) -> int:
        """Queries that have a neighbour that counts."""
        return sum(len(row) > 0 for row in self.near)

    def singles(self) -> list[Batch]:
        """The queries one by one, as far as they are timed."""
        if not self._singles:
            count = min(TIMED, len(self.rows))
            self._singles.extend(rows_of(self.rows, np.array([row])) for row in range(count))
        return self._singles

    def us(self, index: Engine) -> float:
        """Microseconds of a call with one query and ten hits."""
        singles = self.singles()
        index.search(singles[0], NEIGHBOURS)  # what is made at the first call
        least = np.full(len(singles), np.inf)
        for _ in range(PASSES):
            begun = self.clock()
            for place, query in enumerate(singles):
                start = self.clock()
                if place >= LEAST_TIMED and start - begun > SECONDS_A_PASS:
                    break
                index.search(query, NEIGHBOURS)
                least[place] = min(least[place], self.clock() - start)
        return float(least[np.isfinite(least)].mean()) * 1e6

    def recall(self, index: Engine) -> tuple[float, float]:
        """Recall of the neighbours that count, and of the ten nearest."""
        scores = index.search(self.rows, NEIGHBOURS)[1]
        return self._share(self.near, scores), self._share(self.ten, scores)

    @staticmethod
    def _share(truth: list[FloatArray], scores: FloatArray) -> float:
        found, wanted = count_found(truth, scores, NEIGHBOURS)
        return found / wanted if wanted else 1.0


@dataclass(frozen=True)
class Pilot:
    """What was measured of one engine over some points.

    Attributes:
        points: how many.
        us: of a call with one query and ten hits.
        bytes_per_point: beside the features.
        recall: of the neighbours that count.
        recall_all: of the ten nearest.
        told: what the engine explained.
    """

    points: int
    us: float
    bytes_per_point: float
    recall: float
    recall_all: float
    told: dict[str, Any]


def try_engine(index: Engine, pool: Batch, held: Held, *, compact: bool = True) -> Pilot:
    """Build an engine over `pool` and ask it. `compact`: all points in one segment."""
    index.add(pool)
    if compact:
        gather: Callable[[], None] | None = getattr(index, "compact", None)
        if gather is not None:
            gather()
    recall, recall_all = held.recall(index)
    us = held.us(index)
    size = sum(size for part, size in index.nbytes.items() if part != FEATURES)
    return Pilot(len(pool), us, size / len(pool), recall, recall_all, index.explain())


def call_us(index: Engine, pool: Batch, held: Held) -> float:
    """Microseconds of a call that finds next to nothing: Python, the checks, the hashing."""
    index.add(rows_of(pool, np.zeros(1, np.int64)))
    return held.us(index)


def merge_us(parts: int, clock: Clock) -> float:
    """Microseconds of bringing the hits of so many segments together."""
    if parts < 2:
        return 0.0
    ids = np.arange(NEIGHBOURS)[None]
    scores = np.linspace(1, 0, NEIGHBOURS, dtype=np.float32)[None]
    answers = [(ids + part * NEIGHBOURS, scores) for part in range(parts)]
    means = []
    for _ in range(PASSES):
        start = clock()
        for _ in range(TIMED):
            merge_topk(answers, NEIGHBOURS)
        means.append((clock() - start) / TIMED * 1e6)
    return min(means)


def segment_sizes(points: int, capacity: int) -> tuple[list[int], int]:
    """Points of the sealed segments of a collection that took so many, and of the one that fills.

    Sealed segments are as ``segments`` says: one for each binary digit of the number of full ones.
    """
    full, tail = divmod(points, capacity)
    digits = [1 << bit for bit in range(full.bit_length()) if full >> bit & 1]
    return [digit * capacity for digit in reversed(digits)], tail
