"""What a segment's points find of their neighbours: against counting, and against new queries."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.index import FlatIndex, FlinngIndex, LshIndex, SetBatch, as_set_batch
from closeby.index.mutable_segment import SAMPLE_FROM
from closeby.index.recall_sample import (
    LEAST_POINTS,
    LEVELS,
    MISSED,
    NOWHERE,
    WANTED,
    RecallSample,
    asked_of,
)
from closeby.index.selectors import Postings
from closeby.index.tuning import Effort, PostingsShape


def families(count: int, seed: int = 0, *, of: int | None = None) -> SetBatch:
    """Sets of 40 elements in families of eight, whose members keep .6 to 1 of what they share.

    of: number of points whose families these belong to, in turns; of so many sets unless given.
    """
    random = np.random.default_rng(seed)
    all_families = (count if of is None else of) // 8 + 1
    common = np.random.default_rng(7).integers(0, 1 << 40, (all_families, 40))
    family = np.arange(count) // 8 if of is None else random.integers(0, of // 8, count)
    kept = random.random((count, 40)) < random.uniform(0.6, 1, (count, 1))
    return as_set_batch(
        list(np.where(kept, common[family], random.integers(0, 1 << 40, (count, 40))))
    )


class Rows:
    """Queries that are only numbered."""

    def __init__(self, rows: Any) -> None:
        self.rows = np.asarray(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Any) -> Rows:
        return Rows(self.rows[rows])


class Known:
    """A segment of which it is known how far its points are for each query.

    Neighbour j of query i is found with the breadth 1 + (i + j) % 40, never where that is 1, and on
    level j % 6 or higher.
    """

    points = 5_000

    def __init__(self) -> None:
        asked = asked_of(LEAST_POINTS)
        row, column = np.arange(asked)[:, None], np.arange(WANTED)
        self.places = row * 100 + column
        self.scores = np.tile(np.linspace(0.95, 0.5, WANTED, dtype=np.float32), (asked, 1))
        self.breadths = np.where((row + column) % 40, 1 + (row + column) % 40, NOWHERE)
        self.levels = np.broadcast_to(column % len(LEVELS), (asked, WANTED))
        self.looked_everywhere = False

    def everything(self, queries: Rows, effort: Effort, floor: float) -> Any:
        self.looked_everywhere = True
        return self.places[queries.rows], self.scores[queries.rows]

    def selected(self, queries: Rows, effort: Effort, floor: float) -> Any:
        here = self.breadths[queries.rows] <= effort.breadth
        here &= np.array(LEVELS)[self.levels[queries.rows]] <= effort.candidates
        places = np.where(here, self.places[queries.rows], -1)
        return places, np.where(here, self.scores[queries.rows], np.float32("nan"))

    def reach(self, queries: Rows, places: Any) -> Any:
        return np.where(places >= 0, self.breadths[queries.rows], NOWHERE).astype(np.uint32)

    def scanned(self, breadth: int) -> float:
        return 16.0 * breadth


def test_recall_and_effort_are_those_of_counting() -> None:
    sample, known = RecallSample.empty(LEAST_POINTS), Known()
    sample.ask(Rows(np.arange(len(known.places))), known, 0.6, broad=None, farthest=100)
    assert known.looked_everywhere
    near = known.scores >= 0.6
    assert sample.neighbours(0.6) == near.sum()
    assert (sample.levels[:, ~near] == MISSED).all()  # nobody asked for those
    for level, candidates in enumerate(LEVELS):
        for breadth in (1, 2, 10, 25, 33, 40, 99):
            found = (known.breadths <= breadth) & (known.levels <= level)
            expected = found[near].mean()
            assert sample.recall(0.6, breadth, candidates) == pytest.approx(expected)
            assert sample.recall(0.6, breadth, candidates + 1) == pytest.approx(expected)
    assert sample.most(0.6) == pytest.approx((known.breadths[near] < NOWHERE).mean())

    def cost(effort: Effort) -> float:
        return effort.breadth + effort.candidates

    for target in (0.3, 0.6, 0.8):
        effort = sample.effort(0.6, target, cost)
        reached = sample.recall(0.6, effort.breadth, effort.candidates)
        assert target < reached < target + 0.06
        cheaper = [
            Effort(breadth, candidates)
            for candidates in LEVELS
            for breadth in range(1, 41)
            if sample.recall(0.6, breadth, candidates) >= reached
        ]
        assert cost(effort) == min(map(cost, cheaper))
    most = sample.effort(0.6, 0.9999, cost)  # more than there is to be found: the most there is
    assert sample.recall(0.6, most.breadth, most.candidates) == pytest.approx(sample.most(0.6))


@pytest.mark.parametrize(("broad", "enough"), [(90, True), (60, False)])
def test_all_points_are_compared_where_neighbours_are_far_for_the_selector(
    broad: int, enough: bool
) -> None:
    """Of some neighbours the breadth is 40: more than half of 60, not of 90."""
    known = Known()
    known.levels = np.zeros_like(known.levels)
    sample = RecallSample.empty(LEAST_POINTS)
    sample.ask(Rows(np.arange(len(known.places))), known, 0.6, broad=broad, farthest=100)
    nowhere = known.breadths == NOWHERE
    assert known.looked_everywhere == (not enough) or nowhere.any()
    known.breadths = np.where(nowhere, 40, known.breadths)
    known.looked_everywhere = False
    sample.ask(Rows(np.arange(len(known.places))), known, 0.6, broad=broad, farthest=100)
    assert known.looked_everywhere != enough


def test_who_competes_for_candidates_depends_on_how_far_a_search_looks() -> None:
    """Found among 20 candidates by narrow searches, among 50 only by wide ones."""

    class Crowded(Known):
        def selected(self, queries: Rows, effort: Effort, floor: float) -> Any:
            self.levels = np.full_like(self.breadths, 0 if effort.breadth < 30 else 2)
            return super().selected(queries, effort, floor)

    sample, known = RecallSample.empty(LEAST_POINTS), Crowded()
    sample.ask(Rows(np.arange(len(known.places))), known, 0.5, broad=None, farthest=100)
    narrow, wide = (int(rung) for rung in sample.rungs)
    assert narrow < 30 < wide
    reached = (known.breadths <= narrow).mean()
    assert sample.recall(0.5, narrow, 20) == pytest.approx(reached)
    assert sample.recall(0.5, wide, 20) == 0
    assert sample.recall(0.5, wide, 50) == pytest.approx((known.breadths <= wide).mean())
    halfway = math.sqrt(narrow * wide)
    assert 0 < sample.recall(0.5, halfway, 20) < sample.recall(0.5, halfway, 50)


@pytest.mark.parametrize("tables", [8, 40])
def test_reach_of_lsh_tables_is_the_first_shared_bucket(tables: int) -> None:
    random = np.random.default_rng(2)
    stored = random.integers(0, 1 << 32, (500, tables), np.uint32)
    shape = PostingsShape(5)
    arrays = {
        name: np.zeros(size, kind)
        for name, (kind, size) in Postings.shapes(500, shape, tables).items()
    }
    postings = Postings(arrays["offsets"], arrays["positions"])
    postings.insert(stored, 0)
    postings.finish()
    keys = random.integers(0, 1 << 32, (20, tables), np.uint32)
    places = np.append(random.integers(0, 500, (20, 4)), [[-1]] * 20, axis=1)
    reach = postings.reach(keys, places, 500, lambda at: stored[at])
    for row in range(20):
        for column in range(5):
            place = places[row, column]
            shared = [t for t in range(tables) if keys[row, t] >> 27 == stored[place, t] >> 27]
            expected = shared[0] + 1 if shared and place >= 0 else NOWHERE
            assert reach[row, column] == expected


@pytest.mark.parametrize("engine", [FlinngIndex, LshIndex])
@pytest.mark.parametrize("sealed", [True, False])
def test_predicted_recall_is_that_of_new_queries(engine: Any, sealed: bool) -> None:
    points, queries = families(9_000), families(1_500, seed=1, of=9_000)
    exact, index = FlatIndex(), engine(capacity=1 << 20 if engine is FlinngIndex else 8_192)
    exact.add(points)
    index.add(points)
    if sealed:
        index.compact()
    _, truth = exact.search(queries, 10, threshold=0.5)
    wanted = (truth >= 0.5).sum(axis=1)
    for target in (0.8, 0.95, 0.99):
        _, scores = index.search(queries, 10, threshold=0.5, target_recall=target)
        found = (scores >= 0.5).sum() / wanted.sum()
        estimate = index.recall_estimate(target)
        assert found == pytest.approx(estimate, abs=0.02)
        assert found >= target - 0.01 or index.recall_estimate(0.9999) < target


@pytest.mark.parametrize("engine", [FlinngIndex, LshIndex])
def test_predicted_bytes_are_those_that_are_held(engine: Any) -> None:
    points = families(9_000)
    index = engine(expected_points=9_000)
    index.add(points)
    index.compact()
    held = sum(size for part, size in index.nbytes.items() if part != "features")
    told = index.explain()
    assert held / 9_000 == pytest.approx(told["predicted_bytes_per_point"], rel=0.02)


def test_a_mutable_segment_asks_at_the_same_sizes_whatever_the_batches() -> None:
    points = families(SAMPLE_FROM + 300)
    samples = []
    for step in (SAMPLE_FROM + 300, 1_000, 8_192):
        index = FlinngIndex()
        for start in range(0, len(points), step):
            index.add(points.slice(start, min(len(points), start + step)))
        sample = index._searchable()[0].sample
        assert sample is not None
        assert sample.points.tolist() == [SAMPLE_FROM]
        samples.append(sample)
    for sample in samples[1:]:
        for name, array in sample.arrays.items():
            np.testing.assert_array_equal(array, samples[0].arrays[name])


def test_files_keep_what_was_found_and_without_it_formulas_promise(tmp_path: Path) -> None:
    index = FlinngIndex()
    index.add(families(9_000))
    index.compact()
    index.save(tmp_path / "index")
    loaded = FlinngIndex.load(tmp_path / "index")
    assert loaded.recall_estimate(0.9) == index.recall_estimate(0.9)
    segment = index.sealed[0].segment
    segment.sample = None  # of a file that was written before there were samples
    segment.outlooks.clear()
    assert "recall_scores" not in segment.arrays
    assert 0.9 <= index.recall_estimate(0.9) <= 1


@pytest.mark.parametrize("engine", [FlinngIndex, LshIndex])
@pytest.mark.parametrize("sealed", [True, False])
def test_without_rerank_scores_are_those_of_the_sketches(engine: Any, sealed: bool) -> None:
    points = families(1_500)
    index = engine(capacity=4_000)
    index.add(points, np.arange(1_500)[::-1])
    if sealed:
        index.compact()
    queries = families(40, seed=3, of=1_500)
    ids, scores = index.search(queries, 5, rerank=False)
    keys = index.hash(queries)
    stored = index.hash(points)
    for row in range(40):
        differ = np.bitwise_count(stored.sketches ^ keys.sketches[row]).sum(axis=1)
        expected = np.clip(1 - 2 * differ / 512, 0, 1)
        here = ids[row] >= 0
        np.testing.assert_allclose(scores[row, here], expected[::-1][ids[row, here]], atol=1e-6)
        best = np.lexsort((np.arange(1_500), -expected[::-1]))[:3]
        if index._searchable()[0].selector is None:  # all sketches are scanned
            assert ids[row, :3].tolist() == best.tolist()
        assert (np.diff(scores[row, here]) <= 0).all()
    exact = index.search(queries, 5)[1]
    near = ~np.isnan(exact[:, 0])
    np.testing.assert_allclose(scores[near, 0], exact[near, 0], atol=0.2)
    assert (index.search([[]], 3, rerank=False)[0] == -1).all()
    assert (index.search(queries, 5, 0.9, rerank=False)[1] >= 0.9)[
        index.search(queries, 5, 0.9, rerank=False)[0] >= 0
    ].all()
