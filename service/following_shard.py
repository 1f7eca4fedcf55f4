"""A shard of a server that only reads: it follows the log and the sealed files of another process.

It maps the files that the manifest lists and applies the log behind them, as a start does, and
then what comes. What it applied is in memory, so it begins again from the manifest now and then,
beside the old contents, which serve until the new ones are there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import structlog
from closeby.index.errors import CorruptFileError

from .applying import FOLLOWED_CHUNK
from .contents import Contents
from .engines import make_engine, renew
from .errors import NotReadyError
from .inputs import Point
from .log_rows import CollectionRecord
from .manifest import Manifest
from .sealed_files import nothing_sealed, open_files, read_manifest
from .sealing import Sealing, restore
from .shard import Shard
from .store import Store
from .structure_file import StructureFile

__all__ = ["FollowingShard"]

ATTEMPTS = 5
"""How often a load is tried again because its files were superseded meanwhile."""
RENEW_SEGMENTS = 4
"""Segments in memory which are worth beginning again from the manifest."""
RENEW_SECONDS = 30.0
"""How long superseded files are used at most."""

log = structlog.get_logger(__name__)


class FollowingShard(Shard):
    """See `Shard`; writes raise ReadOnlyError. `sealing` says where the other process seals."""

    def __init__(
        self,
        store: Store,
        record: CollectionRecord,
        *,
        sealing: Sealing,
        max_set_elements: int = 1_000_000,
    ) -> None:
        super().__init__(store, record, max_set_elements=max_set_elements, sealing=sealing)
        self._structure = None  # nothing on disk changes
        self._sealed = sealing
        self._manifest = nothing_sealed(record.id)
        self._superseded_since: float | None = None
        self._outdated = False
        self._beginning = threading.Lock()

    def load(self, stop: threading.Event | None = None) -> None:
        """See `Shard.load`. Nothing on disk changes."""
        try:
            with self._beginning:
                self._loaded = self._begin(stop) or self._loaded
        except Exception as error:
            self._load_fault = str(error)
            raise
        self._load_fault = None

    def follow(self, record: CollectionRecord, sealing: Sealing) -> None:
        """Take note of how the collection is stored now.

        An engine that the other process put in the place of ours takes over with the next `renew`;
        until then ours answers.
        """
        if sealing.directory == self._sealed.directory:
            self.record = record
            return
        with self._beginning:
            self.record, self._sealed, self._outdated = record, sealing, True

    def renew(self) -> None:
        """Begin again from the manifest, if it is worth while. Raises what `load` raises."""
        if not self.ready or self._outdated or self._is_worth_while():
            self.load()
            log.debug("renewed", collection=self.record.name, points=len(self))
        else:
            self.merge()  # nobody else renews a structure of ours

    def get(self, ids: Sequence[int | str]) -> tuple[list[Point], list[int | str]]:
        """See `Shard.get`."""
        found, missing = super().get(ids)
        if self._contents.live.seqs(missing):
            # Their rows were replaced so long ago that they were removed: we are late.
            self.catch_up()
            found, missing = super().get(ids)
        return found, missing

    def apply_seen(self) -> None:
        """See `Shard.apply_seen`. Begins again if rows were removed before we read them."""
        before = self.complete_seq
        super().apply_seen()
        if self.complete_seq > before and self._store.cleared(self.record.id).upto > before:
            self.load()

    def _is_worth_while(self) -> bool:
        manifest = read_manifest(self._sealed.directory, self.record.id)
        if manifest.number == self._manifest.number:
            return False
        now = time.monotonic()
        self._superseded_since = self._superseded_since or now
        return (
            self._contents.tail_rows >= RENEW_SEGMENTS * self._sealed.segment_points
            or now - self._superseded_since >= RENEW_SECONDS
        )

    def _begin(self, stop: threading.Event | None) -> bool:
        """Replace the contents by new ones; False if told to stop."""
        for _ in range(ATTEMPTS):
            # In this order: what was removed before is told by the manifest that is read now.
            removals = self._store.cleared(self.record.id).removals
            manifest = read_manifest(self._sealed.directory, self.record.id)
            try:
                contents = self._restored(manifest)
            except (CorruptFileError, OSError):
                if read_manifest(self._sealed.directory, self.record.id) == manifest:
                    raise
                continue  # its files were superseded, and removed, while we opened them
            if not self._replay(contents, stop):
                return False
            StructureFile(self._sealed.directory).take_up(contents.engine)
            while renew(contents, threading.Lock()):  # nobody else knows them yet
                pass
            with self._applying.lock:
                # Not a moment back from where queries are now.
                while rows := self._store.read(
                    self.record.id, contents.complete_seq, self.complete_seq, FOLLOWED_CHUNK
                ):
                    contents.apply_rows(rows)
                cleared = self._store.cleared(self.record.id)
                if cleared.upto > manifest.sealed_seq and cleared.removals != removals:
                    continue  # rows were removed while we read them
                contents.complete(self.complete_seq)
                self._contents, self._manifest = contents, manifest
                self._superseded_since, self._outdated = None, False
            return True
        raise NotReadyError("the log is cleared faster than it can be read", retry_after=1)

    def _restored(self, manifest: Manifest) -> Contents:
        contents = Contents(make_engine(self.record.config, self._sealed))
        if manifest.number:
            known = set(self._manifest.files())
            opened = open_files(
                self._sealed.directory, manifest, verify=self._sealed.verify, known=known
            )
            restore(contents, manifest, opened, self._sealed)
        return contents
