"""CSV and TSV with a header line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from .points import PointBatch, Row, collect
from .report import Report, excerpt
from .source import Source

FIELDS = ("text", "sequence")


@dataclass(frozen=True, slots=True)
class Delimited:
    """Each record is a point; the header line names the columns.

    column: the column that makes the point; None takes ``text`` or ``sequence``, whichever the
        header has, or the only column.
    field: what it is, ``"text"`` or ``"sequence"``; None goes by the column's name, else text.

    A column ``id`` has the ids; without it the id is the number of the record's first line. All
    other columns go into the payload, as strings. `.tsv` and `.tab` are split at tabs and know no
    quotes; `.csv` at commas, and a field in double quotes may hold commas, line ends and doubled
    quotes. A record with more or fewer fields than the header, without text, or not UTF-8 is a bad
    row.
    """

    name: ClassVar[str] = "csv"
    extensions: ClassVar[tuple[str, ...]] = ("csv", "tsv", "tab")

    column: str | None = None
    field: Literal["text", "sequence"] | None = None

    def recognises(self, head: bytes) -> bool:  # noqa: ARG002
        """Never: any text with commas could be CSV, so only a name or the caller can say it."""
        return False

    def refusal(self, head: bytes) -> str | None:
        """A reason if the head is binary, or its first line no header with the column."""
        if b"\0" in head:
            return "holds bytes that no text has"
        text = head.removeprefix(b"\xef\xbb\xbf")
        if not text:
            return None
        first = text.split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", "replace")
        known = [_fields(first, delimiter) for delimiter in ",\t"[: 1 + ("\t" in first)]]
        if any(header is not None and self._place(header) is not None for header in known):
            return None
        wanted = self.column or "text or sequence"
        return f"its header line has no column {wanted}: {excerpt(first)}"

    def batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """The records that have a text."""
        delimiter = "," if source.suffix == "csv" else "\t"
        if source.suffix not in self.extensions:
            delimiter = "\t" if b"\t" in source.head.split(b"\n", 1)[0] else ","
        records = _records(source, report, quoted=delimiter == ",")
        first = next(records, None)
        if first is None:
            return
        header = _fields(_text(first[1]) or "", delimiter)
        place = self._place(header) if header is not None else None
        if header is None or place is None:
            report.reject(first[0], f"is no header with a column {self.column or 'text'}")
            return
        field = self.field or ("sequence" if header[place] == "sequence" else "text")
        rows = _rows(records, header, place, delimiter, report)
        yield from collect(rows, field, report, size, given_ids="id" in header)

    def _place(self, header: list[str]) -> int | None:
        wanted = FIELDS if self.column is None else (self.column,)
        found = next((name for name in wanted if name in header), None)
        if found is not None:
            return header.index(found)
        return 0 if self.column is None and len(header) == 1 else None


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _fields(text: str, delimiter: str) -> list[str] | None:
    """The fields of one record; None if its quotes make no sense."""
    if delimiter == "\t":
        return text.split("\t")
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error:
        return None


def _records(source: Source, report: Report, *, quoted: bool) -> Iterator[tuple[int, bytes]]:
    """Each record with its first line; one with an open quote goes on in the next line."""
    start, size, quotes = 0, 0, 0
    parts: list[bytes] = []
    for number, line in source.lines():
        if line is None:
            report.reject(start or number, f"is longer than {source.limits.record} bytes")
            start, size, quotes, parts = 0, 0, 0, []
            continue
        if not start and not line.strip():
            continue
        start = start or number
        size += len(line) + 1
        quotes += line.count(b'"') if quoted else 0
        parts.append(line)
        if size > source.limits.record:
            report.reject(start, f"is longer than {source.limits.record} bytes")
        elif quotes % 2 == 0:
            yield start, b"\n".join(parts)
        else:
            continue
        start, size, quotes, parts = 0, 0, 0, []
    if parts:
        report.reject(start, "has a quote that is never closed")


def _rows(
    records: Iterator[tuple[int, bytes]],
    header: list[str],
    place: int,
    delimiter: str,
    report: Report,
) -> Iterator[Row]:
    id_place = header.index("id") if "id" in header else None
    for line, raw in records:
        text = _text(raw)
        fields = None if text is None else _fields(text, delimiter)
        if text is None:
            report.reject(line, f"is not UTF-8: {excerpt(raw.decode('latin-1'))}")
        elif fields is None:
            report.reject(line, f"has quotes that make no sense: {excerpt(text)}")
        elif len(fields) != len(header):
            report.reject(line, f"has {len(fields)} fields, and the header {len(header)}")
        elif not fields[place].strip():
            report.reject(line, f"its {header[place]!r} is empty")
        else:
            payload: dict[str, Any] = {
                name: value
                for number, (name, value) in enumerate(zip(header, fields, strict=True))
                if number not in (place, id_place)
            }
            point_id = line if id_place is None else fields[id_place]
            yield Row(line, point_id, fields[place], payload or None)
