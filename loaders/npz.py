"""Arrays in NumPy's .npz: matrices, sets in CSR form, MinHash sketches, scipy's sparse matrices."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .errors import FileTooLargeError, WrongFormatError
from .points import Field, PointBatch, PointId, Row, collect, or_damage
from .report import Report
from .source import Source
from .vectors import MAX_DIM, npy_header, rows_of_vectors

ELEMENTS = ("indices", "hashes", "elements")

_MAGIC = b"PK\x03\x04"
_NAME_AT = 30  # where the name of the first member begins in a zip file
_HEADER_BYTES = 12_000
_STEP_ROWS = 1024
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(ValueError, RuntimeError, OverflowError),  # NotImplementedError is a RuntimeError
)


@dataclass(frozen=True, slots=True)
class Npz:
    """Each row of what is in the archive is a point; the array `ids`, or its number from 0, the id.

    array: the matrix whose rows are `vector`s; None takes `vectors`, or the only matrix.
    values: whether the values of a sparse matrix count too: a point is then a `sparse` vector.

    With `indptr` and one of `indices`, `hashes` and `elements`, each row of the CSR form is a
    `set`: of a sparse matrix that scipy saved, the columns where it is not zero; of MinHash
    sketches, their hashes. Nothing is ever unpickled.
    """

    name: ClassVar[str] = "npz"
    extensions: ClassVar[tuple[str, ...]] = ("npz",)

    array: str | None = None
    values: bool = False

    def recognises(self, head: bytes) -> bool:
        """Whether the head begins as a zip file of arrays."""
        size = int.from_bytes(head[26:28], "little")
        return head.startswith(_MAGIC) and head[_NAME_AT : _NAME_AT + size].endswith(b".npy")

    def refusal(self, head: bytes) -> str | None:
        """A reason if the head is no zip file's."""
        return None if not head or head.startswith(_MAGIC) else "is no zip file of arrays"

    def batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """The rows that are finite, or sets that are not empty."""
        if not source.head:
            return iter(())
        if source.compression is not None:
            raise WrongFormatError(source.path, "npz is compressed in itself; decompress it first")
        try:
            with source.path.open("rb") as raw, zipfile.ZipFile(raw) as file:
                self._read(file, source, report)
        except _BROKEN as error:
            raise WrongFormatError(source.path, str(error)) from error
        return self._batches(source, report, size)

    def _batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        with source.path.open("rb") as raw, zipfile.ZipFile(raw) as file:
            field, rows, given_ids = self._read(file, source, report)
            sound = or_damage(rows, report, _BROKEN)
            yield from collect(sound, field, report, size, given_ids=given_ids)

    def _read(
        self, file: zipfile.ZipFile, source: Source, report: Report
    ) -> tuple[Field, Iterator[Row], bool]:
        """What the points are made of, the rows, and whether they have ids of their own."""
        archive = _Archive(file, source)
        field: Field
        if "indptr" in archive.names and self.array is None:
            field = "sparse" if self.values else "set"
            count, rows = _sets(archive, source, report, with_values=self.values)
        else:
            field, (count, rows) = "vector", _vectors(archive, self.array, source, report)
        if "ids" not in archive.names:
            return field, rows, False
        return field, _with_ids(rows, _ids(archive, count)), True


class _Archive:
    """The arrays of a file by name. Raises one of `_BROKEN`, or FileTooLargeError."""

    def __init__(self, file: zipfile.ZipFile, source: Source) -> None:
        self._zip = file
        members = file.infolist()
        if any(m.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for m in members):
            raise ValueError("is compressed by something else than deflate")
        self.names = {m.filename.removesuffix(".npy"): m for m in members}
        total = sum(m.file_size for m in members)
        if source.limits.total is not None and total > source.limits.total:
            raise FileTooLargeError(
                source.path, f"more than {source.limits.total} bytes once decompressed"
            )

    def column(self, name: str, kinds: str, dims: int) -> _Column:
        """An array of that many dimensions, of one of these kinds of NumPy's types."""
        if name not in self.names:
            raise ValueError(f"has no array {name!r}; it has {', '.join(sorted(self.names))}")
        member = self.names[name]
        column = _Column(self._zip.open(member), name, member.file_size)
        if column.dtype.kind not in kinds or len(column.shape) != dims:
            raise ValueError(f"its {name!r} is {column.dtype} of the shape {column.shape}")
        return column


class _Column:
    """One array, read row by row from its beginning."""

    def __init__(self, file: Any, name: str, size: int) -> None:
        self._file, self._name = file, name
        start, self.dtype, self.shape = npy_header(file.read(_HEADER_BYTES))
        file.seek(start)
        self._row = math.prod(self.shape[1:]) * self.dtype.itemsize
        if start + math.prod(self.shape) * self.dtype.itemsize != size:
            raise ValueError(f"its {name!r} has not the bytes that its shape says")

    def read(self, rows: int = 1) -> npt.NDArray[Any]:
        """The next rows."""
        data = self._file.read(rows * self._row)
        if len(data) < rows * self._row:
            raise EOFError(f"its {self._name!r} is truncated")
        return np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])

    def skip(self, rows: int) -> None:
        """Go over the next rows; in an array that is not compressed, without reading them."""
        self._file.seek(rows * self._row, 1)


def _vectors(
    archive: _Archive, named: str | None, source: Source, report: Report
) -> tuple[int, Iterator[Row]]:
    name = named or ("vectors" if "vectors" in archive.names else _only_matrix(archive))
    matrix = archive.column(name, "fiu", 2)
    count, dim = matrix.shape
    if dim > MAX_DIM:
        raise ValueError(f"its {name!r} has {dim} dimensions, of {MAX_DIM} at most")

    def numbered() -> Iterator[tuple[int, npt.NDArray[Any]]]:
        first = min(report.start_row - 1, count)
        matrix.skip(first)
        for at in range(first, count if dim else 0, _STEP_ROWS):
            yield from enumerate(matrix.read(min(_STEP_ROWS, count - at)), at + 1)
            source.bytes_read = source.bytes_total * min(count, at + _STEP_ROWS) // count

    return count, rows_of_vectors(numbered())


def _only_matrix(archive: _Archive) -> str:
    found = []
    for name in archive.names:
        try:
            archive.column(name, "fiu", 2)
        except ValueError:
            continue
        found.append(name)
    if len(found) != 1:
        raise ValueError(f"has {len(found)} matrices of numbers; name one with array=")
    return found[0]


def _sets(
    archive: _Archive, source: Source, report: Report, *, with_values: bool
) -> tuple[int, Iterator[Row]]:
    if "format" in archive.names:  # scipy.sparse.save_npz
        layout = archive.column("format", "SU", 0).read().tolist()[0]
        if layout not in (b"csr", "csr"):
            raise ValueError(f"is a sparse matrix by {layout!r}; save it as CSR")
    name = next((name for name in ELEMENTS if name in archive.names), ELEMENTS[0])
    elements = archive.column(name, "iu", 1)
    values = archive.column("data", "fiub", 1) if "data" in archive.names else None
    if values is None and with_values:
        raise ValueError("has no values; its rows are sets")
    if values is not None and values.shape != elements.shape:
        raise ValueError(f"has {values.shape[0]} values for {elements.shape[0]} {name}")
    indptr = archive.column("indptr", "iu", 1)
    if indptr.shape[0] < 1 or indptr.read().tolist() != [0]:
        raise ValueError("its 'indptr' does not begin with 0")
    return indptr.shape[0] - 1, _set_rows(
        indptr, elements, values, source, report, with_values=with_values
    )


def _set_rows(
    indptr: _Column,
    elements: _Column,
    values: _Column | None,
    source: Source,
    report: Report,
    *,
    with_values: bool,
) -> Iterator[Row]:
    rows, total = indptr.shape[0] - 1, elements.shape[0]
    start = 0
    for first in range(0, rows, _STEP_ROWS):
        for at, stop in enumerate(indptr.read(min(_STEP_ROWS, rows - first)).tolist(), first):
            count = stop - start
            if not 0 <= count <= total - start:
                raise EOFError(f"row {at + 1} has {count} elements")
            start = stop
            too_long = 8 * count > source.limits.record
            if at + 1 < report.start_row or too_long:
                elements.skip(count)
                if values is not None:
                    values.skip(count)
                refusal = f"is longer than {source.limits.record} bytes" if too_long else None
                yield Row(at + 1, at, None, None, refusal)
                continue
            found = elements.read(count)
            numbers = None
            if values is not None:
                numbers = values.read(count)
                found, numbers = found[numbers != 0], numbers[numbers != 0]
            refusal = _set_refusal(found)
            if not with_values or numbers is None:
                yield Row(at + 1, at, found.tolist(), None, refusal)
                continue
            if refusal is None and not np.isfinite(numbers).all():
                refusal = "has values that are not finite"
            numbers = numbers.astype(np.float64)
            sparse = {"indices": found.tolist(), "values": numbers.tolist()}
            yield Row(at + 1, at, sparse, None, refusal)
        source.bytes_read = source.bytes_total * min(rows, first + _STEP_ROWS) // rows
    if start != total:
        raise EOFError(f"{total - start} elements follow those of the last row")


def _set_refusal(elements: npt.NDArray[Any]) -> str | None:
    if not len(elements):
        return "is empty"
    return "has negative elements" if int(elements.min()) < 0 else None


def _ids(archive: _Archive, count: int) -> _Column:
    ids = archive.column("ids", "iuU", 1)
    if ids.shape[0] != count:
        raise ValueError(f"has {ids.shape[0]} ids for {count} rows")
    return ids


def _with_ids(rows: Iterator[Row], ids: _Column) -> Iterator[Row]:
    """The rows with the ids of their places, and before them those that were sought over."""
    place = 0
    for row in rows:
        while place < row.line:
            point_id: PointId = ids.read().tolist()[0]
            place += 1
            if place < row.line:
                yield Row(place, point_id, None, None)
        yield row._replace(id=point_id)
