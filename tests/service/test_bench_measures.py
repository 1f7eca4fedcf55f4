"""Recall is counted properly: ties, repeated answers, own similarities."""

import numpy as np
import pytest
from closeby.index import SetBatch, as_set_batch
from closeby.service.bench.measures import pareto, recall, recalls, similarities

from benchmarks.truth import exact_neighbours

NAN = np.nan


def scores(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([0.9, 0.5], 1.0),  # either of the two tied ones
        ([0.5, 0.5], 0.5),  # both tied ones: one place only
        ([0.9, 0.4], 0.5),
        ([NAN, NAN], 0.0),
    ],
)
def test_ties_fill_no_more_places_than_there_are(answer: list[float], expected: float) -> None:
    truth = scores([0.9, 0.5, 0.5, 0.1])
    assert recall(truth, scores(answer), 2) == pytest.approx(expected)


def test_near_counts_near_neighbours_only() -> None:
    truth = scores([0.9, 0.6, 0.2], [0.3, 0.2, 0.1])
    assert recall(truth, scores([0.9, NAN], [NAN, NAN]), 3, near=0.5) == pytest.approx(0.5)


def test_no_neighbour_at_all_gives_no_number() -> None:
    assert np.isnan(recall(scores([NAN]), scores([NAN]), 1))


def test_far_is_what_is_left_of_the_ten() -> None:
    truth = np.full((1, 100), NAN, np.float32)
    truth[0, :4] = [0.9, 0.4, 0.2, 0.1]
    answers = np.full((1, 100), NAN, np.float32)
    answers[0, :3] = [0.9, 0.4, 0.1]
    measured = recalls("jaccard", truth, answers[:, :10], answers)
    assert measured["far"] == pytest.approx(0.5)
    assert measured["near"] == 1
    assert measured["R10@10"] == pytest.approx(0.75)


def test_similarities_are_counted_anew_and_an_id_counts_once() -> None:
    points = as_set_batch([[1, 2, 3, 4], [3, 4, 5, 6], [2**64 - 1]])
    queries = as_set_batch([[1, 2, 3], [2**64 - 1, 7]])
    found = similarities(points, queries, np.array([[1, 0, 1, -1], [2, -1, 0, 2]]))
    np.testing.assert_allclose(found, scores([1 / 6, 3 / 4, NAN, NAN], [1 / 2, NAN, 0, NAN]))


def test_truth_agrees_with_python_sets() -> None:
    rng = np.random.default_rng(3)
    rows = [set(rng.integers(0, 40, 12).tolist()) for _ in range(60)]
    points, queries = as_set_batch([*map(list, rows[:50])]), as_set_batch([*map(list, rows[50:])])
    assert isinstance(points, SetBatch)
    truth = exact_neighbours(points, queries, "jaccard")
    for query, found in zip(rows[50:], truth, strict=True):
        best = sorted((len(query & row) / len(query | row) for row in rows[:50]), reverse=True)
        shared = [score for score in best if score > 0]
        np.testing.assert_allclose(found[: len(shared)], shared, rtol=1e-6)
        assert np.isnan(found[len(shared) :]).all()


def test_pareto_front_keeps_what_no_other_beats() -> None:
    assert pareto([(0.5, 10), (0.9, 20), (0.8, 30), (0.9, 25), (0.4, 10)]) == [(0.5, 10), (0.9, 20)]
