"""What a segment's points find of their neighbours: against counting, and against new queries."""

from __future__ import annotations

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
    WANTED,
    RecallSample,
    asked_of,
)
from closeby.index.tuning import Effort


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


def test_first_rungs_and_recall_are_those_of_counting() -> None:
    """Neighbour j of query i is found with breadth 1 + (i + j) % 40, or never where that is 0."""
    sample = RecallSample.empty(LEAST_POINTS)
    asked = asked_of(LEAST_POINTS)
    scores = np.tile(np.linspace(0.95, 0.5, WANTED, dtype=np.float32), (asked, 1))
    truth = np.arange(asked)[:, None] * 100 + np.arange(WANTED)
    needs = (np.arange(asked)[:, None] + np.arange(WANTED)) % 41
    ladder = np.array([1, 2, 4, 8, 16, 32, 64])
    wrong: list[int] = []

    def everything(queries: Rows, effort: Effort, k: int) -> Any:
        return truth[queries.rows], scores[queries.rows]

    def selected(queries: Rows, effort: Effort, k: int) -> Any:
        here = (needs[queries.rows] > 0) & (needs[queries.rows] <= effort.breadth)
        here |= (needs[queries.rows] == 0) & (effort.candidates == LEVELS[-1])
        wrong.append(int((~here).sum()))
        found = np.where(here, truth[queries.rows], -1)
        return found, np.where(here, scores[queries.rows], np.float32("nan"))

    sample.ask(Rows(np.arange(asked)), everything, selected, ladder, 5_000, 0.6)
    near = scores >= 0.6
    for candidates, extra in zip(LEVELS, (False, True), strict=True):
        for breadth in ladder.tolist():
            found = ((needs > 0) & (needs <= breadth)) | (extra & (needs == 0))
            expected = found[near].mean()
            assert sample.recall(0.6, breadth, candidates) == pytest.approx(expected)
    assert (sample.rungs[:, ~near] == MISSED).all()  # nobody asked for those
    assert sample.neighbours(0.6) == near.sum()
    effort = sample.effort(0.6, 0.5, lambda effort: effort.breadth + effort.candidates)
    assert effort.candidates == LEVELS[0]
    assert 16 < effort.breadth < 32
    # More than the first level has: the second is taken, whatever it costs.
    assert sample.effort(0.6, 0.999, lambda effort: effort.breadth).candidates == LEVELS[1]


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
    segment.efforts.clear()
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
