"""Near-duplicates: all pairs above a threshold, clusters of them, and one point to keep of each.

Every point is hashed to the keys of m LSH tables; points that share a key are compared exactly,
each pair once. What is reported is therefore never wrong (precision 1), and a pair of similarity s
is found with probability 1 - (1 - p(s)^K)^m, p the family's collision probability::

    points ─ copies set aside ─ keys ─ table 1: runs of equal keys ─ pairs ─ exact ─┬─ pairs
                                     ─ table 2: …                                   └─ clusters

K is chosen by cost, from how often the keys of a sample agree; m is then the least with which a
pair exactly at the threshold is found with probability `target_recall`. Nearer pairs, most of them,
are found more surely still.

Points with the same content ("copies") are found by a hash of the content and compared once,
through the first of them, so that a hundred thousand copies of one point cost no more than their
number.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from . import _duplicates
from .batches import Batch, FloatArray, Int64Array, SetBatch, as_dense_batch, as_set_batch
from .errors import InvalidInputError
from .minhash import MinHashFamily, UInt32Array, splitmix
from .projection import SignedRandomProjection
from .tuning import check_target, postings_recall, postings_tables_for

Rule: TypeAlias = Literal["first", "last", "longest", "shortest"]
Elements: TypeAlias = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]

RULES: tuple[Rule, ...] = get_args(Rule)
TARGET_RECALL = 0.995
COPIES = 32
MAX_TABLES = 1024
MAX_HASHES = {"jaccard": 16, "cosine": 32}
SAMPLE = 4096
SAMPLE_TABLES = 8
HASH_BLOCK = 8192
PAIR_BLOCK = 131_072
EFFORT = 20_000_000  # looks between two returns to Python: a tenth of a second to a few
# What things cost, in ns of one core; only their proportions matter.
SORT_COST = 50.0  # a point in one table
HASH_COST = {"jaccard": 0.125, "cosine": 0.01}  # one hash value, for each element or dimension
LOOK_COST = 20.0  # a pair that shares a key
COMPARE_COST = {"jaccard": 0.2, "cosine": 0.15}  # the same, for each element or dimension


class PairBlock(NamedTuple):
    """Pairs of points: a[i] comes before b[i], and scores[i] is their similarity.

    int64 (pairs,), int64 (pairs,), float64 (pairs,).
    """

    a: Int64Array
    b: Int64Array
    scores: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.a)


@dataclass(frozen=True)
class JoinPlan:
    """What all pairs are found with.

    Attributes:
        K: hashes combined into a key: MinHash values, or sign bits.
        tables: m.
        recall: probability that a pair exactly at the threshold is found.
        compared: expected number of comparisons.
    """

    K: int
    tables: int
    recall: float
    compared: float


class SetStore:
    """Sets gathered batch by batch, in 4 bytes an element where all of them fit."""

    def __init__(self) -> None:
        self._sizes: list[Int64Array] = []
        self._elements: list[Elements] = []
        self._wide = False

    def append(self, batch: SetBatch) -> None:
        """Add the sets of a batch behind the last."""
        elements: Elements = batch.indices
        if not len(elements) or int(elements.max()) < 1 << 32:
            elements = elements.astype(np.uint32)
        else:
            self._wide = True
        self._sizes.append(batch.sizes)
        self._elements.append(elements)

    def take(self) -> tuple[Int64Array, Elements]:
        """All sets as (indptr, elements); the store is empty afterwards."""
        sizes = np.concatenate([np.zeros(1, np.int64), *self._sizes])
        indptr = np.cumsum(sizes, dtype=np.int64)
        elements = np.empty(indptr[-1], np.uint64 if self._wide else np.uint32)
        end = len(elements)
        while self._elements:  # from behind, so that each part is free as soon as it is copied
            part = self._elements.pop()
            elements[end - len(part) : end] = part
            end -= len(part)
        self._sizes.clear()
        return indptr, elements


class DuplicateSearch:
    """All pairs of points whose similarity is at least a threshold.

    Args:
        points: sets (Jaccard similarity) in any form that ``as_set_batch`` takes, or a
            :class:`SetStore`, which is emptied; or dense vectors (n, dim) (cosine).
        threshold: least similarity of a pair, above 0 and at most 1.
        target_recall: probability that a pair exactly at the threshold is found, .5 to .9999.
        seed: of the hashes; equal seeds and points give equal answers.
        threads: that hash and compare; answers do not depend on it.
        copies: so many points of the same content take part in all pairs; each further one is
            reported with the first of them alone.

    A set without elements and a vector of length 0 are near nothing.

    Raises:
        InvalidInputError: an argument out of range, or points that are none.
    """

    def __init__(
        self,
        points: Any,
        threshold: float,
        *,
        target_recall: float = TARGET_RECALL,
        seed: int = 0,
        threads: int = 1,
        copies: int = COPIES,
    ) -> None:
        if not isinstance(threshold, (int, float)) or not 0 < threshold <= 1:
            raise InvalidInputError(
                "threshold must be above 0 and at most 1", field="threshold", limit=1
            )
        if threads < 1 or copies < 1:
            name = "threads" if threads < 1 else "copies"
            raise InvalidInputError(f"{name} must be at least 1", field=name)
        self.threshold = float(threshold)
        self.target_recall = check_target(target_recall)
        self.seed = seed
        self.threads = threads
        self.copies = copies
        self._points: _Sets | _Vectors = _compared(points)
        self.metric = self._points.metric

    def __len__(self) -> int:
        return self._points.native.count

    # --- what is done before the first comparison ------------------------------------------------

    @cached_property
    def first(self) -> Int64Array:
        """Of each point, the first point with the same content, int64 (n,)."""
        points = self._points.by_content
        hashes = points.hashes(int(splitmix(self.seed, 1)[0]))
        return points.first_of_each(hashes, np.argsort(hashes, kind="stable"))

    @cached_property
    def _distinct(self) -> npt.NDArray[np.bool_]:
        distinct: npt.NDArray[np.bool_] = self.first == np.arange(len(self))
        return distinct & self._points.can_be_near

    @cached_property
    def plan(self) -> JoinPlan:
        """K and m, by cost on a sample and by the formula of their recall."""
        chosen = np.flatnonzero(self._distinct)
        places = np.linspace(0, len(chosen) - 1, min(SAMPLE, len(chosen))).astype(np.int64)
        sample = self._points.take(chosen[places]) if len(chosen) else None
        near = float(self._points.family(1, 1, 0).collision_probability(self.threshold, 1))
        plans: list[tuple[float, JoinPlan]] = []
        for K in range(1, MAX_HASHES[self.metric] + 1):
            tables = postings_tables_for(near**K, self.target_recall)
            if tables > MAX_TABLES:
                break
            share = 0.0 if sample is None else self._shared_keys(sample, K)
            compared = tables * share * len(chosen) ** 2 / 2
            width = self._points.mean_width
            cost = len(chosen) * tables * (SORT_COST + K * HASH_COST[self.metric] * width)
            cost += compared * (LOOK_COST + COMPARE_COST[self.metric] * width)
            plans.append((cost, JoinPlan(K, tables, postings_recall(near**K, tables), compared)))
            if plans[-1][0] > 4 * min(cost for cost, _ in plans):
                break  # more tables from here on
        if not plans:
            raise InvalidInputError(
                f"pairs at {self.metric} {self.threshold:g} are too far to be found by hashes; "
                "raise threshold",
                field="threshold",
            )
        return min(plans, key=lambda each: each[0])[1]

    def _shared_keys(self, sample: Batch, K: int) -> float:
        """Share of the pairs of a sample that agree in a key of K hashes."""
        family = self._points.family(K, SAMPLE_TABLES, self.seed + 1)
        keys = _cut(family.hash(sample)[0], self.metric, K)
        met = 0.0
        for column in keys.T:
            counts = np.unique(column, return_counts=True)[1].astype(np.float64)
            met += float((counts * (counts - 1) / 2).sum())
        pairs = max(1.0, len(keys) * (len(keys) - 1) / 2)
        return met / (SAMPLE_TABLES * pairs)

    @cached_property
    def _keys(self) -> UInt32Array:
        plan = self.plan
        self._points.native.sketch()
        family = self._points.family(plan.K, plan.tables, self.seed)
        keys = np.empty((len(self), plan.tables), np.uint32)

        def fill(start: int) -> None:
            stop = min(start + HASH_BLOCK, len(self))
            hashed = family.hash(self._points.block(start, stop))[0]
            keys[start:stop] = _cut(hashed, self.metric, plan.K)

        starts = range(0, len(self), HASH_BLOCK)
        if self.threads == 1:
            for start in starts:
                fill(start)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                deque(pool.map(fill, starts), maxlen=0)
        return keys

    def _band(self, table: int) -> npt.NDArray[np.uint64]:
        """Distinct points that share a key of this table: key << 32 | point, rising."""
        order = _duplicates.order_band(self._keys, table)
        return order[self._distinct[(order & np.uint64(0xFFFFFFFF)).astype(np.int64)]]

    # --- pairs -----------------------------------------------------------------------------------

    def pairs(self) -> Iterator[PairBlock]:
        """All pairs, block by block, in an order that depends on points and seed alone.

        Memory does not grow with the number of pairs: a block has at most 131,072 (more only
        where points have copies, and then as many again).
        """
        yield from self._copy_pairs()
        plain = int(self._members.counts.max(initial=1)) == 1
        for block in self._distinct_pairs():
            if len(block):
                yield from [block] if plain else self._with_copies(block)

    def _distinct_pairs(self) -> Iterator[PairBlock]:
        items = ((t, part) for t in range(self.plan.tables) for part in self._parts(t))
        if self.threads == 1:
            for table, part in items:
                cursor: tuple[int, int] | None = (0, 1)
                while cursor is not None:
                    block, cursor = self._join(table, part, cursor)
                    yield block
            return
        # Parts are compared side by side, and given out in their order.
        waiting: deque[tuple[int, npt.NDArray[np.uint64], Future[_Joined]]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            for table, part in items:
                waiting.append((table, part, pool.submit(self._join, table, part, (0, 1))))
                while len(waiting) > self.threads:
                    yield from self._next_done(waiting, pool)
            while waiting:
                yield from self._next_done(waiting, pool)

    def _next_done(
        self,
        waiting: deque[tuple[int, npt.NDArray[np.uint64], Future[_Joined]]],
        pool: ThreadPoolExecutor,
    ) -> Iterator[PairBlock]:
        table, part, future = waiting.popleft()
        block, cursor = future.result()
        if cursor is not None:
            waiting.appendleft((table, part, pool.submit(self._join, table, part, cursor)))
        yield block

    def _join(self, table: int, part: npt.NDArray[np.uint64], cursor: tuple[int, int]) -> _Joined:
        a, b, scores, after = _duplicates.join_band(
            self._points.native,
            self._keys,
            table,
            part,
            cursor,
            self.threshold,
            PAIR_BLOCK,
            EFFORT,
        )
        return PairBlock(a, b, scores), after

    def _parts(self, table: int) -> Iterator[npt.NDArray[np.uint64]]:
        """The runs of a band in a few parts, as many as there are threads."""
        band = self._band(table)
        keys = band >> np.uint64(32)
        starts = np.flatnonzero(np.diff(keys, prepend=np.uint64(1) << np.uint64(40)))
        wanted = np.arange(self.threads) * len(band) // self.threads
        bounds = np.unique(
            np.append(np.append(starts, len(band))[np.searchsorted(starts, wanted)], len(band))
        )
        for begin, end in pairwise(bounds.tolist()):
            yield band[begin:end]

    # --- copies ----------------------------------------------------------------------------------

    @cached_property
    def _members(self) -> _Members:
        return _Members.of(self.first, self._points.can_be_near)

    def _copy_pairs(self) -> Iterator[PairBlock]:
        """Pairs of points of the same content."""
        members = self._members
        later = np.flatnonzero(members.rank > 0)
        partners = np.where(members.rank[later] < self.copies, members.rank[later], 1)
        for chosen in _portions(partners):
            many = partners[chosen]
            b_place = np.repeat(later[chosen], many)
            starts = np.repeat(np.cumsum(many) - many, many)
            rank = np.arange(len(b_place)) - starts
            a_place = b_place - members.rank[b_place] + rank
            a, b = members.points[a_place], members.points[b_place]
            yield PairBlock(a, b, np.ones(len(a)))

    def _with_copies(self, block: PairBlock) -> Iterator[PairBlock]:
        """The pairs of a block, and those of the copies of their points."""
        members = self._members
        of_a = np.minimum(members.counts[block.a], self.copies)
        of_b = np.minimum(members.counts[block.b], self.copies)
        for chosen in _portions(of_a * of_b):
            many = (of_a * of_b)[chosen]
            number = np.arange(int(many.sum())) - np.repeat(np.cumsum(many) - many, many)
            width = np.repeat(of_b[chosen], many)
            a = members.points[np.repeat(members.begin[block.a[chosen]], many) + number // width]
            b = members.points[np.repeat(members.begin[block.b[chosen]], many) + number % width]
            scores = np.repeat(block.scores[chosen], many)
            yield PairBlock(np.minimum(a, b), np.maximum(a, b), scores)

    # --- clusters --------------------------------------------------------------------------------

    def clusters(self) -> Int64Array:
        """The cluster of each point, named by its earliest point: int64 (n,).

        The same as :func:`clusters` of all pairs, but two points that are in one cluster already
        are not compared: time does not grow with the square of a cluster.
        """
        parent = np.where(self._points.can_be_near, self.first, np.arange(len(self)))
        for table in range(self.plan.tables):
            parts = list(self._parts(table))
            if self.threads == 1 or len(parts) < 2:
                for part in parts:
                    self._cluster(table, part, parent)
                continue
            own = [parent.copy() for _ in parts]
            with ThreadPoolExecutor(self.threads) as pool:
                deque(pool.map(self._cluster, [table] * len(parts), parts, own), maxlen=0)
            for joined in own:
                _duplicates.unite(np.arange(len(self)), joined, parent)
        _duplicates.flatten(parent)
        return parent

    def _cluster(self, table: int, part: npt.NDArray[np.uint64], parent: Int64Array) -> None:
        _duplicates.cluster_band(
            self._points.native, self._keys, table, part, self.threshold, 0, len(part), parent
        )


_Joined: TypeAlias = tuple[PairBlock, tuple[int, int] | None]


def duplicate_pairs(points: Any, threshold: float, **options: Any) -> Iterator[PairBlock]:
    """All pairs of points whose similarity is at least `threshold`; see :class:`DuplicateSearch`.

    Raises:
        InvalidInputError: an argument out of range, or points that are none.
    """
    return DuplicateSearch(points, threshold, **options).pairs()


def clusters(pairs: Iterable[PairBlock], n: int) -> Int64Array:
    """Connected components of `n` points and these pairs: the earliest point of each, int64 (n,).

    Points a and c are in one cluster if a is near b and b near c, even where c is not near a.
    """
    parent = np.arange(n, dtype=np.int64)
    for block in pairs:
        _duplicates.unite(
            np.ascontiguousarray(block.a, np.int64),
            np.ascontiguousarray(block.b, np.int64),
            parent,
        )
    _duplicates.flatten(parent)
    return parent


def representatives(
    labels: npt.ArrayLike, rule: Rule = "first", lengths: npt.ArrayLike | None = None
) -> Int64Array:
    """The point to keep of each cluster, rising, int64 (clusters,).

    Args:
        labels: cluster of each point, (n,).
        rule: ``"first"`` or ``"last"`` by position, ``"longest"`` or ``"shortest"`` by `lengths`;
            the earlier point where two are equally long.
        lengths: of each point, (n,).

    Raises:
        InvalidInputError: no such rule, or lengths that it needs are missing.
    """
    labels = np.asarray(labels, np.int64)
    if rule not in RULES:
        raise InvalidInputError(f"keep must be one of {', '.join(RULES)}", field="keep")
    positions = np.arange(len(labels))
    if rule in ("longest", "shortest"):
        if lengths is None or len(np.asarray(lengths)) != len(labels):
            raise InvalidInputError(f"keep={rule!r} needs the length of each point", field="keep")
        rank = np.asarray(lengths, np.int64) * (-1 if rule == "longest" else 1)
    else:
        rank = positions if rule == "first" else -positions
    order = np.lexsort((positions, rank, labels))
    leads = np.diff(labels[order], prepend=-1) != 0
    return np.sort(order[leads]).astype(np.int64)


# --- points ------------------------------------------------------------------------------------


class _Sets:
    metric = "jaccard"

    def __init__(self, indptr: Int64Array, elements: Elements) -> None:
        self.native = self.by_content = _duplicates.Points(sets=(indptr, elements))
        self.can_be_near = np.diff(indptr) > 0
        self.mean_width = len(elements) / max(1, len(indptr) - 1)
        self._indptr = indptr
        self._elements = elements

    @staticmethod
    def family(K: int, tables: int, seed: int) -> MinHashFamily:
        return MinHashFamily(seed, tables=tables, K=K, sketch_bits=0)

    def block(self, start: int, stop: int) -> SetBatch:
        indptr = self._indptr[start : stop + 1]
        elements = self._elements[indptr[0] : indptr[-1]]
        return SetBatch(indptr - indptr[0], elements.astype(np.uint64, copy=False))

    def take(self, rows: Int64Array) -> SetBatch:
        return SetBatch.concat([self.block(row, row + 1) for row in rows.tolist()])


class _Vectors:
    metric = "cosine"

    def __init__(self, vectors: FloatArray) -> None:
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        self.can_be_near = lengths > 0
        self._vectors: FloatArray = np.ascontiguousarray(
            vectors / np.where(lengths > 0, lengths, 1)[:, None], np.float32
        )
        n, dim = vectors.shape
        self.native = _duplicates.Points(vectors=self._vectors)
        bits = self._vectors.reshape(-1).view(np.uint32)
        self.by_content = _duplicates.Points(sets=(np.arange(n + 1, dtype=np.int64) * dim, bits))
        self.mean_width = float(dim)

    def family(self, K: int, tables: int, seed: int) -> SignedRandomProjection:
        dim = self._vectors.shape[1]
        key_bits = -(-K // 8) * 8
        return SignedRandomProjection(dim, seed, tables=tables, sketch_bits=0, key_bits=key_bits)

    def block(self, start: int, stop: int) -> FloatArray:
        return self._vectors[start:stop]

    def take(self, rows: Int64Array) -> FloatArray:
        return np.ascontiguousarray(self._vectors[rows])


def _compared(points: Any) -> _Sets | _Vectors:
    if isinstance(points, SetStore):
        return _Sets(*points.take())
    if isinstance(points, np.ndarray) and points.dtype.kind in "fiu" and points.ndim == 2:
        return _Vectors(as_dense_batch(points))
    store = SetStore()
    store.append(as_set_batch(points))
    return _Sets(*store.take())


def _cut(keys: UInt32Array, metric: str, K: int) -> UInt32Array:
    """Sign bits come 8 at a time; the K highest of them are the key."""
    return keys if metric == "jaccard" else keys >> np.uint32(32 - K)


@dataclass(frozen=True, eq=False)
class _Members:
    """Points of the same content, side by side.

    points: all points, by content, each group rising. begin, counts: by first point, where its
    group begins in `points` and how many it has. rank: by place in `points`, number in its group.
    """

    points: Int64Array
    begin: Int64Array
    counts: Int64Array
    rank: Int64Array

    @staticmethod
    def of(first: Int64Array, can_be_near: npt.NDArray[np.bool_]) -> _Members:
        # Points that are near nothing, not even each other, are groups of their own.
        first = np.where(can_be_near, first, np.arange(len(first)))
        points = np.argsort(first, kind="stable").astype(np.int64)
        counts = np.bincount(first, minlength=len(first)).astype(np.int64)
        begin = np.cumsum(counts) - counts
        rank = np.arange(len(first), dtype=np.int64) - begin[first[points]]
        return _Members(points, begin, counts, rank)


def _portions(amounts: Int64Array) -> Iterator[slice]:
    """Slices whose amounts sum up to about a block each."""
    ends = np.cumsum(amounts)
    begin = 0
    while begin < len(amounts):
        before = int(ends[begin - 1]) if begin else 0
        end = int(np.searchsorted(ends, before + PAIR_BLOCK, side="right"))
        end = max(end, begin + 1)
        yield slice(begin, end)
        begin = end


def expected_recall(similarity: float, plan: JoinPlan, metric: str = "jaccard") -> float:
    """Probability that a plan finds a pair of this similarity."""
    family: Any = MinHashFamily if metric == "jaccard" else SignedRandomProjection
    s = float(family.collision_probability(similarity, 1)) ** plan.K
    return 1.0 if math.isclose(s, 1) else postings_recall(s, plan.tables)
