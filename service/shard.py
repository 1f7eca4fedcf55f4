"""One collection's points, searchable: the durable store, a featuriser and an engine.

A point's life::

    upsert ── features ── append to the store ── add to the engine ── acknowledge
              (no lock)    (group commit, fsync)  (in seq order)

The engine's ids are the seqs of log rows, so a hit names one immutable version of a point. Full
mutable segments are sealed into files (`sealing`) by whoever calls `seal` and `merge`, while reads
and writes go on. At start `load` maps those files and replays what the log has behind them. The
log is the truth: all else can be made again from it.

A shard knows nothing of HTTP and nothing of its siblings: `search_features` of several shards
(or of several parts of one) is merged with `closeby.index.merge_topk`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import orjson
import structlog
from closeby.index import (
    Engine,
    Featurizer,
    FlatIndex,
    FlinngIndex,
    SetBatch,
    featurizer_from,
    merge_topk,
)
from closeby.index.errors import InvalidInputError

from .clearing import superfluous
from .durable_files import remove
from .encoding import Features, decode_rows, encode_rows
from .errors import NotReadyError, StoreUnavailableError, TooManyRequestsError
from .live import LivePoints
from .manifest import SegmentEntry
from .points_file import Names, PointsFile, Source
from .sealing import MergeLike, OpenSegment, SealedFiles, SealingEngine
from .snapshots import Points
from .store import CollectionRecord, Durability, Entry, LogRow, Op, Store, point_id, point_key

__all__ = ["Answer", "Hit", "Point", "PointBatch", "Sealing", "Search", "Shard"]

REPLAY_CHUNK = 10_000
"""Log rows read, decoded and added at a time when a shard is loaded."""

SEGMENT_POINTS = 16_384
"""Points of a mutable segment: what has to be replayed after a crash is a few of these."""
MAX_FROZEN = 2
"""Full segments that may wait for sealing before writers have to wait."""
MAX_FROZEN_IN_NEED = 64
"""The same while sealing fails, for want of disk space for instance; then writes are refused."""
ROOM_SECONDS = 10.0
"""How long a writer waits."""
SMALL_TAIL = 1_000
"""Log rows which a clean stop leaves to the next start: replayed sooner than sealed."""
LEAST_GARBAGE = 2_000
"""Superfluous log rows that are worth removing, if they are also a quarter of the points."""
GRACE_SECONDS = 2.0
"""How long a superfluous row stays at least."""
MAX_UNAPPLIED = 200_000
"""Rows of writes which nobody waits for that may be on their way into the engine."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Points to upsert: ids, raw inputs, and payloads as compact JSON (None: no payload)."""

    ids: Sequence[int | str]
    inputs: Sequence[Any] | np.ndarray[Any, Any]
    payloads: Sequence[bytes | None] | None = None


class Point(NamedTuple):
    """A stored point; `value` is the input it was made from, `payload` compact JSON."""

    id: int | str
    value: Any
    payload: bytes | None


class Hit(NamedTuple):
    """A neighbour: `score` is a similarity, higher is nearer; `payload` is compact JSON."""

    id: int | str
    score: float
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked of each query: `limit` hits at most, of `threshold` similarity at least."""

    limit: int = 10
    threshold: float | None = None
    target_recall: float | None = None
    with_payload: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits of each query, best first, and the recall that the engine expects (None: unknown)."""

    hits: list[list[Hit]]
    recall_estimate: float | None


@dataclass(slots=True)
class _Committed:
    """Rows of one request which are committed and wait to enter the engine."""

    ids: Sequence[int | str]
    features: Features | None
    has_payload: Sequence[bool]
    first: int = 0
    deleted: int = 0
    applied: bool = False
    error: Exception | None = None

    @property
    def is_put(self) -> bool:
        return self.features is not None

    @property
    def last(self) -> int:
        return self.first + len(self.ids) - 1


@dataclass(slots=True)
class Progress:
    """How far the replay is: log rows done, of how many."""

    rows: int = 0
    total: int = 0


@dataclass(slots=True)
class _State:
    """What changes while the shard lives."""

    progress: Progress = field(default_factory=Progress)
    ready: bool = False
    fault: str | None = None
    sealing_fault: str | None = None
    applied_seq: int = 0
    """All log rows of this collection up to here are in the engine."""
    put_seq: int = 0
    """The last of them that put a point."""
    unapplied: int = 0
    tail_rows: int = 0
    """Log rows behind the sealed files."""
    garbage: int = 0
    """Log rows that are superfluous by now, about."""
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Sealing:
    """Where a shard keeps sealed segments.

    `segment_points`: points of a mutable segment. `verify`: compare all checksums at start.
    `on_frozen` is called when a segment waits for `Shard.seal`; None where nobody seals for us,
    and then writers never wait for it.
    """

    directory: Path
    segment_points: int = SEGMENT_POINTS
    verify: bool = True
    on_frozen: Callable[[], None] | None = None


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
        self.featurizer: Featurizer = featurizer_from(record.config["features"])
        self.metric: str = record.config["metric"]
        self._store = store
        self._max_set_elements = max_set_elements
        self._engine = _make_engine(record.config, sealing)
        self._sealing = sealing if isinstance(self._engine, SealingEngine) else None
        self._files: SealedFiles | None = None
        self._open: dict[str, OpenSegment] = {}
        self._live = LivePoints()
        self._state = _State()
        # Rows on disk which are not yet in the engine, in seq order; see _apply_committed.
        self._committed: deque[_Committed] = deque()
        self._apply_lock = threading.Lock()
        # Held while the set of sealed files changes.
        self._publish_lock = threading.Lock()
        self._room = threading.Condition()
        # Whoever reads old versions from the log keeps it from being cleared.
        self._reading_log = threading.Lock()
        self._log_readers = 0

    # --- state ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._live)

    @property
    def ready(self) -> bool:
        """Whether the log was replayed and the engine holds what the store holds."""
        return self._state.ready and self._state.fault is None

    @property
    def progress(self) -> Progress:
        """How far `load` is."""
        return self._state.progress

    @property
    def fault(self) -> str | None:
        """Why the shard cannot serve any more; None if it can."""
        return self._state.fault

    def load(self, stop: threading.Event | None = None) -> None:
        """Map the sealed files and replay the log behind them; `ready` afterwards.

        Returns early, not ready, once `stop` is set. Raises StoreUnavailableError if the store
        cannot be read, CorruptFileError or OSError if a file cannot; `fault` then says so.
        """
        try:
            sealed_seq = 0 if self._sealing is None else self._open_files(self._sealing)
            self._replay(sealed_seq, stop)
        except Exception as error:
            self._state.fault = str(error)
            raise

    def describe(self) -> dict[str, Any]:
        """Count, and what the engine says of itself."""
        engine = self._engine
        return {
            "count": len(self._live),
            "index_stats": {
                "engine": engine.kind,
                "points": len(engine),
                "bytes": {name: int(size) for name, size in engine.nbytes.items()},
                "explain": _plain(engine.explain()),
                "sealed_segments": len(self._open),
            },
        }

    # --- writing -------------------------------------------------------------------------------

    def upsert(self, batch: PointBatch, durability: Durability = Durability.FSYNC) -> int:
        """Store points and make them searchable; the number of distinct ids.

        Of an id which is given twice the last one wins. On return the points are as safe and as
        visible as `durability` says. Raises InvalidInputError with `row` (position in the batch)
        if an input cannot be used, and what `Store.append` raises; then nothing was stored.
        """
        self._check_ready()
        if len(batch.ids) == 0:
            return 0
        self._await_room()
        features = self._features(batch.inputs)
        payloads = batch.payloads or [None] * len(batch.ids)
        last = {point: row for row, point in enumerate(batch.ids)}
        rows = list(last.values())
        if len(rows) < len(batch.ids):
            features = _take(features, rows)
        sources = self._sources([batch.inputs[row] for row in rows])
        entries = [
            Entry(point_key(batch.ids[row]), Op.PUT, encoded, source, payloads[row])
            for row, encoded, source in zip(rows, encode_rows(features), sources, strict=True)
        ]
        write = _Committed(list(last), features, [payloads[row] is not None for row in rows])
        self._write(entries, write, durability)
        return len(rows)

    def put_rows(self, entries: Sequence[Entry], durability: Durability) -> None:
        """Store points that are encoded already: rows of another log, each point once.

        Raises StoreUnavailableError if features are damaged, InvalidInputError if they are not
        what this collection holds.
        """
        self._check_ready()
        self._await_room()
        features = decode_rows([entry.features or b"" for entry in entries])
        self._check_features(features)
        if isinstance(features, SetBatch) and not _rising(features):
            raise InvalidInputError("elements of a set must rise", field=self.featurizer.field)
        ids = [point_id(entry.point) for entry in entries]
        write = _Committed(ids, features, [entry.payload is not None for entry in entries])
        self._write(list(entries), write, durability)

    def delete(self, ids: Sequence[int | str], durability: Durability = Durability.FSYNC) -> int:
        """Delete points; the number of those that existed. See `upsert` for `durability`."""
        self._check_ready()
        if durability == Durability.NONE:
            # A point may be on its way in: what is not known yet cannot be left out.
            known = list(dict.fromkeys(ids))
        else:
            alive = self._live.seqs(dict.fromkeys(ids))
            known = [point for point in dict.fromkeys(ids) if point in alive]
        if not known:
            return 0
        entries = [Entry(point_key(point), Op.DELETE) for point in known]
        write = _Committed(known, None, [False] * len(known))
        self._write(entries, write, durability)
        return write.deleted if durability != Durability.NONE else len(self._live.seqs(known))

    def _write(self, entries: list[Entry], write: _Committed, durability: Durability) -> None:
        if self._state.unapplied > MAX_UNAPPLIED:
            raise TooManyRequestsError(
                f"{self._state.unapplied} points are on their way into the index", retry_after=1
            )

        def on_commit(first: int) -> None:
            write.first = first
            self._state.unapplied += len(entries)
            self._committed.append(write)

        durable: Future[int] = self._store.append(
            self.record.id, entries, on_commit, durable=durability == Durability.FSYNC
        )
        if durability == Durability.NONE:
            durable.add_done_callback(lambda _: self._apply_soon())
            return
        durable.result()
        with self._apply_lock:
            if not write.applied:
                self._apply_committed()
        if write.error is not None:
            raise write.error

    def _apply_soon(self) -> None:
        """Bring what is committed into the engine, in the store's thread.

        If a request is doing so right now, it or the next one takes ours along.
        """
        with self._apply_lock:
            self._apply_committed()

    def _apply_committed(self) -> None:
        """Bring all that is committed into the engine; the caller holds the lock.

        Whoever comes first does it for all who wait, in one `add`: rows come in seq order, since
        the store's writer queues them as it commits them.
        """
        writes: list[_Committed] = []
        while self._committed:
            writes.append(self._committed.popleft())
        if not writes:
            return
        try:
            self._apply(writes)
        except Exception as error:
            # In the log but not in the engine: only a replay can mend that.
            self._state.fault = f"the engine failed: {error}"
            log.exception("engine_failed", collection=self.record.name)
            for write in writes:
                write.error = NotReadyError(
                    "the points are stored, but the collection must be loaded again before it"
                    " can be searched; restart the server"
                )
        for write in writes:
            write.applied = True
            self._state.unapplied -= len(write.ids)

    def _apply(self, writes: list[_Committed]) -> None:
        before = self._live.seqs({point for write in writes for point in write.ids})
        latest: dict[int | str, int | None] = {}
        for write in writes:
            if write.is_put:
                seqs = range(write.first, write.first + len(write.ids))
                latest.update(zip(write.ids, seqs, strict=True))
                continue
            for point in write.ids:
                current = latest[point] if point in latest else before.get(point)
                write.deleted += current is not None
                latest[point] = None
        batches: list[Features] = []
        added: list[int] = []
        for write in writes:
            if write.features is None:
                continue
            kept = [i for i, p in enumerate(write.ids) if latest[p] == write.first + i]
            for i in kept:
                self._live.announce(write.first + i, write.ids[i], has_payload=write.has_payload[i])
            added.extend(write.first + i for i in kept)
            whole = len(kept) == len(write.ids)
            batches.append(write.features if whole else _take(write.features, kept))
        self._replace(latest, before, batches, added)
        self._state.applied_seq = writes[-1].last
        for write in writes:
            self._state.tail_rows += len(write.ids)
            self._state.garbage += 0 if write.is_put else len(write.ids)

    def _replace(
        self,
        latest: dict[int | str, int | None],
        before: dict[int | str, int],
        batches: list[Features],
        added: list[int],
    ) -> None:
        """Add the new versions, then remove those they replace: no moment without the point."""
        if added:
            self._engine.add(_concat(batches), ids=np.array(added, np.int64))
            self._state.put_seq = added[-1]
        removed = []
        for point, seq in latest.items():
            replaced = before.get(point)
            if replaced is not None:
                removed.append(replaced)
            self._live.settle(point, seq, replaced)
        if removed:
            self._engine.remove(np.array(removed, np.int64))
            self._state.garbage += len(removed)
        if self._sealing is not None and self._sealing.on_frozen is not None and self.frozen:
            self._sealing.on_frozen()

    def _replay(self, sealed_seq: int, stop: threading.Event | None) -> None:
        progress = self._state.progress
        progress.total = self._store.count_rows(self.record.id, sealed_seq)
        self._state.applied_seq = sealed_seq
        for rows in self._store.read_from(self.record.id, sealed_seq, REPLAY_CHUNK):
            if stop is not None and stop.is_set():
                return
            self._apply_rows(rows)
            progress.rows += len(rows)
            self._state.tail_rows = progress.rows
            self._state.garbage += sum(row.op == Op.DELETE for row in rows)
            if progress.rows % (20 * REPLAY_CHUNK) == 0:
                log.info(
                    "replaying",
                    collection=self.record.name,
                    rows=progress.rows,
                    total=progress.total,
                )
        self._state.ready = True

    def _apply_rows(self, rows: list[LogRow]) -> None:
        ids = [point_id(row.point) for row in rows]
        latest: dict[int | str, int | None] = {
            point: row.seq if row.op == Op.PUT else None
            for point, row in zip(ids, rows, strict=True)
        }
        before = self._live.seqs(latest)
        kept = []
        for point, row in zip(ids, rows, strict=True):
            if latest[point] == row.seq:
                self._live.announce(row.seq, point, has_payload=row.has_payload)
                kept.append(row)
        features = decode_rows([row.features or b"" for row in kept])
        self._replace(latest, before, [features], [row.seq for row in kept])
        self._state.applied_seq = rows[-1].seq

    # --- sealing -------------------------------------------------------------------------------

    @property
    def frozen(self) -> int:
        """Full mutable segments that wait for `seal`."""
        return self._engine.frozen if isinstance(self._engine, SealingEngine) else 0

    def seal(self) -> bool:
        """Seal the oldest full mutable segment into files; False if there is none.

        Reads and writes go on meanwhile. One thread at a time may seal. Raises OSError if the
        files cannot be written, StoreUnavailableError; then all is as it was.
        """
        if self._files is None or not self.ready:
            return False
        assert isinstance(self._engine, SealingEngine)
        with self._apply_lock:
            merge: MergeLike | None = self._engine.next_seal()
            if merge is None:
                return False
            ids = merge.sources[0].ids
            recent = self._live.recent(np.sort(ids))
            last = int(ids.max())
            # Behind the last put there are only deletes, whose marks are published with it.
            sealed_seq = self._state.applied_seq if last == self._state.put_seq else last
        names = Names.of(
            np.array([seq for seq, _, _ in recent], np.int64),
            [point_key(point) for _, point, _ in recent],
            [has_payload for _, _, has_payload in recent],
        )
        self._build(merge, [names], [], sealed_seq, ids.tolist())
        with self._room:
            self._room.notify_all()
        return True

    def merge(self) -> bool:
        """Merge sealed segments into a larger one; False if nothing is due. See `seal`."""
        if self._files is None or not self.ready:
            return False
        assert isinstance(self._engine, SealingEngine)
        with self._apply_lock:
            merge: MergeLike | None = self._engine.next_tier()
            if merge is None:
                return False
            replaced = [self._open[source.segment.path.name] for source in merge.sources]
        self._build(merge, [each.points for each in replaced], replaced, None, [])
        return True

    def seal_tail(self) -> None:
        """Seal all that is not sealed yet, unless it is little: the next start is quick then.

        To be called when no write is in progress. Raises what `seal` raises.
        """
        if self._files is None or not self.ready:
            return
        assert isinstance(self._engine, SealingEngine)
        if self._store.count_rows(self.record.id, self._files.manifest.sealed_seq) < SMALL_TAIL:
            return
        with self._apply_lock:
            self._engine.freeze()
        while self.seal():
            pass
        if self._files.manifest.sealed_seq < self._state.applied_seq:
            self.publish_marks()

    def bound_tail(self) -> None:
        """Let a segment that is not full be sealed where much was deleted or replaced since.

        The log behind the sealed files is replayed at start, however few points it holds.
        """
        if self._files is None or not self.ready or self._state.tail_rows < self._longest_tail():
            return
        assert isinstance(self._engine, SealingEngine)
        if self._state.put_seq > self._files.manifest.sealed_seq:
            with self._apply_lock:
                self._engine.freeze()
        else:
            self.publish_marks()

    def _longest_tail(self) -> int:
        assert self._sealing is not None
        return 2 * self._sealing.segment_points

    def clear_log(self, stop: threading.Event) -> bool:
        """Remove log rows that nobody needs; False if there are too few to bother.

        Raises StoreUnavailableError.
        """
        garbage = self._state.garbage
        if not self.ready or garbage < max(LEAST_GARBAGE, len(self) // 4):
            return False
        with self._apply_lock:
            live = self._live.all_seqs()
            upto = self._state.applied_seq
        if self._files is not None:
            upto = min(upto, self._files.manifest.sealed_seq)
        # What made a row superfluous must be on disk before the row goes.
        self._store.sync()
        # A search that found a version just now may still read its payload.
        if stop.wait(GRACE_SECONDS):
            return False
        for gone in superfluous(self._store, self.record.id, live, upto):
            with self._reading_log:
                if self._log_readers or stop.is_set():
                    return False
                self._store.delete_rows(gone)
            self._state.garbage -= len(gone)
        # What is left lies behind the sealed files, or was counted too often.
        self._state.garbage = min(self._state.garbage, garbage // 2)
        return True

    def publish_marks(self) -> None:
        """Publish which sealed points are dead, if nothing but deletes waits to be sealed."""
        assert self._files is not None
        self._store.sync()
        with self._publish_lock:
            with self._apply_lock:
                if self._state.put_seq > self._files.manifest.sealed_seq:
                    return
                marks = {file.path.name: file.dead.copy() for file in self._live.sealed}
                sealed_seq = self._state.applied_seq
            manifest = self._files.manifest
            self._files.publish(manifest.segments, marks, sealed_seq, manifest.engine)
        self._count_tail()

    def _build(
        self,
        merge: MergeLike,
        names: Sequence[Source],
        replaced: list[OpenSegment],
        sealed_seq: int | None,
        recent: list[int],
    ) -> None:
        """Build the files of a merge, publish them, and let engine and readers take them up."""
        assert self._files is not None
        start = time.perf_counter()
        path, points_path = self._files.new_path("segment"), self._files.new_path("points")
        written = [path, points_path]
        try:
            segment = merge.build(path)
            new: OpenSegment | None = None
            if not len(segment):
                remove([path])
            else:
                points = PointsFile.write(points_path, np.sort(segment.ids), names)
                entry = SegmentEntry(
                    self._files.number_of(path),
                    merge.chunks,
                    self._files.entry(path),
                    self._files.entry(points_path),
                )
                new = OpenSegment(entry, points)
            # What the files hold must be in the log first: it is the truth.
            self._store.sync()
            with self._publish_lock:
                self._take_up(merge, segment, new, replaced, sealed_seq, recent)
        except BaseException as error:
            if not self._files.may_list(written):
                remove(written)
            self._state.sealing_fault = str(error)
            raise
        self._state.sealing_fault = None
        if sealed_seq is not None:
            self._count_tail()
        log.debug(
            "sealed" if sealed_seq is not None else "merged",
            collection=self.record.name,
            points=0 if new is None else len(new.points),
            seconds=round(time.perf_counter() - start, 3),
        )

    def _take_up(
        self,
        merge: MergeLike,
        segment: Any,
        new: OpenSegment | None,
        replaced: list[OpenSegment],
        sealed_seq: int | None,
        recent: list[int],
    ) -> None:
        """Publish a new segment in the place of others; the caller holds the publish lock."""
        assert self._files is not None
        assert isinstance(self._engine, SealingEngine)
        if self._state.closed:
            raise StoreUnavailableError("the collection was deleted")
        opened = {name: each for name, each in self._open.items() if each not in replaced}
        if new is not None:
            opened[new.entry.segment.name] = new
        with self._apply_lock:
            marks = {each.points.path.name: each.points.dead.copy() for each in opened.values()}
            if new is not None:
                marks[new.points.path.name] = ~self._live.are_live(new.points.seqs)
        before = self._files.manifest
        self._files.publish(
            [each.entry for each in opened.values()],
            marks,
            before.sealed_seq if sealed_seq is None else sealed_seq,
            self._engine.parameters,
        )
        with self._apply_lock:
            self._engine.finish(merge, segment)
            self._live.publish(
                None if new is None else new.points, [each.points for each in replaced], recent
            )
            self._open = opened

    def _count_tail(self) -> None:
        assert self._files is not None
        self._state.tail_rows = self._store.count_rows(
            self.record.id, self._files.manifest.sealed_seq
        )

    def _open_files(self, sealing: Sealing) -> int:
        """Map what is sealed; the seq up to which that is all of the log."""
        assert isinstance(self._engine, SealingEngine)
        self._files = SealedFiles(sealing.directory, self.record.id)
        manifest, opened = self._files.open(verify=sealing.verify)
        if opened:
            # Of our own: the number of points of a segment may change with the settings, and ids
            # are seqs, so those that are replayed are new.
            own = {"capacity": sealing.segment_points, "next_id": manifest.sealed_seq + 1}
            largest_first = sorted(opened, key=lambda each: -each.entry.chunks)
            self._engine = self._engine.restored(
                manifest.engine | own,
                [(e.entry.chunks, sealing.directory / e.entry.segment.name) for e in largest_first],
                verify=False,
                settle=False,
            )
            dead = [each.points.seqs[each.points.dead] for each in opened]
            self._engine.remove(np.concatenate(dead))
            self._live.restore([each.points for each in opened])
            self._open = {each.entry.segment.name: each for each in opened}
        return manifest.sealed_seq

    def close(self) -> None:
        """The collection was deleted: publish nothing any more."""
        with self._publish_lock:
            self._state.closed = True

    def _await_room(self) -> None:
        """Wait while full segments come in faster than they are sealed."""
        if self._sealing is None or self._sealing.on_frozen is None or self.frozen < MAX_FROZEN:
            return
        fault = self._state.sealing_fault
        if fault is not None:
            if self.frozen < MAX_FROZEN_IN_NEED:
                return
            raise StoreUnavailableError(f"segments cannot be sealed: {fault}", retry_after=5)
        with self._room:
            if not self._room.wait_for(
                lambda: self.frozen < MAX_FROZEN or self._state.sealing_fault is not None,
                ROOM_SECONDS,
            ):
                raise TooManyRequestsError("segments are being sealed", retry_after=1)

    # --- reading -------------------------------------------------------------------------------

    def get(self, ids: Sequence[int | str]) -> tuple[list[Point], list[int | str]]:
        """The points of `ids` in that order, and the ids which do not exist. Repeats count once."""
        self._check_ready()
        wanted = list(dict.fromkeys(ids))
        seqs = self._live.seqs(wanted)
        rows = self._store.get(list(seqs.values()))
        found: list[Point] = []
        missing: list[int | str] = []
        for point in wanted:
            row = rows.get(seqs.get(point, -1))
            if row is None:
                missing.append(point)
            else:
                found.append(Point(point, self._value(row.features, row.source), row.payload))
        return found, missing

    def search(self, inputs: Sequence[Any] | np.ndarray[Any, Any], wanted: Search) -> Answer:
        """The nearest points of each raw input.

        Raises InvalidInputError with `row` if an input cannot be used.
        """
        self._check_ready()
        seqs, scores = self.search_features(self._features(inputs), wanted)
        recall = self._engine.recall_estimate(wanted.target_recall)
        return Answer(self._hits(seqs, scores, wanted), recall)

    def search_features(
        self, features: Features, wanted: Search
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Seqs int64 (q, limit) and scores float32 (q, limit), padded with -1 and NaN."""
        parts = [
            engine.search(
                features,
                wanted.limit,
                threshold=wanted.threshold,
                target_recall=wanted.target_recall,
            )
            for engine in (self._engine,)
        ]
        return parts[0] if len(parts) == 1 else merge_topk(parts, wanted.limit)

    def _hits(
        self, seqs: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], wanted: Search
    ) -> list[list[Hit]]:
        found = [
            [(seq, score) for seq, score in zip(*pair, strict=True) if seq >= 0]
            for pair in zip(seqs.tolist(), scores.tolist(), strict=True)
        ]
        names: dict[int, int | str | None] = {}
        gone: list[int] = []
        asked: list[int] = []
        versions = self._live.versions({seq for row in found for seq, _ in row})
        for seq, (point, has_payload) in versions.items():
            names[seq] = point
            if point is None:
                gone.append(seq)
            elif has_payload:
                asked.append(seq)
        # A version which was replaced or deleted after the search: its row tells whose it was.
        # Score and payload are both of that version, so the hit is old but never mixed.
        payloads: dict[int, bytes] = {}
        for seq, row in self._store.get(gone).items() if gone else ():
            names[seq] = point_id(row.point)
            if wanted.with_payload and row.payload is not None:
                payloads[seq] = row.payload
        if wanted.with_payload and asked:
            payloads |= self._store.get_payloads(asked)
        return [_name(row, names, payloads) for row in found]

    @contextlib.contextmanager
    def points_now(self) -> Iterator[Points]:
        """All points as they are at this moment, while writes go on.

        Within the context no row of theirs is removed from the log.
        """
        self._check_ready()
        with self._reading_log:
            self._log_readers += 1
        try:
            with self._apply_lock:
                live = self._live.all_seqs()
            self._store.sync()
            yield Points(len(live), self._store.rows(self.record.id, live.tolist()))
        finally:
            with self._reading_log:
                self._log_readers -= 1

    # --- features ------------------------------------------------------------------------------

    def _features(self, inputs: Sequence[Any] | np.ndarray[Any, Any]) -> Features:
        """Features of raw inputs, each row of which can be stored and searched."""
        features: Features = self.featurizer.features(cast(Sequence[Any], inputs))
        self._check_features(features)
        return features

    def _check_features(self, features: Features) -> None:
        # Checked only: what is stored is what was given, not what an engine makes of it.
        self._engine.check(features)
        name = self.featurizer.field
        empty = self.featurizer.empty_rows(features)
        if len(empty):
            raise InvalidInputError(_why_empty(self.featurizer.spec), field=name, row=int(empty[0]))
        if isinstance(features, SetBatch):
            sizes = np.diff(features.indptr)
            if len(sizes) and int(sizes.max()) > self._max_set_elements:
                raise InvalidInputError(
                    f"has {int(sizes.max())} distinct elements, the limit is"
                    f" {self._max_set_elements}",
                    field=name,
                    row=int(sizes.argmax()),
                    limit=self._max_set_elements,
                )

    def _sources(self, inputs: list[Any]) -> list[bytes | None]:
        """Raw inputs as they are kept, where the features alone do not give them back."""
        kind = self.featurizer.spec["kind"]
        if kind in ("shingles", "kmers"):
            return [text.encode() for text in inputs]
        if kind == "tokens":
            return [orjson.dumps(list(tokens)) for tokens in inputs]
        return [None] * len(inputs)

    def _value(self, features: bytes | None, source: bytes | None) -> Any:
        """The inverse of `_sources`: the input of a stored point."""
        if source is not None:
            is_json = self.featurizer.spec["kind"] == "tokens"
            return orjson.loads(source) if is_json else source.decode()
        decoded = decode_rows([features or b""])
        row = decoded.row(0) if isinstance(decoded, SetBatch) else decoded[0]
        return row.tolist()

    def _check_ready(self) -> None:
        if self.ready:
            return
        if self._state.fault is not None:
            raise NotReadyError(
                f"collection {self.record.name!r} cannot serve: {self._state.fault}"
            )
        progress = self._state.progress
        raise NotReadyError(
            f"collection {self.record.name!r} is being loaded: {progress.rows} of"
            f" {progress.total} log rows are done",
            retry_after=1,
        )


def _name(
    row: list[tuple[int, float]],
    names: dict[int, int | str | None],
    payloads: dict[int, bytes],
) -> list[Hit]:
    """Hits of one query. Of two versions of one point only the newer is kept."""
    newest: dict[int | str, int] = {}
    for seq, _ in row:
        point = names[seq]
        if point is not None:
            newest[point] = max(seq, newest.get(point, 0))
    hits = []
    for seq, score in row:
        point = names[seq]
        if point is not None and newest[point] == seq:
            hits.append(Hit(point, score, payloads.get(seq)))
    return hits


def _make_engine(config: dict[str, Any], sealing: Sealing | None) -> Engine:
    """The engine of a collection; "auto" means flinng for sets and flat for vectors."""
    name = config["index"]
    is_vector = config["features"]["kind"] == "vector"
    if name == "auto":
        name = "flat" if is_vector else "flinng"
    if name == "flat":
        return FlatIndex(metric=config["metric"])
    options: dict[str, Any] = {}
    if sealing is not None:
        options = {"capacity": sealing.segment_points, "settle": False}
    return cast(
        Engine,
        FlinngIndex(
            metric=config["metric"],
            seed=config["seed"],
            target_recall=config["target_recall"],
            threshold=config["threshold"],
            **options,
        ),
    )


def _rising(sets: SetBatch) -> bool:
    """Whether the elements of each set rise, as engines trust them to."""
    steps = sets.indices[1:] > sets.indices[:-1]
    starts = sets.indptr[1:-1]
    steps[starts[(starts > 0) & (starts < len(sets.indices))] - 1] = True
    return bool(steps.all())


def _take(features: Features, rows: list[int]) -> Features:
    if isinstance(features, SetBatch):
        return features.take(np.array(rows, np.int64))
    return features[np.array(rows, np.int64)]


def _concat(batches: list[Features]) -> Features:
    if len(batches) == 1:
        return batches[0]
    sets = [batch for batch in batches if isinstance(batch, SetBatch)]
    if sets:
        return SetBatch.concat(sets)
    return np.concatenate([batch for batch in batches if not isinstance(batch, SetBatch)])


def _why_empty(spec: dict[str, Any]) -> str:
    if spec["kind"] == "shingles":
        return f"is empty: it holds no shingle of {spec['unit']}s"
    if spec["kind"] == "kmers":
        return f"is empty: it holds no k-mer of {spec['k']} unambiguous letters"
    return "is an empty set, which is near to nothing"


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
