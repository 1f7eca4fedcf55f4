"""One shard of a cluster: its partitions of every collection, and what is asked of it.

It writes no points. It follows the log, which the ingress writes: by and by, and at once where a
request says how far it must have come. A shard that starts anywhere reads its manifests, fetches
the files that it lacks, replays what is later, and is ready.

What it holds of a collection is made anew, beside what is there, when the collection has another
engine or the shard is given more partitions: then its files have another key (`files_key`).
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import structlog
from closeby.index.errors import ClosebyError
from closeby.service.encoding import decode_features
from closeby.service.errors import NotReadyError, TooManyRequestsError
from closeby.service.following import Following
from closeby.service.hits import Search
from closeby.service.live import Versions
from closeby.service.partitions import partition_of
from closeby.service.sealing import SEGMENT_POINTS, Sealing
from closeby.service.shard import Shard
from closeby.service.store import CollectionRecord, Store
from closeby.service.upkeep import Upkeep

from .build_log import BUILDING
from .placement import Placement, files_key, read_placement
from .segment_store import SegmentStore
from .stored_files import StoredFiles, forget_files, keys_of

__all__ = ["Alive", "Described", "Found", "HostOptions", "HostStatus", "ShardHost"]

RETRY_SECONDS = 1.0
CATCH_UP_TRIES = 3
RENEW_SECONDS = 0.2
"""How often it is looked for what is to be made anew."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What a shard needs to know: the store's URL, that of object storage, a local directory."""

    store: str
    segments: str
    cache: Path
    segment_points: int = SEGMENT_POINTS
    max_set_elements: int = 1_000_000


class Found(NamedTuple):
    """A shard's part of an answer: seqs int64 and scores float32 (q, limit), and whose they are."""

    epoch: int
    seqs: np.ndarray[Any, np.dtype[np.int64]]
    scores: np.ndarray[Any, np.dtype[np.float32]]
    versions: Versions
    recall_estimate: float | None


class Alive(NamedTuple):
    """The seqs of points that exist."""

    epoch: int
    seqs: dict[int | str, int]


class Described(NamedTuple):
    """`Shard.describe` of one shard."""

    epoch: int
    facts: dict[str, Any]


class HostStatus(NamedTuple):
    """State of a shard: of each collection its points, and how far its log was replayed.

    `keys` are those of the files of what it answers with.
    """

    epoch: int
    ready: bool
    counts: dict[int, int]
    complete: dict[int, int]
    faults: dict[int, str]
    keys: dict[int, str]


class ShardHost:
    """The shard `name`. Thread-safe. `start`, then ask; `close` at the end.

    Raises NotReadyError if the cluster has no such shard, what `Store` and `SegmentStore` raise.
    """

    def __init__(self, name: str, options: HostOptions) -> None:
        self.name = name
        self._options = options
        self._objects = SegmentStore(options.segments)
        self._directory = options.cache / name
        self._store = Store(options.store)
        self._placed = False
        try:
            self._placement = self._read_placement()
        except BaseException:
            self._store.close()
            raise
        self._store.confine(self._placement.held_by(name))
        self._shards: dict[int, Shard] = {}
        # By collection: what the files of the contents that answer are called by.
        self._keys: dict[int, str] = {}
        self._changing = threading.Lock()
        # Held while log rows are removed: not while another shard reads old ones to join.
        self._clearing = threading.Lock()
        self._upkeep = Upkeep(self._kept)
        self._stop = threading.Event()
        self._loaded = threading.Event()
        self._following = Following(self._store, self._ready, self._refresh)
        self._loader = threading.Thread(target=self._load_all, name="closeby-load", daemon=True)
        self._renewer = threading.Thread(target=self._renew_all, name="closeby-renew", daemon=True)

    def start(self) -> None:
        """Begin to load, to follow, to seal."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._loader.start()
        self._renewer.start()
        self._upkeep.start()

    def close(self) -> None:
        """End what is being done; seal what is not, so that the next start is quick."""
        self._stop.set()
        self._upkeep.stop()
        self._loader.join()
        self._renewer.join()
        self._following.stop()
        for shard in self._shards.values():
            with contextlib.suppress(ClosebyError, OSError):
                shard.seal_tail()
        self._store.close()

    # --- what is asked ---------------------------------------------------------------------------

    def status(self) -> HostStatus:
        """How far the shard is."""
        shards = dict(self._shards)
        return HostStatus(
            self._placement.epoch,
            self._loaded.is_set() and all(shard.ready for shard in shards.values()),
            {number: len(shard) for number, shard in shards.items()},
            {number: shard.complete_seq for number, shard in shards.items()},
            {number: shard.fault for number, shard in shards.items() if shard.fault is not None},
            dict(self._keys),
        )

    def search(
        self, collection: int, queries: Sequence[bytes], wanted: Search, at_least: int
    ) -> Found:
        """The nearest points of each query, given as features in rows (`encoding`).

        All that the log says up to `at_least` is taken into account. Raises NotReadyError,
        StoreUnavailableError, CollectionNotFoundError.
        """
        shard = self._shard(collection, at_least)
        seqs, scores = shard.search_features(decode_features(queries), wanted)
        versions = shard.versions(set(seqs[seqs >= 0].tolist()))
        recall = shard.recall_estimate(wanted.target_recall)
        return Found(self._placement.epoch, seqs, scores, versions, recall)

    def live_seqs(self, collection: int, ids: Sequence[int | str], at_least: int) -> Alive:
        """The seqs of those of `ids` that this shard has; raises as `search`."""
        seqs = self._shard(collection, at_least).live_seqs(ids)
        return Alive(self._placement.epoch, seqs)

    def recall_estimate(
        self, collection: int, target_recall: float | None, at_least: int
    ) -> Described:
        """What the engine expects of an answer, and how many points it has; raises as `search`."""
        shard = self._shard(collection, at_least)
        recall = shard.recall_estimate(target_recall)
        return Described(self._placement.epoch, {"recall": recall, "points": len(shard)})

    def describe(self, collection: int, at_least: int) -> Described:
        """Count, and what the engine says of itself; raises as `search`."""
        facts = self._shard(collection, at_least).describe()
        return Described(self._placement.epoch, facts)

    def refresh(self) -> int:
        """Take up the placement as it is now; its epoch.

        On return no row is removed from the log any more if a shard is joining.
        """
        with self._changing:
            placement, before = self._read_placement(), self._placement
            if placement.epoch != before.epoch:
                self._take_up(before, placement)
        if placement.joining:
            with self._clearing:
                pass
        return placement.epoch

    # --- collections -----------------------------------------------------------------------------

    def _shard(self, collection: int, at_least: int) -> Shard:
        """The shard of a collection, when it has come as far as `at_least`."""
        shard = self._shards.get(collection)
        if shard is None and self._loaded.is_set():
            # Made a moment ago, perhaps.
            self._know_collections()
            shard = self._shards.get(collection)
        if shard is None or not shard.ready:
            raise NotReadyError(f"{self.name} is being loaded", retry_after=1)
        for _ in range(CATCH_UP_TRIES):
            if shard.complete_seq >= at_least:
                return shard
            with contextlib.suppress(TooManyRequestsError):
                shard.catch_up()
        raise NotReadyError(f"{self.name} has not caught up with the log", retry_after=1)

    def _know_collections(self) -> None:
        """Load collections that are new, forget those that are gone."""
        with self._changing:
            records = {
                record.id: record
                for record in self._store.list_collections()
                if not record.name.startswith(BUILDING)
            }
            for number in self._shards.keys() - records.keys():
                self._forget(number)
            for number, shard in list(self._shards.items()):
                if shard.fault is not None:
                    # What failed may be there again: object storage, the store.
                    shard.close()
                    self._shards[number] = self._open(records[number])
            for number in records.keys() - self._shards.keys():
                self._shards[number] = self._open(records[number])

    def _open(self, record: CollectionRecord) -> Shard:
        """A shard of a collection, loaded unless that fails; then its `fault` says why."""
        key = files_key(self.name, self._placement, record.config)
        shard = Shard(
            self._store,
            record,
            max_set_elements=self._options.max_set_elements,
            sealing=self._sealing(record.id, key),
        )
        self._keys[record.id] = key
        try:
            shard.load(self._stop)
            # Its files may hold points of partitions that were given away since.
            if self._placement.epoch > 1:
                shard.drop(self._belongs)
            log.info("loaded", shard=self.name, collection=record.name, points=len(shard))
        except (ClosebyError, OSError):
            log.exception("load_failed", shard=self.name, collection=record.name)
        return shard

    def _sealing(self, number: int, key: str) -> Sealing:
        """How segments of a collection are sealed, into files called by `key`."""
        return Sealing(
            self._folder(number, key),
            self._options.segment_points,
            on_frozen=self._upkeep.announce,
            files=partial(StoredFiles, store=self._store, objects=self._objects, shard=key),
        )

    def _folder(self, number: int, key: str) -> Path:
        return self._directory / f"{number}{key.removeprefix(self.name)}"

    def _forget(self, number: int) -> None:
        self._shards.pop(number).close()
        self._keys.pop(number, None)
        self._forget_files(number, kept=None)

    def _forget_files(self, number: int, kept: str | None) -> None:
        """Remove all files of a collection but those called by `kept`."""
        try:
            for key in keys_of(self._store, number, self.name) | {self.name}:
                if key != kept:
                    shutil.rmtree(self._folder(number, key), ignore_errors=True)
                    forget_files(self._store, self._objects, number, key)
        except (ClosebyError, OSError) as error:
            log.warning("objects_not_removed", shard=self.name, error=str(error))

    # --- contents made anew ----------------------------------------------------------------------

    def _renew_all(self) -> None:
        """Make anew, in a thread of its own, what is to have other files."""
        while not self._stop.wait(RENEW_SECONDS):
            try:
                for record in self._stale():
                    self._renew(record)
            except (ClosebyError, OSError) as error:
                log.warning("renew_failed", shard=self.name, error=str(error))
                self._stop.wait(RETRY_SECONDS)

    def _stale(self) -> list[CollectionRecord]:
        placement, keys = self._placement, dict(self._keys)
        return [
            record
            for record in self._store.list_collections()
            if record.id in keys
            and keys[record.id] != files_key(self.name, placement, record.config)
        ]

    def _renew(self, record: CollectionRecord) -> None:
        """Make the contents of a collection anew while the ones that are there answer."""
        shard = self._shards.get(record.id)
        if shard is None or not shard.ready:
            return
        key = files_key(self.name, self._placement, record.config)
        log.info("renewing", shard=self.name, collection=record.name, key=key)
        try:
            shard.reindex(record.config, self._sealing(record.id, key), self._stop, stored=record)
        except NotReadyError:
            return  # told to stop; what was sealed is there at the next start
        if self._shards.get(record.id) is not shard:
            shard.close()  # deleted meanwhile
            return
        self._keys[record.id] = key
        # Rows of partitions that were given away while the log was read.
        shard.drop(self._belongs)
        self._forget_files(record.id, kept=key)
        log.info("renewed", shard=self.name, collection=record.name, points=len(shard))

    # --- placement -------------------------------------------------------------------------------

    def _read_placement(self) -> Placement:
        found = read_placement(self._store)
        # One that has left says so to those who still ask it, until it is stopped.
        if found is None or not (found.held_by(self.name) or self._placed):
            raise NotReadyError(f"the cluster has no shard {self.name!r} yet")
        self._placed = True
        return found

    def _belongs(self, key: str) -> bool:
        return partition_of(key) in self._placement.held_by(self.name)

    def _take_up(self, before: Placement, placement: Placement) -> None:
        """Forget what was given away; what is given to the shard comes by `_renew`."""
        held = placement.held_by(self.name)
        # An answer under one epoch has the rows of all that is held under it, and contents that
        # are made for a placement find the rows of it.
        self._store.confine(before.held_by(self.name) | held)
        self._placement = placement
        self._store.confine(held)
        for shard in self._shards.values():
            if shard.ready and (count := shard.drop(self._belongs)):
                log.info("given_away", shard=self.name, points=count, epoch=placement.epoch)

    # --- threads ---------------------------------------------------------------------------------

    def _load_all(self) -> None:
        while not self._stop.is_set():
            try:
                self._know_collections()
                break
            except ClosebyError as error:
                log.warning("load_failed", shard=self.name, error=str(error))
                self._stop.wait(RETRY_SECONDS)
        self._loaded.set()
        self._following.start()

    def _refresh(self) -> None:
        self.refresh()
        self._know_collections()

    def _ready(self) -> list[Shard]:
        return [shard for shard in self._shards.values() if shard.ready]

    def _kept(self) -> list[Shard | _Unclear]:
        """What upkeep works on: nothing is cleared while a shard reads old rows to join."""
        return [_Unclear(shard, self._clearing, self._joining) for shard in self._shards.values()]

    def _joining(self) -> bool:
        return bool(self._placement.joining)


@dataclass(frozen=True, slots=True)
class _Unclear:
    """A shard whose log is cleared when nobody reads old rows of it."""

    shard: Shard
    lock: threading.Lock
    joining: Any

    def seal(self) -> bool:
        return self.shard.seal()

    def bound_tail(self) -> None:
        self.shard.bound_tail()

    def merge(self) -> bool:
        return self.shard.merge()

    def clear_log(self, stop: threading.Event) -> bool:
        with self.lock:
            return not self.joining() and self.shard.clear_log(stop)
