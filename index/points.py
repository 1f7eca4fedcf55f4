"""Points in order of arrival, called by id: what engines compare exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _native
from .alive_points import rows_of
from .batches import Batch, FloatArray, Int64Array, SetBatch, SparseBatch
from .buffers import Column, SetColumn, VectorColumn, feature_column, marked
from .errors import InvalidInputError
from .views import SALT

_BLOCK = 256  # queries compared at a time, with at most so many scores
_BLOCK_SCORES = 1 << 25


@dataclass(frozen=True, eq=False)
class PointsView:
    """The points that were complete at one moment; those removed since are marked in `alive`.

    Attributes:
        ids: int64 (n,).
        alive: bool (n,).
        features: a batch of n.
    """

    ids: Int64Array
    alive: npt.NDArray[np.bool_]
    features: Batch

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: Int64Array) -> Batch:
        """Features of the points at these places."""
        return rows_of(self.features, places)

    def since(self, start: int) -> PointsView:
        """The points from `start` on, without a copy."""
        features = self.features
        if isinstance(features, SetBatch):
            return PointsView(
                self.ids[start:], self.alive[start:], features.slice(start, len(self))
            )
        return PointsView(self.ids[start:], self.alive[start:], features[start:])

    def search(self, queries: Batch, k: int, floor: float) -> tuple[Int64Array, FloatArray]:
        """The k most similar points, each compared with every query.

        Args:
            queries: q sets or vectors, as they are stored.
            k: hits wanted for each query.
            floor: least score of a hit.

        Returns:
            ids int64 (q, k), scores float32 (q, k) by falling score, then rising id; -1 and NaN
            after the last hit.
        """
        ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), np.nan, np.float32)
        live = marked(self.alive)
        for row, similarity in enumerate(self.similarities(queries, live)):
            best = best_places(similarity, self.ids[live], k, floor)
            ids[row, : len(best)] = self.ids[live[best]]
            scores[row, : len(best)] = similarity[best]
        return ids, scores

    def similarities(self, queries: Batch, places: Int64Array) -> Any:
        """Similarities of one query after another with the points at these places, float32."""
        everything = len(places) == len(self)
        block = max(1, min(_BLOCK, _BLOCK_SCORES // max(1, len(self))))
        features = self.features
        for start in range(0, len(queries), block):
            if isinstance(features, SparseBatch):
                assert isinstance(queries, SparseBatch)
                rows = range(start, min(start + block, len(queries)))
                scores = np.stack([_products(features, queries, row) for row in rows])
            elif isinstance(features, SetBatch):
                assert isinstance(queries, SetBatch)
                part = queries.slice(start, min(start + block, len(queries)))
                scores = _native.jaccard_of_all(
                    features.indptr, features.indices, part.indptr, part.indices, SALT
                )
            else:
                assert not isinstance(queries, SetBatch)
                scores = queries[start : start + block] @ features.T
            yield from scores if everything else scores[:, places]

    def similarity_to(self, queries: Batch, row: int, places: Int64Array) -> FloatArray:
        """Similarities of one of the queries with the points at these places, float32."""
        features = self.features
        if isinstance(features, SparseBatch):
            assert isinstance(queries, SparseBatch)
            return _products(features.take(places), queries, row)
        if isinstance(features, SetBatch):
            assert isinstance(queries, SetBatch)
            return np.asarray(
                _native.jaccard_of_rows(
                    features.indptr, features.indices, places, queries.row(row), SALT
                )
            )
        assert not isinstance(queries, SetBatch)
        return np.asarray(features[places] @ queries[row])


class Points:
    """Points that can be added and removed by id.

    One thread may change them while others use a view.
    """

    def __init__(self) -> None:
        self._ids = Column(np.int64)
        self._alive = Column(np.bool_)
        self._features: SetColumn | VectorColumn | None = None
        self._places: dict[int, int] = {}
        self._highest = -1

    @classmethod
    def restored(cls, ids: Int64Array, alive: npt.NDArray[np.bool_], features: Batch) -> Points:
        """Points as a view had them.

        Raises:
            ValueError: the three do not fit together, or an id is alive twice.
        """
        live = np.flatnonzero(alive)
        if not len(ids) == len(alive) == len(features) or len(np.unique(ids[live])) != len(live):
            raise ValueError("ids, marks and features do not fit together")
        points = cls()
        if len(ids):
            points.append(ids, features)
            points._alive.snapshot()[:] = alive
            points._places = dict(zip(ids[live].tolist(), live.tolist(), strict=True))
        return points

    def __len__(self) -> int:
        """Points that are not removed."""
        return len(self._places)

    @property
    def next_id(self) -> int:
        """The number after the highest id that was ever here."""
        return self._highest + 1

    @property
    def dim(self) -> int | None:
        """Dimension of the vectors; None for sets, and while there are no points."""
        if not isinstance(self._features, VectorColumn):
            return None
        return int(self._features.snapshot().shape[1])

    def refuse_present(self, ids: Int64Array) -> None:
        """Raise InvalidInputError if one of the ids is here."""
        present = next((i for i in ids.tolist() if i in self._places), None)
        if present is not None:
            raise InvalidInputError(
                f"id {present} is in the index already; remove it first", field="ids"
            )

    def are_present(self, ids: Int64Array) -> npt.NDArray[np.bool_]:
        """Which ids are here and not removed, bool (n,)."""
        return np.array([i in self._places for i in ids.tolist()], bool)

    def append(self, ids: Int64Array, features: Batch) -> None:
        """Add points with new ids; not none."""
        if self._features is None:
            self._features = feature_column(features)
        first = len(self._ids)
        self._features.append(features)
        self._ids.append(ids)
        self._alive.append(np.ones(len(ids), bool))
        self._places.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))
        self._highest = max(self._highest, int(ids.max()))

    def remove(self, ids: Any) -> Int64Array:
        """Remove points; the places of those that were present, int64."""
        asked = np.atleast_1d(np.asarray(ids, np.int64)).tolist()
        found = [self._places.pop(i, -1) for i in asked]
        places = np.array([place for place in found if place >= 0], np.int64)
        self._alive.snapshot()[places] = False
        return places

    def view(self) -> PointsView | None:
        """The points as they are; None while there never was one."""
        if self._features is None:
            return None
        return PointsView(self._ids.snapshot(), self._alive.snapshot(), self._features.snapshot())

    def alive(self) -> tuple[Int64Array, Batch] | None:
        """Ids and features of the points that are not removed; None while there never was one."""
        view = self.view()
        if view is None:
            return None
        places = marked(view.alive)
        return view.ids[places], view.take(places)

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part: ``"ids"`` and ``"features"``."""
        features = self._features.nbytes if self._features is not None else 0
        return {"ids": self._ids.nbytes + self._alive.nbytes, "features": features}


def _products(vectors: SparseBatch, queries: SparseBatch, row: int) -> FloatArray:
    """Inner products of one sparse query with all of these vectors, float32."""
    query = queries.slice(row, row + 1)
    return np.asarray(
        _native.inner_products_of_sparse(
            vectors.indptr, vectors.indices, vectors.values, query.indices, query.values
        )
    )


def best_places(similarity: FloatArray, ids: Int64Array, k: int, floor: float) -> Int64Array:
    """Places of the k highest scores of at least `floor`; ties by rising id."""
    places = np.flatnonzero(similarity >= floor)
    if len(places) > k:
        kth = np.partition(similarity[places], len(places) - k)[len(places) - k]
        places = places[similarity[places] >= kth]
    order = np.lexsort((ids[places], -similarity[places]))[:k]
    return np.asarray(places[order], np.int64)
