"""A file as a stream of decompressed bytes or lines, in bounded memory.

    path ──▶ compression by magic bytes ──▶ chunks ≤ 256 KiB ──▶ lines ≤ Limits.record

A few bytes of gzip, xz or zstd can decompress to terabytes, and a header may ask for gigabytes
before its first byte. So decompression goes chunk by chunk, xz has a memory limit and zstd a window
of at most 128 MiB, and a line that is longer than the limit is dropped piece by piece while it is
read.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from .errors import DamagedFileError, FileTooLargeError, MissingExtraError, WrongFormatError

Compression = Literal["gz", "xz", "zst"]
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)

CHUNK_BYTES = 256 * 1024
HEAD_BYTES = 64 * 1024
XZ_MEMORY_BYTES = 256 * 1024 * 1024  # `xz -9` needs 65 MiB

_MAGIC: dict[bytes, Compression] = {
    b"\x1f\x8b": "gz",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zst",
}
_UNREAD_MAGIC = {
    b"BZh": "bzip2",
    b"7z\xbc\xaf\x27\x1c": "7z",
}
_UTF8_BOM = b"\xef\xbb\xbf"
_GZIP_WINDOW = 31  # zlib's name for "a gzip header and a window of 32 KiB"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one file may ask for.

    record: bytes of one line or record, decompressed; a longer one is a bad row.
    total: bytes of the whole file, decompressed; None for no bound.
    memory: bytes that the process which reads Parquet, Arrow or HDF5 may take beyond its start.
    """

    record: int = 64 * 1024 * 1024
    total: int | None = None
    memory: int = 2 * 1024 * 1024 * 1024


class Source:
    """One file, open as often as it is read.

    suffix: the extension in lower case, without that of the compression (`a.Fasta.gz`: `fasta`).
    head: the first 64 KiB, decompressed.
    on_read: called before each chunk; what it raises ends the reading.
    bytes_read, bytes_total: of the file as it lies on disk, for a progress bar.

    Raises OSError if it cannot be opened, WrongFormatError if its compression is not what its name
    says, or none that is read here, DamagedFileError if it breaks off within the head.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits | None = None,
        on_read: Callable[[], object] | None = None,
    ) -> None:
        self.path = path
        self.limits = limits or Limits()
        self._on_read = on_read
        self.bytes_total = path.stat().st_size
        self.bytes_read = 0
        suffixes = [suffix[1:].lower() for suffix in path.suffixes]
        named = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else None
        self.suffix = suffixes[-1] if suffixes else ""
        with path.open("rb") as file:
            magic = file.read(8)
        self.compression = _compression(path, magic, named)
        self.head = self._head()

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """The decompressed bytes from number `start` on, at most 256 KiB at a time, none empty.

        A file that is not compressed is sought in. Raises DamagedFileError, FileTooLargeError or
        OSError.
        """
        self.bytes_read = 0
        total, lines = 0, 1
        with self.path.open("rb") as file:
            if self.compression is None:
                self.bytes_read = total = file.seek(min(start, self.bytes_total))
            decompressed = _DECOMPRESS[self.compression](self._raw(file))
            while True:
                try:
                    chunk = next(decompressed, None)
                except (zlib.error, lzma.LZMAError, EOFError) as error:
                    raise DamagedFileError(self.path, lines, str(error)) from error
                except ModuleNotFoundError as error:
                    raise MissingExtraError(self.path, "pyarrow") from error
                if chunk is None:
                    return
                if self._on_read is not None:
                    self._on_read()
                total += len(chunk)
                if self.limits.total is not None and total > self.limits.total:
                    raise FileTooLargeError(
                        self.path, f"more than {self.limits.total} bytes once decompressed"
                    )
                if total > start:
                    yield chunk[start - total :] if total - start < len(chunk) else chunk
                lines += chunk.count(b"\n")

    def lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Each line with its number (1-based), without LF or CRLF or a byte order mark.

        None stands for a line longer than `limits.record`. Raises as `chunks` does.
        """
        limit = self.limits.record
        parts: list[bytes] = []  # of the line whose end has not come yet
        size = 0
        number = 0
        for chunk in self.chunks():
            pieces = chunk.split(b"\n")
            for piece in pieces[:-1]:
                number += 1
                size += len(piece)
                parts.append(piece)
                yield number, None if size > limit else _bare(number, parts)
                parts.clear()
                size = 0
            size += len(pieces[-1])
            if size > limit:
                parts.clear()
            else:
                parts.append(pieces[-1])
        if size:
            yield number + 1, None if size > limit else _bare(number + 1, parts)

    def _raw(self, file: BinaryIO) -> Iterator[bytes]:
        while chunk := file.read(CHUNK_BYTES):
            self.bytes_read += len(chunk)
            yield chunk

    def _head(self) -> bytes:
        head = bytearray()
        for chunk in self.chunks():
            head += chunk
            if len(head) >= HEAD_BYTES:
                break
        self.bytes_read = 0
        return bytes(head[:HEAD_BYTES])


def _bare(number: int, parts: list[bytes]) -> bytes:
    line = parts[0] if len(parts) == 1 else b"".join(parts)
    if number == 1:
        line = line.removeprefix(_UTF8_BOM)
    return line.removesuffix(b"\r")


def _compression(path: Path, magic: bytes, named: str | None) -> Compression | None:
    for start, name in _UNREAD_MAGIC.items():
        if magic.startswith(start):
            raise WrongFormatError(
                path, f"is a {name} file; decompress it, or make it .gz, .xz or .zst"
            )
    found = next((kind for start, kind in _MAGIC.items() if magic.startswith(start)), None)
    if named is not None and found != named:
        raise WrongFormatError(path, f"is named .{named} but does not begin like one")
    return found


def _plain(raw: Iterator[bytes]) -> Iterator[bytes]:
    return raw


def _gunzip(raw: Iterator[bytes]) -> Iterator[bytes]:
    """All members of a gzip stream, one after the other; zero padding after them is allowed."""
    member = zlib.decompressobj(_GZIP_WINDOW)
    begun = False
    for data in raw:
        pending = data
        while pending:
            if not begun:
                pending = pending.lstrip(b"\0")
                if not pending:
                    break
                begun = True
            chunk = member.decompress(pending, CHUNK_BYTES)
            pending = member.unconsumed_tail
            if chunk:
                yield chunk
            if member.eof:
                pending = member.unused_data
                member, begun = zlib.decompressobj(_GZIP_WINDOW), False
    # What zlib holds back when its input is used up but the last chunk was full.
    while begun and (chunk := member.decompress(b"", CHUNK_BYTES)):
        yield chunk
    if begun and not member.eof:
        raise EOFError("the gzip stream is truncated")


def _unxz(raw: Iterator[bytes]) -> Iterator[bytes]:
    """All streams of an xz file, one after the other; zero padding after them is allowed."""
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
    begun = False
    for data in raw:
        pending = data
        while True:
            if not begun:
                pending = pending.lstrip(b"\0")
                if not pending:
                    break
                begun = True
            chunk = stream.decompress(pending, CHUNK_BYTES)
            pending = b""
            if chunk:
                yield chunk
            if stream.eof:
                pending = stream.unused_data
                stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
                begun = False
            elif stream.needs_input:
                break
    if begun:
        raise EOFError("the xz stream is truncated")


class _Raw:
    """What is read of a file, as the file object that pyarrow wants."""

    closed = False

    def __init__(self, raw: Iterator[bytes]) -> None:
        self._raw = raw
        self._rest = b""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        data = self._rest or next(self._raw, b"")
        self._rest = data[size:]
        return data[:size]

    def readable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Whoever opened the file closes it."""


def _unzstd(raw: Iterator[bytes]) -> Iterator[bytes]:
    """All frames of a zstd file, one after the other."""
    import pyarrow

    file: Any = pyarrow.PythonFile(_Raw(raw), "r")
    try:
        with pyarrow.CompressedInputStream(file, "zstd") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except (pyarrow.ArrowException, OSError) as error:
        raise EOFError(f"the zstd stream is truncated or corrupt: {error}") from error


_DECOMPRESS = {None: _plain, "gz": _gunzip, "xz": _unxz, "zst": _unzstd}
