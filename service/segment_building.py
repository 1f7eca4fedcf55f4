"""Building the files of a sealed segment: in this process, or by order in another.

What is to be built is a merge of the engine: one full mutable segment, or sealed ones that become
one. This process builds it from the segments in its memory. Another one has only the store and the
files (`build_jobs`), so the order says which log rows, or which files without which points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import structlog
from closeby.index.errors import CorruptFileError

from .durable_files import remove
from .manifest import FileEntry
from .points_file import PointsFile, Seqs, Source

__all__ = ["Builder", "Built", "MergeLike", "Order", "SegmentLike", "Site", "build"]

log = structlog.get_logger(__name__)


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

    def opened(self, path: Path) -> SegmentLike:
        """The same, from a file that another process has built."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What another process has to know to build a segment.

    A seal has `seqs`: those of the log rows that are to be in it, rising. A merge has `sources`:
    chunks, segment and points file of each, largest first, and `seqs` are those of them that are
    dead. `engine` and `parameters` are those of the engine, `folder` is the shard's.
    """

    collection: int
    folder: Path
    engine: str
    parameters: dict[str, Any]
    seqs: Seqs
    sources: tuple[tuple[int, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """Where the files of a segment go."""

    segment: Path
    points: Path

    @property
    def paths(self) -> list[Path]:
        """Both files."""
        return [self.segment, self.points]


@dataclass(frozen=True, slots=True)
class Built:
    """A segment that was built, and its files; no files if no point is left."""

    segment: SegmentLike
    points: PointsFile | None = None
    entries: tuple[FileEntry, FileEntry] | None = None


class Builder(Protocol):
    """Has segments built by other processes."""

    def build(self, order: Order, site: Site) -> tuple[FileEntry, FileEntry] | None:
        """Entries of the two files, which are at `site`, durably; None if nobody builds them.

        Raises AbandonedError if the build is not wanted any more.
        """
        ...


def build(
    merge: MergeLike,
    site: Site,
    names: Callable[[], Sequence[Source]],
    builder: Builder | None,
    order: Callable[[], Order],
) -> Built:
    """The files of a merge, by `builder` if it can, else by this thread.

    `names` are asked for the names of its points. Raises OSError, AbandonedError, and what the
    store raises.
    """
    if builder is not None:
        wanted = order()
        some = len(wanted.seqs) > 0 or wanted.sources
        entries = builder.build(wanted, site) if some else None
        built = None if entries is None else _taken_up(merge, site, wanted, entries)
        if built is not None:
            return built
        remove(site.paths)
    segment = merge.build(site.segment)
    if not len(segment):
        remove([site.segment])
        return Built(segment)
    points = PointsFile.write(site.points, np.sort(segment.ids), names())
    return Built(segment, points, (FileEntry.of(site.segment), FileEntry.of(site.points)))


def _taken_up(
    merge: MergeLike, site: Site, order: Order, entries: tuple[FileEntry, FileEntry]
) -> Built | None:
    """The files that another process has built; None if they are not what was asked for."""
    try:
        segment = merge.opened(site.segment)
        points = PointsFile.open(site.points)
    except (CorruptFileError, OSError) as error:
        log.warning("build_refused", collection=order.collection, error=str(error))
        return None
    held = np.sort(np.asarray(segment.ids))
    wanted = held if order.sources else order.seqs
    if not np.array_equal(held, wanted) or not np.array_equal(held, points.seqs):
        log.warning("build_refused", collection=order.collection, error="other points")
        return None
    return Built(segment, points, entries)
