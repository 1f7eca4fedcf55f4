"""Batches of points, and the protocol that every file format follows to make them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import xxhash

from .errors import DamagedFileError, LoaderError
from .report import Report, excerpt
from .source import Source

PointId = int | str
Field = Literal["text", "sequence", "set", "vector", "sparse"]

MAX_ID_BYTES = 512
MAX_INT_ID = 2**63 - 1
BATCH_WEIGHT = 8 * 1024 * 1024  # characters or elements in one batch, unless one point has more


class Row(NamedTuple):
    """A row that may become a point; `line` (1-based) is where it begins.

    refusal: why it cannot become one, if that is known although its id is.
    """

    line: int
    id: PointId
    value: Any
    payload: dict[str, Any] | None
    refusal: str | None = None


@dataclass(slots=True)
class PointBatch:
    """Points in columns, all of one length and in the order of the file.

    ids: int in 0 .. 2**63-1, or str of 1 to 512 bytes as UTF-8.
    values: what the points have in the field `field`: str for "text" and "sequence", a list of
        int or of str for "set", a list of float for "vector", for "sparse" the two lists of one
        length {"indices": int in 0 .. 2**64-1, "values": finite float}, an index perhaps twice.
    payloads: a JSON object or None a point.
    lines: where each point begins in the file (1-based).
    """

    field: Field
    ids: list[PointId] = dataclasses.field(default_factory=list)
    values: list[Any] = dataclasses.field(default_factory=list)
    payloads: list[dict[str, Any] | None] = dataclasses.field(default_factory=list)
    lines: list[int] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def points(self) -> Iterator[dict[str, Any]]:
        """Each point as `{"id": …, <field>: …, "payload": …}`, without a payload if it has none."""
        for point_id, value, payload in zip(self.ids, self.values, self.payloads, strict=True):
            point = {"id": point_id, self.field: value}
            if payload is not None:
                point["payload"] = payload
            yield point


class Format(Protocol):
    """One file format. To add one, write such a class and name it in `detect.FORMATS`."""

    name: ClassVar[str]
    extensions: ClassVar[tuple[str, ...]]

    def recognises(self, head: bytes) -> bool:
        """Whether a file without a known extension that begins with `head` is of this format."""

    def refusal(self, head: bytes) -> str | None:
        """Why a file that begins with `head` cannot be of this format; None if it can."""

    def batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """The points of `source`, at most `size` in a batch; what cannot be one goes to `report`.

        Begins with the first row at or after `report.start_row`. Raises DamagedFileError,
        FileTooLargeError or OSError if the file cannot be read to its end, BadRowError for a bad
        row with `on_error="stop"`.
        """


def collect(
    rows: Iterable[Row], field: Field, report: Report, size: int, *, given_ids: bool
) -> Iterator[PointBatch]:
    """Rows to batches; an id that is unusable or was there before makes its row a bad one.

    Rows before `report.start_row` only make their ids known, so that a reading that goes on where
    another one ended finds the same points. With `given_ids` a hash of 8 bytes is kept for every
    id (about 70 bytes a point in a set). Ids that count lines cannot collide and cost nothing.
    """
    batch = PointBatch(field)
    weight = 0
    seen: set[int] = set()
    try:
        for line, point_id, value, payload, refusal in rows:
            reason = _id_refusal(point_id, seen) if given_ids else None
            if reason is not None or refusal is not None:
                report.reject(line, str(refusal or reason))
                continue
            if line < report.start_row:
                continue
            batch.ids.append(point_id)
            batch.values.append(value)
            batch.payloads.append(payload)
            batch.lines.append(line)
            report.points += 1
            weight += len(value["values"] if field == "sparse" else value)
            if len(batch) >= size or weight >= BATCH_WEIGHT:
                yield batch
                batch = PointBatch(field)
                weight = 0
    except LoaderError:
        # What comes before the damage comes first.
        if len(batch):
            yield batch
        raise
    if len(batch):
        yield batch


def or_damage(
    rows: Iterable[Row], report: Report, broken: tuple[type[Exception], ...]
) -> Iterator[Row]:
    """The rows; what a library says where a file breaks off becomes DamagedFileError."""
    line = report.start_row - 1
    try:
        for row in rows:
            line = row.line
            yield row
    except (LoaderError, MemoryError):
        raise
    except broken as error:
        first = str(error).strip().split("\n", 1)[0]
        reason = first[:200] or type(error).__name__
        raise DamagedFileError(report.path, line + 1, reason) from error


def _id_refusal(point_id: PointId, seen: set[int]) -> str | None:
    if isinstance(point_id, str):
        key = point_id.encode("utf-8")
        if not 1 <= len(key) <= MAX_ID_BYTES:
            return f"its id has {len(key)} bytes; 1 to {MAX_ID_BYTES} are allowed"
    elif not 0 <= point_id <= MAX_INT_ID:
        return f"its id {point_id} is not in 0 .. 2**63-1"
    else:
        key = b"\0" + point_id.to_bytes(8, "little")
    hashed = xxhash.xxh3_64_intdigest(key)
    if hashed in seen:
        return f"its id {excerpt(str(point_id))} is that of an earlier row"
    seen.add(hashed)
    return None
