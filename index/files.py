r"""Files of named arrays: one header, then the arrays, each aligned so that it can be mapped.

docs/format.md has the grammar. In short::

    magic "closeby\n" | format version u32 | header length u32 | header JSON | padding
    array | padding | array | padding | …

The header names each array with its type, shape, offset and xxh3 checksum, and carries a checksum
of itself, so that a damaged byte anywhere is noticed before an answer is given.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import xxhash

from .errors import CorruptFileError, UnsupportedVersionError, unusable_is_corrupt

MAGIC = b"closeby\n"
FORMAT_VERSION = 1
ALIGNMENT = 64
MAX_HEADER = 1 << 24

_PREFIX = struct.Struct("<8sIIQ")  # magic, version, header length, xxh3 of the header
_DTYPES = {"|i1", "u1", "<u2", "<u4", "<u8", "<i8", "<f4", "|b1", "|u1"}


Shapes: TypeAlias = dict[str, tuple[npt.DTypeLike, tuple[int, ...]]]
"""Type and shape of each array of a file, by name."""


def bytes_of(shapes: Shapes) -> int:
    """Bytes that arrays of these types and shapes take."""
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in shapes.values())


def write_arrays(path: Path, header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write a file of arrays; it appears under its name complete or not at all.

    Args:
        path: the file to make or replace.
        header: JSON values, at least ``{"index": kind}``.
        arrays: little-endian arrays by name.
    """
    shapes: Shapes = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    with ArrayFileWriter(path, header, shapes) as writer:
        for name, array in arrays.items():
            writer.arrays[name][...] = array
        writer.publish()


class ArrayFileWriter:
    """A file of arrays that are computed in place, so that they never all lie in memory.

    The file has its full size from the start (a full disk is an ``OSError`` here, not a crash when
    a page is written) and appears under its name only with :meth:`publish`; leaving the context
    without it removes what was written.

    Args:
        path: the file to make or replace.
        header: JSON values, at least ``{"index": kind}``.
        shapes: type and shape of each array.

    Attributes:
        arrays: the arrays by name, writable, filled with zeros.
    """

    def __init__(self, path: Path, header: dict[str, Any], shapes: Shapes) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".partial")
        self._header = header
        self._table: dict[str, dict[str, Any]] = {}
        offset = 0
        for name, (dtype, shape) in shapes.items():
            dtype = np.dtype(dtype)
            self._table[name] = {"dtype": dtype.str, "shape": list(shape), "offset": offset,
                                 "xxh3": "0" * 16}  # fmt: skip
            offset += _aligned(dtype.itemsize * int(np.prod(shape, dtype=np.int64)))
        self._start = _aligned(_PREFIX.size + len(self._header_text()))
        try:
            with self._temporary.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._start + offset)
        except OSError:
            self._temporary.unlink(missing_ok=True)
            raise
        self._data = np.memmap(self._temporary, np.uint8, "r+")
        self.arrays = {name: self._view(entry) for name, entry in self._table.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.arrays = {}
        self._temporary.unlink(missing_ok=True)

    def _header_text(self) -> bytes:
        # Checksums have a fixed width, so the header's length does not change with them.
        return json.dumps(self._header | {"arrays": self._table}, sort_keys=True).encode()

    def _view(self, entry: dict[str, Any]) -> npt.NDArray[Any]:
        dtype = np.dtype(entry["dtype"])
        begin = self._start + entry["offset"]
        size = dtype.itemsize * int(np.prod(entry["shape"], dtype=np.int64))
        view: npt.NDArray[Any] = self._data[begin : begin + size].view(dtype)
        return view.reshape(entry["shape"])

    def publish(self) -> None:
        """Add the checksums, flush to disk, and give the file its name."""
        for name, array in self.arrays.items():
            self._table[name]["xxh3"] = _checksum(array)
        text = self._header_text()
        prefix = _PREFIX.pack(MAGIC, FORMAT_VERSION, len(text), xxhash.xxh3_64_intdigest(text))
        self._data.flush()
        with self._temporary.open("r+b") as file:
            file.write(prefix + text)
            file.flush()
            os.fsync(file.fileno())
        self._temporary.replace(self._path)
        _sync_directory(self._path.parent)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _checksum(array: npt.NDArray[Any]) -> str:
    return xxhash.xxh3_64_hexdigest(array.reshape(-1).view(np.uint8).data)


def _sync_directory(directory: Path) -> None:
    """A rename is durable only when the directory that holds the name is."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_arrays(
    path: Path, kind: str, *, verify: bool = True
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Map a file that :func:`write_arrays` wrote.

    Args:
        path: the file.
        kind: what ``header["index"]`` must be.
        verify: compare the checksum of every array, and the offsets in each ``indptr`` with its
            ``elements``; without it only the header is checked and opening takes the same time
            whatever the size.

    Returns:
        The header, and read-only arrays by name whose pages are read when they are used.

    Raises:
        CorruptFileError: the file is damaged, cut short, or of another kind.
        UnsupportedVersionError: it was written by a newer closeby.
        OSError: it cannot be opened.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(_PREFIX.size)
        header, start = _read_header(path, prefix, file, size)
        # Not np.memmap: each of its slices pays for its class, also in searches.
        data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    if header.get("index") != kind:
        raise CorruptFileError(
            f"this is an index of kind {header.get('index')!r}, not {kind!r}", path=str(path)
        )
    with unusable_is_corrupt(path):
        arrays = {
            name: _array(path, data, start, name, entry, verify)
            for name, entry in header["arrays"].items()
        }
        if verify:
            for name in arrays:
                if name.endswith("indptr"):
                    check_offsets(arrays[name], arrays[name.removesuffix("indptr") + "elements"])
    return header, arrays


def check_offsets(indptr: npt.NDArray[np.int64], elements: npt.NDArray[Any]) -> None:
    """Refuse offsets that fall or point outside the elements: kernels trust them.

    Raises:
        ValueError: they do.
    """
    fits = indptr.ndim == 1 and len(indptr) and indptr[0] == 0 and indptr[-1] == len(elements)
    if not fits or np.any(indptr[1:] < indptr[:-1]):
        raise ValueError("offsets must rise from 0 to the number of elements")


def _read_header(path: Path, prefix: bytes, file: Any, size: int) -> tuple[dict[str, Any], int]:
    if len(prefix) < _PREFIX.size or prefix[:8] != MAGIC:
        raise CorruptFileError("this is no closeby file", path=str(path))
    _, version, length, digest = _PREFIX.unpack(prefix)
    if version != FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"format version {version} is not known to this closeby, which reads version "
            f"{FORMAT_VERSION}; upgrade closeby",
            path=str(path),
            offset=8,
        )
    if length > MAX_HEADER or _PREFIX.size + length > size:
        raise CorruptFileError("the header is cut short", path=str(path), offset=12)
    text = file.read(length)
    if xxhash.xxh3_64_intdigest(text) != digest:
        raise CorruptFileError("the header is damaged", path=str(path), offset=_PREFIX.size)
    with unusable_is_corrupt(path):
        header = json.loads(text)
        if not isinstance(header, dict):
            raise TypeError("the header is no JSON object")
    return header, _aligned(_PREFIX.size + length)


def _array(
    path: Path, data: npt.NDArray[Any], start: int, name: str, entry: dict[str, Any], verify: bool
) -> npt.NDArray[Any]:
    if entry["dtype"] not in _DTYPES:
        raise CorruptFileError(f"array {name!r} has type {entry['dtype']}", path=str(path))
    dtype = np.dtype(entry["dtype"])
    if any(type(number) is not int or number < 0 for number in (*entry["shape"], entry["offset"])):
        raise ValueError(f"shape and offset of array {name!r} must be whole numbers")
    begin = start + entry["offset"]
    # Python's product: NumPy's would wrap around at 2**63.
    end = begin + dtype.itemsize * math.prod(entry["shape"])
    if end > len(data):
        raise CorruptFileError(
            f"the file is cut short within array {name!r}", path=str(path), offset=len(data)
        )
    raw = data[begin:end]
    if verify and _checksum(raw) != entry["xxh3"]:
        raise CorruptFileError(
            f"array {name!r} is damaged; restore the file from a snapshot or rebuild the index",
            path=str(path),
            offset=begin,
        )
    array: npt.NDArray[Any] = raw.view(dtype).reshape(entry["shape"])
    return array
