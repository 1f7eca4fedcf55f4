r"""FASTA and FASTQ, parsed by needletail.

needletail reads a path or a whole string, without a bound on a record and without a way to go on
after a bad one. So the lines are gathered here into whole records and these into blocks;
needletail parses each block, and only a block that it refuses is given to it again record by
record.

    lines ──▶ records ≤ Limits.record ──▶ blocks of about 1 MiB ──▶ needletail ──▶ rows
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from needletail import NeedletailError, parse_fastx_string

from .errors import LoaderError
from .points import PointBatch, Row, collect
from .report import Report, excerpt
from .source import Source

BLOCK_BYTES = 1024 * 1024

_FASTQ_HEAD = re.compile(rb"@[^\n]*\n(?![>@])[^\n]*(\n(\+|$)|$)")
_NOT_IN_SEQUENCES = re.compile(r"[^A-Za-z*.-]")
_PADDING = b" \t\r\n\xef\xbb\xbf"
_FASTQ_LINES = 4


class _Record(NamedTuple):
    """The bytes of one record; `line` (1-based) is its header's."""

    line: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Fasta:
    """Each record is the `sequence` of a point, letters as in the file (case is kept).

    ids: "name" takes the first word of the header as the id, and a name that an earlier
        record had makes a bad row; "position" counts the records of the file, from 0.

    What follows in the header is the payload `{"description": …}`; with "position" the payload
    has the `"name"` too. Qualities are left out. A record without sequence or name, with anything
    but letters, `*`, `-` and `.` in its sequence, or longer than the limit, is a bad row.
    """

    name: ClassVar[str] = "fasta"
    extensions: ClassVar[tuple[str, ...]] = (
        *("fasta", "fa", "fas", "fsa", "fna", "ffn", "faa", "frn"),
        *("fastq", "fq"),
    )

    ids: Literal["name", "position"] = "name"

    def recognises(self, head: bytes) -> bool:
        """Whether the head begins with a header line."""
        return bool(head.strip(_PADDING)) and self.refusal(head) is None

    def refusal(self, head: bytes) -> str | None:
        """A reason if the first line is neither a FASTA nor a FASTQ header."""
        text = head.lstrip(_PADDING)
        if not text or (text.startswith(b">") and b"\0" not in text):
            return None
        if _FASTQ_HEAD.match(text) and b"\0" not in text:
            return None
        shown = excerpt(text[:200].decode("utf-8", "replace"))
        return f"does not begin with a > or @ header line but with {shown}"

    def batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """The records that have a name and a sequence."""
        rows = self._rows(source, report)
        return collect(rows, "sequence", report, size, given_ids=self.ids == "name")

    def _rows(self, source: Source, report: Report) -> Iterator[Row]:
        fastq = source.head.lstrip(_PADDING).startswith(b"@")
        records = _fastq_records(source, report) if fastq else _fasta_records(source, report)
        for position, (line, header, sequence) in enumerate(_parsed(records, report)):
            name, _, description = header.replace("\t", " ").strip().partition(" ")
            reason = _row_refusal(name, header, sequence)
            if reason is not None:
                report.reject(line, reason)
                continue
            payload = {"name": name} if self.ids == "position" else {}
            if description.strip():
                payload["description"] = description.strip()
            point_id = name if self.ids == "name" else position
            yield Row(line, point_id, sequence, payload or None)


def _row_refusal(name: str, header: str, sequence: str) -> str | None:
    if not name:
        return "has no name"
    if "\ufffd" in header:
        return f"its header is not UTF-8: {excerpt(header)}"
    if not sequence:
        return f"record {excerpt(name)} is empty"
    # isalpha() first, since it settles nearly every sequence ten times faster than the search.
    if not (sequence.isascii() and sequence.isalpha()):
        strange = _NOT_IN_SEQUENCES.search(sequence)
        if strange is not None:
            return f"record {excerpt(name)} has {excerpt(strange.group())} in its sequence"
    return None


def _fasta_records(source: Source, report: Report) -> Iterator[_Record]:
    """From each > line to the next; a record over the limit goes to `report`."""
    limit = source.limits.record
    start, size = 0, 0
    parts: list[bytes] = []
    for number, line in source.lines():
        if line is None:
            size = limit + 1
        elif line.startswith(b">"):
            if start:
                yield from _finished(start, parts, size, limit, report)
            start, size = number, 0
            parts = []
        elif not start:
            continue  # blank lines before the first header
        if line is not None:
            size += len(line)
            if size <= limit:
                parts.append(line)
            else:
                parts.clear()
    if start:
        yield from _finished(start, parts, size, limit, report)


def _fastq_records(source: Source, report: Report) -> Iterator[_Record]:
    """Four lines each, from an @ line on; where none begins, lines are skipped to the next one."""
    limit = source.limits.record
    start, size = 0, 0
    parts: list[bytes] = []
    lost = False  # so that a stretch of strange lines is one bad row
    for number, line in source.lines():
        if not parts:
            if not line:
                continue
            if not line.startswith(b"@"):
                if not lost:
                    report.reject(number, "is no @ header line")
                lost = True
                continue
            start, size, lost = number, 0, False
        parts.append(b"" if line is None else line)
        size += limit + 1 if line is None else len(line)
        if len(parts) == _FASTQ_LINES:
            yield from _finished(start, parts, size, limit, report)
            parts = []
    if parts:
        yield from _finished(start, parts, size, limit, report)


def _finished(
    start: int, parts: list[bytes], size: int, limit: int, report: Report
) -> Iterator[_Record]:
    if size > limit:
        report.reject(start, f"is a record longer than {limit} bytes")
    else:
        # A header alone, with no line after it, is an error to needletail and an empty record here.
        yield _Record(start, b"\n".join(parts) + (b"\n" if len(parts) > 1 else b"\n\n"))


def _parsed(records: Iterator[_Record], report: Report) -> Iterator[tuple[int, str, str]]:
    """Line, header and sequence of each record; what needletail refuses goes to `report`."""
    for block in _blocks(records):
        lines = [record.line for record in block]
        try:
            parsed = _parse(b"".join(record.data for record in block))
        except NeedletailError:
            parsed = []
        if len(parsed) == len(block):
            for line, (header, sequence) in zip(lines, parsed, strict=True):
                yield line, header, sequence
            continue
        for record in block:
            try:
                parsed = _parse(record.data)
            except NeedletailError as error:
                report.reject(record.line, f"is no record: {error}")
                continue
            for header, sequence in parsed:
                yield record.line, header, sequence


def _blocks(records: Iterator[_Record]) -> Iterator[list[_Record]]:
    block: list[_Record] = []
    size = 0
    try:
        for record in records:
            block.append(record)
            size += len(record.data)
            if size >= BLOCK_BYTES:
                yield block
                block, size = [], 0
    except LoaderError:
        # What comes before the damage comes first.
        if block:
            yield block
        raise
    if block:
        yield block


def _parse(data: bytes) -> list[tuple[str, str]]:
    # Bytes that are not UTF-8 become U+FFFD, which neither a header nor a sequence may hold.
    text = data.decode("utf-8", "replace")
    return [(record.id, record.seq) for record in parse_fastx_string(text)]
