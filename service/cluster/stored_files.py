"""The sealed files of a shard of a cluster: a local cache of what object storage holds.

The manifest is a row of the store. It names its owner, the process that opened the shard last: a
process that was thought dead and is not can publish nothing any more.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from pathlib import Path

import sqlalchemy as sa
import structlog
from closeby.service.durable_files import checksum, remove
from closeby.service.errors import StoreUnavailableError
from closeby.service.manifest import MANIFEST_NAME, FileEntry, Manifest
from closeby.service.schema import manifests
from closeby.service.sealed_files import OpenSegment, SealedFiles
from closeby.service.store import Store

from .segment_store import SegmentStore, SegmentStoreError

__all__ = ["StoredFiles", "forget_files", "keys_of", "prefix_of"]

log = structlog.get_logger(__name__)


class StoredFiles(SealedFiles):
    """The files of one collection's part of a shard, called by `placement.files_key`.

    Raises OSError.
    """

    def __init__(
        self, directory: Path, collection: int, *, store: Store, objects: SegmentStore, shard: str
    ) -> None:
        directory.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(directory, collection)
        self._store = store
        self._objects = objects
        self._prefix = prefix_of(collection, shard)
        self._mine = (manifests.c.collection == collection) & (manifests.c.shard == shard)
        self._row = {"collection": collection, "shard": shard}
        self._owner = secrets.token_hex(8)

    def open(
        self, *, verify: bool, known: Collection[FileEntry] = ()
    ) -> tuple[Manifest, list[OpenSegment]]:
        """Become the owner, fetch what is missing here, and map it; see `SealedFiles.open`.

        Raises also StoreUnavailableError, SegmentStoreError.
        """
        found = self._take_over()
        if found is None:
            remove([self.directory / MANIFEST_NAME])
        else:
            files = Manifest.parse(f"manifest of {self._prefix}", found)
            for file in files.files():
                path = self.directory / file.name
                if not path.exists() or checksum(path) != (file.size, file.xxh3):
                    self._objects.fetch(self._prefix, self.directory, file)
            files.write(self.directory)
        # Every file was compared just now.
        return super().open(verify=verify and found is None, known=known)

    def _take_over(self) -> bytes | None:
        """Whoever owned the shard does not any more; what it published last."""

        def run(connection: sa.Connection) -> bytes | None:
            row = connection.execute(
                sa.select(manifests.c.body).where(self._mine).with_for_update()
            ).first()
            if row is None:
                values = self._row | {"owner": self._owner, "number": 0}
                connection.execute(manifests.insert().values(values))
                return None
            connection.execute(manifests.update().where(self._mine).values(owner=self._owner))
            body: bytes | None = row.body
            return body

        found: bytes | None = self._store.transact(run)
        return found

    def _commit(self, before: Manifest, after: Manifest) -> None:
        known = set(before.files())
        for file in after.files():
            if file not in known:
                self._objects.put(self._prefix, self.directory, file)
        self._publish(after)
        after.write(self.directory)
        try:
            self._objects.delete(self._prefix, known.difference(after.files()))
        except SegmentStoreError as error:
            log.warning("objects_not_removed", prefix=self._prefix, error=str(error))

    def _publish(self, after: Manifest) -> None:
        owned = self._mine & (manifests.c.owner == self._owner)
        values = {"number": after.number, "body": after.dump()}

        def run(connection: sa.Connection) -> bool:
            return connection.execute(manifests.update().where(owned).values(values)).rowcount == 1

        if not self._store.transact(run):
            raise StoreUnavailableError(f"another process serves {self._prefix} now")

    def may_list(self, paths: Sequence[Path]) -> bool:
        """See `SealedFiles.may_list`; whether the store does cannot always be told."""
        del paths
        return True


def keys_of(store: Store, collection: int, shard: str) -> set[str]:
    """What files of a shard's part of a collection are called by, of now and of before.

    Raises StoreUnavailableError.
    """
    known = sa.select(manifests.c.shard).where(manifests.c.collection == collection)
    with store.reading() as connection:
        keys = list(connection.scalars(known))
    return {key for key in keys if key == shard or key.startswith(f"{shard}.")}


def forget_files(store: Store, objects: SegmentStore, collection: int, key: str) -> None:
    """Remove a manifest, and the objects that it may list.

    Raises StoreUnavailableError, SegmentStoreError.
    """
    mine = (manifests.c.collection == collection) & (manifests.c.shard == key)
    store.transact(lambda connection: connection.execute(manifests.delete().where(mine)))
    objects.delete_all(prefix_of(collection, key))


def prefix_of(collection: int, shard: str) -> str:
    """Where the objects of a shard's part of a collection lie."""
    return f"{collection}/{shard}"
