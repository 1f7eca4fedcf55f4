"""Where the lists of a MaxIP segment lie: k-means in two levels, in bands of norms.

Many short lists around good centres hold the answers in fewer points than few long ones, but
comparing every point with every centre would take longer than all else. So some hundred regions
are found first, each is divided into lists by its own points, and a point is compared with the
lists of its nearest regions only.

Points whose norms are far above most would pull centres away from where the points are and ruin
the rounding of distances, so they are a band with centres of their own, and so on.
"""

from __future__ import annotations

import math

import numpy as np

from . import _maxip
from .abandon import checkpoint
from .batches import FloatArray, Int64Array

TRAINING_POINTS = 32  # a centre
TRAINING_ROUNDS = 6
ASSIGNED_AT_ONCE = 8_192
COMPARED_AT_ONCE = 2_048
# Points of a region that its spread is measured by.
SPREAD_POINTS = 1_024
# A list has so many points, or more where √n lists are few enough.
LIST_POINTS = 64
LISTS_A_ROOT = 8
# Below so many lists one level will do.
ONE_LEVEL = 400
NEAREST_REGIONS = 3
REFINEMENTS = 1
# Of one region.
MOST_LISTS = 128
# Norms so many times the median one are a band of their own.
FAR = 30.0


def cluster(vectors: FloatArray, seed: int) -> tuple[FloatArray, Int64Array]:
    """Divide vectors into lists.

    Args:
        vectors: float32 (n, dim), n at least 1.
        seed: of the sample and the first centres.

    Returns:
        Centres float32 (lists, dim), none without points, and the list of each point, int64 (n,).
    """
    # Squares of norms in range never overflow; of those that vanish, none is far.
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    far = norms > FAR * np.median(norms)
    if not far.any() or far.sum() > len(far) // 4:
        centroids, owner = _band(vectors, seed)
    else:
        centroids, near_owner = _band(vectors.take(np.flatnonzero(~far), axis=0), seed)
        far_centroids, far_owner = cluster(vectors[far], seed)
        owner = np.empty(len(vectors), np.int64)
        owner[~far] = near_owner
        owner[far] = far_owner + len(centroids)
        centroids = np.vstack([centroids, far_centroids])
    filled, owner = np.unique(owner, return_inverse=True)  # drop lists without points
    return np.ascontiguousarray(centroids[filled], np.float32), owner.astype(np.int64)


def lists_for(points: int) -> int:
    """How many lists so many points are divided into."""
    root = math.sqrt(points)
    return max(1, round(max(root, min(LISTS_A_ROOT * root, points / LIST_POINTS))))


def _band(vectors: FloatArray, seed: int) -> tuple[FloatArray, Int64Array]:
    """Lists of vectors of which none is much longer than most."""
    lists = lists_for(len(vectors))
    scale = float(max(vectors.max(), -vectors.min()))
    # Of numbers below normal ones there is no inverse, and no use in dividing them.
    if lists == 1 or scale < 2 * float(np.finfo(np.float32).tiny):
        mean = vectors.mean(axis=0, keepdims=True, dtype=np.float64)
        return np.asarray(mean, np.float32), np.zeros(len(vectors), np.int64)
    # Scaled, so that squares neither overflow nor vanish.
    inverse = np.float32(1 / scale)
    if lists < ONE_LEVEL:
        centroids = _train(vectors, inverse, lists, seed)
        owner = _nearest(vectors, inverse, centroids, 1)[:, 0]
    else:
        centroids, owner = _two_levels(vectors, inverse, lists, seed)
    return centroids / inverse, owner


def _two_levels(
    vectors: FloatArray, inverse: np.float32, lists: int, seed: int
) -> tuple[FloatArray, Int64Array]:
    regions = _train(vectors, inverse, round(1.5 * lists**0.5), seed)
    near = _nearest(vectors, inverse, regions, NEAREST_REGIONS)
    members = [_by_value(near[:, rank], len(regions)) for rank in range(NEAREST_REGIONS)]
    counts = _shares(vectors, inverse, regions, members[0], lists)
    starts = np.concatenate(([0], np.cumsum(counts)))
    centroids = np.empty((starts[-1], vectors.shape[1]), np.float32)
    rng = np.random.default_rng(seed)
    for region, rows in enumerate(members[0]):
        checkpoint()
        part = slice(starts[region], starts[region + 1])
        if len(rows) <= counts[region]:
            centroids[part] = regions[region]
            continue
        wanted = min(len(rows), TRAINING_POINTS * int(counts[region]))
        sample = vectors[np.sort(rng.choice(rows, wanted, replace=False))] * inverse
        centroids[part] = _lloyd(sample, int(counts[region]), rng)
    for round_ in range(REFINEMENTS + 1):
        owner = _assign(vectors, inverse, centroids, starts, members)
        if round_ < REFINEMENTS:
            centroids = _means(vectors, inverse, owner, centroids)
    return centroids, owner


def _shares(
    vectors: FloatArray,
    inverse: np.float32,
    regions: FloatArray,
    members: list[Int64Array],
    lists: int,
) -> Int64Array:
    """Into how many lists each region is divided, int64 (regions,).

    A region gets lists by its points and by how widely they spread: where all are much alike, as
    the many short vectors of a factorisation are, dividing them helps no search.
    """
    spreads = np.zeros(len(regions))
    for region, rows in enumerate(members):
        checkpoint()
        if len(rows):
            some = vectors[rows[:: max(1, len(rows) // SPREAD_POINTS)]] * inverse
            some -= regions[region]
            spreads[region] = np.sqrt(np.einsum("ij,ij->", some, some) / len(some))
    weights = spreads * [len(rows) for rows in members]
    shares = weights * (lists / (weights.sum() or 1.0))
    return np.asarray(np.clip(np.round(shares), 1, MOST_LISTS), np.int64)


def _assign(
    vectors: FloatArray,
    inverse: np.float32,
    centroids: FloatArray,
    starts: Int64Array,
    members: list[list[Int64Array]],
) -> Int64Array:
    """The nearest list of each vector among those of its regions, int64 (n,)."""
    halves = np.einsum("ij,ij->i", centroids, centroids) / 2
    scaled = centroids * inverse
    best = np.full(len(vectors), -np.inf, np.float32)
    owner = np.zeros(len(vectors), np.int64)
    # In blocks that stay in the cache, into the same memory again and again.
    rows_of = np.empty((COMPARED_AT_ONCE, vectors.shape[1]), np.float32)
    scores_of = np.empty(COMPARED_AT_ONCE * int(np.diff(starts).max()), np.float32)
    for ranked in members:
        for region, rows in enumerate(ranked):
            checkpoint()
            part = slice(starts[region], starts[region + 1])
            columns = part.stop - part.start
            for at in range(0, len(rows), COMPARED_AT_ONCE):
                some = rows[at : at + COMPARED_AT_ONCE]
                # Without a mode that may go wrong, take would write into a copy first.
                taken = np.take(vectors, some, axis=0, out=rows_of[: len(some)], mode="clip")
                scores = scores_of[: len(some) * columns].reshape(len(some), columns)
                np.matmul(taken, scaled[part].T, out=scores)
                _maxip.take_nearer(scores, halves[part], some, part.start, best, owner)
    return owner


def _means(
    vectors: FloatArray, inverse: np.float32, owner: Int64Array, before: FloatArray
) -> FloatArray:
    """Means of the vectors of each list; what it was where there is none."""
    sizes = np.bincount(owner, minlength=len(before))
    filled = np.flatnonzero(sizes)
    sums = _maxip.sum_rows(vectors, owner, len(before))
    means = before.copy()
    means[filled] = sums[filled] * (float(inverse) / sizes[filled, None])
    return means


def _by_value(values: Int64Array, count: int) -> list[Int64Array]:
    """Positions of each value 0 .. count."""
    order = np.argsort(values.astype(np.int16), kind="stable")  # sorts by digits: quick
    ends = np.cumsum(np.bincount(values, minlength=count))
    return list(np.split(order, ends[:-1]))


def _nearest(vectors: FloatArray, inverse: np.float32, centres: FloatArray, k: int) -> Int64Array:
    """The k nearest centres of each vector, int64 (n, k), nearest first."""
    import faiss  # takes long to import, and only building needs it

    searcher = faiss.IndexFlatL2(vectors.shape[1])
    searcher.add(centres)
    near = np.empty((len(vectors), k), np.int64)
    for at in range(0, len(vectors), ASSIGNED_AT_ONCE):
        checkpoint()
        part = slice(at, at + ASSIGNED_AT_ONCE)
        near[part] = searcher.search(vectors[part] * inverse, k)[1]
    return near


def _lloyd(points: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """Centres of few points, float32 (count, dim): more points than centres."""
    centres = points[np.sort(rng.choice(len(points), count, replace=False))]
    numbers = np.arange(count)
    for _ in range(TRAINING_ROUNDS):
        scores = points @ centres.T - np.einsum("ij,ij->i", centres, centres) / 2
        chosen = (scores.argmax(axis=1) == numbers[:, None]).astype(np.float32)
        sizes = chosen.sum(axis=1)
        means = (chosen @ points) / np.maximum(sizes, 1)[:, None]
        centres = np.where(sizes[:, None] > 0, means, centres)
    return centres


def _train(vectors: FloatArray, inverse: np.float32, lists: int, seed: int) -> FloatArray:
    import faiss

    rng = np.random.default_rng(seed)
    wanted = min(len(vectors), lists * TRAINING_POINTS)
    sample = np.sort(rng.choice(len(vectors), wanted, replace=False))
    training = np.ascontiguousarray(vectors[sample] * inverse)
    kmeans = faiss.Kmeans(
        vectors.shape[1], lists, niter=TRAINING_ROUNDS, seed=seed % (1 << 31),
        min_points_per_centroid=1, max_points_per_centroid=TRAINING_POINTS,
    )  # fmt: skip
    kmeans.train(training)
    return np.ascontiguousarray(kmeans.centroids, np.float32)
