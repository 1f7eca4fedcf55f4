"""The thread that notices what other processes have written.

Processes meet only in the store and in the manifests of its shards. A poll costs one statement on
an open connection (`Watch`) while nothing happens; after a commit of anybody it is looked how far
the log goes, and the shards apply what they have not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog
from closeby.index.errors import ClosebyError

from .log_reader import Seen, Watch
from .store import Store

__all__ = ["Followed", "Following"]

POLL_SECONDS = 0.05
"""How old an answer may be that does not hold what another process has written."""
REFRESH_SECONDS = 0.5
"""How often it is looked for other collections and other sealed files."""
RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Followed(Protocol):
    """A shard, as far as it follows the log."""

    def seen(self, head: Seen) -> None:
        """How far the log goes; told in log order."""
        ...

    def apply_seen(self) -> None:
        """Apply what is told to be there."""
        ...


class Following:
    """Keeps `shards` up to date with the log, until `stop`.

    `refresh` (None: nothing to do) is called now and then, in a thread of its own.
    """

    def __init__(
        self,
        store: Store,
        shards: Callable[[], Iterable[Followed]],
        refresh: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._shards = shards
        self._refresh = refresh
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._follow, name="closeby-follow", daemon=True)]
        if refresh is not None:
            self._threads.append(
                threading.Thread(target=self._keep_fresh, name="closeby-refresh", daemon=True)
            )

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the step that is being done."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _follow(self) -> None:
        watch = Watch(self._store)
        behind = True
        while not self._stop.wait(POLL_SECONDS):
            try:
                if (watch.changed() or behind) and self._store.others_wrote:
                    self._store.observe(self._tell)
                    behind = True
                if behind:
                    behind = not self._apply()
            except Exception as error:
                behind = True
                _report(error)
                self._stop.wait(RETRY_SECONDS)
        watch.close()

    def _tell(self, head: Seen) -> None:
        for shard in self._shards():
            shard.seen(head)

    def _apply(self) -> bool:
        """Whether all shards are up to date. One that cannot go on does not stop the others."""
        good = True
        for shard in self._shards():
            try:
                shard.apply_seen()
            except Exception as error:
                good = False
                _report(error)
        return good

    def _keep_fresh(self) -> None:
        assert self._refresh is not None
        while not self._stop.wait(REFRESH_SECONDS):
            start = time.perf_counter()
            try:
                self._refresh()
            except Exception as error:
                _report(error)
                self._stop.wait(RETRY_SECONDS)
            seconds = time.perf_counter() - start
            if seconds > 1:
                log.debug("refreshed", seconds=round(seconds, 3))


def _report(error: Exception) -> None:
    if isinstance(error, (ClosebyError, OSError)):
        log.warning("follow_failed", error=str(error))
    else:
        log.exception("follow_failed")
