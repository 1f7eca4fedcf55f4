"""What each engine would take and find, from pilots on a sample; which to take says ``planner``.

An engine's pilot is laid out as a collection of all points would be: sealed segments and the one
that fills, or a structure and the points that came last. What is measured there is carried to the
number of points that is asked about: a scan grows like n, group tests, tables, lists and graphs
like a power of n that was measured on real data (``GROWTHS``), and segments add up. Recall of group
tests below their threshold falls as the formulas of ``tuning`` say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .alive_points import rows_of
from .baselines import BinaryHnswIndex, BinaryIvfIndex, HnswIndex, IvfIndex, RebuiltIndex
from .baselines.rebuilt import STRUCTURE_FROM, TAIL, TAIL_SHARE
from .batches import Batch, FloatArray, SetBatch
from .engine import Engine, Metric, smallest_hit
from .errors import InvalidInputError
from .fitting import fit_lsh, fit_sets
from .flat import FlatIndex
from .flinng import MIN_CELLS, FlinngIndex
from .lsh import LshIndex
from .maxip import MaxIPIndex
from .pilots import (
    NEIGHBOURS,
    Clock,
    Held,
    Pilot,
    call_us,
    merge_us,
    segment_sizes,
    try_engine,
)
from .points import Points
from .tuning import cells_for, group_bytes, recall_of

# Points of a sealed segment's pilot, and queries beside them.
POOL, QUERIES = 16_384, 256
SAMPLE = POOL + QUERIES
# Of a structure's pilot: a graph takes long to build.
STRUCTURE_POOL = 4_096
# Points of the segment that fills; as the server seals them.
SEGMENT_POINTS = 16_384
# What a call costs beyond an empty one grows like n to this.
GROWTHS = {"flat": 1.0, "flinng": 0.55, "lsh": 0.55, "maxip": 0.4, "graph": 0.25, "lists": 0.35}
# Microseconds of an element or a coordinate that is compared in order, at least: read at 40 GB/s.
NUMBER_US = 1e-4
# So few of them are compared within so many microseconds.
FEW_NUMBERS, FEW_US = 1 << 14, 50.0
# How far from a prediction a time may lie, as a factor either way.
SPREAD = 1.5
# Where fewer sampled points have a neighbour at the threshold, all of the nearest ten count.
FEW_NEAR = 0.05


@dataclass(frozen=True)
class Profile:
    """What a sample tells of the points.

    Attributes:
        points: how many the plan is for.
        sampled: how many were looked at.
        width: dimension, or mean number of elements.
        near: share of sampled points with a neighbour at the threshold in the sample; of all
            points it is higher.
        similarities: quantiles .1, .5 and .9 of the similarity of the ten nearest in the sample.
        background: mean similarity of two points.
    """

    points: int
    sampled: int
    width: float
    near: float
    similarities: tuple[float, float, float]
    background: float


@dataclass(frozen=True)
class Option:
    """One engine, as predicted.

    Attributes:
        index, index_params: as a collection takes them.
        us: microseconds of a call with one query and ten hits from Python, one core; within a
            factor of ``SPREAD`` on a quiet machine. Over HTTP every engine takes as much longer.
        call_us: of it what an empty index takes: the call itself, and the hashing.
        bytes_per_point: beside the features.
        recall: of neighbours at the threshold (all ten where hardly any are that near).
        recall_spread: one standard error of it.
        recall_all: of the ten nearest, however far.
        why: what it does, or why it is not taken.
        eligible: whether it meets recall and memory.
    """

    index: str
    index_params: dict[str, Any] = field(default_factory=dict)
    us: float = math.inf
    call_us: float = 0.0
    bytes_per_point: float = 0.0
    recall: float = 0.0
    recall_spread: float = 0.0
    recall_all: float = 0.0
    why: str = ""
    eligible: bool = True


# --- the sample ----------------------------------------------------------------------------------


@dataclass(eq=False)
class Task:
    """What is planned for, and what all pilots share.

    Attributes:
        pool: features of the sample but the queries, in the order in which they came.
        queries: features of the queries.
        scores: exact, float32 (queries, pool).
    """

    pool: Batch
    queries: Batch
    scores: FloatArray
    metric: Metric
    profile: Profile
    target_recall: float
    threshold: float | None
    capacity: int
    seed: int
    clock: Clock
    _flat: Pilot | None = None
    _flat_call: float = 0.0

    @classmethod
    def of(
        cls,
        features: Batch,
        metric: Metric,
        points: int,
        target_recall: float,
        threshold: float | None,
        capacity: int,
        seed: int,
        clock: Clock,
    ) -> Task:
        """Split a sample into pool and queries, and compare them."""
        order = np.random.default_rng(seed).permutation(len(features))[:SAMPLE]
        asked = max(1, min(QUERIES, len(order) // 8))
        queries = rows_of(features, order[:asked])
        pool = rows_of(features, np.sort(order[asked:]))
        scores = _similarities(pool, queries)
        profile = _profile(features, scores, metric, points, len(order), threshold)
        return cls(
            pool, queries, scores, metric, profile, target_recall, threshold, capacity, seed, clock
        )

    @property
    def near_only(self) -> bool:
        """Whether only neighbours at the threshold count."""
        return self.threshold is not None and self.profile.near >= FEW_NEAR

    def part(self, points: int) -> tuple[Batch, Held]:
        """So many points from all over the pool, and the queries for an engine over them."""
        rows = np.linspace(0, len(self.pool) - 1, min(points, len(self.pool))).astype(np.int64)
        floor = smallest_hit(self.metric, self.threshold if self.near_only else None)
        kept = max(1, round(NEIGHBOURS * min(1.0, len(rows) / self.profile.points)))
        held = Held.of(self.queries, self.scores[:, rows], kept, floor, self.clock)
        return rows_of(self.pool, rows), held

    def flat(self) -> tuple[Pilot, float]:
        """Exact search over the pool, and what its empty call takes."""
        if self._flat is None:
            pool, held = self.part(len(self.pool))
            self._flat_call = call_us(FlatIndex(self.metric), pool, held)
            self._flat = try_engine(FlatIndex(self.metric), pool, held)
        return self._flat, self._flat_call

    @property
    def scan_us(self) -> float:
        """Microseconds of the exact comparison of one point in order."""
        flat, call = self.flat()
        return max(flat.us - call, 0.0) / flat.points

    @property
    def exact_us(self) -> float:
        """Microseconds of comparing all points, within what any machine needs for their numbers.

        The difference of two measured times can be anything where one of them was disturbed.
        """
        numbers = self.profile.points * self.profile.width
        found = max(self.scan_us * self.profile.points, NUMBER_US * numbers)
        return min(found, FEW_US) if numbers <= FEW_NUMBERS else found

    def spread(self, recall: float) -> float:
        """One standard error of a recall, as if each query had one neighbour."""
        asked = max(1, self.part(len(self.pool))[1].asked)
        middle = (recall * asked + 1) / (asked + 2)  # one found and one missed beside what was seen
        return math.sqrt(middle * (1 - middle) / asked)


def _similarities(pool: Batch, queries: Batch) -> FloatArray:
    stored = Points()
    stored.append(np.arange(len(pool)), pool)
    view = stored.view()
    assert view is not None
    rows = view.similarities(queries, np.arange(len(pool)))
    return np.array(list(rows), np.float32)


def _profile(
    features: Batch,
    scores: FloatArray,
    metric: Metric,
    points: int,
    sampled: int,
    threshold: float | None,
) -> Profile:
    kept = min(NEIGHBOURS, scores.shape[1])
    tens: npt.NDArray[Any] = np.partition(scores, scores.shape[1] - kept, axis=1)[:, -kept:]
    floor = smallest_hit(metric, threshold)
    low, middle, high = (float(x) for x in np.quantile(tens, (0.1, 0.5, 0.9)))
    width = (
        float(features.sizes.mean()) if isinstance(features, SetBatch) else float(features.shape[1])
    )
    near = float(np.mean(tens.max(axis=1) >= floor))
    return Profile(points, sampled, width, near, (low, middle, high), float(scores.mean()))


# --- the options ---------------------------------------------------------------------------------


def _flat(task: Task) -> Option:
    pilot, call = task.flat()
    us = call + task.exact_us
    why = "compares every point; answers are exact"
    return Option("flat", {}, us, call, pilot.bytes_per_point, 1.0, 0.0, 1.0, why)


def _expected(task: Task) -> int:
    """Points to lay an index out for: it is planned again when there are four times as many."""
    points = 2 * task.profile.points
    step = int(10 ** max(0, len(str(points)) - 2))
    return -(-points // step) * step


def _flinng(task: Task) -> Option:
    params: dict[str, Any] = {"expected_points": _expected(task)}
    option = _segmented(task, "flinng", params)
    if option.recall >= task.target_recall or task.metric != "jaccard" or not option.eligible:
        return option
    # Where points resemble each other, keys of several values and more tables find more.
    fitted = fit_sets(
        task.pool,
        expected_points=params["expected_points"],
        threshold=FlinngIndex("jaccard", threshold=task.threshold).threshold,
        target_recall=task.target_recall,
        seed=task.seed,
    )
    other = _segmented(task, "flinng", params | {name: fitted[name] for name in ("K", "tables")})
    return other if other.recall > option.recall else option


def _lsh(task: Task) -> Option:
    params: dict[str, Any] = {"expected_points": _expected(task)}
    fitted = fit_lsh(
        task.pool,
        "jaccard" if task.metric == "jaccard" else "cosine",
        expected_points=params["expected_points"],
        threshold=task.threshold,
        target_recall=task.target_recall,
        seed=task.seed,
    )
    return _segmented(task, "lsh", params | {name: fitted[name] for name in ("K", "tables")})


def _maxip(task: Task) -> Option:
    return _segmented(task, "maxip", {})


def _segmented(task: Task, name: str, params: dict[str, Any]) -> Option:
    """An engine of segments: what a sealed one and the one that fills take, added up."""

    def make(*, settle: bool = True) -> Engine:
        own: dict[str, Any] = {"seed": task.seed, "target_recall": task.target_recall, **params}
        own |= {"capacity": task.capacity, "settle": settle}
        if name == "maxip":
            return MaxIPIndex(**own)
        kind = FlinngIndex if name == "flinng" else LshIndex
        return cast(Engine, kind(task.metric, threshold=task.threshold, **own))

    try:
        call = call_us(make(), *task.part(1))
    except InvalidInputError as error:
        return Option(name, why=str(error), eligible=False)
    n, pool = task.profile.points, len(task.pool)
    sizes, tail = segment_sizes(n, task.capacity)
    us, size, recall, recall_all = call, 0.0, 0.0, 0.0
    us += merge_us(len(sizes) + (tail > 0), task.clock)
    told: dict[str, Any] = {}
    if sizes:
        engine = make()
        sealed = try_engine(engine, *task.part(pool))
        for each in sizes:
            us += max(0.0, sealed.us - call) * (each / pool) ** GROWTHS[name]
            size += sealed.bytes_per_point * each
            near, all_ten = sealed.recall, sealed.recall_all
            if isinstance(engine, FlinngIndex):
                fall, fall_all = _falls(task, engine, each)
                near, all_ten = near * fall, all_ten * fall_all
                size += (group_bytes(each, engine.tables) - group_bytes(pool, engine.tables)) * each
            recall += near * each
            recall_all += all_ten * each
        told = sealed.told
    if tail:
        tried = max(1, min(tail, pool, task.capacity - 1))
        filling = try_engine(make(settle=False), *task.part(tried), compact=False)
        us += max(0.0, filling.us - call) * tail / tried
        size += filling.bytes_per_point * tail
        recall += filling.recall * tail
        recall_all += filling.recall_all * tail
        told = told or filling.told
    recall, recall_all = recall / n, recall_all / n
    why = f"{_layout(name, told)}; {len(sizes)} sealed segments and {tail:,} points as they came"
    return Option(
        name, params, us, call, size / n, recall, task.spread(recall), recall_all, why
    )  # fmt: skip


def _falls(task: Task, index: FlinngIndex, points: int) -> tuple[float, float]:
    """By what factor recall of group tests falls from the pilot's points to so many.

    Of the neighbours that count, and of the ten nearest: a neighbour at the threshold is looked for
    as surely among many points, a farther one is not.
    """
    steps = np.linspace(0, 1, 41)
    kept = min(NEIGHBOURS, task.scores.shape[1])
    tens = np.partition(task.scores, task.scores.shape[1] - kept, axis=1)[:, -kept:]
    floor = smallest_hit(task.metric, task.threshold if task.near_only else None)
    curves = [
        np.interp(tens, steps, _formula_recalls(task, index, n, steps))
        for n in (len(task.pool), points)
    ]
    before, after = curves
    counts = tens >= floor
    return (
        float(np.sum(after, where=counts) / max(1e-9, np.sum(before, where=counts))),
        float(after.sum() / max(1e-9, before.sum())),
    )


def _formula_recalls(
    task: Task, index: FlinngIndex, points: int, similarities: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    shape = index._shape(points)
    if shape is None:
        return np.ones(len(similarities))
    near = index._key_probability(index.threshold, shape)
    cells = cells_for(points, shape, index.tables, near, task.target_recall) + 2 * NEIGHBOURS
    cells = max(MIN_CELLS, cells)
    keys = [max(1e-9, index._key_probability(float(x), shape)) for x in similarities]
    recalls = [recall_of(points, shape, index.tables, key, cells) for key in keys]
    return np.where(similarities > 0, recalls, 0.0)


def _layout(name: str, told: dict[str, Any]) -> str:
    if name == "maxip":
        return "k-means lists and 1-bit codes"
    if name == "flinng":
        return f"{told['tables']} group tests"
    met = sum(segment["expected_candidates"] for segment in told["segments"])
    share = met / max(1, told["points"])
    return (
        f"{told['tables']} tables of {told['K']} hashes; a query meets about {share:.1%} of the "
        "points by chance"
    )


def _structure(task: Task, index: RebuiltIndex, empty: RebuiltIndex, growth: str) -> Option:
    """An engine of FAISS: its structure, and the points that came last, compared exactly."""
    n = task.profile.points
    pool, held = task.part(STRUCTURE_POOL)
    call = call_us(cast(Engine, empty), pool, held)
    pilot = try_engine(cast(Engine, index), pool, held, compact=False)
    factor = max(1.0, n / len(pool))
    us = call + max(0.0, pilot.us - call) * factor ** GROWTHS[growth]
    covered = n >= STRUCTURE_FROM
    tail = waiting(n) / 2
    us += task.scan_us * tail + merge_us(1 + covered, task.clock)
    # With more points it looks as far as the target needs, no farther.
    above = max(0.0, pilot.recall - task.target_recall)
    recall = pilot.recall - above * (1 - factor**-0.5)
    breadth = pilot.told.get("breadth", len(pool))
    why = {
        "graph": f"a graph; {breadth} points in view (efSearch) of {len(pool):,}, more of more",
        "lists": f"k-means lists; {breadth} of those of {len(pool):,} points are looked at",
    }[growth]
    why += f"; up to {2 * tail:,.0f} points that came last are compared exactly"
    return Option(
        index.kind, {}, us, call, pilot.bytes_per_point, recall, task.spread(recall),
        pilot.recall_all, why,
    )  # fmt: skip


def waiting(points: int) -> int:
    """How many points may lie beside a structure and be compared exactly; half of it on average."""
    return max(0, min(int(max(TAIL, TAIL_SHARE * points)), points - STRUCTURE_FROM))


def _hnsw(task: Task) -> Option:
    made = (HnswIndex(task.metric, **_wanted(task)) for _ in range(2))
    return _structure(task, next(made), next(made), "graph")


def _ivf(task: Task) -> Option:
    made = (IvfIndex(task.metric, **_wanted(task)) for _ in range(2))
    return _structure(task, next(made), next(made), "lists")


def _binary_hnsw(task: Task) -> Option:
    made = (BinaryHnswIndex(task.metric, **_wanted(task)) for _ in range(2))
    return _structure(task, next(made), next(made), "graph")


def _binary_ivf(task: Task) -> Option:
    made = (BinaryIvfIndex(task.metric, **_wanted(task)) for _ in range(2))
    return _structure(task, next(made), next(made), "lists")


OPTIONS: dict[str, tuple[Callable[[Task], Option], ...]] = {
    "jaccard": (_flat, _flinng, _lsh, _binary_hnsw, _binary_ivf),
    "cosine": (_flat, _flinng, _lsh, _hnsw, _ivf),
    "ip": (_flat, _maxip, _hnsw, _ivf),
}
SPARSE_OPTIONS: dict[str, tuple[Callable[[Task], Option], ...]] = {
    "cosine": (_flat, _flinng, _lsh),
    "ip": (_flat,),
}
"""Of sparse vectors."""


def _wanted(task: Task) -> dict[str, Any]:
    return {
        "seed": task.seed,
        "target_recall": task.target_recall,
        "threshold": task.threshold if task.near_only else None,
    }
