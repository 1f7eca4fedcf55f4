"""Group commit: the writes of all requests that wait share one transaction and its fsync.

Requests queue their writes; one thread takes all that are waiting, writes them in one transaction
and completes them after the commit. A write that cannot be done is separated from the others and
fails alone.

A group of which no write asks for it is committed without fsync (`Durability`): it outlives the
process, and the machine's failure once `sync` was called or `SYNC_SECONDS` have passed. The log on
disk is always a prefix of the log: no write is there without those before it.

Other processes may write to the same log. Seqs tell when they did: those of a group of ours do
not follow those of the group before. Whoever is told of a commit is told since which seq nobody
else has written.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog

from .errors import (
    CollectionNotFoundError,
    ServiceError,
    StoreUnavailableError,
    TooManyRequestsError,
)
from .log_reader import Seen
from .log_rows import Entry
from .partitions import partition_of
from .schema import (
    collections,
    discarded,
    log_table,
    next_seq,
    take,
    touch,
    unavailable,
    was_read_only,
)
from .turns import LARGE_ROWS, ahead

__all__ = ["GroupCommit"]

MAX_GROUP_ROWS = 20_000
"""Rows of one transaction: bounds how long a small write waits behind large ones."""
ROWS_A_STATEMENT = 100
"""Rows inserted at once where the driver numbers its parameters (SQLite)."""
PURGE_ROWS = 5_000
"""Rows of a deleted collection which are removed between two other transactions."""
SYNC_SECONDS = 1.0
"""How long a commit without fsync may stay without one."""

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class _Write:
    """Rows of one request on their way to the disk."""

    collection: int
    entries: Sequence[Entry]
    on_commit: Callable[[int, int], None] | None
    done: Future[int]
    durable: bool
    also: Callable[[sa.Connection], None] | None


@dataclass(slots=True)
class _Task:
    """Something else that writes; it gets a transaction of its own."""

    run: Callable[[sa.Connection], Any]
    done: Future[Any]


@dataclass(slots=True)
class _Look:
    """Somebody who wants to know what others have written."""

    tell: Callable[[Seen], None]
    done: Future[None]


_Item = _Write | _Task | _Look


class GroupCommit:
    """The one thread of a process that writes to the store.

    `relaxed` commits without waiting for the disk. `max_queued_rows` bounds what waits. `head` is
    the last seq so far.
    """

    def __init__(
        self, engine: sa.Engine, relaxed: sa.Engine, max_queued_rows: int, head: int
    ) -> None:
        self._engine = engine
        # Commits that need not be on disk at once; see Durability.
        self._relaxed = relaxed
        self._unsynced_since: float | None = None
        self._insert = str(log_table.insert().compile(dialect=engine.dialect))
        self._insert_many = self._insert + f", ({', '.join('?' * len(log_table.c))})" * (
            ROWS_A_STATEMENT - 1
        )
        self._positional = engine.dialect.positional
        self._queue: deque[_Item] = deque()
        self._queued_rows = 0
        self._max_queued_rows = max_queued_rows
        self._wake = threading.Condition()
        self._closing = False
        # The seq that follows if nobody else writes, and since which one nobody did.
        self._next = self._own_since = head + 1
        self.commits = 0
        self.failed_rows = 0
        self._writer = threading.Thread(target=self._write_loop, name="closeby-store", daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Finish what is queued. Later writes raise StoreUnavailableError."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._writer.join()

    @property
    def queued_rows(self) -> int:
        """Rows which wait for the disk now."""
        return self._queued_rows

    @property
    def unsynced(self) -> bool:
        """Whether something was committed without fsync, and none was made since."""
        return self._unsynced_since is not None

    def append(
        self,
        collection: int,
        entries: Sequence[Entry],
        on_commit: Callable[[int, int], None] | None,
        durable: bool,
        also: Callable[[sa.Connection], None] | None,
    ) -> Future[int]:
        """See `Store.append`."""
        if not entries:
            raise ValueError("nothing to append")
        write = _Write(collection, entries, on_commit, Future(), durable, also)
        with self._wake:
            # A single write larger than the bound still goes through an empty queue.
            if self._queued_rows and self._queued_rows + len(entries) > self._max_queued_rows:
                raise TooManyRequestsError(
                    f"{self._queued_rows} points are waiting for the disk", retry_after=1
                )
            self._enqueue(write)
            self._queued_rows += len(entries)
        return write.done

    def submit(self, run: Callable[[sa.Connection], Any]) -> Any:
        """What `run` gives in a transaction of its own, on disk on return."""
        task = _Task(run, Future())
        with self._wake:
            self._enqueue(task)
        return task.done.result()

    def observe(self, tell: Callable[[Seen], None]) -> None:
        """See `LogReader.observe`; `tell` is called in the writer's thread, in log order."""
        look = _Look(tell, Future())
        with self._wake:
            self._enqueue(look)
        look.done.result()

    @property
    def next_seq(self) -> int:
        """The seq that follows what this process knows of."""
        return self._next

    def _enqueue(self, item: _Item) -> None:
        if self._closing:
            raise StoreUnavailableError("the store is closed")
        self._queue.append(item)
        self._wake.notify()

    def _write_loop(self) -> None:
        purging = True
        while True:
            group = self._next_group(wait=not purging)
            if group is None:
                if self._unsynced_since is not None:
                    self._sync_now()
                return
            if not group:
                purging = self._purge_some()
            elif isinstance(group[0], _Task):
                self._run_task(group[0])
                purging = True
            elif isinstance(group[0], _Look):
                self._look(group[0])
            else:
                self._commit_group([item for item in group if isinstance(item, _Write)])
            if self._sync_is_due():
                self._sync_now()

    def _sync_is_due(self) -> bool:
        since = self._unsynced_since
        return since is not None and time.monotonic() - since >= SYNC_SECONDS

    def _sync_now(self) -> None:
        try:
            with self._engine.begin() as connection:
                touch(connection)
        except sa.exc.DBAPIError as error:
            log.warning("sync_failed", error=str(error))
            self._unsynced_since = time.monotonic()
        else:
            self._unsynced_since = None

    def _next_group(self, *, wait: bool) -> list[_Item] | None:
        """Writes for one transaction, or one task; empty if there is none; None at the end."""
        with self._wake:
            while wait and not self._queue and not self._closing and not self._sync_is_due():
                since = self._unsynced_since
                self._wake.wait(
                    None if since is None else max(0.0, since + SYNC_SECONDS - time.monotonic())
                )
            if not self._queue:
                return None if self._closing else []
            group = [self._queue.popleft()]
            if isinstance(group[0], _Write):
                rows = len(group[0].entries)
                while self._queue:
                    following = self._queue[0]
                    if not isinstance(following, _Write):
                        break
                    rows += len(following.entries)
                    if rows > MAX_GROUP_ROWS:
                        break
                    group.append(self._queue.popleft())
                self._queued_rows -= sum(len(w.entries) for w in group if isinstance(w, _Write))
            return group

    def _commit_group(self, writes: list[_Write]) -> None:
        try:
            firsts = _twice_if_read_only(lambda: self._insert_group(writes))
        except Exception as error:  # whatever it is, the requests which wait must hear of it
            self._fail_group(writes, error)
            return
        for write, first in zip(writes, firsts, strict=True):
            if isinstance(first, Exception):
                write.done.set_exception(first)
                continue
            if write.on_commit is not None:
                write.on_commit(first, self._own_since)
            write.done.set_result(first)

    def _fail_group(self, writes: list[_Write], error: Exception) -> None:
        """Nothing of `writes` was kept: do each alone, so that only the guilty one fails."""
        if len(writes) > 1:
            for write in writes:
                self._commit_group([write])
            return
        if isinstance(error, ServiceError):
            writes[0].done.set_exception(error)
            return
        log.error("commit_failed", error=str(error), rows=len(writes[0].entries))
        self.failed_rows += len(writes[0].entries)
        writes[0].done.set_exception(unavailable(error))

    def _insert_group(self, writes: list[_Write]) -> list[int | Exception]:
        """The first seq of each write, or why it was left out; on disk on return."""
        durable = any(write.durable for write in writes)
        with (self._engine if durable else self._relaxed).begin() as connection:
            total = sum(len(write.entries) for write in writes)
            seq = start = take(connection, "log", total)
            wanted = {write.collection for write in writes}
            known = set(
                connection.scalars(sa.select(collections.c.id).where(collections.c.id.in_(wanted)))
            )
            rows: list[tuple[Any, ...]] = []
            firsts: list[int | Exception] = []
            for write in writes:
                if write.collection not in known:
                    firsts.append(CollectionNotFoundError("the collection was deleted"))
                    continue
                firsts.append(seq)
                collection = write.collection
                rows.extend(
                    (i, collection, *entry, partition_of(entry.point))
                    for i, entry in enumerate(write.entries, seq)
                )
                seq += len(write.entries)
                if write.also is not None:
                    write.also(connection)
            with ahead(large=len(rows) >= LARGE_ROWS):
                self._insert_rows(connection, rows)
        self.commits += 1
        if start > self._next:
            self._own_since = start
        self._next = start + total
        if durable:
            self._unsynced_since = None
        elif self._unsynced_since is None:
            self._unsynced_since = time.monotonic()
        return firsts

    def _insert_rows(self, connection: sa.Connection, rows: list[tuple[Any, ...]]) -> None:
        if self._positional:
            # The driver takes the interpreter once for each statement, and queries want it too.
            whole = len(rows) - len(rows) % ROWS_A_STATEMENT
            for start in range(0, whole, ROWS_A_STATEMENT):
                many = itertools.chain.from_iterable(rows[start : start + ROWS_A_STATEMENT])
                connection.exec_driver_sql(self._insert_many, tuple(many))
            rows = rows[whole:]
            parameters: Any = rows
        else:
            names = log_table.c.keys()
            parameters = [dict(zip(names, row, strict=True)) for row in rows]
        if rows:
            connection.exec_driver_sql(self._insert, parameters)

    def _run_task(self, task: _Task) -> None:
        try:
            result = _twice_if_read_only(lambda: self._run_in_transaction(task.run))
        except ServiceError as error:
            task.done.set_exception(error)
        except Exception as error:  # handed to the caller who waits
            task.done.set_exception(unavailable(error))
        else:
            self.commits += 1
            self._unsynced_since = None
            task.done.set_result(result)

    def _run_in_transaction(self, run: Callable[[sa.Connection], Any]) -> Any:
        with self._engine.begin() as connection:
            return run(connection)

    def _look(self, look: _Look) -> None:
        try:
            with self._engine.connect() as connection:
                following = next_seq(connection)
        except Exception as error:  # handed to the caller who waits
            look.done.set_exception(unavailable(error))
            return
        if following > self._next:
            self._next = self._own_since = following
            # Whether others waited for the disk is not known.
            self._unsynced_since = self._unsynced_since or time.monotonic()
        look.tell(Seen(following - 1, self._own_since))
        look.done.set_result(None)

    def _purge_some(self) -> bool:
        """Remove some rows of deleted collections; False if none are left."""
        try:
            with self._engine.begin() as connection:
                found = connection.execute(sa.select(discarded.c.collection).limit(1)).scalar()
                if found is None:
                    return False
                some = (
                    sa.select(log_table.c.seq)
                    .where(log_table.c.collection == found)
                    .limit(PURGE_ROWS)
                ).scalar_subquery()
                gone = connection.execute(log_table.delete().where(log_table.c.seq.in_(some)))
                if gone.rowcount == 0:
                    connection.execute(discarded.delete().where(discarded.c.collection == found))
        except sa.exc.DBAPIError as error:
            log.warning("purge_failed", error=str(error))
            return False
        return True


def _twice_if_read_only(write: Callable[[], T]) -> T:
    """Do it again if it failed on a connection of a time when the disk was not writable."""
    try:
        return write()
    except sa.exc.DBAPIError as error:
        if not was_read_only(error.orig):
            raise
        return write()
