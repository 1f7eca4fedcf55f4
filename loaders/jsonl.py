"""JSON objects, one a line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, get_args

import orjson

from .points import Field, PointBatch, Row, collect
from .report import Report, excerpt
from .source import Source
from .values import REFUSALS

FIELDS: tuple[Field, ...] = get_args(Field)


@dataclass(frozen=True, slots=True)
class Jsonl:
    """Each line is `{"id"?: …, "text": …, "payload"?: {…}, …}`.

    Instead of `text` it may have `sequence`, `set`, `vector` or `sparse`.

    field: which field makes the point; None takes the first of these that the first sound
        row has.
    key: the name that this field has in the file, if another one (`Jsonl("text", key="gloss")`).

    A row without an id has the number of its line (1-based) for one. Names that are none of
    these go into the payload. A row that is no object, lacks the field, or has a value of the
    wrong type there is a bad row.
    """

    name: ClassVar[str] = "jsonl"
    extensions: ClassVar[tuple[str, ...]] = ("jsonl", "ndjson", "jl")

    field: Field | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.field is None:
            raise ValueError("Jsonl(key=…) needs the field that it stands for")

    def recognises(self, head: bytes) -> bool:
        """Whether the first line is a JSON object."""
        return head.lstrip().startswith(b"{") and self.refusal(head) is None

    def refusal(self, head: bytes) -> str | None:
        """A reason if the first line is whole and no JSON object."""
        text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
        first, newline, _ = text.partition(b"\n")
        if not text or (not newline and first.startswith(b"{")):
            return None
        try:
            row = orjson.loads(first)
        except orjson.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            return None
        shown = excerpt(first.decode("utf-8", "replace"))
        return f"its first line is no JSON object: {shown}"

    def batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """The rows that hold a point."""
        objects = self._objects(source, report)
        field, key = self.field, self.key
        if field is None:
            for line, row in objects:
                field = next((name for name in FIELDS if name in row), None)
                if field is not None:
                    objects = chain([(line, row)], objects)
                    break
                report.reject(line, f"has none of the fields {', '.join(FIELDS)}")
            else:
                return
        rows = _rows(objects, field, key or field, report)
        yield from collect(rows, field, report, size, given_ids=True)

    def _objects(self, source: Source, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, raw in source.lines():
            if raw is None:
                report.reject(number, f"is longer than {source.limits.record} bytes")
                continue
            if not raw.strip():
                continue
            try:
                row = orjson.loads(raw)
            except orjson.JSONDecodeError as error:
                report.reject(number, f"is not JSON: {error}")
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                report.reject(number, "is JSON, but no object")


def _rows(
    objects: Iterator[tuple[int, dict[str, Any]]], field: Field, key: str, report: Report
) -> Iterator[Row]:
    check = REFUSALS[field]
    for line, row in objects:
        reason = check(row[key]) if key in row else "is not there"
        if reason is not None:
            report.reject(line, f"its {key!r} {reason}")
            continue
        value = row.pop(key)
        point_id = row.pop("id", line)
        payload = row.pop("payload", None)
        if isinstance(point_id, bool) or not isinstance(point_id, int | str):
            report.reject(line, "its 'id' is neither an integer nor a string")
        elif payload is not None and not isinstance(payload, dict):
            report.reject(line, "its 'payload' is no object")
        else:
            payload = {**row, **payload} if payload else row
            yield Row(line, point_id, value, payload or None)
