"""Views of points, through which kernels search them, and the queries that they take."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

import numpy as np

from . import _native
from .alive_points import rows_of
from .batches import FloatArray, Int64Array, SetBatch, SparseBatch
from .hashed import Family, HashedBatch, Stored, hashes_of
from .minhash import UInt8Array, UInt32Array
from .selectors import Arrays, Selector
from .tuning import Effort

# Where a query's elements lie in its hash table; answers do not depend on it.
SALT = secrets.randbits(64)


@dataclass(frozen=True, eq=False)
class HashedQueries:
    """Queries with their hashes, computed once for all segments.

    Attributes:
        features: a ``SetBatch`` of n sets, a ``SparseBatch``, or float32 (n, dim); a
            ``HashedBatch`` of those that a segment without features asks itself.
        keys: uint32 (n, tables).
        sketches: uint8 (n, sketch bytes).
        highest: float32 (sketch bits + 1,), the highest similarity that each sketch distance
            leaves plausible.
        estimates: float32 (sketch bits + 1,), the similarity that each stands for.
    """

    features: Stored
    keys: UInt32Array
    sketches: UInt8Array
    highest: FloatArray
    estimates: FloatArray

    @classmethod
    def of(cls, features: Stored, family: Family) -> HashedQueries:
        """Hash queries whose features were checked."""
        hashes = hashes_of(features, family)
        return cls(features, *hashes, family.highest_plausible, family.estimates)

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Int64Array) -> HashedQueries:
        """Some of the queries."""
        features = rows_of(self.features, rows)
        return replace(self, features=features, keys=self.keys[rows], sketches=self.sketches[rows])


class Viewed:
    """Points that are searched through a view."""

    _view: _native.SegmentView

    def search(
        self,
        queries: HashedQueries,
        effort: Effort,
        k: int,
        min_score: float,
        team: _native.Team | None = None,
    ) -> tuple[Int64Array, FloatArray]:
        """The k best points of each query: ids int64 (q, k), scores float32 (q, k); -1 and NaN.

        team: shares the cells of each query.
        """
        return search_view(self._view, queries, effort, k, min_score, team)

    def estimate(
        self,
        queries: HashedQueries,
        effort: Effort,
        k: int,
        min_score: float,
        team: _native.Team | None = None,
    ) -> tuple[Int64Array, FloatArray]:
        """As :meth:`search`, by the sketches alone: scores are what they estimate."""
        return estimate_view(self._view, queries, effort, k, min_score, team)


def view_of(
    arrays: Arrays, points: int, dead: UInt8Array, selector: Selector | None
) -> _native.SegmentView:
    """The first points of a segment's arrays as kernels see them; all are scanned without one.

    Without ids hits are called by their places.
    """
    sets = (arrays["indptr"], arrays["elements"]) if "indptr" in arrays else None
    selected = selector.native() if selector is not None else {}
    sketches = (arrays["coarse"], arrays["fine"])
    return _native.SegmentView(
        sketches,
        arrays.get("ids"),
        points,
        dead,
        sets,
        arrays.get("vectors"),
        values=arrays.get("values"),
        **selected,
    )


def search_view(
    view: _native.SegmentView,
    queries: HashedQueries,
    effort: Effort,
    k: int,
    min_score: float,
    team: _native.Team | None = None,
) -> tuple[Int64Array, FloatArray]:
    """The k best points of a view: ids int64 (q, k), scores float32 (q, k); -1 and NaN."""
    features = queries.features
    candidates = max(effort.candidates, k)
    if isinstance(features, SparseBatch):
        return view.search_sparse(
            queries.keys,
            queries.sketches,
            features.indptr,
            features.indices,
            features.values,
            effort.breadth,
            candidates,
            k,
            min_score,
            queries.highest,
            team,
        )
    if isinstance(features, SetBatch):
        return view.search_sets(
            queries.keys,
            queries.sketches,
            features.indptr,
            features.indices,
            SALT,
            effort.breadth,
            candidates,
            k,
            min_score,
            queries.highest,
            team,
        )
    assert not isinstance(features, HashedBatch)  # nothing to compare
    return view.search_vectors(
        queries.keys,
        queries.sketches,
        features,
        effort.breadth,
        candidates,
        k,
        min_score,
        queries.highest,
        team,
    )


def estimate_view(
    view: _native.SegmentView,
    queries: HashedQueries,
    effort: Effort,
    k: int,
    min_score: float,
    team: _native.Team | None = None,
) -> tuple[Int64Array, FloatArray]:
    """The k best points of a view by what their sketches say; as :func:`search_view`."""
    ids, scores = view.estimate(
        queries.keys,
        queries.sketches,
        effort.breadth,
        max(effort.candidates, k),
        k,
        min_score,
        queries.estimates,
        team,
    )
    if isinstance(queries.features, SetBatch):
        nothing = queries.features.sizes == 0  # nothing is near what is empty
        ids[nothing], scores[nothing] = -1, np.nan
    return ids, scores
