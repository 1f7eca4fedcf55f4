r"""The manifest of a shard: which files hold its sealed points, and up to where in the log.

    manifest = "closeby manifest 1\n" checks "\n" body
    checks   = xxh3-64 of body, 16 hexadecimal digits, " " bytes of body
    body     = JSON object

There is one manifest, `MANIFEST`, replaced atomically. What it lists is durable before it is; what
it does not list is not part of the shard, and is removed when the shard is opened.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import xxhash
from closeby.index.errors import CorruptFileError, UnsupportedVersionError, unusable_is_corrupt

from .durable_files import checksum, write_atomically

__all__ = ["MANIFEST_NAME", "FileEntry", "Manifest", "SegmentEntry"]

MANIFEST_NAME = "MANIFEST"
_FIRST = re.compile(rb"closeby manifest ([1-9][0-9]{0,8})\n")
_SECOND = re.compile(rb"([0-9a-f]{16}) ([0-9]{1,12})\n")
VERSION = 1


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file: its name within the directory, its bytes, and their hexadecimal xxh3-64."""

    name: str
    size: int
    xxh3: str

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """That of a file which is complete. Raises OSError."""
        return cls(path.name, *checksum(path))


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A sealed segment: the engine's file, the names of its points, and how much it has taken.

    `number` orders segments by when they were written; `chunks` is the engine's measure.
    """

    number: int
    chunks: int
    segment: FileEntry
    points: FileEntry


@dataclass(frozen=True, slots=True)
class Manifest:
    """The sealed part of a shard.

    `sealed_seq`: all that the log says up to here is in the files. `engine` is what the engine
    needs to go on with the same hashes. `marks` says which sealed points are dead (None: none).
    """

    collection: int
    number: int
    sealed_seq: int
    engine: dict[str, Any]
    segments: tuple[SegmentEntry, ...]
    marks: FileEntry | None

    def files(self) -> list[FileEntry]:
        """All files that it lists."""
        listed = [file for entry in self.segments for file in (entry.segment, entry.points)]
        return listed if self.marks is None else [*listed, self.marks]

    def dump(self) -> bytes:
        """The manifest as it is written."""
        body = orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)
        head = f"closeby manifest {VERSION}\n{xxhash.xxh3_64_hexdigest(body)} {len(body)}\n"
        return head.encode() + body

    def write(self, directory: Path) -> None:
        """Publish: on return this is the manifest of the directory, durably. Raises OSError."""
        write_atomically(directory / MANIFEST_NAME, self.dump())

    @classmethod
    def read(cls, directory: Path) -> Manifest | None:
        """The manifest of the directory; None if it has none.

        Raises CorruptFileError, UnsupportedVersionError, OSError.
        """
        path = directory / MANIFEST_NAME
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        return cls.parse(str(path), data)

    @classmethod
    def parse(cls, path: str, data: bytes) -> Manifest:
        """The manifest that `dump` made; errors name `path` and are those of `read`."""
        first = _FIRST.match(data)
        if first is None:
            raise CorruptFileError(f"this is no manifest; {MENDING}", path=path)
        if int(first[1]) != VERSION:
            raise UnsupportedVersionError(
                f"manifest version {int(first[1])} is not known to this closeby, which reads"
                f" version {VERSION}; upgrade closeby",
                path=path,
                offset=first.start(1),
            )
        second = _SECOND.match(data, first.end())
        body = data[second.end() :] if second is not None else b""
        if (
            second is None
            or str(len(body)).encode() != second[2]
            or xxhash.xxh3_64_hexdigest(body).encode() != second[1]
        ):
            raise CorruptFileError(
                f"the manifest is damaged; {MENDING}", path=path, offset=first.end()
            )
        with unusable_is_corrupt(path):
            return _of_json(orjson.loads(body))


MENDING = (
    "restore the collection from a snapshot, or move its folder away: what the log still holds is"
    " then read from there"
)


def _of_json(found: dict[str, Any]) -> Manifest:
    marks = found["marks"]
    return Manifest(
        _whole(found["collection"]),
        _whole(found["number"]),
        _whole(found["sealed_seq"]),
        dict(found["engine"]),
        tuple(
            SegmentEntry(
                _whole(entry["number"]),
                _whole(entry["chunks"]),
                _file(entry["segment"]),
                _file(entry["points"]),
            )
            for entry in found["segments"]
        ),
        None if marks is None else _file(marks),
    )


def _file(found: dict[str, Any]) -> FileEntry:
    name, xxh3 = found["name"], found["xxh3"]
    if not re.fullmatch(r"[a-z0-9-]+", name) or not re.fullmatch("[0-9a-f]{16}", xxh3):
        raise ValueError(f"no file of a shard: {name!r}")
    return FileEntry(name, _whole(found["size"]), xxh3)


def _whole(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"{number!r} is no whole number")
    return number
