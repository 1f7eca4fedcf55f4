"""When a collection with `index="auto"` is planned again: as it grows, each time by a factor.

Nobody asks: the upkeep looks, and queues the same job as `:reindex` does. That job changes the
engine only where another is clearly better (`planner.is_worth_changing`), and notes for how many
points it planned, so that the next time comes when there are several times as many.
"""

from __future__ import annotations

from .errors import TooManyRequestsError
from .jobs import JobRunner
from .registry import Registry
from .reindexing import REINDEX
from .shard import Shard

__all__ = ["Replanning"]


class Replanning:
    """Queues plans of the collections of `registry`.

    `first`: points of the first plan. `growth`: by how much a collection grows between two; 0: it
    is not planned by itself. `max_queued`: with so many jobs waiting none is added.
    """

    def __init__(
        self, registry: Registry, jobs: JobRunner, *, first: int, growth: float, max_queued: int
    ) -> None:
        self._registry = registry
        self._jobs = jobs
        self._first = first
        self._growth = growth
        self._max_queued = max_queued
        # Points of each collection when its plan was queued: one that fails is not queued again
        # until the collection has grown again (or the server starts again).
        self._tried: dict[int, int] = {}
        self.queued = 0
        """Plans queued since the start."""

    def look(self) -> None:
        """Queue what is due. Raises StoreUnavailableError."""
        for shard in self._registry.shards():
            if not shard.ready or len(shard) < self._first:
                continue
            due = self.due_at(shard)
            if due is None or len(shard) < due:
                continue
            collection, points = shard.record.id, len(shard)
            if not self._jobs.jobs.is_unfinished(REINDEX.name, collection):
                try:
                    self._jobs.jobs.submit(
                        REINDEX.name,
                        {},
                        collection=collection,
                        collection_name=shard.record.name,
                        max_queued=self._max_queued,
                    )
                except TooManyRequestsError:
                    return  # it is looked again
                self.queued += 1
                self._jobs.announce()
            self._tried[collection] = points

    def due_at(self, shard: Shard) -> int | None:
        """With how many points the collection is planned; None: never by itself."""
        if not self._growth or shard.record.config["index"] != "auto":
            return None
        from closeby.index import planner  # brings FAISS, for which no start should wait

        known = [self._tried.get(shard.record.id), planned_for(shard)]
        last = max((points for points in known if points is not None), default=None)
        return planner.due_at(last, first=self._first, growth=self._growth)


def planned_for(shard: Shard) -> int | None:
    """For how many points `auto` was planned last; None: not yet."""
    plan = shard.record.config.get("plan")
    return None if plan is None else int(plan["points"])
