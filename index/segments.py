"""All segments of an index: how points move from the mutable segment into sealed ones.

::

    append ──► active ──full──► frozen ──merge──► sealed, one for each binary digit
               (mutable)        (mutable)         of the number of capacities taken so far

Thirteen capacities of points lie in sealed segments of 8, 4 and 1: a point is rewritten a
logarithmic number of times, the largest segment holds at least half of the points, and which
points lie where depends on their sequence alone, never on how they were split into batches.

Appending, removing, :meth:`Segments.next_merge` and :meth:`Segments.finish` belong to one writer at
a time; :meth:`Merge.build`, which takes the time, may run beside it, and searches beside both.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

from .alive_points import AlivePoints, JoinedPoints
from .batches import Batch, Int64Array
from .hashed import Stored
from .places import rising
from .segment import HASH_BLOCK


class AnySegment(Protocol):
    """Points of an index, searchable and called by id."""

    removed: int

    def __len__(self) -> int: ...

    def remove(self, ids: Int64Array) -> Int64Array:
        """Mark points as removed, ids rising; the ids that were here, int64."""
        ...

    def contains(self, ids: Int64Array) -> npt.NDArray[np.bool_]:
        """Which ids are here and not removed, bool (n,)."""
        ...

    def alive(self) -> AlivePoints:
        """The points that are not removed."""
        ...

    def dead_ids(self) -> Int64Array:
        """Ids of the removed points."""
        ...


class AnySealed(AnySegment, Protocol):
    """A segment that takes no more points."""

    path: Path | None


S = TypeVar("S", bound=AnySealed)
S_co = TypeVar("S_co", bound=AnySealed, covariant=True)
M = TypeVar("M", bound=AnySegment)


class SegmentMaker(Protocol[S_co, M]):
    """How the segments of one kind of index are made."""

    def mutable(self, capacity: int, like: Stored) -> M:
        """An empty segment for so many points, with features of the kind of `like`."""
        ...

    def append(self, segment: M, ids: Int64Array, features: Stored) -> None:
        """Add points to a mutable segment, at most as many as it has room for."""
        ...

    def seal(self, parts: Sequence[AlivePoints], path: Path | None) -> S_co:
        """The sealed segment of all points, in memory or mapped from a file; raises OSError."""
        ...

    def open(self, path: Path) -> S_co:
        """Map a file that ``seal`` made, here or in another process.

        Raises CorruptFileError, OSError.
        """
        ...


@dataclass(frozen=True, eq=False)
class Sealed(Generic[S]):
    """A sealed segment and how many capacities of points it took, a power of two."""

    chunks: int
    segment: S


@dataclass(frozen=True, eq=False)
class Loose:
    """Points that go straight into a sealed segment; a power of two of capacities, or more."""

    ids: Int64Array
    features: Stored
    chunks: int = 1

    def alive(self) -> AlivePoints:
        """The points."""
        return AlivePoints.of(self.ids, self.features)


# Of an index's segments: sealed ones, mutable ones, and points that are neither yet.
Source: TypeAlias = Sealed[Any] | AnySegment | Loose


@dataclass(frozen=True, eq=False)
class Merge(Generic[S, M]):
    """Segments that are to become one."""

    sources: tuple[Sealed[S] | M | Loose, ...]
    chunks: int
    maker: SegmentMaker[S, M]

    def build(self, path: Path | None = None) -> S:
        """The sealed segment of all points that are alive now; takes seconds, holds no lock.

        Args:
            path: write the segment into this file and map it; in memory unless given.

        Raises:
            OSError: the file cannot be written; nothing is left of it.
        """
        return self.maker.seal([_alive(source) for source in self.sources], path)

    def opened(self, path: Path) -> S:
        """The sealed segment, which another process has built of the same sources.

        Raises:
            CorruptFileError: the file is damaged, or does not belong to this index.
            OSError: it cannot be opened.
        """
        return self.maker.open(path)


@dataclass(frozen=True, eq=False)
class _State(Generic[S, M]):
    """What a search reads; replaced as a whole, so that it sees every point exactly once."""

    sealed: tuple[Sealed[S], ...] = ()
    frozen: tuple[M | Loose, ...] = ()
    active: M | None = None


class Segments(Generic[S, M]):
    """The points of one index.

    Args:
        maker: makes its segments.
        capacity: points of a mutable segment.
        settle: merge within :meth:`append`; otherwise whoever calls :meth:`next_merge` does it.
        directory: where merges of :meth:`append` and :meth:`compact` put sealed segments, mapped
            from files that go when they are not used any more; in memory unless given.
        whole_batches: a batch of a capacity or more becomes one segment, whatever its size: for
            indexes whose searches pay for each segment. Which points lie where then depends on how
            they were split into batches.
    """

    def __init__(
        self,
        maker: SegmentMaker[S, M],
        capacity: int,
        *,
        settle: bool = True,
        directory: Path | None = None,
        whole_batches: bool = False,
    ) -> None:
        self.maker = maker
        self.capacity = capacity
        self.settles = settle
        self._directory = directory
        self._whole_batches = whole_batches
        self._state: _State[S, M] = _State()

    def __len__(self) -> int:
        return sum(len(segment) - segment.removed for segment in self.searchable())

    def searchable(self) -> list[S | M]:
        """All segments, oldest points first."""
        state = self._state
        return [*(sealed.segment for sealed in state.sealed), *_mutable(state)]

    @property
    def frozen(self) -> int:
        """Full mutable segments that wait to be sealed."""
        return len(self._state.frozen)

    @property
    def sealed(self) -> tuple[Sealed[S], ...]:
        """The sealed segments, largest first."""
        return self._state.sealed

    @property
    def mutable(self) -> list[M]:
        """The segments that are not sealed yet, oldest points first."""
        return _mutable(self._state)

    def unsealed(self) -> tuple[Int64Array, Stored] | None:
        """Ids and features of the points that are in no sealed segment yet."""
        parts = [segment.alive() for segment in self.mutable]
        if not any(len(part.ids) for part in parts):
            return None
        points = JoinedPoints(parts)
        return points.ids, points.take(np.arange(len(points.ids)))

    def restore(self, sealed: Sequence[Sealed[S]]) -> None:
        """Put sealed segments in the place of those that are there; the others stay."""
        self._state = _State(tuple(sealed), self._state.frozen, self._state.active)

    # --- writing ---------------------------------------------------------------------------------

    def append(self, ids: Int64Array, features: Stored) -> None:
        """Add points; searches find them on return. ids: int64 (n,), new ones."""
        start = 0
        while start < len(ids):
            start = self._append_loose(ids, features, start) or self._append_some(
                ids, features, start
            )
        if self.settles:
            self.settle()

    def replace(self, ids: Int64Array, features: Stored) -> None:
        """Add points, and remove those that had these ids before.

        Nothing is merged: :meth:`settle` does that. A search meanwhile may see a point twice, or
        not at all. ids: without repeats.
        """
        before = [(segment, ids[segment.contains(ids)]) for segment in self.searchable()]
        start = 0
        while start < len(ids):
            stop = self._append_some(ids, features, start)
            new = self.mutable[-1]
            for segment, old in before:
                # A mutable segment lets go of what it has twice by itself.
                if segment is not new:
                    segment.remove(old[np.isin(old, ids[start:stop])])
            start = stop

    def _append_loose(self, ids: Int64Array, features: Stored, start: int) -> int:
        """Put a capacity or more aside to be sealed at once; where to go on, 0 if it does not."""
        state = self._state
        left = len(ids) - start
        if not self.settles or state.active is not None or left < self.capacity:
            return 0
        stop = len(ids) if self._whole_batches else start + self.capacity
        chunks = 1 << ((stop - start) // self.capacity).bit_length() - 1
        loose = Loose(ids[start:stop], part(features, start, stop), chunks)
        self._state = _State(state.sealed, (*state.frozen, loose), None)
        return stop

    def _append_some(self, ids: Int64Array, features: Stored, start: int) -> int:
        """Add points from `start` up to the next full segment; where to go on."""
        state = self._state
        active = state.active
        if active is None:
            active = self.maker.mutable(self.capacity, part(features, 0, 0))
            self._state = _State(state.sealed, state.frozen, active)
        stop = min(len(ids), start + self.capacity - len(active), start + HASH_BLOCK)
        block = part(features, start, stop)
        self.maker.append(active, ids[start:stop], block)
        if len(active) == self.capacity:
            self._state = _State(state.sealed, (*state.frozen, active), None)
        return stop

    def freeze(self) -> None:
        """Let no more points into the mutable segment, so that it will be sealed."""
        state = self._state
        if state.active is not None and len(state.active):
            self._state = _State(state.sealed, (*state.frozen, state.active), None)

    def remove(self, ids: Int64Array) -> int:
        """Mark points as removed; the number of those that were present. ids: rising."""
        return sum(len(segment.remove(ids)) for segment in self.searchable())

    def first_present(self, ids: Int64Array) -> int | None:
        """One of the ids that is in the index, if any is."""
        for segment in self.searchable():
            present = segment.contains(ids)
            if present.any():
                return int(ids[present][0])
        return None

    # --- merging ---------------------------------------------------------------------------------

    def settle(self) -> None:
        """Make all merges that are due, now."""
        while (merge := self.next_merge()) is not None:
            self.finish(merge, self._build(merge))

    def _build(self, merge: Merge[S, M]) -> S:
        if self._directory is None:
            return merge.build()
        segment = merge.build(self._directory / f"segment-{secrets.token_hex(8)}.closeby")
        assert segment.path is not None
        segment.path.unlink()  # the mapping keeps it until the segment is gone
        return segment

    def next_merge(self) -> Merge[S, M] | None:
        """What to merge next, if anything: towards the binary digits of the capacities taken."""
        state = self._state
        if not state.frozen:
            return self._next_clean()
        return self._towards_digits([*state.sealed, *state.frozen])

    def _towards_digits(self, segments: Sequence[Sealed[S] | M | Loose]) -> Merge[S, M] | None:
        sources = list(segments)
        for digit in _digits(sum(map(_chunks, sources))):
            if isinstance(sources[0], Sealed) and sources[0].chunks == digit:
                sources.pop(0)
                continue
            taken: list[Sealed[S] | M | Loose] = []
            while sum(_chunks(source) for source in taken) < digit:
                taken.append(sources.pop(0))
            return Merge(tuple(taken), digit, self.maker)
        return None

    def next_seal(self) -> Merge[S, M] | None:
        """The oldest full mutable segment alone, if there is one.

        For whoever seals at once and merges later (:meth:`next_tier`), beside each other: what is
        not sealed yet stays small however long a merge takes.
        """
        frozen = self._state.frozen
        return Merge(frozen[:1], 1, self.maker) if frozen else None

    def next_tier(self) -> Merge[S, M] | None:
        """Sealed segments that are to become one; see :meth:`next_seal`."""
        sealed = self._state.sealed
        return self._towards_digits(sealed) or self._next_clean()

    def _next_clean(self) -> Merge[S, M] | None:
        """A sealed segment of which most points are removed."""
        for sealed in self._state.sealed:
            if 2 * sealed.segment.removed > len(sealed.segment):
                return Merge((sealed,), sealed.chunks, self.maker)
        return None

    def finish(self, merge: Merge[S, M], segment: S) -> None:
        """Put a merged segment in the place of its sources."""
        # Points that were removed while it was built. An id that was removed from one source and
        # added again may live on in another.
        removed = np.concatenate([_removed(source) for source in merge.sources])
        for source in merge.sources:
            removed = removed[~_contains(source, removed)]
        segment.remove(rising(removed))
        state = self._state
        gone = set(map(id, merge.sources))
        sealed: list[Sealed[S]] = []
        if len(segment):
            sealed.append(Sealed(merge.chunks, segment))
        sealed += [s for s in state.sealed if id(s) not in gone]
        sealed.sort(key=lambda s: -s.chunks)
        frozen = tuple(f for f in state.frozen if id(f) not in gone)
        active = None if id(state.active) in gone else state.active
        self._state = _State(tuple(sealed), frozen, active)

    def compact(self) -> None:
        """Merge everything into one sealed segment: fastest queries, removed points dropped."""
        state = self._state
        active = () if state.active is None else (state.active,)
        sources: tuple[Sealed[S] | M | Loose, ...] = (*state.sealed, *state.frozen, *active)
        if not sources:
            return
        chunks = 1 << (sum(map(_chunks, sources)) - 1).bit_length()
        merge = Merge(sources, chunks, self.maker)
        self.finish(merge, self._build(merge))


def _mutable(state: _State[S, M]) -> list[M]:
    frozen = [part for part in state.frozen if not isinstance(part, Loose)]
    return [*frozen, state.active] if state.active is not None else frozen


def _digits(total: int) -> list[int]:
    """The powers of two whose sum is `total`, largest first."""
    return [1 << bit for bit in reversed(range(total.bit_length())) if total >> bit & 1]


def _chunks(source: Source) -> int:
    return source.chunks if isinstance(source, (Sealed, Loose)) else 1


def _alive(source: Source) -> AlivePoints:
    return source.segment.alive() if isinstance(source, Sealed) else source.alive()


def _removed(source: Source) -> Int64Array:
    if isinstance(source, Loose):
        return np.zeros(0, np.int64)
    return (source.segment if isinstance(source, Sealed) else source).dead_ids()


def _contains(source: Source, ids: Int64Array) -> npt.NDArray[np.bool_]:
    if isinstance(source, Loose):
        return np.isin(ids, source.ids)
    return (source.segment if isinstance(source, Sealed) else source).contains(ids)


@overload
def part(features: Batch, start: int, stop: int) -> Batch: ...


@overload
def part(features: Stored, start: int, stop: int) -> Stored: ...


def part(features: Stored, start: int, stop: int) -> Stored:
    """Rows start .. stop of a batch, without copying features."""
    if start == 0 and stop >= len(features):
        return features
    if not isinstance(features, np.ndarray):
        return features.slice(start, min(stop, len(features)))
    return features[start:stop]
