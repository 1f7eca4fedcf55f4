"""Reading the log and the list of collections, in the process that writes or in another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from .log_rows import CollectionRecord, LogRow, StoredPoint
from .schema import cleared, collections, log_table, next_seq, seq_type, unavailable

__all__ = ["Cleared", "LogReader", "Seen", "Watch"]

ROWS_AT_ONCE = 500
"""Whole log rows read at a time."""
LOOKUP_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Lookups are padded to one of these sizes, so that few statements are ever prepared."""


class Cleared(NamedTuple):
    """Superfluous rows up to `upto` may be gone, removed in so many steps."""

    upto: int
    removals: int


_LOG_ROW = (
    log_table.c.seq,
    log_table.c.point,
    log_table.c.op,
    log_table.c.features,
    log_table.c.payload.is_not(None),
)


class Seen(NamedTuple):
    """How far the log goes (`last`), and since when this process alone has written to it."""

    last: int
    own_since: int


class LogReader:
    """What a store holds. Thread-safe; no lock is held between two calls.

    `partitions`: what a shard of a cluster reads of each log (None: all). A row that is looked up
    by its seq is found all the same.
    """

    def __init__(self, engine: sa.Engine, partitions: frozenset[int] | None = None) -> None:
        self._engine = engine
        self._partitions = partitions
        self._positional = engine.dialect.positional
        self._driver_error: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._lookups: dict[tuple[int, str], str] = {}

    def cleared(self, collection: int) -> Cleared:
        """What was removed from the log of a collection.

        To be asked after rows were read: who follows the log from before `upto` may have missed
        what the removed rows said, a deletion for instance, and has to begin again from the sealed
        files, which go at least as far. Raises StoreUnavailableError.
        """
        statement = sa.select(cleared.c.upto, cleared.c.removals).where(
            cleared.c.collection == collection
        )
        with self.reading() as connection:
            row = connection.execute(statement).first()
            return Cleared(0, 0) if row is None else Cleared(*row)

    def observe(self, tell: Callable[[Seen], None]) -> None:
        """Call `tell` with how far the log goes now. Raises StoreUnavailableError."""
        last = self.head()
        tell(Seen(last, last + 1))

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A connection that sees the tables as they are at its first statement.

        Raises StoreUnavailableError.
        """
        level = "SERIALIZABLE" if self._engine.dialect.name == "sqlite" else "REPEATABLE READ"
        with self.reading() as connection:
            connection.execution_options(isolation_level=level)
            with connection.begin():
                yield connection

    def confine(self, partitions: frozenset[int]) -> None:
        """Read these partitions from now on."""
        self._partitions = partitions

    def list_collections(self) -> list[CollectionRecord]:
        """All collections, by name."""
        with self.reading() as connection:
            rows = connection.execute(sa.select(collections).order_by(collections.c.name))
            return [CollectionRecord(r.id, r.name, r.config, r.created_at) for r in rows]

    def read(self, collection: int, after: int, upto: int | None, limit: int) -> list[LogRow]:
        """The first `limit` rows of the collection in `after` < seq <= `upto`, in order.

        Raises StoreUnavailableError.
        """
        wanted = [*self._of(collection), log_table.c.seq > after]
        if upto is not None:
            wanted.append(log_table.c.seq <= upto)
        statement = sa.select(*_LOG_ROW).where(*wanted).order_by(log_table.c.seq).limit(limit)
        with self.reading() as connection:
            return [
                LogRow(seq, point, op, features, bool(has_payload))
                for seq, point, op, features, has_payload in connection.execute(statement).all()
            ]

    def read_from(self, collection: int, after: int, chunk: int = 10_000) -> Iterator[list[LogRow]]:
        """The collection's rows with a seq greater than `after`, in order, `chunk` at a time.

        Each chunk is read at once and no lock is held between two: a slow reader hinders nobody.
        Raises StoreUnavailableError.
        """
        while True:
            rows = self.read(collection, after, None, chunk)
            if rows:
                yield rows
                after = rows[-1].seq
            if len(rows) < chunk:
                return

    def head(self) -> int:
        """The last seq: all rows up to it are committed. Raises StoreUnavailableError."""
        with self.reading() as connection:
            return next_seq(connection) - 1

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
            sa.select(*(log_table.c[n] for n in ("seq", "point", "features", "source", "payload")))
            .where(
                log_table.c.collection == collection,
                log_table.c.seq >= sa.bindparam("first"),
                log_table.c.seq <= sa.bindparam("last"),
            )
            .order_by(log_table.c.seq)
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
            with self.reading() as connection:
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

        Reads the index alone where all partitions are read. Raises StoreUnavailableError.
        """
        statement = (
            sa.select(log_table.c.seq)
            .where(
                *self._of(collection),
                log_table.c.seq > sa.bindparam("after"),
                log_table.c.seq <= upto,
            )
            .order_by(log_table.c.seq)
            .limit(chunk)
        )
        while True:
            with self.reading() as connection:
                found = list(connection.scalars(statement, {"after": after}))
            if found:
                yield found
                after = found[-1]
            if len(found) < chunk:
                return

    def count_rows(self, collection: int, after: int = 0) -> int:
        """Log rows of the collection behind `after`, superseded ones and deletions included."""
        statement = sa.select(sa.func.count()).where(*self._of(collection), log_table.c.seq > after)
        with self.reading() as connection:
            return int(connection.execute(statement).scalar_one())

    def _of(self, collection: int) -> list[sa.ColumnElement[bool]]:
        """Which rows are read of a collection's log."""
        mine: list[sa.ColumnElement[bool]] = [log_table.c.collection == collection]
        if self._partitions is not None:
            mine.append(log_table.c.partition.in_(sorted(self._partitions)))
        return mine

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
            raise unavailable(error) from error

    def _lookup_statement(self, size: int, columns: str) -> str:
        """Text of the lookup of `size` seqs in the driver's own parameter style, made once."""
        key = (size, columns)
        statement = self._lookups.get(key)
        if statement is None:
            names = [log_table.c[name] for name in columns.split(", ")]
            wanted = [sa.bindparam(f"s{i}", type_=seq_type) for i in range(size)]
            # or_(seq = ?, …) would plan worse; IN over single parameters keeps their order.
            clause = log_table.c.seq.in_(wanted)
            statement = str(sa.select(*names).where(clause).compile(dialect=self._engine.dialect))
            self._lookups[key] = statement
        return statement

    def raw_connection(self) -> Any:
        """A connection of the driver, to be closed by the caller. Raises StoreUnavailableError."""
        try:
            return self._engine.raw_connection()
        except sa.exc.SQLAlchemyError as error:
            raise unavailable(error) from error

    @property
    def counts_changes(self) -> bool:
        """Whether the database can say on a connection that others have committed (SQLite)."""
        return self._engine.dialect.name == "sqlite"

    def reading(self) -> _Reading:
        """A connection for reading; errors of the database become StoreUnavailableError."""
        return _Reading(self._engine)


class _Reading:
    """See `LogReader.reading`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: sa.Connection | None = None

    def __enter__(self) -> sa.Connection:
        try:
            self._connection = self._engine.connect()
        except sa.exc.SQLAlchemyError as error:
            raise unavailable(error) from error
        return self._connection

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert self._connection is not None
        self._connection.close()
        if isinstance(error, sa.exc.SQLAlchemyError):
            raise unavailable(error) from error


class Watch:
    """Tells cheaply whether anybody has committed since it was asked last. For one thread."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._connection: Any = None
        self._version: int | None = None

    def changed(self) -> bool:
        """True if so, and where the database cannot tell. Raises StoreUnavailableError."""
        if not self._log.counts_changes:
            return True
        if self._connection is None:
            self._connection = self._log.raw_connection()
        try:
            version = self._connection.cursor().execute("PRAGMA data_version").fetchone()[0]
        except Exception as error:
            self.close()
            raise unavailable(error) from error
        before, self._version = self._version, version
        return bool(before != version)

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection, self._version = self._connection, None, None
        if connection is not None:
            connection.close()
