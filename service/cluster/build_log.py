"""The log of a collection that is being built: written and read by many tasks at once.

The collection has a hidden name until it is whole, and no shard follows it. So its rows need not be
committed in the order of their seqs, which is what lets tasks write beside each other. A task that
comes too late, of a build that was ended or is published, finds the name gone and writes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import sqlalchemy as sa
from closeby.service.errors import CollectionNotFoundError
from closeby.service.log_rows import Entry, LogRow
from closeby.service.partitions import partition_of
from closeby.service.points_file import Seqs, key_hashes
from closeby.service.registry import HIDDEN
from closeby.service.schema import collections, log_table, open_engine, take, unavailable

__all__ = ["BUILDING", "BuildLog", "Interval"]

BUILDING = f"{HIDDEN}build-"
"""How the name of a collection begins that is being built; shards leave it alone."""
READ_ROWS = 2_000
DELETE_ROWS = 10_000

_TYPES = ("int8", "int8", "text", "int2", "bytea", "bytea", "bytea", "int2")


class Interval(NamedTuple):
    """Log rows from `first` to `last`, both seqs."""

    first: int
    last: int


class BuildLog:
    """Rows of the collection `number`, called `name` while it is built. For one thread.

    `url` is that of PostgreSQL. Methods raise StoreUnavailableError.
    """

    def __init__(self, url: str, number: int, name: str) -> None:
        self._engine = open_engine(url)
        self._number = number
        self._mine = log_table.c.collection == number
        self._building = (collections.c.id == number) & (collections.c.name == name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.dispose()

    def append(self, entries: Sequence[Entry]) -> int:
        """Write rows in one transaction; the seq of the first, the others follow without a gap.

        Raises CollectionNotFoundError if the collection is not being built any more.
        """
        with self._connected() as connection:
            # Of its own: the lock on the counter must not be held while rows are written.
            first = take(connection, "log", len(entries))
            connection.commit()
            held = sa.select(collections.c.id).where(self._building).with_for_update(read=True)
            if connection.execute(held).first() is None:
                raise CollectionNotFoundError("the collection is not being built any more")
            columns = ", ".join(log_table.c.keys())
            cursor = connection.connection.cursor()
            with cursor.copy(f"COPY log ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(_TYPES)
                for seq, entry in enumerate(entries, first):
                    copy.write_row((seq, self._number, *entry, partition_of(entry.point)))
            connection.commit()
            return first

    def keys(self, interval: Interval) -> tuple[Seqs, Any]:
        """Seqs int64 (n,) of an interval, and xxh3 of the points' keys, uint64 (n,)."""
        statement = sa.select(log_table.c.seq, log_table.c.point).where(*self._within(interval))
        with self._connected() as connection:
            rows = connection.execute(statement.order_by(log_table.c.seq)).all()
        return np.array([row.seq for row in rows], np.int64), key_hashes([r.point for r in rows])

    def points(self, seqs: Sequence[int]) -> dict[int, str]:
        """The key of each of `seqs`."""
        found: dict[int, str] = {}
        with self._connected() as connection:
            for start in range(0, len(seqs), DELETE_ROWS):
                part = log_table.c.seq.in_(seqs[start : start + DELETE_ROWS])
                rows = connection.execute(sa.select(log_table.c.seq, log_table.c.point).where(part))
                found.update((row.seq, row.point) for row in rows)
        return found

    def rows(self, intervals: Sequence[Interval]) -> Generator[list[LogRow], None, None]:
        """The rows of rising intervals, in order, some at a time."""
        columns = [log_table.c[name] for name in ("seq", "point", "op", "features")]
        has_payload = log_table.c.payload.is_not(None).label("has_payload")
        with self._connected() as connection:
            for interval in intervals:
                statement = sa.select(*columns, has_payload).where(*self._within(interval))
                found = connection.execution_options(yield_per=READ_ROWS).execute(
                    statement.order_by(log_table.c.seq)
                )
                with found:
                    for part in found.partitions():
                        yield [
                            LogRow(r.seq, r.point, r.op, r.features, r.has_payload) for r in part
                        ]

    def delete(self, seqs: Sequence[int]) -> None:
        """Remove rows."""
        with self._connected() as connection:
            for start in range(0, len(seqs), DELETE_ROWS):
                part = log_table.c.seq.in_(seqs[start : start + DELETE_ROWS])
                connection.execute(log_table.delete().where(self._mine, part))
            connection.commit()

    def keep(self, intervals: Sequence[Interval]) -> int:
        """Remove what lies in none of `intervals`: of tasks that were done twice; how many rows."""
        removed, after = 0, 0
        with self._connected() as connection:
            for interval in [*sorted(intervals), Interval(1 << 62, 1 << 62)]:
                between = (log_table.c.seq > after) & (log_table.c.seq < interval.first)
                gone = connection.execute(log_table.delete().where(self._mine, between))
                removed += gone.rowcount
                after = interval.last
            connection.commit()
        return removed

    def count(self) -> int:
        """Rows that there are."""
        with self._connected() as connection:
            counted = sa.select(sa.func.count()).where(self._mine)
            return int(connection.execute(counted).scalar_one())

    def _within(self, interval: Interval) -> tuple[sa.ColumnElement[bool], ...]:
        return (self._mine, log_table.c.seq.between(interval.first, interval.last))

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except (sa.exc.SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
            raise unavailable(error) from error
