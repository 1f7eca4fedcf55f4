"""From answers to recall, with ties counted properly.

A neighbour is right by its similarity, not by its number: where the j-th and later true neighbours
are equally similar, any of them fills the place, but no more of them than there are places.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from closeby.index import SetBatch
from closeby.index.batches import Batch

FloatArray = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
_SAME = 2e-6  # vectors' similarities are sums of floats, and not all are summed in one order


class Bounds(NamedTuple):
    """What counts as near, and as far, in a metric."""

    near: float
    far: float


BOUNDS = {"jaccard": Bounds(0.5, 0.3), "cosine": Bounds(0.8, 0.7)}


def similarities(points: Batch, queries: Batch, ids: Int64Array) -> FloatArray:
    """Exact similarity of each answer, float32 (q, k): NaN for -1 and for an id named before.

    Counted anew with NumPy, so that no engine's own scores are trusted.
    """
    scores = np.full(ids.shape, np.nan, np.float32)
    for row, answer in enumerate(ids):
        places = np.sort(np.unique(answer, return_index=True)[1])
        places = places[answer[places] >= 0]
        if not len(places):
            continue
        found = answer[places]
        if isinstance(points, SetBatch):
            assert isinstance(queries, SetBatch)
            scores[row, places] = _jaccard(queries.row(row), points.take(found))
        else:
            assert not isinstance(queries, SetBatch)
            scores[row, places] = points[found] @ queries[row]
    return scores


def _jaccard(query: npt.NDArray[np.uint64], sets: SetBatch) -> npt.NDArray[np.float64]:
    at = np.minimum(np.searchsorted(query, sets.indices), len(query) - 1)
    here = np.concatenate(([0], np.cumsum(query[at] == sets.indices)))
    both = here[sets.indptr[1:]] - here[sets.indptr[:-1]]
    return np.asarray(both / (sets.sizes + len(query) - both), np.float64)


def found(truth: FloatArray, answers: FloatArray, wanted: npt.NDArray[np.int64]) -> Int64Array:
    """How many of each query's `wanted` best neighbours its answer holds, int64 (q,).

    Args:
        truth: similarities of the true neighbours, falling, float32 (q, t); NaN after the last.
        answers: similarities of the answers, float32 (q, k); NaN for none.
        wanted: neighbours that count, int64 (q,), at most t each.
    """
    last = np.take_along_axis(truth, np.maximum(wanted - 1, 0)[:, None], axis=1)
    surely = np.sum(truth > last + _SAME, axis=1)
    above = np.sum(answers > last + _SAME, axis=1)
    level = np.sum(np.abs(answers - last) <= _SAME, axis=1)
    held = np.minimum(above, surely) + np.minimum(level, wanted - surely)
    return np.asarray(np.where(wanted > 0, held, 0), np.int64)


def recall(truth: FloatArray, answers: FloatArray, best: int, near: float = -np.inf) -> float:
    """Share of the `best` true neighbours, of those of at least `near`, that the answers hold."""
    wanted = np.sum(truth[:, :best] >= near, axis=1)
    total = int(wanted.sum())
    return float(found(truth, answers, wanted).sum() / total) if total else float("nan")


def recalls(metric: str, truth: FloatArray, ten: FloatArray, hundred: FloatArray) -> dict[str, Any]:
    """All measures of one setting.

    Args:
        metric: says what is near and far.
        truth: float32 (q, 100), the true neighbours' similarities.
        ten: float32 (q, 10), the similarities of the answers to k = 10.
        hundred: float32 (q, 100), of those to k = 100.
    """
    bounds = BOUNDS[metric]
    wanted = np.sum(truth[:, :10] > -np.inf, axis=1)
    not_far = np.sum(truth[:, :10] >= bounds.far, axis=1)
    far = int((wanted - not_far).sum())
    far_found = int((found(truth, ten, wanted) - found(truth, ten, not_far)).sum())
    return {
        "R1@1": recall(truth, ten[:, :1], 1),
        "R1@10": recall(truth, ten, 1),
        "R10@10": recall(truth, ten, 10),
        "R10@100": recall(truth, hundred, 10),
        "R100@100": recall(truth, hundred, 100),
        "near1@1": recall(truth, ten[:, :1], 1, bounds.near),
        "near": recall(truth, ten, 10, bounds.near),
        "near@100": recall(truth, hundred, 100, bounds.near),
        "far": far_found / far if far else float("nan"),
    }


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """(recall, µs) of which no other has more recall in less time, by rising recall."""
    front: list[tuple[float, float]] = []
    for recall, time in sorted(points, key=lambda point: (-point[0], point[1])):
        if not front or time < front[-1][1]:
            front.append((recall, time))
    return front[::-1]
