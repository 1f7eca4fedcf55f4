r"""Snapshots: one file with all points of a collection as they were at one moment.

    snapshot = "closeby snapshot 1\n" meta { rows } end
    block    = kind u8, bytes u64, check u64, data          all numbers little-endian
    check    = xxh3-64 of kind u8, number of the block u64, data
    meta     = block of kind 1, data: JSON {"config", "created_at", "points"}
    rows     = block of kind 2, data: { seq i64, bytes of key, features, source, payload: 4 u32,
               key, features, source, payload }             bytes 2^32 - 1: there is none
    end      = block of kind 3, data: number of rows u64; nothing follows

Points come in the order in which they were written. Only what cannot be made again is in it, so a
snapshot does not depend on engines and their files, and nothing in it is mapped or trusted:
everything is checked before a restore changes anything.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import secrets
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import xxhash
from closeby.index import MaxIPIndex

from .durable_files import PARTIAL, remove, sync_directory
from .encoding import decode_rows
from .errors import (
    SnapshotDamagedError,
    SnapshotNotFoundError,
    StoreUnavailableError,
    ValidationError,
)
from .store import Entry, Op, StoredPoint, point_id, point_key

__all__ = ["Points", "SnapshotInfo", "Snapshots", "read_rows", "verify"]

MAGIC = b"closeby snapshot 1\n"
ENDING = ".snapshot"
META, ROWS, END = 1, 2, 3
ROWS_BYTES = 4 << 20
"""A block of rows ends when it is as large as this."""
MAX_BLOCK = 256 << 20
_BLOCK = struct.Struct("<BQQ")
_ROW = struct.Struct("<qIIII")
_CHECKED = struct.Struct("<BQ")
_NONE = 0xFFFFFFFF
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot: `config` is that of its collection, `created_at` ISO 8601 in UTC."""

    name: str
    config: dict[str, Any]
    points: int
    created_at: str
    bytes: int


class Snapshots:
    """The snapshots of a deployment: `directory`/<collection>/<name>.snapshot.

    They stay when their collection is deleted. Raises what the file system does as
    StoreUnavailableError.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def create(self, collection: str, config: dict[str, Any], points: Points) -> SnapshotInfo:
        """Write a snapshot of points: their number, and the rows in rising order of seq."""
        now = datetime.datetime.now(datetime.UTC)
        name = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        created_at = now.isoformat(timespec="milliseconds")
        with self._new_file(collection, name) as file:
            write(file, {"config": config, "created_at": created_at}, points)
        return self.info(collection, name)

    def list(self, collection: str) -> list[SnapshotInfo]:
        """All snapshots of a collection, oldest first; damaged ones are left out."""
        folder = self._folder(collection)
        with _file_errors():
            names = sorted(path.name for path in folder.glob(f"*{ENDING}"))
        found = []
        for name in names:
            with contextlib.suppress(SnapshotDamagedError, SnapshotNotFoundError):
                found.append(self.info(collection, name.removesuffix(ENDING)))
        return sorted(found, key=lambda info: info.created_at)

    def info(self, collection: str, name: str) -> SnapshotInfo:
        """What the head of a snapshot says. Raises SnapshotNotFoundError, SnapshotDamagedError."""
        with self.open(collection, name) as file:
            size = os.fstat(file.fileno()).st_size
            meta = _read_meta(file, size)
            return SnapshotInfo(name, meta["config"], meta["points"], meta["created_at"], size)

    def open(self, collection: str, name: str) -> BinaryIO:
        """The file, for reading. Raises SnapshotNotFoundError."""
        try:
            return self._path(collection, name).open("rb")
        except FileNotFoundError:
            raise SnapshotNotFoundError(
                f"collection {collection!r} has no snapshot {name!r}"
            ) from None
        except OSError as error:
            raise _unavailable(error) from error

    @contextlib.contextmanager
    def receive(self, collection: str, name: str) -> Iterator[BinaryIO]:
        """A file to write an uploaded snapshot to; kept under its name if it is a good one.

        Raises SnapshotDamagedError, and then nothing changes.
        """
        with self._new_file(collection, name) as file:
            yield file
            file.flush()
            with Path(file.name).open("rb") as written:
                verify(written)

    def delete(self, collection: str, name: str) -> None:
        """Remove a snapshot. Raises SnapshotNotFoundError."""
        path = self._path(collection, name)
        try:
            path.unlink()
            sync_directory(path.parent)
        except FileNotFoundError:
            raise SnapshotNotFoundError(
                f"collection {collection!r} has no snapshot {name!r}"
            ) from None
        except OSError as error:
            raise _unavailable(error) from error

    def _folder(self, collection: str) -> Path:
        return self._directory / _safe(collection, "collection")

    def _path(self, collection: str, name: str) -> Path:
        return self._folder(collection) / (_safe(name, "snapshot") + ENDING)

    @contextlib.contextmanager
    def _new_file(self, collection: str, name: str) -> Iterator[BinaryIO]:
        """A file that gets its name when the block ends well; durable then."""
        path = self._path(collection, name)
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
        with _file_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("w+b") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(path)
                sync_directory(path.parent)
            finally:
                remove([partial])


@dataclass(frozen=True, slots=True)
class Points:
    """How many points there are, and their rows.

    `index` holds the same points by their seqs and may be changed: of collections with such an
    engine, where it was asked for.
    """

    count: int
    rows: Iterable[StoredPoint]
    index: MaxIPIndex | None = None


# --- writing -------------------------------------------------------------------------------------


def write(file: BinaryIO, meta: dict[str, Any], points: Points) -> None:
    """Write a snapshot. Raises OSError."""
    file.write(MAGIC)
    numbers = iter(range(1 << 62))
    _write_block(file, META, next(numbers), orjson.dumps(meta | {"points": points.count}))
    parts: list[bytes] = []
    size = written = 0
    for row in points.rows:
        encoded = _encode(row)
        parts.append(encoded)
        size += len(encoded)
        written += 1
        if size >= ROWS_BYTES:
            _write_block(file, ROWS, next(numbers), b"".join(parts))
            parts, size = [], 0
    if parts:
        _write_block(file, ROWS, next(numbers), b"".join(parts))
    if written != points.count:
        raise StoreUnavailableError(
            f"the log has {written} of {points.count} points; was the collection deleted?"
        )
    _write_block(file, END, next(numbers), struct.pack("<Q", written))


def _write_block(file: BinaryIO, kind: int, number: int, data: bytes) -> None:
    file.write(_BLOCK.pack(kind, len(data), _check(kind, number, data)))
    file.write(data)


def _check(kind: int, number: int, data: bytes) -> int:
    digest = xxhash.xxh3_64(_CHECKED.pack(kind, number))
    digest.update(data)
    return digest.intdigest()


def _encode(row: StoredPoint) -> bytes:
    values = (row.point.encode(), row.features, row.source, row.payload)
    sizes = [_NONE if value is None else len(value) for value in values]
    return b"".join((_ROW.pack(row.seq, *sizes), *(value or b"" for value in values)))


# --- reading -------------------------------------------------------------------------------------


def verify(file: BinaryIO) -> dict[str, Any]:
    """Read a whole snapshot and check it; its meta. Raises SnapshotDamagedError, OSError."""
    file.seek(0)
    for _ in read_rows(file):
        pass
    file.seek(0)
    return _read_meta(file, os.fstat(file.fileno()).st_size)


def read_rows(file: BinaryIO) -> Iterator[list[Entry]]:
    """The points of a snapshot, block by block, each checked.

    Raises SnapshotDamagedError.
    """
    size = os.fstat(file.fileno()).st_size
    meta = _read_meta(file, size)
    seen = after = 0
    number = 1
    while True:
        kind, data = _read_block(file, number, size)
        number += 1
        if kind == END:
            break
        if kind != ROWS:
            raise _damaged(file, f"a block of kind {kind}")
        entries, after = _decode(file, data, after)
        seen += len(entries)
        yield entries
    if data != struct.pack("<Q", seen) or meta["points"] != seen:
        raise _damaged(file, "the number of points is wrong")
    if file.read(1):
        raise _damaged(file, "something follows its end")


def _read_meta(file: BinaryIO, size: int) -> dict[str, Any]:
    if file.read(len(MAGIC)) != MAGIC:
        raise SnapshotDamagedError(
            "this is no snapshot of closeby's, or one of a newer closeby; upgrade, or download it"
            " again"
        )
    kind, data = _read_block(file, 0, size)
    if kind != META:
        raise _damaged(file, f"a block of kind {kind}")
    try:
        meta: dict[str, Any] = orjson.loads(data)
        good = (
            isinstance(meta["config"], dict)
            and isinstance(meta["created_at"], str)
            and type(meta["points"]) is int
        )
    except (orjson.JSONDecodeError, KeyError, TypeError):
        good = False
    if not good:
        raise _damaged(file, "its head is not what it should be")
    return meta


def _read_block(file: BinaryIO, number: int, size: int) -> tuple[int, bytes]:
    head = file.read(_BLOCK.size)
    if len(head) < _BLOCK.size:
        raise _damaged(file, "it is cut short")
    kind, length, check = _BLOCK.unpack(head)
    if length > MAX_BLOCK or length > size - file.tell():
        raise _damaged(file, "it is cut short")
    data = file.read(length)
    if len(data) < length or _check(kind, number, data) != check:
        raise _damaged(file, "a checksum does not match")
    return kind, data


def _decode(file: BinaryIO, data: bytes, after: int) -> tuple[list[Entry], int]:
    """Entries of a block of rows, and their last seq, which must all be greater than `after`."""
    entries = []
    at = 0
    while at < len(data):
        if len(data) - at < _ROW.size:
            raise _damaged(file, "a row is cut short")
        seq, *sizes = _ROW.unpack_from(data, at)
        at += _ROW.size
        values: list[bytes | None] = []
        for size in sizes:
            if size == _NONE:
                values.append(None)
                continue
            if size > len(data) - at:
                raise _damaged(file, "a row is cut short")
            values.append(data[at : at + size])
            at += size
        if seq <= after:
            raise _damaged(file, "its rows are out of order")
        after = seq
        entries.append(_entry(file, values))
    try:
        decode_rows([entry.features or b"" for entry in entries])
    except StoreUnavailableError as error:
        raise _damaged(file, error.detail) from error
    return entries, after


def _entry(file: BinaryIO, values: list[bytes | None]) -> Entry:
    key, features, source, payload = values
    try:
        point = (key or b"").decode()
        found = point_id(point)
        good = type(found) in (int, str) and point_key(found) == point
        if payload is not None:
            good = good and isinstance(orjson.loads(payload), dict)
    except ValueError:
        good = False
    if not good or features is None:
        raise _damaged(file, "a row is no point")
    return Entry(point, Op.PUT, features, source, payload)


def _damaged(file: BinaryIO, why: str) -> SnapshotDamagedError:
    return SnapshotDamagedError(
        f"the snapshot is damaged: {why} (before byte {file.tell()}); nothing was changed. Take"
        " another one, or upload it again"
    )


def _safe(name: str, field: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValidationError.of(
            field, "must be 1 to 128 of A-Z a-z 0-9 _ . - and begin with a letter or digit", 128
        )
    return name


@contextlib.contextmanager
def _file_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unavailable(error) from error


def _unavailable(error: OSError) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"the snapshot cannot be read or written: {error.strerror}", retry_after=5
    )
