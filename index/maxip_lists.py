r"""A sealed segment of a MaxIP index: points in lists around centres, with 1-bit codes.

::

    query ─ ⟨centre, q⟩ + κ |q| spread ─► best lists ─ code scan ─► best points ─ exact ─► hits

A point x of the list with centre c is written as c + r. The score ⟨c, q⟩ is exact and shared by
the list; ⟨r, q⟩ is estimated from one bit a dimension of the rotated r (csrc/maxip.inl). Lists
whose points spread widely may hold a high score far from their centre, which the term with κ says.

The centres come from k-means. Points whose norms are far above most would pull centres away from
where the points are and ruin the rounding of distances, so they are a band with centres of their
own, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import faiss
import numpy as np
import numpy.typing as npt

from . import _maxip
from .batches import FloatArray, Int64Array
from .minhash import splitmix

BLOCK = _maxip.BLOCK
TRAINING_POINTS = 32  # a centre
TRAINING_ROUNDS = 6
ENCODED_AT_ONCE = 65_536
# Norms so many times the median one are a band of their own.
FAR = 30.0
DRAINED = np.float32(-3e38)


@dataclass(frozen=True)
class MaxIPEffort:
    """How much one search looks at.

    Attributes:
        probes: lists whose codes are scanned.
        candidates: points compared exactly.
        kappa: spreads above its centre that a list is credited with.
    """

    probes: int
    candidates: int
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
class Lists:
    """Points of one segment; immutable but for the marks of removed points.

    Attributes:
        ids: int64 (places,), -1 where a block is not full.
        vectors: float32 (places, dim).
        centroids: float32 (lists, dim).
        spreads: float32 (lists,), root mean square distance to the centre; ``DRAINED`` where no
            point is left, which ranks the list last.
        starts: int64 (lists + 1,), first block of each list.
        code_sets: one for each rotation.
    """

    ids: Int64Array
    vectors: FloatArray
    centroids: FloatArray
    spreads: FloatArray
    starts: Int64Array
    code_sets: tuple[CodeSet, ...]
    _views: tuple[_maxip.ListsView, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        views = tuple(
            _maxip.ListsView(
                self.centroids, self.spreads, self.starts, s.signs, s.codes, s.factors,
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
        centroids, owner = _cluster(vectors, seed)
        sizes = np.bincount(owner, minlength=len(centroids))
        starts = np.concatenate(([0], np.cumsum(-(-sizes // BLOCK)))).astype(np.int64)
        order = np.argsort(owner, kind="stable")
        within = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = starts[owner[order]] * BLOCK + within
        count = int(starts[-1]) * BLOCK
        placed_ids = np.full(count, -1, np.int64)
        placed_ids[places] = ids[order]
        placed = np.zeros((count, vectors.shape[1]), np.float32)
        placed[places] = vectors[order]
        filled = placed_ids >= 0
        place_owner = np.repeat(np.arange(len(centroids)), np.diff(starts) * BLOCK)
        squares = np.zeros(len(centroids))
        code_sets = []
        for rotation in range(rotations):
            signs = rotation_signs(vectors.shape[1], seed + rotation)
            codes = np.empty((count // BLOCK, code_bits(vectors.shape[1]) // 8, BLOCK), np.uint8)
            factors = np.empty(count, np.float32)
            for at in range(0, count, ENCODED_AT_ONCE):
                part = slice(at, min(at + ENCODED_AT_ONCE, count))
                residuals = placed[part] - centroids[place_owner[part]]
                residuals[~filled[part]] = 0
                square = np.einsum("ij,ij->i", residuals, residuals, dtype=np.float64)
                if rotation == 0:
                    squares += np.bincount(place_owner[part], square, len(centroids))
                blocks = slice(part.start // BLOCK, part.stop // BLOCK)
                codes[blocks], factors[part] = encode(residuals, square, signs)
            factors[~filled] = np.nan
            code_sets.append(CodeSet(signs, codes, factors))
        spreads = np.sqrt(squares / np.maximum(sizes, 1)).astype(np.float32)
        return cls(placed_ids, placed, centroids, spreads, starts, tuple(code_sets))

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self.vectors.shape[1])

    @property
    def lists(self) -> int:
        """Number of lists."""
        return len(self.centroids)

    @cached_property
    def points(self) -> int:
        """Points that were put in, removed ones included."""
        return int(np.count_nonzero(self.ids >= 0))

    @cached_property
    def longest(self) -> float:
        """The greatest norm of a point."""
        return longest_norm(self.vectors)

    @cached_property
    def _by_id(self) -> tuple[Int64Array, Int64Array]:
        """Ids in rising order and the place of each."""
        filled = np.flatnonzero(self.ids >= 0)
        order = filled[np.argsort(self.ids[filled], kind="stable")]
        return self.ids[order], order

    def alive(self) -> npt.NDArray[np.bool_]:
        """Which places hold a point, bool (places,)."""
        return ~np.isnan(self.code_sets[0].factors)

    def find(self, ids: Int64Array) -> Int64Array:
        """Places of points by id, int64 (n,); -1 where none is alive."""
        known, places = self._by_id
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
        other = Lists(self.ids, self.vectors, self.centroids, self.spreads, self.starts, code_sets)
        # What was derived from the shared arrays need not be derived again.
        shared = {n: v for n, v in vars(self).items() if n in ("points", "longest", "_by_id")}
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
        candidates = max(effort.candidates, k)
        return view.search(queries, k, effort.probes, candidates, effort.kappa, floor)

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part."""
        codes = sum(s.codes.nbytes + s.factors.nbytes for s in self.code_sets)
        lists = self.centroids.nbytes + self.spreads.nbytes + self.starts.nbytes
        return {
            "codes": codes,
            "lists": lists,
            "ids": self.ids.nbytes,
            "features": self.vectors.nbytes,
        }


def longest_norm(vectors: FloatArray) -> float:
    """The greatest norm of some vectors, 0 if there is none."""
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    return float(np.sqrt(squares.max(initial=0.0)))


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
    residuals: FloatArray, squares: npt.NDArray[np.float64], signs: FloatArray
) -> tuple[npt.NDArray[np.uint8], FloatArray]:
    """Codes and factors of residuals.

    Args:
        residuals: float32 (n, dim), n a multiple of 32.
        squares: float64 (n,), their squared norms.
        signs: of the rotation.

    Returns:
        uint8 (n / 32, bits / 8, 32) and float32 (n,): factor * ⟨signs, R q⟩ estimates ⟨r, q⟩.
    """
    bits = code_bits(residuals.shape[1])
    rotated = _maxip.rotate(residuals, signs)[:, :bits]
    total = np.abs(rotated).sum(axis=1, dtype=np.float64)
    factors = np.divide(squares, total, out=np.zeros_like(total), where=total > 0)
    packed = np.packbits(rotated < 0, axis=1, bitorder="little")  # byte j: groups 2j and 2j + 1
    blocks = packed.reshape(-1, BLOCK, bits // 8).transpose(0, 2, 1)
    return np.ascontiguousarray(blocks), factors.astype(np.float32)


def _cluster(vectors: FloatArray, seed: int) -> tuple[FloatArray, Int64Array]:
    """Centres float32 (lists, dim) and the list of each point, int64 (n,)."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    far = norms > FAR * np.median(norms)
    if not far.any() or far.sum() > len(far) // 4:
        centroids, owner = _cluster_band(vectors, seed)
    else:
        centroids, near_owner = _cluster_band(vectors[~far], seed)
        far_centroids, far_owner = _cluster(vectors[far], seed)
        owner = np.empty(len(vectors), np.int64)
        owner[~far] = near_owner
        owner[far] = far_owner + len(centroids)
        centroids = np.vstack([centroids, far_centroids])
    filled, owner = np.unique(owner, return_inverse=True)  # drop lists without points
    return np.ascontiguousarray(centroids[filled], np.float32), owner.astype(np.int64)


def _cluster_band(vectors: FloatArray, seed: int) -> tuple[FloatArray, Int64Array]:
    """The same for points of which none is much longer than most."""
    centroids = _train(vectors, max(1, round(len(vectors) ** 0.5)), seed)
    searcher = faiss.IndexFlatL2(vectors.shape[1])
    scale = np.float32(np.abs(vectors).max() or 1)
    searcher.add(centroids / scale)
    owner = np.empty(len(vectors), np.int64)
    for at in range(0, len(vectors), ENCODED_AT_ONCE):
        part = slice(at, at + ENCODED_AT_ONCE)
        owner[part] = searcher.search(vectors[part] / scale, 1)[1][:, 0]
    return centroids, owner


def _train(vectors: FloatArray, lists: int, seed: int) -> FloatArray:
    scale = float(np.abs(vectors).max())
    if lists == 1 or scale == 0:
        mean = vectors.mean(axis=0, keepdims=True, dtype=np.float64)
        return np.asarray(mean, np.float32)
    rng = np.random.default_rng(seed)
    wanted = min(len(vectors), lists * TRAINING_POINTS)
    sample = np.sort(rng.choice(len(vectors), wanted, replace=False))
    # Scaled, so that squares neither overflow nor vanish.
    training = np.ascontiguousarray(vectors[sample] / np.float32(scale))
    kmeans = faiss.Kmeans(
        vectors.shape[1], lists, niter=TRAINING_ROUNDS, seed=seed % (1 << 31),
        min_points_per_centroid=1, max_points_per_centroid=TRAINING_POINTS,
    )  # fmt: skip
    kmeans.train(training)
    centroids = np.asarray(kmeans.centroids, np.float32) * np.float32(scale)
    return np.ascontiguousarray(centroids)
