"""What is asked of a shard and what it answers: hits with names, scores and payloads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .live import Versions
from .log_reader import LogReader
from .log_rows import point_id

__all__ = ["Answer", "Hit", "Search", "hits_of"]


class Hit(NamedTuple):
    """A neighbour: `score` is a similarity, higher is nearer; `payload` is compact JSON."""

    id: int | str
    score: float
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked of each query: `limit` hits at most, of `threshold` similarity at least."""

    limit: int = 10
    threshold: float | None = None
    target_recall: float | None = None
    with_payload: bool = True
    strict: bool = False
    """Rather no answer than one that misses a shard."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits of each query, best first, and the recall that the engine expects (None: unknown).

    `shards`: in a cluster, how many answered, and how many there are. `estimated`: scores are what
    sketches estimate.
    """

    hits: list[list[Hit]]
    recall_estimate: float | None
    shards: tuple[int, int] | None = None
    estimated: bool = False


def hits_of(
    seqs: np.ndarray[Any, Any],
    scores: np.ndarray[Any, Any],
    versions_of: Callable[[set[int]], Versions],
    log: LogReader,
    *,
    with_payload: bool,
) -> list[list[Hit]]:
    """The hits that engines found, by name: seqs int64 and scores float32 (q, limit).

    Raises StoreUnavailableError.
    """
    found = [
        [(seq, score) for seq, score in zip(*pair, strict=True) if seq >= 0]
        for pair in zip(seqs.tolist(), scores.tolist(), strict=True)
    ]
    names: dict[int, int | str | None] = {}
    gone: list[int] = []
    asked: list[int] = []
    versions = versions_of({seq for row in found for seq, _ in row})
    for seq, (point, has_payload) in versions.items():
        names[seq] = point
        if point is None:
            gone.append(seq)
        elif has_payload:
            asked.append(seq)
    # A version which was replaced or deleted after the search: its row tells whose it was.
    # Score and payload are both of that version, so the hit is old but never mixed.
    payloads: dict[int, bytes] = {}
    for seq, row in log.get(gone).items() if gone else ():
        names[seq] = point_id(row.point)
        if with_payload and row.payload is not None:
            payloads[seq] = row.payload
    if with_payload and asked:
        payloads |= log.get_payloads(asked)
    return [_name(row, names, payloads) for row in found]


def _name(
    row: list[tuple[int, float]],
    names: dict[int, int | str | None],
    payloads: dict[int, bytes],
) -> list[Hit]:
    """Hits of one query. Of two versions of one point only the newer is kept."""
    newest: dict[int | str, int] = {}
    for seq, _ in row:
        point = names[seq]
        if point is not None:
            newest[point] = max(seq, newest.get(point, 0))
    hits = []
    for seq, score in row:
        point = names[seq]
        if point is not None and newest[point] == seq:
            hits.append(Hit(point, score, payloads.get(seq)))
    return hits
