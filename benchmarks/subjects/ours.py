"""closeby's own engines."""

from __future__ import annotations

from typing import Any

from closeby.index import FlatIndex, FlinngIndex

from .protocol import Int64Array, Subject


class Flinng(Subject):
    """Group tests, sketches and exact re-rank; parameters are those of ``FlinngIndex``."""

    def __init__(self, metric: Any, seed: int, **parameters: Any) -> None:
        self._parameters = {"metric": metric, "seed": seed} | parameters
        self._index: FlinngIndex | None = None

    def build(self, points: Any) -> None:
        """Add all points and merge them into one segment."""
        index = FlinngIndex(expected_points=len(points), **self._parameters)
        index.add(points)
        index.compact()
        self._index = index

    def search(self, queries: Any, k: int, **setting: Any) -> Int64Array:
        """See :class:`Subject`; the setting is ``target_recall``."""
        assert self._index is not None
        return self._index.search(queries, k, **setting)[0]

    def nbytes(self) -> dict[str, int]:
        """See :class:`Subject`."""
        assert self._index is not None
        return self._index.nbytes

    def explain(self) -> dict[str, Any]:
        """See :class:`Subject`."""
        assert self._index is not None
        return self._index.explain()


class Flat(Subject):
    """Exact comparison with every point."""

    def __init__(self, metric: Any, seed: int) -> None:
        del seed
        self._index = FlatIndex(metric)

    def build(self, points: Any) -> None:
        """See :class:`Subject`."""
        self._index.add(points)

    def search(self, queries: Any, k: int, **setting: Any) -> Int64Array:
        """See :class:`Subject`."""
        return self._index.search(queries, k, **setting)[0]

    def nbytes(self) -> dict[str, int]:
        """See :class:`Subject`."""
        return self._index.nbytes
