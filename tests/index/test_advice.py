"""What an index says of whether it is the right one: the refusals, each on data of its kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from closeby.index import FlinngIndex, LshIndex
from closeby.index.advice import Evidence, advise
from closeby.index.planner import plan


def evidence(**changed: Any) -> Evidence:
    told = {
        "index": "flinng",
        "metric": "jaccard",
        "threshold": 0.5,
        "target_recall": 0.95,
        "points": 1_000_000,
        "nearest": np.full((256, 10), 0.7, np.float32),
        "recall": 0.99,
        "scanned": 0.001,
        "numbers": 60_000_000,
    }
    return Evidence(**(told | changed))


@pytest.mark.parametrize(
    ("changed", "index", "number"),
    [
        ({}, "flinng", "100% have a neighbour at jaccard 0.5"),
        ({"points": 300, "numbers": 18_000, "scanned": 1.0}, "flat", "300 points are so few"),
        ({"points": 3_000, "numbers": 180_000, "scanned": 1.0}, "flinng", "100.00% of 3,000"),
        ({"points": 3_000, "numbers": 300_000, "dense": True}, "flat", "3,000 points are so few"),
        ({"points": 300, "numbers": None, "scanned": 1.0}, "flinng", "100.00% of 300"),
        ({"nearest": np.full((256, 10), 0.2, np.float32)}, "binary_hnsw", "at 0.20"),
        (
            {"metric": "cosine", "nearest": np.full((256, 10), 0.6, np.float32), "threshold": 0.8},
            "hnsw",
            "below 0.7",
        ),
        ({"recall": 0.8}, "lsh", "0.800 are found at most"),
        ({"recall": 0.8, "index": "lsh"}, "binary_hnsw", "0.95 is wanted"),
        ({"scanned": 0.4}, "lsh", "40% of 1,000,000"),
        ({"scanned": 0.4, "points": 20_000}, "flinng", "40.00% of 20,000"),
        ({"nearest": np.zeros((0, 10), np.float32)}, "flinng", "none was asked"),
    ],
)
def test_advice_names_an_engine_and_the_numbers(
    changed: dict[str, Any], index: str, number: str
) -> None:
    told = advise(evidence(**changed))
    assert told["index"] == index
    assert number in told["why"]


@pytest.mark.parametrize("engine", [FlinngIndex, LshIndex])
def test_far_neighbours_are_refused_from_the_points_themselves(engine: Any) -> None:
    """Random vectors have no neighbours to speak of; families at cosine .95 have."""
    random = np.random.default_rng(1)
    far = random.standard_normal((9_000, 96)).astype(np.float32)
    index = engine("cosine", threshold=0.9)
    index.add(far)
    index.compact()
    assert index.explain()["advice"]["index"] == "hnsw"
    centres = np.repeat(far[:1_125], 8, axis=0)
    near = centres + 0.2 * random.standard_normal(centres.shape).astype(np.float32)
    index = engine("cosine", threshold=0.9)
    index.add(near)
    index.compact()
    assert index.explain()["advice"]["index"] == index.kind


def test_sparse_vectors_are_not_sent_to_a_graph() -> None:
    far = evidence(
        metric="cosine", threshold=0.9, dense=True, nearest=np.full((50, 10), 0.2, np.float32)
    )
    assert advise(far)["index"] == "hnsw"
    assert advise(replace(far, sparse=True))["index"] == "flat"


def families(count: int, elements: int) -> list[np.ndarray[Any, Any]]:
    """Sets of which each eight have nine elements in ten in common."""
    random = np.random.default_rng(3)
    made = []
    for family in random.integers(0, 1 << 31, (count // 8, elements)):
        for _ in range(8):
            own = random.integers(0, 1 << 31, elements // 10)
            made.append(np.concatenate([family[len(own) :], own]))
    return made


@pytest.mark.parametrize(
    ("points", "metric", "stays"),
    [
        (families(200, 60), "jaccard", False),  # comparing all takes some tens of microseconds
        (families(2_400, 60), "jaccard", True),
        (np.random.default_rng(1).standard_normal((1_200, 16)).astype(np.float32), "cosine", False),
    ],
)
def test_an_index_and_a_plan_agree_whether_it_should_stay(
    points: Any, metric: Any, stays: bool
) -> None:
    index = FlinngIndex(metric)
    index.add(points)
    index.compact()
    told = index.explain()["advice"]["index"]
    found = plan(points, metric, points=len(points), threshold=index.threshold)
    assert (told == "flinng") == stays
    # Tables and group tests find the same neighbours in about the same time.
    assert (found.index in ("flinng", "lsh")) == stays, found.why


def test_few_points_need_no_index() -> None:
    index = FlinngIndex()
    assert index.explain()["advice"]["index"] == "flat"
    index.add([[1, 2], [2, 3]])
    assert index.explain()["advice"]["index"] == "flat"
