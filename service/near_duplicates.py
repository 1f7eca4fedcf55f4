"""Near-duplicates among points that come in: each is tested before it is stored.

    incoming ─┬─► nearest stored point ──────────┬─► the nearer, ≥ threshold ─► keep | link |
              └─► earlier ones of its request ───┘                              skip | reject

A point is tested against what was stored before it, and against those before it in its own request
that are stored (those that are skipped are not). Versions which the request replaces are none of
them: not the point's own, nor that of a later one of the request. So a request that is repeated,
since its answer was lost, is answered as it was. With `link` a point is no duplicate of one that is
linked to it, directly or through others: a file that is imported again makes no circles of links.
Requests with `on_duplicate` for one collection come one after the other, so that of two near ones
which come at once the second is found to be a duplicate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import orjson
from closeby.index import SetBatch
from closeby.index.duplicates import duplicate_pairs

from .errors import FieldError, NearDuplicateError, ValidationError
from .feature_keeping import require_features
from .inputs import PointBatch
from .shard import Search, Shard
from .store import Also, Durability

__all__ = ["LINK_FIELD", "POLICIES", "Duplicate", "Duplicates", "OnDuplicate", "upsert_tested"]

Policy = Literal["keep", "link", "skip", "reject"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
LINK_FIELD = "duplicate_of"
"""Field of the payload in which `link` notes what a point duplicates: {"id", "score"}."""
TARGET_RECALL = 0.9999
FIRST_LIMIT = 2
"""Stored points looked at first: the nearest may be the point's own former version."""
TOLD = 20
"""Duplicates named in the errors of a refused request."""


@dataclass(frozen=True, slots=True)
class OnDuplicate:
    """What becomes of points whose similarity to an earlier one is `threshold` at least.

    keep: stored, and told. link: stored with what they duplicate in their payload. skip: left out.
    reject: nothing of the request is stored.
    """

    policy: Policy
    threshold: float


class Duplicate(NamedTuple):
    """The point `id` is near the earlier point `duplicate_of`."""

    id: int | str
    duplicate_of: int | str
    score: float

    def as_json(self) -> dict[str, int | str | float]:
        """As it is told: the score is single precision, so no digits beyond that."""
        return self._asdict() | {"score": round(self.score, 7)}


@dataclass(frozen=True, slots=True)
class Duplicates:
    """How many points were stored, and which were duplicates, in the order of the request."""

    stored: int
    found: list[Duplicate]


def upsert_tested(
    shard: Shard,
    batch: PointBatch,
    wanted: OnDuplicate,
    durability: Durability,
    also: Callable[[Duplicates], Also] | None = None,
) -> Duplicates:
    """Store points, each tested first; `also` makes what is done in the same transaction.

    Raises NearDuplicateError if one is a duplicate and the policy is to reject, and what
    `Shard.upsert` raises; then nothing was stored.
    """
    require_features(shard, "a test for duplicates", "on_duplicate")
    if shard.metric == "ip":
        raise ValidationError.of(
            "on_duplicate", "is not for inner products, which say nothing of how alike points are"
        )
    if shard.featurizer.field == "sparse":
        raise ValidationError.of("on_duplicate", "is not for sparse vectors yet; leave it out")
    batch = _last_of_each(batch)
    # What is stored must be found by the next test, or it would be stored twice.
    durability = max(durability, Durability.INDEXED)
    with shard.testing:
        found = _find(shard, batch, wanted)
        if found and wanted.policy == "reject":
            raise _refusal(batch, found)
        batch = _as_stored(batch, found, wanted.policy)
        done = Duplicates(len(batch.ids), [found[row] for row in sorted(found)])
        if done.stored:
            shard.upsert(batch, durability, None if also is None else also(done))
    return done


def _find(shard: Shard, batch: PointBatch, wanted: OnDuplicate) -> dict[int, Duplicate]:
    """By position: what each duplicate of a batch is near to."""
    features = shard.features(batch.inputs)
    stored = _Stored(shard, batch, wanted).nearest()
    among: dict[int, list[tuple[int, float]]] = defaultdict(list)
    points = (features.indptr, features.indices) if isinstance(features, SetBatch) else features
    pairs = duplicate_pairs(
        points, wanted.threshold, target_recall=TARGET_RECALL, copies=len(batch.ids)
    )
    for block in pairs:
        for a, b, score in zip(*(part.tolist() for part in block), strict=True):
            among[b].append((a, score))
    found: dict[int, Duplicate] = {}
    for row, point in enumerate(batch.ids):
        near = [stored[row]] if row in stored else []
        near += [
            Duplicate(point, batch.ids[other], score)
            for other, score in sorted(among[row])
            if wanted.policy != "skip" or other not in found
        ]
        if near:
            # Of equally near ones the earliest.
            found[row] = max(near, key=lambda one: np.float32(one.score))
    return found


class _Stored:
    """What is stored, as far as the points of a batch may duplicate it."""

    def __init__(self, shard: Shard, batch: PointBatch, wanted: OnDuplicate) -> None:
        self._shard = shard
        self._batch = batch
        self._wanted = wanted
        self._row_of = {point: row for row, point in enumerate(batch.ids)}
        self._links: dict[int | str, int | str | None] = {}

    def nearest(self) -> dict[int, Duplicate]:
        """By position: the nearest stored point that each one may duplicate."""
        found: dict[int, Duplicate] = {}
        rows, limit = [*range(len(self._batch.ids))], FIRST_LIMIT
        while rows:
            # All shards of a cluster must say what they have.
            search = Search(
                limit, self._wanted.threshold, TARGET_RECALL, with_payload=False, strict=True
            )
            hits = self._shard.search([self._batch.inputs[row] for row in rows], search).hits
            more = []
            for row, near in zip(rows, hits, strict=True):
                hit = next((hit for hit in near if self._counts(hit.id, row)), None)
                if hit is None and self._wanted.policy == "skip" and len(near) < limit:
                    # What is skipped replaces nothing: a later one may stay what it is.
                    hit = next((hit for hit in near if hit.id != self._batch.ids[row]), None)
                if hit is not None:
                    found[row] = Duplicate(self._batch.ids[row], hit.id, hit.score)
                elif len(near) == limit:
                    more.append(row)
            rows, limit = more, 8 * limit
        return found

    def _counts(self, stored: int | str, row: int) -> bool:
        if stored in self._row_of:
            return self._wanted.policy == "skip" and self._row_of[stored] < row
        return self._wanted.policy != "link" or not self._leads_back(stored, row)

    def _leads_back(self, stored: int | str, row: int) -> bool:
        """Whether a stored point is linked to one that comes in at `row` or behind it."""
        seen = set()
        at: int | str | None = stored
        while at is not None and at not in seen:
            seen.add(at)
            at = self._link_of(at)
            if at in self._row_of:
                # Those before it have their links from this request, and none leads here.
                return self._row_of[at] >= row
        return False

    def _link_of(self, point: int | str) -> int | str | None:
        if point not in self._links:
            found, _ = self._shard.get([point])
            payload = orjson.loads(found[0].payload or b"{}") if found else {}
            link = payload.get(LINK_FIELD)
            target = link.get("id") if isinstance(link, dict) else None
            self._links[point] = target if isinstance(target, (int, str)) else None
        return self._links[point]


def _as_stored(batch: PointBatch, found: dict[int, Duplicate], policy: Policy) -> PointBatch:
    payloads = list(batch.payloads or [None] * len(batch.ids))
    rows = range(len(batch.ids))
    if policy == "skip":
        rows_kept = [row for row in rows if row not in found]
        return _rows_of(batch, rows_kept)
    if policy == "link":
        for row, duplicate in found.items():
            payload = orjson.loads(payloads[row] or b"{}")
            payload[LINK_FIELD] = {
                "id": duplicate.duplicate_of,
                "score": round(duplicate.score, 7),
            }
            payloads[row] = orjson.dumps(payload)
    return PointBatch(batch.ids, batch.inputs, payloads)


def _last_of_each(batch: PointBatch) -> PointBatch:
    """Of an id which is given twice the last point alone."""
    last = {point: row for row, point in enumerate(batch.ids)}
    return batch if len(last) == len(batch.ids) else _rows_of(batch, sorted(last.values()))


def _rows_of(batch: PointBatch, rows: list[int]) -> PointBatch:
    payloads = batch.payloads or [None] * len(batch.ids)
    return PointBatch(
        [batch.ids[row] for row in rows],
        [batch.inputs[row] for row in rows],
        [payloads[row] for row in rows],
    )


def _refusal(batch: PointBatch, found: dict[int, Duplicate]) -> NearDuplicateError:
    told = [
        FieldError(
            f"ids[{row}]",
            f"{found[row].id!r} is near {found[row].duplicate_of!r} (score {found[row].score:.4f})",
        )
        for row in sorted(found)[:TOLD]
    ]
    return NearDuplicateError(
        f"{len(found)} of {len(batch.ids)} points are near-duplicates; nothing was stored",
        errors=told,
    )
