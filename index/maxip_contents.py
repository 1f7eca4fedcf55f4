"""Going over all points of a MaxIP index, whatever segments they lie in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .batches import FloatArray, Int64Array
from .errors import InvalidInputError
from .maxip_segment import MaxIPSegment, MaxIPTail

_EXACT_BLOCK = 262_144
_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class MaxIPContents:
    """The points of some segments.

    Attributes:
        parts: sealed segments and tails; no point is alive in two.
        dim: of the vectors.
    """

    parts: Sequence[MaxIPSegment | MaxIPTail]
    dim: int

    def exact_best(self, query: npt.NDArray[np.float64]) -> tuple[int, float]:
        """Id and score of the best of all points, comparing each; -1 and -inf if there is none.

        Scores are compared in float32; all that rounding leaves in doubt, again in float64, so
        that no point has a higher inner product with `query`, float (dim,), than the one returned.
        """
        rough = query.astype(np.float32)
        best, best_id = -np.inf, -1
        # Most by which a float32 sum of dim products misses, for the longest point; products below
        # normal numbers lose their last digits each.
        error = 2.0**-24 * float(np.linalg.norm(query)) * self._longest() + _SMALLEST_NORMAL
        doubt = 2 * (len(query) + 2) * error
        for ids, alive, vectors in self._blocks():
            scores = np.where(alive, vectors @ rough, -np.inf)
            near = np.flatnonzero(scores >= max(float(scores.max()), best) - 2 * doubt)
            if not len(near) or not alive[near].any():
                continue
            precise = np.where(alive[near], vectors[near].astype(np.float64) @ query, -np.inf)
            at = int(np.lexsort((ids[near], -precise))[0])
            if (precise[at], -ids[near[at]]) > (best, -best_id):
                best, best_id = float(precise[at]), int(ids[near[at]])
        return best_id, best

    def _longest(self) -> float:
        """A bound of the norms of all points."""
        return max((_longest(segment) for segment in self.parts), default=0.0)

    def _blocks(
        self,
    ) -> Iterator[tuple[Int64Array, npt.NDArray[np.bool_], FloatArray]]:
        """All points in blocks: ids, which are alive, vectors."""
        for segment in self.parts:
            if isinstance(segment, MaxIPTail):
                view = segment.view
                if len(view.ids):
                    # A copy: whoever asks counts them, then takes as many.
                    yield view.ids, view.alive.copy(), view.vectors
                continue
            lists = segment.lists
            alive = lists.alive()
            for at in range(0, len(lists.ids), _EXACT_BLOCK):
                part = slice(at, at + _EXACT_BLOCK)
                yield lists.ids[part], alive[part], lists.vectors[part]

    def points(self) -> tuple[Int64Array, FloatArray]:
        """All points by rising id: ids int64 (n,) and vectors float32 (n, dim); a copy."""
        blocks = [(ids[alive], vectors[alive]) for ids, alive, vectors in self._blocks()]
        if not blocks:
            return np.zeros(0, np.int64), np.zeros((0, self.dim), np.float32)
        ids = np.concatenate([block[0] for block in blocks])
        order = np.argsort(ids, kind="stable")
        return ids[order], np.concatenate([block[1] for block in blocks])[order]

    def mean(self) -> npt.NDArray[np.float64]:
        """Mean of all points, float64 (dim,); zeros if there is none."""
        total, count = np.zeros(self.dim), 0
        for _, alive, vectors in self._blocks():
            total += np.where(alive[:, None], vectors, 0).sum(axis=0, dtype=np.float64)
            count += int(alive.sum())
        return np.asarray(total / max(count, 1), np.float64)

    def some_ids(self, count: int, seed: int = 0) -> list[int]:
        """Up to `count` ids at random, without repeats."""
        rng = np.random.default_rng(seed)
        drawn: set[int] = set()
        blocks = [(ids, alive) for ids, alive, _ in self._blocks()]
        total = sum(int(alive.sum()) for _, alive in blocks)
        wanted = np.sort(rng.choice(total, min(count, total), replace=False))
        for ids, alive in blocks:
            points = ids[alive]
            here, wanted = wanted[wanted < len(points)], wanted[wanted >= len(points)] - len(points)
            drawn.update(points[here].tolist())
        return sorted(drawn)

    def vectors(self, wanted: Int64Array) -> FloatArray:
        """Vectors of points by id, float32 (n, dim).

        Raises:
            InvalidInputError: an id is not in the index.
        """
        out = np.empty((len(wanted), self.dim), np.float32)
        missing = np.ones(len(wanted), bool)
        for segment in self.parts:
            if isinstance(segment, MaxIPTail):
                here, vectors = segment.vectors_of(wanted)
                out[here] = vectors
            else:
                places = segment.lists.find(wanted)
                here = places >= 0
                out[here] = segment.lists.vectors[places[here]]
            missing &= ~here
        if missing.any():
            raise InvalidInputError(f"id {wanted[missing][0]} is not in the index", field="ids")
        return out

    def take(self, wanted: Int64Array) -> FloatArray:
        """Remove one point and answer its vector, float32 (dim,); `wanted`: its id, int64 (1,).

        Raises:
            InvalidInputError: the id is not in the index.
        """
        for segment in self.parts:
            if isinstance(segment, MaxIPTail):
                here, vectors = segment.vectors_of(wanted)
                if here[0]:
                    segment.remove(wanted)
                    return np.asarray(vectors[0], np.float32)
                continue
            places = segment.lists.find(wanted)
            if places[0] >= 0:
                segment.remove_places(places)
                return np.array(segment.lists.vectors[places[0]])
        raise InvalidInputError(f"id {wanted[0]} is not in the index", field="ids")


def _longest(segment: MaxIPSegment | MaxIPTail) -> float:
    return segment.longest() if isinstance(segment, MaxIPTail) else segment.lists.longest
