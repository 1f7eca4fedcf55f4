import itertools

import numpy as np
import pytest
from closeby.index import FlatIndex, LshIndex
from closeby.index.pilots import Held, call_us, merge_us, segment_sizes, try_engine


@pytest.mark.parametrize(
    ("points", "capacity", "sizes", "tail"),
    [
        (99, 100, [], 99),
        (100, 100, [100], 0),
        (799, 100, [400, 200, 100], 99),
        (1_650, 100, [1_600], 50),
    ],
)
def test_points_lie_in_segments_as_an_index_puts_them(points, capacity, sizes, tail):
    assert segment_sizes(points, capacity) == (sizes, tail)
    index = LshIndex("cosine", capacity=capacity)
    index.add(np.random.default_rng(0).standard_normal((points, 8)))
    told = index.explain()["segments"]
    assert [one["points"] for one in told if one["sealed"]] == sizes
    assert sum(one["points"] for one in told if not one["sealed"]) == tail


@pytest.fixture
def vectors():
    found = np.random.default_rng(1).standard_normal((300, 12)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def held_of(vectors, kept, floor):
    pool, queries = vectors[:260], vectors[260:]
    clock = itertools.count().__next__
    return Held.of(queries, queries @ pool.T, kept, floor, clock), pool


def test_an_exact_engine_finds_all(vectors):
    held, pool = held_of(vectors, 10, 0.5)
    pilot = try_engine(FlatIndex("cosine"), pool, held)
    assert (pilot.points, pilot.recall, pilot.recall_all) == (260, 1.0, 1.0)
    assert pilot.us == 1e6  # each call takes one tick of this clock
    assert 8 < pilot.bytes_per_point < 40
    assert call_us(FlatIndex("cosine"), pool, held) == 1e6
    assert merge_us(1, held.clock) == 0 < merge_us(2, held.clock)


def test_recall_counts_what_is_missing(vectors):
    """An engine over half of the pool finds the half of the neighbours that lies there."""
    held, pool = held_of(vectors, 10, -1.0)
    half = FlatIndex("cosine")
    half.add(pool[::2])
    recall, all_ten = held.recall(half)
    assert recall == all_ten
    exact = np.sort(held.rows @ pool.T, axis=1)[:, -10:]
    inside = (held.rows @ pool[::2].T)[:, :, None]
    found = sum(
        np.isclose(inside[row], exact[row], atol=1e-6).any(axis=1).sum() for row in range(40)
    )
    assert recall == pytest.approx(found / 400)


def test_only_the_nearest_of_a_thinned_sample_count(vectors):
    held, _ = held_of(vectors, 2, 0.6)
    assert all(len(row) == 2 for row in held.ten)
    assert all((row >= 0.6).all() for row in held.near)
    assert held.asked == sum(row[0] >= 0.6 for row in held.ten)
