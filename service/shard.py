"""One collection's points, searchable: the durable store, a featuriser and an engine.

A point's life::

    upsert ── features ── append to the store ── add to the engine ── acknowledge
              (no lock)    (group commit, fsync)  (in seq order)

The engine's ids are the seqs of log rows, so a hit names one immutable version of a point. Full
mutable segments are sealed into files (`sealing`) by whoever calls `seal` and `merge`, while reads
and writes go on. At start `load` maps those files and replays what the log has behind them. The
log is the truth: all else can be made again from it.

Other processes may write to the same log. Their rows are applied (`applying`) before those of ours
that follow them, and by `catch_up`.

A shard knows nothing of HTTP and nothing of its siblings: `search_features` of several shards
(or of several parts of one) is merged with `closeby.index.merge_topk`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from closeby.index import Featurizer, MaxIPIndex

from .applying import Applying
from .clearing import Clearing
from .contents import Committed, Contents
from .encoding import Features, Stored
from .engines import make_engine, renew
from .errors import NotReadyError
from .hits import Answer, Hit, Search, hits_of
from .inputs import Inputs, Point, PointBatch
from .live import Versions
from .log_reader import Seen
from .log_rows import CollectionRecord, Durability, Entry, Op, point_id, point_key
from .sealing import Sealer, Sealing, SealingEngine
from .snapshots import Points
from .store import Also, Store
from .structure_file import HasStructure, StructureFile
from .turns import LARGE_ROWS, turn

__all__ = ["Answer", "Hit", "Point", "PointBatch", "Sealing", "Search", "Shard"]

REPLAY_CHUNK = 10_000
"""Log rows read, decoded and added at a time when a shard is loaded."""

DROPPED_CHUNK = 10_000
"""Points that are looked at for whether they still belong here, while writes wait."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Progress:
    """How far the replay is: log rows done, of how many."""

    rows: int = 0
    total: int = 0


class Shard:
    """The points of one collection. All methods are thread-safe.

    `record.config` is a normalised configuration (`registry.CollectionConfig`).
    `max_set_elements` bounds the distinct elements of one set. Without `sealing` all is replayed
    from the log. Call `load` before anything else.
    """

    def __init__(
        self,
        store: Store,
        record: CollectionRecord,
        *,
        max_set_elements: int = 1_000_000,
        sealing: Sealing | None = None,
    ) -> None:
        self.record = record
        self.metric: str = record.config["metric"]
        self.progress = Progress()
        """How far `load` is."""
        self.testing = threading.Lock()
        """Held while points are tested for near-duplicates and stored."""
        self.changing_engine = threading.Lock()
        """Held by the one job that changes the engine."""
        self._store = store
        self._inputs = Inputs(record.config, max_set_elements)
        self._contents = Contents(make_engine(record.config, sealing))
        self._applying = Applying(store, record.id, lambda: self._contents, self._announce)
        self._clearing = Clearing(store, record.id, self._contents, self._applying.lock)
        self._sealing = sealing if isinstance(self._contents.engine, SealingEngine) else None
        self._sealer: Sealer | None = None
        self._structure = self._structure_file(sealing)
        self._loaded = False
        self._load_fault: str | None = None
        self.last_evaluation: dict[str, Any] | None = None
        """Result of the last job that measured recall, since the start."""

    # --- state ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._contents)

    def count_now(self) -> int:
        """How many points there are at this moment; `len` may be a moment old in a cluster."""
        return len(self)

    @property
    def featurizer(self) -> Featurizer:
        """What makes features of raw inputs."""
        return self._inputs.featurizer

    @property
    def ready(self) -> bool:
        """Whether the log was replayed and the engine holds what the store holds."""
        return self._loaded and self.fault is None

    @property
    def fault(self) -> str | None:
        """Why the shard cannot serve any more; None if it can."""
        return self._load_fault or self._contents.fault

    @property
    def complete_seq(self) -> int:
        """All log rows of the collection up to here are found by queries."""
        return self._contents.complete_seq

    def load(self, stop: threading.Event | None = None) -> None:
        """Map the sealed files and replay the log behind them; `ready` afterwards.

        Returns early, not ready, once `stop` is set. Raises StoreUnavailableError if the store
        cannot be read, CorruptFileError or OSError if a file cannot; `fault` then says so.
        """
        start = time.perf_counter()
        try:
            if self._sealing is not None:
                self._sealer = Sealer(
                    self._store, self.record, self._contents, self._applying.lock, self._sealing
                )
                self._sealer.open()
            mapped = time.perf_counter()
            complete = self._replay(self._contents, stop)
            if complete and self._structure is not None:
                self._structure.take_up(self._contents.engine)
            self._loaded = complete
            self._announce()
        except Exception as error:
            self._load_fault = str(error)
            raise
        log.info(
            "loaded",
            collection=self.record.name,
            points=len(self),
            map_seconds=round(mapped - start, 3),
            replayed=self.progress.rows,
            replay_seconds=round(time.perf_counter() - mapped, 3),
        )

    def _structure_file(self, sealing: Sealing | None) -> StructureFile | None:
        """Where the structure of the engine is kept, if it has one."""
        if sealing is None or not isinstance(self._contents.engine, HasStructure):
            return None
        return StructureFile(sealing.directory)

    def _replay(self, contents: Contents, stop: threading.Event | None) -> bool:
        """Apply what the log has behind `contents`; False if told to stop."""
        progress = self.progress = Progress()
        head = self._store.head()
        progress.total = self._store.count_rows(self.record.id, contents.complete_seq)
        for rows in self._store.read_from(self.record.id, contents.complete_seq, REPLAY_CHUNK):
            if stop is not None and stop.is_set():
                return False
            contents.apply_rows(rows)
            progress.rows += len(rows)
            if progress.rows % (20 * REPLAY_CHUNK) == 0:
                log.info(
                    "replaying",
                    collection=self.record.name,
                    rows=progress.rows,
                    total=progress.total,
                )
        contents.complete(head)
        return True

    def reindex(
        self,
        config: dict[str, Any],
        sealing: Sealing | None,
        stop: threading.Event,
        stored: CollectionRecord | None = None,
    ) -> None:
        """Build the engine of another configuration from the log, and let it take over at once.

        Reads and writes go on meanwhile. `sealing` has a directory of its own. `stored`: somebody
        has stored the configuration before. Raises what `load` raises, and whatever `stop` raises;
        then all is as it was.
        """
        self._check_ready()
        contents = Contents(make_engine(config, sealing))
        sealer: Sealer | None = None
        if sealing is not None and isinstance(contents.engine, SealingEngine):
            sealer = Sealer(self._store, self.record, contents, self._applying.lock, sealing)
            sealer.open()
        with self._clearing.kept():
            if not self._replay(contents, stop):
                raise NotReadyError("the server stops", retry_after=1)
            while sealer is None and renew(contents, threading.Lock()):
                pass  # nobody else knows these contents yet
            record = stored or self._store.change_config(self.record.id, config)
            with self._applying.lock:
                while rows := self._store.read(
                    record.id, contents.complete_seq, self.complete_seq, REPLAY_CHUNK
                ):
                    contents.apply_rows(rows)
                contents.complete(self.complete_seq)
                before = self._sealer
                self._contents, self._sealer, self.record = contents, sealer, record
                self._sealing = sealing if sealer is not None else None
                structure, self._structure = self._structure, self._structure_file(sealing)
        self._clearing = Clearing(self._store, record.id, contents, self._applying.lock)
        self.last_evaluation = None
        if before is not None:
            before.close()
        if structure is not None:
            structure.close()
        if self._structure is not None:
            self._structure.keep(contents.engine)
        self._announce()

    def change_plan(self, config: dict[str, Any]) -> None:
        """Store a configuration that means the engine there is."""
        self.record = self._store.change_config(self.record.id, config)

    def describe(self) -> dict[str, Any]:
        """Count, and what the engine says of itself."""
        engine = self._contents.engine
        return {
            "count": len(self),
            "index_stats": {
                "engine": engine.kind,
                "points": len(engine),
                "bytes": {name: int(size) for name, size in engine.nbytes.items()},
                "explain": _plain(engine.explain()),
                "sealed_segments": 0 if self._sealer is None else self._sealer.segments,
            },
        }

    # --- writing -------------------------------------------------------------------------------

    def upsert(
        self,
        batch: PointBatch,
        durability: Durability = Durability.FSYNC,
        also: Also | None = None,
    ) -> int:
        """Store points and make them searchable; the number of distinct ids.

        Of an id which is given twice the last one wins. On return the points are as safe and as
        visible as `durability` says. `also`: see `Store.append`.

        Raises InvalidInputError with `row` (position in the batch) if an input cannot be used, and
        what `Store.append` raises; then nothing was stored.
        """
        self._check_ready()
        if len(batch.ids) == 0:
            return 0
        self._await_room()
        with turn(large=len(batch.ids) >= LARGE_ROWS):
            entries, ids, features = self._inputs.entries(batch, self._contents.engine)
        self._put(entries, ids, features, durability, also)
        return len(entries)

    def append(self, batch: PointBatch, also: Also | None = None) -> int:
        """Store points for another process to apply; the number of distinct ids.

        The shard need not be loaded. On return they are on disk. Raises as `upsert` does.
        """
        entries, _, _ = self._inputs.entries(batch, self._contents.engine)
        if entries:
            self._store.append(self.record.id, entries, also=also).result()
        return len(entries)

    def features(self, inputs: Sequence[Any] | np.ndarray[Any, Any]) -> Features:
        """Features of raw inputs. The shard need not be loaded.

        Raises InvalidInputError, with `row` if it is known, if one cannot be used.
        """
        return self._inputs.features(inputs, self._contents.engine)

    def put_rows(self, entries: Sequence[Entry], durability: Durability) -> None:
        """Store points that are encoded already: rows of another log, each point once.

        Raises StoreUnavailableError if features are damaged, InvalidInputError if they are not
        what this collection holds.
        """
        self._check_ready()
        self._await_room()
        features = self._inputs.decoded(entries, self._contents.engine)
        self._put(entries, [point_id(entry.point) for entry in entries], features, durability)

    def _put(
        self,
        entries: Sequence[Entry],
        ids: Sequence[int | str],
        features: Stored,
        durability: Durability,
        also: Also | None = None,
    ) -> None:
        has_payload = [entry.payload is not None for entry in entries]
        self._write(entries, Committed(ids, features, has_payload), durability, also)

    def delete(self, ids: Sequence[int | str], durability: Durability = Durability.FSYNC) -> int:
        """Delete points; the number of those that existed. See `upsert` for `durability`."""
        self._check_ready()
        live = self._contents.live
        if durability == Durability.NONE:
            # A point may be on its way in: what is not known yet cannot be left out.
            known = list(dict.fromkeys(ids))
        else:
            alive = live.seqs(dict.fromkeys(ids))
            known = [point for point in dict.fromkeys(ids) if point in alive]
        if not known:
            return 0
        entries = [Entry(point_key(point), Op.DELETE) for point in known]
        write = Committed(known, None, [False] * len(known))
        self._write(entries, write, durability)
        return write.deleted if durability != Durability.NONE else len(live.seqs(known))

    def _write(
        self,
        entries: Sequence[Entry],
        write: Committed,
        durability: Durability,
        also: Also | None = None,
    ) -> None:
        self._applying.check_room()
        durable: Future[int] = self._store.append(
            self.record.id,
            entries,
            lambda first, own_since: self._applying.committed(write, first, own_since),
            durable=durability == Durability.FSYNC,
            also=also,
        )
        if durability == Durability.NONE:
            # In the store's thread; if a request applies right now, it or the next does ours.
            durable.add_done_callback(lambda _: self._applying.apply_all())
            return
        durable.result()
        self._applying.finish(write)

    def _await_room(self) -> None:
        if self._sealer is not None:
            self._sealer.await_room()

    def _announce(self) -> None:
        if self._sealer is not None:
            self._sealer.announce()

    # --- what other processes write ------------------------------------------------------------

    def drop(self, belongs: Callable[[str], bool]) -> int:
        """Forget the points whose key does not belong here any more; how many there were."""
        contents = self._contents
        with self._applying.lock:
            seqs = contents.live.all_seqs()
        count = 0
        for start in range(0, len(seqs), DROPPED_CHUNK):
            part = seqs[start : start + DROPPED_CHUNK].tolist()
            with self._applying.lock:
                gone = {
                    point: seq
                    for seq, (point, _) in contents.live.versions(part).items()
                    if point is not None and not belongs(point_key(point))
                }
                # A version may have been replaced since it was listed.
                current = contents.live.seqs(gone)
                contents.drop(current)
            count += len(current)
        return count

    def live_seqs(self, ids: Iterable[int | str]) -> dict[int | str, int]:
        """The seqs of those of `ids` that exist."""
        self._check_ready()
        return self._contents.live.seqs(dict.fromkeys(ids))

    def versions(self, seqs: Iterable[int]) -> Versions:
        """For each seq its point and whether it has a payload; see `LivePoints.versions`."""
        return self._contents.live.versions(seqs)

    def catch_up(self, *, throttled: bool = True) -> None:
        """Return once every row that is committed now, by whatever process, is found by queries.

        Raises StoreUnavailableError if the log cannot be read and, if `throttled`,
        TooManyRequestsError if rows come faster than they can be sealed.
        """
        self._check_ready()
        last = 0

        def seen(head: Seen) -> None:
            nonlocal last
            last = head.last
            self._applying.seen(head)

        self._store.observe(seen)
        if throttled:
            self.apply_seen()
            return
        while self.complete_seq < last and self._applying.apply_some():
            pass

    def seen(self, head: Seen) -> None:
        """Others have written; to be called in log order, and followed by `apply_seen`."""
        if self.ready and head.last > self.complete_seq:
            self._applying.seen(head)

    def apply_seen(self) -> None:
        """Apply what others have written, some at a time; raises as `catch_up`."""
        while self._applying.apply_some():
            self._await_room()

    # --- sealing -------------------------------------------------------------------------------

    @property
    def frozen(self) -> int:
        """Full mutable segments that wait for `seal`."""
        return 0 if self._sealer is None else self._sealer.frozen

    def seal(self) -> bool:
        """Seal the oldest full mutable segment into files; False if there is none.

        Reads and writes go on meanwhile. One thread at a time may seal. Raises OSError if the
        files cannot be written, StoreUnavailableError; then all is as it was.
        """
        return self._sealer is not None and self.ready and self._sealer.seal()

    def merge(self) -> bool:
        """Merge sealed segments, or renew a structure; False if nothing is due. See `seal`."""
        if self._sealer is None:
            renewed = self.ready and renew(self._contents, self._applying.lock)
            if renewed and self._structure is not None:
                self._structure.keep(self._contents.engine)
            return renewed
        return self.ready and self._sealer.merge()

    def seal_tail(self) -> None:
        """Seal all that is not sealed yet, unless it is little: the next start is quick then.

        To be called when no write is in progress. Raises what `seal` raises.
        """
        if self._sealer is not None and self.ready:
            self._sealer.seal_tail()
        if self._structure is not None and self.ready:
            self._structure.keep(self._contents.engine, at_once=True)

    def bound_tail(self) -> None:
        """Let a segment that is not full be sealed where much was deleted or replaced since.

        The log behind the sealed files is replayed at start, however few points it holds.
        """
        if self._sealer is not None and self.ready:
            self._sealer.bound_tail()

    def publish_marks(self) -> None:
        """Publish which sealed points are dead, if nothing but deletes waits to be sealed."""
        if self._sealer is not None and self.ready:
            self._sealer.publish_marks()

    def clear_log(self, stop: threading.Event) -> bool:
        """Remove log rows that nobody needs; False if there are too few to bother.

        Raises StoreUnavailableError.
        """
        sealed_seq = None if self._sealer is None else self._sealer.sealed_seq
        return self.ready and self._clearing.clear(sealed_seq, stop)

    def close(self) -> None:
        """The collection was deleted: publish nothing any more."""
        if self._sealer is not None:
            self._sealer.close()
        if self._structure is not None:
            self._structure.close()

    # --- reading -------------------------------------------------------------------------------

    def get(self, ids: Sequence[int | str]) -> tuple[list[Point], list[int | str]]:
        """The points of `ids` in that order, and the ids which do not exist. Repeats count once."""
        self._check_ready()
        wanted = list(dict.fromkeys(ids))
        seqs = self._contents.live.seqs(wanted)
        return self._inputs.stored(self._store, wanted, seqs)

    def unknown(self, ids: Sequence[int | str]) -> list[int | str]:
        """Those of `ids` that no point has."""
        self._check_ready()
        known = self._contents.live.seqs(dict.fromkeys(ids))
        return [point for point in ids if point not in known]

    def search(self, inputs: Sequence[Any] | np.ndarray[Any, Any], wanted: Search) -> Answer:
        """The nearest points of each raw input.

        Raises InvalidInputError with `row` if an input cannot be used.
        """
        self._check_ready()
        contents = self._contents
        features = self._inputs.features(inputs, contents.engine)
        seqs, scores = contents.search(features, wanted, self._applying.lock)
        recall = contents.engine.recall_estimate(wanted.target_recall)
        hits = hits_of(
            seqs,
            scores,
            contents.live.versions,
            self._store,
            with_payload=wanted.with_payload,
        )
        return Answer(hits, recall, estimated=not self._inputs.keeps_features)

    @property
    def engine_kind(self) -> str:
        """Name of the engine."""
        return self._contents.engine.kind

    def recall_estimate(self, target_recall: float | None = None) -> float:
        """Recall that the engine expects."""
        return self._contents.engine.recall_estimate(target_recall)

    def search_features(
        self, features: Features, wanted: Search
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Seqs int64 (q, limit) and scores float32 (q, limit), padded with -1 and NaN."""
        return self._contents.search(features, wanted, self._applying.lock)

    @contextlib.contextmanager
    def points_now(self, *, indexed: bool = False) -> Iterator[Points]:
        """All points as they are at this moment, while writes go on; `indexed`: and their index.

        Within the context no row of theirs is removed from the log.
        """
        self._check_ready()
        with self._clearing.kept():
            with self._applying.lock:
                live = self._contents.live.all_seqs()
                engine = self._contents.engine
                index = engine.fork() if indexed and isinstance(engine, MaxIPIndex) else None
            self._store.sync()
            yield Points(len(live), self._store.rows(self.record.id, live.tolist()), index)

    def _check_ready(self) -> None:
        if self.ready:
            return
        if self.fault is not None:
            raise NotReadyError(f"collection {self.record.name!r} cannot serve: {self.fault}")
        progress = self.progress
        raise NotReadyError(
            f"collection {self.record.name!r} is being loaded: {progress.rows} of"
            f" {progress.total} log rows are done",
            retry_after=1,
        )


def _plain(value: Any) -> Any:
    """`value` with NumPy scalars and tuples as plain JSON types; what is not finite is None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
