"""Dense vectors in binary files: NumPy's .npy, and .fvecs, .bvecs and .ivecs of TEXMEX."""

from __future__ import annotations

import ast
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .errors import DamagedFileError
from .points import PointBatch, Row, collect
from .report import Report
from .source import Source

MAX_DIM = 65_536
_MAGIC = b"\x93NUMPY"
_NUMBERS = "fiu"


@dataclass(frozen=True, slots=True)
class Npy:
    """Each row of a two-dimensional array of numbers is a `vector`; its number, from 0, the id.

    Rows with NaN or infinities are bad rows; the "line" of a row is its number from 1. The header
    is read as a literal and nothing is ever unpickled: arrays of objects are refused.
    """

    name: ClassVar[str] = "npy"
    extensions: ClassVar[tuple[str, ...]] = ("npy",)

    def recognises(self, head: bytes) -> bool:
        """Whether the head begins with NumPy's magic bytes."""
        return head.startswith(_MAGIC) and self.refusal(head) is None

    def refusal(self, head: bytes) -> str | None:
        """A reason if the header is none of a two-dimensional array of numbers in C order."""
        try:
            if head:
                _matrix_header(head)
        except ValueError as error:
            return str(error)
        return None

    def batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """The rows that are finite."""
        if not source.head:
            return
        start, dtype, (rows, dim) = _matrix_header(source.head)
        if rows * dim == 0:
            return
        records = _fixed_records(source, report, start, dim * dtype.itemsize, rows)
        vectors = ((number, np.frombuffer(raw, dtype)) for number, raw in records)
        yield from collect(rows_of_vectors(vectors), "vector", report, size, given_ids=False)


@dataclass(frozen=True, slots=True)
class Vecs:
    """Each record, a dimension and so many numbers, is a `vector`; its number, from 0, the id.

    float32 in `.fvecs`, uint8 in `.bvecs`, int32 in `.ivecs`, little-endian. All records must have
    the dimension of the first.
    """

    name: ClassVar[str] = "vecs"
    extensions: ClassVar[tuple[str, ...]] = ("fvecs", "bvecs", "ivecs")

    def recognises(self, head: bytes) -> bool:  # noqa: ARG002
        """Never: nothing in the file says what its numbers are."""
        return False

    def refusal(self, head: bytes) -> str | None:
        """A reason if the first dimension cannot be one."""
        if not head:
            return None
        if len(head) < 4:
            return "is shorter than its first dimension"
        (dim,) = struct.unpack("<i", head[:4])
        return None if 1 <= dim <= MAX_DIM else f"its first dimension is {dim}"

    def batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """The records that are finite."""
        if not source.head:
            return
        dtypes = {"bvecs": "<u1", "ivecs": "<i4"}
        dtype = np.dtype(dtypes.get(source.suffix, "<f4"))
        (dim,) = struct.unpack("<i", source.head[:4])

        def vectors() -> Iterator[tuple[int, npt.NDArray[Any]]]:
            for number, raw in _fixed_records(source, report, 0, 4 + dim * dtype.itemsize, None):
                if struct.unpack("<i", raw[:4]) != (dim,):
                    raise DamagedFileError(
                        source.path, number, f"a vector is not of dimension {dim} like the first"
                    )
                yield number, np.frombuffer(raw, dtype, offset=4)

        yield from collect(rows_of_vectors(vectors()), "vector", report, size, given_ids=False)


def rows_of_vectors(vectors: Iterator[tuple[int, npt.NDArray[Any]]]) -> Iterator[Row]:
    """Vectors with their numbers from 1 to rows; those that are not finite are bad ones."""
    for number, vector in vectors:
        values = vector.tolist()
        # A sum tells of NaN and infinity, or that a look at each is needed.
        if math.isfinite(sum(values)) or all(map(math.isfinite, values)):
            yield Row(number, number - 1, [float(value) for value in values], None)
        else:
            refusal = "has elements that are no finite numbers"
            yield Row(number, number - 1, None, None, refusal)


def npy_header(head: bytes) -> tuple[int, np.dtype[Any], tuple[int, ...]]:
    """Where the data begins, its type and shape; ValueError says what is wrong.

    Never an array of objects, which would have to be unpickled.
    """
    if not head.startswith(_MAGIC) or len(head) < 12:
        raise ValueError("does not begin as a NumPy array does")
    wide = head[6] >= 2
    (size,) = struct.unpack("<I" if wide else "<H", head[8 : 12 if wide else 10])
    start = (12 if wide else 10) + size
    if size > 10_000 or start > len(head):
        raise ValueError("its header is too long")
    try:
        header = ast.literal_eval(head[start - size : start].decode("latin-1").strip())
        descr, shape, fortran = header["descr"], header["shape"], header["fortran_order"]
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("its header is damaged") from error
    if not isinstance(descr, str):
        raise ValueError("holds records, not numbers")
    try:
        dtype = np.dtype(descr)
    except TypeError as error:
        raise ValueError("its header names no type") from error
    if dtype.hasobject:
        raise ValueError(f"holds {dtype.name}, not numbers")
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise ValueError(f"has the shape {shape!r}")
    if fortran and len(shape) > 1:
        raise ValueError("is laid out column by column; save it in C order")
    return start, dtype, shape


def _matrix_header(head: bytes) -> tuple[int, np.dtype[Any], tuple[int, int]]:
    start, dtype, shape = npy_header(head)
    if dtype.kind not in _NUMBERS:
        raise ValueError(f"holds {dtype.name}, not numbers")
    if len(shape) != 2 or shape[1] > MAX_DIM:
        raise ValueError(f"has the shape {shape!r}, not (vectors, dimension up to {MAX_DIM})")
    return start, dtype, (shape[0], shape[1])


def _fixed_records(
    source: Source, report: Report, start: int, size: int, rows: int | None
) -> Iterator[tuple[int, bytes]]:
    """Records of `size` bytes, the first of them at `start`, with their number from 1.

    Those before `report.start_row` are sought over.
    """
    held = bytearray()
    number = report.start_row - 1 if rows is None else min(report.start_row - 1, rows)
    for chunk in source.chunks(start + number * size):
        held += chunk
        at = 0
        while len(held) - at >= size and (rows is None or number < rows):
            number += 1
            yield number, bytes(held[at : at + size])
            at += size
        del held[:at]
        if rows is not None and number == rows and held:
            break
    if held and number == rows:
        raise DamagedFileError(source.path, number, "more bytes follow than its shape says")
    if held or (rows is not None and number < rows):
        raise DamagedFileError(source.path, number + 1, "the file is truncated")
