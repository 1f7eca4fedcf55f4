"""Committed rows on their way from the log into a shard's contents, in the order of the log.

Rows of this process come with their features, queued by the store's writer as it commits them;
rows of other processes are read from the log. With each of its commits the store says since when
nobody else has written (`Seen`): a queue that has a gap before an item reads the log up to there
first. So whoever wrote a row, it is applied after all those before it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

import structlog

from .contents import Committed, Contents
from .errors import NotReadyError, StoreUnavailableError, TooManyRequestsError
from .log_reader import LogReader, Seen
from .log_rows import LogRow
from .turns import LARGE_ROWS, ahead

__all__ = ["Applying"]

MAX_UNAPPLIED = 200_000
"""Rows of writes which nobody waits for that may be on their way into the engine."""
FOLLOWED_CHUNK = 2_000
"""Rows of other processes that are applied at a time; our own writes wait for so many."""

log = structlog.get_logger(__name__)


class Applying:
    """The queue in front of the contents of one shard.

    `lock` is held while contents change. `on_applied` is called afterwards, with the lock.
    """

    def __init__(
        self,
        store: LogReader,
        collection: int,
        contents: Callable[[], Contents],
        on_applied: Callable[[], None],
    ) -> None:
        self.lock = threading.Lock()
        self.unapplied = 0
        self._store = store
        self._collection = collection
        self._contents = contents
        self._on_applied = on_applied
        # In seq order, since the store's writer queues them.
        self._queue: deque[Committed | Seen] = deque()

    # --- the store's writer ----------------------------------------------------------------------

    def committed(self, write: Committed, first: int, own_since: int) -> None:
        """`write` is committed; called in log order, in the store's thread."""
        write.first, write.own_since = first, own_since
        self.unapplied += len(write.ids)
        self._queue.append(write)

    def seen(self, head: Seen) -> None:
        """Others may have written; called in log order."""
        self._queue.append(head)

    # --- whoever waits ---------------------------------------------------------------------------

    def check_room(self) -> None:
        """Raises TooManyRequestsError while too much is on its way."""
        if self.unapplied > MAX_UNAPPLIED:
            raise TooManyRequestsError(
                f"{self.unapplied} points are on their way into the index", retry_after=1
            )

    def finish(self, write: Committed) -> None:
        """Return once a committed write is applied.

        Whoever comes first applies what all wait for, in one `add`. Raises NotReadyError if the
        engine failed, StoreUnavailableError if rows before it cannot be read; it will be applied
        later then.
        """
        with self.lock:
            if not write.applied:
                self._apply()
        if write.error is not None:
            raise write.error

    def apply_all(self) -> None:
        """Apply all that is committed, if it can be done now."""
        with self.lock:
            try:
                self._apply()
            except StoreUnavailableError as error:
                log.warning("apply_failed", error=str(error))

    def apply_some(self) -> bool:
        """Apply what is committed, of other processes' rows a few alone; whether more is left.

        Raises StoreUnavailableError.
        """
        with self.lock:
            self._apply(once=True)
            return bool(self._queue)

    def _apply(self, *, once: bool = False) -> None:
        """Apply the queue; the caller holds the lock. `once`: end after rows of others."""
        while self._queue:
            own_since = self._queue[0].own_since
            while rows := self._others(own_since):
                self._change(partial(Contents.apply_rows, rows=rows))
                if once:
                    return
            self._apply_own(own_since)

    def _others(self, own_since: int) -> list[LogRow]:
        """The next rows of other processes which come before our own ones."""
        contents = self._contents()
        if contents.fault is not None or contents.complete_seq >= own_since - 1:
            return []
        rows = self._store.read(
            self._collection, contents.complete_seq, own_since - 1, FOLLOWED_CHUNK
        )
        if not rows:
            contents.complete(own_since - 1)
        return rows

    def _apply_own(self, own_since: int) -> None:
        """Apply what is next in the queue, as far as nobody else has written in between."""
        writes: list[Committed] = []
        last = 0
        while self._queue and self._queue[0].own_since == own_since:
            item = self._queue.popleft()
            last = item.last
            if isinstance(item, Committed):
                writes.append(item)
        if writes:
            with ahead(large=sum(len(write.ids) for write in writes) >= LARGE_ROWS):
                self._change(partial(Contents.apply_writes, writes=writes))
        contents = self._contents()
        contents.complete(last)
        for write in writes:
            if contents.fault is not None:
                write.error = NotReadyError(
                    "the points are stored, but the collection must be loaded again before it"
                    " can be searched; restart the server"
                )
            write.applied = True
            self.unapplied -= len(write.ids)

    def _change(self, change: Callable[[Contents], None]) -> None:
        contents = self._contents()
        try:
            if contents.fault is None:
                change(contents)
        except Exception as error:
            # In the log but not in the engine: only a replay can mend that.
            contents.fault = f"the engine failed: {error}"
            log.exception("engine_failed", collection=self._collection)
        self._on_applied()
