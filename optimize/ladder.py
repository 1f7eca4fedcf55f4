"""The oracle of a conditional-gradient step: a ladder of ever dearer places to look for an atom.

::

    pool of recent atoms → small subset → few lists → more lists → all codes → (exact)

A step need not have the best atom. With φ the gap that is still expected, any atom of gap at least
φ/2 will do ("lazy" acceptance, Braun, Pokutta, Zink 2017), and the first rung that offers one ends
the climb. Only the exact rung can say that no such atom is left; where the others find none, φ is
halved without proof unless the caller asks for one.

One index asked by its own answers can be wrong in the same way again and again. The rungs below
are independent of it, and searches take the index's rotations in turn.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from .atoms import Atoms, Found
from .trace import Array

OracleName: TypeAlias = Literal["ladder", "lazy", "exact", "subset"]
ORACLES: tuple[OracleName, ...] = ("ladder", "lazy", "exact", "subset")

POOL = 256
SUBSET = 512


class Ladder:
    """Finds atoms for the steps of one run.

    Args:
        atoms: where to look.
        oracle: "ladder"; or a baseline: "lazy" (pool, then all atoms), "exact" (all atoms, always)
            or "subset" (the best of a few atoms drawn anew each time, nothing else).
        seed: of the subset.
        subset: its size.
    """

    def __init__(self, atoms: Atoms, oracle: OracleName, seed: int, subset: int = SUBSET) -> None:
        self.atoms = atoms
        self.oracle = oracle
        self.read = 0
        self._seed = seed
        self._size = subset
        self._turn = 0
        self._recent: OrderedDict[int, None] = OrderedDict()
        self._pool: Array = np.zeros((0, atoms.dim))
        self._pool_keys: list[int] = []
        self._subset = atoms.sample(subset, seed) if oracle == "ladder" else None

    def find(self, direction: Array, base: float, need: float) -> Found:
        """An atom of score at least base + need, or the best that the rungs below exact met."""
        if self.oracle == "exact":
            return self.best(direction)
        if self.oracle == "subset":
            self._turn += 1
            keys, rows = self.atoms.sample(self._size, self._seed + self._turn)
            return self._count(_best_row(direction, keys, rows))
        found = self._count(_best_row(direction, np.array(self._pool_keys, np.int64), self._pool))
        if found.score - base >= need:
            return found
        if self._subset is not None:
            found = _higher(found, self._count(_best_row(direction, *self._subset)))
            if found.score - base >= need:
                return self._keep(found)
        self._turn += 1
        searched = self._count(self.atoms.search(direction, base, need, self._turn))
        # An exact answer stays one though an equal atom lies in the pool.
        best = searched if searched.exact else _higher(found, searched)
        return self._keep(best)

    def best(self, direction: Array) -> Found:
        """The best of all atoms."""
        return self._keep(self._count(self.atoms.best(direction)))

    def _count(self, found: Found) -> Found:
        self.read += found.read
        return found

    def _keep(self, found: Found) -> Found:
        """Put an atom into the pool, in the place of the one that was longest unused."""
        if found.key < 0 or self.oracle in ("exact", "subset"):
            return found
        if found.key in self._recent:
            self._recent.move_to_end(found.key)
            return found
        vector = self.atoms.vector(found.key)
        self._recent[found.key] = None
        if len(self._pool_keys) < POOL:
            self._pool_keys.append(found.key)
            self._pool = np.vstack([self._pool, vector])
        else:
            oldest, _ = self._recent.popitem(last=False)
            place = self._pool_keys.index(oldest)
            self._pool_keys[place] = found.key
            self._pool[place] = vector
        return found


def _best_row(direction: Array, keys: npt.NDArray[np.int64], rows: Array) -> Found:
    if not len(keys):
        return Found(-1, -np.inf, 0, False)
    scores = rows @ direction
    at = int(scores.argmax())
    return Found(int(keys[at]), float(scores[at]), len(keys), False)


def _higher(a: Found, b: Found) -> Found:
    return a if a.score >= b.score else b
