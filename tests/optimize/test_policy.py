"""Policy gradient against exact best actions, and input that cannot be used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from closeby.index import InvalidInputError, MaxIPIndex
from closeby.optimize import ObjectiveError, policy_gradient


def towards(states: np.ndarray, policies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q = -½ |π - state|²: concave, the gradient points from the policy to the state."""
    difference = states - policies
    return -0.5 * (difference**2).sum(axis=1), difference


def actions(n: int = 6_000, dim: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def test_an_index_reaches_what_all_actions_reach() -> None:
    rows = actions()
    states = 0.3 * np.random.default_rng(1).standard_normal((20, 12))
    index = MaxIPIndex()
    index.add(rows)
    exact = policy_gradient(towards, rows, states, 60)
    found = policy_gradient(towards, index, states, 60, certify="final")
    assert found.values.mean() >= exact.values.mean() - 0.01
    assert found.trace["objective"][-1] > found.trace["objective"][0]
    scores = towards(states, found.point)[1]
    gap = (scores @ rows.T).max(axis=1) - (scores * found.point).sum(axis=1)
    np.testing.assert_allclose(found.gap, gap, atol=1e-4)
    assert found.certified


def test_weights_make_the_policies() -> None:
    rows = actions(300)
    states = np.random.default_rng(1).standard_normal((5, 12))
    result = policy_gradient(towards, rows, states, 15)
    np.testing.assert_allclose(result.weights.sum(axis=1), 1)
    assert result.weights.min() >= 0
    rebuilt = np.einsum("st,std->sd", result.weights, rows[result.ids].astype(float))
    np.testing.assert_allclose(rebuilt, result.point, atol=1e-6)


def test_linear_rewards_lead_to_one_best_action() -> None:
    rows = actions(200)
    states = np.random.default_rng(2).standard_normal((7, 12))
    result = policy_gradient(
        lambda s, p: ((s * p).sum(axis=1), s), rows, states, 50, step=1.0, tol=1e-6
    )
    assert result.status == "converged"
    np.testing.assert_allclose(result.values, (states @ rows.T).max(axis=1), rtol=1e-5)


@pytest.mark.parametrize("indexed", [False, True])
def test_it_can_be_resumed(indexed: bool) -> None:
    rows = actions(500)
    given: Any = rows
    if indexed:
        given = MaxIPIndex()
        given.add(rows)
    states = np.random.default_rng(3).standard_normal((4, 12))
    whole = policy_gradient(towards, given, states, 30)
    half = policy_gradient(towards, given, states, 30, callback=lambda p: p.iteration == 11)
    assert half.status == "stopped"
    assert half.ids.shape == (4, 13)
    rest = policy_gradient(towards, given, states, 18, start=half)
    np.testing.assert_array_equal(rest.ids, whole.ids)
    np.testing.assert_array_equal(rest.weights, whole.weights)
    np.testing.assert_array_equal(rest.point, whole.point)
    np.testing.assert_array_equal(rest.trace["objective"], whole.trace["objective"])
    np.testing.assert_array_equal(rest.trace["atoms"], whole.trace["atoms"])
    assert policy_gradient(towards, given, states, 0, start=half).ids.shape == (4, 13)
    for wrong in (half.point, policy_gradient(towards, given, states[:3], 2)):
        with pytest.raises(InvalidInputError, match="start must be"):
            policy_gradient(towards, given, states, 5, start=wrong)  # type: ignore[arg-type]


def test_it_can_be_stopped() -> None:
    result = policy_gradient(
        towards, actions(50), np.ones((2, 12)), 40, callback=lambda p: p.iteration == 3
    )
    assert result.status == "stopped"
    assert len(result.trace) == 4


@pytest.mark.parametrize(
    "answer",
    [
        (np.zeros(2), np.zeros((2, 11))),
        (np.zeros(3), np.zeros((2, 12))),
        (np.zeros(2), np.full((2, 12), np.nan)),
        (np.full(2, np.inf), np.zeros((2, 12))),
    ],
)
def test_answers_that_cannot_be_used(answer: Any) -> None:
    with pytest.raises(ObjectiveError):
        policy_gradient(lambda s, p: answer, actions(50), np.ones((2, 12)))


@pytest.mark.parametrize(
    "bad",
    [
        {"actions": np.zeros((0, 3))},
        {"actions": MaxIPIndex()},
        {"states": []},
        {"step": 0.0},
        {"certify": "always"},
        {"max_iter": -1},
    ],
)
def test_wrong_input(bad: dict[str, Any]) -> None:
    arguments = {"actions": actions(20), "states": np.ones((2, 12))} | bad
    with pytest.raises(InvalidInputError):
        policy_gradient(towards, **arguments)
