"""Measuring recall by breadth, of a structure that is almost done."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from closeby.index.batches import Batch, FloatArray, Int64Array
from closeby.index.engine import Metric, smallest_hit

from .curve import MEASURED, RecallCurve, count_found
from .structure import Asked, alive_at

# Fewer neighbours at the threshold than this say nothing; then all neighbours count.
FEW_NEIGHBOURS = 64
# No need to look farther than where this is found.
ALL_FOUND = 0.9995


Ask: TypeAlias = Callable[[Asked, Batch, int, float, int], tuple[Int64Array, FloatArray]]
"""Asks a structure: queries, hits wanted, least score, breadth; ids and exact scores."""


def measure(
    asked: Asked,
    kept_out: Int64Array,
    breadths: tuple[int, ...],
    ask: Ask,
    metric: Metric,
    threshold: float | None,
) -> RecallCurve:
    """Ask a structure for points that it does not hold, farther and farther.

    Args:
        asked: the structure.
        kept_out: int64 (q,), places of the points that are asked for.
        breadths: how far, rising.
        ask: how.
        metric: of the index.
        threshold: least similarity of a neighbour that counts; None: all count.
    """
    view, alive = asked.points, alive_at(asked.points, asked.places)
    queries = view.take(kept_out)
    truth = [
        np.sort(np.partition(row, len(row) - MEASURED[1])[-MEASURED[1] :])[::-1]
        for row in view.similarities(queries, asked.places[alive])
    ]
    floor = smallest_hit(metric, threshold)
    above = [row[row >= floor] for row in truth]
    near = threshold is not None
    if near and sum(len(row[: MEASURED[0]]) for row in above) < FEW_NEIGHBOURS:
        floor, near = smallest_hit(metric, None), False
        above = [row[row >= floor] for row in truth]
    recalls, times = [], []
    for k in MEASURED:
        row_recalls: list[float] = []
        row_times: list[float] = []
        for breadth in breadths:
            if row_recalls and row_recalls[-1] >= ALL_FOUND:
                break
            start = time.perf_counter()
            _, scores = ask(asked, queries, k, floor, breadth)
            row_times.append((time.perf_counter() - start) / len(kept_out) * 1e6)
            found, wanted = count_found(above, scores, k)
            row_recalls.append(found / wanted if wanted else 1.0)
        recalls.append(np.maximum.accumulate(row_recalls))
        times.append(np.maximum.accumulate(row_times))
    steps = max(map(len, recalls))
    return RecallCurve(
        breadths[:steps],
        tuple(tuple(_filled(row, steps)) for row in recalls),
        tuple(tuple(_filled(row, steps)) for row in times),
        len(kept_out),
        sum(len(row[: MEASURED[0]]) for row in above),
        near,
    )


def _filled(row: Any, length: int) -> list[float]:
    """The row as long as asked for, its last value repeated."""
    return [float(value) for value in row] + [float(row[-1])] * (length - len(row))
