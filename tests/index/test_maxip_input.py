"""Input that a MaxIP index cannot use, and numbers at the ends of their range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from closeby.index import InvalidInputError, MaxIPIndex

POINTS = np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32)


def index_of(points: np.ndarray, capacity: int = 64) -> MaxIPIndex:
    index = MaxIPIndex(capacity=capacity)
    index.add(points)
    return index


@pytest.mark.parametrize(
    "bad",
    [np.full(6, np.nan), np.full(6, np.inf), np.full(6, 1e30), np.full(6, 1e60), np.ones(5), None,
     ["a"] * 6, np.ones(6) * 1j, [None] * 6],
)  # fmt: skip
def test_queries(bad: Any) -> None:
    for index in (index_of(POINTS), index_of(POINTS, 4096)):
        with pytest.raises(InvalidInputError):
            index.search(np.reshape(bad, (1, -1)), 3)
        with pytest.raises(InvalidInputError):
            index.search_gap(bad, 0, 1)
        with pytest.raises(InvalidInputError):
            index.exact_best(bad)


@pytest.mark.parametrize(
    "bad",
    [{"seed": -1}, {"seed": "x"}, {"rotations": 1.5}, {"rotations": 0}, {"rotations": 99},
     {"capacity": float("nan")}, {"capacity": "x"}, {"capacity": 0}],
)  # fmt: skip
def test_parameters(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        MaxIPIndex(**bad)


@pytest.mark.parametrize("bad", ["x", 1.5, np.nan, [0.0, 1.0], None])
def test_ids_are_never_rounded(bad: Any) -> None:
    index = index_of(POINTS)
    for action in (index.remove, index.vectors):
        with pytest.raises(InvalidInputError, match="ids must be integers"):
            action(bad)
    assert len(index) == 300
    assert index.remove([]) == 0


def test_what_is_needed_of_a_gap_must_be_a_number() -> None:
    index = index_of(POINTS)
    for base, need in ((np.nan, 0.0), (0.0, np.nan)):
        with pytest.raises(InvalidInputError, match="base and need"):
            index.search_gap(POINTS[0], base, need)
    for call in (lambda: index.search(POINTS[:1], 1, turn=1.5),
                 lambda: index.search_gap(POINTS[0], 0, 0, turn=None)):  # fmt: skip
        with pytest.raises(InvalidInputError, match="turn"):
            call()


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e17])
def test_answers_do_not_depend_on_the_size_of_numbers(size: float) -> None:
    index = index_of(POINTS * np.float32(size))
    order = np.argsort(-(POINTS[:5].astype(float) @ POINTS.T), axis=1)[:, :3]
    np.testing.assert_array_equal(index.search(POINTS[:5], 3)[0], order)
    assert index.exact_best(POINTS[0])[0] == order[0, 0]


def test_one_huge_norm_hides_nothing() -> None:
    points = POINTS.copy()
    points[17] *= 1e17
    index = index_of(points)
    order = np.argsort(-(POINTS[:5].astype(float) @ points.T.astype(float)), axis=1)[:, :3]
    np.testing.assert_array_equal(index.search(POINTS[:5], 3)[0], order)


@pytest.mark.parametrize("capacity", [100, 10_000])  # sealed, and in the tail
@pytest.mark.parametrize("size", [1e-40, 1e-35, 1e-31])
def test_short_points_are_ranked_rightly(size: float, capacity: int) -> None:
    points = POINTS * np.float32(size)
    points[::7] = POINTS[::7]
    points[3] = 0
    index = MaxIPIndex(capacity=capacity)
    index.add(points)
    index.remove([10])
    wide = points.astype(np.float64)
    queries = -np.abs(POINTS[:5])  # of long points most have lower products than of short ones
    truth = (queries.astype(np.float64) @ wide.T).astype(np.float32)
    truth[:, 10] = -np.inf
    k = 250
    order = np.lexsort((np.broadcast_to(np.arange(len(points)), truth.shape), -truth), axis=1)
    ids, scores = index.search(queries, k, target_recall=0.9999)
    np.testing.assert_allclose(
        scores, np.take_along_axis(truth, order, 1)[:, :k], rtol=1e-4, atol=1e-44
    )
    short = np.abs(np.take_along_axis(truth, ids, 1)) < 1e-29
    assert short.any()
    np.testing.assert_array_equal(ids[short], order[:, :k][short])


@pytest.mark.parametrize("size", [1e-44, 1e-40, 1e-31])
def test_short_queries_are_answered_like_long_ones(size: float) -> None:
    index = index_of(POINTS)
    queries = POINTS[:5] * np.float32(size)
    ids, scores = index.search(queries, 3)
    truth = queries.astype(np.float64) @ POINTS.T.astype(np.float64)
    np.testing.assert_array_equal(ids, np.argsort(-truth, axis=1)[:, :3])
    np.testing.assert_allclose(scores, np.take_along_axis(truth, ids, 1), rtol=1e-4, atol=1e-44)
    gap = index.search_gap(queries[0], 0.0, 0.0)
    assert gap.id == ids[0, 0]
    np.testing.assert_allclose(gap.score, truth[0].max(), rtol=1e-4)
    mixed = np.vstack([queries, POINTS[:1], np.zeros_like(POINTS[:1])])
    threshold = float(scores[0, 1])
    kept, among = index.search(mixed, 3, threshold)
    assert kept[0].tolist() == [ids[0, 0], ids[0, 1], -1]
    assert np.isnan(among[0, 2])
    assert kept[5, 0] == index.search(POINTS[:1], 1)[0][0, 0]
