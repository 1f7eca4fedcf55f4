"""The paper's transforms, formulas and structure, against their identities."""

from __future__ import annotations

import numpy as np
import pytest
from closeby.index import InvalidInputError
from closeby.index import maxip_paper as paper
from hypothesis import given
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)
dims = st.integers(1, 12)


@given(dims, seeds)
def test_gap_is_an_inner_product(dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, g, atoms = rng.standard_normal(dim), rng.standard_normal(dim), rng.standard_normal((5, dim))
    got = paper.gap_points(atoms) @ paper.gap_query(w, g)
    np.testing.assert_allclose(got, (w - atoms) @ g, atol=1e-9)
    if abs(g).max() > 1e-3:
        hull = np.vstack([atoms, w])  # w itself is in the hull: the best gap is not negative
        assert (paper.gap_points(hull) @ paper.gap_query(w, g)).max() >= -1e-9


@given(dims, seeds, st.floats(1, 9))
def test_sphere_lift_has_unit_norms_and_scales_inner_products(
    dim: int, seed: int, slack: float
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal(dim), rng.standard_normal((6, dim))
    dx, dy = slack * np.linalg.norm(x), slack * np.linalg.norm(y, axis=1).max()
    lifted_x, lifted_y = paper.sphere_query(x, dx), paper.sphere_points(y, dy)
    assert lifted_x.shape == (dim + 2,)
    np.testing.assert_allclose(np.linalg.norm(lifted_x), 1)
    np.testing.assert_allclose(np.linalg.norm(lifted_y, axis=1), 1)
    np.testing.assert_allclose(lifted_y @ lifted_x, y @ x / (dx * dy), atol=1e-12)


def test_composition_has_three_dimensions_more_and_keeps_the_order() -> None:
    rng = np.random.default_rng(0)
    atoms, w, g = rng.standard_normal((50, 8)), rng.standard_normal(8), rng.standard_normal(8)
    query, points = paper.gap_query(w, g), paper.gap_points(atoms)
    lifted_query = paper.sphere_query(query, float(np.linalg.norm(query)))
    lifted = paper.sphere_points(points, float(np.linalg.norm(points, axis=1).max()))
    assert lifted.shape == (50, 8 + 3)
    np.testing.assert_array_equal(np.argsort(lifted @ lifted_query), np.argsort((w - atoms) @ g))


@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_both_forms_of_rho_agree(c: float, tau: float) -> None:
    factor = paper.ann_factor(c, tau)
    assert factor > 1
    assert paper.rho(c, tau) == pytest.approx(2 / factor**2 - 1 / factor**4)
    assert 0 < paper.rho(c, tau) < 1
    # Hyperplanes may beat this exponent: it is of spherical caps without dependence on the radius.
    assert 0 < paper.hyperplane_rho(c, tau) < 1


def test_rho_falls_with_the_promise() -> None:
    assert paper.rho(0.5, 0.9) < paper.rho(0.8, 0.9) < paper.rho(0.99, 0.9)
    assert paper.rho(0.8, 0.9) < paper.rho(0.8, 0.5) < paper.rho(0.8, 0.1)


@given(st.integers(1, 20), st.floats(1e-3, 2), seeds)
def test_lattice_error(dim: int, cell: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, point = rng.standard_normal(dim), rng.standard_normal(dim)
    point /= np.linalg.norm(point)
    snapped = paper.quantise(query, cell)
    assert abs((snapped - query) @ point) <= cell / 2 + 1e-9
    np.testing.assert_allclose(paper.quantise(snapped, cell), snapped)


def planted(n: int, tau: float, seed: int, dim: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Random unit points with one at inner product τ from the query."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n, dim))
    query = rng.standard_normal(dim)
    query /= np.linalg.norm(query)
    side = rng.standard_normal(dim)
    side -= (side @ query) * query
    points[0] = tau * query + np.sqrt(1 - tau**2) * side / np.linalg.norm(side)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), query


@pytest.mark.parametrize("cell", [None, 0.1])
def test_promise_is_kept(cell: float | None) -> None:
    kept = 0
    for seed in range(24):
        points, query = planted(1000, 0.8, seed)
        answer = paper.PaperMaxIP(points, 0.7, 0.8, seed, bands=1, cell=cell).query(query)
        best = float((points @ query).max())
        kept += answer.score >= 0.7 * best
        assert np.isnan(answer.score) or answer.score <= best + 1e-5
    assert kept >= 0.75 * 24


def test_compared_points_grow_slower_than_n() -> None:
    compared = []
    for n in (400, 3200):
        answers = []
        for seed in range(6):
            points, query = planted(n, 0.8, seed)
            answers.append(paper.PaperMaxIP(points, 0.6, 0.8, seed, bands=1).query(query).compared)
        compared.append(np.mean(answers))
    assert np.log(compared[1] / compared[0]) / np.log(8) < 0.85


def test_the_promise_holds_band_by_band() -> None:
    """A point that is τ-near within its band is found, or one of c times its score."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((3000, 16)) * rng.lognormal(0, 1, (3000, 1))
    kept = []
    for seed in range(20):
        query = points[rng.integers(3000)] + 0.1 * rng.standard_normal(16)
        query /= np.linalg.norm(query)
        structure = paper.PaperMaxIP(points, 0.8, 0.6, seed)
        promised = [
            float((points[band.ids] @ query).max())
            for band in structure._bands
            if (points[band.ids] @ query).max() >= 0.6 * band.longest
        ]
        if promised:
            answer = structure.query(query)
            kept.append(answer.score >= 0.8 * max(promised) - 1e-6)
            assert answer.compared < 3000
    assert len(kept) >= 10
    assert np.mean(kept) >= 0.75


def test_wrong_input() -> None:
    with pytest.raises(InvalidInputError):
        paper.rho(1.0, 0.5)
    with pytest.raises(InvalidInputError):
        paper.sphere_query([3.0, 4.0], 4.9)
    with pytest.raises(InvalidInputError):
        paper.sphere_points([[0.0]], 0.0)
    with pytest.raises(InvalidInputError):
        paper.quantise([1.0], 0.0)
    with pytest.raises(InvalidInputError):
        paper.PaperMaxIP(np.zeros((0, 3)))
    one = paper.PaperMaxIP([[1.0, 2.0]])
    with pytest.raises(InvalidInputError, match="no direction"):
        one.query([0.0, 0.0])
    with pytest.raises(InvalidInputError):
        one.query([np.nan, 0.0])
    assert one.query([1.0, 2.0]).id == 0
    assert paper.PaperMaxIP(np.zeros((4, 2))).query([1.0, 0.0]).id in {-1, 0, 1, 2, 3}
    assert paper.normalised_best(np.float32([[3, 4]]), [6, 8]) == pytest.approx(1.0)
