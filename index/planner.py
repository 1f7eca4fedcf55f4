"""Which engine suits some points: predicted time, memory and recall of each, and the cheapest.

    sample of the points ──► profile   how similar neighbours are, and points that are none
                         ├─► formulas  group tests and LSH tables (``tuning``), scans
                         └─► pilots    FAISS's engines, built on the sample: how far they must look
                                                   │
    options: µs a query, bytes a point, recall ────┴──► the cheapest that meets recall and memory

What a pilot needs grows with the number of points: breadth of a graph by n^.25, of lists in
proportion to their number, candidates by sketch by n^.25. The constants are ns of one core for a
call with one query, set by hand from measurements on URLs and on Gaussian vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .baselines import BinaryHnswIndex, BinaryIvfIndex, HnswIndex, IvfIndex, RebuiltIndex
from .baselines.vectors import lists_for
from .batches import Batch, SetBatch
from .engine import Metric, check_batch, smallest_hit
from .errors import InvalidInputError
from .flinng import FlinngIndex
from .lsh import LshIndex
from .points import Points
from .segment import rows_of
from .tuning import cells_for, check_target, group_shape, postings_bytes, recall_of

SAMPLE = 4_096
QUERIES = 128
NEIGHBOURS = 10
# A call from Python, hashing aside: of closeby's own kernels, and of FAISS with what surrounds it.
CALL, FAISS_CALL = 30_000.0, 60_000.0
# Exact comparison in order, for each element or dimension, and of a candidate out of order.
SCAN = {"jaccard": 4.0, "cosine": 0.15, "ip": 0.15}
COMPARE = {"jaccard": 1.0, "cosine": 0.25, "ip": 0.25}
COMPARE_BASE = 80.0
# Hash values: for each element, or dimension.
HASH = {"jaccard": 0.125, "cosine": 0.02}
BITMAP_BYTE, SKETCH = 0.08, 5.0
GRAPH_STEP, GRAPH_DIMENSION, GRAPH_SKETCH = 1_500.0, 1.5, 1_800.0
LIST_DIMENSION, LIST_SKETCH = 0.3, 5.0
# Exact search that takes no longer than this is taken without looking farther.
EXACT_ENOUGH_US = 300.0
# Where fewer sampled points have a neighbour at the threshold, all of the nearest ten count.
FEW_NEAR = 0.05
# Predicted recall may fall short of the target by so much.
SLACK = 0.01
# Collections are planned when they have so many points (with fewer comparing all, or all sketches,
# is quick), anew when they have grown by this, and changed for so much less time.
PLAN_FROM, GROWTH, WORTH = 10_000, 4.0, 0.7


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
        us: microseconds of a call with one query and ten hits, one core.
        bytes_per_point: beside the features.
        recall: of neighbours at the threshold (all ten where hardly any are that near).
        recall_all: of the ten nearest, however far.
        why: what it does, or why it is not taken.
        eligible: whether it meets recall and memory.
    """

    index: str
    index_params: dict[str, Any] = field(default_factory=dict)
    us: float = math.inf
    bytes_per_point: float = 0.0
    recall: float = 0.0
    recall_all: float = 0.0
    why: str = ""
    eligible: bool = True


@dataclass(frozen=True)
class Plan:
    """The engine to take, and all that were considered, cheapest first."""

    index: str
    index_params: dict[str, Any]
    why: str
    target_recall: float
    threshold: float | None
    memory_bytes: int | None
    profile: Profile
    options: tuple[Option, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        told: dict[str, Any] = asdict(self)
        for option in told["options"]:
            for name in ("us", "bytes_per_point", "recall", "recall_all"):
                value = option[name]
                option[name] = round(value, 3) if math.isfinite(value) else None
        return told

    def option(self, index: str) -> Option | None:
        """What was predicted of one engine."""
        return next((option for option in self.options if option.index == index), None)


def plan(
    sample: Any,
    metric: Metric,
    *,
    points: int,
    target_recall: float = 0.95,
    threshold: float | None = None,
    memory_bytes: int | None = None,
    seed: int = 0,
) -> Plan:
    """Choose an engine for points like these.

    Args:
        sample: of the points, drawn at random; at most ``SAMPLE`` of it are looked at.
        metric: ``"jaccard"``, ``"cosine"`` or ``"ip"``.
        points: how many there are or will be.
        target_recall: wanted.
        threshold: least similarity of the neighbours that matter.
        memory_bytes: for features and index together; no bound unless given.
        seed: of hashes, pilots and the choice of queries.

    Raises:
        InvalidInputError: the sample has fewer than two points, or a value is out of range.
    """
    target_recall = check_target(target_recall)
    features = check_batch(sample, metric, None)
    if len(features) < 2:
        raise InvalidInputError(
            "a plan needs at least two points: one has no neighbours", field="sample"
        )
    rng = np.random.default_rng(seed)
    if len(features) > SAMPLE:
        features = rows_of(features, np.sort(rng.choice(len(features), SAMPLE, replace=False)))
    found, tens = _profile(features, metric, max(points, len(features)), threshold, rng)
    task = _Task(features, metric, found, tens, target_recall, threshold, seed)
    options = [_judged(make(task), task, memory_bytes) for make in _OPTIONS[metric]]
    options.sort(key=lambda option: (not option.eligible, option.us))
    best, why = _best(options, found)
    chosen = (best, *(option for option in options if option is not best))
    return Plan(
        best.index,
        best.index_params,
        why,
        target_recall,
        threshold,
        memory_bytes,
        found,
        chosen,
    )


def due_at(planned_for: int | None, *, first: int = PLAN_FROM, growth: float = GROWTH) -> int:
    """With how many points a collection is planned (again); `planned_for` None: not yet planned.

    Before `first` points there is nothing to choose, so a plan for fewer does not bring the next
    one nearer.
    """
    return first if planned_for is None else max(first, math.ceil(growth * planned_for))


def is_worth_changing(found: Plan, index: str) -> bool:
    """Whether to leave the engine that there is: only for one that is clearly better."""
    if found.index == index:
        return False
    present = found.option(index)
    best = found.option(found.index)
    assert best is not None
    if present is None:  # of an engine that is not predicted (maxip) nothing is known to be better
        return False
    return not present.eligible or best.us < WORTH * present.us


# --- the sample ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Task:
    sample: Batch
    metric: Metric
    profile: Profile
    tens: np.ndarray[Any, Any]
    target_recall: float
    threshold: float | None
    seed: int

    def recalls(self, at: Callable[[float], float]) -> tuple[float, float]:
        """Recall of neighbours that count, and of all ten, from recall by similarity."""
        steps = np.linspace(0, 1, 41)
        curve = np.array([at(float(step)) for step in steps])
        all_ten = float(np.interp(self.tens, steps, curve).mean())
        if self.threshold is None or self.profile.near < FEW_NEAR:
            return all_ten, all_ten
        near = self.tens[self.tens >= self.threshold]
        return float(np.interp(near, steps, curve).mean()), all_ten

    @property
    def rerank_us(self) -> float:
        """Microseconds of the exact comparison of one candidate."""
        return (COMPARE_BASE + COMPARE[self.metric] * self.profile.width) / 1e3


def _profile(
    features: Batch,
    metric: Metric,
    points: int,
    threshold: float | None,
    rng: np.random.Generator,
) -> tuple[Profile, np.ndarray[Any, Any]]:
    stored = Points()
    stored.append(np.arange(len(features)), features)
    view = stored.view()
    assert view is not None
    asked = np.sort(rng.choice(len(features), min(QUERIES, len(features)), replace=False))
    kept = min(NEIGHBOURS, len(features) - 1)
    tens = np.empty((len(asked), kept))
    means = np.empty(len(asked))
    rows = view.similarities(view.take(asked), np.arange(len(features)))
    for number, (row, own) in enumerate(zip(rows, asked.tolist(), strict=True)):
        others = np.delete(row, own)
        tens[number] = np.sort(np.partition(others, -kept)[-kept:])[::-1]
        means[number] = others.mean()
    floor = smallest_hit(metric, threshold)
    low, middle, high = (float(x) for x in np.quantile(tens, (0.1, 0.5, 0.9)))
    width = (
        float(features.sizes.mean()) if isinstance(features, SetBatch) else float(features.shape[1])
    )
    profile = Profile(
        points,
        len(features),
        width,
        float(np.mean(tens[:, 0] >= floor)),
        (low, middle, high),
        float(means.mean()),
    )
    return profile, tens


# --- the options ---------------------------------------------------------------------------------


def _flat(task: _Task) -> Option:
    us = (CALL + task.profile.points * task.profile.width * SCAN[task.metric]) / 1e3
    return Option("flat", {}, us, 9, 1.0, 1.0, "compares every point; answers are exact")


def _flinng(task: _Task) -> Option:
    n = task.profile.points
    try:
        index = FlinngIndex(
            task.metric,
            target_recall=task.target_recall,
            threshold=task.threshold,
            expected_points=n,
        )
    except InvalidInputError as error:
        return Option("flinng", why=str(error), eligible=False)
    shape = group_shape(n, index.tables)
    values = index.tables * index.K + index.sketch_bits
    hashing = values * task.profile.width * HASH[task.metric]
    if shape is None:
        us = (CALL + hashing + n * SKETCH) / 1e3 + 100 * task.rerank_us
        recall = task.recalls(lambda s: float(s > task.profile.background))
        return Option("flinng", {}, us, 80, *recall, "so few points that all sketches are scanned")
    near = index._key_probability(index.threshold, shape)
    cells = max(64, cells_for(n, shape, index.tables, near, task.target_recall)) + 20
    tests = index.tables * n / (8 * shape.group_size) * BITMAP_BYTE
    scan = cells * shape.group_size * SKETCH
    us = (CALL + hashing + tests + scan) / 1e3 + 100 * task.rerank_us
    bits = index.tables * 2.0**shape.range_bits / (8 * shape.group_size)
    recall = task.recalls(
        lambda s: (
            recall_of(n, shape, index.tables, max(1e-9, index._key_probability(s, shape)), cells)
            if s > 0
            else 0.0
        )
    )
    why = (
        f"{index.tables} group tests, {cells} cells of {shape.group_size} points scanned by sketch"
    )
    return Option("flinng", {}, us, bits + 80, *recall, why)


def _lsh(task: _Task) -> Option:
    n = task.profile.points
    try:
        index = LshIndex(
            task.metric,
            target_recall=task.target_recall,
            threshold=task.threshold,
            expected_points=n,
        )
    except InvalidInputError as error:
        return Option("lsh", why=str(error), eligible=False)
    far = max(0.0, index._hash_probability(max(0.0, task.profile.background)))
    met = min(float(n), index.tables * (n * far**index.K + 4))
    values = index.tables * index.K + index.sketch_bits
    hashing = values * task.profile.width * HASH[task.metric]
    us = (CALL + hashing + index.tables * 60 + met * 8) / 1e3 + 100 * task.rerank_us
    size = postings_bytes(n, index.tables) + 72
    recall = task.recalls(
        lambda s: 1 - (1 - index._hash_probability(s) ** index.K) ** index.tables if s > 0 else 0.0
    )
    why = f"{index.tables} tables of {index.K} hashes; about {met:,.0f} points are met by chance"
    return Option("lsh", {}, us, size, *recall, why)


def _hnsw(task: _Task) -> Option:
    n, dim = task.profile.points, task.profile.width
    ef, recall = _pilot(task, HnswIndex(task.metric, **_wanted(task)))
    ef = min(n, ef * _growth(task) ** 0.25)
    us = (FAISS_CALL + ef * (GRAPH_STEP + GRAPH_DIMENSION * dim)) / 1e3 + 10 * task.rerank_us
    why = f"a graph; about {ef:.0f} points in view (efSearch)"
    return Option("hnsw", {}, us, 4 * dim + 34 * 4 + 29, recall, recall, why)


def _ivf(task: _Task) -> Option:
    n, dim = task.profile.points, task.profile.width
    index = IvfIndex(task.metric, **_wanted(task))
    probes, recall = _pilot(task, index)
    share = min(1.0, probes / lists_for(task.profile.sampled, None))
    share *= _growth(task) ** -0.4
    us = (FAISS_CALL + (lists_for(n, None) + share * n) * dim * LIST_DIMENSION) / 1e3
    why = f"k-means lists; about {share:.1%} of the points compared"
    return Option("ivf", {}, us + 10 * task.rerank_us, 4 * dim + 32, recall, recall, why)


def _binary_hnsw(task: _Task) -> Option:
    index = BinaryHnswIndex(task.metric, **_wanted(task))
    ef, recall = _pilot(task, index)
    ef = min(float(task.profile.points), ef * _growth(task) ** 0.25)
    hashing = index.sketch_bits * task.profile.width * HASH["jaccard"]
    us = (FAISS_CALL + hashing + ef * GRAPH_SKETCH) / 1e3 + min(ef, 100) * task.rerank_us
    why = f"a graph over sketches; about {ef:.0f} points in view (efSearch)"
    return Option("binary_hnsw", {}, us, 64 + 34 * 4 + 29, recall, recall, why)


def _binary_ivf(task: _Task) -> Option:
    n = task.profile.points
    index = BinaryIvfIndex(task.metric, **_wanted(task))
    probes, recall = _pilot(task, index)
    share = min(1.0, probes / lists_for(task.profile.sampled, None)) * _growth(task) ** -0.4
    hashing = index.sketch_bits * task.profile.width * HASH["jaccard"]
    us = (FAISS_CALL + hashing + (lists_for(n, None) + share * n) * LIST_SKETCH) / 1e3
    why = f"lists of sketches; about {share:.1%} of the sketches scanned"
    return Option("binary_ivf", {}, us + 100 * task.rerank_us, 96, recall, recall, why)


_OPTIONS: dict[str, tuple[Callable[[_Task], Option], ...]] = {
    "jaccard": (_flat, _flinng, _lsh, _binary_hnsw, _binary_ivf),
    "cosine": (_flat, _flinng, _lsh, _hnsw, _ivf),
    "ip": (_flat, _hnsw, _ivf),
}


def _wanted(task: _Task) -> dict[str, Any]:
    near = task.profile.near >= FEW_NEAR
    return {
        "seed": task.seed,
        "target_recall": task.target_recall,
        "threshold": task.threshold if near else None,
    }


def _growth(task: _Task) -> float:
    return max(1.0, task.profile.points / task.profile.sampled)


def _pilot(task: _Task, index: RebuiltIndex) -> tuple[float, float]:
    """Breadth that a structure over the sample needs, and the recall that it has with it."""
    index.add(task.sample)
    told = index.explain()
    if told["curve"] is None:
        return 64.0, 1.0
    return float(told["breadth"]), float(told["predicted_recall"])


# --- the choice ----------------------------------------------------------------------------------


def _judged(option: Option, task: _Task, memory_bytes: int | None) -> Option:
    """The option, with what speaks against it."""
    if not option.eligible:
        return option
    against = []
    if option.recall < task.target_recall - SLACK:
        against.append(f"recall {option.recall:.3f} is below the {task.target_recall:g} wanted")
    own = 4 if task.metric != "jaccard" else 8
    total = task.profile.points * (option.bytes_per_point + own * task.profile.width)
    if memory_bytes is not None and total > memory_bytes:
        against.append(
            f"{total / 1e6:,.0f} MB with the features; {memory_bytes / 1e6:,.0f} allowed"
        )
    if not against:
        return option
    told = asdict(option) | {"why": f"{option.why}; {'; '.join(against)}", "eligible": False}
    return Option(**told)


def _best(options: list[Option], found: Profile) -> tuple[Option, str]:
    flat = next(option for option in options if option.index == "flat")
    n = f"{found.points:,} points"
    if flat.eligible and flat.us <= EXACT_ENOUGH_US:
        return flat, f"{n}: comparing all takes about {flat.us:,.0f} µs, and answers are exact"
    eligible = [option for option in options if option.eligible]
    if not eligible:
        best = max(options, key=lambda option: (option.recall, -option.bytes_per_point))
        return best, f"{n}: nothing meets recall and memory; {best.index} comes nearest"
    best = eligible[0]
    if best is flat:
        return flat, f"{n}: nothing else reaches the recall in less time than comparing all"
    ratio = flat.us / best.us
    return best, (
        f"{n}: {best.why}. About {best.us:,.0f} µs a query at recall {best.recall:.3f}, "
        f"{ratio:,.1f} times faster than comparing all"
    )
