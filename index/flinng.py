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

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from . import _native
from .calibration import Calibration
from .engine import Metric
from .errors import InvalidInputError
from .files import bytes_of
from .minhash import MinHashFamily, Scheme
from .mutable_segment import MutableSegment
from .projection import SignedRandomProjection
from .segment import Segment
from .segmented import MIN_CANDIDATES, SegmentedIndex
from .segmented_points import DEFAULT_EXPECTED_POINTS, MAX_TABLES
from .selectors import LEAST_CELLS, GroupTests, Selector
from .tuning import (
    COMPARED_COST,
    COMPARED_SHARE,
    ELEMENT_COST,
    FIXED_COST,
    VALUE_ELEMENT_COST,
    Effort,
    GroupShape,
    cells_for,
    group_bytes,
    group_shape,
    neighbour_similarities,
    query_us,
    recall_of,
    tables_for,
)

DEFAULT_CAPACITY = 65_536
# A sealed segment puts similar points into the same cells; in order of arrival each neighbour lies
# in a cell of its own, among others that resemble the query by chance.
MIN_CELLS, MIN_CELLS_AS_ARRIVED = 64, 192


class FlinngIndex(SegmentedIndex):
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
        settle: seal and merge within :meth:`add`; otherwise full mutable segments wait, searchable,
            until :meth:`next_merge` and :meth:`finish` are called.
        directory: keep sealed segments in files there, mapped, instead of in memory. The files go
            with the index; :meth:`save` is what keeps it.
        keep_features: False to keep hashes of the points alone, see :meth:`hashed`: scores are then
            estimates of the sketches, always.

    One thread may add and remove while any number of others search.

    Raises:
        InvalidInputError: a parameter out of range.
    """

    kind: ClassVar[str] = "flinng"
    selector_type: ClassVar[type[Selector]] = GroupTests
    least_tables: ClassVar[int] = 8
    # Bitmaps are addressed by the upper bits of a key, 14 at most.
    kept_keys: ClassVar[type[np.unsignedinteger[Any]]] = np.uint16

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
        settle: bool = True,
        directory: str | Path | None = None,
        keep_features: bool = True,
    ) -> None:
        super().__init__(
            metric,
            seed,
            target_recall=target_recall,
            threshold=threshold,
            expected_points=expected_points,
            tables=tables,
            K=K,
            sketch_bits=sketch_bits,
            scheme=scheme,
            capacity=capacity,
            settle=settle,
            directory=directory,
            keep_features=keep_features,
        )

    def _plan(self, K: int | None, tables: int | None) -> tuple[int, int]:
        self.K = 1 if K is None else K
        return self.K, self._tables() if tables is None else tables

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

    def _shape(self, points: int) -> GroupShape | None:
        return group_shape(points, self.tables)

    def _effort_for(
        self, points: int, selector: Selector, target: float, k: int, sealed: bool
    ) -> Effort:
        assert isinstance(selector, GroupTests)
        near = self._neighbour_probabilities(selector.shape)
        candidates = max(MIN_CANDIDATES, 4 * k)
        # The hits wanted must fit in, and neighbours compete with each other for cells.
        if selector.calibration is not None:
            cells = selector.calibration.breadth(near, self.tables, target)
            return Effort(cells + 2 * k, candidates)
        least = max(MIN_CELLS, 2 * k) if sealed else max(MIN_CELLS_AS_ARRIVED, 5 * k)
        cells = cells_for(points, selector.shape, self.tables, near[0], target)
        return Effort(max(least, cells), candidates)

    def _least_breadth(self, selector: Selector, target: float) -> int:  # noqa: ARG002
        """Fewer cells take no less time."""
        return LEAST_CELLS

    def _neighbour_probabilities(self, shape: GroupShape) -> list[float]:
        return [self._key_probability(x, shape) for x in neighbour_similarities(self.threshold)]

    def _recall_for(self, points: int, selector: Selector, breadth: int) -> float:
        assert isinstance(selector, GroupTests)
        near = self._neighbour_probabilities(selector.shape)
        if selector.calibration is not None:
            return selector.calibration.recall(near, self.tables, breadth)
        chances = [recall_of(points, selector.shape, self.tables, s, breadth) for s in near]
        return sum(chances) / len(chances)

    def explain(self) -> dict[str, Any]:
        """What the index chose and promises, in words and numbers."""
        per_point = group_bytes(self.expected_points, self.tables) + self.sketch_bits / 8
        if self._shape(self.expected_points) is not None:
            per_point += bytes_of(Calibration.shapes()) / self.expected_points
        return self._explain_choices() | {
            "predicted_bytes_per_point": round(per_point + self._fixed_bytes(), 1),
            "predicted_us": round(self._predicted_us(), 1),
            "why": (
                f"{self.tables} group tests find neighbours of {self.metric} similarity "
                f"{self.threshold:g} or more; {self._ordered_by} the best of them, as many as "
                "each segment needs"
            ),
        }

    def _predicted_us(self) -> float:
        """Expected time of a query for ten points that is one of many, without Python."""
        total = FIXED_COST / 1e3
        for segment in self._searchable():
            effort = self._effort(segment, self.target_recall, 10)
            shortlist = max(_native.SHORTLIST * effort.candidates, _native.LEAST_SHORTLIST)
            whole = GroupShape(max(1, len(segment)), 0)
            shape = segment.shape if isinstance(segment.shape, GroupShape) else whole
            tables = self.tables if shape is not whole else 0
            total += sum(query_us(len(segment), shape, tables, effort, shortlist))
            compared = min(len(segment), effort.candidates) * COMPARED_SHARE
            element_bytes = segment.nbytes["features"] / max(1, len(segment))
            total += compared * (COMPARED_COST + element_bytes / 4 * ELEMENT_COST) / 1e3
        if self.metric == "jaccard":
            sizes = [segment.nbytes["features"] / 4 for segment in self._searchable()]
            values = self.tables * self.K + self.sketch_bits
            total += sum(sizes) / max(1, len(self)) * values * VALUE_ELEMENT_COST / 1e3
        return total

    def _explain_segment(self, segment: Segment | MutableSegment) -> dict[str, Any]:
        shape = segment.shape if isinstance(segment.shape, GroupShape) else None
        effort = self._effort(segment, self.target_recall, 10)
        return super()._explain_segment(segment) | {
            "group_size": shape.group_size if shape else None,
            "range_bits": shape.range_bits if shape else None,
            "cells": effort.breadth if shape else None,
        }
