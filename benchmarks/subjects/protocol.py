"""What every subject does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from closeby.index import SetBatch, _native

Int64Array = npt.NDArray[np.int64]


class Subject(ABC):
    """An engine as the harness sees it.

    A subclass implements ``build`` and ``search``. Hashing belongs to both and is counted;
    ``convert`` brings features into the form that the engine's interface asks for, and is not.

    Attributes:
        singles: whether asking one query at a time is worth measuring.
        keeps_points: whether the caller's points are used after the build.
    """

    singles: ClassVar[bool] = True
    keeps_points: ClassVar[bool] = False

    def convert(self, features: Any) -> Any:
        """Features in the engine's own form."""
        return features

    def head(self, queries: Any, count: int) -> Any:
        """The first `count` of converted queries."""
        return queries.slice(0, count) if isinstance(queries, SetBatch) else queries[:count]

    @abstractmethod
    def build(self, points: Any) -> None:
        """Hash and index the points, which are called 0 .. n - 1."""

    @abstractmethod
    def search(self, queries: Any, k: int, **setting: Any) -> Int64Array:
        """The k best points of each query, int64 (q, k), best first; -1 where there is none."""

    def nbytes(self) -> dict[str, int]:
        """Bytes by part, by the engine's own account; empty if it gives none."""
        return {}

    def explain(self) -> dict[str, Any]:
        """What the engine chose by itself."""
        return {}

    def promise(self, **setting: Any) -> float | None:
        """The recall of near neighbours that the engine predicts for a setting, if it does."""
        del setting
        return None

    def reported(self) -> dict[str, Any]:
        """Measurements of the build that another program made, to replace the harness's own."""
        return {}

    def reported_seconds(self) -> float | None:
        """Seconds of the last search, where another program measured them."""
        return None


def rerank(
    points: SetBatch, queries: SetBatch, candidates: Int64Array | list[Any], k: int
) -> Int64Array:
    """The k of each query's candidates with the highest exact Jaccard, int64 (q, k).

    Uses closeby's own kernel: a re-rank is granted to every engine at the speed of ours.
    """
    best = np.full((len(queries), k), -1, np.int64)
    for row, found in enumerate(candidates):
        places = np.asarray(found, np.int64)
        places = places[places >= 0]
        if not len(places):
            continue
        scores = _native.jaccard_of_rows(
            points.indptr, points.indices, places, queries.row(row), row + 1
        )
        order = np.argsort(-scores, kind="stable")[:k]
        best[row, : len(order)] = places[order]
    return best
