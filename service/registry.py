"""The collections of a deployment, and the shard of each."""

from __future__ import annotations

import bisect
import contextlib
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from closeby.index.errors import ClosebyError

from .engines import as_asked
from .errors import CollectionExistsError, CollectionNotFoundError
from .following_shard import FollowingShard
from .shard import Sealing, Shard
from .store import CollectionRecord, Store

__all__ = ["Registry", "shard_folder"]

HIDDEN = "~"
"""First letter of the name of a collection that is being restored; no other name begins so."""

log = structlog.get_logger(__name__)


class Registry:
    """Name -> shard. Thread-safe.

    It begins with a shard for each stored collection; `load` loads them one after the other, and
    each serves as soon as it is ready. `sealing` tells how they keep sealed segments, each in a
    folder of `sealing.directory`; None: they keep none. With `read_only` another process writes,
    and `refresh` follows it. Raises OSError.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_set_elements: int,
        sealing: Sealing | None = None,
        read_only: bool = False,
    ) -> None:
        self._store = store
        self._max_set_elements = max_set_elements
        self._sealing = sealing
        self._read_only = read_only
        self._shards: dict[str, Shard] = {}
        # Held while a collection is created or deleted, so that record and shard go together.
        self._changing = threading.Lock()
        self._stop = threading.Event()
        self._filling: set[Shard] = set()
        if read_only:
            self._take_over()
            return
        for record in store.list_collections():
            if record.name.startswith(HIDDEN):
                self._discard(record)
            else:
                self._shards[record.name] = self._shard(record)
        if sealing is not None:
            _remove_folders_of_others(sealing.directory, self._shards.values())

    def load(self) -> None:
        """Replay every collection which is not ready; one that fails does not stop the others."""
        for shard in self.shards():
            if self._stop.is_set():
                return
            if shard.ready:
                continue
            try:
                shard.load(self._stop)
            except Exception:  # a defect of ours, met by one collection, is no fault of the others
                log.exception("load_failed", collection=shard.record.name)

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
        configuration, InvalidInputError if the engine does not take this one, OSError if its
        directory cannot be made; then nothing is left.
        """
        with self._changing:
            known = self._shards.get(name)
            if known is not None:
                _require_same(known.record, config)
                return known, False
            # The engine is made before the record: a configuration that it refuses leaves nothing.
            self._shard(CollectionRecord(0, name, config, ""))
            shard = self._shard(self._store.create_collection(name, config))
            try:
                shard.load()
            except BaseException:
                # Its name would be taken, by something that nobody sees.
                with contextlib.suppress(ClosebyError):
                    self._store.delete_collection(shard.record.id)
                self._forget(shard)
                raise
            self._shards[name] = shard
            return shard, True

    def delete(self, name: str) -> None:
        """Delete a collection with all its points. Raises CollectionNotFoundError."""
        with self._changing:
            shard = self.get(name)
            self._store.delete_collection(shard.record.id)
            del self._shards[name]
        self._forget(shard)

    def restore(
        self, name: str, config: dict[str, Any], fill: Callable[[Shard], None], *, replace: bool
    ) -> Shard:
        """A collection filled by `fill`, which gets its name once it is complete.

        Until then nobody sees it, and what has the name goes on. Raises CollectionExistsError if
        something has the name and `replace` is false, and whatever `fill` raises.
        """
        if not replace and name in self._shards:
            raise CollectionExistsError(f"collection {name!r} exists; restore with replace: true")
        self._shard(CollectionRecord(0, name, config, ""))
        hidden = self._store.create_collection(f"{HIDDEN}{secrets.token_hex(8)}", config)
        shard = self._shard(hidden)
        try:
            shard.load()
            self._filling.add(shard)
            fill(shard)
            with self._changing:
                before = self._shards.get(name)
                if before is not None and not replace:
                    raise CollectionExistsError(f"collection {name!r} was created meanwhile")
                shard.record = self._store.rename_collection(
                    hidden.id, name, None if before is None else before.record.id
                )
                self._shards[name] = shard
        except BaseException:
            with contextlib.suppress(ClosebyError):
                self._store.delete_collection(hidden.id)
            self._forget(shard)
            raise
        finally:
            self._filling.discard(shard)
        if before is not None:
            self._forget(before)
        return shard

    def refresh(self) -> None:
        """Follow what another process has created, deleted, renamed and sealed.

        Raises StoreUnavailableError.
        """
        self._take_over()
        for shard in self.shards():
            if self._stop.is_set() or not isinstance(shard, FollowingShard):
                return
            try:
                shard.renew()
            except (ClosebyError, OSError) as error:
                log.warning("renew_failed", collection=shard.record.name, error=str(error))

    def _take_over(self) -> None:
        """Make the shards those of the collections that are stored."""
        known = {shard.record.id: shard for shard in self._shards.values()}
        shards: dict[str, Shard] = {}
        for record in self._store.list_collections():
            if not record.name.startswith(HIDDEN):
                shard = known.get(record.id) or self._shard(record)
                own = self._sealing_of(record)
                if own is not None and isinstance(shard, FollowingShard):
                    shard.follow(record, own)
                else:
                    shard.record = record
                shards[record.name] = shard
        self._shards = shards

    def reindex(
        self, shard: Shard, config: dict[str, Any], stop: threading.Event, *, rebuild: bool
    ) -> None:
        """Give a collection another engine; see `Shard.reindex`.

        Without `rebuild` the engine that there is stays: `config` means it already.
        """
        if not rebuild:
            shard.change_plan(config)
            return
        before = shard.record
        config = config | {"generation": config.get("generation", 0) + 1}
        own = self._sealing_of(replace(before, config=config))
        if own is not None:
            # What an attempt left that did not come to its end.
            shutil.rmtree(own.directory, ignore_errors=True)
        shard.reindex(config, own, stop)
        if self._sealing is not None:
            folder = self._sealing.directory / shard_folder(before.id, before.config)
            shutil.rmtree(folder, ignore_errors=True)

    def kept(self) -> list[Shard]:
        """All shards whose upkeep is due, also those that are being filled."""
        return [*self.shards(), *self._filling]

    def seal_tails(self) -> None:
        """Seal what is not sealed yet, when no write is in progress any more."""
        for shard in self.shards():
            try:
                shard.seal_tail()
            except (ClosebyError, OSError) as error:
                # Nothing is lost: the next start replays it.
                log.warning("seal_failed", collection=shard.record.name, error=str(error))

    def _discard(self, record: CollectionRecord) -> None:
        """A restore did not come to its end."""
        self._store.delete_collection(record.id)

    def _forget(self, shard: Shard) -> None:
        """Remove what a shard has on disk beside the store."""
        shard.close()
        if self._sealing is not None:
            folder = self._sealing.directory / shard_folder(shard.record.id, shard.record.config)
            shutil.rmtree(folder, ignore_errors=True)

    def _shard(self, record: CollectionRecord) -> Shard:
        own = self._sealing_of(record)
        if self._read_only and own is not None:
            return FollowingShard(
                self._store, record, max_set_elements=self._max_set_elements, sealing=own
            )
        return Shard(self._store, record, max_set_elements=self._max_set_elements, sealing=own)

    def _sealing_of(self, record: CollectionRecord) -> Sealing | None:
        """How the shard of a collection keeps sealed segments, in a folder of its own."""
        if self._sealing is None:
            return None
        folder = self._sealing.directory / shard_folder(record.id, record.config)
        return replace(self._sealing, directory=folder)


def _remove_folders_of_others(directory: Path, shards: Iterable[Shard]) -> None:
    """Remove folders of collections that were deleted when the server stopped."""
    directory.mkdir(exist_ok=True)
    known = {shard_folder(shard.record.id, shard.record.config) for shard in shards}
    for folder in directory.iterdir():
        if folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)


def shard_folder(collection: int, config: dict[str, Any]) -> str:
    """Where the sealed segments of a collection lie: each engine that it had has its own."""
    generation = config.get("generation", 0)
    return f"{collection}.{generation}" if generation else str(collection)


def _require_same(record: CollectionRecord, config: dict[str, Any]) -> None:
    asked, known = as_asked(config), as_asked(record.config)
    differing = sorted(
        key for key in asked.keys() | known.keys() if asked.get(key) != known.get(key)
    )
    if differing:
        raise CollectionExistsError(
            f"collection {record.name!r} exists with another {', '.join(differing)}; delete it"
            " first, or take another name"
        )
