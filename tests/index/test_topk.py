from __future__ import annotations

from typing import Any

import numpy as np
import oracle
from closeby.index import merge_topk
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def answers(draw: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Answers of one to four parts, as an index gives them; few different scores, so many ties."""
    rows = draw(st.integers(0, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parts, next_id = [], 0
    for _ in range(draw(st.integers(1, 4))):
        width = draw(st.integers(1, 6))
        ids = np.full((rows, width), -1, np.int64)
        scores = np.full((rows, width), np.nan, np.float32)
        for row in range(rows):
            hits = random.integers(0, width + 1)
            found = [
                (-float(score) / 4, next_id + int(name))
                for score, name in zip(
                    random.integers(-4, 5, hits), random.permutation(50)[:hits], strict=True
                )
            ]
            for place, (score, name) in enumerate(sorted(found)):
                ids[row, place], scores[row, place] = name, -score
        parts.append((ids, scores))
        next_id += 50
    return parts


@given(answers(), st.integers(1, 20))
def test_merge_is_the_sorted_union(parts: list[tuple[np.ndarray, np.ndarray]], k: int) -> None:
    ids, scores = merge_topk(parts, k)
    assert ids.dtype == np.int64
    assert scores.dtype == np.float32
    expected_ids, expected_scores = oracle.merge_topk(parts, k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)


def test_ties_go_by_id_and_missing_hits_come_last() -> None:
    left = np.int64([[7, 1, -1]]), np.float32([[0.5, 0.25, np.nan]])
    right = np.int64([[3, 9]]), np.float32([[0.5, -1.0]])
    ids, scores = merge_topk([left, right], 6)
    assert ids.tolist() == [[3, 7, 1, 9, -1, -1]]
    np.testing.assert_array_equal(scores, np.float32([[0.5, 0.5, 0.25, -1, np.nan, np.nan]]))


def test_one_part_is_cut_or_filled_up() -> None:
    part = np.int64([[4, 2, -1]]), np.float32([[0.5, 0.25, np.nan]])
    assert merge_topk([part], 1)[0].tolist() == [[4]]
    assert merge_topk([part], 3)[0].tolist() == [[4, 2, -1]]
    assert merge_topk([part], 5)[0].tolist() == [[4, 2, -1, -1, -1]]


def test_no_queries() -> None:
    ids, scores = merge_topk([(np.zeros((0, 3), np.int64), np.zeros((0, 3), np.float32))] * 2, 4)
    assert ids.shape == scores.shape == (0, 4)
