"""The durable store: what is acknowledged is here, on disk.

One append-only log holds every put and every delete of every collection:

    collections   id | name (unique) | config (JSON) | created_at
    log           seq | collection | point | op | features | source | payload
    head          one row: the next free seq
    discarded     collections which were deleted and whose log rows are still being removed
    meta          schema_version

`seq` orders all writes. The current row of a point is the one of greatest `seq`; a row is never
changed, so whoever holds a `seq` can read that version of the point at any later time and never
sees a mixture. Seqs are taken from `head` inside the transaction which writes the rows: the lock
on that row makes transactions commit in seq order, so a reader that follows the log by "seq
greater than the last one I saw" misses nothing, in this process or in another.

Group commit: requests queue their writes; one thread takes all that are waiting, writes them in
one transaction and completes them after the commit (one fsync for all). A write that cannot be
done is separated from the others and fails alone.

A group of which no write asks for it is committed without fsync (`Durability`): it outlives the
process, and the machine's failure once `sync` was called or `SYNC_SECONDS` have passed. The log on
disk is always a prefix of the log: no write is there without those before it.

Rows of replaced and deleted points are removed by whoever knows that nobody needs them any more
(`delete_rows`). There is no index on the point id: random ids halve the ingest rate, and a shard
knows the current seq of its points anyway.

Plain SQLAlchemy Core types throughout; what is special to SQLite is in `_tune_sqlite`.
"""

from __future__ import annotations

import collections
import datetime
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
import structlog

from .errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    DataDirError,
    StoreUnavailableError,
    TooManyRequestsError,
)

__all__ = [
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

SCHEMA_VERSION = 1
MAX_GROUP_ROWS = 20_000
"""Rows of one transaction: bounds how long a small write waits behind large ones."""
PURGE_ROWS = 5_000
"""Rows of a deleted collection which are removed between two other transactions."""
ROWS_AT_ONCE = 500
"""Whole log rows read at a time."""
DELETE_ROWS = 500
"""Log rows removed in one transaction: bounds how long a write waits behind it."""
SYNC_SECONDS = 1.0
"""How long a commit without fsync may stay without one."""
LOOKUP_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Lookups are padded to one of these sizes, so that few statements are ever prepared."""

log = structlog.get_logger(__name__)

_seq = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_metadata = sa.MetaData()
_meta = sa.Table(
    "meta",
    _metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
_head = sa.Table(
    "head",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("next", _seq, nullable=False),
)
_collections = sa.Table(
    "collections",
    _metadata,
    sa.Column("id", _seq, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
)
_discarded = sa.Table(
    "discarded",
    _metadata,
    sa.Column("collection", _seq, primary_key=True, autoincrement=False),
)
_log = sa.Table(
    "log",
    _metadata,
    sa.Column("seq", _seq, primary_key=True, autoincrement=False),
    sa.Column("collection", _seq, nullable=False),
    sa.Column("point", sa.Text, nullable=False),
    sa.Column("op", sa.SmallInteger, nullable=False),
    sa.Column("features", sa.LargeBinary),
    sa.Column("source", sa.LargeBinary),
    sa.Column("payload", sa.LargeBinary),
    sa.Index("log_by_collection", "collection", "seq"),
)


class Durability(IntEnum):
    """When a write is acknowledged.

    NONE      it is in the queue: lost if the process dies now
    INDEXED   it is committed and found by queries: lost if the machine fails within a second
    FSYNC     it is also on disk: never lost
    """

    NONE = 0
    INDEXED = 1
    FSYNC = 2


class Op(IntEnum):
    """What a log row does to its point."""

    PUT = 1
    DELETE = 2


class Entry(NamedTuple):
    """One row to append: a point's new version, or its deletion (`features` None).

    `point` is the id as canonical JSON, so that 5 and "5" differ; `features` comes from
    `features.encode_rows`; `source` is the raw input where features do not tell it; `payload`
    is compact JSON.
    """

    point: str
    op: Op
    features: bytes | None = None
    source: bytes | None = None
    payload: bytes | None = None


class LogRow(NamedTuple):
    """One row of the log as it is replayed."""

    seq: int
    point: str
    op: int
    features: bytes | None
    has_payload: bool


class StoredPoint(NamedTuple):
    """One version of a point as it is looked up."""

    seq: int
    point: str
    features: bytes | None
    source: bytes | None
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection as the store knows it; `created_at` is ISO 8601 in UTC."""

    id: int
    name: str
    config: dict[str, Any]
    created_at: str


@dataclass(slots=True)
class _Write:
    """Rows of one request on their way to the disk."""

    collection: int
    entries: Sequence[Entry]
    on_commit: Callable[[int], None] | None
    done: Future[int]
    durable: bool


@dataclass(slots=True)
class _Task:
    """Something else that writes; it gets a transaction of its own."""

    run: Callable[[sa.Connection], Any]
    done: Future[Any]


class Store:
    """The log and the collections of one deployment. Thread-safe.

    `url` is an SQLAlchemy URL. `max_queued_rows` bounds what waits for the disk: over it, `append`
    raises TooManyRequestsError. Raises DataDirError if the store cannot be opened.
    """

    def __init__(self, url: str | sa.URL, *, max_queued_rows: int = 200_000) -> None:
        self._engine = _open_engine(url)
        # Commits that need not be on disk at once; see Durability.
        self._relaxed = _open_engine(url, relaxed=True)
        self._unsynced_since: float | None = None
        self._insert = str(_log.insert().compile(dialect=self._engine.dialect))
        self._positional = self._engine.dialect.positional
        self._driver_error: type[Exception] = self._engine.dialect.loaded_dbapi.Error
        self._lookups: dict[tuple[int, str], str] = {}
        self._queue: collections.deque[_Write | _Task] = collections.deque()
        self._queued_rows = 0
        self._max_queued_rows = max_queued_rows
        self._wake = threading.Condition()
        self._closing = False
        self.commits = 0
        """Transactions committed since the store was opened."""
        self.failed_rows = 0
        """Rows that could not be written since the store was opened."""
        try:
            self._prepare_schema()
        except sa.exc.DBAPIError as error:
            self._dispose()
            raise DataDirError(f"the store cannot be opened: {error.orig}") from error
        except BaseException:
            self._dispose()
            raise
        self._writer = threading.Thread(target=self._write_loop, name="closeby-store", daemon=True)
        self._writer.start()

    @classmethod
    def open_directory(cls, directory: Path, *, max_queued_rows: int = 200_000) -> Store:
        """The embedded store (SQLite) in `directory`, which must exist."""
        url = sa.URL.create("sqlite", database=str(directory / "store.sqlite3"))
        return cls(url, max_queued_rows=max_queued_rows)

    def close(self) -> None:
        """Finish what is queued, then close. Later writes raise StoreUnavailableError."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._writer.join()
        self._dispose()

    def _dispose(self) -> None:
        # Last the engine whose connections sync: SQLite's last one to close moves the log over.
        self._relaxed.dispose()
        self._engine.dispose()

    @property
    def queued_rows(self) -> int:
        """Rows which wait for the disk now."""
        return self._queued_rows

    # --- collections ---------------------------------------------------------------------------

    def create_collection(self, name: str, config: dict[str, Any]) -> CollectionRecord:
        """Record a new collection. Raises CollectionExistsError."""
        created_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")

        def run(connection: sa.Connection) -> CollectionRecord:
            known = sa.select(_collections.c.id).where(_collections.c.name == name)
            if connection.execute(known).first() is not None:
                raise CollectionExistsError(f"collection {name!r} exists")
            record = CollectionRecord(_take(connection, "collection", 1), name, config, created_at)
            connection.execute(
                _collections.insert().values(
                    id=record.id, name=name, config=config, created_at=created_at
                )
            )
            return record

        record: CollectionRecord = self._submit(run)
        return record

    def delete_collection(self, collection: int) -> None:
        """Forget a collection; its rows are removed in the background.

        Raises CollectionNotFoundError.
        """

        def run(connection: sa.Connection) -> None:
            gone = connection.execute(_collections.delete().where(_collections.c.id == collection))
            if gone.rowcount == 0:
                raise CollectionNotFoundError("the collection was deleted")
            connection.execute(_discarded.insert().values(collection=collection))

        self._submit(run)

    def rename_collection(
        self, collection: int, name: str, instead_of: int | None
    ) -> CollectionRecord:
        """Give a collection a name; the one that has it (`instead_of`) is deleted in the same step.

        Raises CollectionNotFoundError, CollectionExistsError if another one has the name.
        """
        mine = _collections.c.id == collection

        def run(connection: sa.Connection) -> CollectionRecord:
            if instead_of is not None:
                connection.execute(_collections.delete().where(_collections.c.id == instead_of))
                connection.execute(_discarded.insert().values(collection=instead_of))
            taken = sa.select(_collections.c.id).where(_collections.c.name == name)
            if connection.execute(taken).first() is not None:
                raise CollectionExistsError(f"collection {name!r} exists")
            connection.execute(_collections.update().where(mine).values(name=name))
            row = connection.execute(sa.select(_collections).where(mine)).first()
            if row is None:
                raise CollectionNotFoundError("the collection was deleted")
            return CollectionRecord(row.id, row.name, row.config, row.created_at)

        record: CollectionRecord = self._submit(run)
        return record

    def list_collections(self) -> list[CollectionRecord]:
        """All collections, by name."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(_collections).order_by(_collections.c.name))
            return [CollectionRecord(r.id, r.name, r.config, r.created_at) for r in rows]

    # --- writing -------------------------------------------------------------------------------

    def append(
        self,
        collection: int,
        entries: Sequence[Entry],
        on_commit: Callable[[int], None] | None = None,
        *,
        durable: bool = True,
    ) -> Future[int]:
        """Queue `entries`; the future gives the seq of the first, once all are committed.

        Committed is on disk, unless `durable` is false: then a failing machine may lose it.

        The others follow without a gap. `on_commit` is called with that seq in the writer's
        thread, in log order, before the future is done; it must be quick and must not raise.
        The future raises CollectionNotFoundError or StoreUnavailableError, and then no entry was
        kept. Raises TooManyRequestsError if too much is waiting.
        """
        if not entries:
            raise ValueError("nothing to append")
        write = _Write(collection, entries, on_commit, Future(), durable)
        with self._wake:
            # A single write larger than the bound still goes through an empty queue.
            if self._queued_rows and self._queued_rows + len(entries) > self._max_queued_rows:
                raise TooManyRequestsError(
                    f"{self._queued_rows} points are waiting for the disk", retry_after=1
                )
            self._enqueue(write)
            self._queued_rows += len(entries)
        return write.done

    def sync(self) -> None:
        """Return once all that was committed before is on disk. Raises StoreUnavailableError."""
        if self._unsynced_since is not None:
            self._submit(_touch)

    def delete_rows(self, seqs: Sequence[int]) -> None:
        """Remove log rows, in this order, in several small transactions.

        Raises StoreUnavailableError; then the first ones may be gone.
        """
        for start in range(0, len(seqs), DELETE_ROWS):
            part = list(seqs[start : start + DELETE_ROWS])

            def run(connection: sa.Connection, part: list[int] = part) -> None:
                connection.execute(_log.delete().where(_log.c.seq.in_(part)))

            self._submit(run)

    def _submit(self, run: Callable[[sa.Connection], Any]) -> Any:
        task = _Task(run, Future())
        with self._wake:
            self._enqueue(task)
        return task.done.result()

    def _enqueue(self, item: _Write | _Task) -> None:
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
                _touch(connection)
        except sa.exc.DBAPIError as error:
            log.warning("sync_failed", error=str(error))
            self._unsynced_since = time.monotonic()
        else:
            self._unsynced_since = None

    def _next_group(self, *, wait: bool) -> list[_Write | _Task] | None:
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
                    if isinstance(following, _Task):
                        break
                    rows += len(following.entries)
                    if rows > MAX_GROUP_ROWS:
                        break
                    group.append(self._queue.popleft())
                self._queued_rows -= sum(len(w.entries) for w in group if isinstance(w, _Write))
            return group

    def _commit_group(self, writes: list[_Write]) -> None:
        try:
            firsts = self._insert_group(writes)
        except Exception as error:  # whatever it is, the requests which wait must hear of it
            self._fail_group(writes, error)
            return
        for write, first in zip(writes, firsts, strict=True):
            if isinstance(first, Exception):
                write.done.set_exception(first)
                continue
            if write.on_commit is not None:
                write.on_commit(first)
            write.done.set_result(first)

    def _fail_group(self, writes: list[_Write], error: Exception) -> None:
        """Nothing of `writes` was kept: do each alone, so that only the guilty one fails."""
        if len(writes) > 1:
            for write in writes:
                self._commit_group([write])
            return
        log.error("commit_failed", error=str(error), rows=len(writes[0].entries))
        self.failed_rows += len(writes[0].entries)
        writes[0].done.set_exception(_unavailable(error))

    def _insert_group(self, writes: list[_Write]) -> list[int | Exception]:
        """The first seq of each write, or why it was left out; on disk on return."""
        durable = any(write.durable for write in writes)
        with (self._engine if durable else self._relaxed).begin() as connection:
            total = sum(len(write.entries) for write in writes)
            seq = _take(connection, "log", total)
            wanted = {write.collection for write in writes}
            known = set(
                connection.scalars(
                    sa.select(_collections.c.id).where(_collections.c.id.in_(wanted))
                )
            )
            rows: list[tuple[Any, ...]] = []
            firsts: list[int | Exception] = []
            for write in writes:
                if write.collection not in known:
                    firsts.append(CollectionNotFoundError("the collection was deleted"))
                    continue
                firsts.append(seq)
                collection = write.collection
                rows.extend((i, collection, *entry) for i, entry in enumerate(write.entries, seq))
                seq += len(write.entries)
            if rows:
                connection.exec_driver_sql(self._insert, self._parameters(rows))
        self.commits += 1
        if durable:
            self._unsynced_since = None
        elif self._unsynced_since is None:
            self._unsynced_since = time.monotonic()
        return firsts

    def _parameters(self, rows: list[tuple[Any, ...]]) -> Any:
        if self._positional:
            return rows
        names = _log.c.keys()
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _run_task(self, task: _Task) -> None:
        try:
            with self._engine.begin() as connection:
                result = task.run(connection)
        except (CollectionExistsError, CollectionNotFoundError) as error:
            task.done.set_exception(error)
        except Exception as error:  # handed to the caller who waits
            task.done.set_exception(_unavailable(error))
        else:
            self.commits += 1
            self._unsynced_since = None
            task.done.set_result(result)

    def _purge_some(self) -> bool:
        """Remove some rows of deleted collections; False if none are left."""
        try:
            with self._engine.begin() as connection:
                found = connection.execute(sa.select(_discarded.c.collection).limit(1)).scalar()
                if found is None:
                    return False
                some = (
                    sa.select(_log.c.seq).where(_log.c.collection == found).limit(PURGE_ROWS)
                ).scalar_subquery()
                gone = connection.execute(_log.delete().where(_log.c.seq.in_(some)))
                if gone.rowcount == 0:
                    connection.execute(_discarded.delete().where(_discarded.c.collection == found))
        except sa.exc.DBAPIError as error:
            log.warning("purge_failed", error=str(error))
            return False
        return True

    # --- reading -------------------------------------------------------------------------------

    def read_from(self, collection: int, after: int, chunk: int = 10_000) -> Iterator[list[LogRow]]:
        """The collection's rows with a seq greater than `after`, in order, `chunk` at a time.

        Each chunk is read at once and no lock is held between two: a slow reader hinders nobody.
        Raises StoreUnavailableError.
        """
        columns = (
            _log.c.seq,
            _log.c.point,
            _log.c.op,
            _log.c.features,
            _log.c.payload.is_not(None),
        )
        statement = (
            sa.select(*columns)
            .where(_log.c.collection == collection, _log.c.seq > sa.bindparam("after"))
            .order_by(_log.c.seq)
            .limit(chunk)
        )
        while True:
            with self._reading() as connection:
                rows = [
                    LogRow(seq, point, op, features, bool(has_payload))
                    for seq, point, op, features, has_payload in connection.execute(
                        statement, {"after": after}
                    )
                ]
            if rows:
                yield rows
                after = rows[-1].seq
            if len(rows) < chunk:
                return

    def get(self, seqs: Sequence[int]) -> dict[int, StoredPoint]:
        """The rows of `seqs`, by seq; a seq whose row is gone is left out.

        Raises StoreUnavailableError.
        """
        return {
            row[0]: StoredPoint(*row)
            for row in self._lookup(seqs, "seq, point, features, source, payload")
        }

    def rows(self, collection: int, seqs: Sequence[int]) -> Iterator[StoredPoint]:
        """The rows of `seqs` (rising), in order; a row that is gone is left out.

        Reads the log in stretches, so it is quick where nearly all rows are wanted.
        Raises StoreUnavailableError.
        """
        statement = (
            sa.select(*(_log.c[n] for n in ("seq", "point", "features", "source", "payload")))
            .where(
                _log.c.collection == collection,
                _log.c.seq >= sa.bindparam("first"),
                _log.c.seq <= sa.bindparam("last"),
            )
            .order_by(_log.c.seq)
        )
        start = 0
        while start < len(seqs):
            # A stretch without large gaps, whose rows are nearly all wanted.
            stop = min(start + ROWS_AT_ONCE, len(seqs))
            while seqs[stop - 1] - seqs[start] > 2 * ROWS_AT_ONCE:
                stop = start + (stop - start + 1) // 2
                if stop == start + 1:
                    break
            wanted = set(seqs[start:stop])
            limits = {"first": seqs[start], "last": seqs[stop - 1]}
            with self._reading() as connection:
                found = [StoredPoint(*row) for row in connection.execute(statement, limits)]
            yield from (row for row in found if row.seq in wanted)
            start = stop

    def get_payloads(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """Payloads (compact JSON) by seq; those without are left out."""
        return {
            seq: payload
            for seq, payload in self._lookup(seqs, "seq, payload")
            if payload is not None
        }

    def seqs(
        self, collection: int, after: int, upto: int, chunk: int = 10_000
    ) -> Iterator[list[int]]:
        """Seqs of the collection's rows in `after` < seq <= `upto`, rising, `chunk` at a time.

        Reads the index alone. Raises StoreUnavailableError.
        """
        statement = (
            sa.select(_log.c.seq)
            .where(
                _log.c.collection == collection,
                _log.c.seq > sa.bindparam("after"),
                _log.c.seq <= upto,
            )
            .order_by(_log.c.seq)
            .limit(chunk)
        )
        while True:
            with self._reading() as connection:
                found = list(connection.scalars(statement, {"after": after}))
            if found:
                yield found
                after = found[-1]
            if len(found) < chunk:
                return

    def count_rows(self, collection: int, after: int = 0) -> int:
        """Log rows of the collection behind `after`, superseded ones and deletions included."""
        statement = sa.select(sa.func.count()).where(
            _log.c.collection == collection, _log.c.seq > after
        )
        with self._reading() as connection:
            return int(connection.execute(statement).scalar_one())

    def _lookup(self, seqs: Sequence[int], columns: str) -> Iterator[Any]:
        """Rows of `seqs`, through the driver itself.

        A query waits for this, and the layer above takes three times as long as the lookup.
        """
        largest = LOOKUP_SIZES[-1]
        try:
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                for start in range(0, len(seqs), largest):
                    part = list(seqs[start : start + largest])
                    size = next(size for size in LOOKUP_SIZES if size >= len(part))
                    part.extend([part[-1]] * (size - len(part)))
                    parameters: Any = (
                        part if self._positional else {f"s{i}": seq for i, seq in enumerate(part)}
                    )
                    cursor.execute(self._lookup_statement(size, columns), parameters)
                    yield from cursor.fetchall()
            finally:
                connection.close()
        except (sa.exc.SQLAlchemyError, self._driver_error) as error:
            raise _unavailable(error) from error

    def _lookup_statement(self, size: int, columns: str) -> str:
        """Text of the lookup of `size` seqs in the driver's own parameter style, made once."""
        key = (size, columns)
        statement = self._lookups.get(key)
        if statement is None:
            names = [_log.c[name] for name in columns.split(", ")]
            wanted = [sa.bindparam(f"s{i}", type_=_seq) for i in range(size)]
            # or_(seq = ?, …) would plan worse; IN over single parameters keeps their order.
            clause = _log.c.seq.in_(wanted)
            statement = str(sa.select(*names).where(clause).compile(dialect=self._engine.dialect))
            self._lookups[key] = statement
        return statement

    def _reading(self) -> _Reading:
        return _Reading(self._engine)

    # --- schema --------------------------------------------------------------------------------

    def _prepare_schema(self) -> None:
        _metadata.create_all(self._engine)
        with self._engine.begin() as connection:
            stored = connection.execute(
                sa.select(_meta.c.value).where(_meta.c.key == "schema_version")
            ).scalar()
            if stored is None:
                connection.execute(
                    _meta.insert().values(key="schema_version", value=str(SCHEMA_VERSION))
                )
                connection.execute(
                    _head.insert(), [{"name": n, "next": 1} for n in ("log", "collection")]
                )
            elif stored != str(SCHEMA_VERSION):
                raise DataDirError(
                    f"the store has schema version {stored}, this closeby reads version"
                    f" {SCHEMA_VERSION}; use the closeby that wrote it, or a newer one"
                )


class _Reading:
    """A connection for reading; errors of the database become StoreUnavailableError."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: sa.Connection | None = None

    def __enter__(self) -> sa.Connection:
        try:
            self._connection = self._engine.connect()
        except sa.exc.SQLAlchemyError as error:
            raise _unavailable(error) from error
        return self._connection

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert self._connection is not None
        self._connection.close()
        if isinstance(error, sa.exc.SQLAlchemyError):
            raise _unavailable(error) from error


def point_key(point: int | str) -> str:
    """A point id as canonical JSON text, so that 5 and "5" stay distinct."""
    return orjson.dumps(point).decode()


def point_id(key: str) -> int | str:
    """The inverse of `point_key`."""
    found: int | str = orjson.loads(key)
    return found


def _take(connection: sa.Connection, name: str, count: int) -> int:
    """The first of `count` new numbers of the counter `name`, which stays locked till commit."""
    mine = _head.c.name == name
    connection.execute(_head.update().where(mine).values(next=_head.c.next + count))
    following = connection.execute(sa.select(_head.c.next).where(mine)).scalar_one()
    return int(following) - count


def _touch(connection: sa.Connection) -> None:
    """Write something: the commit brings all commits before it to the disk."""
    mine = _head.c.name == "log"
    connection.execute(_head.update().where(mine).values(next=_head.c.next))


def _unavailable(error: Exception) -> StoreUnavailableError:
    # The driver's own words ("disk full") help; the statement and its parameters do not.
    reason = getattr(error, "orig", None) or error
    return StoreUnavailableError(f"the store failed: {reason}", retry_after=1)


def _open_engine(url: str | sa.URL, *, relaxed: bool = False) -> sa.Engine:
    """A pool of connections; those of a relaxed one commit without waiting for the disk."""
    engine = sa.create_engine(url, pool_size=1 if relaxed else 8, max_overflow=64)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _tune_sqlite)
        if relaxed:
            sa.event.listen(engine, "connect", _relax_sqlite)
    elif relaxed:
        sa.event.listen(engine, "connect", _relax_postgresql)
    return engine


def _relax_sqlite(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


def _relax_postgresql(connection: Any, _record: object) -> None:
    connection.execute("SET synchronous_commit TO off")
    connection.commit()


def _tune_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        for pragma in (
            # Pages of 8 KiB: twice the bulk insert rate of 4 KiB pages with features of .5 KB.
            "page_size=8192",
            "journal_mode=WAL",
            "synchronous=FULL",
            "wal_autocheckpoint=2000",
            "busy_timeout=10000",
            "cache_size=-32768",
        ):
            cursor.execute(f"PRAGMA {pragma}")
    finally:
        cursor.close()
