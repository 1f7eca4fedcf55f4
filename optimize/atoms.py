"""Sets of atoms: what a solver can ask of them, whether they are a matrix or an index.

An atom is called by a key, its id, or for ± atoms twice its id plus one for the negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from closeby.index import InvalidInputError, MaxIPIndex

from .trace import Array, Ids

# Norms of which squares and inner products stay far from overflow in float64.
MAX_NORM = 1e100


@dataclass(frozen=True)
class Found:
    """An atom, its inner product with a direction, and what finding it took."""

    key: int
    score: float
    read: int
    exact: bool


class Atoms(Protocol):
    """Finitely many vectors."""

    dim: int

    def __len__(self) -> int: ...

    def first(self) -> int:
        """Any key."""
        ...

    def vector(self, key: int) -> Array:
        """An atom, float64 (dim,)."""
        ...

    def sample(self, count: int, seed: int) -> tuple[Ids, Array]:
        """Keys and vectors of up to `count` atoms at random."""
        ...

    def search(self, direction: Array, base: float, need: float, turn: int) -> Found:
        """An atom of score at least base + need if one is found cheaply; else the best met."""
        ...

    def best(self, direction: Array) -> Found:
        """The atom of the highest score, comparing all."""
        ...


class MatrixAtoms:
    """The rows of a matrix, float64; a search reads all of it."""

    def __init__(self, matrix: npt.ArrayLike) -> None:
        rows = np.asarray(matrix)
        if rows.dtype.kind not in "fiu" or rows.ndim != 2 or not rows.size:
            raise InvalidInputError(
                "atoms must be a matrix of numbers (n, d) with n and d at least 1", field="atoms"
            )
        # float32 is kept: half the memory to read, and what an index would hold.
        self.rows = rows if rows.dtype == np.float32 else rows.astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(self.rows).all(axis=1))
        if len(bad):
            raise InvalidInputError("atoms must be finite", field="atoms", row=int(bad[0]))
        self.dim = self.rows.shape[1]
        if float(np.abs(self.rows).max()) > MAX_NORM:
            raise InvalidInputError(f"atoms must be below {MAX_NORM:g}", field="atoms")
        squares = np.einsum("ij,ij->i", self.rows, self.rows, dtype=np.float64)
        self._longest = float(np.sqrt(squares.max()))

    def __len__(self) -> int:
        return len(self.rows)

    def first(self) -> int:
        """See :class:`Atoms`."""
        return 0

    def vector(self, key: int) -> Array:
        """See :class:`Atoms`."""
        return np.asarray(self.rows[key], np.float64)

    def sample(self, count: int, seed: int) -> tuple[Ids, Array]:
        """See :class:`Atoms`."""
        keys = _sample(len(self), count, seed)
        return keys, self.rows[keys].astype(np.float64)

    def best(self, direction: Array) -> Found:
        """See :class:`Atoms`."""
        scores = self.rows @ _in_range(direction, self.rows.dtype)
        if self.rows.dtype == np.float64:
            key = int(scores.argmax())
            return Found(key, float(scores[key]), len(self), True)
        # What rounding leaves in doubt is compared again in float64.
        doubt = 4 * (self.dim + 2) * 2.0**-24 * self._longest
        near = np.flatnonzero(scores >= scores.max() - doubt)
        precise = self.rows[near].astype(np.float64) @ direction
        at = int(precise.argmax())
        return Found(int(near[at]), float(precise[at]), len(self), True)

    def search(self, direction: Array, base: float, need: float, turn: int) -> Found:  # noqa: ARG002
        """See :class:`Atoms`."""
        return self.best(direction)


class IndexAtoms:
    """The points of a ``MaxIPIndex``, called by their ids; it must not change during a run."""

    def __init__(self, index: MaxIPIndex) -> None:
        if not len(index) or index.dim is None:
            raise InvalidInputError("the index of atoms is empty", field="atoms")
        self.index = index
        self.dim = index.dim
        self._count = len(index)

    def __len__(self) -> int:
        return self._count

    def first(self) -> int:
        """See :class:`Atoms`."""
        return self.index.some_ids(1, seed=0)[0]

    def vector(self, key: int) -> Array:
        """See :class:`Atoms`."""
        return np.asarray(self.index.vectors([key])[0], np.float64)

    def sample(self, count: int, seed: int) -> tuple[Ids, Array]:
        """See :class:`Atoms`."""
        keys = np.array(self.index.some_ids(count, seed), np.int64)
        return keys, self.index.vectors(keys).astype(np.float64)

    def search(self, direction: Array, base: float, need: float, turn: int) -> Found:
        """See :class:`Atoms`."""
        scale, query = _normalised(direction)
        answer = self.index.search_gap(query, base / scale, need / scale, turn=turn)
        return Found(answer.id, answer.score * scale, answer.scanned, False)

    def best(self, direction: Array) -> Found:
        """See :class:`Atoms`."""
        scale = _length(direction)
        key, score = self.index.exact_best(direction / scale)
        return Found(key, score * scale, self._count, True)


class SignedAtoms:
    """The atoms of another set and their negatives: the hull is an ℓ1 ball of the atoms."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self.dim = atoms.dim

    def __len__(self) -> int:
        return 2 * len(self.atoms)

    def first(self) -> int:
        """See :class:`Atoms`."""
        return 2 * self.atoms.first()

    def vector(self, key: int) -> Array:
        """See :class:`Atoms`."""
        vector = self.atoms.vector(key >> 1)
        return -vector if key & 1 else vector

    def sample(self, count: int, seed: int) -> tuple[Ids, Array]:
        """See :class:`Atoms`."""
        keys, vectors = self.atoms.sample(-(-count // 2), seed)
        return np.concatenate([2 * keys, 2 * keys + 1]), np.vstack([vectors, -vectors])

    def search(self, direction: Array, base: float, need: float, turn: int) -> Found:
        """See :class:`Atoms`."""
        positive = self.atoms.search(direction, base, need, turn)
        if positive.score - base >= need:
            return Found(2 * positive.key, positive.score, positive.read, positive.exact)
        return _better(positive, self.atoms.search(-direction, base, need, turn))

    def best(self, direction: Array) -> Found:
        """See :class:`Atoms`."""
        return _better(self.atoms.best(direction), self.atoms.best(-direction))


def _better(positive: Found, negative: Found) -> Found:
    key, score = 2 * positive.key, positive.score
    if negative.score > score:
        key, score = 2 * negative.key + 1, negative.score
    read = positive.read + negative.read
    return Found(key, score, read, positive.exact and negative.exact)


def atoms_from(atoms: Any, *, signed: bool = False) -> Atoms:
    """A ``MaxIPIndex`` or a matrix as a set of atoms.

    Raises:
        InvalidInputError: empty, not finite, or no matrix of numbers.
    """
    plain: Atoms
    if isinstance(atoms, MatrixAtoms):
        plain = atoms  # checked before, for many runs over the same atoms
    else:
        plain = IndexAtoms(atoms) if isinstance(atoms, MaxIPIndex) else MatrixAtoms(atoms)
    return SignedAtoms(plain) if signed else plain


def _sample(n: int, count: int, seed: int) -> Ids:
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(n, min(n, count), replace=False)).astype(np.int64)


def _normalised(direction: Array) -> tuple[float, npt.NDArray[np.float32]]:
    """Length and direction: in float32 tiny gradients would vanish and huge ones overflow."""
    scale = _length(direction)
    return scale, (direction / scale).astype(np.float32)


def _length(direction: Array) -> float:
    """Norm of a direction, 1 if it is zero; squares neither overflow nor vanish."""
    peak = float(np.abs(direction).max(initial=0.0))
    return peak * float(np.linalg.norm(direction / peak)) if peak else 1.0


def _in_range(direction: Array, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The direction for comparing scores of one type; scaled where it could overflow."""
    if dtype != np.float32:
        return direction
    return _normalised(direction)[1]
