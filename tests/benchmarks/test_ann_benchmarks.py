"""The ann-benchmarks module, driven as that suite drives it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from closeby.index import FlatIndex

from benchmarks import ann_benchmarks
from benchmarks.ann_benchmarks import Closeby

CONFIG = Path(ann_benchmarks.__file__).with_name("config.yml")


def clustered(seed: int) -> np.ndarray[Any, Any]:
    """Unit vectors in families of four, near one another."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.standard_normal((100, 32)), 4, axis=0)
    rows = centres + 0.1 * rng.standard_normal(centres.shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def families(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    bases = np.repeat(rng.integers(0, 1 << 31, (100, 40)), 4, axis=0)
    redrawn = rng.random(bases.shape) < 0.1
    bases[redrawn] = rng.integers(0, 1 << 31, int(redrawn.sum()))
    return [np.unique(row) for row in bases]


def drive(algorithm: Closeby, points: Any, queries: Any, k: int) -> tuple[list[Any], list[Any]]:
    algorithm.fit(points)
    algorithm.set_query_arguments(0.95)
    one_by_one = [algorithm.query(query, k) for query in queries]
    algorithm.batch_query(queries, k)
    together = algorithm.get_batch_results()
    additional = algorithm.get_additional()
    assert 0 < additional["recall_estimate"] <= 1
    assert additional["bytes"] == pytest.approx(algorithm.get_memory_usage() * 1024)
    assert "query target_recall=0.95" in str(algorithm)
    algorithm.done()
    return one_by_one, together


@pytest.mark.parametrize(
    ("metric", "engine"),
    [*itertools.product(("angular", "euclidean"), ("flinng", "lsh", "hnsw")), ("jaccard", "flinng"),
     ("jaccard", "lsh")],
)  # fmt: skip
def test_near_neighbours_are_found_one_by_one_and_together(metric: str, engine: str) -> None:
    points: Any = families(0) if metric == "jaccard" else clustered(0)
    queries = points[::8]
    exact = FlatIndex("jaccard" if metric == "jaccard" else "cosine")
    exact.add(points)
    truth = exact.search(queries, 4)[0]
    answers, together = drive(Closeby(metric, engine, {"target_recall": 0.95}), points, queries, 4)
    found = [
        len({*row.tolist()} & {*true.tolist()}) for row, true in zip(answers, truth, strict=True)
    ]
    assert sum(found) >= 0.9 * truth.size
    assert [row.tolist() for row in together] == [row.tolist() for row in answers]


def test_every_build_of_the_configuration_can_be_made_and_asked() -> None:
    kinds = yaml.safe_load(CONFIG.read_text())
    seen = set()
    for metric, entries in {**kinds["float"], **kinds["bit"]}.items():
        points: Any = families(0) if metric == "jaccard" else clustered(0)
        for entry in entries:
            assert getattr(ann_benchmarks, entry["constructor"]) is Closeby
            for group in entry["run_groups"].values():
                for arguments in itertools.product(*group["args"]):
                    algorithm = Closeby(metric, *arguments)
                    algorithm.fit(points)
                    for target in itertools.chain(*group["query_args"]):
                        algorithm.set_query_arguments(target)
                        assert algorithm.query(points[0], 1).tolist() == [0]
                        seen.add((metric, arguments[0], target))
    assert {metric for metric, _, _ in seen} == {"angular", "euclidean", "jaccard"}


def test_what_it_cannot_search_is_refused() -> None:
    with pytest.raises(ValueError, match="not hamming"):
        Closeby("hamming", "flinng")
    with pytest.raises(ValueError, match="there is no engine"):
        Closeby("angular", "turbo")
    with pytest.raises(ValueError, match="one length"):
        Closeby("euclidean", "flinng").fit(np.arange(1, 9, dtype=np.float32).reshape(4, 2))
