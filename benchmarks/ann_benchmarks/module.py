"""closeby as an algorithm of ann-benchmarks.

Copy this folder to ``ann_benchmarks/algorithms/closeby`` of that suite. It builds an object of a
class here with the data set's metric and one row of ``args`` of ``config.yml``, calls ``fit`` once,
then for each row of ``query_args`` ``set_query_arguments`` and either ``query`` for each query or
``batch_query`` and ``get_batch_results`` for all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from closeby import index as closeby
from closeby.index import baselines

try:
    from ..base.module import BaseANN  # noqa: TID252 (its place in the suite)
except ImportError:  # outside of the suite, which gives the base class
    BaseANN = object

ENGINES = {
    "flinng": closeby.FlinngIndex,
    "lsh": closeby.LshIndex,
    "flat": closeby.FlatIndex,
    "hnsw": baselines.HnswIndex,
    "ivf": baselines.IvfIndex,
    "binary_hnsw": baselines.BinaryHnswIndex,
    "binary_ivf": baselines.BinaryIvfIndex,
}


class Closeby(BaseANN):  # type: ignore[misc, valid-type]
    """One engine of closeby.

    Args:
        metric: ``"angular"``; ``"euclidean"`` where all vectors have one length, so that the order
            by angle is the same; or ``"jaccard"``.
        engine: a key of ``ENGINES``.
        parameters: of its class, e.g. ``{"target_recall": .95}``.

    Raises:
        ValueError: another metric, or no such engine.
    """

    def __init__(self, metric: str, engine: str, parameters: dict[str, Any] | None = None) -> None:
        if metric not in ("angular", "euclidean", "jaccard"):
            raise ValueError(f"closeby searches by angular and jaccard, not {metric}")
        if engine not in ENGINES:
            raise ValueError(f"there is no engine {engine}; take one of {', '.join(ENGINES)}")
        self._metric, self._engine, self._parameters = metric, engine, dict(parameters or {})
        self._target: float | None = None
        self._index: Any = None
        self._results: Any = None
        self.name = self._named()

    def fit(self, X: Any) -> None:
        """Index all points: an array (n, d), or of sets a list of element arrays.

        Raises:
            ValueError: euclidean, and vectors of different length.
        """
        if self._metric == "euclidean":
            norms = np.linalg.norm(np.asarray(X, np.float64), axis=1)
            if norms.max() > norms.min() * (1 + 1e-3):
                raise ValueError("closeby takes euclidean for vectors of one length only")
        metric = "jaccard" if self._metric == "jaccard" else "cosine"
        parameters = dict(self._parameters)
        if self._engine in ("flinng", "lsh"):
            parameters.setdefault("expected_points", len(X))
        self._index = ENGINES[self._engine](metric, **parameters)
        self._index.add(self._batch(X))
        if hasattr(self._index, "compact"):
            self._index.compact()

    def set_query_arguments(self, target_recall: float) -> None:
        """What the next queries ask for."""
        self._target = float(target_recall)
        self.name = self._named()

    def query(self, q: Any, n: int) -> Any:
        """Numbers of the n nearest points, best first; fewer where fewer were found."""
        (found,) = self._search([q] if self._metric == "jaccard" else np.asarray(q)[None], n)
        return found

    def batch_query(self, X: Any, n: int) -> None:
        """Ask all queries in one call."""
        self._results = self._search(X, n)

    def get_batch_results(self) -> Any:
        """The answers to ``batch_query``."""
        return self._results

    def get_additional(self) -> dict[str, Any]:
        """What the engine promises for the setting, and its bytes."""
        sizes = self._index.nbytes
        promise = self._index.recall_estimate(self._target)
        return {"recall_estimate": promise, "bytes": sum(sizes.values())}

    def get_memory_usage(self) -> float:
        """Kilobytes by the engine's own account, features included."""
        return float(sum(self._index.nbytes.values())) / 1024

    def done(self) -> None:
        """Let the index go."""
        self._index = None

    def __str__(self) -> str:
        return self.name

    def _named(self) -> str:
        told = [f"{name}={value}" for name, value in self._parameters.items()]
        if self._target is not None:
            told.append(f"query target_recall={self._target:g}")
        return f"closeby-{self._engine}({', '.join(told)})"

    def _batch(self, X: Any) -> Any:
        return list(X) if self._metric == "jaccard" else np.asarray(X, np.float32)

    def _search(self, X: Any, n: int) -> list[Any]:
        ids, _ = self._index.search(self._batch(X), n, target_recall=self._target)
        return [row[row >= 0] for row in ids]
