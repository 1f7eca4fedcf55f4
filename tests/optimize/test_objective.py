"""Answers of the caller's functions and arguments that no solver can use, and huge numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from closeby.index import InvalidInputError, MaxIPIndex
from closeby.optimize import (
    ObjectiveError,
    RandomFourier,
    frank_wolfe,
    herding,
    policy_gradient,
)

ATOMS = np.random.default_rng(0).standard_normal((300, 6))


def index_of(atoms: np.ndarray) -> MaxIPIndex:
    index = MaxIPIndex(capacity=64)
    index.add(atoms)
    return index


def half_square(w: np.ndarray) -> tuple[float, np.ndarray]:
    return 0.5 * float(w @ w), w


def towards(states: Any, policies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return -0.5 * ((states - policies) ** 2).sum(axis=1), states - policies


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        1.0,
        (1.0,),
        (1.0, np.ones(6), 2),
        (1.0, None),
        (1.0, "abc"),
        (1.0, [[1], [2, 3]]),
        (1.0, np.ones(6) * 1j),
        (1.0, np.ones(5)),
        (1.0, np.full(6, 1e300)),
        (1.0, np.full(6, np.nan)),
        ("x", np.ones(6)),
        (None, np.ones(6)),
        (1j, np.ones(6)),
        (np.ones(1), np.ones(6)),
        (np.inf, np.ones(6)),
        (10**400, np.ones(6)),
    ],
)
def test_answers_that_cannot_be_used(wrong: Any) -> None:
    for atoms in (ATOMS, index_of(ATOMS)):
        with pytest.raises(ObjectiveError):
            frank_wolfe(lambda w: wrong, atoms)
        with pytest.raises(ObjectiveError):
            policy_gradient(lambda s, p: wrong, atoms, np.ones((6, 6)))


def test_an_answer_that_goes_bad_later_names_the_step() -> None:
    steps: list[int] = []

    def worsening(w: np.ndarray) -> tuple[float, np.ndarray]:
        steps.append(0)
        return (np.nan if len(steps) > 9 else 0.5 * float(w @ w)), w

    with pytest.raises(ObjectiveError) as error:
        frank_wolfe(worsening, ATOMS, tol=0)
    assert error.value.iteration == 2


def test_a_function_that_writes_into_its_argument_moves_nothing() -> None:
    def spoiling(w: np.ndarray) -> tuple[float, np.ndarray]:
        answer = 0.5 * float(w @ w), w.copy()
        w.fill(9.0)
        return answer

    spoiled = frank_wolfe(spoiling, ATOMS, max_iter=5, certify="never")
    honest = frank_wolfe(half_square, ATOMS, max_iter=5, certify="never")
    assert spoiled.point.tolist() == honest.point.tolist()


@pytest.mark.parametrize("size", [1e-150, 1e-30, 1e30, 1e99])
def test_gradients_of_any_size_lead_to_the_same_atom(size: float) -> None:
    slope = size * np.arange(1.0, 7.0)
    best = ATOMS[int((ATOMS @ -slope).argmax())]
    for atoms in (ATOMS, index_of(ATOMS)):
        found = frank_wolfe(lambda w: (float(slope @ w), slope), atoms, tol=0)
        np.testing.assert_allclose(found.point, best, rtol=1e-6)
        policy = policy_gradient(
            lambda s, p: (p @ -slope, np.tile(-slope, (len(s), 1))), atoms, [0, 1]
        )
        np.testing.assert_allclose(policy.point, [best, best], rtol=1e-6)


def test_one_action_far_longer_than_all_others() -> None:
    actions = ATOMS.copy()
    actions[17] *= 1e15
    for given in (actions, index_of(actions)):
        result = policy_gradient(towards, given, np.zeros((2, 6)), 5, certify="final")
        scores = towards(0, result.point)[1]
        gaps = (scores @ actions.T).max(axis=1) - (scores * result.point).sum(axis=1)
        np.testing.assert_allclose(result.gap, gaps, rtol=1e-5)


@pytest.mark.parametrize("rows", [np.ones((1, 6)), np.ones((90, 6)), np.zeros((90, 6))])
def test_equal_actions(rows: np.ndarray) -> None:
    for actions in (rows, index_of(rows)):
        result = policy_gradient(towards, actions, np.full((2, 6), 0.5), 4)
        np.testing.assert_array_equal(result.point, rows[:1].repeat(2, axis=0))
        assert result.gap.tolist() == [0, 0]


@pytest.mark.parametrize(
    "bad",
    [
        {"fun": None},
        {"max_iter": 1.5},
        {"max_iter": float("nan")},
        {"tol": "x"},
        {"tol": -1.0},
        {"c": "x"},
        {"subset": 0},
        {"subset": 2.5},
        {"seed": -1},
        {"start": 3},
        {"callback": 3},
        {"variant": "fw", "step": lambda t: "x"},
        {"variant": "fw", "step": lambda t: float("nan")},
    ],
)
def test_arguments_of_frank_wolfe(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        frank_wolfe(**({"fun": half_square, "atoms": ATOMS} | bad))


@pytest.mark.parametrize(
    "bad",
    [
        {"m": 1.5},
        {"m": float("nan")},
        {"m": "x"},
        {"subset": 0, "oracle": "subset"},
        {"seed": -1, "oracle": "ladder"},
        {"target": ["a"] * 6},
        {"target": [1e300] * 6},
        {"kernel": "rbf"},
        {"kernel": RandomFourier(features=1.5)},  # type: ignore[arg-type]
        {"start": 3},
        {"callback": 3},
    ],
)
def test_arguments_of_herding(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        herding(**({"features": ATOMS, "m": 5} | bad))


@pytest.mark.parametrize(
    "bad",
    [
        {"grad_q": None},
        {"states": None},
        {"states": 3},
        {"max_iter": 1.5},
        {"tol": float("nan")},
        {"step": "x"},
        {"step": float("nan")},
        {"step": lambda t: 2.0},
        {"step": lambda t: "x"},
        {"callback": 3},
    ],
)
def test_arguments_of_policy_gradient(bad: dict[str, Any]) -> None:
    given = {"grad_q": towards, "actions": ATOMS, "states": np.ones((2, 6))}
    with pytest.raises(InvalidInputError):
        policy_gradient(**(given | bad))
