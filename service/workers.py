"""The workers of a server: started with it, replaced when they die, stopped with it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import structlog

from .errors import StoreUnavailableError
from .job_store import JobStore
from .presence import forget_workers
from .settings import Settings, worker_environment
from .store import Store
from .worker import WORKER_ROLE

__all__ = ["Workers"]

LOOK_SECONDS = 0.2
"""How often it is looked whether all workers live."""
FIRST_RETRY, LAST_RETRY = 0.2, 30.0
"""Seconds before a worker is replaced; doubled while they die young."""
YOUNG_SECONDS = 10.0
STOP_SECONDS = 15.0
"""How long workers are given to come to a checkpoint before they are killed."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Slot:
    """The place of one worker."""

    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    retry: float = FIRST_RETRY
    due: float = field(default_factory=time.monotonic)


class Workers:
    """`settings.workers` processes that work for `store`, from `start` until `stop`."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._slots = [_Slot() for _ in range(settings.workers)]
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="closeby-workers", daemon=True)

    @property
    def alive(self) -> int:
        """Workers that run now."""
        return sum(slot.process is not None for slot in self._slots)

    @property
    def processes(self) -> list[int]:
        """Their process ids."""
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    def start(self) -> None:
        """Begin."""
        if self._slots:
            self._keeper.start()

    def stop(self) -> None:
        """Ask all to end; those that do not in time are killed, and their jobs go on later."""
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join()
        running = [slot.process for slot in self._slots if slot.process is not None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("worker_killed", pid=process.pid)
                process.kill()
                process.wait()
            assert process.stdin is not None
            process.stdin.close()
        for slot in self._slots:
            slot.process = None

    def _keep(self) -> None:
        while not self._stopping.is_set():
            for slot in self._slots:
                if slot.process is None:
                    self._start(slot)
                elif slot.process.poll() is not None:
                    self._bury(slot, slot.process)
            self._stopping.wait(LOOK_SECONDS)

    def _start(self, slot: _Slot) -> None:
        if time.monotonic() < slot.due:
            return
        command = [sys.executable, "-m", "closeby.service", "worker", "--with-parent"]
        try:
            slot.process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=worker_environment(self._settings),
                # Ctrl-C at a terminal is for the server, which then stops its workers.
                start_new_session=True,
            )
        except OSError as error:
            log.warning("worker_not_started", error=str(error))
            self._postpone(slot)
            return
        slot.started = time.monotonic()
        log.info("worker_started", pid=slot.process.pid)

    def _bury(self, slot: _Slot, process: subprocess.Popen[bytes]) -> None:
        """A worker died: others may have its jobs at once, and a new one comes in its place."""
        log.warning("worker_died", pid=process.pid, status=process.returncode)
        assert process.stdin is not None
        process.stdin.close()
        slot.process = None
        prefix = f"{WORKER_ROLE}:{socket.gethostname()}:{process.pid}:"
        with contextlib.suppress(StoreUnavailableError):
            forget_workers(self._store, prefix)
            JobStore(self._store).release_owner(prefix)
        if time.monotonic() - slot.started > YOUNG_SECONDS:
            slot.retry = FIRST_RETRY
        self._postpone(slot)

    def _postpone(self, slot: _Slot) -> None:
        slot.due = time.monotonic() + slot.retry
        slot.retry = min(2 * slot.retry, LAST_RETRY)
