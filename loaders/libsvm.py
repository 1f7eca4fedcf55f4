"""LIBSVM (svmlight): a label and the non-zero features of a point on each line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from .points import Field, PointBatch, Row, collect
from .report import Report, excerpt
from .source import Source

_NUMBER = rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_FIRST_LINE = re.compile(
    rb"(%s(,%s)*)?(\s+qid:\d+)?(\s+\d+:%s)+\s*(#.*)?$" % (_NUMBER, _NUMBER, _NUMBER)
)
_HEAD_BYTES = 16 * 1024  # of the first line that the pattern is tried on


@dataclass(frozen=True, slots=True)
class Libsvm:
    """Each line is a point: the `set` of the features that are not zero; its number is the id.

    values: whether their values count too: a point is then a `sparse` vector.

    A line is `label index:value index:value … # comment`, with `qid:n` before the features at
    will. Label and query id go into the payload. Without `values` they say only what is not
    zero. A line without features, or that is not of this form, is a bad row; blank lines and
    comments are no rows.
    """

    name: ClassVar[str] = "libsvm"
    extensions: ClassVar[tuple[str, ...]] = ("libsvm", "svmlight", "svm")

    values: bool = False

    def recognises(self, head: bytes) -> bool:
        """Whether the first line is of this form."""
        return bool(_first_line(head)) and self.refusal(head) is None

    def refusal(self, head: bytes) -> str | None:
        """A reason if the first line that is no comment is not of this form."""
        first = _first_line(head)
        if not first or _FIRST_LINE.match(first):
            return None
        return f"its first line has no label and features: {excerpt(first.decode('latin-1'))}"

    def batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """The lines that have features."""
        field: Field = "sparse" if self.values else "set"
        return collect(self._rows(source, report), field, report, size, given_ids=False)

    def _rows(self, source: Source, report: Report) -> Iterator[Row]:
        for number, raw in source.lines():
            if number < report.start_row:
                continue
            if raw is None:
                report.reject(number, f"is longer than {source.limits.record} bytes")
                continue
            fields = raw.partition(b"#")[0].split()
            if not fields:
                continue
            try:
                payload, elements, values = _features(fields)
            except ValueError:
                shown = excerpt(raw.decode("latin-1"))
                report.reject(number, f"is no label with features: {shown}")
                continue
            refusal = None if elements else "has no feature that is not zero"
            found = {"indices": elements, "values": values} if self.values else elements
            yield Row(number, number, found, payload or None, refusal)


def _first_line(head: bytes) -> bytes:
    """The first whole line with features in the head, cut where it becomes long."""
    for line in head.split(b"\n"):
        text = line.removeprefix(b"\xef\xbb\xbf").strip()
        if text and not text.startswith(b"#"):
            if len(text) <= _HEAD_BYTES:
                return text
            return text[:_HEAD_BYTES].rpartition(b" ")[0]
    return b""


def _features(fields: list[bytes]) -> tuple[dict[str, Any], list[int], list[float]]:
    payload: dict[str, Any] = {}
    if b":" not in fields[0]:
        label = fields.pop(0).decode("ascii")
        for part in label.split(","):
            _finite(part)
        payload["label"] = label if "," in label else _finite(label)
    elements: list[int] = []
    values: list[float] = []
    for field in fields:
        name, colon, value = field.partition(b":")
        if name == b"qid":
            payload["qid"] = _index(value)
        elif not colon:
            raise ValueError
        elif (number := _finite(value)) != 0:
            elements.append(_index(name))
            values.append(number)
    return payload, elements, values


def _index(text: bytes) -> int:
    # int() takes signs and underscores too.
    if not text.isdigit() or len(text) > 20:
        raise ValueError
    number = int(text)
    if number >= 2**64:
        raise ValueError
    return number


def _finite(text: bytes | str) -> float:
    if ("_" if isinstance(text, str) else b"_") in text:  # type: ignore[operator]
        raise ValueError
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number
