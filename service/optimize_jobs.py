"""Jobs that run `closeby.optimize` over the points of a collection.

    select         points whose mean represents that of all
    frank_wolfe    a vector as a sparse combination of points

They hold the points of the moment at which they begin (`held_points`), so writes meanwhile change
nothing. Nothing of theirs is durable before the end: a job that is resumed begins anew, with the
points of that moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from closeby.index.maxip_input import MAX_NORM

from .bodies import read_model
from .errors import ValidationError
from .held_points import Embedding, HeldPoints, as_given, check_size, embedding_of, hold
from .jobs import JobContext, Kind
from .payload_filter import PayloadFilter
from .schemas import FrankWolfeBody, SelectBody
from .shard import Shard

if TYPE_CHECKING:
    from closeby.optimize import FrankWolfeResult, Progress
    from closeby.optimize.trace import Array

__all__ = ["FRANK_WOLFE", "SELECT", "check_frank_wolfe", "check_select"]

EXACT_POINTS = 20_000
EXACT_CHOICES = 200
"""Up to so many points, or choices, comparing all takes less time than building an index."""
TRACE_ROWS = 1_000
"""Steps of a trace that are answered, evenly spread over all."""


# --- before a job is queued ----------------------------------------------------------------------


def check_select(shard: Shard, asked: SelectBody, most_bytes: int) -> None:
    """Refuse what cannot be done with the points as they are. Raises ValidationError."""
    embedding = embedding_of(shard, asked.seed)
    if asked.target is not None:
        if shard.metric == "jaccard":
            raise ValidationError.of("target", "the mean of sets is no vector; leave it out")
        _target(asked.target, embedding.dim)
    count = _check_points(shard, asked, embedding, most_bytes) - len(set(asked.exclude))
    if asked.filter is None:
        _check_m(asked, count)


def check_frank_wolfe(shard: Shard, asked: FrankWolfeBody, most_bytes: int) -> None:
    """Refuse what cannot be done with the points as they are. Raises ValidationError."""
    embedding = as_given(shard)
    _target(asked.target, embedding.dim)
    _check_points(shard, asked, embedding, most_bytes)


def _check_points(
    shard: Shard, asked: SelectBody | FrankWolfeBody, embedding: Embedding, most_bytes: int
) -> int:
    """How many points there are."""
    if asked.filter is not None:
        PayloadFilter.parse(asked.filter)
    unknown = shard.unknown(asked.exclude)
    if unknown:
        at = asked.exclude.index(unknown[0])
        raise ValidationError.of(f"exclude[{at}]", f"there is no point {unknown[0]!r}")
    count = shard.count_now()
    if not count:
        raise ValidationError.of("collection", "holds no points")
    check_size(count, embedding.dim, most_bytes)
    return count


def _check_m(asked: SelectBody, count: int) -> None:
    if count < 1:
        raise ValidationError.of("exclude", "leaves no point to choose")
    if asked.unique and asked.m > count:
        raise ValidationError.of(
            "m", f"is {asked.m}, and there are {count} points to choose from", count
        )


def _target(given: list[float], dim: int) -> Array:
    if len(given) != dim:
        raise ValidationError.of(
            "target", f"has {len(given)} dimensions, the points have {dim}", dim
        )
    target = np.array(given, np.float64)
    if not (np.abs(target) <= MAX_NORM).all():
        raise ValidationError.of("target", f"no number may be above {MAX_NORM:g}", MAX_NORM)
    return target


# --- select --------------------------------------------------------------------------------------


def select(context: JobContext) -> dict[str, Any]:
    """Choose `m` points by herding; a row for each, in the order of choice."""
    asked = read_model(context.params, SelectBody)
    shard = context.shard()
    embedding = embedding_of(shard, asked.seed)
    # By the highest inner product the collection's own index can be asked; for the greedy choice
    # one of another dimension is built.
    own = shard.metric == "ip" and asked.criterion == "inner" and asked.oracle != "exact"
    held = _hold(context, shard, asked, embedding, indexed=own)
    places = np.flatnonzero(held.free)
    _check_m(asked, len(places))
    from closeby.optimize import herding, random_discrepancy  # when needed: starts are quicker

    vectors = held.vectors if held.free.all() else held.vectors[places]
    # Excluded points are not chosen, but those that are chosen stand for them too.
    target = (
        held.vectors.mean(axis=0, dtype=np.float64)
        if asked.target is None
        else _target(asked.target, embedding.dim)
    )
    oracle = _oracle(asked, len(places))

    def tell(step: Progress) -> None:
        shown = {"phase": "choosing", "discrepancy": (2 * step.objective) ** 0.5}
        context.progress(step.iteration + 1, asked.m, **shown)

    context.progress(0, asked.m, phase="choosing")
    index = held.index if oracle == "index" else None
    found = herding(
        vectors if index is None else index,
        asked.m,
        target,
        asked.unique,
        criterion=asked.criterion,
        oracle="ladder" if oracle == "index" else "exact",
        seed=asked.seed,
        callback=tell,
    )
    chosen = places[found.ids] if index is None else held.places(found.ids)
    chance = random_discrepancy(vectors, asked.m, target, asked.unique, seed=asked.seed)
    rows = zip(
        chosen.tolist(),
        found.weights.tolist(),
        found.discrepancy.tolist(),
        chance.tolist(),
        strict=True,
    )
    _write_rows(
        context,
        (
            {"id": held.ids[at], "weight": weight, "discrepancy": own, "random_discrepancy": theirs}
            for at, weight, own, theirs in rows
        ),
    )
    return {
        "points": len(held.ids),
        "selected": asked.m,
        "discrepancy": float(found.discrepancy[-1]),
        "random_discrepancy": float(chance[-1]),
        "oracle": oracle,
    }


def _oracle(asked: SelectBody, count: int) -> str:
    if asked.oracle != "auto":
        return asked.oracle
    return "exact" if count <= EXACT_POINTS or asked.m <= EXACT_CHOICES else "index"


# --- frank_wolfe ---------------------------------------------------------------------------------


def approximate(context: JobContext) -> dict[str, Any]:
    """Minimise |point - target|² over the combinations of points; a row for each with weight."""
    asked = read_model(context.params, FrankWolfeBody)
    shard = context.shard()
    embedding = as_given(shard)
    target = _target(asked.target, embedding.dim)
    own = shard.metric == "ip" and len(shard) > EXACT_POINTS
    held = _hold(context, shard, asked, embedding, indexed=own)
    places = np.flatnonzero(held.free)
    if not len(places):
        raise ValidationError.of("exclude", "leaves no point")
    from closeby.optimize import frank_wolfe  # when needed: starts are quicker

    # A hull that is `radius` times as large is reached by making the target smaller.
    scale = asked.radius**2
    aim = target / asked.radius

    def distance(w: Array) -> tuple[float, Array]:
        difference = w - aim
        return float(difference @ difference), 2 * difference

    def tell(step: Progress) -> None:
        shown = {"objective": step.objective * scale, "gap": step.gap * scale}
        finite = {name: value for name, value in shown.items() if np.isfinite(value)}
        context.progress(step.iteration + 1, asked.max_iter, phase="approximating", **finite)

    context.progress(0, asked.max_iter, phase="approximating")
    vectors = held.vectors if held.free.all() else held.vectors[places]
    found = frank_wolfe(
        distance,
        vectors if held.index is None else held.index,
        asked.variant,
        max_iter=asked.max_iter,
        tol=asked.tol / scale,
        certify=asked.certify,
        callback=tell,
        signed=asked.signed,
        seed=asked.seed,
    )
    order = np.lexsort((found.ids, -np.abs(found.weights)))
    kept = order[found.weights[order] != 0]
    ids = found.ids[kept]
    combined = places[ids] if held.index is None else held.places(ids)
    _write_rows(
        context,
        (
            {"id": held.ids[at], "weight": weight * asked.radius}
            for at, weight in zip(combined.tolist(), found.weights[kept].tolist(), strict=True)
        ),
    )
    return {
        "points": len(held.ids),
        "selected": len(kept),
        "objective": found.objective * scale,
        "gap": _finite(found.gap * scale),
        "certified": found.certified,
        "bound": _finite(found.bound * scale),
        "status": found.status,
        "iterations": len(found.trace),
        "trace": _trace(found, scale),
    }


def _trace(found: FrankWolfeResult, scale: float) -> dict[str, list[Any]]:
    """The trace as columns, of many steps some."""
    steps = found.trace.steps
    rows = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), TRACE_ROWS)).round())
    shown = [steps[int(row)] for row in rows]
    return {
        "iteration": [step.iteration for step in shown],
        "objective": [_finite(step.objective * scale) for step in shown],
        "gap": [_finite(step.gap * scale) for step in shown],
        "seconds": [round(step.seconds, 6) for step in shown],
        "atoms": [step.atoms for step in shown],
    }


# --- both ----------------------------------------------------------------------------------------


def _hold(
    context: JobContext,
    shard: Shard,
    asked: SelectBody | FrankWolfeBody,
    embedding: Embedding,
    *,
    indexed: bool,
) -> HeldPoints:
    return hold(
        shard,
        embedding,
        matching=None if asked.filter is None else PayloadFilter.parse(asked.filter),
        excluded=asked.exclude,
        most_bytes=context.settings.max_job_bytes,
        tell=lambda read, total: context.progress(read, total, phase="reading"),
        indexed=indexed,
    )


def _write_rows(context: JobContext, rows: Iterable[dict[str, Any]]) -> None:
    with context.result_path().open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


SELECT = Kind("select", "server", select)
FRANK_WOLFE = Kind("frank_wolfe", "server", approximate)
