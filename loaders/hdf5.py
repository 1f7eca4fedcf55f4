"""HDF5 in the layout of ann-benchmarks: `train`, `test`, `neighbors`, `distances`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .confinement import confined
from .errors import DamagedFileError, WrongFormatError
from .points import Field, PointBatch, Row, collect, or_damage
from .report import Report
from .source import Source
from .vectors import MAX_DIM, rows_of_vectors

MAX_ROWS = 2**40
_MAGIC = b"\x89HDF\r\n\x1a\n"
_READ_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Hdf5:
    """Each row of one dataset is a point; its number, from 0, is the id.

    dataset: which one, `train` unless given.

    Two layouts: a matrix of numbers, whose rows are `vector`s (or, of booleans, `set`s of the
    columns that are true); and, for Jaccard, a list of elements with the sizes of the sets in
    `size_train`. Datasets that lie in other files, by links, external storage or a virtual
    layout, are refused: a file may name any file of the machine.
    """

    name: ClassVar[str] = "hdf5"
    extensions: ClassVar[tuple[str, ...]] = ("hdf5", "h5", "hdf")
    package: ClassVar[str] = "h5py"

    dataset: str = "train"

    def recognises(self, head: bytes) -> bool:
        """Whether the head begins with the magic bytes."""
        return head.startswith(_MAGIC)

    def refusal(self, head: bytes) -> str | None:
        """A reason if the magic bytes are not there."""
        return None if not head or head.startswith(_MAGIC) else "does not begin as HDF5 does"

    def batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """The rows that are finite, or sets that are not empty."""
        return confined(self, source, report, size)

    def read(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """See `ConfinedFormat`."""
        import h5py

        try:
            file: Any = h5py.File(source.path, "r")
            values = _dataset(file, self.dataset)
            sizes = _dataset(file, f"size_{self.dataset}", optional=True)
            if sizes is None:
                _check_matrix(values)
            else:
                _check_sets(values, sizes)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            first = str(error).strip("'\"").split("\n", 1)[0]
            raise WrongFormatError(source.path, first) from error
        field: Field = "set"
        if sizes is not None:
            rows = _set_rows(values, sizes, source, report)
        elif values.dtype.kind == "b":
            rows = _flags(values, source, report)
        else:
            field = "vector"
            numbered = ((at + 1, row) for at, row in _matrix_rows(values, source, report))
            rows = rows_of_vectors(numbered)
        # h5py raises nearly anything, so no narrower class would do.
        sound = or_damage(rows, report, (Exception,))
        return collect(sound, field, report, size, given_ids=False)


def _dataset(file: Any, name: str, *, optional: bool = False) -> Any:
    """A dataset whose bytes lie in this file; ValueError says why it is none."""
    import h5py

    if file.get(name, getlink=True) is None:
        if optional:
            return None
        names = ", ".join(list(file)[:20])
        raise ValueError(f"has no dataset {name!r}; it has {names or 'none'}")
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"its {name!r} is a link to elsewhere")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"its {name!r} is no dataset")
    if found.is_virtual or found.external:
        raise ValueError(f"its {name!r} lies in other files")
    if found.dtype.kind not in "fiub":
        raise ValueError(f"its {name!r} holds {found.dtype}, not numbers")
    return found


def _check_matrix(values: Any) -> None:
    if len(values.shape) != 2 or values.shape[1] > MAX_DIM or values.shape[0] > MAX_ROWS:
        raise ValueError(f"its dataset has the shape {values.shape}, not (vectors, dimension)")


def _check_sets(values: Any, sizes: Any) -> None:
    if len(values.shape) != 1 or len(sizes.shape) != 1 or sizes.shape[0] > MAX_ROWS:
        raise ValueError("its elements and sizes are not one list each")
    if values.dtype.kind not in "iu" or sizes.dtype.kind not in "iu":
        raise ValueError("its elements or sizes are no integers")


def _matrix_rows(values: Any, source: Source, report: Report) -> Iterator[tuple[int, Any]]:
    """Each row with its number from 0, from `start_row` on."""
    rows, dim = values.shape
    step = max(1, _READ_BYTES // max(1, dim * values.dtype.itemsize))
    for first in range(report.start_row - 1, rows if dim else 0, step):
        block = values[first : first + step]
        yield from enumerate(block, first)
        source.bytes_read = source.bytes_total * (first + len(block)) // rows
    source.bytes_read = source.bytes_total


def _flags(values: Any, source: Source, report: Report) -> Iterator[Row]:
    for at, row in _matrix_rows(values, source, report):
        columns = np.flatnonzero(row).tolist()
        yield Row(at + 1, at, columns, None, None if columns else "is empty")


def _set_rows(values: Any, sizes: Any, source: Source, report: Report) -> Iterator[Row]:
    limit = source.limits.record
    at, number = 0, 0
    step = _READ_BYTES // 8
    held, held_from = np.zeros(0, values.dtype), 0
    for first in range(0, sizes.shape[0], step):
        for count in sizes[first : first + step].tolist():
            if not 0 <= count <= values.shape[0] - at:
                raise DamagedFileError(source.path, number + 1, f"a set of {count} elements")
            start, at, number = at, at + count, number + 1
            if number < report.start_row:
                continue
            if 8 * count > limit:
                yield Row(number, number - 1, None, None, f"is larger than {limit} bytes")
                continue
            if at > held_from + len(held) or start < held_from:
                held, held_from = values[start : max(at, start + step)], start
                source.bytes_read = source.bytes_total * at // max(1, values.shape[0])
            elements = held[start - held_from : at - held_from].tolist()
            yield Row(number, number - 1, elements, None, _set_refusal(elements))
    if at != values.shape[0]:
        raise DamagedFileError(source.path, number + 1, "more elements than the sizes say")
    source.bytes_read = source.bytes_total


def _set_refusal(elements: list[int]) -> str | None:
    if not elements:
        return "is empty"
    return None if min(elements) >= 0 else "has negative elements"
