"""The tables of the store, and how a database is opened for them.

    collections   id | name (unique) | config (JSON) | created_at
    log           seq | collection | point | op | features | source | payload | partition
    head          the next free number of each counter: `log` (seq) and `collection`
    manifests     what a shard of a cluster has sealed: collection | shard | owner | number | body
    placement     one row: which shard holds which partitions, and the epoch of that
    discarded     collections which were deleted and whose log rows are still being removed
    jobs          work which outlives its request; see `job_store`
    workers       processes that do jobs beside the server, and until when they are known to live
    cleared       up to which seq superfluous rows of a collection may have been removed
    meta          schema_version

`partition` is the point's `partitions.partition_of`: shards of a cluster read their own rows by it.

Plain SQLAlchemy Core types throughout; what is special to SQLite is in `_tune_sqlite`.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import sqlalchemy as sa

from . import migrations
from .errors import DataDirError, StoreUnavailableError

__all__ = [
    "check",
    "cleared",
    "collections",
    "discarded",
    "head",
    "jobs_table",
    "log_table",
    "manifests",
    "next_seq",
    "open_engine",
    "placement",
    "prepare",
    "seq_type",
    "take",
    "touch",
    "unavailable",
    "was_read_only",
    "workers",
]

ADVISORY_LOCK = 0x636C6F73
"""Held in PostgreSQL while the tables are made or changed."""

seq_type = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_metadata = sa.MetaData()
_meta = sa.Table(
    "meta",
    _metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
head = sa.Table(
    "head",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("next", seq_type, nullable=False),
)
collections = sa.Table(
    "collections",
    _metadata,
    sa.Column("id", seq_type, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
)
discarded = sa.Table(
    "discarded",
    _metadata,
    sa.Column("collection", seq_type, primary_key=True, autoincrement=False),
)
cleared = sa.Table(
    "cleared",
    _metadata,
    sa.Column("collection", seq_type, primary_key=True, autoincrement=False),
    sa.Column("upto", seq_type, nullable=False),
    sa.Column("removals", seq_type, nullable=False),
)
log_table = sa.Table(
    "log",
    _metadata,
    sa.Column("seq", seq_type, primary_key=True, autoincrement=False),
    sa.Column("collection", seq_type, nullable=False),
    sa.Column("point", sa.Text, nullable=False),
    sa.Column("op", sa.SmallInteger, nullable=False),
    sa.Column("features", sa.LargeBinary),
    sa.Column("source", sa.LargeBinary),
    sa.Column("payload", sa.LargeBinary),
    # Empty in rows from before schema version 2.
    sa.Column("partition", sa.SmallInteger),
    sa.Index("log_by_collection", "collection", "seq"),
)
jobs_table = sa.Table(
    "jobs",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("collection", sa.BigInteger),
    sa.Column("collection_name", sa.Text),
    sa.Column("params", sa.JSON, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("progress", sa.JSON, nullable=False),
    sa.Column("checkpoint", sa.JSON),
    sa.Column("result", sa.JSON),
    sa.Column("error", sa.JSON),
    sa.Column("errors", sa.JSON, nullable=False),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_expires", sa.Float, nullable=False),
    sa.Column("due", sa.Float, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("started_at", sa.Text),
    sa.Column("finished_at", sa.Text),
    sa.Index("jobs_by_state", "state", "id"),
)


workers = sa.Table(
    "workers",
    _metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("alive_until", sa.Float, nullable=False),
)


def next_seq(connection: sa.Connection) -> int:
    """The seq of the row that will be written next: all rows before it are committed."""
    return int(connection.execute(sa.select(head.c.next).where(head.c.name == "log")).scalar_one())


manifests = sa.Table(
    "manifests",
    _metadata,
    sa.Column("collection", seq_type, primary_key=True, autoincrement=False),
    sa.Column("shard", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary),
)
placement = sa.Table(
    "placement",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
)


def take(connection: sa.Connection, name: str, count: int) -> int:
    """The first of `count` new numbers of the counter `name`, which stays locked till commit."""
    mine = head.c.name == name
    connection.execute(head.update().where(mine).values(next=head.c.next + count))
    following = connection.execute(sa.select(head.c.next).where(mine)).scalar_one()
    return int(following) - count


def touch(connection: sa.Connection) -> None:
    """Write something: the commit brings all commits before it to the disk."""
    mine = head.c.name == "log"
    connection.execute(head.update().where(mine).values(next=head.c.next))


def unavailable(error: Exception) -> StoreUnavailableError:
    """What a failure of the database is to those who asked."""
    # The driver's own words ("disk full") help; the statement and its parameters do not.
    reason = getattr(error, "orig", None) or error
    return StoreUnavailableError(f"the store failed: {reason}", retry_after=1)


def prepare(engine: sa.Engine) -> None:
    """Make the tables if they are missing, bring those of an older version up to date.

    Raises DataDirError if they are of a newer version.
    """
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Several processes may start at once.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        _metadata.create_all(connection)
        mine = _meta.c.key == "schema_version"
        stored = connection.execute(sa.select(_meta.c.value).where(mine)).scalar()
        newest = migrations.SCHEMA_VERSION
        if stored is None:
            connection.execute(_meta.insert().values(key="schema_version", value=str(newest)))
            connection.execute(
                head.insert(), [{"name": n, "next": 1} for n in ("log", "collection")]
            )
        elif not 1 <= int(stored) <= newest:
            raise DataDirError(
                f"the store has schema version {stored}, this closeby reads versions up to"
                f" {newest}; use the closeby that wrote it, or a newer one"
            )
        elif int(stored) < newest:
            migrations.migrate(connection, int(stored))
            connection.execute(_meta.update().where(mine).values(value=str(newest)))


def check(engine: sa.Engine) -> None:
    """Raises DataDirError if the tables are not of this version."""
    stored = None
    if sa.inspect(engine).has_table(_meta.name):
        with engine.connect() as connection:
            statement = sa.select(_meta.c.value).where(_meta.c.key == "schema_version")
            stored = connection.execute(statement).scalar()
    if stored != str(migrations.SCHEMA_VERSION):
        raise DataDirError(
            f"the store has schema version {stored}, this closeby follows one of version"
            f" {migrations.SCHEMA_VERSION}; start a writing server of this closeby first"
        )


def open_engine(url: str | sa.URL, *, relaxed: bool = False, read_only: bool = False) -> sa.Engine:
    """A pool of connections; those of a relaxed one commit without waiting for the disk."""
    remote = sa.make_url(url).get_backend_name() != "sqlite"
    # A database server may have been restarted since a connection was last used.
    engine = sa.create_engine(
        url, pool_size=1 if relaxed else 8, max_overflow=64, pool_pre_ping=remote
    )
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "handle_error", _reopen_if_read_only)
        sa.event.listen(engine, "connect", _wait_sqlite if read_only else _tune_sqlite)
        if relaxed:
            sa.event.listen(engine, "connect", _relax_sqlite)
    elif relaxed:
        sa.event.listen(engine, "connect", _relax_postgresql)
    return engine


def was_read_only(error: BaseException | None) -> bool:
    """Whether SQLite refused a write on a connection that it could only open for reading."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY


def _reopen_if_read_only(context: sa.ExceptionContext) -> None:
    # A connection that was opened while the disk could not be written to stays so for ever.
    if was_read_only(context.original_exception):
        context.is_disconnect = True


def _wait_sqlite(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA busy_timeout=10000")


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
