"""Sealing and merging the segments of a shard while it serves, and mapping them at start.

next_seal() ── segment file ── points file ── store durable ── manifest ── engine.finish()
(writer lock)    (no lock)      (no lock)       (no lock)       (rename)    (writer lock)

The two files may be built by another process (`segment_building`); all else is done here, so that a
shard has one publisher.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
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
from .manifest import FileEntry, Manifest, SegmentEntry
from .points_file import Names, Seqs, Source
from .sealed_files import OpenSegment, SealedFiles
from .segment_building import Builder, Built, MergeLike, Order, SegmentLike, Site, build
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

    `segment_points`: points of a mutable segment. `verify`: compare all checksums at start, but of
    the files that `checked` knows of a folder. `on_frozen` is called when a segment waits for
    `Shard.seal`; None where nobody seals for us, and then writers never wait for it. `files` opens
    a directory for a collection. `builder` is asked to have files built elsewhere.
    """

    directory: Path
    segment_points: int = SEGMENT_POINTS
    verify: bool = True
    checked: Callable[[Path], Collection[FileEntry]] = lambda _folder: ()
    on_frozen: Callable[[], None] | None = None
    files: Callable[[Path, int], SealedFiles] = SealedFiles
    builder: Builder | None = None


@runtime_checkable
class SealingEngine(Protocol):
    """An engine whose segments are sealed by somebody else."""

    kind: Any

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
        sealing = self._sealing
        known = sealing.checked(sealing.directory) if sealing.verify else ()
        manifest, opened = self._files.open(verify=sealing.verify, known=known)
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

        def names() -> list[Source]:
            return [
                Names.of(
                    np.array([seq for seq, _, _ in recent], np.int64),
                    [point_key(point) for _, point, _ in recent],
                    [has_payload for _, _, has_payload in recent],
                )
            ]

        def order() -> Order:
            return self._order(np.array([seq for seq, _, _ in recent], np.int64))

        self._build(merge, names, order, [], sealed_seq, ids.tolist())
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

        def order() -> Order:
            with self._lock:
                dead = [each.points.seqs[each.points.dead] for each in replaced]
            return self._order(np.concatenate(dead), replaced)

        self._build(merge, lambda: [each.points for each in replaced], order, replaced, None, [])
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

    def _order(self, seqs: Seqs, sources: Sequence[OpenSegment] = ()) -> Order:
        """What another process needs to build a segment."""
        entries = [each.entry for each in sources]
        return Order(
            self._record.id,
            self._sealing.directory,
            self._engine.kind,
            self._engine.parameters,
            seqs,
            tuple((entry.chunks, entry.segment.name, entry.points.name) for entry in entries),
        )

    def _build(
        self,
        merge: MergeLike,
        names: Callable[[], Sequence[Source]],
        order: Callable[[], Order],
        replaced: list[OpenSegment],
        sealed_seq: int | None,
        recent: list[int],
    ) -> None:
        """Build the files of a merge, publish them, and let engine and readers take them up."""
        site = Site(self._files.new_path("segment"), self._files.new_path("points"))
        with self._building(), self._cleaning_up(site):
            start = time.perf_counter()
            built = build(merge, site, names, self._sealing.builder, order)
            new = self._opened(merge, built)
            # What the files hold must be in the log first: it is the truth.
            self._store.sync()
            with self._publish_lock:
                self._take_up(merge, built.segment, new, replaced, sealed_seq, recent)
        self._fault = None
        if sealed_seq is not None:
            self._count_tail()
        log.debug(
            "sealed" if sealed_seq is not None else "merged",
            collection=self._record.name,
            points=0 if new is None else len(new.points),
            seconds=round(time.perf_counter() - start, 3),
        )

    def _opened(self, merge: MergeLike, built: Built) -> OpenSegment | None:
        if built.points is None or built.entries is None:
            return None
        segment, points = built.entries
        number = self._files.number_of(self._files.directory / segment.name)
        return OpenSegment(SegmentEntry(number, merge.chunks, segment, points), built.points)

    @contextlib.contextmanager
    def _cleaning_up(self, site: Site) -> Iterator[None]:
        """Removes files that were not published."""
        try:
            yield
        except BaseException as error:
            if not self._files.may_list(site.paths):
                remove(site.paths)
            if self._closed:
                # Who removes the folder could not while this was being written there.
                with contextlib.suppress(OSError):
                    self._sealing.directory.rmdir()
            if not isinstance(error, AbandonedError):
                self._fault = str(error)
                with self._room:
                    self._room.notify_all()
            raise

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
