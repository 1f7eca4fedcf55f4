r"""A sealed segment of a MaxIP index: points in lists around centres, with 1-bit codes.

::

    query ─ ⟨centre, q⟩ + κ |q| spread ─► best lists ─ 1-bit codes ─► best points ─ bytes ─► better
                                                                           ones ─ exact ─► hits

A point x of the list with centre c is written as c + r. The score ⟨c, q⟩ is exact and shared by
the list; ⟨r, q⟩ is estimated from one bit a dimension of the rotated r (csrc/maxip.inl). Lists
whose points spread widely may hold a high score far from their centre, which the term with κ says.
What the codes like is compared again with the points rounded to a byte a coordinate, which lie in a
quarter of the memory, and only the best of those with the points themselves. The centres, too, are
rounded to bytes (``maxip_clusters`` finds them).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from . import _maxip
from .abandon import checkpoint
from .batches import FloatArray, Int64Array
from .maxip_clusters import cluster
from .minhash import splitmix
from .topk import merge_topk

Int8Array: TypeAlias = npt.NDArray[np.int8]

BLOCK = _maxip.BLOCK
ENCODED_AT_ONCE = 65_536
# Coordinates below are compared in float64.
TINY = 1e-30
DRAINED = np.float32(-3e38)


@dataclass(frozen=True)
class MaxIPEffort:
    """How much one search looks at.

    Attributes:
        probes: lists whose codes are scanned.
        candidates: points compared by their bytes.
        finals: points compared exactly.
        kappa: spreads above its centre that a list is credited with.
    """

    probes: int
    candidates: int
    finals: int
    kappa: float


@dataclass(frozen=True, eq=False)
class CodeSet:
    """1-bit codes of all places under one rotation.

    Attributes:
        signs: float32 (3, padded), the rotation.
        codes: uint8 (blocks, bits / 8, 32).
        factors: float32 (places,), NaN where no point is, or no more.
    """

    signs: FloatArray
    codes: npt.NDArray[np.uint8]
    factors: FloatArray


@dataclass(frozen=True, eq=False)
class ByteRows:
    """Vectors rounded to bytes: row i stands for rows[i] * scales[i].

    Attributes:
        rows: int8 (n, stride), stride the dimension rounded up to a multiple of 16.
        scales: float32 (n,).
    """

    rows: Int8Array
    scales: FloatArray

    @classmethod
    def of(cls, vectors: FloatArray) -> ByteRows:
        """Vectors float32 (n, dim), rounded."""
        n, dim = vectors.shape
        rounded = cls(np.empty((n, -(-dim // 16) * 16), np.int8), np.empty(n, np.float32))
        for at in range(0, n, ENCODED_AT_ONCE):
            checkpoint()
            part = slice(at, at + ENCODED_AT_ONCE)
            _maxip.round_rows(vectors[part], rounded.rows[part], rounded.scales[part])
        return rounded


@dataclass(frozen=True, eq=False)
class Lists:
    """Points of one segment; immutable but for the marks of removed points.

    Attributes:
        ids: int64 (places,), -1 where a block is not full.
        vectors: float32 (places, dim).
        rounded: the vectors in bytes.
        centroids: the centres in bytes.
        spreads: float32 (lists,), root mean square distance to the centre; ``DRAINED`` where no
            point is left, which ranks the list last.
        starts: int64 (lists + 1,), first block of each list.
        code_sets: one for each rotation.
    """

    ids: Int64Array
    vectors: FloatArray
    rounded: ByteRows
    centroids: ByteRows
    spreads: FloatArray
    starts: Int64Array
    code_sets: tuple[CodeSet, ...]
    _views: tuple[_maxip.ListsView, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        views = tuple(
            _maxip.ListsView(
                self.centroids.rows, self.centroids.scales, self.spreads, self.starts,
                s.signs, s.codes, s.factors, self.rounded.rows, self.rounded.scales,
                self.vectors, self.ids,
            )
            for s in self.code_sets
        )  # fmt: skip
        object.__setattr__(self, "_views", views)

    @classmethod
    def build(cls, ids: Int64Array, vectors: FloatArray, seed: int, rotations: int = 1) -> Lists:
        """Cluster and encode points.

        Args:
            ids: int64 (n,), n at least 1.
            vectors: float32 (n, dim), finite and of norms at most ``maxip.MAX_NORM``.
            seed: of the clustering and the rotations.
            rotations: independent code sets.
        """
        centroids, owner = cluster(vectors, seed)
        sizes = np.bincount(owner, minlength=len(centroids))
        starts = np.concatenate(([0], np.cumsum(-(-sizes // BLOCK)))).astype(np.int64)
        order = np.argsort(owner, kind="stable")
        within = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = starts[owner[order]] * BLOCK + within
        count = int(starts[-1]) * BLOCK
        placed_ids = np.full(count, -1, np.int64)
        placed_ids[places] = ids[order]
        placed_owner = np.full(count, -1, np.int64)
        placed_owner[places] = owner[order]
        dim = vectors.shape[1]
        placed = np.zeros((count, dim), np.float32)
        for at in range(0, len(order), ENCODED_AT_ONCE):
            checkpoint()
            part = slice(at, at + ENCODED_AT_ONCE)
            placed[places[part]] = vectors[order[part]]
        squares = np.zeros(count)
        code_sets = tuple(
            encode(placed, placed_owner, centroids, rotation_signs(dim, seed + rotation), squares)
            for rotation in range(rotations)
        )
        sums = np.bincount(placed_owner[places], squares[places], len(centroids))
        spreads = np.sqrt(sums / np.maximum(sizes, 1)).astype(np.float32)
        return cls(
            placed_ids, placed, ByteRows.of(placed), ByteRows.of(centroids), spreads, starts,
            code_sets,
        )  # fmt: skip

    @classmethod
    def nothing(cls, dim: int, seed: int, rotations: int = 1) -> Lists:
        """One list of no points."""
        nobody = np.full(BLOCK, np.nan, np.float32)
        codes = np.zeros((1, code_bits(dim) // 8, BLOCK), np.uint8)
        code_sets = tuple(
            CodeSet(rotation_signs(dim, seed + rotation), codes, nobody.copy())
            for rotation in range(rotations)
        )
        vectors = np.zeros((BLOCK, dim), np.float32)
        return cls(
            np.full(BLOCK, -1, np.int64), vectors, ByteRows.of(vectors), ByteRows.of(vectors[:1]),
            np.zeros(1, np.float32), np.array([0, 1], np.int64), code_sets,
        )  # fmt: skip

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self.vectors.shape[1])

    @property
    def lists(self) -> int:
        """Number of lists."""
        return len(self.spreads)

    @cached_property
    def filled(self) -> Int64Array:
        """Places that points were put in, int64 (points,)."""
        return np.flatnonzero(self.ids >= 0)

    @property
    def points(self) -> int:
        """Points that were put in, removed ones included."""
        return len(self.filled)

    @cached_property
    def longest(self) -> float:
        """The greatest norm of a point."""
        return longest_norm(self.vectors)

    @cached_property
    def _tiny(self) -> Int64Array:
        """Places of points that are too short for codes and bytes, int64 (n,)."""
        return self.filled[tiny(self.vectors[self.filled])]

    @cached_property
    def _by_id(self) -> tuple[Int64Array, Int64Array]:
        """Ids in rising order and the place of each."""
        order = self.filled[np.argsort(self.ids[self.filled], kind="stable")]
        return self.ids[order], order

    def alive(self) -> npt.NDArray[np.bool_]:
        """Which places hold a point, bool (places,)."""
        return ~np.isnan(self.code_sets[0].factors)

    def find(self, ids: Int64Array) -> Int64Array:
        """Places of points by id, int64 (n,); -1 where none is alive."""
        known, places = self._by_id
        if not len(known):
            return np.full(len(ids), -1, np.int64)
        at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        found = np.where(known[at] == ids, places[at], -1)
        gone = np.isnan(self.code_sets[0].factors[found])
        return np.where(gone, -1, found).astype(np.int64)

    @cached_property
    def _left(self) -> Int64Array:
        """How many points of each list are alive, int64 (lists,)."""
        alive = np.add.reduceat(self.alive(), self.starts[:-1] * BLOCK, dtype=np.int64)
        return np.asarray(alive, np.int64)

    def remove(self, places: Int64Array) -> None:
        """Mark points as removed; searches that began before may still answer them.

        places: int64 (n,), of points that are alive, without repeats.
        """
        left = self._left
        for code_set in self.code_sets:
            code_set.factors[places] = np.nan
        touched = np.searchsorted(self.starts, places // BLOCK, side="right") - 1
        np.subtract.at(left, touched, 1)
        # A search must not spend its probes on lists of nobody.
        self.spreads[touched[left[touched] == 0]] = DRAINED

    def fork(self) -> Lists:
        """The same points in the same memory, with marks of removed points of its own."""
        code_sets = tuple(CodeSet(s.signs, s.codes, s.factors.copy()) for s in self.code_sets)
        other = Lists(
            self.ids, self.vectors, self.rounded, self.centroids, self.spreads.copy(), self.starts,
            code_sets,
        )  # fmt: skip
        # What was derived from the shared arrays need not be derived again.
        shared = {
            n: v for n, v in vars(self).items() if n in ("filled", "longest", "_by_id", "_tiny")
        }
        vars(other).update(shared)
        return other

    def search(
        self, queries: FloatArray, k: int, effort: MaxIPEffort, floor: float, turn: int = 0
    ) -> tuple[Int64Array, FloatArray, Int64Array]:
        """The k best points found of each query.

        Args:
            queries: float32 (q, dim).
            k: hits wanted.
            effort: how much to look at.
            floor: least inner product of a hit.
            turn: which rotation's codes to scan, counted around.

        Returns:
            ids int64 and scores float32 (q, k), -1 and NaN after the last hit, and the number of
            codes scanned for each query, int64 (q,).
        """
        view = self._views[turn % len(self._views)]
        finals = max(effort.finals, k)
        candidates = max(effort.candidates, finals)
        ids, scores, read = view.search(
            queries, k, effort.probes, candidates, finals, effort.kappa, floor
        )
        if len(self._tiny):
            return (*self._with_tiny(queries, k, floor, (ids, scores)), read + len(self._tiny))
        return ids, scores, read

    def _with_tiny(
        self, queries: FloatArray, k: int, floor: float, hits: tuple[Int64Array, FloatArray]
    ) -> tuple[Int64Array, FloatArray]:
        """Hits in which the shortest points have their true places: compared one by one."""
        ids, scores = hits
        places = self._tiny[~np.isnan(self.code_sets[0].factors[self._tiny])]
        doubtful = np.isin(ids, self.ids[self._tiny])
        others = np.where(doubtful, -1, ids), np.where(doubtful, np.float32(np.nan), scores)
        products = precise_products(self.vectors[places], queries)
        good = products >= floor
        own = (
            np.where(good, self.ids[places], -1),
            np.where(good, products, np.float32(np.nan)),
        )
        return merge_topk([others, own], k)

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part."""
        codes = sum(s.codes.nbytes + s.factors.nbytes for s in self.code_sets)
        lists = self.centroids.rows.nbytes + self.centroids.scales.nbytes
        lists += self.spreads.nbytes + self.starts.nbytes
        return {
            "codes": codes,
            "bytes": self.rounded.rows.nbytes + self.rounded.scales.nbytes,
            "lists": lists,
            "ids": self.ids.nbytes,
            "features": self.vectors.nbytes,
        }


def longest_norm(vectors: FloatArray) -> float:
    """The greatest norm of some vectors, 0 if there is none."""
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    return float(np.sqrt(squares.max(initial=0.0)))


def tiny(vectors: FloatArray) -> npt.NDArray[np.bool_]:
    """Which vectors are not zero, but so short that products in float32 have few digits."""
    peaks = np.maximum(vectors.max(axis=1, initial=0), -vectors.min(axis=1, initial=0))
    return np.asarray((peaks > 0) & (peaks < TINY), np.bool_)


def precise_products(vectors: FloatArray, queries: FloatArray) -> FloatArray:
    """Inner products of queries with vectors, summed in float64: float32 (q, n)."""
    return (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)


def code_bits(dim: int) -> int:
    """Bits of a code: one a dimension, a multiple of 32, at least 64."""
    return max(64, -(-dim // 32) * 32)


def rotation_signs(dim: int, seed: int) -> FloatArray:
    """The random signs of a rotation, float32 (3, padded)."""
    padded = 1 << (code_bits(dim) - 1).bit_length()
    words = splitmix(seed ^ 0xC0DE, -(-3 * padded // 64))
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: 3 * padded]
    return (bits.astype(np.float32) * 2 - 1).reshape(3, padded)


def encode(
    placed: FloatArray,
    owner: Int64Array,
    centroids: FloatArray,
    signs: FloatArray,
    squares: npt.NDArray[np.float64],
) -> CodeSet:
    """Codes of all places under one rotation.

    Args:
        placed: float32 (places, dim), whole blocks.
        owner: int64 (places,), the list of each, -1 where there is no point.
        centroids: float32 (lists, dim).
        signs: of the rotation.
        squares: float64 (places,), written: the squared distance of each point to its centre.
    """
    bits = code_bits(placed.shape[1])
    codes = np.empty((len(placed) // BLOCK, bits // 8, BLOCK), np.uint8)
    factors = np.empty(len(placed), np.float32)
    for at in range(0, len(placed), ENCODED_AT_ONCE):
        checkpoint()
        part = slice(at, at + ENCODED_AT_ONCE)
        blocks = slice(at // BLOCK, (at + ENCODED_AT_ONCE) // BLOCK)
        _maxip.encode(
            placed[part], owner[part], centroids, signs, bits, codes[blocks], factors[part],
            squares[part],
        )  # fmt: skip
    return CodeSet(signs, codes, factors)
