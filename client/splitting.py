"""Rows to requests: as many rows in each as its bounds allow, in order, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .inputs import Row
from .results import PointId

_ENVELOPE = 64  # bytes of a body that are no row: keys and brackets


@dataclass(frozen=True)
class Batching:
    """How large calls are cut into requests.

    ``points`` and ``queries`` bound the rows of one request, ``body_bytes`` its size (a single row
    above it goes alone), ``in_flight`` the requests under way at once. The server has limits of its
    own (10,000 points, 1,000 queries, 64 MiB unless configured); a body above them is halved.
    """

    points: int = 2_000
    queries: int = 200
    body_bytes: int = 8 << 20
    in_flight: int = 4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"batching.{name} must be an integer of at least 1, not {value!r}")


def split(rows: Iterable[Row], most_rows: int, most_bytes: int) -> Iterator[list[Row]]:
    """Cut ``rows`` greedily: each part as long as both bounds allow, no part empty."""
    part: list[Row] = []
    size = _ENVELOPE
    for row in rows:
        if part and (len(part) == most_rows or size + row.size > most_bytes):
            yield part
            part, size = [], _ENVELOPE
        part.append(row)
        size += row.size
    if part:
        yield part


def latest_by_id(part: list[Row]) -> dict[PointId | None, Row]:
    """The rows to send for a part of an upsert: of rows with one id, only the last."""
    return {row.id: row for row in part}


def upsert_body(column: str, rows: list[Row], options: bytes = b"{}") -> bytes:
    """The columnar body of an upsert; ``options`` is a JSON object of what all its rows share."""
    pieces = [b'{"ids":[', b",".join([row.id_json for row in rows])]
    pieces += [b'],"', column.encode(), b'":[', b",".join([row.input_json for row in rows])]
    if any(row.payload_json != b"null" for row in rows):
        pieces += [b'],"payloads":[', b",".join([row.payload_json for row in rows])]
    pieces.append(b"]}" if options == b"{}" else b"]," + options[1:])
    return b"".join(pieces)


def query_body(column: str, rows: list[Row], options: bytes) -> bytes:
    """The body of a batch query; ``options`` is a JSON object of what all its queries share."""
    inputs = b",".join([row.input_json for row in rows])
    return b'{"' + column.encode() + b'":[' + inputs + b"]," + options[1:]
