"""The server's side of segments that workers build: orders given, files taken.

    server: order ──► queued ──a worker claims it──► running ──► done: files in the order's folder
                         │                              │          └─► server moves and publishes
                         └── nobody comes ──────────────┴── its lease ran out: the server builds

An order is a hidden job, so a worker has it by a lease like any other. Only the server publishes: a
worker writes into the folder of its order alone, and what it writes counts if its lease was still
its own when it said that it was done. A worker that dies, or sleeps too long, leaves nothing else.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from closeby.index.abandon import checkpoint

from .durable_files import sync_directory
from .errors import JobNotFoundError, StoreUnavailableError
from .job_store import HIDDEN, Job, JobStore, new_job_id
from .manifest import FileEntry
from .presence import workers_alive
from .segment_building import Order, Site
from .store import Store

__all__ = ["MERGE_KIND", "POINTS_FILE", "SEAL_KIND", "SEGMENT_FILE", "SEQS_FILE", "BuildOrders"]

SEAL_KIND, MERGE_KIND = HIDDEN + "seal", HIDDEN + "merge"
SEQS_FILE, SEGMENT_FILE, POINTS_FILE = "seqs.npy", "segment", "points"
"""Names in the folder of an order."""
CLAIM_SECONDS = 1.0
"""How long an order waits for a worker before the server does it."""
FIRST_LOOK, LAST_LOOK = 0.01, 0.1
"""Seconds between two looks at an order."""

log = structlog.get_logger(__name__)


class BuildOrders:
    """A `building.Builder`: orders of this server to the workers of its store.

    `folder` holds a directory a job. Two threads may give orders at once.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.taken = 0
        """Segments that workers have built."""
        self.given_up = 0
        """Orders that no worker brought to an end."""
        self._store = store
        self._jobs = JobStore(store)
        self._folder = folder

    def build(self, order: Order, site: Site) -> tuple[FileEntry, FileEntry] | None:
        """See `Builder`. Raises OSError if the files cannot be moved."""
        try:
            if not workers_alive(self._store):
                return None
        except StoreUnavailableError:
            return None
        job = new_job_id()
        folder = self._folder / job
        try:
            self._give(job, folder, order)
            result = self._await(job)
            entries = None if result is None else _move(result, folder, site)
        except (StoreUnavailableError, JobNotFoundError) as error:
            log.warning("order_failed", collection=order.collection, error=error.detail)
            entries = None
        finally:
            with contextlib.suppress(StoreUnavailableError):
                self._jobs.forget(job)
            shutil.rmtree(folder, ignore_errors=True)
        if entries is None:
            self.given_up += 1
        else:
            self.taken += 1
        return entries

    def _give(self, job: str, folder: Path, order: Order) -> None:
        folder.mkdir(parents=True)
        np.save(folder / SEQS_FILE, order.seqs, allow_pickle=False)
        params = {
            "folder": order.folder.name,
            "engine": order.engine,
            "parameters": order.parameters,
            "sources": [list(source) for source in order.sources],
        }
        self._jobs.submit(
            MERGE_KIND if order.sources else SEAL_KIND,
            params,
            collection=order.collection,
            job_id=job,
            max_queued=1,
        )

    def _await(self, job: str) -> dict[str, Any] | None:
        """What the worker tells of the files; None once nobody else will build them."""
        pause = FIRST_LOOK
        unattended = time.monotonic()
        while True:
            checkpoint()
            found = self._jobs.get(job)
            if found.finished:
                return found.result
            if _is_attended(found):
                unattended = time.monotonic()
            elif self._is_left(unattended) and self._jobs.withdraw(job):
                log.info("order_withdrawn", job=job, kind=found.kind, state=found.state)
                return None
            time.sleep(pause)
            pause = min(1.3 * pause, LAST_LOOK)

    def _is_left(self, since: float) -> bool:
        """Whether no worker will take an order that nobody has since then."""
        return time.monotonic() - since > CLAIM_SECONDS or not workers_alive(self._store)


def _is_attended(job: Job) -> bool:
    return job.state == "running" and job.lease_expires >= time.time()


def _move(result: dict[str, Any], folder: Path, site: Site) -> tuple[FileEntry, FileEntry] | None:
    """Put the files of an order where they belong; None if there are none."""
    if not result["points"]:
        return None
    (folder / SEGMENT_FILE).rename(site.segment)
    (folder / POINTS_FILE).rename(site.points)
    sync_directory(site.segment.parent)
    return (
        FileEntry(site.segment.name, *result[SEGMENT_FILE]),
        FileEntry(site.points.name, *result[POINTS_FILE]),
    )
