"""MaxIP as the paper builds it: asymmetric transforms onto the sphere, then LSH. The reference.

Xu, Song, Shrivastava, "Breaking the Linear Iteration Cost Barrier for Some Well-known Conditional
Gradient Methods Using MaxIP Data-structures" (NeurIPS 2021). A conditional-gradient step over
atoms S at the point w looks for the atom of greatest gap ⟨w - s, ∇g(w)⟩. As an inner product::

    φ0(w) = [∇g; ⟨w, ∇g⟩]      ψ0(s) = [-s; 1]          ⟨φ0(w), ψ0(s)⟩ = ⟨w - s, ∇g⟩
    φ1(x) = [x/Dx; 0; √(1 - |x/Dx|²)]                   |φ1| = |ψ1| = 1
    ψ1(y) = [y/Dy; √(1 - |y/Dy|²); 0]                   ⟨φ1(x), ψ1(y)⟩ = ⟨x, y⟩ / (Dx Dy)

so that maximum inner product becomes nearest neighbour on the unit sphere in d + 3 dimensions,
where locality-sensitive hashing answers in n^ρ.

``MaxIPIndex`` is what to use: it is faster by far. This module is what to compare it and the
theorems with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .batches import FloatArray, Int64Array, as_dense_batch
from .errors import InvalidInputError
from .projection import SignedRandomProjection

Array = npt.NDArray[np.float64]

DEFAULT_BANDS = 32
MAX_TABLES = 4_096
MAX_KEY_BITS = 24


# --- transforms ----------------------------------------------------------------------------------


def gap_query(point: npt.ArrayLike, gradient: npt.ArrayLike) -> Array:
    """φ0: float64 (d + 1,) from the present point and the gradient there, both (d,)."""
    w, g = np.asarray(point, np.float64), np.asarray(gradient, np.float64)
    return np.append(g, w @ g)


def gap_points(atoms: npt.ArrayLike) -> Array:
    """ψ0: float64 (n, d + 1) from atoms (n, d)."""
    s = np.asarray(atoms, np.float64)
    return np.hstack([-s, np.ones((len(s), 1))])


def sphere_query(query: npt.ArrayLike, bound: float) -> Array:
    """φ1: a unit vector, float64 (d + 2,), from a query (d,) of norm at most `bound`."""
    x = np.asarray(query, np.float64) / _check_bound(bound)
    return np.concatenate([x, [0.0, _rest(x[None], "query")[0]]])


def sphere_points(points: npt.ArrayLike, bound: float) -> Array:
    """ψ1: unit vectors, float64 (n, d + 2), from points (n, d) of norms at most `bound`."""
    y = np.asarray(points, np.float64) / _check_bound(bound)
    return np.hstack([y, _rest(y, "points")[:, None], np.zeros((len(y), 1))])


def _check_bound(bound: float) -> float:
    if not (np.isfinite(bound) and bound > 0):
        raise InvalidInputError("the norm bound must be finite and positive", field="bound")
    return float(bound)


def _rest(scaled: Array, name: str) -> Array:
    """What is missing to length 1, float64 (n,)."""
    square = 1 - np.einsum("ij,ij->i", scaled, scaled)
    if (square < -1e-9).any():
        raise InvalidInputError(f"{name} must have norms at most the bound", field=name)
    return np.asarray(np.sqrt(np.maximum(square, 0)), np.float64)


# --- formulas ------------------------------------------------------------------------------------


def ann_factor(c: float, tau: float) -> float:
    """c̄ of the nearest-neighbour problem that (c, τ)-MaxIP becomes: c̄² = (1 - cτ) / (1 - τ)."""
    _check_c_tau(c, tau)
    return float(np.sqrt((1 - c * tau) / (1 - tau)))


def rho(c: float, tau: float) -> float:
    """Query exponent of the best LSH for (c, τ)-MaxIP: 2/c̄² - 1/c̄⁴ = 1 - (τ(1-c)/(1-cτ))²."""
    _check_c_tau(c, tau)
    return float(1 - (tau * (1 - c) / (1 - c * tau)) ** 2)


def hyperplane_rho(c: float, tau: float) -> float:
    """Query exponent of signed random projections, which :class:`PaperMaxIP` uses; at least rho."""
    _check_c_tau(c, tau)
    near, far = SignedRandomProjection.collision_probability([tau, c * tau])
    return float(np.log(near) / np.log(far))


def _check_c_tau(c: float, tau: float) -> None:
    if not (0 < c < 1 and 0 < tau < 1):
        raise InvalidInputError("c and tau must be between 0 and 1", field="c")


def quantise(query: npt.ArrayLike, cell: float) -> Array:
    """The nearest corner of a lattice whose cells have diameter `cell`.

    A sequence of queries that depends on earlier answers can reach only as many queries as there
    are lattice cells, so that a union bound over them holds for all of it. The inner product with
    a unit vector changes by at most cell / 2.
    """
    x = np.asarray(query, np.float64)
    if not (np.isfinite(cell) and cell > 0):
        raise InvalidInputError("a lattice cell must have a positive diameter", field="cell")
    side = cell / np.sqrt(x.size)
    return np.asarray(np.round(x / side) * side, np.float64)


# --- the structure -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Band:
    """Points of similar norms, hashed on the sphere of their longest.

    Attributes:
        ids: int64 (n,).
        longest: their greatest norm.
        keys: uint32 (tables, n), each table's keys in rising order.
        order: int64 (tables, n), which point each key is of.
    """

    ids: Int64Array
    longest: float
    keys: npt.NDArray[np.uint32]
    order: Int64Array


@dataclass(frozen=True)
class PaperAnswer:
    """A point, its inner product, and how many points were compared; -1 and NaN if none was met."""

    id: int
    score: float
    compared: int


class PaperMaxIP:
    """(c, τ)-MaxIP by LSH over bands of norms, on one static set of points.

    Where some point has a normalised inner product of at least τ with the query, a point of at
    least c times the highest is returned with probability of about .86 or more.

    Args:
        points: float32 (n, d).
        c, tau: the promise.
        seed: of the hashes; use several structures for adaptive queries.
        bands: parts of equal size by norm, so that few points are much shorter than the bound that
            they are lifted with.
        cell: diameter of the lattice that normalised queries are snapped to, or None.

    Raises:
        InvalidInputError: no points, or parameters out of range.
    """

    def __init__(
        self,
        points: Any,
        c: float = 0.8,
        tau: float = 0.7,
        seed: int = 0,
        *,
        bands: int = DEFAULT_BANDS,
        cell: float | None = None,
    ) -> None:
        self.points = as_dense_batch(points)
        if not len(self.points):
            raise InvalidInputError("at least one point is needed", field="points")
        if bands < 1:
            raise InvalidInputError("bands must be positive", field="bands")
        self.c, self.tau, self.cell = c, tau, cell
        norms = np.sqrt(np.einsum("ij,ij->i", self.points, self.points, dtype=np.float64))
        by_norm = np.argsort(-norms, kind="stable")
        largest = -(-len(by_norm) // bands)
        near, far = SignedRandomProjection.collision_probability([tau, c * tau])
        # K bits leave one far point in a bucket; twice p⁻ᴷ tables catch a near one in 1 - e⁻²
        # of cases.
        self.K = int(np.clip(np.ceil(np.log(max(largest, 2)) / -np.log(far)), 1, MAX_KEY_BITS))
        self.tables = int(np.clip(np.ceil(2 * near**-self.K), 1, MAX_TABLES))
        self._family = SignedRandomProjection(
            self.points.shape[1] + 2, seed, tables=0, sketch_bits=-(-self.tables * self.K // 8) * 8
        )
        self._bands = [
            self._band(members, float(norms[members[0]]))
            for members in np.array_split(by_norm, min(bands, len(by_norm)))
        ]

    def _keys(self, lifted: Array) -> npt.NDArray[np.uint32]:
        """Keys of K sign bits, uint32 (n, tables)."""
        signs = self._family.signs(lifted.astype(np.float32))
        bits = np.unpackbits(signs, axis=1, count=self.tables * self.K, bitorder="little")
        weights = np.uint32(1) << np.arange(self.K, dtype=np.uint32)
        keys = bits.reshape(len(lifted), self.tables, self.K).astype(np.uint32) @ weights
        return np.asarray(keys, np.uint32)

    def _band(self, members: Int64Array, longest: float) -> _Band:
        keys = self._keys(sphere_points(self.points[members], longest or 1.0)).T
        order = np.argsort(keys, axis=1, kind="stable")
        return _Band(members, longest, np.take_along_axis(keys, order, axis=1), order)

    def query(self, query: Any) -> PaperAnswer:
        """A point of high inner product with a query, float32 (d,), other than zero.

        Raises:
            InvalidInputError: of another dimension, not finite, or zero.
        """
        vector = as_dense_batch(query, self.points.shape[1])[0].astype(np.float64)
        norm = float(np.linalg.norm(vector))
        if norm == 0:
            raise InvalidInputError("a query of zeros has no direction", field="query")
        unit = vector / norm
        looked_up = quantise(unit, self.cell) if self.cell is not None else unit
        bound = max(1.0, float(np.linalg.norm(looked_up)))
        keys = self._keys(sphere_query(looked_up, bound)[None])[0]
        best_id, best, compared = -1, -np.inf, 0
        for band in self._bands:
            if band.longest * norm <= best:
                break  # Cauchy-Schwarz: no point of this band or a later one is better
            candidates = self._bucket(band, keys)
            compared += len(candidates)
            if not len(candidates):
                continue
            scores = self.points[candidates].astype(np.float64) @ vector
            if scores.max() > best:
                best_id, best = int(candidates[scores.argmax()]), float(scores.max())
        return PaperAnswer(best_id, best if best_id >= 0 else float("nan"), compared)

    @staticmethod
    def _bucket(band: _Band, keys: npt.NDArray[np.uint32]) -> Int64Array:
        """Points that share a key with the query in any table, without repeats."""
        met = []
        for table, key in enumerate(keys):
            row = band.keys[table]
            first, last = np.searchsorted(row, key, "left"), np.searchsorted(row, key, "right")
            met.append(band.order[table, first:last])
        return band.ids[np.unique(np.concatenate(met))]


def normalised_best(points: FloatArray, query: npt.ArrayLike) -> float:
    """The highest inner product over the norms of the longest point and the query: τ as it is."""
    y, x = np.asarray(points, np.float64), np.asarray(query, np.float64)
    longest = np.sqrt(np.einsum("ij,ij->i", y, y).max())
    return float((y @ x).max() / (longest * np.linalg.norm(x)))
