"""The durable store: what is acknowledged is here, on disk.

One append-only log holds every put and every delete of every collection (tables: `schema`). `seq`
orders all writes. The current row of a point is the one of greatest `seq`; a row is never changed,
so whoever holds a `seq` can read that version of the point at any later time and never sees a
mixture. Seqs are taken from `head` inside the transaction which writes the rows: the lock on that
row makes transactions commit in seq order, so a reader that follows the log by "seq greater than
the last one I saw" misses nothing, in this process or in another.

Writes go through one thread (`group_commit`), reads do not wait for it (`log_reader`).

Rows of replaced and deleted points are removed by whoever knows that nobody needs them any more
(`delete_rows`). There is no index on the point id: random ids halve the ingest rate, and a shard
knows the current seq of its points anyway.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from .errors import CollectionExistsError, CollectionNotFoundError, DataDirError, ReadOnlyError
from .group_commit import GroupCommit
from .log_reader import LogReader, Seen
from .log_rows import (
    CollectionRecord,
    Durability,
    Entry,
    LogRow,
    Op,
    StoredPoint,
    point_id,
    point_key,
)
from .schema import (
    check,
    cleared,
    collections,
    discarded,
    log_table,
    open_engine,
    prepare,
    take,
    touch,
)

__all__ = [
    "Also",
    "CollectionRecord",
    "Durability",
    "Entry",
    "LogRow",
    "Op",
    "Store",
    "StoredPoint",
    "point_id",
    "point_key",
]

DELETE_ROWS = 500
"""Log rows removed in one transaction: bounds how long a write waits behind it."""

Also = Callable[[sa.Connection], None]
"""What is done in the transaction of a write."""


class Store(LogReader):
    """The log and the collections of one deployment. Thread-safe.

    `url` is an SQLAlchemy URL. `max_queued_rows` bounds what waits for the disk: over it, `append`
    raises TooManyRequestsError. `partitions` are read of the logs; writes may be of any. With
    `read_only` every write raises ReadOnlyError. Raises
    DataDirError if the store cannot be opened.
    """

    def __init__(
        self,
        url: str | sa.URL,
        *,
        max_queued_rows: int = 200_000,
        partitions: frozenset[int] | None = None,
        read_only: bool = False,
    ) -> None:
        super().__init__(open_engine(url, read_only=read_only), partitions)
        self._relaxed = open_engine(url, relaxed=True)
        self._writer: GroupCommit | None = None
        try:
            if read_only:
                check(self._engine)
                return
            prepare(self._engine)
        except sa.exc.DBAPIError as error:
            self._dispose()
            raise DataDirError(f"the store cannot be opened: {error.orig}") from error
        except BaseException:
            self._dispose()
            raise
        self._writer = GroupCommit(self._engine, self._relaxed, max_queued_rows, self.head())

    @classmethod
    def open_directory(
        cls, directory: Path, *, max_queued_rows: int = 200_000, read_only: bool = False
    ) -> Store:
        """The embedded store (SQLite) in `directory`, which must exist."""
        path = directory / "store.sqlite3"
        url = sa.URL.create("sqlite", database=str(path))
        if read_only:
            options = {"mode": "ro", "uri": "true"}
            url = sa.URL.create("sqlite", database=path.resolve().as_uri(), query=options)
        return cls(url, max_queued_rows=max_queued_rows, read_only=read_only)

    def close(self) -> None:
        """Finish what is queued, then close. Later writes raise StoreUnavailableError."""
        if self._writer is not None:
            self._writer.close()
        self._dispose()

    def _dispose(self) -> None:
        # Last the engine whose connections sync: SQLite's last one to close moves the log over.
        self._relaxed.dispose()
        self._engine.dispose()

    @property
    def queued_rows(self) -> int:
        """Rows which wait for the disk now."""
        return 0 if self._writer is None else self._writer.queued_rows

    @property
    def commits(self) -> int:
        """Transactions committed since the store was opened."""
        return 0 if self._writer is None else self._writer.commits

    @property
    def failed_rows(self) -> int:
        """Rows that could not be written since the store was opened."""
        return 0 if self._writer is None else self._writer.failed_rows

    @property
    def _group_commit(self) -> GroupCommit:
        if self._writer is None:
            raise ReadOnlyError("this server only reads; write to the one that it follows")
        return self._writer

    # --- collections ---------------------------------------------------------------------------

    def create_collection(self, name: str, config: dict[str, Any]) -> CollectionRecord:
        """Record a new collection. Raises CollectionExistsError."""
        created_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")

        def run(connection: sa.Connection) -> CollectionRecord:
            known = sa.select(collections.c.id).where(collections.c.name == name)
            if connection.execute(known).first() is not None:
                raise CollectionExistsError(f"collection {name!r} exists")
            record = CollectionRecord(take(connection, "collection", 1), name, config, created_at)
            connection.execute(
                collections.insert().values(
                    id=record.id, name=name, config=config, created_at=created_at
                )
            )
            return record

        record: CollectionRecord = self.transact(run)
        return record

    def delete_collection(self, collection: int) -> None:
        """Forget a collection; its rows are removed in the background.

        Raises CollectionNotFoundError.
        """

        def run(connection: sa.Connection) -> None:
            gone = connection.execute(collections.delete().where(collections.c.id == collection))
            if gone.rowcount == 0:
                raise CollectionNotFoundError("the collection was deleted")
            connection.execute(discarded.insert().values(collection=collection))

        self.transact(run)

    def rename_collection(
        self, collection: int, name: str, instead_of: int | None
    ) -> CollectionRecord:
        """Give a collection a name; the one that has it (`instead_of`) is deleted in the same step.

        Raises CollectionNotFoundError, CollectionExistsError if another one has the name.
        """
        mine = collections.c.id == collection

        def run(connection: sa.Connection) -> CollectionRecord:
            if instead_of is not None:
                connection.execute(collections.delete().where(collections.c.id == instead_of))
                connection.execute(discarded.insert().values(collection=instead_of))
            taken = sa.select(collections.c.id).where(collections.c.name == name)
            if connection.execute(taken).first() is not None:
                raise CollectionExistsError(f"collection {name!r} exists")
            connection.execute(collections.update().where(mine).values(name=name))
            row = connection.execute(sa.select(collections).where(mine)).first()
            if row is None:
                raise CollectionNotFoundError("the collection was deleted")
            return CollectionRecord(row.id, row.name, row.config, row.created_at)

        record: CollectionRecord = self.transact(run)
        return record

    def change_config(self, collection: int, config: dict[str, Any]) -> CollectionRecord:
        """Give a collection another configuration. Raises CollectionNotFoundError."""
        mine = collections.c.id == collection

        def run(connection: sa.Connection) -> CollectionRecord:
            connection.execute(collections.update().where(mine).values(config=config))
            row = connection.execute(sa.select(collections).where(mine)).first()
            if row is None:
                raise CollectionNotFoundError("the collection was deleted")
            return CollectionRecord(row.id, row.name, row.config, row.created_at)

        record: CollectionRecord = self.transact(run)
        return record

    # --- writing -------------------------------------------------------------------------------

    def append(
        self,
        collection: int,
        entries: Sequence[Entry],
        on_commit: Callable[[int, int], None] | None = None,
        *,
        durable: bool = True,
        also: Also | None = None,
    ) -> Future[int]:
        """Queue `entries`; the future gives the seq of the first, once all are committed.

        Committed is on disk, unless `durable` is false: then a failing machine may lose it.

        The others follow without a gap. `on_commit` is called in the writer's thread, in log
        order, before the future is done, with that seq and with the seq since which no other
        process has written; it must be quick and must not raise.
        The future raises CollectionNotFoundError or StoreUnavailableError, and then no entry was
        kept. Raises TooManyRequestsError if too much is waiting.

        `also` is done in the same transaction; if it raises, the future does and no entry is kept.
        """
        return self._group_commit.append(collection, entries, on_commit, durable, also)

    def observe(self, tell: Callable[[Seen], None]) -> None:
        """See `LogReader.observe`; `tell` is called as `on_commit` of `append`, between commits."""
        if self._writer is None:
            super().observe(tell)
        else:
            self._writer.observe(tell)

    @property
    def others_wrote(self) -> bool:
        """Whether the log goes further than this process knows. Raises StoreUnavailableError."""
        return self._writer is None or self.head() >= self._writer.next_seq

    def sync(self) -> None:
        """Return once all that was committed before is on disk. Raises StoreUnavailableError."""
        if self._writer is not None and self._writer.unsynced:
            self.transact(touch)

    def delete_rows(self, collection: int, seqs: Sequence[int]) -> None:
        """Remove log rows of a collection, rising seqs, in several small transactions.

        Whoever follows the log learns of it by `cleared`. Raises StoreUnavailableError; then
        the first ones may be gone.
        """
        for start in range(0, len(seqs), DELETE_ROWS):
            part = list(seqs[start : start + DELETE_ROWS])

            def run(connection: sa.Connection, part: list[int] = part) -> None:
                _note_cleared(connection, collection, part[-1])
                connection.execute(log_table.delete().where(log_table.c.seq.in_(part)))

            self.transact(run)

    def transact(self, run: Callable[[sa.Connection], Any]) -> Any:
        """What `run` returns, done in a transaction of its own and on disk.

        Raises what `run` does of ours, StoreUnavailableError for all else; then nothing changed.
        """
        return self._group_commit.submit(run)


def _note_cleared(connection: sa.Connection, collection: int, upto: int) -> None:
    upto_now = sa.case((cleared.c.upto < upto, upto), else_=cleared.c.upto)
    noted = connection.execute(
        cleared.update()
        .where(cleared.c.collection == collection)
        .values(upto=upto_now, removals=cleared.c.removals + 1)
    )
    if noted.rowcount == 0:
        connection.execute(cleared.insert().values(collection=collection, upto=upto, removals=1))
