"""Arrow IPC files and streams, and Feather (version 2, which is an Arrow file)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from .columns import Columns, Table, use_plain_memory
from .errors import WrongFormatError
from .points import PointBatch
from .report import Report
from .source import Source

_FILE_MAGIC = b"ARROW1\0\0"
_STREAM_START = b"\xff\xff\xff\xff"
_SLICE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Arrow(Table):
    """Each row is a point; its number, from 0, or the column `id` is the id. See `Table`.

    Record batches are read one after the other; of a file (not a stream), those before `start_row`
    are not read at all where rows have no ids.
    """

    name: ClassVar[str] = "arrow"
    extensions: ClassVar[tuple[str, ...]] = ("arrow", "feather", "ipc", "arrows")

    def recognises(self, head: bytes) -> bool:
        """Whether the head begins with the magic bytes of a file."""
        return head.startswith(_FILE_MAGIC)

    def refusal(self, head: bytes) -> str | None:
        """A reason if it begins neither like a file nor like a stream."""
        if not head or head.startswith((_FILE_MAGIC, _STREAM_START)):
            return None
        if head.startswith(b"FEA1"):
            return "is Feather of version 1; write version 2"
        return "does not begin as Arrow does"

    def read(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """See `ConfinedFormat`."""
        import pyarrow as pa
        from pyarrow import ipc

        use_plain_memory()
        try:
            mapped: Any = pa.memory_map(str(source.path))
            file = source.head.startswith(_FILE_MAGIC)
            reader: Any = ipc.open_file(mapped) if file else ipc.open_stream(mapped)
            schema = reader.schema
        except (pa.ArrowException, OSError, ValueError) as error:
            first = str(error).split("\n", 1)[0]
            raise WrongFormatError(source.path, f"is no sound Arrow file: {first}") from error
        columns = self.chosen(source, schema)
        tables = _slices(_record_batches(reader, mapped, file=file), columns, source, report)
        return self._points(tables, columns, source, report, size)


def _record_batches(reader: Any, mapped: Any, *, file: bool) -> Iterator[tuple[float, Any]]:
    """Each record batch, with the share of the file that is read then."""
    if file:
        count = reader.num_record_batches
        for number in range(count):
            yield (number + 1) / count, reader.get_batch(number)
        return
    size = max(1, mapped.size())
    for batch in reader:
        yield mapped.tell() / size, batch


def _slices(
    batches: Iterator[tuple[float, Any]], columns: Columns, source: Source, report: Report
) -> Iterator[tuple[int, Any]]:
    """Parts of the record batches that are small enough to become Python values."""
    first = 0
    for share, batch in batches:
        names = columns.all
        if first + batch.num_rows < report.start_row:  # all its rows are before that one
            names = [] if columns.id is None else [columns.id]
        chosen = batch.select(names)
        for start in range(0, batch.num_rows if names else 0, _SLICE_ROWS):
            yield first + start, chosen.slice(start, _SLICE_ROWS)
        first += batch.num_rows
        source.bytes_read = int(source.bytes_total * share)
    source.bytes_read = source.bytes_total
