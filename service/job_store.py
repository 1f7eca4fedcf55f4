"""Jobs in the durable store: work which outlives the request that asked for it.

    queued ──claim──► running ──finish──► done | failed | cancelled
       ▲                 │
       └──release, or the lease runs out (then `claim` takes it as it is)

A process works on a job as long as its lease lasts and renews it by and by. A process that dies
renews nothing: once the lease ran out another one claims the job and goes on from its checkpoint.
What an owner writes is conditional on the lease being its own still (LeaseLostError otherwise), so
an owner that was only asleep does no harm when it wakes.

Kinds whose names begin with `~` are orders of the server to its workers: nobody else sees them,
they count nowhere, and whoever gave one forgets it.

Every change is one statement that says for itself what it depends on: processes on one store need
no other lock. Times of leases are seconds of the epoch by the clock of the machine.
"""

from __future__ import annotations

import datetime
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from .errors import JobNotFoundError, LeaseLostError, TooManyRequestsError
from .schema import jobs_table
from .store import Store

__all__ = ["FINISHED", "HIDDEN", "STATES", "Job", "JobStore", "keep_checkpoint", "new_job_id"]

HIDDEN = "~"
"""First letter of kinds of jobs that are not shown."""

STATES = ("queued", "running", "done", "failed", "cancelled")
FINISHED = STATES[2:]


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it is stored. Its id sorts by time of creation.

    `progress`: {"done", "total", "rate", "eta_s", "counters"}. `checkpoint`: the kind's own; all
    before it is durable. `errors`: a sample of what was wrong with single rows. `attempts`: how
    often it was claimed since it last got on. `due`: not before this time (seconds of the epoch).
    """

    id: str
    kind: str
    collection: int | None
    collection_name: str | None
    params: dict[str, Any]
    state: str
    progress: dict[str, Any]
    checkpoint: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    errors: list[dict[str, Any]]
    lease_owner: str | None
    lease_expires: float
    due: float
    attempts: int
    cancel_requested: bool
    created_at: str
    started_at: str | None
    finished_at: str | None

    @property
    def finished(self) -> bool:
        """Whether it has come to its end, whichever."""
        return self.state in FINISHED


_COLUMNS = [jobs_table.c[field.name] for field in fields(Job)]
_shown = sa.not_(jobs_table.c.kind.startswith(HIDDEN))


class JobStore:
    """The jobs of a store. Thread-safe; any number of processes may share the store.

    All methods raise StoreUnavailableError if the store refuses.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def submit(
        self,
        kind: str,
        params: dict[str, Any],
        *,
        collection: int | None = None,
        collection_name: str | None = None,
        job_id: str | None = None,
        max_queued: int,
    ) -> Job:
        """Queue a job. Raises TooManyRequestsError if `max_queued` wait already."""
        job = Job(
            id=job_id or new_job_id(),
            kind=kind,
            collection=collection,
            collection_name=collection_name,
            params=params,
            state="queued",
            progress={"done": 0, "total": None, "rate": None, "eta_s": None, "counters": {}},
            checkpoint=None,
            result=None,
            error=None,
            errors=[],
            lease_owner=None,
            lease_expires=0.0,
            due=0.0,
            attempts=0,
            cancel_requested=False,
            created_at=_now(),
            started_at=None,
            finished_at=None,
        )

        def run(connection: sa.Connection) -> None:
            waiting = connection.execute(
                sa.select(sa.func.count()).where(jobs_table.c.state == "queued", _shown)
            ).scalar_one()
            if waiting >= max_queued and not kind.startswith(HIDDEN):
                raise TooManyRequestsError(f"{waiting} jobs are waiting", retry_after=5)
            values = {field.name: getattr(job, field.name) for field in fields(Job)}
            connection.execute(jobs_table.insert().values(**_nulls(values)))

        self._store.transact(run)
        return job

    def get(self, job: str) -> Job:
        """A job. Raises JobNotFoundError."""
        with self._store.reading() as connection:
            row = connection.execute(sa.select(*_COLUMNS).where(jobs_table.c.id == job)).first()
        if row is None:
            raise JobNotFoundError(f"there is no job {job[:100]!r}; finished ones go after a while")
        return Job(*row)

    def page(
        self,
        limit: int,
        *,
        before: str | None = None,
        collection_name: str | None = None,
        state: str | None = None,
    ) -> tuple[list[Job], bool]:
        """At most `limit` jobs, newest first, older than the job `before`; whether more follow."""
        statement = sa.select(*_COLUMNS).where(_shown)
        statement = statement.order_by(jobs_table.c.id.desc()).limit(limit + 1)
        if before is not None:
            statement = statement.where(jobs_table.c.id < before)
        if collection_name is not None:
            statement = statement.where(jobs_table.c.collection_name == collection_name)
        if state is not None:
            statement = statement.where(jobs_table.c.state == state)
        with self._store.reading() as connection:
            found = [Job(*row) for row in connection.execute(statement)]
        return found[:limit], len(found) > limit

    def is_unfinished(self, kind: str, collection: int) -> bool:
        """Whether a job of this kind waits or runs for the collection."""
        statement = sa.select(jobs_table.c.id).where(
            jobs_table.c.kind == kind,
            jobs_table.c.collection == collection,
            jobs_table.c.state.in_(("queued", "running")),
        )
        with self._store.reading() as connection:
            return connection.execute(statement.limit(1)).first() is not None

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        statement = (
            sa.select(jobs_table.c.state, sa.func.count())
            .where(_shown)
            .group_by(jobs_table.c.state)
        )
        with self._store.reading() as connection:
            found = {state: int(count) for state, count in connection.execute(statement)}
        return {state: found.get(state, 0) for state in STATES}

    # --- owning ----------------------------------------------------------------------------------

    def claim(self, owner: str, kinds: Collection[str], lease_seconds: float) -> Job | None:
        """The oldest job of `kinds` that is due and nobody's, now leased to `owner`; or None."""
        now = time.time()
        free = sa.and_(
            jobs_table.c.kind.in_(sorted(kinds)),
            sa.or_(
                sa.and_(jobs_table.c.state == "queued", jobs_table.c.due <= now),
                sa.and_(jobs_table.c.state == "running", jobs_table.c.lease_expires < now),
            ),
        )
        oldest = sa.select(jobs_table.c.id).where(free).order_by(jobs_table.c.id).limit(1)
        with self._store.reading() as connection:
            # Asked first, since looking costs a read and claiming a commit.
            found: str | None = connection.execute(oldest).scalar()
        if found is None:
            return None
        # Another process may be quicker: then the condition holds no more, and nothing is changed.
        claimed = (
            jobs_table.update()
            .where(jobs_table.c.id == found, free)
            .values(
                state="running",
                lease_owner=owner,
                lease_expires=now + lease_seconds,
                attempts=jobs_table.c.attempts + 1,
                started_at=sa.func.coalesce(jobs_table.c.started_at, _now()),
            )
        )
        changed: int = self._store.transact(lambda connection: connection.execute(claimed).rowcount)
        return self.get(found) if changed else None

    def renew(self, job: str, owner: str, lease_seconds: float, progress: dict[str, Any]) -> None:
        """Prolong the lease and store how far the job is. Raises LeaseLostError."""
        values = {"lease_expires": time.time() + lease_seconds, "progress": progress}
        self._store.transact(lambda connection: _change_own(connection, job, owner, values))

    def checkpoint(self, job: str, owner: str, checkpoint: dict[str, Any]) -> None:
        """Store where a resumed job would begin. Raises LeaseLostError."""
        self._store.transact(lambda connection: keep_checkpoint(connection, job, owner, checkpoint))

    def release(self, job: str, owner: str, *, delay: float = 0.0) -> None:
        """Give the job back, to be claimed again in `delay` seconds at the earliest.

        This was no attempt. A job which is no longer the owner's is left.
        """
        values: dict[str, Any] = {
            "state": "queued",
            "lease_owner": None,
            "lease_expires": 0.0,
            "due": time.time() + delay,
            "attempts": jobs_table.c.attempts - 1,
        }
        statement = jobs_table.update().where(*_owned(job, owner)).values(**values)
        self._store.transact(lambda connection: connection.execute(statement))

    def finish(
        self,
        job: str,
        owner: str,
        state: str,
        *,
        progress: dict[str, Any],
        result: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
        errors: Sequence[dict[str, Any]] = (),
    ) -> None:
        """The job has come to its end. Raises LeaseLostError."""
        values = _nulls(
            {
                "state": state,
                "progress": progress,
                "result": result,
                "error": error,
                "errors": list(errors),
                "finished_at": _now(),
                "lease_owner": None,
            }
        )
        self._store.transact(lambda connection: _change_own(connection, job, owner, values))

    def release_owner(self, prefix: str) -> None:
        """Give back all jobs of owners that begin with `prefix` and are known to be dead."""
        statement = (
            jobs_table.update()
            .where(jobs_table.c.state == "running", jobs_table.c.lease_owner.startswith(prefix))
            .values(lease_expires=0.0)
        )
        self._store.transact(lambda connection: connection.execute(statement))

    # --- ending ----------------------------------------------------------------------------------

    def cancel(self, job: str) -> Job:
        """Cancel a job: at once if it waits, else as soon as its owner hears of it.

        One that is finished stays as it is. Raises JobNotFoundError.
        """
        self._cancel(jobs_table.c.id == job)
        return self.get(job)

    def cancel_collection(self, collection: int) -> None:
        """Cancel all jobs of a collection."""
        self._cancel(jobs_table.c.collection == collection)

    def cancelled(self, jobs: Collection[str]) -> set[str]:
        """Those of `jobs` that are to be cancelled."""
        statement = sa.select(jobs_table.c.id).where(
            jobs_table.c.id.in_(sorted(jobs)), jobs_table.c.cancel_requested
        )
        with self._store.reading() as connection:
            return set(connection.scalars(statement))

    def _cancel(self, which: sa.ColumnElement[bool]) -> None:
        waiting = (
            jobs_table.update()
            .where(which, jobs_table.c.state == "queued")
            .values(state="cancelled", cancel_requested=True, finished_at=_now())
        )
        running = (
            jobs_table.update()
            .where(which, jobs_table.c.state == "running")
            .values(cancel_requested=True)
        )

        def run(connection: sa.Connection) -> None:
            connection.execute(waiting)
            connection.execute(running)

        self._store.transact(run)

    def trim(self, kept: int) -> list[str]:
        """Forget all but the newest `kept` finished jobs; the ids of the others."""
        finished = sa.and_(jobs_table.c.state.in_(FINISHED), _shown)
        oldest = (
            sa.select(jobs_table.c.id).where(finished).order_by(jobs_table.c.id.desc()).offset(kept)
        )
        with self._store.reading() as connection:
            gone = list(connection.scalars(oldest))
        if gone:
            statement = jobs_table.delete().where(jobs_table.c.id.in_(gone[-500:]), finished)
            self._store.transact(lambda connection: connection.execute(statement))
        return gone[-500:]

    def withdraw(self, job: str) -> bool:
        """Forget a job that nobody works on: it waits, or its lease ran out. Whether it was so."""
        statement = jobs_table.delete().where(
            jobs_table.c.id == job,
            sa.or_(
                jobs_table.c.state == "queued",
                sa.and_(jobs_table.c.state == "running", jobs_table.c.lease_expires < time.time()),
            ),
        )
        gone: int = self._store.transact(lambda connection: connection.execute(statement).rowcount)
        return gone > 0

    def forget(self, job: str) -> None:
        """Forget a job, whatever its state: who works on it has lost its lease."""
        statement = jobs_table.delete().where(jobs_table.c.id == job)
        self._store.transact(lambda connection: connection.execute(statement))

    def forget_hidden(self) -> None:
        """Forget the orders of a server that is no more."""
        statement = jobs_table.delete().where(sa.not_(_shown))
        self._store.transact(lambda connection: connection.execute(statement))

    def ids(self) -> set[str]:
        """The ids of all jobs."""
        with self._store.reading() as connection:
            return set(connection.scalars(sa.select(jobs_table.c.id)))


def new_job_id() -> str:
    """A new id: the time in milliseconds, then chance, as 24 hexadecimal digits."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"


def keep_checkpoint(
    connection: sa.Connection, job: str, owner: str, checkpoint: dict[str, Any]
) -> None:
    """Store a checkpoint within a transaction of the caller's. Raises LeaseLostError.

    Written together with the rows that it counts, it is never ahead of them nor behind.
    """
    # It got on, so what comes next is a first attempt.
    _change_own(connection, job, owner, {"checkpoint": checkpoint, "attempts": 1})


def _owned(job: str, owner: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        jobs_table.c.id == job,
        jobs_table.c.state == "running",
        jobs_table.c.lease_owner == owner,
    )


def _change_own(connection: sa.Connection, job: str, owner: str, values: dict[str, Any]) -> None:
    changed = connection.execute(jobs_table.update().where(*_owned(job, owner)).values(**values))
    if changed.rowcount == 0:
        raise LeaseLostError(f"job {job} is no longer ours")


def _nulls(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with SQL's NULL where a JSON column would write the JSON `null`."""
    json = ("checkpoint", "result", "error")
    return {
        name: sa.null() if value is None and name in json else value
        for name, value in values.items()
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
