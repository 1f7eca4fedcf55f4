"""The collections of a deployment, and the shard of each."""

from __future__ import annotations

import bisect
import threading
from typing import Any

import structlog
from closeby.index.errors import InvalidInputError

from .errors import CollectionExistsError, CollectionNotFoundError, ServiceError
from .shard import Shard
from .store import CollectionRecord, Store

__all__ = ["Registry"]

log = structlog.get_logger(__name__)


class Registry:
    """Name -> shard. Thread-safe.

    `open` makes a shard for each stored collection, `load` replays them one after the other;
    each serves as soon as it is ready.
    """

    def __init__(self, store: Store, *, max_set_elements: int) -> None:
        self._store = store
        self._max_set_elements = max_set_elements
        self._shards: dict[str, Shard] = {}
        # Held while a collection is created or deleted, so that record and shard go together.
        self._changing = threading.Lock()
        self._stop = threading.Event()
        for record in store.list_collections():
            self._shards[record.name] = self._shard(record)

    def load(self) -> None:
        """Replay every collection which is not ready; one that fails does not stop the others."""
        for shard in self.shards():
            if self._stop.is_set():
                return
            if shard.ready:
                continue
            try:
                shard.load(self._stop)
            except (ServiceError, InvalidInputError):
                log.exception("load_failed", collection=shard.record.name)
                continue
            log.info("loaded", collection=shard.record.name, points=len(shard))

    def stop_loading(self) -> None:
        """Make `load` return soon."""
        self._stop.set()

    def shards(self) -> list[Shard]:
        """All shards, by name of their collection."""
        return [self._shards[name] for name in sorted(self._shards)]

    def page(self, limit: int, after: str | None) -> tuple[list[Shard], bool]:
        """At most `limit` shards with a name greater than `after`, and whether more follow."""
        names = sorted(self._shards)
        start = 0 if after is None else bisect.bisect_right(names, after)
        shards = [self._shards.get(name) for name in names[start : start + limit]]
        return [shard for shard in shards if shard is not None], start + limit < len(names)

    def get(self, name: str) -> Shard:
        """The shard of a collection. Raises CollectionNotFoundError."""
        shard = self._shards.get(name)
        if shard is None:
            raise CollectionNotFoundError(f"there is no collection {name!r}; create it with PUT")
        return shard

    def create(self, name: str, config: dict[str, Any]) -> tuple[Shard, bool]:
        """The shard of the collection, and whether it is new.

        `config` is normalised. Raises CollectionExistsError if the collection exists with another
        configuration, InvalidInputError if the engine does not take this one.
        """
        with self._changing:
            known = self._shards.get(name)
            if known is not None:
                _require_same(known.record, config)
                return known, False
            # The engine is made before the record: a configuration that it refuses leaves nothing.
            self._shard(CollectionRecord(0, name, config, ""))
            shard = self._shard(self._store.create_collection(name, config))
            shard.load()
            self._shards[name] = shard
            return shard, True

    def delete(self, name: str) -> None:
        """Delete a collection with all its points. Raises CollectionNotFoundError."""
        with self._changing:
            shard = self.get(name)
            self._store.delete_collection(shard.record.id)
            del self._shards[name]

    def _shard(self, record: CollectionRecord) -> Shard:
        return Shard(self._store, record, max_set_elements=self._max_set_elements)


def _require_same(record: CollectionRecord, config: dict[str, Any]) -> None:
    differing = sorted(
        key
        for key in config.keys() | record.config.keys()
        if config.get(key) != record.config.get(key)
    )
    if differing:
        raise CollectionExistsError(
            f"collection {record.name!r} exists with another {', '.join(differing)}; delete it"
            " first, or take another name"
        )
