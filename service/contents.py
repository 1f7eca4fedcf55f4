"""What a shard holds in memory: log rows, applied in order to an engine and to the live points.

The engine's ids are the seqs of log rows, so a hit names one immutable version of a point.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from closeby.index import Engine
from closeby.index.alive_points import concat, rows_of

from .encoding import Features, Stored, decode_rows
from .hits import Search
from .live import LivePoints
from .log_rows import LogRow, Op, point_id

__all__ = ["Committed", "Contents"]

UNLOCKED_SEARCHES = 3
"""How often a search is tried beside writers that replace points all the time."""


@dataclass(slots=True)
class Committed:
    """Rows of one request of this process: committed, and to be applied.

    `features`, or hashes in their place, are None for deletions. Since `own_since` no other process
    has written.
    """

    ids: Sequence[int | str]
    features: Stored | None
    has_payload: Sequence[bool]
    first: int = 0
    own_since: int = 0
    deleted: int = 0
    applied: bool = False
    error: Exception | None = None

    @property
    def last(self) -> int:
        """The seq of the last row."""
        return self.first + len(self.ids) - 1


class Contents:
    """The points of a shard up to some row of its log. One thread at a time may change it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.live = LivePoints()
        self.fault: str | None = None
        """Why this is not what the log says any more; None while it is."""
        self.complete_seq = 0
        """All log rows of the collection up to here are in it."""
        self.applied_seq = 0
        """The last row that was applied."""
        self.put_seq = 0
        """The last of them that put a point."""
        self.tail_rows = 0
        """Log rows behind the sealed files."""
        self.garbage = 0
        """Log rows that are superfluous by now, about."""
        self._replacements = 0

    def __len__(self) -> int:
        return len(self.live)

    def begin(self, sealed_seq: int) -> None:
        """All rows up to `sealed_seq` are there."""
        self.applied_seq = self.complete_seq = sealed_seq

    def complete(self, seq: int) -> None:
        """There are no rows of the collection up to `seq` which were not applied."""
        self.complete_seq = max(self.complete_seq, seq)

    def search(
        self, features: Features, wanted: Search, lock: threading.Lock
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Seqs int64 (q, limit) and scores float32 (q, limit), padded with -1 and NaN.

        `lock` is that of whoever changes the contents. A search that began before a new version
        came, and looked at the old one after it went, would find neither. So it is repeated if
        versions were replaced meanwhile; where that goes on, the last time without writers.
        """
        for _ in range(UNLOCKED_SEARCHES):
            before = self._replacements
            found = self._search(features, wanted)
            if self._replacements == before:
                return found
        with lock:
            return self._search(features, wanted)

    def _search(
        self, features: Features, wanted: Search
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return self.engine.search(
            features,
            wanted.limit,
            threshold=wanted.threshold,
            target_recall=wanted.target_recall,
        )

    # --- applying --------------------------------------------------------------------------------

    def apply_rows(self, rows: Sequence[LogRow]) -> None:
        """Apply rows as they were read from the log. Raises StoreUnavailableError if damaged."""
        ids = [point_id(row.point) for row in rows]
        latest: dict[int | str, int | None] = {
            point: row.seq if row.op == Op.PUT else None
            for point, row in zip(ids, rows, strict=True)
        }
        kept = [row for point, row in zip(ids, rows, strict=True) if latest[point] == row.seq]
        features = decode_rows([row.features or b"" for row in kept])
        before = self.live.seqs(latest)
        for point, row in zip(ids, rows, strict=True):
            if latest[point] == row.seq:
                self.live.announce(row.seq, point, has_payload=row.has_payload)
        self._replace(latest, before, [features], [row.seq for row in kept])
        self._count(rows[-1].seq, len(rows), sum(row.op == Op.DELETE for row in rows))

    def drop(self, points: dict[int | str, int]) -> None:
        """Forget points, given with their live seqs: the log does not say it, their owner does."""
        self._replace(dict.fromkeys(points), points, [], [])

    def apply_writes(self, writes: Sequence[Committed]) -> None:
        """Apply writes of this process, which follow each other in the log."""
        before = self.live.seqs({point for write in writes for point in write.ids})
        latest: dict[int | str, int | None] = {}
        for write in writes:
            if write.features is not None:
                seqs = range(write.first, write.first + len(write.ids))
                latest.update(zip(write.ids, seqs, strict=True))
                continue
            for point in write.ids:
                current = latest[point] if point in latest else before.get(point)
                write.deleted += current is not None
                latest[point] = None
        batches: list[Stored] = []
        added: list[int] = []
        for write in writes:
            if write.features is None:
                continue
            kept = [i for i, p in enumerate(write.ids) if latest[p] == write.first + i]
            for i in kept:
                self.live.announce(write.first + i, write.ids[i], has_payload=write.has_payload[i])
            added.extend(write.first + i for i in kept)
            whole = len(kept) == len(write.ids)
            batches.append(
                write.features if whole else rows_of(write.features, np.array(kept, np.int64))
            )
        self._replace(latest, before, batches, added)
        for write in writes:
            deletions = len(write.ids) if write.features is None else 0
            self._count(write.last, len(write.ids), deletions)

    def _count(self, last: int, rows: int, deletions: int) -> None:
        self.applied_seq = last
        self.complete(last)
        self.tail_rows += rows
        self.garbage += deletions

    def _replace(
        self,
        latest: dict[int | str, int | None],
        before: dict[int | str, int],
        batches: list[Stored],
        added: list[int],
    ) -> None:
        """Add the new versions, then remove those they replace: see `search`."""
        removed = [seq for point in latest if (seq := before.get(point)) is not None]
        if added:
            self.engine.add(concat(batches), ids=np.array(added, np.int64))
            self.put_seq = added[-1]
            if removed:
                # Before the first of them goes, and after all that take their places came. New
                # points take no places: searches beside them need not be repeated.
                self._replacements += 1
        self.live.settle(latest, before)
        if removed:
            self.engine.remove(np.array(removed, np.int64))
            self.garbage += len(removed)
