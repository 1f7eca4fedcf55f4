"""Recall by how far a query looks, measured on an index's own points.

A few points are kept out of a structure until everything else is in it, asked for, compared with
the exact answers, and then added: so they are queries that the structure has not seen, and the
curve does not flatter it. ``target_recall`` reads the curve one way, ``recall_estimate`` the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np

# Numbers of hits for which recall is measured.
MEASURED = (10, 100)
# The same product summed in another order.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class RecallCurve:
    """What was measured.

    Attributes:
        breadths: how far a query looked (points in view, or lists), rising.
        recalls: for each of ``MEASURED``, recall at each breadth, never falling.
        microseconds: for each of ``MEASURED``, a query's time at each breadth when it was
            measured, exact comparison of its candidates included.
        queries: points that were asked for.
        neighbours: neighbours of theirs that were to be found, at 10 hits.
        near: whether only neighbours at the index's threshold count; otherwise all do, since the
            sample has too few such.
    """

    breadths: tuple[int, ...]
    recalls: tuple[tuple[float, ...], ...]
    microseconds: tuple[tuple[float, ...], ...]
    queries: int
    neighbours: int
    near: bool

    def breadth(self, target_recall: float, k: int) -> int:
        """How far to look for this recall; as far as was measured where nothing reaches it."""
        recalls = self._row(self.recalls, k)
        at = int(np.searchsorted(recalls, target_recall))
        if at == 0:
            return self.breadths[0]
        if at == len(recalls):
            return self.breadths[-1]
        low, high = recalls[at - 1], recalls[at]
        share = (target_recall - low) / (high - low)
        ratio = float((self.breadths[at] / self.breadths[at - 1]) ** share)
        return math.ceil(self.breadths[at - 1] * ratio)

    def recall(self, breadth: int, k: int) -> float:
        """Recall where a query looks so far."""
        return self._at(self.recalls, breadth, k)

    def time(self, breadth: int, k: int) -> float:
        """Microseconds of a query that looks so far."""
        return self._at(self.microseconds, breadth, k)

    def _at(self, table: tuple[tuple[float, ...], ...], breadth: int, k: int) -> float:
        logs = np.log2(self.breadths)
        return float(np.interp(math.log2(max(1, breadth)), logs, self._row(table, k)))

    @staticmethod
    def _row(table: tuple[tuple[float, ...], ...], k: int) -> tuple[float, ...]:
        return table[int(k > MEASURED[0])]

    def as_json(self) -> dict[str, Any]:
        """JSON values; :meth:`of_json` is the inverse."""
        return asdict(self)

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Self:
        """The curve that :meth:`as_json` described.

        Raises:
            ValueError: the values do not describe one.
        """
        breadths = tuple(int(b) for b in values["breadths"])
        recalls, times = (
            tuple(tuple(float(x) for x in row) for row in values[name])
            for name in ("recalls", "microseconds")
        )
        rows = (*recalls, *times)
        if not breadths or len(rows) != 2 * len(MEASURED) or {*map(len, rows)} != {len(breadths)}:
            raise ValueError("a recall curve is incomplete")
        if breadths[0] < 1 or any(b <= a for a, b in pairwise(breadths)):
            raise ValueError("breadths of a recall curve must rise")
        queries, neighbours = int(values["queries"]), int(values["neighbours"])
        return cls(breadths, recalls, times, queries, neighbours, bool(values["near"]))


def count_found(
    truth: Sequence[np.ndarray[Any, Any]], answers: np.ndarray[Any, Any], k: int
) -> tuple[int, int]:
    """Neighbours found and wanted.

    Args:
        truth: exact scores of the neighbours of each query, falling.
        answers: scores float32 (q, >= k) of the hits, falling, NaN after the last.
        k: how many neighbours count.
    """
    found = wanted = 0
    for exact, scores in zip(truth, answers, strict=True):
        best = exact[:k]
        wanted += len(best)
        if len(best):
            # Any of several equally near points will do.
            least = best[-1] - TOLERANCE * max(1.0, abs(float(best[-1])))
            found += min(len(best), int(np.count_nonzero(scores[:k] >= least)))
    return found, wanted
