"""Herding against its definition, kernels, and input that cannot be used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from closeby.index import InvalidInputError, MaxIPIndex
from closeby.optimize import NearestSumIndex, RandomFourier, herding, random_discrepancy


def points(n: int = 500, dim: int = 8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, dim)) * rng.lognormal(0, 0.5, (n, 1))).astype(np.float32)


def slow_herding(
    rows: np.ndarray, m: int, target: np.ndarray, unique: bool, greedy: float
) -> list[int]:
    """The definition, in float64."""
    rows = rows.astype(np.float64)
    chosen: list[int] = []
    total = np.zeros(rows.shape[1])
    for t in range(m):
        scores = rows @ ((t + 1) * target - total) - greedy * (rows**2).sum(axis=1) / 2
        if unique:
            scores[chosen] = -np.inf
        chosen.append(int(scores.argmax()))
        total += rows[chosen[-1]]
    return chosen


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("criterion", ["greedy", "inner"])
def test_exact_herding_is_its_definition(unique: bool, criterion: Any) -> None:
    rows = points()
    target = rows.mean(axis=0, dtype=np.float64)
    result = herding(rows, 60, unique=unique, criterion=criterion)
    assert result.ids.tolist() == slow_herding(rows, 60, target, unique, criterion == "greedy")
    assert (len(set(result.ids.tolist())) == 60) or not unique
    means = np.cumsum(rows[result.ids].astype(float), axis=0) / np.arange(1, 61)[:, None]
    np.testing.assert_allclose(result.discrepancy, np.linalg.norm(means - target, axis=1))
    np.testing.assert_allclose(result.point, means[-1])
    assert result.weights.tolist() == [1 / 60] * 60


def test_relaxed_herding_counts_squares_less() -> None:
    rows = points()
    target = rows.mean(axis=0, dtype=np.float64)
    result = herding(rows, 60, relaxation=1.25)
    assert result.ids.tolist() == slow_herding(rows, 60, target, unique=True, greedy=0.8)
    subset = herding(rows, 60, relaxation=1.25, oracle="subset", subset=100_000)
    assert subset.ids.tolist() == result.ids.tolist()  # all points are among so many


def test_an_index_comes_close_to_exact_and_beats_random() -> None:
    rows = points(12_000, 16)
    index = MaxIPIndex()
    index.add(rows)
    exact, found = herding(rows, 300), herding(index, 300)
    assert len(set(found.ids.tolist())) == 300
    assert found.discrepancy[-1] <= 1.5 * exact.discrepancy[-1]
    rng = np.random.default_rng(0)
    random = np.linalg.norm(rows[rng.integers(12_000, size=300)].mean(axis=0) - rows.mean(axis=0))
    assert found.discrepancy[-1] < random / 4
    assert found.trace["atoms"][-1] < exact.trace["atoms"][-1] / 10


def test_greedy_choice_leaves_least_where_norms_vary() -> None:
    rng = np.random.default_rng(0)
    rows = points(12_000, 16) * rng.lognormal(0, 1.5, (12_000, 1)).astype(np.float32)
    inner = herding(rows, 300, criterion="inner").discrepancy[-1]
    exact = herding(rows, 300).discrepancy
    greedy = exact[-1]
    subset = herding(rows, 300, oracle="subset").discrepancy[-1]
    prepared = NearestSumIndex(rows)
    found = [herding(prepared, 300), herding(prepared, 300)]
    assert found[0].ids.tolist() == found[1].ids.tolist()  # choosing takes nothing out of it
    assert len(set(found[0].ids.tolist())) == 300
    assert greedy < inner / 10
    assert found[0].discrepancy[-1] < subset
    assert found[0].discrepancy[-1] < 1.5 * greedy
    # Single choices go up and down.
    assert found[0].discrepancy[-100:].mean() < 1.1 * exact[-100:].mean()
    relaxed = herding(prepared, 300, relaxation=1.5).discrepancy
    assert relaxed[-100:].mean() < 0.9 * exact[-100:].mean()
    with pytest.raises(InvalidInputError, match="greedy"):
        herding(prepared, 3, criterion="inner")


def test_a_huge_point_can_be_indexed() -> None:
    rows = points(3_000, 6)
    rows[17] *= 1e16
    result = herding(rows, 20, target=np.zeros(6), oracle="ladder")
    assert 17 not in result.ids
    assert result.discrepancy[-1] < 5


def test_random_choice_is_as_far_off_as_statistics_say() -> None:
    rows = points(5_000, 6).astype(np.float64)
    found = random_discrepancy(rows, 4_500, draws=30)
    assert found.shape == (4_500,)
    spread = float(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())
    for m in (1, 100, 4_100, 4_500):
        # Of sampling without repeats; the mean distance is a little below its root mean square.
        expected = (spread / m * (5_000 - m) / 4_999) ** 0.5
        assert 0.7 * expected < found[m - 1] < 1.15 * expected
    assert found.tolist() == random_discrepancy(rows, 4_500, draws=30).tolist()
    assert len(random_discrepancy(rows[:3], 9, rows[0], unique=False)) == 9
    with pytest.raises(InvalidInputError, match="m must be from 1 to 3"):
        random_discrepancy(rows[:3], 4)


def test_all_points_can_be_chosen() -> None:
    rows = points(40, 3)
    index = MaxIPIndex(capacity=8)
    index.add(rows, ids=np.arange(100, 140))
    result = herding(index, 40)
    assert sorted(result.ids.tolist()) == list(range(100, 140))
    assert result.discrepancy[-1] < 1e-5


def test_a_target_of_ones_own() -> None:
    rows = points()
    target = rows[7].astype(float)
    result = herding(rows, 5, target=target, unique=False)
    assert (
        result.discrepancy.min() < np.linalg.norm(rows - target, axis=1)[np.arange(500) != 7].min()
    )


def test_fourier_features_approximate_the_gaussian_kernel() -> None:
    rows = points(60, 4)
    features = RandomFourier(bandwidth=2.0, features=20_000)(rows)
    squares = ((rows[:, None] - rows[None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(features @ features.T, np.exp(-squares / 8), atol=0.05)


def test_kernel_herding_matches_spread_where_the_mean_does_not() -> None:
    rng = np.random.default_rng(0)
    rows = np.vstack([rng.normal(-3, 0.3, (300, 1)), rng.normal(3, 0.3, (300, 1))])
    chosen = herding(rows, 20, kernel=RandomFourier(bandwidth=1.0, features=400)).ids
    assert 7 <= (chosen < 300).sum() <= 13
    assert rows[chosen].std() == pytest.approx(rows.std(), rel=0.25)


def test_stopped_and_resumed_is_the_same_as_at_once() -> None:
    rows = points()
    first = herding(rows, 50, callback=lambda p: p.iteration == 19)
    assert first.status == "stopped"
    assert len(first.ids) == 20
    second = herding(rows, 50, start=first)
    at_once = herding(rows, 50)
    assert second.ids.tolist() == at_once.ids.tolist()
    np.testing.assert_allclose(second.discrepancy, at_once.discrepancy)
    assert len(second.trace) == 50


def test_random_subsets_and_built_indexes_work_too() -> None:
    rows = points(9_000)
    for oracle in ("subset", "ladder"):
        result = herding(rows, 100, oracle=oracle)
        assert len(set(result.ids.tolist())) == 100
        assert result.discrepancy[-1] < 0.1


@pytest.mark.parametrize("rows", [np.ones((1, 3)), np.ones((9, 3)), np.zeros((9, 3))])
def test_equal_points(rows: np.ndarray) -> None:
    result = herding(rows, len(rows))
    assert sorted(result.ids.tolist()) == list(range(len(rows)))
    np.testing.assert_allclose(result.discrepancy, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "arguments"),
    [
        (np.zeros((0, 2)), {}),
        ([[np.nan, 1.0]], {}),
        (MaxIPIndex(), {}),
        (np.eye(3), {"m": 0}),
        (np.eye(3), {"m": 4}),
        (np.eye(3), {"target": [1.0, 2.0]}),
        (np.eye(3), {"target": [1.0, 2.0, np.nan]}),
        (np.eye(3), {"oracle": "magic"}),
        (np.eye(3), {"criterion": "magic"}),
        (np.eye(3), {"relaxation": 2.0}),
        (np.eye(3), {"relaxation": 0.9}),
        (np.eye(3), {"relaxation": float("nan")}),
        (np.eye(3), {"relaxation": "1.5"}),
        (np.eye(3), {"kernel": RandomFourier(bandwidth=-1.0)}),
    ],
)
def test_wrong_input(rows: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        herding(rows, **({"m": 1} | arguments))
