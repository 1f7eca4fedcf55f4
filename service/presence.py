"""Which workers live: each says so in the store, again and again, for a few seconds at a time.

The server leaves work to workers while one lives. It does not depend on that being true: what a
worker was given and does not do comes back by its lease.
"""

from __future__ import annotations

import contextlib
import threading
import time

import sqlalchemy as sa
import structlog

from .errors import StoreUnavailableError
from .schema import workers
from .store import Store

__all__ = ["Presence", "forget_workers", "workers_alive"]

ALIVE_SECONDS = 6.0
"""For how long a worker says that it lives."""
SAY_SECONDS = 2.0
"""How often it does."""

log = structlog.get_logger(__name__)


class Presence:
    """Says that the worker `owner` lives, from `start` until `stop`."""

    def __init__(self, store: Store, owner: str) -> None:
        self._store = store
        self._owner = owner
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._say, name="closeby-presence", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """The worker goes, and says so."""
        self._ending.set()
        self._thread.join()
        with contextlib.suppress(StoreUnavailableError):
            forget_workers(self._store, self._owner)

    def _say(self) -> None:
        mine = workers.c.owner == self._owner

        def run(connection: sa.Connection) -> None:
            until = time.time() + ALIVE_SECONDS
            found = connection.execute(workers.update().where(mine).values(alive_until=until))
            if found.rowcount == 0:
                connection.execute(workers.insert().values(owner=self._owner, alive_until=until))

        while True:
            try:
                self._store.transact(run)
            except StoreUnavailableError as error:
                log.warning("presence_not_told", error=error.detail)
            if self._ending.wait(SAY_SECONDS):
                return


def workers_alive(store: Store) -> bool:
    """Whether a worker lives. Raises StoreUnavailableError."""
    statement = sa.select(workers.c.owner).where(workers.c.alive_until > time.time()).limit(1)
    with store.reading() as connection:
        return connection.execute(statement).first() is not None


def forget_workers(store: Store, prefix: str) -> None:
    """Workers whose names begin with `prefix` are gone. Raises StoreUnavailableError."""
    gone = sa.or_(workers.c.owner.startswith(prefix), workers.c.alive_until < time.time())
    store.transact(lambda connection: connection.execute(workers.delete().where(gone)))
