"""Features of one point, or its hashes, as bytes for the log, and back.

    row    := header body
    header := version u8 | kind u8 | sketch u16 | count u32 | check u32      little-endian
    body   := count elements: kind 1: uint32, kind 2: uint64 (a set, ascending),
                              kind 3: float32 (a vector), kind 4: uint32, then float32 (a sparse
                              vector: its dimensions, ascending, and behind them their values);
              kind 5, 6: count keys u16 or u32, a sketch of `sketch` bytes (0 in other kinds), and
                              sort keys u32 up to the end (`index.hashed`)
    check  := lower 32 bits of XXH3-64 of the body; of kinds 5 and 6 with the seed
              kind · 2^48 + sketch · 2^32 + count

A set is kept as uint32 where all elements of its batch fit. Every row is checked when it is read:
a damaged one raises StoreUnavailableError and never becomes a wrong neighbour.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from closeby.index import SetBatch, SparseBatch
from closeby.index.hashed import HashedBatch

from .errors import StoreUnavailableError, ValidationError

__all__ = ["Features", "Stored", "decode_features", "decode_rows", "encode_rows"]

Features = SetBatch | np.ndarray[Any, np.dtype[np.float32]]
"""Features of n points: sets or sparse vectors in CSR form, or vectors float32 (n, d)."""

Stored = Features | HashedBatch
"""What the log keeps of n points."""

VERSION = 1
_SET32, _SET64, _VECTOR, _SPARSE, _HASHED16, _HASHED32 = 1, 2, 3, 4, 5, 6
_HEADER = struct.Struct("<BBHII")
_DTYPES: dict[int, np.dtype[Any]] = {
    _SET32: np.dtype("<u4"),
    _SET64: np.dtype("<u8"),
    _VECTOR: np.dtype("<f4"),
    _SPARSE: np.dtype([("index", "<u4"), ("value", "<f4")]),  # their sizes; they do not alternate
}
_KEY_TYPES: dict[int, np.dtype[Any]] = {_HASHED16: np.dtype("<u2"), _HASHED32: np.dtype("<u4")}


def encode_rows(features: Stored) -> list[bytes]:
    """One bytes object for each row."""
    if isinstance(features, HashedBatch):
        return _hashed_rows(features)
    if isinstance(features, SparseBatch):
        return _sparse_rows(features)
    elements: np.ndarray[Any, np.dtype[Any]]
    if isinstance(features, SetBatch):
        elements = features.indices
        small = not len(elements) or int(elements.max()) <= 0xFFFFFFFF
        kind = _SET32 if small else _SET64
        bounds = features.indptr
    else:
        kind = _VECTOR
        elements = features.reshape(-1)
        bounds = np.arange(len(features) + 1) * features.shape[1]
    width = _DTYPES[kind].itemsize
    body = memoryview(elements.astype(_DTYPES[kind]).tobytes())
    stops = (bounds * width).tolist()
    pack, digest = _HEADER.pack, xxhash.xxh3_64_intdigest
    rows = []
    for start, stop in itertools.pairwise(stops):
        part = body[start:stop]
        check = digest(part) & 0xFFFFFFFF
        rows.append(b"".join((pack(VERSION, kind, 0, (stop - start) // width, check), part)))
    return rows


def _sparse_rows(vectors: SparseBatch) -> list[bytes]:
    indices = memoryview(vectors.indices.astype("<u4").tobytes())
    values = memoryview(vectors.values.astype("<f4").tobytes())
    rows = []
    for start, stop in itertools.pairwise(vectors.indptr.tolist()):
        body = b"".join((indices[4 * start : 4 * stop], values[4 * start : 4 * stop]))
        check = xxhash.xxh3_64_intdigest(body) & 0xFFFFFFFF
        rows.append(_HEADER.pack(VERSION, _SPARSE, 0, stop - start, check) + body)
    return rows


def _hashed_rows(points: HashedBatch) -> list[bytes]:
    _, tables, sketch_bytes, _ = points.widths
    kind = _HASHED16 if points.keys.dtype == np.uint16 else _HASHED32
    little = [points.keys.astype(_KEY_TYPES[kind]), points.sketches, points.order.astype("<u4")]
    joined = np.hstack([array.view(np.uint8).reshape(len(points), -1) for array in little])
    width = joined.shape[1]
    data = memoryview(joined.tobytes())
    digest, seed = xxhash.xxh3_64_intdigest, _seed(kind, sketch_bytes, tables)
    rows = []
    for start in range(0, width * len(points), width):
        body = data[start : start + width]
        check = digest(body, seed) & 0xFFFFFFFF
        rows.append(b"".join((_HEADER.pack(VERSION, kind, sketch_bytes, tables, check), body)))
    return rows


def _seed(kind: int, sketch_bytes: int, tables: int) -> int:
    """With what the body of a row of hashes is checked: nothing else tells where its parts end."""
    return kind << 48 | sketch_bytes << 32 | tables


def decode_features(rows: Sequence[bytes]) -> Features:
    """As `decode_rows`. Raises ValidationError if hashes are all that the rows keep."""
    stored = decode_rows(rows)
    if isinstance(stored, HashedBatch):
        raise ValidationError.of(
            "collection", "keeps no features of its points (store none), and they are needed"
        )
    return stored


def decode_rows(rows: Sequence[bytes]) -> Stored:
    """The inverse of `encode_rows`, for rows of one collection.

    Raises StoreUnavailableError if a row is not what `encode_rows` writes.
    """
    bodies: list[memoryview] = []
    kinds: list[int] = []
    counts: list[int] = []
    shapes: set[tuple[int, int, int, int]] = set()  # of rows of hashes
    digest = xxhash.xxh3_64_intdigest
    for position, row in enumerate(rows):
        if len(row) < _HEADER.size:
            raise _damaged(position, "shorter than its header")
        version, kind, sketch_bytes, count, check = _HEADER.unpack_from(row)
        if version != VERSION or (kind not in _DTYPES and kind not in _KEY_TYPES):
            raise _damaged(position, f"version {version}, kind {kind}")
        body = memoryview(row)[_HEADER.size :]
        seed = 0
        if kind in _KEY_TYPES:
            shapes.add((kind, count, sketch_bytes, len(body)))
            seed = _seed(kind, sketch_bytes, count)
        elif len(body) != count * _DTYPES[kind].itemsize:
            raise _damaged(position, f"{len(body)} bytes for {count} elements")
        if digest(body, seed) & 0xFFFFFFFF != check:
            raise _damaged(position, "the checksum does not match")
        bodies.append(body)
        kinds.append(kind)
        counts.append(count)
    present = set(kinds)
    if shapes:
        if len(shapes) > 1 or len(present) > 1:
            raise _damaged(0, "hashes and others, or hashes of several sizes, in one collection")
        return _hashed_batch(bodies, *shapes.pop())
    if _VECTOR in present:
        if len(present) > 1 or len(set(counts)) > 1:
            raise _damaged(0, "vectors of several kinds or dimensions in one collection")
        joined = np.frombuffer(b"".join(bodies), _DTYPES[_VECTOR])
        vectors: np.ndarray[Any, np.dtype[np.float32]] = joined.astype(np.float32)
        return vectors.reshape(len(rows), counts[0])
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    if _SPARSE in present:
        if len(present) > 1:
            raise _damaged(0, "sparse vectors and others in one collection")
        return _sparse_batch(indptr, bodies)
    if len(present) <= 1:
        dtype = _DTYPES[kinds[0] if kinds else _SET64]
        return SetBatch(indptr, np.frombuffer(b"".join(bodies), dtype).astype(np.uint64))
    # Batches of both widths in one chunk: rare enough to widen row by row.
    parts = [
        np.frombuffer(body, _DTYPES[kind]).astype(np.uint64)
        for body, kind in zip(bodies, kinds, strict=True)
    ]
    return SetBatch(indptr, np.concatenate(parts))


def _sparse_batch(indptr: np.ndarray[Any, Any], bodies: list[memoryview]) -> SparseBatch:
    halves = [len(body) // 2 for body in bodies]
    indices = b"".join(body[:half] for body, half in zip(bodies, halves, strict=True))
    values = b"".join(body[half:] for body, half in zip(bodies, halves, strict=True))
    return SparseBatch(
        indptr,
        np.frombuffer(indices, "<u4").astype(np.uint64),
        np.frombuffer(values, "<f4").astype(np.float32),
    )


def _hashed_batch(
    bodies: list[memoryview], kind: int, tables: int, sketch_bytes: int, width: int
) -> HashedBatch:
    key_type = _KEY_TYPES[kind]
    order_at = tables * key_type.itemsize + sketch_bytes
    if width < order_at or (width - order_at) % 4:
        raise _damaged(0, f"{width} bytes for {tables} keys and a sketch of {sketch_bytes}")
    joined = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), width)
    keys, sketches, order = np.split(joined, [order_at - sketch_bytes, order_at], axis=1)
    return HashedBatch(
        np.ascontiguousarray(keys).view(key_type).astype(key_type.newbyteorder("=")),
        np.ascontiguousarray(sketches),
        np.ascontiguousarray(order).view("<u4").astype(np.uint32),
    )


def _damaged(position: int, why: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"stored features are damaged (row {position} of a read): {why}")
