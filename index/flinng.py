"""FLINNG: near neighbours by group tests (Engels, Coleman, Shrivastava, NeurIPS 2021).

Points are put into cells. A locality-sensitive hash gives each point m keys; for each of m tables
and each key value a bitmap says which cells hold such a point. A query looks its own m keys up,
counts for every cell how many of the m tests it passes, and takes the cells that pass most: a
near neighbour shares many keys, so its cell passes many tests. No distance is computed to find
them. The points of those cells are ranked by sketches, and the best of them exactly.

    text ─ features ─ set ─┬─ keys ───── group tests ── best cells ─┐
                           ├─ sketch ─────────────────── sketch scan ── best points ─┐
                           └─ elements ──────────────────────────────── exact re-rank ── hits

The paper's structure of several rows without re-rank finds the same cells; one row with sketches
reads less memory for the same recall (docs/algorithm.md).
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from .batches import Batch, FloatArray, Int64Array, SetBatch
from .engine import Metric, check_batch, check_ids, check_k, check_metric, smallest_hit
from .errors import InvalidInputError
from .files import read_arrays, unusable_is_corrupt, write_arrays
from .minhash import SCHEMES, MinHashFamily, Scheme
from .projection import SignedRandomProjection
from .segment import HASH_BLOCK, Family, HashedQueries, MutableSegment, Segment
from .segments import Sealed, Segments, part
from .topk import merge_topk
from .tuning import (
    Effort,
    GroupShape,
    cells_for,
    check_target,
    group_shape,
    recall_of,
    tables_for,
)

DEFAULT_THRESHOLD = {"jaccard": 0.5, "cosine": 0.8}
DEFAULT_CAPACITY = 65_536
DEFAULT_EXPECTED_POINTS = 1_000_000
MAX_TABLES = 1_024
# A sealed segment puts similar points into the same cells; in order of arrival each neighbour lies
# in a cell of its own, among others that resemble the query by chance.
MIN_CELLS, MIN_CELLS_AS_ARRIVED = 64, 192
MIN_CANDIDATES = 100
# One-permutation hashing is faster from so many elements a MinHash value on.
LARGE_SET = 4


class FlinngIndex:
    """Near neighbours of sets (Jaccard) or vectors (cosine) at high similarity.

    Args:
        metric: ``"jaccard"`` or ``"cosine"``.
        seed: of all hashes; equal seeds and points give equal answers.
        target_recall: share of neighbours at `threshold` that an answer should hold, .5 to .9999.
        threshold: least similarity of the neighbours that the index is laid out for; .5 for
            Jaccard and .8 for cosine unless given. Nearer ones are found more surely, farther
            ones less.
        expected_points: how many points the index is laid out for.
        tables: m, number of keys; from the formulas of ``tuning`` unless given.
        K: MinHash values combined into a key (Jaccard).
        sketch_bits: 128, 256 or 512.
        scheme: MinHash scheme; chosen by the size of the first set unless given.
        capacity: points of the mutable segment before it is sealed.

    One thread may add and remove while any number of others search.

    Raises:
        InvalidInputError: a parameter out of range.
    """

    kind = "flinng"

    def __init__(
        self,
        metric: Metric = "jaccard",
        seed: int = 0,
        *,
        target_recall: float = 0.95,
        threshold: float | None = None,
        expected_points: int = DEFAULT_EXPECTED_POINTS,
        tables: int | None = None,
        K: int = 1,
        sketch_bits: int = 512,
        scheme: Scheme | None = None,
        capacity: int = DEFAULT_CAPACITY,
    ) -> None:
        self.metric: Metric = check_metric(metric, ("jaccard", "cosine"))
        self.seed = int(seed)
        self.target_recall = check_target(target_recall)
        self.threshold = DEFAULT_THRESHOLD[metric] if threshold is None else float(threshold)
        if not 0 < self.threshold <= 1:
            raise InvalidInputError("threshold must be above 0 and at most 1", field="threshold")
        if tables is not None and not 8 <= tables <= MAX_TABLES:
            raise InvalidInputError(
                f"tables must be from 8 to {MAX_TABLES}", field="tables", limit=MAX_TABLES
            )
        if sketch_bits not in (128, 256, 512):
            raise InvalidInputError("sketch_bits must be 128, 256 or 512", field="sketch_bits")
        if not 1 <= K <= 16:
            raise InvalidInputError("K must be from 1 to 16", field="K", limit=16)
        if capacity < 1 or expected_points < 1:
            raise InvalidInputError(
                "capacity and expected_points must be positive", field="capacity"
            )
        if scheme is not None and scheme not in SCHEMES:
            raise InvalidInputError(f"scheme must be one of {', '.join(SCHEMES)}", field="scheme")
        self.K = int(K)
        self.sketch_bits = sketch_bits
        self.scheme = scheme
        self.expected_points = int(expected_points)
        self.capacity = int(capacity)
        self.tables = int(tables) if tables is not None else self._tables()
        self._cached_effort = lru_cache(1024)(self._effort_for)
        self.dim: int | None = None
        self._segments: Segments | None = None
        self._next_id = 0

    def _tables(self) -> int:
        shape_bits = 8  # the range bits that cosine keys will have, near enough to choose m
        s = self._key_probability(self.threshold, GroupShape(64, shape_bits))
        wanted = tables_for(self.expected_points, s, self.target_recall)
        if wanted > MAX_TABLES:
            raise InvalidInputError(
                f"neighbours at {self.metric} {self.threshold:g} are too far for group tests: "
                f"{wanted:,} tables would be needed and {MAX_TABLES:,} are the most. Raise "
                'threshold, lower target_recall, or use index="flat"',
                field="threshold",
                limit=MAX_TABLES,
            )
        return wanted

    def _key_probability(self, similarity: float, shape: GroupShape) -> float:
        """s: probability that a key agrees at this similarity."""
        if self.metric == "jaccard":
            return float(MinHashFamily.collision_probability(similarity, self.K))
        probability = SignedRandomProjection.collision_probability(similarity, 1, shape.range_bits)
        return float(probability)

    def __len__(self) -> int:
        return len(self._segments) if self._segments is not None else 0

    def _searchable(self) -> list[Segment | MutableSegment]:
        return self._segments.searchable() if self._segments is not None else []

    # --- adding ----------------------------------------------------------------------------------

    def check(self, batch: Any) -> Batch:
        """The batch as this index stores it; raises what ``add`` would raise."""
        return check_batch(batch, self.metric, self.dim)

    def add(self, batch: Any, ids: Any = None) -> None:
        """Add points; a search finds them when this returns.

        Args:
            batch: n sets, or float32 (n, dim).
            ids: int64 (n,), new ones; the next free numbers unless given.

        Raises:
            InvalidInputError: unusable features, or an id that is present or given twice.
        """
        features = self.check(batch)
        new_ids = check_ids(ids, len(features), self._next_id)
        if not len(features):
            return
        segments = self._segments or self._lay_out(features)
        if ids is not None and self._next_id > int(new_ids.min()):
            present = segments.first_present(new_ids)
            if present is not None:
                raise InvalidInputError(
                    f"id {present} is in the index already; remove it first", field="ids"
                )
        self._next_id = max(self._next_id, int(new_ids.max()) + 1)
        segments.append(new_ids, features)

    def _lay_out(self, features: Batch) -> Segments:
        """Choose the hash family by the first points."""
        family: Family
        if isinstance(features, SetBatch):
            if self.scheme is None:
                values = self.tables * self.K + self.sketch_bits
                large = int(features.sizes[0]) > LARGE_SET * values
                self.scheme = "one_permutation" if large else "permutations"
            family = MinHashFamily(
                self.seed,
                tables=self.tables,
                K=self.K,
                sketch_bits=self.sketch_bits,
                scheme=self.scheme,
            )
        else:
            self.dim = features.shape[1]
            family = SignedRandomProjection(
                self.dim, self.seed, tables=self.tables, sketch_bits=self.sketch_bits
            )
        layout = partial(group_shape, tables=self.tables)
        self._segments = Segments(family, layout, self.capacity)
        return self._segments

    def compact(self) -> None:
        """Merge everything into one sealed segment: fastest queries, removed points dropped."""
        if self._segments is not None:
            self._segments.compact()

    def remove(self, ids: Any) -> int:
        """Remove points by id; the number of those that were present."""
        if self._segments is None:
            return 0
        return self._segments.remove(np.unique(np.atleast_1d(np.asarray(ids, np.int64))))

    # --- searching -------------------------------------------------------------------------------

    def hash(self, batch: Any) -> HashedQueries:
        """Queries with their hashes, for :meth:`search_hashed`; needs at least one point added."""
        assert self._segments is not None
        return HashedQueries.of(self.check(batch), self._segments.family)

    def search(
        self,
        batch: Any,
        k: int,
        threshold: float | None = None,
        target_recall: float | None = None,
    ) -> tuple[Int64Array, FloatArray]:
        """The k most similar points of each query, as far as the group tests find them.

        Args:
            batch: q sets, or float32 (q, dim).
            k: hits wanted for each query.
            threshold: least similarity of a hit.
            target_recall: looks at more cells or fewer, from this query on.

        Returns:
            ids int64 (q, k) and exact similarities float32 (q, k) by falling score, then rising
            id; -1 and NaN after the last hit.

        Raises:
            InvalidInputError: unusable queries or parameters.
        """
        k = check_k(k)
        features = self.check(batch)
        floor = smallest_hit(self.metric, threshold)
        target = self.target_recall if target_recall is None else check_target(target_recall)
        segments = self._searchable()
        if not segments:
            shape = (len(features), k)
            return np.full(shape, -1, np.int64), np.full(shape, np.nan, np.float32)
        answers = [
            self._search_block(
                part(features, start, start + HASH_BLOCK), segments, k, floor, target
            )
            for start in range(0, max(1, len(features)), HASH_BLOCK)
        ]
        ids, scores = zip(*answers, strict=True)
        return np.concatenate(ids), np.concatenate(scores)

    def _search_block(
        self,
        features: Batch,
        segments: list[Segment | MutableSegment],
        k: int,
        floor: float,
        target: float,
    ) -> tuple[Int64Array, FloatArray]:
        assert self._segments is not None
        queries = HashedQueries.of(features, self._segments.family)
        parts = [
            segment.search(queries, self._effort(segment, target, k), k, floor)
            for segment in segments
        ]
        return merge_topk(parts, k)

    def _effort(self, segment: Segment | MutableSegment, target: float, k: int) -> Effort:
        """How many cells and candidates one segment needs for this recall."""
        if segment.shape is None:
            return Effort(1, max(MIN_CANDIDATES, 4 * k))
        sealed = isinstance(segment, Segment)
        # The hits wanted must fit in, and neighbours compete with each other for cells.
        least = max(MIN_CELLS, 2 * k) if sealed else max(MIN_CELLS_AS_ARRIVED, 5 * k)
        return self._cached_effort(len(segment), segment.shape, target, k, least)

    def _effort_for(
        self, points: int, shape: GroupShape, target: float, k: int, least: int
    ) -> Effort:
        s = self._key_probability(self.threshold, shape)
        cells = cells_for(points, shape, self.tables, s, target)
        return Effort(max(least, cells), max(MIN_CANDIDATES, 4 * k))

    # --- describing ------------------------------------------------------------------------------

    def recall_estimate(self, target_recall: float | None = None) -> float:
        """Expected share of the neighbours at `threshold` that an answer holds."""
        target = self.target_recall if target_recall is None else check_target(target_recall)
        points = max(1, len(self))
        estimate = 0.0
        for segment in self._searchable():
            share = (len(segment) - segment.removed) / points
            if segment.shape is None:
                estimate += share
                continue
            s = self._key_probability(self.threshold, segment.shape)
            cells = self._effort(segment, target, 1).breadth
            estimate += share * recall_of(len(segment), segment.shape, self.tables, s, cells)
        return min(1.0, estimate) if len(self) else 1.0

    def explain(self) -> dict[str, Any]:
        """What the index chose and promises, in words and numbers."""
        return {
            "index": self.kind,
            "metric": self.metric,
            "points": len(self),
            "target_recall": self.target_recall,
            "threshold": self.threshold,
            "predicted_recall": round(self.recall_estimate(), 4),
            "tables": self.tables,
            "K": self.K,
            "sketch_bits": self.sketch_bits,
            "scheme": self.scheme,
            "seed": self.seed,
            "segments": [self._explain_segment(segment) for segment in self._searchable()],
            "nbytes": self.nbytes,
            "why": (
                f"{self.tables} group tests find neighbours of {self.metric} similarity "
                f"{self.threshold:g} or more; exact similarities order the best "
                f"{MIN_CANDIDATES} or more of them"
            ),
        }

    def _explain_segment(self, segment: Segment | MutableSegment) -> dict[str, Any]:
        effort = self._effort(segment, self.target_recall, 10)
        return {
            "points": len(segment),
            "removed": segment.removed,
            "sealed": isinstance(segment, Segment),
            "group_size": segment.shape.group_size if segment.shape else None,
            "range_bits": segment.shape.range_bits if segment.shape else None,
            "cells": effort.cells if segment.shape else None,
            "candidates": effort.candidates,
        }

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes by part: ``"bitmaps"``, ``"sketches"``, ``"ids"`` and ``"features"``."""
        total: dict[str, int] = {"bitmaps": 0, "sketches": 0, "ids": 0, "features": 0}
        for segment in self._searchable():
            for name, size in segment.nbytes.items():
                total[name] += size
        return total

    # --- files -----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the index to a file, replacing it atomically.

        The points of the mutable segment are written as they are; loading hashes them again.
        """
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        segments = []
        sealed = self._segments.sealed if self._segments is not None else ()
        for number, entry in enumerate(sealed):
            segment = entry.segment
            arrays |= {f"{number}.{name}": array for name, array in segment.arrays.items()}
            group_size = segment.shape.group_size if segment.shape else 0
            segments.append({"chunks": entry.chunks, "group_size": group_size})
        unsealed = self._segments.unsealed() if self._segments is not None else None
        if unsealed is not None:
            arrays |= {f"mutable.{n}": a for n, a in _feature_arrays(*unsealed).items()}
        header = {
            "index": self.kind,
            "metric": self.metric,
            "seed": self.seed,
            "target_recall": self.target_recall,
            "threshold": self.threshold,
            "expected_points": self.expected_points,
            "tables": self.tables,
            "K": self.K,
            "sketch_bits": self.sketch_bits,
            "scheme": self.scheme,
            "capacity": self.capacity,
            "dim": self.dim,
            "next_id": self._next_id,
            "segments": segments,
        }
        write_arrays(Path(path), header, arrays)

    @classmethod
    def load(cls, path: str | Path, *, verify: bool = True) -> FlinngIndex:
        """Map an index that :meth:`save` wrote.

        Args:
            path: the file; it must stay unchanged while the index is in use.
            verify: compare all checksums first.

        Raises:
            CorruptFileError: the file is damaged or of another kind.
        """
        header, arrays = read_arrays(Path(path), kind=cls.kind, verify=verify)
        parameters = (
            "target_recall", "threshold", "expected_points", "tables", "K", "sketch_bits",
            "scheme", "capacity",
        )  # fmt: skip
        with unusable_is_corrupt(path):
            return cls._from_file(header, arrays, {name: header[name] for name in parameters})

    @classmethod
    def _from_file(
        cls,
        header: dict[str, Any],
        arrays: dict[str, np.ndarray[Any, Any]],
        parameters: dict[str, Any],
    ) -> FlinngIndex:
        index = cls(header["metric"], header["seed"], **parameters)
        mutable = {
            n.removeprefix("mutable."): a for n, a in arrays.items() if n.startswith("mutable.")
        }
        if header["segments"] or mutable:
            index._restore(header, arrays)
        if mutable:
            index.add(_features_from(mutable), mutable["ids"])
        index._next_id = int(header["next_id"])
        return index

    def _restore(self, header: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        if self.metric == "jaccard":
            segments = self._lay_out(SetBatch(np.zeros(2, np.int64), np.zeros(0, np.uint64)))
        else:
            segments = self._lay_out(np.zeros((0, header["dim"]), np.float32))
        sealed = []
        for number, entry in enumerate(header["segments"]):
            prefix = f"{number}."
            own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            segment = Segment.of_arrays(own, entry["group_size"])
            self._check_segment(segment)
            sealed.append(Sealed(int(entry["chunks"]), segment))
        segments.restore(sealed)


    def _check_segment(self, segment: Segment) -> None:
        """Refuse a segment of a file that this index could not search."""
        tables = self.tables if segment.bitmaps is None else len(segment.bitmaps)
        dim = None if segment.vectors is None else segment.vectors.shape[1]
        bits = segment.sketches.shape[1] * 8
        if (tables, bits, dim) != (self.tables, self.sketch_bits, self.dim):
            raise ValueError("a segment does not fit the parameters of the index")


def _feature_arrays(ids: Int64Array, features: Batch) -> dict[str, np.ndarray[Any, Any]]:
    if isinstance(features, SetBatch):
        return {"ids": ids, "indptr": features.indptr, "elements": features.indices}
    return {"ids": ids, "vectors": features}


def _features_from(arrays: dict[str, np.ndarray[Any, Any]]) -> Batch:
    if "vectors" in arrays:
        return arrays["vectors"]
    return SetBatch(arrays["indptr"], arrays["elements"].astype(np.uint64))
