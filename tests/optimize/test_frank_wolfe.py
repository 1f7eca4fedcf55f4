"""Frank-Wolfe against exact solutions, the paper's bound, and input that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from closeby.index import InvalidInputError, MaxIPIndex
from closeby.optimize import FrankWolfeResult, ObjectiveError, frank_wolfe
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


def atoms_of(n: int = 200, dim: int = 10, seed: int = 0, tail: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    atoms = rng.standard_normal((n, dim)) * rng.lognormal(0, tail, (n, 1))
    return atoms.astype(np.float32).astype(np.float64)  # so that an index holds the same


def distance_to(target: np.ndarray) -> Objective:
    return lambda w: (0.5 * float((w - target) @ (w - target)), w - target)


def index_of(atoms: np.ndarray, capacity: int = 64) -> MaxIPIndex:
    index = MaxIPIndex(seed=3, capacity=capacity)
    index.add(atoms)
    return index


def nearest_in_hull(atoms: np.ndarray, target: np.ndarray) -> float:
    """½ squared distance to the hull, by nonnegative least squares with a heavy row of ones."""
    heavy = 1e4
    a = np.vstack([atoms.T, np.full(len(atoms), heavy)])
    weights, _ = nnls(a, np.append(target, heavy), maxiter=100_000)
    weights /= weights.sum()
    return 0.5 * float(((weights @ atoms - target) ** 2).sum())


def true_gap(atoms: np.ndarray, fun: Objective, point: np.ndarray) -> float:
    _, gradient = fun(point)
    return float(gradient @ point - (atoms @ gradient).min())


def assert_consistent(result: FrankWolfeResult, atoms: np.ndarray, fun: Objective) -> None:
    assert result.weights.min() > 0
    assert result.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(result.weights @ atoms[result.ids], result.point, atol=1e-8)
    assert result.objective == pytest.approx(fun(result.point)[0])
    assert (np.diff(result.ids) > 0).all()


@pytest.mark.parametrize("variant", ["fw", "pairwise", "bpcg"])
@pytest.mark.parametrize("oracle", [None, "exact"])
@pytest.mark.parametrize("kind", ["matrix", "float32", "index"])
def test_minimum_is_found_and_certified(variant: Any, oracle: Any, kind: str) -> None:
    atoms = atoms_of(tail=0.2)
    rng = np.random.default_rng(1)
    target = atoms[:20].T @ rng.dirichlet(np.ones(20)) + 0.3 * rng.standard_normal(10)
    fun = distance_to(target)
    chosen = {"matrix": atoms, "float32": atoms.astype(np.float32), "index": index_of(atoms)}[kind]
    result = frank_wolfe(fun, chosen, variant, tol=1e-4, max_iter=3000, oracle=oracle)
    assert result.status == "converged"
    assert result.certified
    assert_consistent(result, atoms, fun)
    minimum = nearest_in_hull(atoms, target)
    assert minimum - 1e-6 <= result.objective <= minimum + result.gap + 1e-6
    assert result.gap == pytest.approx(max(0, true_gap(atoms, fun, result.point)), abs=1e-9)
    assert result.bound <= minimum + 1e-6


@pytest.mark.parametrize("certify", ["final", "always"])
@pytest.mark.parametrize("max_iter", [0, 3, 40])
def test_the_gap_of_an_unfinished_run_is_true(certify: Any, max_iter: int) -> None:
    atoms = atoms_of(3_000, 16)
    fun = distance_to(np.full(16, 0.3))
    result = frank_wolfe(fun, index_of(atoms, 512), certify=certify, max_iter=max_iter, tol=1e-9)
    assert result.status == "max_iter"
    assert len(result.trace) == max_iter
    assert result.certified
    assert result.gap == pytest.approx(true_gap(atoms, fun, result.point), rel=1e-9, abs=1e-12)
    assert result.bound <= result.objective


def test_convergence_is_not_claimed_because_an_index_finds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The searches are made blind: they always answer the same useless atom."""
    from closeby.index import GapAnswer

    atoms = atoms_of(2_000, 8)
    index = index_of(atoms, 512)

    def blind(query: Any, base: float, need: float, *, turn: int = 0) -> GapAnswer:
        score = float(atoms[7] @ query)
        return GapAnswer(7, score, score - base, False, 1)

    monkeypatch.setattr(index, "search_gap", blind)
    fun = distance_to(2 * atoms[1900])
    for certify in ("final", "always"):
        result = frank_wolfe(fun, index, tol=1e-4, certify=certify, max_iter=2000)
        assert result.status == "converged"
        assert true_gap(atoms, fun, result.point) <= 1e-4 + 1e-9
    unproved = frank_wolfe(fun, index, tol=1e-4, certify="never", max_iter=2000)
    assert not unproved.certified


@pytest.mark.parametrize("step", ["paper", "classic", "search"])
@pytest.mark.parametrize("seed", range(4))
def test_the_papers_bound(step: Any, seed: int) -> None:
    """g(w_t) - g* ≤ 2 β D² / (c² (t + 1)), β = 1 here; with exact answers c = 1."""
    atoms = atoms_of(80, 6, seed)
    target = atoms[:5].mean(axis=0)
    diameter = max(np.linalg.norm(a - b) for a in atoms for b in atoms)
    result = frank_wolfe(distance_to(target), atoms, "fw", step, 200, 0.0, "never", oracle="exact")
    errors = result.trace["objective"]  # the minimum is 0
    bound = 2 * diameter**2 / (np.arange(len(errors)) + 1)
    assert (errors <= bound).all()
    assert errors[-1] < errors[0] / 10


def test_the_papers_bound_with_an_approximate_oracle() -> None:
    """Steps 2 / (c (t + 2)) with an oracle that gives only c times the best gap."""
    atoms = atoms_of(80, 6, 1)
    target = atoms[:5].mean(axis=0)
    fun, c = distance_to(target), 0.5
    diameter = max(np.linalg.norm(a - b) for a in atoms for b in atoms)
    w = atoms[0]
    for t in range(300):
        value, gradient = fun(w)
        assert value <= 2 * diameter**2 / (c**2 * (t + 1))
        gaps = (w - atoms) @ gradient
        good = np.flatnonzero(gaps >= c * gaps.max())
        worst = good[gaps[good].argmin()]
        w = w + min(1.0, 2 / (c * (t + 2))) * (atoms[worst] - w)


def test_signed_atoms_solve_least_squares_in_an_l1_ball() -> None:
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((300, 40)).astype(np.float32)
    target = 0.5 * atoms[3] - 0.3 * atoms[100]
    for kind in (atoms, index_of(atoms)):
        result = frank_wolfe(distance_to(target.astype(float)), kind, signed=True, tol=1e-8)
        assert result.status == "converged"
        assert np.abs(result.weights).sum() <= 1 + 1e-9
        large = {
            int(i): w for i, w in zip(result.ids, result.weights, strict=True) if abs(w) > 0.02
        }
        assert large == {3: pytest.approx(0.5, abs=0.02), 100: pytest.approx(-0.3, abs=0.02)}
        np.testing.assert_allclose(result.weights @ atoms[result.ids], result.point, atol=1e-5)


def test_an_objective_that_is_no_quadratic() -> None:
    atoms = np.abs(atoms_of(100, 5)) + 0.1
    counts = np.array([5.0, 1, 3, 2, 4])

    def likelihood(w: np.ndarray) -> tuple[float, np.ndarray]:
        return float(w.sum() - counts @ np.log(w)), 1 - counts / w

    result = frank_wolfe(likelihood, index_of(atoms), tol=1e-6, max_iter=5000)
    assert result.status == "converged"
    assert (likelihood(result.point)[1] @ (atoms - result.point).T).min() >= -1e-5


@given(
    n=st.integers(1, 12),
    dim=st.integers(1, 4),
    seed=st.integers(0, 999),
    signed=st.booleans(),
    variant=st.sampled_from(["fw", "pairwise", "bpcg"]),
)
def test_gaps_are_true_on_small_problems(
    n: int, dim: int, seed: int, signed: bool, variant: Any
) -> None:
    rng = np.random.default_rng(seed)
    atoms = rng.integers(-3, 4, (n, dim)).astype(float)
    target = rng.standard_normal(dim) * 3
    fun = distance_to(target)
    hull = np.vstack([atoms, -atoms]) if signed else atoms
    for given_atoms in (atoms, index_of(atoms, 4)):
        result = frank_wolfe(fun, given_atoms, variant, max_iter=60, tol=1e-9, signed=signed)
        gap = true_gap(hull, fun, result.point)
        assert result.gap == pytest.approx(max(gap, 0), abs=1e-6)
        assert result.bound <= result.objective + 1e-9
        assert np.isfinite(result.point).all()


# --- watching, stopping, going on ----------------------------------------------------------------


def test_trace_and_callback_tell_the_same() -> None:
    atoms = atoms_of()
    seen: list[Any] = []
    result = frank_wolfe(distance_to(np.zeros(10)), index_of(atoms), tol=1e-6, callback=seen.append)
    assert result.trace.steps == seen
    assert result.trace["objective"].tolist() == [step.objective for step in seen]
    assert (np.diff(result.trace["seconds"]) > 0).all()
    assert (np.diff(result.trace["atoms"]) >= 0).all()
    assert (np.diff(result.trace["objective"]) <= 1e-12).all()  # line search never climbs


def test_a_stopped_run_can_be_resumed() -> None:
    atoms = atoms_of(tail=0.8)
    fun = distance_to(atoms[:9].mean(axis=0))
    first = frank_wolfe(fun, atoms, tol=1e-8, callback=lambda p: p.iteration == 5)
    assert first.status == "stopped"
    assert len(first.trace) == 6
    second = frank_wolfe(fun, atoms, tol=1e-8, start=first)
    assert second.status == "converged"
    assert [step.iteration for step in second.trace.steps] == list(range(len(second.trace)))
    assert second.trace["objective"][6] == pytest.approx(first.objective)
    assert_consistent(second, atoms, fun)


def test_a_signed_run_can_be_resumed() -> None:
    atoms = atoms_of(50, 6)
    fun = distance_to(np.full(6, 0.1))
    first = frank_wolfe(fun, atoms, max_iter=4, signed=True)
    second = frank_wolfe(fun, atoms, max_iter=500, signed=True, start=first, tol=1e-7)
    assert second.objective <= first.objective + 1e-12
    assert second.status == "converged"


# --- odd and wrong input -------------------------------------------------------------------------


@pytest.mark.parametrize("atoms", [np.ones((1, 3)), np.ones((50, 3)), np.zeros((4, 3))])
@pytest.mark.parametrize("variant", ["fw", "pairwise", "bpcg"])
def test_a_hull_of_one_point(atoms: np.ndarray, variant: Any) -> None:
    for given_atoms in (atoms, index_of(atoms, 8)):
        result = frank_wolfe(distance_to(np.array([1.0, 2, 3])), given_atoms, variant)
        assert result.status == "converged"
        assert result.gap == 0
        np.testing.assert_allclose(result.point, atoms[0])


def test_one_huge_atom_among_small_ones() -> None:
    atoms = atoms_of(300, 6)
    atoms[17] *= 1e9
    target = atoms[:10].mean(axis=0)
    for given_atoms in (atoms, index_of(atoms)):
        result = frank_wolfe(distance_to(target), given_atoms, tol=1e-3, max_iter=5000)
        assert result.certified
        gap = true_gap(atoms.astype(np.float32).astype(float), distance_to(target), result.point)
        assert result.gap == pytest.approx(max(0, gap), rel=1e-3, abs=1e-2)


@pytest.mark.parametrize(
    "answer",
    [
        (0.0, np.ones(4)),
        (0.0, np.ones((1, 3))),
        (0.0, [np.nan, 0.0, 0.0]),
        (0.0, [np.inf, 0.0, 0.0]),
        (float("nan"), np.ones(3)),
    ],
)
def test_answers_of_the_objective_that_cannot_be_used(answer: Any) -> None:
    with pytest.raises(ObjectiveError) as error:
        frank_wolfe(lambda w: answer, np.eye(3))
    assert error.value.iteration == 0
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((0, 3)),
        np.zeros((3, 0)),
        np.zeros(3),
        [["a", "b"]],
        [[np.nan, 1.0]],
        [[np.inf, 1.0]],
        [[1e200, 1.0]],
        MaxIPIndex(),
    ],
)
def test_atoms_that_cannot_be_used(bad: Any) -> None:
    with pytest.raises(InvalidInputError):
        frank_wolfe(distance_to(np.zeros(2)), bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"variant": "away"},
        {"step": "newton"},
        {"step": "paper"},  # needs variant fw
        {"certify": "sometimes"},
        {"oracle": "magic"},
        {"max_iter": -1},
        {"tol": float("nan")},
        {"c": 0.0},
        {"variant": "fw", "step": lambda t: 2.0},
    ],
)
def test_parameters_that_cannot_be_used(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        frank_wolfe(distance_to(np.zeros(2)), np.eye(2), **bad)


def test_baseline_oracles() -> None:
    atoms = atoms_of(2_000, 8)
    fun = distance_to(atoms[:5].mean(axis=0))
    few = frank_wolfe(fun, atoms, "fw", oracle="subset", subset=50, max_iter=300, certify="never")
    assert len(few.trace) == 300
    assert few.objective < few.trace["objective"][0] / 5
    exact = frank_wolfe(fun, atoms, "fw", oracle="exact", max_iter=50, certify="never")
    lazy = frank_wolfe(fun, atoms, "fw", oracle="lazy", max_iter=50, certify="never")
    assert lazy.trace["atoms"][-1] < exact.trace["atoms"][-1]
