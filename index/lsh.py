"""LSH tables: near neighbours by shared buckets (Indyk, Motwani 1998; Gionis et al. 1999).

A key combines K hashes; each of m tables lists the points by their key. A query looks its m keys
up and takes every point that shares one: a neighbour of key probability s is among them with
probability 1 - (1 - s)^m. They are ranked by sketches, and the best of them exactly.

    text ─ features ─ set ─┬─ keys ─── buckets ── points, each once, in order ─┐
                           ├─ sketch ─────────────────────────── sketch scan ──┴─ best points ─┐
                           └─ elements ──────────────────────────────────── exact re-rank ── hits

Beside group tests (``flinng``) it reads far less where neighbours are few and near, and holds
several times the memory: a position in every table instead of a bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .engine import Metric
from .errors import InvalidInputError
from .minhash import MinHashFamily, Scheme
from .mutable_segment import MutableSegment
from .projection import SignedRandomProjection
from .segment import Segment
from .segmented import MIN_CANDIDATES, SegmentedIndex
from .segmented_points import DEFAULT_EXPECTED_POINTS, MAX_TABLES
from .selectors import Postings, Selector
from .tuning import (
    BACKGROUND,
    MAX_HASHES,
    Effort,
    PostingsPlan,
    PostingsShape,
    plan_postings,
    postings_bytes,
    postings_recall,
    postings_shape,
    postings_tables_for,
)

# Mutable segments are scanned, so they are small.
DEFAULT_CAPACITY = 8_192


def hash_probability(metric: Metric, similarity: Any) -> Any:
    """Probability that one hash, a MinHash value or a sign, agrees at this similarity."""
    if metric == "jaccard":
        return similarity
    return SignedRandomProjection.collision_probability(similarity)


class LshIndex(SegmentedIndex):
    """Near neighbours of sets (Jaccard) or vectors (cosine) at high similarity, by LSH tables.

    Args:
        metric: ``"jaccard"`` or ``"cosine"``.
        seed: of all hashes; equal seeds and points give equal answers.
        target_recall: share of neighbours at `threshold` that an answer should hold, .5 to .9999.
        threshold: least similarity of the neighbours that the index is laid out for; .5 for
            Jaccard and .8 for cosine unless given. Nearer ones are found more surely, farther
            ones less.
        expected_points: how many points the index is laid out for.
        tables: m; from the formulas of ``tuning`` unless given.
        K: hashes combined into a key, MinHash values or sign bits; chosen unless given, for points
            that are as much alike as URLs are (``fit_lsh`` measures it).
        sketch_bits: 128, 256 or 512.
        scheme: MinHash scheme; chosen by the size of the first set unless given.
        capacity: points of the mutable segment, which every query scans, before it is sealed.
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

    kind: ClassVar[str] = "lsh"
    selector_type: ClassVar[type[Selector]] = Postings
    least_tables: ClassVar[int] = 1
    kept_keys: ClassVar[type[np.unsignedinteger[Any]]] = np.uint32
    # What the tables found is not to be lost again: a look at all of them costs more than this.
    least_candidates: ClassVar[int] = 50

    def __init__(
        self,
        metric: Metric = "jaccard",
        seed: int = 0,
        *,
        target_recall: float = 0.95,
        threshold: float | None = None,
        expected_points: int = DEFAULT_EXPECTED_POINTS,
        tables: int | None = None,
        K: int | None = None,
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
        self.key_bits = -(-self.K // 8) * 8

    # --- parameters ------------------------------------------------------------------------------

    def _hash_limit(self) -> int:
        return MAX_HASHES[self.metric]

    def _hash_probability(self, similarity: float) -> float:
        return float(hash_probability(self.metric, similarity))

    def _plan(self, K: int | None, tables: int | None) -> tuple[int, int]:
        near = self._hash_probability(self.threshold)
        if K is not None and tables is not None:
            return K, tables
        if K is not None:
            return K, self._within_limit(postings_tables_for(near**K, self.target_recall))
        plan = self._cheapest(MAX_TABLES if tables is None else tables)
        return plan.K, self._within_limit(plan.tables if tables is None else tables)

    def _cheapest(self, most_tables: int) -> PostingsPlan:
        far = hash_probability(self.metric, BACKGROUND[self.metric])
        return plan_postings(
            self.expected_points,
            self._hash_probability(self.threshold),
            lambda K: far**K,
            self.target_recall,
            most_hashes=self._hash_limit(),
            most_tables=most_tables,
        )

    def _within_limit(self, tables: int) -> int:
        if tables <= MAX_TABLES:
            return tables
        raise InvalidInputError(
            f"neighbours at {self.metric} {self.threshold:g} are too far for LSH tables: "
            f"{tables:,} tables would be needed and {MAX_TABLES:,} are the most. Raise "
            'threshold, lower K or target_recall, or use index="flat"',
            field="threshold",
            limit=MAX_TABLES,
        )

    def _shape(self, points: int) -> PostingsShape | None:
        return postings_shape(points, self._key_length)

    @property
    def _key_length(self) -> int:
        return 32 if self.metric == "jaccard" else self.K

    def _key_probability(self, shape: PostingsShape) -> float:
        """s: probability that a neighbour at the threshold shares a bucket of one table."""
        if self.metric == "jaccard":
            return float(MinHashFamily.collision_probability(self.threshold, self.K))
        return self._hash_probability(self.threshold) ** min(self.K, shape.range_bits)

    def _effort_for(
        self,
        points: int,  # noqa: ARG002
        selector: Selector,
        target: float,
        k: int,
        sealed: bool,  # noqa: ARG002
    ) -> Effort:
        assert isinstance(selector, Postings)
        return Effort(self._least_breadth(selector, target), max(MIN_CANDIDATES, 4 * k))

    def _least_breadth(self, selector: Selector, target: float) -> int:
        """Tables that find neighbours at the threshold itself, not on average."""
        assert isinstance(selector, Postings)
        wanted = postings_tables_for(self._key_probability(selector.shape), target)
        return min(self.tables, wanted)

    def _recall_for(self, points: int, selector: Selector, breadth: int) -> float:  # noqa: ARG002
        assert isinstance(selector, Postings)
        return postings_recall(self._key_probability(selector.shape), breadth)

    # --- describing ------------------------------------------------------------------------------

    def explain(self) -> dict[str, Any]:
        """What the index chose and promises, in words and numbers.

        ``predicted_bytes_per_point`` is for one segment of the expected points, without features;
        ``expected_candidates`` what a query like the stored points meets in the tables there are.
        """
        postings = postings_bytes(self.expected_points, self.tables, self._key_length)
        choices = self._explain_choices()
        return choices | {
            "predicted_bytes_per_point": round(
                postings + self.sketch_bits / 8 + self._fixed_bytes(), 1
            ),
            "expected_candidates": round(
                sum(segment["expected_candidates"] for segment in choices["segments"])
            ),
            "why": (
                f"a neighbour of {self.metric} similarity {self.threshold:g} shares a key of "
                f"{self.K} hashes in one of {self.tables} tables; {self._ordered_by} the best of "
                "those that do, as many as each segment needs"
            ),
        }

    def _explain_segment(self, segment: Segment | MutableSegment) -> dict[str, Any]:
        effort = self._effort(segment, self.target_recall, 10)
        postings = segment.selector if isinstance(segment.selector, Postings) else None
        return super()._explain_segment(segment) | {
            "range_bits": postings.shape.range_bits if postings else None,
            "tables": effort.breadth if postings else None,
            "expected_candidates": float(len(segment))
            if postings is None
            else postings.scanned(effort.breadth, len(segment)),
        }
