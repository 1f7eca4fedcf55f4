"""Where points lie, by id."""

import numpy as np
import pytest
from closeby.index.places import Places, rising


@pytest.mark.parametrize(
    "ids",
    [
        [],
        [7],
        [1, 2, 9],
        [9, 2, 9, 1, 2],
        [5, 5, 5],
        [-3, 2**62, 0, -3],
    ],
)
def test_rising_sorts_and_drops_repeats(ids: list[int]) -> None:
    given = np.array(ids, np.int64)
    np.testing.assert_array_equal(rising(given), np.unique(given))


@pytest.mark.parametrize("spread", [1, 50])
def test_every_id_is_found_where_it_is_and_no_other(spread: int) -> None:
    rng = np.random.default_rng(4)
    own = rng.permutation(np.arange(100, 400)) * spread
    places = Places(own)
    asked = np.arange(-10, 500 * spread + 10)
    found, here = places.find(asked)
    np.testing.assert_array_equal(here, np.isin(asked, own))
    np.testing.assert_array_equal(own[found[here]], asked[here])


@pytest.mark.parametrize("own", [[3, 9, 4], [5], []])
def test_among_leaves_out_only_what_cannot_be_here(own: list[int]) -> None:
    places = Places(np.array(own, np.int64))
    asked = np.array([-1, 0, 3, 4, 5, 8, 9, 10], np.int64)
    some = places.among(asked)
    assert set(own) & set(asked.tolist()) <= set(some.tolist())
    assert all(min(own) <= each <= max(own) for each in some.tolist())
