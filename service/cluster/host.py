"""One shard of a cluster: its partitions of every collection, and what is asked of it.

It writes no points. It follows the log, which the ingress writes: by and by, and at once where a
request says how far it must have come. A shard that starts anywhere reads its manifests, fetches
the files that it lacks, replays what is later, and is ready.
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
from closeby.service.encoding import decode_rows
from closeby.service.errors import NotReadyError, TooManyRequestsError
from closeby.service.following import Following
from closeby.service.hits import Search
from closeby.service.live import Versions
from closeby.service.partitions import partition_of
from closeby.service.sealing import SEGMENT_POINTS, Sealing
from closeby.service.shard import Shard
from closeby.service.store import CollectionRecord, Store
from closeby.service.upkeep import Upkeep

from .placement import Placement, read_placement
from .segment_store import SegmentStore
from .stored_files import StoredFiles, forget_files

__all__ = ["Alive", "Described", "Found", "HostOptions", "HostStatus", "ShardHost"]

RETRY_SECONDS = 1.0
CATCH_UP_TRIES = 3

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
    """State of a shard: of each collection its points, and how far its log was replayed."""

    epoch: int
    ready: bool
    counts: dict[int, int]
    complete: dict[int, int]
    faults: dict[int, str]


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
        try:
            self._placement = self._read_placement()
        except BaseException:
            self._store.close()
            raise
        self._store.confine(self._placement.held_by(name))
        self._shards: dict[int, Shard] = {}
        self._changing = threading.Lock()
        # Held while log rows are removed: not while another shard reads old ones to join.
        self._clearing = threading.Lock()
        self._upkeep = Upkeep(self._kept)
        self._stop = threading.Event()
        self._loaded = threading.Event()
        self._following = Following(self._store, self._ready, self._refresh)
        self._loader = threading.Thread(target=self._load_all, name="closeby-load", daemon=True)

    def start(self) -> None:
        """Begin to load, to follow, to seal."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._loader.start()
        self._upkeep.start()

    def close(self) -> None:
        """End what is being done; seal what is not, so that the next start is quick."""
        self._stop.set()
        self._upkeep.stop()
        self._loader.join()
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
        )

    def search(
        self, collection: int, queries: Sequence[bytes], wanted: Search, at_least: int
    ) -> Found:
        """The nearest points of each query, given as features in rows (`encoding`).

        All that the log says up to `at_least` is taken into account. Raises NotReadyError,
        StoreUnavailableError, CollectionNotFoundError.
        """
        shard = self._shard(collection, at_least)
        seqs, scores = shard.search_features(decode_rows(queries), wanted)
        versions = shard.versions(set(seqs[seqs >= 0].tolist()))
        recall = shard.recall_estimate(wanted.target_recall)
        return Found(self._placement.epoch, seqs, scores, versions, recall)

    def live_seqs(self, collection: int, ids: Sequence[int | str], at_least: int) -> Alive:
        """The seqs of those of `ids` that this shard has; raises as `search`."""
        seqs = self._shard(collection, at_least).live_seqs(ids)
        return Alive(self._placement.epoch, seqs)

    def describe(self, collection: int, at_least: int) -> Described:
        """Count, and what the engine says of itself; raises as `search`."""
        facts = self._shard(collection, at_least).describe()
        return Described(self._placement.epoch, facts)

    def refresh(self) -> int:
        """Take up the placement as it is now; its epoch.

        On return no row is removed from the log any more if a shard is joining.
        """
        with self._changing:
            placement = self._read_placement()
            before, self._placement = self._placement, placement
            if placement.epoch != before.epoch:
                self._take_up(placement)
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
            records = {record.id: record for record in self._store.list_collections()}
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
        files = partial(StoredFiles, store=self._store, objects=self._objects, shard=self.name)
        sealing = Sealing(
            self._directory / str(record.id),
            self._options.segment_points,
            on_frozen=self._upkeep.announce,
            files=files,
        )
        shard = Shard(
            self._store, record, max_set_elements=self._options.max_set_elements, sealing=sealing
        )
        try:
            shard.load(self._stop)
            # Its files may hold points of partitions that were given away since.
            if self._placement.epoch > 1:
                shard.drop(self._belongs)
            log.info("loaded", shard=self.name, collection=record.name, points=len(shard))
        except (ClosebyError, OSError):
            log.exception("load_failed", shard=self.name, collection=record.name)
        return shard

    def _forget(self, number: int) -> None:
        self._shards.pop(number).close()
        shutil.rmtree(self._directory / str(number), ignore_errors=True)
        try:
            forget_files(self._objects, number, self.name)
        except OSError as error:
            log.warning("objects_not_removed", shard=self.name, error=str(error))

    # --- placement -------------------------------------------------------------------------------

    def _read_placement(self) -> Placement:
        found = read_placement(self._store)
        if found is None or not found.held_by(self.name):
            raise NotReadyError(f"the cluster has no shard {self.name!r} yet")
        return found

    def _belongs(self, key: str) -> bool:
        return partition_of(key) in self._placement.held_by(self.name)

    def _take_up(self, placement: Placement) -> None:
        """Forget what was given away. A shard that is part of the cluster never gets more."""
        self._store.confine(placement.held_by(self.name))
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
