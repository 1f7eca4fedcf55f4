"""What a collection's answers are worth: a plan for its points, and recall against exact search.

Both read the points from the store, a block at a time, and take nothing from the engine that they
judge.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from closeby.index import FlatIndex, merge_topk
from closeby.index.alive_points import concat, rows_of
from closeby.index.errors import InvalidInputError

from .encoding import Features, decode_features
from .feature_keeping import require_features
from .hits import Search
from .jobs import JobContext, Kind
from .shard import Shard
from .snapshots import Points

if TYPE_CHECKING:
    from closeby.index import planner

__all__ = ["EVALUATE", "check_enough", "plan_for", "sample"]

BLOCK = 4_096
"""Points compared at a time."""
TOLERANCE = 1e-5
"""Scores are equal up to this share."""


def check_enough(points: int) -> None:
    """Raises InvalidInputError if there are fewer than two points."""
    if points < 2:
        held = "one point" if points else "no point"
        raise InvalidInputError(
            f"the collection holds {held}; at least two are needed, since one has no neighbours",
            field="collection",
        )


def sample(shard: Shard, count: int, seed: int) -> tuple[np.ndarray[Any, Any], Features]:
    """Seqs int64 (n,) and features of at most `count` points, drawn at random.

    Raises InvalidInputError if there are fewer than two points.
    """
    with shard.points_now() as points:
        check_enough(points.count)
        rng = np.random.default_rng(seed)
        chosen = rng.choice(points.count, min(count, points.count), replace=False)
        places = np.sort(chosen)
        parts, seqs, first = [], [], 0
        for block_seqs, features in _blocks(points):
            within = places[(places >= first) & (places < first + len(block_seqs))] - first
            if len(within):
                parts.append(rows_of(features, within))
                seqs.append(block_seqs[within])
            first += len(block_seqs)
    return np.concatenate(seqs), concat(parts)


def plan_for(shard: Shard, memory_bytes: int | None = None) -> planner.Plan:
    """The engine that suits the points that there are now. Raises what `sample` raises."""
    from closeby.index import planner  # brings FAISS, for which no start should wait

    require_features(shard, "a plan")
    _, features = sample(shard, planner.SAMPLE, shard.record.config["seed"])
    config = shard.record.config
    return planner.plan(
        features,
        config["metric"],
        points=shard.count_now(),
        target_recall=config["target_recall"],
        threshold=None if config["metric"] == "ip" else config["threshold"],
        memory_bytes=memory_bytes,
        seed=config["seed"] % (1 << 31),
    )


def _evaluate(context: JobContext) -> dict[str, Any]:
    shard = context.shard()
    asked = context.params
    limit = int(asked["limit"])
    target = asked["target_recall"]
    if asked["queries"] is None:
        own, queries = sample(shard, int(asked["sample"]), int(asked["seed"]))
        hits = limit + 1  # the point itself is left out
    else:
        queries = shard.features(asked["queries"])
        own, hits = np.full(len(queries), -1, np.int64), limit
    truth = _exact(shard, queries, hits, context)
    start = time.perf_counter()
    found = shard.search_features(queries, Search(hits, None, target))
    us = (time.perf_counter() - start) / len(own) * 1e6
    threshold = float(shard.record.config["threshold"])
    near = None if shard.metric == "ip" else threshold
    all_found, all_wanted = _count(truth, found, own, limit, None)
    near_found, near_wanted = _count(truth, found, own, limit, near)
    estimate = shard.recall_estimate(target)
    share = near_found / near_wanted if near_wanted else None
    result = {
        "engine": shard.engine_kind,
        "points": shard.count_now(),
        "queries": len(own),
        "limit": limit,
        "recall": round(all_found / all_wanted, 4) if all_wanted else None,
        "threshold": near,
        "recall_near": None if share is None else round(share, 4),
        "neighbours_near": near_wanted,
        "recall_estimate": round(estimate, 4),
        "drift": None if share is None else round(share - estimate, 4),
        "us_per_query": round(us, 1),
    }
    shard.last_evaluation = result
    return result


EVALUATE = Kind("evaluate", "server", _evaluate)


def _exact(
    shard: Shard, queries: Features, k: int, context: JobContext
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Seqs and scores of the k nearest of all points."""
    best: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None
    done = 0
    with shard.points_now() as points:
        for seqs, features in _blocks(points):
            flat = FlatIndex(shard.record.config["metric"])
            flat.add(features, seqs)
            part = flat.search(queries, k)
            best = part if best is None else merge_topk([best, part], k)
            done += len(seqs)
            context.progress(done, points.count)
    if best is None:
        raise InvalidInputError("the collection is empty", field="collection")
    return best


def _count(
    truth: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    found: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    own: np.ndarray[Any, Any],
    limit: int,
    threshold: float | None,
) -> tuple[int, int]:
    """Neighbours found and wanted; of equally near ones any will do."""
    hit = wanted = 0
    for row, itself in enumerate(own.tolist()):
        best, got = (
            scores[row][(seqs[row] >= 0) & (seqs[row] != itself)][:limit]
            for seqs, scores in (truth, found)
        )
        if threshold is not None:
            best = best[best >= threshold]
        if len(best):
            least = best[-1] - TOLERANCE * max(1.0, abs(float(best[-1])))
            hit += min(len(best), int(np.count_nonzero(got >= least)))
            wanted += len(best)
    return hit, wanted


def _blocks(points: Points) -> Iterator[tuple[np.ndarray[Any, Any], Features]]:
    seqs: list[int] = []
    encoded: list[bytes] = []
    for row in points.rows:
        seqs.append(row.seq)
        encoded.append(row.features or b"")
        if len(seqs) == BLOCK:
            yield np.array(seqs, np.int64), decode_features(encoded)
            seqs, encoded = [], []
    if seqs:
        yield np.array(seqs, np.int64), decode_features(encoded)
