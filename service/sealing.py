"""Sealing and merging the segments of a shard while it serves, and mapping them at start.

next_seal() ── segment file ── points file ── store durable ── manifest ── engine.finish()
(writer lock)    (no lock)      (no lock)       (no lock)       (rename)    (writer lock)
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import structlog
from closeby.index.errors import AbandonedError

from .contents import Contents
from .durable_files import remove
from .errors import StoreUnavailableError, TooManyRequestsError
from .log_rows import CollectionRecord, point_key
from .manifest import Manifest, SegmentEntry
from .points_file import Names, PointsFile, Source
from .sealed_files import OpenSegment, SealedFiles
from .store import Store

__all__ = ["MergeLike", "Sealer", "Sealing", "SealingEngine", "SegmentLike", "restore"]

SEGMENT_POINTS = 16_384
"""Points of a mutable segment: what has to be replayed after a crash is a few of these."""
MAX_FROZEN = 2
"""Full segments that may wait for sealing before writers have to wait."""
MAX_FROZEN_IN_NEED = 64
"""The same while sealing fails, for want of disk space for instance; then writes are refused."""
CLOSE_SECONDS = 2.0
"""How long a deletion waits for files that are being written."""
ROOM_SECONDS = 10.0
"""How long a writer waits."""
SMALL_TAIL = 1_000
"""Log rows which a clean stop leaves to the next start: replayed sooner than sealed."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sealing:
    """Where a shard keeps sealed segments.

    `segment_points`: points of a mutable segment. `verify`: compare all checksums at start.
    `on_frozen` is called when a segment waits for `Shard.seal`; None where nobody seals for us,
    and then writers never wait for it. `files` opens a directory for a collection.
    """

    directory: Path
    segment_points: int = SEGMENT_POINTS
    verify: bool = True
    on_frozen: Callable[[], None] | None = None
    files: Callable[[Path, int], SealedFiles] = SealedFiles


class SegmentLike(Protocol):
    """A sealed segment of an engine."""

    ids: Any

    def __len__(self) -> int: ...


class MergeLike(Protocol):
    """Segments of an engine that are to become one."""

    sources: tuple[Any, ...]
    chunks: int

    def build(self, path: Path) -> SegmentLike:
        """The segment of all points that are alive, in a file; slow, needs no lock."""
        ...


@runtime_checkable
class SealingEngine(Protocol):
    """An engine whose segments are sealed by somebody else."""

    @property
    def frozen(self) -> int:
        """Full mutable segments that wait."""
        ...

    @property
    def parameters(self) -> dict[str, Any]:
        """What `restored` needs beside the files."""
        ...

    def freeze(self) -> None:
        """Let the mutable segment wait for sealing, full or not."""
        ...

    def next_seal(self) -> Any:
        """The mutable segment to seal next, or None."""
        ...

    def next_tier(self) -> Any:
        """Sealed segments to merge next, or None."""
        ...

    def finish(self, merge: Any, segment: Any) -> None:
        """Put the segment in the place of the sources of the merge."""
        ...

    @classmethod
    def restored(
        cls, parameters: Any, segments: Any = (), *, verify: bool = True, settle: bool = True
    ) -> Any:
        """An engine over segment files: (chunks, path) of each, largest first."""
        ...


def restore(
    contents: Contents, manifest: Manifest, opened: Sequence[OpenSegment], sealing: Sealing
) -> None:
    """Let new contents begin with what is sealed. Raises CorruptFileError, OSError."""
    if opened:
        assert isinstance(contents.engine, SealingEngine)
        # Of our own: the number of points of a segment may change with the settings, and ids are
        # seqs, so those that are replayed are new.
        own = {"capacity": sealing.segment_points, "next_id": manifest.sealed_seq + 1}
        largest_first = sorted(opened, key=lambda each: -each.entry.chunks)
        contents.engine = contents.engine.restored(
            manifest.engine | own,
            [(e.entry.chunks, sealing.directory / e.entry.segment.name) for e in largest_first],
            verify=False,
            settle=False,
        )
        dead = np.concatenate([each.points.seqs[each.points.dead] for each in opened])
        if len(dead):
            contents.engine.remove(dead)
        contents.live.restore([each.points for each in opened])
    contents.begin(manifest.sealed_seq)


class Sealer:
    """The sealed part of one shard. `lock` is that of the contents. Raises OSError."""

    def __init__(
        self,
        store: Store,
        record: CollectionRecord,
        contents: Contents,
        lock: threading.Lock,
        sealing: Sealing,
    ) -> None:
        self._store = store
        self._record = record
        self._contents = contents
        self._lock = lock
        self._sealing = sealing
        self._files = sealing.files(sealing.directory, record.id)
        self._open: dict[str, OpenSegment] = {}
        self._fault: str | None = None
        self._closed = False
        # Held while the set of sealed files changes.
        self._publish_lock = threading.Lock()
        # Steps that are writing files now: the sealing thread's and the merging thread's.
        self._builds = 0
        self._idle = threading.Condition()
        self._room = threading.Condition()

    @property
    def sealed_seq(self) -> int:
        """All that the log says up to here is in the files."""
        return self._files.manifest.sealed_seq

    @property
    def segments(self) -> int:
        """Sealed segments."""
        return len(self._open)

    @property
    def frozen(self) -> int:
        """Full mutable segments that wait to be sealed."""
        return self._engine.frozen

    @property
    def _engine(self) -> SealingEngine:
        engine = self._contents.engine
        assert isinstance(engine, SealingEngine)
        return engine

    def open(self) -> None:
        """Map what is sealed into the contents. Raises CorruptFileError, OSError."""
        manifest, opened = self._files.open(verify=self._sealing.verify)
        restore(self._contents, manifest, opened, self._sealing)
        self._open = {each.entry.segment.name: each for each in opened}

    def close(self) -> None:
        """Its folder goes: publish nothing any more.

        A step in progress removes what it wrote, here or, if it is a long one, later.
        """
        with self._publish_lock:
            self._closed = True
        with self._idle:
            self._idle.wait_for(lambda: self._builds == 0, CLOSE_SECONDS)

    @contextlib.contextmanager
    def _building(self) -> Iterator[None]:
        with self._idle:
            self._builds += 1
        try:
            yield
        finally:
            with self._idle:
                self._builds -= 1
                self._idle.notify_all()

    def announce(self) -> None:
        """Let somebody seal if a segment waits for it."""
        if self._sealing.on_frozen is not None and self.frozen:
            self._sealing.on_frozen()

    def await_room(self) -> None:
        """Wait while full segments come in faster than they are sealed.

        Raises TooManyRequestsError after a while, StoreUnavailableError if sealing fails.
        """
        if self._sealing.on_frozen is None or self.frozen < MAX_FROZEN:
            return
        if self._fault is not None:
            if self.frozen < MAX_FROZEN_IN_NEED:
                return
            raise StoreUnavailableError(f"segments cannot be sealed: {self._fault}", retry_after=5)
        with self._room:
            if not self._room.wait_for(
                lambda: self.frozen < MAX_FROZEN or self._fault is not None, ROOM_SECONDS
            ):
                raise TooManyRequestsError("segments are being sealed", retry_after=1)

    # --- steps -----------------------------------------------------------------------------------

    def seal(self) -> bool:
        """See `Shard.seal`."""
        contents = self._contents
        with self._lock:
            merge: MergeLike | None = self._engine.next_seal()
            if merge is None:
                return False
            ids = merge.sources[0].ids
            recent = contents.live.recent(np.sort(ids))
            last = int(ids.max())
            # Behind the last put there are only deletes, whose marks are published with it.
            sealed_seq = contents.applied_seq if last == contents.put_seq else last
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
        """See `Shard.merge`."""
        with self._lock:
            merge: MergeLike | None = self._engine.next_tier()
            if merge is None:
                return False
            replaced = [self._open[source.segment.path.name] for source in merge.sources]
        self._build(merge, [each.points for each in replaced], replaced, None, [])
        return True

    def seal_tail(self) -> None:
        """See `Shard.seal_tail`."""
        if self._store.count_rows(self._record.id, self.sealed_seq) < SMALL_TAIL:
            return
        with self._lock:
            self._engine.freeze()
        while self.seal():
            pass
        if self.sealed_seq < self._contents.applied_seq:
            self.publish_marks()

    def bound_tail(self) -> None:
        """See `Shard.bound_tail`."""
        if self._contents.tail_rows < 2 * self._sealing.segment_points:
            return
        if self._contents.put_seq > self.sealed_seq:
            with self._lock:
                self._engine.freeze()
        else:
            self.publish_marks()

    def publish_marks(self) -> None:
        """Publish which sealed points are dead, if nothing but deletes waits to be sealed."""
        self._store.sync()
        with self._publish_lock:
            if self._closed:
                return
            with self._lock:
                if self._contents.put_seq > self.sealed_seq:
                    return
                marks = {file.path.name: file.dead.copy() for file in self._contents.live.sealed}
                sealed_seq = self._contents.applied_seq
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
        with self._building():
            self._build_files(merge, names, replaced, sealed_seq, recent)

    def _build_files(
        self,
        merge: MergeLike,
        names: Sequence[Source],
        replaced: list[OpenSegment],
        sealed_seq: int | None,
        recent: list[int],
    ) -> None:
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
            if self._closed:
                # Who removes the folder could not while this was being written there.
                with contextlib.suppress(OSError):
                    self._sealing.directory.rmdir()
            if not isinstance(error, AbandonedError):
                self._fault = str(error)
            raise
        self._fault = None
        if sealed_seq is not None:
            self._count_tail()
        log.debug(
            "sealed" if sealed_seq is not None else "merged",
            collection=self._record.name,
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
        if self._closed:
            raise StoreUnavailableError("the collection was deleted, or has another engine")
        live = self._contents.live
        opened = {name: each for name, each in self._open.items() if each not in replaced}
        if new is not None:
            opened[new.entry.segment.name] = new
        with self._lock:
            marks = {each.points.path.name: each.points.dead.copy() for each in opened.values()}
            if new is not None:
                marks[new.points.path.name] = ~live.are_live(new.points.seqs)
        self._files.publish(
            [each.entry for each in opened.values()],
            marks,
            self.sealed_seq if sealed_seq is None else sealed_seq,
            self._engine.parameters,
        )
        with self._lock:
            self._engine.finish(merge, segment)
            live.publish(
                None if new is None else new.points, [each.points for each in replaced], recent
            )
            self._open = opened

    def _count_tail(self) -> None:
        self._contents.tail_rows = self._store.count_rows(self._record.id, self.sealed_seq)
