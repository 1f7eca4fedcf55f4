"""Parameters of group tests and LSH tables fitted to a sample of the points that are to come.

The formulas of ``tuning`` take points as unrelated. Where they resemble each other (molecules share
most of their pieces), a cell passes tests by the background similarity of its points too:

    f = 1 - exp(-(λ + g b)),  b = mean over pairs of J^K

A larger K makes b small, but the probability s = J^K that a neighbour shares a key too; which K
needs the fewest tables is decided on the sample, and memory bounds how many there are.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np

from .alive_points import rows_of
from .batches import FloatArray, as_set_batch
from .engine import Metric, check_features, check_metric
from .errors import InvalidInputError
from .lsh import hash_probability
from .minhash import MinHashFamily
from .points import Points
from .segmented_points import DEFAULT_THRESHOLD, MAX_TABLES
from .tuning import (
    LEAST_TABLES,
    LOAD,
    MAX_HASHES,
    SCAN_BELOW,
    TYPICAL_CELLS,
    check_target,
    group_shape,
    plan_postings,
    tables_for,
)

SAMPLE = 1_000
VALUES = 256
MOST_K = 4
# Points of the sample whose similarity to the others is computed exactly.
ASKING = 100
# More tables than the threshold needs are worth their memory up to here, where points resemble
# each other.
MOST_TABLES = 64
SKETCH_BITS = (512, 256, 128)
ID_BYTES = 8.125
_NORMAL = NormalDist()


def fit_sets(
    sample: Any,
    *,
    expected_points: int,
    threshold: float = 0.5,
    target_recall: float = 0.95,
    memory_bytes_per_point: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What ``FlinngIndex`` should be given for sets like these.

    Args:
        sample: sets as ``FlinngIndex.add`` takes them, at least two; of more than a thousand, a
            thousand spread over them.
        expected_points: number of points to come.
        threshold: least Jaccard similarity of a neighbour.
        target_recall: share of the neighbours wanted.
        memory_bytes_per_point: bound on bitmaps, sketch and id together; features are not counted.
        seed: of the hashes that compare the sample.

    Returns:
        ``K``, ``tables``, ``sketch_bits``, ``expected_points``, ``threshold``, ``target_recall``.

    Raises:
        InvalidInputError: unusable sets, or a bound below 8 tables and the least sketch.
    """
    target = check_target(target_recall)
    background = _background(sample, seed)
    sketch_bits, most = _within(memory_bytes_per_point)
    wanted = {K: _tables(expected_points, threshold, target, K, background[K]) for K in background}
    # Neighbours below the threshold are found more surely with a small K.
    K = next(K for K in wanted if wanted[K] <= 1.5 * min(wanted.values()))
    unrelated = tables_for(expected_points, threshold**K, target)
    tables = min(wanted[K], max(unrelated, MOST_TABLES))
    return {
        "K": K,
        "tables": min(tables, most),
        "sketch_bits": sketch_bits,
        "expected_points": expected_points,
        "threshold": threshold,
        "target_recall": target,
    }


def fit_lsh(
    sample: Any,
    metric: Metric = "jaccard",
    *,
    expected_points: int,
    threshold: float | None = None,
    target_recall: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """What ``LshIndex`` should be given for points like these.

    How many strangers share a bucket is measured on pairs of the sample: where points resemble each
    other, longer keys in more tables cost less than comparing them.

    Args:
        sample: at least two points as ``LshIndex.add`` takes them; of more than a thousand, a
            thousand spread over them.
        metric: ``"jaccard"`` or ``"cosine"``.
        expected_points: number of points to come.
        threshold: least similarity of a neighbour; the engine's own unless given.
        target_recall: share of the neighbours wanted.
        seed: of the choice of pairs.

    Returns:
        ``K``, ``tables``, ``expected_points``, ``threshold``, ``target_recall``.

    Raises:
        InvalidInputError: unusable points, or fewer than two.
    """
    check_metric(metric, ("jaccard", "cosine"))
    target = check_target(target_recall)
    least = DEFAULT_THRESHOLD[metric] if threshold is None else threshold
    agree = hash_probability(metric, np.clip(_pairs(sample, metric, seed), -1, 1))
    plan = plan_postings(
        expected_points,
        float(hash_probability(metric, least)),
        lambda K: float((agree**K).mean()),
        target,
        most_hashes=MAX_HASHES[metric],
        most_tables=MAX_TABLES,
    )
    return {
        "K": plan.K,
        "tables": min(plan.tables, MAX_TABLES),
        "expected_points": expected_points,
        "threshold": least,
        "target_recall": target,
    }


def _pairs(sample: Any, metric: Metric, seed: int) -> FloatArray:
    """Exact similarities of pairs of the sample, float32 (pairs,)."""
    features = check_features(sample, metric, None, None)
    if len(features) < 2:
        raise InvalidInputError("a sample is at least two points", field="sample")
    places = np.unique(np.linspace(0, len(features) - 1, SAMPLE).astype(np.int64))
    asking = np.random.default_rng(seed).permutation(len(places))[:ASKING]
    stored = Points()
    stored.append(np.arange(len(places)), rows_of(features, places))
    view = stored.view()
    assert view is not None
    rows = list(view.similarities(view.take(np.sort(asking)), np.arange(len(places))))
    # A point is no stranger to itself.
    return np.concatenate(
        [np.delete(row, own) for row, own in zip(rows, np.sort(asking), strict=True)]
    )


def _background(sample: Any, seed: int) -> dict[int, float]:
    """Mean of J^K over pairs of the sample, by K."""
    sets = as_set_batch(sample)
    sets = sets.take(np.flatnonzero(sets.sizes))
    if len(sets) < 2:
        raise InvalidInputError("a sample is at least two sets that are not empty", field="sample")
    sets = sets.take(np.unique(np.linspace(0, len(sets) - 1, SAMPLE).astype(np.int64)))
    family = MinHashFamily(seed, tables=0, sketch_bits=VALUES)
    signatures = family.signatures(sets)
    sums, pairs = np.zeros(MOST_K), 0
    for row in range(0, len(sets) - 1, max(1, len(sets) // 200)):
        shares = (signatures[row + 1 :] == signatures[row]).mean(axis=1)
        sums += [(shares**K).sum() for K in range(1, MOST_K + 1)]
        pairs += len(shares)
    return {K: float(sums[K - 1] / pairs) for K in range(1, MOST_K + 1)}


def _within(memory: float | None) -> tuple[int, int]:
    """Bits of a sketch, and the most tables, that the bound leaves room for."""
    if memory is None:
        return SKETCH_BITS[0], 1_024
    for bits in SKETCH_BITS:
        tables = int((memory - ID_BYTES - bits / 8) * 8 * LOAD) // 8 * 8
        # A full sketch is worth more than tables beyond the least, and less than those.
        if tables >= LEAST_TABLES or (bits == SKETCH_BITS[-1] and tables >= 8):
            return bits, min(tables, 1_024)
    least = ID_BYTES + SKETCH_BITS[-1] / 8 + 8 / (8 * LOAD)
    raise InvalidInputError(
        f"memory_bytes_per_point must be at least {math.ceil(least)}",
        field="memory_bytes_per_point",
        limit=math.ceil(least),
    )


def _tables(points: int, threshold: float, target: float, K: int, background: float) -> int:
    """The formula of ``tuning`` for m, with the background in f; a multiple of 8."""
    # Groups as of the most tables: where f is near 1, those that the formula asks for are no
    # number to lay groups out by.
    points = max(points, SCAN_BELOW)
    shape = group_shape(points, MOST_TABLES)
    assert shape is not None
    s = threshold**K
    f = 1 - math.exp(-(shape.load + shape.group_size * background))
    q = s + (1 - s) * f
    share = min(0.25, TYPICAL_CELLS * shape.group_size / points)
    spread = _NORMAL.inv_cdf(1 - share) * math.sqrt(f * (1 - f))
    spread += max(0.0, _NORMAL.inv_cdf(target)) * math.sqrt(q * (1 - q))
    wanted = min(1e6, (spread / (s * (1 - f))) ** 2) if f < 1 - 1e-6 else 1e6
    return max(LEAST_TABLES, 8 * math.ceil(wanted / 8))
