"""Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from .columns import Columns, Table, use_plain_memory
from .errors import WrongFormatError
from .points import PointBatch
from .report import Report
from .source import Source

_MAGIC = b"PAR1"
_BUFFER_BYTES = 1024 * 1024
_FOOTER_STRINGS = 100 * 1024 * 1024  # bytes that the strings of a footer may hold
_FOOTER_ITEMS = 1_000_000


@dataclass(frozen=True, slots=True)
class Parquet(Table):
    """Each row is a point; its number, from 0, or the column `id` is the id. See `Table`.

    Row groups are read page by page; of those before `start_row` only the ids.
    """

    name: ClassVar[str] = "parquet"
    extensions: ClassVar[tuple[str, ...]] = ("parquet", "pq")

    def recognises(self, head: bytes) -> bool:
        """Whether the head begins with the magic bytes."""
        return head.startswith(_MAGIC)

    def refusal(self, head: bytes) -> str | None:
        """A reason if the magic bytes are not there."""
        if not head or head.startswith(_MAGIC):
            return None
        encrypted = head.startswith(b"PARE")
        return "is encrypted" if encrypted else "does not begin as Parquet does"

    def read(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """See `ConfinedFormat`."""
        import pyarrow as pa
        from pyarrow import parquet

        use_plain_memory()
        try:
            file: Any = parquet.ParquetFile(
                source.path,
                buffer_size=_BUFFER_BYTES,
                pre_buffer=False,
                thrift_string_size_limit=_FOOTER_STRINGS,
                thrift_container_size_limit=_FOOTER_ITEMS,
            )
            schema = file.schema_arrow
        except (pa.ArrowException, OSError, ValueError) as error:
            first = str(error).split("\n", 1)[0]
            raise WrongFormatError(source.path, f"is no sound Parquet file: {first}") from error
        columns = self.chosen(source, schema)
        tables = _tables(file, columns, source, report, size)
        return self._points(tables, columns, source, report, size)


def _tables(
    file: Any, columns: Columns, source: Source, report: Report, size: int
) -> Iterator[tuple[int, Any]]:
    rows = file.metadata.num_rows
    first = 0
    for group in range(file.num_row_groups):
        after = first + file.metadata.row_group(group).num_rows
        names = columns.all
        if after < report.start_row:  # all its rows are before that one
            names = [] if columns.id is None else [columns.id]
        if names:
            at = first
            for batch in file.iter_batches(size, [group], names, use_threads=False):
                yield at, batch
                at += batch.num_rows
                source.bytes_read = source.bytes_total * at // max(1, rows)
        first = after
    source.bytes_read = source.bytes_total
