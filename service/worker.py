"""A worker: a process that does jobs beside the server, so that its queries keep their threads.

It meets the server in the store alone: it claims jobs by lease, reads, makes features and appends
to the log from its own process, with a group commit of its own. The server follows the log. It also
builds the segments that the server orders (`build_orders`), in threads of their own, so that
imports, which take long, do not keep a seal waiting, nor merges, which may.

A worker that the server started (`workers`) ends when the server does, however that ends: it holds
the read end of a pipe whose other end goes with the server.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType

import structlog

from .build_jobs import MERGE, SEAL
from .errors import DataDirError
from .jobs import JobRunner, Kind, owner_name
from .logs import configure_logging
from .presence import Presence
from .settings import Settings
from .store import Store

__all__ = ["WORKER_ROLE", "run_worker"]

WORKER_ROLE = "worker"
"""What the owners of jobs that run in workers are named by."""
BUILD_LEASE = 5.0
"""Seconds after which a segment that a dead worker was to build goes to another, or the server."""
BUILD_IDLE = 0.05
"""Seconds between two looks for a segment to build: writers may be waiting for it."""

log = structlog.get_logger(__name__)


def run_worker(settings: Settings, *, with_parent: bool) -> None:
    """Do jobs until SIGTERM, SIGINT or, `with_parent`, the end of standard input.

    A job that runs then is given back at its next step. Raises DataDirError.
    """
    configure_logging(settings.log_level, settings.log_format)
    ending = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ending.set()

    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, end)
    if with_parent:
        threading.Thread(target=_await_parent, args=(ending,), daemon=True).start()
    if not settings.data_dir.is_dir():
        raise DataDirError(
            f"data directory {settings.data_dir}: there is none; a worker works for a server"
        )
    store = Store.open_directory(settings.data_dir)
    try:
        owner = owner_name(WORKER_ROLE)
        presence = Presence(store, owner)
        runners = _runners(store, settings, owner)
        for runner in runners:
            runner.start()
        presence.start()
        log.info("working", data_dir=str(settings.data_dir), owner=owner)
        ending.wait()
        presence.stop()
        for runner in runners:
            runner.stop()
    finally:
        store.close()
    log.info("stopped", owner=owner)


def _runners(store: Store, settings: Settings, owner: str) -> list[JobRunner]:
    """What does users' jobs, and what builds segments."""
    folder = settings.data_dir / "jobs"
    users = JobRunner(
        store, settings, _all_kinds, folder, owner=owner, threads=settings.job_threads
    )
    quick = settings.model_copy(update={"job_lease": min(BUILD_LEASE, settings.job_lease)})

    def builds(kind: Kind, *, polite: bool) -> JobRunner:
        return JobRunner(
            store,
            quick,
            lambda: {kind.name: kind},
            folder,
            owner=owner,
            threads=1,
            idle=BUILD_IDLE,
            polite=polite,
        )

    return [users, builds(SEAL, polite=False), builds(MERGE, polite=True)]


def _all_kinds() -> Mapping[str, Kind]:
    from .job_kinds import KINDS  # a server that starts workers does not wait for them

    return KINDS


def _await_parent(ending: threading.Event) -> None:
    # Not through sys.stdin: this thread would still hold its buffer when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    ending.set()
