"""What the log of the store holds, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import orjson

__all__ = [
    "CollectionRecord",
    "Durability",
    "Entry",
    "LogRow",
    "Op",
    "StoredPoint",
    "point_id",
    "point_key",
]


class Durability(IntEnum):
    """When a write is acknowledged.

    NONE      it is in the queue: lost if the process dies now
    INDEXED   it is committed and found by queries: lost if the machine fails within a second
    FSYNC     it is also on disk: never lost
    """

    NONE = 0
    INDEXED = 1
    FSYNC = 2


class Op(IntEnum):
    """What a log row does to its point."""

    PUT = 1
    DELETE = 2


class Entry(NamedTuple):
    """One row to append: a point's new version, or its deletion (`features` None).

    `point` is the id as canonical JSON, so that 5 and "5" differ; `features` comes from
    `features.encode_rows`; `source` is the raw input where features do not tell it; `payload`
    is compact JSON.
    """

    point: str
    op: Op
    features: bytes | None = None
    source: bytes | None = None
    payload: bytes | None = None


class LogRow(NamedTuple):
    """One row of the log as it is replayed."""

    seq: int
    point: str
    op: int
    features: bytes | None
    has_payload: bool


class StoredPoint(NamedTuple):
    """One version of a point as it is looked up."""

    seq: int
    point: str
    features: bytes | None
    source: bytes | None
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection as the store knows it; `created_at` is ISO 8601 in UTC."""

    id: int
    name: str
    config: dict[str, Any]
    created_at: str


def point_key(point: int | str) -> str:
    """A point id as canonical JSON text, so that 5 and "5" stay distinct."""
    return orjson.dumps(point).decode()


def point_id(key: str) -> int | str:
    """The inverse of `point_key`."""
    found: int | str = orjson.loads(key)
    return found
