"""Which engine suits some points: expected time, memory and recall of each, and the cheapest.

    sample ─┬─► profile  how similar neighbours are, and points that are none
            └─► pilots   each engine built over the sample, asked for points that it does not hold
                                                   │
    options: µs a query, bytes a point, recall ────┴──► the cheapest that meets recall and memory

The pilots, and how their measurements are carried to more points, are in ``predictions``.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from .advice import EXACT_ENOUGH_US
from .batches import SparseBatch
from .engine import Metric, check_features
from .errors import InvalidInputError
from .pilots import Clock
from .predictions import OPTIONS, SAMPLE, SEGMENT_POINTS, SPARSE_OPTIONS, Option, Profile, Task
from .tuning import check_target

__all__ = [
    "GROWTH", "PLAN_FROM", "SAMPLE", "Option", "Plan", "Profile", "due_at", "is_worth_changing",
    "plan",
]  # fmt: skip

# Exact search is taken where comparing all takes no longer than EXACT_ENOUGH_US beside the call
# itself (over HTTP a call takes more than that), or so many times what the cheapest takes.
EXACT_ENOUGH = 1.3
# Expected recall may fall short of the target by so much, and by what the sample leaves open.
SLACK = 0.01
# Collections are planned when they have so many points (with fewer comparing all, or all sketches,
# is quick), anew when they have grown by this, and changed for so much less time.
PLAN_FROM, GROWTH, WORTH = 10_000, 4.0, 0.7


_NUMBERS = ("us", "call_us", "bytes_per_point", "recall", "recall_spread", "recall_all")


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
            for name in _NUMBERS:
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
    segment_points: int = SEGMENT_POINTS,
    seed: int = 0,
    clock: Clock = time.thread_time,
) -> Plan:
    """Choose an engine for points like these.

    Args:
        sample: of the points, drawn at random; at most ``SAMPLE`` of it are looked at.
        metric: ``"jaccard"``, ``"cosine"`` or ``"ip"``.
        points: how many there are or will be.
        target_recall: wanted.
        threshold: least similarity of the neighbours that matter.
        memory_bytes: for features and index together; no bound unless given.
        segment_points: of a segment that fills before it is sealed.
        seed: of hashes, pilots and the choice of queries.
        clock: what pilots are timed with.

    Raises:
        InvalidInputError: the sample has fewer than two points, or a value is out of range.
    """
    target_recall = check_target(target_recall)
    features = check_features(sample, metric, None, None)
    if len(features) < 2:
        raise InvalidInputError(
            "a plan needs at least two points: one has no neighbours", field="sample"
        )
    task = Task.of(
        features, metric, max(points, len(features)), target_recall, threshold,
        segment_points, seed, clock,
    )  # fmt: skip
    found = task.profile
    known = SPARSE_OPTIONS if isinstance(features, SparseBatch) else OPTIONS
    options = [_judged(make(task), task, memory_bytes) for make in known[metric]]
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
    if present is None:  # of an engine that is not predicted nothing is known to be better
        return False
    return not present.eligible or best.us < WORTH * present.us


# --- the choice ----------------------------------------------------------------------------------


def _judged(option: Option, task: Task, memory_bytes: int | None) -> Option:
    """The option, with what speaks against it."""
    if not option.eligible:
        return option
    against = []
    if option.recall < task.target_recall - SLACK - option.recall_spread:
        against.append(f"recall {option.recall:.3f} is below the {task.target_recall:g} wanted")
    own = 4 if task.metric != "jaccard" else 8
    if isinstance(task.pool, SparseBatch):
        own = 8 + 4  # a dimension and its value
    total = task.profile.points * (option.bytes_per_point + own * task.profile.width)
    if memory_bytes is not None and total > memory_bytes:
        against.append(
            f"{total / 1e6:,.0f} MB with the features; {memory_bytes / 1e6:,.0f} allowed"
        )
    if not against:
        return option
    return replace(option, why=f"{option.why}; {'; '.join(against)}", eligible=False)


def _best(options: list[Option], found: Profile) -> tuple[Option, str]:
    flat = next(option for option in options if option.index == "flat")
    n = f"{found.points:,} points"
    if flat.eligible and flat.us - flat.call_us <= EXACT_ENOUGH_US:
        return flat, f"{n}: comparing all takes about {flat.us:,.0f} µs, and answers are exact"
    eligible = [option for option in options if option.eligible]
    if not eligible:
        best = max(options, key=lambda option: (option.recall, -option.bytes_per_point))
        return best, f"{n}: nothing meets recall and memory; {best.index} comes nearest"
    best = eligible[0]
    if flat.eligible and flat.us <= EXACT_ENOUGH * best.us:
        return flat, f"{n}: nothing else reaches the recall in clearly less time than comparing all"
    ratio = flat.us / best.us
    return best, (
        f"{n}: {best.why}. About {best.us:,.0f} µs a query at recall {best.recall:.3f}, "
        f"{ratio:,.1f} times faster than comparing all"
    )
