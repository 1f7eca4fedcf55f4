"""CSV and TSV with a header line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

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
    id: the column with the ids; without a column ``id``, or with None, the id is the number of the
        record's first line.
    payload: the columns that go into the payload, as strings; None takes all others.

    `.tsv` and `.tab` are split at tabs and know no quotes; `.csv` at commas, and a field in double
    quotes may hold commas, line ends and doubled quotes. A record with more or fewer fields than
    the header, without text, or not UTF-8 is a bad row.
    """

    name: ClassVar[str] = "csv"
    extensions: ClassVar[tuple[str, ...]] = ("csv", "tsv", "tab")

    column: str | None = None
    field: Literal["text", "sequence"] | None = None
    id: str | None = "id"
    payload: tuple[str, ...] | None = None

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
        lacking = [self._lacking(header) for header in known if header is not None]
        if None in lacking:
            return None
        wanted = lacking[-1] if lacking else self.column or "text or sequence"
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
        lacking = None if header is None else self._lacking(header)
        place = None if header is None else self._place(header)
        if header is None or place is None or lacking is not None:
            report.reject(
                first[0], f"is no header with a column {lacking or self.column or 'text'}"
            )
            return
        field = self.field or ("sequence" if header[place] == "sequence" else "text")
        places = self._places(header, place)
        rows = _rows(records, places, delimiter, report)
        yield from collect(rows, field, report, size, given_ids=places.id is not None)

    def _places(self, header: list[str], place: int) -> _Places:
        id_place = header.index(self.id) if self.id in header else None
        if self.payload is None:
            kept = [n for n in range(len(header)) if n not in (place, id_place)]
        else:
            kept = [header.index(name) for name in self.payload]
        return _Places(header, place, id_place, [(n, header[n]) for n in kept])

    def _lacking(self, header: list[str]) -> str | None:
        named = [*(() if self.id in (None, "id") else (self.id,)), *(self.payload or ())]
        if self._place(header) is None:
            return self.column or "text or sequence"
        return next((name for name in named if name not in header), None)

    def _place(self, header: list[str]) -> int | None:
        wanted = FIELDS if self.column is None else (self.column,)
        found = next((name for name in wanted if name in header), None)
        if found is not None:
            return header.index(found)
        return 0 if self.column is None and len(header) == 1 else None


class _Places(NamedTuple):
    """Where in a record things are; `payload` has numbers and names of fields."""

    header: list[str]
    value: int
    id: int | None
    payload: list[tuple[int, str]]


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
    places: _Places,
    delimiter: str,
    report: Report,
) -> Iterator[Row]:
    header, place = places.header, places.value
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
            payload: dict[str, Any] = {name: fields[number] for number, name in places.payload}
            point_id = line if places.id is None else fields[places.id]
            yield Row(line, point_id, fields[place], payload or None)
