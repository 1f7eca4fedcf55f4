"""The formulas of the tuner against each other and against binomial cells by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from closeby.index import InvalidInputError
from closeby.index.tuning import (
    MAX_RANGE_BITS,
    SCAN_BELOW,
    TYPICAL_CELLS,
    GroupShape,
    cells_for,
    check_target,
    group_shape,
    recall_of,
    tables_for,
)
from hypothesis import given
from hypothesis import strategies as st

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)


def shape_of(points: int, tables: int) -> GroupShape:
    shape = group_shape(points, tables)
    assert shape is not None
    return shape


@given(
    st.integers(SCAN_BELOW, 10**8),
    st.integers(8, 1024),
    st.floats(0.05, 0.95),
    st.floats(0.5, 0.9999),
)
def test_so_many_cells_are_enough(points: int, tables: int, s: float, target: float) -> None:
    shape = shape_of(points, tables)
    cells = max(1, cells_for(points, shape, tables, s, target))
    assert recall_of(points, shape, tables, s, cells) >= target - 1e-9
    if cells > 2 and cells * shape.group_size < points:
        # And not many too many.
        assert recall_of(points, shape, tables, s, cells - 2) < target


def test_what_helps_and_what_hurts() -> None:
    """More cells, tables and similarity raise the recall; a higher target takes more cells."""
    for points in SIZES:
        shape = shape_of(points, 64)
        by_cells = [recall_of(points, shape, 64, 0.4, cells) for cells in (1, 4, 16, 64, 256)]
        by_s = [recall_of(points, shape, 64, s, 16) for s in (0.1, 0.2, 0.4, 0.8)]
        by_tables = [recall_of(points, shape, tables, 0.3, 16) for tables in (16, 32, 64, 128)]
        cells = [-cells_for(points, shape, 64, s, 0.95) for s in (0.2, 0.3, 0.4, 0.6)]
        targets = [cells_for(points, shape, 64, 0.3, t) for t in (0.5, 0.8, 0.95, 0.999)]
        for rising in (by_cells, by_s, by_tables, cells, targets):
            assert rising == sorted(rising)
            assert rising[0] < rising[-1]


def test_recall_stays_between_nothing_and_everything() -> None:
    shape = GroupShape(32, 7)
    for s, cells in itertools.product((0.0, 0.01, 0.5, 0.99, 1.0), (1, 10, 3125, 10**6)):
        assert 0 <= recall_of(100_000, shape, 64, s, cells) <= 1
    assert recall_of(100_000, shape, 64, 0.0, 3125) == 1
    assert recall_of(100_000, shape, 64, 1.0, 1) > 0.999


def test_groups_grow_with_the_root_of_the_points() -> None:
    assert group_shape(SCAN_BELOW - 1, 64) is None
    assert group_shape(0, 64) is None
    large, small = shape_of(64_000_000, 64), shape_of(1_000_000, 64)
    assert large.group_size / small.group_size == pytest.approx(8, rel=0.05)
    for points, tables in itertools.product(SIZES, (8, 64, 512, 1024)):
        shape = shape_of(points, tables)
        assert shape.group_size >= 8
        assert 1 <= shape.range_bits <= MAX_RANGE_BITS
        if shape.range_bits < MAX_RANGE_BITS:
            assert 0.17 < shape.load < 0.36  # a quarter, as far as powers of two allow
        assert shape.chance == pytest.approx(1 - math.exp(-shape.load))


def test_tables_for_a_target_give_it() -> None:
    for points, s, target in itertools.product(SIZES, (0.2, 0.3, 0.5, 0.8), (0.8, 0.95, 0.99)):
        tables = tables_for(points, s, target)
        assert tables % 8 == 0
        # Tables come in eights and range bits whole, so not exactly at the typical 64 cells.
        assert cells_for(points, shape_of(points, tables), tables, s, target) <= 3 * TYPICAL_CELLS
    assert tables_for(10**6, 0.2, 0.95) > tables_for(10**6, 0.5, 0.95)
    assert tables_for(10**6, 0.3, 0.99) > tables_for(10**6, 0.3, 0.8)
    assert tables_for(10**8, 0.3, 0.95) > tables_for(10**4, 0.3, 0.95)


@pytest.mark.parametrize(("tables", "s"), [(32, 0.5), (48, 0.3), (96, 0.25), (200, 0.15)])
@pytest.mark.parametrize("cells", [20, 64, 200])
def test_predicted_recall_is_that_of_binomial_cells(tables: int, s: float, cells: int) -> None:
    """One cell passes Binomial(m, q) tests, all others Binomial(m, f): is it among the best?"""
    points = 30_000
    shape = shape_of(points, tables)
    others = points // shape.group_size - 1
    f = shape.chance
    random = np.random.default_rng(7)
    trials = 1000
    counts = random.binomial(tables, f, (trials, others)).astype(np.uint8)
    counts = np.partition(counts, others - cells, axis=1)[:, -cells]
    ours = random.binomial(tables, s + (1 - s) * f, trials)
    # A tie is won half of the time: cells are taken by number.
    measured = np.mean((ours > counts) + 0.5 * (ours == counts))
    predicted = recall_of(points, shape, tables, s, cells)
    # The normal distribution stands for the binomial one: good to a few points of recall.
    assert predicted == pytest.approx(measured, abs=0.05)


@pytest.mark.parametrize("target", [0.49, 1.0, 1.5, -1, float("nan"), 0.99999])
def test_targets_out_of_range_are_refused(target: float) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_target(target)
    assert caught.value.field == "target_recall"


@pytest.mark.parametrize("target", ["high", None, [0.9]])
def test_targets_that_are_no_numbers_are_refused(target: object) -> None:
    with pytest.raises(InvalidInputError):
        check_target(target)  # type: ignore[arg-type]
