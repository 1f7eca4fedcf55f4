"""closeby's own engines."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from closeby import index as closeby

from .protocol import Int64Array, Subject


class Flinng(Subject):
    """Group tests, sketches and exact re-rank; parameters are those of ``FlinngIndex``."""

    engine: ClassVar[str] = "FlinngIndex"
    fitted: ClassVar[bool] = True

    def __init__(self, metric: Any, seed: int, **parameters: Any) -> None:
        self._parameters = {"metric": metric, "seed": seed} | parameters
        self._index: Any = None

    def build(self, points: Any) -> None:
        """Add all points and merge them into one segment."""
        engine = getattr(closeby, self.engine)
        parameters = {"expected_points": len(points)} | self._parameters
        if self.fitted and isinstance(points, closeby.SetBatch):
            target = self._parameters.get("target_recall", 0.95)
            fit = closeby.fit_sets(points, expected_points=len(points), target_recall=target)
            parameters = fit | parameters
        self._index = engine(**parameters)
        self._index.add(points)
        self._index.compact()

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
    fitted: ClassVar[bool] = False


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
