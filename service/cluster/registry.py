"""The collections of a cluster, as one ingress knows them; other ingresses may change them."""

from __future__ import annotations

import datetime
import threading
from typing import Any

from closeby.service.registry import HIDDEN, Registry
from closeby.service.shard import Shard
from closeby.service.store import CollectionRecord, Store

from .collection import ClusterCollection, ClusterState

__all__ = ["ClusterRegistry"]

ABANDONED = datetime.timedelta(days=1)
"""Age at which a restore that did not come to its end is taken for dead."""


class ClusterRegistry(Registry):
    """Name -> `ClusterCollection`. Thread-safe."""

    def __init__(self, store: Store, state: ClusterState, *, max_set_elements: int) -> None:
        self._state = state
        super().__init__(store, max_set_elements=max_set_elements)

    def get(self, name: str) -> Shard:
        """See `Registry.get`."""
        if name not in self._shards:
            self.refresh()
        return super().get(name)

    def refresh(self) -> None:
        """Take up what other ingresses have made and deleted. Raises StoreUnavailableError."""
        with self._changing:
            stored = {record.name: record for record in self._store.list_collections()}
            for name, shard in list(self._shards.items()):
                if name not in stored or stored[name].id != shard.record.id:
                    del self._shards[name]
                elif isinstance(shard, ClusterCollection) and shard.record != stored[name]:
                    shard.take_up(stored[name])
            for name, record in stored.items():
                if name not in self._shards and not name.startswith(HIDDEN):
                    self._shards[name] = self._shard(record)

    def count(self) -> None:
        """Ask the shards how many points each collection has."""
        state = self._state
        found = state.fanout.ask(state.placement.shards, "status", deadline=state.deadline)
        for shard in self.shards():
            if isinstance(shard, ClusterCollection):
                number = shard.record.id
                shard.count = sum(status.counts.get(number, 0) for status in found.values())

    def reindex(
        self, shard: Shard, config: dict[str, Any], stop: threading.Event, *, rebuild: bool
    ) -> None:
        """See `Registry.reindex`; what `stop` raises does not undo it."""
        assert isinstance(shard, ClusterCollection)
        if rebuild:
            config = config | {"generation": shard.record.config.get("generation", 0) + 1}
        shard.change_plan(config)
        # Also where there is nothing to rebuild: an ingress that died may have asked for it.
        shard.await_shards(stop)

    def _shard(self, record: CollectionRecord) -> Shard:
        return ClusterCollection(self._store, record, self._state, self._max_set_elements)

    def _discard(self, record: CollectionRecord) -> None:
        # Another ingress may be at it.
        begun = datetime.datetime.fromisoformat(record.created_at)
        if datetime.datetime.now(datetime.UTC) - begun > ABANDONED:
            super()._discard(record)
