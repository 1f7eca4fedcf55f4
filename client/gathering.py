"""What the requests of one call have answered, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .results import Duplicate, QueryResult, QueryResults, UpsertResult

Progress: TypeAlias = Callable[[int, "int | None"], object]


class Tally:
    """Counts what the requests of an upsert have stored, and tells the caller."""

    def __init__(self, total: int | None, progress: Progress | None) -> None:
        self.count = 0
        self.took_ms = 0.0
        self.duplicates: list[Duplicate] = []
        self._done = 0
        self._total = total
        self._progress = progress

    def add(self, outcome: tuple[int, UpsertResult]) -> None:
        """One request has stored so many rows."""
        rows, stored = outcome
        self._done += rows
        self.count += stored.upserted
        self.took_ms += stored.took_ms
        self.duplicates += stored.duplicates
        if self._progress is not None:
            self._progress(self._done, self._total)


class Answers:
    """Gathers the results of a batch query, in whatever order they come."""

    def __init__(self, total: int | None, progress: Progress | None) -> None:
        self._results: dict[int, QueryResult] = {}
        self._total = total
        self._progress = progress

    def add(self, outcome: list[tuple[int, QueryResult]]) -> None:
        """One request has answered, each result with its place in the call."""
        self._results.update(outcome)
        if self._progress is not None:
            self._progress(len(self._results), self._total)

    def in_order(self) -> QueryResults:
        """All results."""
        results = [self._results[position] for position in sorted(self._results)]
        known = [one.recall_estimate for one in results if one.recall_estimate is not None]
        return QueryResults(
            results,
            sum(one.took_ms for one in results),
            sum(known) / len(known) if known and len(known) == len(results) else None,
        )
