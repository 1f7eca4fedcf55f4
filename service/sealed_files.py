"""The directory of a shard: sealed files, published by a manifest and found again at start.

Nothing here decides what is true: the log does. All files can be made again from it, a crash at
any point leaves the manifest of before or the one of after, and what no manifest lists is removed
at the next start.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from closeby.index.errors import CorruptFileError, unusable_is_corrupt
from closeby.index.files import read_arrays, write_arrays

from .durable_files import checksum, remove, sync_directory
from .manifest import MANIFEST_NAME, FileEntry, Manifest, SegmentEntry
from .points_file import Flags, PointsFile

__all__ = [
    "OpenSegment",
    "SealedFiles",
    "nothing_sealed",
    "open_files",
    "read_manifest",
    "read_marks",
]

MARKS = "marks"
CHECKING_THREADS = 2


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """A sealed segment that is in use: its entry in the manifest, and its points."""

    entry: SegmentEntry
    points: PointsFile


def nothing_sealed(collection: int) -> Manifest:
    """The manifest of a shard that has none."""
    return Manifest(collection, 0, 0, {}, (), None)


def read_manifest(directory: Path, collection: int) -> Manifest:
    """What is published for a collection.

    Raises CorruptFileError, UnsupportedVersionError, OSError.
    """
    manifest = Manifest.read(directory)
    if manifest is None:
        return nothing_sealed(collection)
    if manifest.collection != collection:
        raise CorruptFileError(
            f"the manifest is of collection number {manifest.collection}, not {collection}",
            path=str(directory / MANIFEST_NAME),
        )
    return manifest


def open_files(
    directory: Path, manifest: Manifest, *, verify: bool, known: Collection[FileEntry] = ()
) -> list[OpenSegment]:
    """Map the files of a manifest; checksums of those that are `known` are not compared again.

    Raises CorruptFileError which names the file, OSError.
    """
    for file in manifest.files():
        _check_size(directory / file.name, file)
    if verify:
        with ThreadPoolExecutor(CHECKING_THREADS, "closeby-check") as pool:
            known = set(known)
            unknown = [file for file in manifest.files() if file not in known]
            for _ in pool.map(lambda file: _check(directory / file.name, file), unknown):
                pass
    marks = {} if manifest.marks is None else read_marks(directory / manifest.marks.name)
    opened = []
    for entry in manifest.segments:
        points = PointsFile.open(directory / entry.points.name)
        dead = marks.get(entry.points.name)
        if dead is not None:
            points = _marked(points, dead)
        opened.append(OpenSegment(entry, points))
    return opened


def _check_size(path: Path, file: FileEntry) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CorruptFileError(f"the file is missing; {MENDING}", path=str(path)) from error
    if size != file.size:
        raise CorruptFileError(
            f"the file has {size} bytes, its manifest says {file.size}; {MENDING}",
            path=str(path),
            offset=min(size, file.size),
        )


def _check(path: Path, file: FileEntry) -> None:
    if checksum(path) != (file.size, file.xxh3):
        raise CorruptFileError(f"the checksum does not match; {MENDING}", path=str(path))


def read_marks(path: Path) -> dict[str, Flags]:
    """Dead points by the name of their points file, up to 7 flags too many. See `publish`.

    Raises CorruptFileError, UnsupportedVersionError, OSError.
    """
    _, arrays = read_arrays(path, MARKS)
    return {
        name: np.unpackbits(bits, bitorder="little").astype(bool) for name, bits in arrays.items()
    }


class SealedFiles:
    """The directory of one shard. One thread at a time may publish.

    The directory is made if it is missing. Raises OSError.
    """

    def __init__(self, directory: Path, collection: int) -> None:
        self.directory = directory
        self._collection = collection
        directory.mkdir(parents=True, exist_ok=True)
        sync_directory(directory.parent)
        self._manifest = nothing_sealed(collection)
        self._next = 1

    @property
    def manifest(self) -> Manifest:
        """What is published."""
        return self._manifest

    def new_path(self, kind: str) -> Path:
        """The path of a new file."""
        number, self._next = self._next, self._next + 1
        return self.directory / f"{kind}-{number:08}"

    def number_of(self, path: Path) -> int:
        """The number in the name of a file."""
        return int(path.name.rpartition("-")[2])

    # --- opening ---------------------------------------------------------------------------------

    def open(
        self, *, verify: bool, known: Collection[FileEntry] = ()
    ) -> tuple[Manifest, list[OpenSegment]]:
        """Read the manifest and map its files as `open_files` does; remove all others.

        Raises CorruptFileError which names the file, UnsupportedVersionError, OSError.
        """
        self._manifest = read_manifest(self.directory, self._collection)
        self._remove_orphans()
        opened = open_files(self.directory, self._manifest, verify=verify, known=known)
        return self._manifest, opened

    def _remove_orphans(self) -> None:
        listed = {file.name for file in self._manifest.files()} | {MANIFEST_NAME}
        found = [path for path in self.directory.iterdir() if path.name not in listed]
        remove(found)
        numbers = [self._manifest.number]
        numbers += [self.number_of(self.directory / file.name) for file in self._manifest.files()]
        self._next = max(numbers) + 1

    # --- publishing ------------------------------------------------------------------------------

    def publish(
        self,
        segments: Sequence[SegmentEntry],
        marks: dict[str, Flags],
        sealed_seq: int,
        engine: dict[str, Any],
    ) -> None:
        """Make these segments the sealed part of the shard, durably.

        `marks` are the dead points of each points file, by its name. Raises OSError; then what was
        published before still is.
        """
        before = self._manifest
        marks_path = None
        if any(dead.any() for dead in marks.values()):
            marks_path = self.new_path(MARKS)
            packed = {n: np.packbits(d, bitorder="little") for n, d in marks.items() if d.any()}
            write_arrays(marks_path, {"index": MARKS}, packed)
        after = Manifest(
            self._collection,
            before.number + 1,
            sealed_seq,
            engine,
            tuple(segments),
            FileEntry.of(marks_path) if marks_path is not None else None,
        )
        self._commit(before, after)
        self._manifest = after
        kept = {file.name for file in after.files()}
        remove(self.directory / f.name for f in before.files() if f.name not in kept)

    def _commit(self, before: Manifest, after: Manifest) -> None:
        """The moment from which `after` counts."""
        del before
        after.write(self.directory)

    def may_list(self, paths: Sequence[Path]) -> bool:
        """Whether the manifest on disk lists any of `paths`, as far as it can be told.

        A publication that failed may have got as far as the name.
        """
        try:
            found = Manifest.read(self.directory)
        except (OSError, CorruptFileError):
            return True
        listed = {file.name for file in found.files()} if found is not None else set()
        return any(path.name in listed for path in paths)


MENDING = (
    "restore the collection from a snapshot, or move this file's folder away while the server is"
    " stopped: it is then made again from the log"
)


def _marked(points: PointsFile, dead: Flags) -> PointsFile:
    with unusable_is_corrupt(points.path):
        if not 0 <= len(dead) - len(points) < 8:
            raise ValueError("marks of dead points do not fit")
        points.dead = dead[: len(points)]
    return points
