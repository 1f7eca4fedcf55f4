"""Running jobs: who claims them, what they are given, and what becomes of them.

A kind of job is a function `run(context) -> result` and the place where it may run. `JobRunner`
has threads that claim jobs from the store, run them and write down how they ended; one more thread
renews the leases of those that run, stores their progress and hears of cancellations. The server
has a runner, and so has each worker process.

A kind calls `context.progress` and `context.checkpoint` as it goes; both raise when the job has to
stop. Whatever it does must be such that doing it again from the last checkpoint ends in the same.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
import structlog
from closeby.index.errors import ClosebyError

from .errors import (
    CollectionNotFoundError,
    JobCancelledError,
    JobInterruptedError,
    JobStoppedError,
    LeaseLostError,
    NotReadyError,
    ServiceError,
    StoreUnavailableError,
    TooManyRequestsError,
    UnavailableError,
)
from .job_store import HIDDEN, Job, JobStore, keep_checkpoint
from .registry import Registry
from .settings import Settings
from .shard import Shard
from .store import Store
from .upkeep import lower_priority

__all__ = ["RESULT_TYPES", "JobContext", "JobRunner", "Kind", "Place", "owner_name"]

Place = Literal["server", "anywhere"]
"""`server`: needs shards in memory. `anywhere`: needs the store alone, a worker may run it."""

RESULT_TYPES = {"ndjson": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
"""Formats of a job's result file, `result.<format>` in its folder, and their media types."""

MAX_ATTEMPTS = 5
"""Claims without a checkpoint in between, before a job counts as one that cannot be done."""
TICK_SECONDS = 0.25
"""How often a running job's progress is looked at."""
IDLE_SECONDS = 0.5
"""How often is looked for jobs which another process queued."""
RETRY_SECONDS = 2.0
"""How long a job waits that could not go on for now."""
RATE_SECONDS = 10.0
"""Rates are of the last so many seconds."""
SAMPLED_ERRORS = 20

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of job. `run` gives the result as a JSON object; see `JobContext`.

    An exception of `run` that is a ClosebyError or an OSError is the job's failure, told to the
    caller; an UnavailableError or TooManyRequestsError only delays it.
    """

    name: str
    place: Place
    run: Callable[[JobContext], dict[str, Any]]
    keeps_files: bool = False
    """Whether the files of a finished job stay, for whoever asked for it to take."""


class JobContext:
    """What a running job is given.

    `job` is as it was claimed; `params` what was asked for; `resume_from` the last checkpoint or
    None. All methods may be called from the job's own thread only, unless they say otherwise.
    """

    def __init__(
        self,
        job: Job,
        *,
        store: Store,
        jobs: JobStore,
        settings: Settings,
        folder: Path,
        registry: Registry | None,
    ) -> None:
        assert job.lease_owner is not None
        self.job = job
        self.params = job.params
        self.resume_from = job.checkpoint
        self.store = store
        self.settings = settings
        self._jobs = jobs
        self.owner: str = job.lease_owner
        self._folder = folder
        self._registry = registry
        self._interrupt: JobInterruptedError | None = None
        self._progress = dict(job.progress)
        self._points: deque[tuple[float, float]] = deque()
        self._errors: list[dict[str, Any]] = list(job.errors)
        self._renewed = time.monotonic()
        self._stored = dict(job.progress)

    # --- what it works on ------------------------------------------------------------------------

    @property
    def registry(self) -> Registry:
        """The shards of this server; for kinds whose place is the server."""
        if self._registry is None:
            raise RuntimeError(f"a job of kind {self.job.kind} runs in a worker, without shards")
        return self._registry

    @property
    def in_server(self) -> bool:
        """Whether this process has the shards."""
        return self._registry is not None

    def shard(self) -> Shard:
        """The shard of the job's collection.

        Raises CollectionNotFoundError if it was deleted (and perhaps made anew),
        NotReadyError while it is being loaded.
        """
        for shard in self.registry.shards():
            if shard.record.id == self.job.collection:
                if not shard.ready:
                    raise NotReadyError(
                        f"collection {shard.record.name!r} is being loaded", retry_after=1
                    )
                return shard
        raise CollectionNotFoundError("the collection was deleted")

    @property
    def folder(self) -> Path:
        """A directory of the job's own, which goes when the job is forgotten."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def result_path(self, format: str = "ndjson") -> Path:  # noqa: A002
        """Where to write the result file; what lies there once the job is done is served."""
        if format not in RESULT_TYPES:
            raise ValueError(f"{format!r} is none of {', '.join(RESULT_TYPES)}")
        return self.folder / f"result.{format}"

    # --- what it tells ---------------------------------------------------------------------------

    def progress(
        self,
        done: float,
        total: float | None = None,
        *,
        fraction: float | None = None,
        **counters: float | str,
    ) -> None:
        """Tell how far the job is; cheap, to be called often.

        `fraction` (0 to 1) tells it where no total is known. Raises JobCancelledError,
        JobStoppedError or LeaseLostError when the job is to stop; let them pass.
        """
        now = time.monotonic()
        self._points.append((now, done))
        while len(self._points) > 2 and now - self._points[0][0] > RATE_SECONDS:
            self._points.popleft()
        since, begun = self._points[0]
        rate = (done - begun) / (now - since) if now > since and done > begun else None
        remaining: float | None = None
        if total is not None:
            remaining = max(0.0, total - done)
        elif fraction is not None and fraction > 0:
            remaining = done * (1 - min(1.0, fraction)) / fraction
        self._progress = {
            "done": done,
            "total": total,
            "rate": None if rate is None else round(rate, 1),
            "eta_s": None if not rate or remaining is None else round(remaining / rate, 1),
            "counters": counters,
        }
        self.check()

    def checkpoint(self, position: dict[str, Any]) -> None:
        """All that comes before `position` is durable; a resumed job begins there.

        Raises LeaseLostError.
        """
        self._jobs.checkpoint(self.job.id, self.owner, position)

    def checkpoint_with(self, position: dict[str, Any]) -> Callable[[sa.Connection], None]:
        """The same as a part of another transaction, as `Store.append` takes it."""

        def write(connection: sa.Connection) -> None:
            keep_checkpoint(connection, self.job.id, self.owner, position)

        return write

    def error(self, detail: str, **where: int | str) -> None:
        """Tell of something wrong with one row; the first few are kept."""
        if len(self._errors) < SAMPLED_ERRORS:
            self._errors.append({**where, "detail": detail[:500]})

    def check(self) -> None:
        """Raise if the job is to stop: see `progress`."""
        if self._interrupt is not None:
            raise self._interrupt

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than the job may go on. Raises what `progress` raises."""
        until = time.monotonic() + seconds
        while True:
            self.check()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, TICK_SECONDS))

    # --- for the runner --------------------------------------------------------------------------

    def interrupt(self, error: JobInterruptedError) -> None:
        """Make the job stop. To be called from any thread."""
        if self._interrupt is None:
            self._interrupt = error

    def keep_alive(self, lease_seconds: float) -> None:
        """Renew the lease in time, and store new progress. From the heart's thread.

        Raises LeaseLostError, StoreUnavailableError.
        """
        now = time.monotonic()
        progress = self._progress
        fresh = progress != self._stored and now - self._renewed > 2 * TICK_SECONDS
        if fresh or now - self._renewed > lease_seconds / 4:
            self._jobs.renew(self.job.id, self.owner, lease_seconds, progress)
            self._renewed, self._stored = now, progress

    @property
    def last_progress(self) -> dict[str, Any]:
        """Progress as it was told last, without a forecast."""
        return self._progress | {"eta_s": None}

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The sample of `error`."""
        return self._errors


class JobRunner:
    """Claims and runs jobs of `kinds` until `stop`; asked for these once it starts.

    `folder` holds a directory a job; `registry` is the server's, None in a worker, which then only
    runs kinds whose place is anywhere. `idle` seconds pass between two looks for jobs; unless
    `polite` its threads have the priority of the process.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        kinds: Callable[[], Mapping[str, Kind]],
        folder: Path,
        *,
        owner: str,
        threads: int,
        registry: Registry | None = None,
        idle: float = IDLE_SECONDS,
        polite: bool = True,
    ) -> None:
        self.jobs = JobStore(store)
        self._all_kinds = kinds
        self.folder = folder
        self.on_finished: Callable[[str, str], None] | None = None
        """Called with kind and state of each job that came to its end here."""
        self._store = store
        self._settings = settings
        self._owner = owner
        self._registry = registry
        self._idle = idle
        self._polite = polite
        # Two may be of one job for a while: one whose lease was lost, and one that took it over.
        self._running: set[JobContext] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake = threading.Condition()
        self._heart = threading.Thread(target=self._beat, name="closeby-jobs", daemon=True)
        self._threads = [
            threading.Thread(target=self._work, name=f"closeby-job-{i}", daemon=True)
            for i in range(threads)
        ]

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """What this process can do."""
        return {
            name: kind
            for name, kind in self._all_kinds().items()
            if self._registry is not None or kind.place == "anywhere"
        }

    def start(self) -> None:
        """Begin to claim jobs."""
        for thread in (self._heart, *self._threads):
            thread.start()

    def stop(self) -> None:
        """Stop running jobs at their next step and give them back, then return."""
        self._stopping.set()
        with self._lock:
            for context in self._running:
                context.interrupt(JobStoppedError("the process ends"))
        self.announce()
        for thread in (*self._threads, self._heart):
            if thread.is_alive():
                thread.join()

    def announce(self) -> None:
        """A job was queued: look at once."""
        with self._wake:
            self._wake.notify_all()

    def cancel(self, job: str) -> Job:
        """Cancel a job, here or elsewhere; see `JobStore.cancel`."""
        found = self.jobs.cancel(job)
        with self._lock:
            running = [context for context in self._running if context.job.id == job]
        for context in running:
            context.interrupt(JobCancelledError("cancelled"))
        return found

    def tidy(self) -> None:
        """Forget the oldest finished jobs over the bound, and the folders of forgotten ones."""
        for job in self.jobs.trim(self._settings.max_finished_jobs):
            shutil.rmtree(self.folder / job, ignore_errors=True)

    def remove_strays(self) -> None:
        """Remove folders that belong to no job: of requests that died before they queued one."""
        if not self.folder.is_dir():
            return
        known = self.jobs.ids()
        for path in self.folder.iterdir():
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    # --- threads ---------------------------------------------------------------------------------

    def _work(self) -> None:
        if self._polite:
            lower_priority()
        while not self._stopping.is_set():
            try:
                # Each claim has a name of its own, lest two threads take a job for their own.
                owner = f"{self._owner}:{secrets.token_hex(4)}"
                job = self.jobs.claim(owner, self.kinds.keys(), self._settings.job_lease)
            except StoreUnavailableError as error:
                log.warning("claim_failed", error=error.detail)
                job = None
            if job is None:
                with self._wake:
                    if not self._stopping.is_set():
                        self._wake.wait(self._idle)
                continue
            self._run(job)

    def _run(self, job: Job) -> None:
        context = JobContext(
            job,
            store=self._store,
            jobs=self.jobs,
            settings=self._settings,
            folder=self.folder / job.id,
            registry=self._registry,
        )
        with self._lock:
            self._running.add(context)
            if self._stopping.is_set():
                context.interrupt(JobStoppedError("the process ends"))
        try:
            self._settle(context, *self._outcome(context))
        except LeaseLostError:
            log.warning("lease_lost", job=job.id, kind=job.kind)
        except StoreUnavailableError as error:
            # Its end could not be written: when the lease runs out it is done again.
            log.warning("job_not_settled", job=job.id, error=error.detail)
        finally:
            with self._lock:
                self._running.discard(context)

    def _outcome(self, context: JobContext) -> tuple[str, Any]:
        """How a job ends: a state with its result or error, or "queued" with a delay."""
        job = context.job
        if job.cancel_requested:
            return "cancelled", None
        if job.attempts > MAX_ATTEMPTS:
            detail = f"{MAX_ATTEMPTS} processes died, or could not go on, at the same place"
            return "failed", {"code": "job_lost", "detail": detail}
        tell = log.debug if job.kind.startswith(HIDDEN) else log.info
        tell("job_started", job=job.id, kind=job.kind, resumed=job.checkpoint is not None)
        try:
            return "done", self.kinds[job.kind].run(context)
        except JobCancelledError:
            return "cancelled", None
        except LeaseLostError:
            raise
        except JobStoppedError:
            return "queued", 0.0
        except CollectionNotFoundError:
            # Its jobs are cancelled when a collection is deleted; this one was quicker.
            return "cancelled", None
        except (UnavailableError, TooManyRequestsError) as error:
            log.info("job_delayed", job=job.id, kind=job.kind, error=error.detail)
            return "queued", error.retry_after or RETRY_SECONDS
        except (ClosebyError, OSError) as error:
            return "failed", explain(error)
        except Exception:
            log.exception("job_failed", job=job.id, kind=job.kind)
            return "failed", {
                "code": "internal_error",
                "detail": f"a defect of the server; its log tells more under the job's id {job.id}",
            }

    def _settle(self, context: JobContext, state: str, outcome: Any) -> None:
        job = context.job
        if state == "queued":
            self.jobs.release(job.id, context.owner, delay=outcome)
            return
        self.jobs.finish(
            job.id,
            context.owner,
            state,
            progress=context.last_progress,
            result=outcome if state == "done" else None,
            error=outcome if state == "failed" else None,
            errors=context.errors,
        )
        if not self.kinds[job.kind].keeps_files:
            self._clear(job, keep_result=state == "done")
        tell = log.debug if job.kind.startswith(HIDDEN) else log.info
        tell("job_finished", job=job.id, kind=job.kind, state=state)
        if self.on_finished is not None:
            self.on_finished(job.kind, state)
        self.tidy()

    def _clear(self, job: Job, *, keep_result: bool) -> None:
        """Remove the files of a finished job, all but its results."""
        folder = self.folder / job.id
        results = {f"result.{name}" for name in RESULT_TYPES} if keep_result else set()
        with contextlib.suppress(OSError):
            if not any((folder / name).exists() for name in results):
                shutil.rmtree(folder)
                return
            for path in folder.iterdir():
                if path.name not in results:
                    path.unlink()

    def _beat(self) -> None:
        """Keep the leases of running jobs, until the last of them has stopped."""
        while True:
            stopping = self._stopping.wait(TICK_SECONDS)
            with self._lock:
                running = set(self._running)
            if stopping and not any(thread.is_alive() for thread in self._threads):
                return
            if stopping:
                time.sleep(TICK_SECONDS / 5)
            if not running:
                continue
            with contextlib.suppress(StoreUnavailableError):
                cancelled = self.jobs.cancelled({context.job.id for context in running})
                for context in running:
                    if context.job.id in cancelled:
                        context.interrupt(JobCancelledError("cancelled"))
            for context in running:
                try:
                    context.keep_alive(self._settings.job_lease)
                except LeaseLostError as error:
                    context.interrupt(error)
                except StoreUnavailableError as error:
                    log.warning("lease_not_renewed", job=context.job.id, error=error.detail)


def explain(error: ClosebyError | OSError) -> dict[str, Any]:
    """A job's failure as it is answered."""
    if isinstance(error, ServiceError):
        return {"code": error.code, "detail": error.detail}
    from closeby.loaders import LoaderError  # no start should wait for the loaders

    if isinstance(error, LoaderError):
        return {"code": "import_failed", "detail": error.reason}
    if isinstance(error, OSError):
        return {"code": "io_error", "detail": error.strerror or str(error)}
    return {"code": "invalid_input", "detail": str(error)}


def owner_name(role: str) -> str:
    """A name for a process that claims jobs: what it is, where, and a number nobody else has."""
    return f"{role}:{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
