"""What an index says of whether it is the right one: the refusals, each on data of its kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from closeby.index import FlinngIndex, LshIndex
from closeby.index.advice import Evidence, advise


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
    }
    return Evidence(**(told | changed))


@pytest.mark.parametrize(
    ("changed", "index", "number"),
    [
        ({}, "flinng", "100% have a neighbour at jaccard 0.5"),
        ({"points": 3_000, "scanned": 1.0}, "flat", "3,000 points are so few"),
        ({"nearest": np.full((256, 10), 0.2, np.float32)}, "binary_hnsw", "at 0.20"),
        (
            {"metric": "cosine", "nearest": np.full((256, 10), 0.6, np.float32), "threshold": 0.8},
            "hnsw",
            "below 0.7",
        ),
        ({"recall": 0.8}, "lsh", "0.800 are found at most"),
        ({"recall": 0.8, "index": "lsh"}, "binary_hnsw", "0.95 is wanted"),
        ({"scanned": 0.4}, "lsh", "40% of 1,000,000"),
        ({"scanned": 0.4, "points": 20_000}, "flat", "20,000 points"),
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
    far = random.standard_normal((9_000, 32)).astype(np.float32)
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
    far = evidence(metric="cosine", threshold=0.9, nearest=np.full((50, 10), 0.2, np.float32))
    assert advise(far)["index"] == "hnsw"
    assert advise(replace(far, sparse=True))["index"] == "flat"


def test_few_points_need_no_index() -> None:
    index = FlinngIndex()
    assert index.explain()["advice"]["index"] == "flat"
    index.add([[1, 2], [2, 3]])
    assert index.explain()["advice"]["index"] == "flat"
