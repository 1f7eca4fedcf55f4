r"""Files of named arrays: one header, then the arrays, each aligned so that it can be mapped.

docs/format.md has the grammar. In short::

    magic "closeby\n" | format version u32 | header length u32 | header JSON | padding
    array | padding | array | padding | …

The header names each array with its type, shape, offset and xxh3 checksum, and carries a checksum
of itself, so that a damaged byte anywhere is noticed before an answer is given.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from .errors import CorruptFileError, UnsupportedVersionError

MAGIC = b"closeby\n"
FORMAT_VERSION = 1
ALIGNMENT = 64
MAX_HEADER = 1 << 24

_PREFIX = struct.Struct("<8sIIQ")  # magic, version, header length, xxh3 of the header
_DTYPES = {"u1", "<u2", "<u4", "<u8", "<i8", "<f4", "|b1", "|u1"}


def write_arrays(path: Path, header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write a file of arrays; it appears under its name complete or not at all.

    Args:
        path: the file to make or replace.
        header: JSON values, at least ``{"index": kind}``.
        arrays: little-endian arrays by name.
    """
    table, offset = {}, 0
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in contiguous.items():
        table[name] = {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "offset": offset,
            "xxh3": xxhash.xxh3_64_hexdigest(array.reshape(-1).view(np.uint8).data),
        }
        offset += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    text = json.dumps(header | {"arrays": table}, sort_keys=True).encode()
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        file.write(_PREFIX.pack(MAGIC, FORMAT_VERSION, len(text), xxhash.xxh3_64_intdigest(text)))
        file.write(text)
        _pad(file)
        for array in contiguous.values():
            file.write(array.reshape(-1).view(np.uint8).data)
            _pad(file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


def _pad(file: Any) -> None:
    file.write(b"\0" * (-file.tell() % ALIGNMENT))


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
        verify: compare the checksum of every array; without it only the header is checked and
            opening takes the same time whatever the size.

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
    if header.get("index") != kind:
        raise CorruptFileError(
            f"this is an index of kind {header.get('index')!r}, not {kind!r}", path=str(path)
        )
    data = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
    arrays = {}
    for name, entry in header["arrays"].items():
        arrays[name] = _array(path, data, start, name, entry, verify)
    return header, arrays


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
    return json.loads(text), -(-(_PREFIX.size + length) // ALIGNMENT) * ALIGNMENT


def _array(
    path: Path, data: npt.NDArray[Any], start: int, name: str, entry: dict[str, Any], verify: bool
) -> npt.NDArray[Any]:
    if entry["dtype"] not in _DTYPES:
        raise CorruptFileError(f"array {name!r} has type {entry['dtype']}", path=str(path))
    dtype = np.dtype(entry["dtype"])
    begin = start + entry["offset"]
    end = begin + dtype.itemsize * int(np.prod(entry["shape"], dtype=np.int64))
    if end > len(data):
        raise CorruptFileError(
            f"the file is cut short within array {name!r}", path=str(path), offset=len(data)
        )
    raw = data[begin:end]
    if verify and xxhash.xxh3_64_hexdigest(raw.data) != entry["xxh3"]:
        raise CorruptFileError(
            f"array {name!r} is damaged; restore the file from a snapshot or rebuild the index",
            path=str(path),
            offset=begin,
        )
    array: npt.NDArray[Any] = raw.view(dtype).reshape(entry["shape"])
    return array
