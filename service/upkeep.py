"""The threads that keep shards in order while they serve: sealing, merging, clearing the log.

Two threads, because sealing must be quick (what is not sealed is replayed after a crash, and
writers wait for it) while a merge may take long. Both work in small steps and yield to requests:
merging and clearing run at lower priority. A merge that is being built when the server stops is
given up: what it would have joined stays as it is, and the next server merges it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog
from closeby.index.abandon import abandonable
from closeby.index.errors import AbandonedError, ClosebyError

__all__ = ["Kept", "Upkeep", "lower_priority"]

LOW_PRIORITY = 10
"""Niceness of merging and clearing."""
IDLE_SECONDS = 0.5
"""How often is looked for work which nobody announced."""
FIRST_RETRY, LAST_RETRY = 0.5, 30.0
"""Seconds before a step that failed is tried again; doubled each time."""

log = structlog.get_logger(__name__)


class Kept(Protocol):
    """A shard, as far as it concerns its upkeep."""

    def seal(self) -> bool:
        """Seal one segment; False if none waits."""
        ...

    def bound_tail(self) -> None:
        """See that what is not sealed stays small."""
        ...

    def merge(self) -> bool:
        """Merge some segments; False if nothing is due."""
        ...

    def clear_log(self, stop: threading.Event) -> bool:
        """Remove log rows that nobody needs; False if there are too few to bother."""
        ...


class Upkeep:
    """Seals, merges and clears the shards that `shards` gives, until `stop`.

    `look` (None: nothing to do) is called after each round of merging and clearing.
    """

    def __init__(
        self, shards: Callable[[], Iterable[Kept]], look: Callable[[], None] | None = None
    ) -> None:
        self._shards = shards
        self._look = look
        self._stop = threading.Event()
        self._frozen = threading.Event()
        self._threads = [
            threading.Thread(target=self._seal, name="closeby-seal", daemon=True),
            threading.Thread(target=self._merge, name="closeby-merge", daemon=True),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def announce(self) -> None:
        """A segment waits to be sealed."""
        self._frozen.set()

    def stop(self) -> None:
        """End soon: a merge is given up; segments which wait to be sealed stay as they are."""
        self._stop.set()
        self._frozen.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _seal(self) -> None:
        retry = FIRST_RETRY
        while not self._stop.is_set():
            self._frozen.wait(IDLE_SECONDS)
            self._frozen.clear()
            if self._each(_seal_all):
                retry = FIRST_RETRY
            else:
                self._stop.wait(retry)
                retry = min(2 * retry, LAST_RETRY)

    def _merge(self) -> None:
        lower_priority()
        retry = FIRST_RETRY
        while not self._stop.wait(IDLE_SECONDS):
            if self._each(_merge_all) and self._each(_clear) and self._looked():
                retry = FIRST_RETRY
            else:
                self._stop.wait(retry)
                retry = min(2 * retry, LAST_RETRY)

    def _looked(self) -> bool:
        try:
            if self._look is not None:
                self._look()
        except ClosebyError as error:
            log.warning("upkeep_failed", step="look", error=str(error))
        except Exception:
            log.exception("upkeep_failed", step="look")
        else:
            return True
        return False

    def _each(self, work: Callable[[Kept, threading.Event], None]) -> bool:
        """Do it for every shard; False if it failed for one. The others do not suffer."""
        good = True
        for shard in self._shards():
            if self._stop.is_set():
                break
            start = time.perf_counter()
            try:
                work(shard, self._stop)
            except (ClosebyError, OSError, MemoryError) as error:
                good = False
                log.warning("upkeep_failed", step=work.__name__.strip("_"), error=str(error))
            except Exception:
                good = False
                log.exception("upkeep_failed", step=work.__name__.strip("_"))
            seconds = time.perf_counter() - start
            if seconds > 1:
                log.debug("upkeep", step=work.__name__.strip("_"), seconds=round(seconds, 3))
        return good


def _seal_all(shard: Kept, stop: threading.Event) -> None:
    shard.bound_tail()
    while not stop.is_set() and shard.seal():
        pass


def _merge_all(shard: Kept, stop: threading.Event) -> None:
    with abandonable(stop.is_set), contextlib.suppress(AbandonedError):
        while not stop.is_set() and shard.merge():
            pass


def _clear(shard: Kept, stop: threading.Event) -> None:
    shard.clear_log(stop)


def lower_priority() -> None:
    """Of this thread alone, which Linux allows."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW_PRIORITY)
    except OSError as error:
        log.debug("priority_not_lowered", error=str(error))
