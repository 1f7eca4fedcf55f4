"""closeby's own engines."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from closeby import index as closeby

from .protocol import Int64Array, Subject


class Flinng(Subject):
    """Group tests, sketches and exact re-rank; parameters are those of ``FlinngIndex``."""

    engine: ClassVar[str] = "FlinngIndex"

    def __init__(self, metric: Any, seed: int, **parameters: Any) -> None:
        self._parameters = {"metric": metric, "seed": seed} | parameters
        self._index: Any = None

    def build(self, points: Any) -> None:
        """Add all points and merge them into one segment."""
        engine = getattr(closeby, self.engine)
        self._index = engine(**self._fit(points), **self._parameters)
        self._index.add(points)
        self._index.compact()

    def _fit(self, points: Any) -> dict[str, Any]:
        """Parameters that are not given, chosen by a sample of the points."""
        fitted: dict[str, Any] = {"expected_points": len(points)}
        if isinstance(points, closeby.SetBatch):
            target = self._parameters.get("target_recall", 0.95)
            fitted |= closeby.fit_sets(points, expected_points=len(points), target_recall=target)
        return {name: x for name, x in fitted.items() if name not in self._parameters}

    def search(self, queries: Any, k: int, **setting: Any) -> Int64Array:
        """See :class:`Subject`; the setting is ``target_recall``."""
        return np.asarray(self._index.search(queries, k, **setting)[0])

    def nbytes(self) -> dict[str, int]:
        """See :class:`Subject`."""
        return dict(self._index.nbytes)

    def explain(self) -> dict[str, Any]:
        """See :class:`Subject`."""
        return dict(self._index.explain())

    def promise(self, **setting: Any) -> float:
        """See :class:`Subject`."""
        return float(self._index.recall_estimate(**setting))


class Sketches(Flinng):
    """The same without exact re-rank: what a sketch of so many bits can tell at most."""

    def search(self, queries: Any, k: int, **setting: Any) -> Int64Array:
        """See :class:`Subject`; the setting is ``target_recall``."""
        return np.asarray(self._index.search(queries, k, rerank=False, **setting)[0])

    def promise(self, **setting: Any) -> None:
        """Nothing: estimates count neighbours that are compared exactly."""


class Lsh(Flinng):
    """LSH tables with the same sketches and re-rank; parameters are those of ``LshIndex``."""

    engine: ClassVar[str] = "LshIndex"

    def _fit(self, points: Any) -> dict[str, Any]:
        """See :class:`Flinng`."""
        fitted = closeby.fit_lsh(
            points,
            self._parameters["metric"],
            expected_points=len(points),
            target_recall=self._parameters.get("target_recall", 0.95),
        )
        return {name: x for name, x in fitted.items() if name not in self._parameters}


class Flat(Subject):
    """Exact comparison with every point."""

    def __init__(self, metric: Any, seed: int) -> None:
        del seed
        self._index = closeby.FlatIndex(metric)

    def build(self, points: Any) -> None:
        """See :class:`Subject`."""
        self._index.add(points)

    def search(self, queries: Any, k: int, **setting: Any) -> Int64Array:
        """See :class:`Subject`."""
        return self._index.search(queries, k, **setting)[0]

    def nbytes(self) -> dict[str, int]:
        """See :class:`Subject`."""
        return self._index.nbytes
