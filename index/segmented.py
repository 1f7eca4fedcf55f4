"""How engines over segments are asked: queries hashed once for all segments, and how far they look.

An engine chooses its parameters and says which selectors its segments have (group tests, or LSH
tables), how far a query looks for a wanted recall, and what it expects of that; the rest is here.
"""

from __future__ import annotations

from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from . import _native
from .advice import NUMBER_BYTES, Evidence, advise
from .batches import Batch, FloatArray, Int64Array
from .engine import check_k, smallest_hit
from .files import bytes_of
from .mutable_segment import MutableSegment
from .recall_sample import LEAST_NEIGHBOURS, LEAST_POINTS, WANTED, RecallSample
from .segment import HASH_BLOCK, Segment
from .segmented_points import SegmentedPoints
from .segments import part
from .selectors import Selector
from .topk import merge_topk
from .tuning import SCAN_COST, Effort, check_target, rerank_ns
from .views import HashedQueries

MIN_CANDIDATES = 100
# Where a sample met hardly any neighbours: then a neighbour is among the first by its sketch.
ALONE_CANDIDATES = 32
# An id, and the mark of a removed point.
ID_BYTES = 8.125
# Outlooks remembered for a segment, by recall and number of hits wanted.
MAX_OUTLOOKS = 256
# Threads help with the cells of a query that is expected to take so many ns without them: to wake
# a thread takes some tens of microseconds, on a busy machine a hundred.
SHARED_FROM_NS = 500_000


class SegmentedIndex(SegmentedPoints):
    """Near neighbours of sets (Jaccard) or vectors (cosine), their points in segments.

    Args: see the engines.

    Attributes:
        least_candidates: that are compared for ten hits, though a sample found enough with fewer.
    """

    least_candidates: ClassVar[int] = 1

    # --- what engines decide ---------------------------------------------------------------------

    @abstractmethod
    def _effort_for(
        self, points: int, selector: Selector, target: float, k: int, sealed: bool
    ) -> Effort:
        """How far a query looks in a segment of so many points for this recall."""

    @abstractmethod
    def _recall_for(self, points: int, selector: Selector, breadth: int) -> float:
        """Expected recall of a segment where a query looks so far."""

    @abstractmethod
    def explain(self) -> dict[str, Any]:
        """What the index chose and promises, in words and numbers."""

    # --- searching -------------------------------------------------------------------------------

    def hash(self, batch: Any) -> HashedQueries:
        """Queries with their hashes, as segments take them; needs at least one point added.

        Raises:
            InvalidInputError: unusable queries.
        """
        assert self._family is not None
        return HashedQueries.of(self.check(batch), self._family)

    def search(
        self,
        batch: Any,
        k: int,
        threshold: float | None = None,
        target_recall: float | None = None,
        *,
        threads: int = 1,
        rerank: bool = True,
    ) -> tuple[Int64Array, FloatArray]:
        """The k most similar points of each query, as far as the selectors find them.

        Args:
            batch: q sets, or float32 (q, dim).
            k: hits wanted for each query.
            threshold: least similarity of a hit.
            target_recall: looks farther or less far, for these queries.
            rerank: compare the best candidates exactly. Without it no features are read: scores are
                estimates of the sketches (512 bits: of a Jaccard similarity with a standard error
                of .04), and neighbours that they misplace are missed. So it is in any case where
                no features are kept.
            threads: how many to share the queries among, or the cells of each where queries are
                fewer and take long enough; answers do not depend on it.

        Returns:
            ids int64 (q, k) and similarities, exact with `rerank`, float32 (q, k) by falling score,
            then rising id; -1 and NaN after the last hit.

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
        search = partial(
            self._search_block,
            segments=segments,
            k=k,
            floor=floor,
            target=target,
            exact=rerank and self.keep_features,
        )
        if 2 * len(features) <= threads and self._expected_ns(segments, target, k) > SHARED_FROM_NS:
            with self._crew.team(threads - 1) as team:
                return search(features, team=team)
        size = max(1, min(HASH_BLOCK, -(-len(features) // max(1, threads))))
        if len(features) <= size:
            return search(features)
        blocks = [part(features, start, start + size) for start in range(0, len(features), size)]
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                answers = list(pool.map(search, blocks))
        else:
            answers = [search(block) for block in blocks]
        ids, scores = zip(*answers, strict=True)
        return np.concatenate(ids), np.concatenate(scores)

    def _search_block(
        self,
        features: Batch,
        segments: list[Segment | MutableSegment],
        k: int,
        floor: float,
        target: float,
        exact: bool,
        team: _native.Team | None = None,
    ) -> tuple[Int64Array, FloatArray]:
        assert self._family is not None
        queries = HashedQueries.of(features, self._family)
        parts = [
            (segment.search if exact else segment.estimate)(
                queries, self._effort(segment, target, k), k, floor, team
            )
            for segment in segments
        ]
        return merge_topk(parts, k)

    def _expected_ns(
        self, segments: list[Segment | MutableSegment], target: float, k: int
    ) -> float:
        """What the selection and the sketches of a query are expected to take, one thread."""
        total = 0.0
        for segment in segments:
            points, selector = len(segment), segment.selector
            if selector is None:
                total += points * SCAN_COST
            else:
                breadth = self._effort(segment, target, k).breadth
                total += selector.cost(breadth, points)
        return total

    def _effort(self, segment: Segment | MutableSegment, target: float, k: int) -> Effort:
        """How far a query looks in one segment for this recall."""
        if segment.selector is None:
            return Effort(1, max(MIN_CANDIDATES, 4 * k))
        return self._outlook(segment, segment.selector, target, k)[0]

    def _outlook(
        self, segment: Segment | MutableSegment, selector: Selector, target: float, k: int
    ) -> tuple[Effort, float]:
        """How far a query looks in one segment, and the recall that is expected of it."""
        sealed = isinstance(segment, Segment)
        # Not anew for each point that comes in: as if there were up to an eighth more.
        size = len(segment) if sealed else _rounded_up(len(segment))
        key = (size, target, k)
        outlook = segment.outlooks.get(key)
        if outlook is None:
            effort = self._new_effort(segment, selector, size, target, k)
            outlook = effort, self._recall_of(segment, selector, size, effort)
            if len(segment.outlooks) < MAX_OUTLOOKS:
                segment.outlooks[key] = outlook
        return outlook

    def _recall_of(
        self, segment: Segment | MutableSegment, selector: Selector, size: int, effort: Effort
    ) -> float:
        if not size:  # a writer is about to fill a new one
            return 1.0
        sample = self._sample_of(segment)
        if sample is None:
            return self._recall_for(size, selector, effort.breadth)
        breadth = round(effort.breadth / selector.widened(size / int(sample.points[0])))
        return sample.recall(self.threshold, breadth, effort.candidates)

    def _new_effort(
        self,
        segment: Segment | MutableSegment,
        selector: Selector,
        size: int,
        target: float,
        k: int,
    ) -> Effort:
        sample = self._sample_of(segment)
        if sample is None:
            sealed = isinstance(segment, Segment)
            effort = self._effort_for(size, selector, target, k, sealed)
            if segment.sample is not None:  # it has hardly any neighbours, so they have no rivals
                return replace(effort, candidates=max(ALONE_CANDIDATES, 4 * k))
            return effort
        asked = int(sample.points[0])
        element_bytes = segment.nbytes["features"] / max(1, len(segment))
        effort = sample.effort(
            self.threshold,
            target,
            lambda effort: selector.cost(effort.breadth, asked) + rerank_ns(effort, element_bytes),
        )
        breadth = round(effort.breadth * selector.widened(size / asked))
        breadth = max(breadth, self._least_breadth(selector, target))
        breadth += selector.per_hit * max(0, k - WANTED)
        candidates = max(effort.candidates, self.least_candidates)
        return Effort(breadth, candidates * max(k, WANTED) // WANTED)

    def _least_breadth(self, selector: Selector, target: float) -> int:  # noqa: ARG002
        """What a query looks at, though its segment's sample found enough with less."""
        return 1

    def _sample_of(self, segment: Segment | MutableSegment) -> RecallSample | None:
        """What points of the segment found, if there was enough to find."""
        sample = segment.sample
        if sample is None or sample.neighbours(self.threshold) < LEAST_NEIGHBOURS:
            return None
        return sample

    # --- describing ------------------------------------------------------------------------------

    def recall_estimate(self, target_recall: float | None = None) -> float:
        """Expected share of the neighbours at `threshold` that an answer holds."""
        target = self.target_recall if target_recall is None else check_target(target_recall)
        points = max(1, len(self))
        estimate = 0.0
        for segment in self._searchable():
            size = len(segment)
            share = (size - segment.removed) / points
            if segment.selector is None:
                estimate += share
                continue
            estimate += share * self._outlook(segment, segment.selector, target, WANTED)[1]
        return min(1.0, estimate) if len(self) else 1.0

    def _fixed_bytes(self) -> float:
        """Bytes of each expected point whatever the engine: its id and mark, and what was asked."""
        points = self.expected_points
        asked = points >= LEAST_POINTS and self._shape(points) is not None
        return ID_BYTES + (bytes_of(RecallSample.shapes(points)) / points if asked else 0.0)

    def _explain_choices(self) -> dict[str, Any]:
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
            "advice": self._advice(),
        }

    @property
    def _ordered_by(self) -> str:
        return "exact similarities order" if self.keep_features else "sketches order"

    def _advice(self) -> dict[str, str]:
        """Which engine suits the points, as far as they were asked."""
        nearest, most, scanned, points = [], 0.0, 0.0, 0
        for segment in self._searchable():
            size = len(segment)
            points += size
            if segment.sample is not None:
                nearest.append(segment.sample.scores)
            sample = self._sample_of(segment)
            most += size * (sample.most(self.threshold) if sample is not None else 1.0)
            breadth = self._effort(segment, self.target_recall, WANTED).breadth
            selector = segment.selector
            scanned += size if selector is None else selector.scanned(breadth, size)
        return advise(
            Evidence(
                self.kind,
                self.metric,
                self.threshold,
                self.target_recall,
                len(self),
                np.concatenate(nearest) if nearest else np.zeros((0, WANTED), np.float32),
                most / max(1, points),
                scanned / max(1, points),
                self.nbytes["features"] // NUMBER_BYTES if self.keep_features else None,
                self.dim is not None and not self.sparse,
                bool(self.sparse),
            )
        )

    def _explain_segment(self, segment: Segment | MutableSegment) -> dict[str, Any]:
        return {
            "points": len(segment),
            "removed": segment.removed,
            "sealed": isinstance(segment, Segment),
            "candidates": self._effort(segment, self.target_recall, 10).candidates,
            "neighbours_found": segment.sample.neighbours(self.threshold) if segment.sample else 0,
        }


def _rounded_up(size: int) -> int:
    """The least number that is not less and has four bits of its own, then zeros."""
    zeros = max(0, size.bit_length() - 4)
    return -(-size >> zeros) << zeros
