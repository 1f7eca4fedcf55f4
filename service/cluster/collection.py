"""A collection as the ingress of a cluster sees it: writes go to the log, queries to all shards."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import sqlalchemy as sa
from closeby.index import merge_topk
from closeby.service.contents import Contents
from closeby.service.encoding import Features, encode_rows
from closeby.service.engines import make_engine
from closeby.service.errors import NotReadyError, ShardUnavailableError
from closeby.service.hits import Answer, Search, hits_of
from closeby.service.inputs import Point, PointBatch
from closeby.service.live import Versions
from closeby.service.log_reader import Seen
from closeby.service.log_rows import CollectionRecord, Durability, Entry, Op, StoredPoint, point_key
from closeby.service.partitions import partition_of
from closeby.service.schema import log_table
from closeby.service.shard import Shard
from closeby.service.snapshots import Points
from closeby.service.store import Also, Store

from .fanout import Fanout
from .host import Alive, Described, Found
from .placement import Placement, files_key

__all__ = ["ClusterCollection", "ClusterState"]

PLACEMENT_TRIES = 5
"""How often shards are asked when they know a newer placement each time."""

RENEWED_SECONDS = 0.2
"""How often it is looked whether the shards have another engine."""

Shards = dict[str, frozenset[int]]
A = TypeVar("A", Found, Alive, Described)


class ClusterState:
    """What all collections of an ingress share. `deadline`: seconds that shards are given."""

    def __init__(
        self,
        fanout: Fanout,
        placement: Placement,
        refresh: Callable[[], Placement],
        deadline: float,
    ) -> None:
        self.fanout = fanout
        self.placement = placement
        self.deadline = deadline
        self._refresh = refresh

    def refresh(self) -> Placement:
        """The placement, read anew. Raises StoreUnavailableError."""
        self.placement = self._refresh()
        return self.placement


class ClusterCollection(Shard):
    """In the place of a `Shard`, whose featuriser and checks it uses; it holds no points itself.

    A write is acknowledged when the log has it, whether its shard is there or not. A query tells
    the shards how far they must have come, so what was written through this ingress is found.
    """

    def __init__(
        self, store: Store, record: CollectionRecord, state: ClusterState, max_set_elements: int
    ) -> None:
        super().__init__(store, record, max_set_elements=max_set_elements)
        self._state = state
        self._written_lock = threading.Lock()
        self._written = 0
        self.count = 0
        """Points, when the shards were asked last."""

    # --- state ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.count

    def count_now(self) -> int:
        """See `Shard.count_now`: the shards that answer are asked."""
        self.describe()
        return self.count

    @property
    def ready(self) -> bool:
        """A cluster takes writes always, and answers with the shards that are there."""
        return True

    @property
    def fault(self) -> str | None:
        """Faults are those of single shards."""
        return None

    def load(self, stop: threading.Event | None = None) -> None:
        """Nothing is to be loaded: the shards do it."""

    def seen(self, head: Seen) -> None:
        """Nothing: the shards follow the log."""

    def apply_seen(self) -> None:
        """Nothing: the shards follow the log."""

    def catch_up(self, *, throttled: bool = True) -> None:
        """Nothing: the shards follow the log."""

    def describe(self) -> dict[str, Any]:
        """Count, and what the engine of each shard says of itself; of those that answer."""

        def ask(shards: Shards) -> dict[str, Described]:
            asked = (self.record.id, self._written)
            return self._ask(dict.fromkeys(shards, asked), "describe")

        shards, answers = self._as_placed(ask)
        found = {name: answers[name].facts for name in sorted(answers)}
        self.count = sum(one["count"] for one in found.values())
        return {
            "count": self.count,
            "index_stats": {
                "shards": {name: one["index_stats"] for name, one in found.items()},
                "shards_answered": len(found),
                "shards_total": len(shards),
            },
        }

    # --- writing -------------------------------------------------------------------------------

    def upsert(
        self,
        batch: PointBatch,
        durability: Durability = Durability.FSYNC,
        also: Also | None = None,
    ) -> int:
        """See `Shard.upsert`; visible to the next query through this ingress."""
        if len(batch.ids) == 0:
            return 0
        entries, _, _ = self._inputs.entries(batch, self._contents.engine)
        self._append(entries, durability, also)
        return len(entries)

    def put_rows(self, entries: Sequence[Entry], durability: Durability) -> None:
        """See `Shard.put_rows`."""
        self._inputs.decoded(entries, self._contents.engine)
        self._append(entries, durability)

    def delete(self, ids: Sequence[int | str], durability: Durability = Durability.FSYNC) -> int:
        """See `Shard.delete`; of a shard that does not answer all `ids` are deleted, uncounted."""
        by_shard, known = self._live_seqs(list(dict.fromkeys(ids)))
        gone: list[int | str] = []
        count = 0
        for shard, mine in by_shard.items():
            alive = known[shard].seqs if shard in known else None
            there = mine if alive is None else [point for point in mine if point in alive]
            count += 0 if alive is None else len(there)
            gone += there
        if gone:
            self._append([Entry(point_key(point), Op.DELETE) for point in gone], durability)
        return count

    def _append(
        self, entries: Sequence[Entry], durability: Durability, also: Also | None = None
    ) -> None:
        # Always on PostgreSQL's disk: a shard may have read what PostgreSQL would lose.
        future = self._store.append(self.record.id, entries, self._note, durable=True, also=also)
        if durability != Durability.NONE:
            self._note(future.result() + len(entries) - 1)

    def _note(self, seq: int, _own_since: int = 0) -> None:
        with self._written_lock:
            self._written = max(self._written, seq)

    # --- reading -------------------------------------------------------------------------------

    def get(self, ids: Sequence[int | str]) -> tuple[list[Point], list[int | str]]:
        """See `Shard.get`. Raises ShardUnavailableError if a shard that may have one is missing."""
        wanted = list(dict.fromkeys(ids))
        by_shard, known = self._live_seqs(wanted)
        if missing := by_shard.keys() - known.keys():
            raise _unavailable(missing)
        seqs = {point: seq for alive in known.values() for point, seq in alive.seqs.items()}
        return self._inputs.stored(self._store, wanted, seqs)

    def unknown(self, ids: Sequence[int | str]) -> list[int | str]:
        """See `Shard.unknown`; raises as `get`."""
        by_shard, known = self._live_seqs(list(dict.fromkeys(ids)))
        if missing := by_shard.keys() - known.keys():
            raise _unavailable(missing)
        found = {point for alive in known.values() for point in alive.seqs}
        return [point for point in ids if point not in found]

    def search(self, inputs: Sequence[Any] | np.ndarray[Any, Any], wanted: Search) -> Answer:
        """See `Shard.search`. Raises ShardUnavailableError if none answers, or one if strict."""
        features = self._inputs.features(inputs, self._contents.engine)
        shards, found = self._found(encode_rows(features), wanted)
        if not found or (wanted.strict and len(found) < len(shards)):
            raise _unavailable(shards.keys() - found.keys())
        return self._merged([found[name] for name in sorted(found)], wanted, len(shards))

    def _found(self, rows: list[bytes], wanted: Search) -> tuple[Shards, dict[str, Found]]:
        """The shards, and what those that answer find for queries in rows."""

        def ask(shards: Shards) -> dict[str, Found]:
            asked = (self.record.id, rows, wanted, self._written)
            return self._ask(dict.fromkeys(shards, asked), "search")

        return self._as_placed(ask)

    def _merged(self, parts: list[Found], wanted: Search, total: int) -> Answer:
        versions: Versions = {}
        for part in parts:
            versions |= part.versions
        seqs, scores = merge_topk(_disjoint(parts), wanted.limit)

        def versions_of(asked: set[int]) -> Versions:
            return {seq: versions[seq] for seq in asked}

        hits = hits_of(seqs, scores, versions_of, self._store, with_payload=wanted.with_payload)
        known = [part.recall_estimate for part in parts if part.recall_estimate is not None]
        recall = min(known) if len(known) == len(parts) else None
        estimated = not self._inputs.keeps_features
        return Answer(hits, recall, (len(parts), total), estimated)

    @contextlib.contextmanager
    def points_now(self, *, indexed: bool = False) -> Iterator[Points]:  # noqa: ARG002
        """See `Shard.points_now`: read from the log alone, in one transaction; without an index."""
        with self._store.snapshot() as connection:
            latest = (
                sa.select(sa.func.max(log_table.c.seq))
                .where(log_table.c.collection == self.record.id)
                .group_by(log_table.c.point)
            )
            live = sa.select(log_table.c.seq).where(
                log_table.c.seq.in_(latest), log_table.c.op == Op.PUT
            )
            count = connection.execute(sa.select(sa.func.count()).select_from(live.subquery()))
            rows = connection.execution_options(yield_per=500).execute(
                sa.select(*(log_table.c[name] for name in StoredPoint._fields))
                .where(log_table.c.seq.in_(live))
                .order_by(log_table.c.seq)
            )
            yield Points(int(count.scalar_one()), (StoredPoint(*row) for row in rows))

    # --- shards --------------------------------------------------------------------------------

    def _live_seqs(
        self, ids: Sequence[int | str]
    ) -> tuple[dict[str, list[int | str]], dict[str, Alive]]:
        """`ids` by the shard that has them, and of each that answers which of them exist."""
        by_shard: dict[str, list[int | str]] = {}

        def ask(shards: Shards) -> dict[str, Alive]:
            owner = {partition: shard for shard, held in shards.items() for partition in held}
            by_shard.clear()
            for point in ids:
                by_shard.setdefault(owner[partition_of(point_key(point))], []).append(point)
            asked = {
                shard: (self.record.id, mine, self._written) for shard, mine in by_shard.items()
            }
            return self._ask(asked, "live_seqs")

        _, known = self._as_placed(ask)
        return by_shard, known

    def _as_placed(self, ask: Callable[[Shards], dict[str, A]]) -> tuple[Shards, dict[str, A]]:
        """The shards and what `ask` gives of them, by a placement that none of them is ahead of.

        Who is ahead may have given away what a shard has that was not asked.
        """
        for _ in range(PLACEMENT_TRIES):
            placement = self._state.placement
            answers = ask(placement.shards)
            if all(answer.epoch <= placement.epoch for answer in answers.values()):
                return placement.shards, answers
            self._state.refresh()
        raise ShardUnavailableError("the placement changes too quickly", retry_after=1)

    def _ask(self, asked: dict[str, tuple[Any, ...]], method: str) -> dict[str, Any]:
        return self._state.fanout.ask_each(asked, method, deadline=self._state.deadline)

    # --- jobs ------------------------------------------------------------------------------------

    def search_features(
        self, features: Features, wanted: Search
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """See `Shard.search_features`. Raises ShardUnavailableError if a shard does not answer."""
        shards, found = self._found(encode_rows(features), wanted)
        if len(found) < len(shards):
            raise _unavailable(shards.keys() - found.keys())
        return merge_topk(_disjoint([found[name] for name in sorted(found)]), wanted.limit)

    def recall_estimate(self, target_recall: float | None = None) -> float:
        """See `Shard.recall_estimate`: of all shards, each by its points; raises as `get`."""

        def ask(shards: Shards) -> dict[str, Described]:
            asked = (self.record.id, target_recall, self._written)
            return self._ask(dict.fromkeys(shards, asked), "recall_estimate")

        shards, answers = self._as_placed(ask)
        if len(answers) < len(shards):
            raise _unavailable(shards.keys() - answers.keys())
        facts = [answer.facts for answer in answers.values()]
        points = sum(one["points"] for one in facts)
        return sum(one["recall"] * one["points"] for one in facts) / points if points else 1.0

    def take_up(self, record: CollectionRecord) -> None:
        """Follow a configuration that was stored, by this ingress or another."""
        self._contents = Contents(make_engine(record.config, None))
        self.record = record

    def change_plan(self, config: dict[str, Any]) -> None:
        """See `Shard.change_plan`. Raises InvalidInputError."""
        make_engine(config, None)  # before it is stored
        self.take_up(self._store.change_config(self.record.id, config))

    def await_shards(self, stop: threading.Event) -> None:
        """Return when the shards answer by the configuration that there is.

        They make their contents anew from the log while they go on answering, each for itself.
        What `stop` raises ends the waiting alone. Raises StoreUnavailableError.
        """
        while not self._all_renewed():
            stop.is_set()
            time.sleep(RENEWED_SECONDS)
        self.last_evaluation = None

    def _all_renewed(self) -> bool:
        placement = self._state.refresh()
        number = self.record.id
        answers = self._state.fanout.ask(placement.shards, "status", deadline=self._state.deadline)
        return all(
            name in answers
            and answers[name].keys.get(number) == files_key(name, placement, self.record.config)
            for name in placement.shards
        )

    def _check_ready(self) -> None:
        """What is not overridden here is about points of its own, of which there are none."""
        raise NotReadyError("a cluster does not do this")


def _disjoint(parts: list[Found]) -> list[tuple[Any, Any]]:
    """Seqs and scores of each part, without seqs of an earlier one.

    While a partition moves, two shards hold it. The best of both together are among the best of
    each, so leaving out repeats loses nothing.
    """
    pairs = [(part.seqs, part.scores) for part in parts]
    for index in range(1, len(pairs)):
        seqs, scores = pairs[index]
        for query in range(len(seqs)):
            earlier = np.concatenate([before[0][query] for before in pairs[:index]])
            again = np.isin(seqs[query], earlier) & (seqs[query] >= 0)
            if again.any():
                kept_seqs, kept_scores = seqs.copy(), scores.copy()
                kept_seqs[query][again], kept_scores[query][again] = -1, np.nan
                seqs, scores = kept_seqs, kept_scores
        pairs[index] = (seqs, scores)
    return cast(list[tuple[Any, Any]], pairs)


def _unavailable(missing: Any) -> ShardUnavailableError:
    names = ", ".join(sorted(missing)) or "a shard"
    return ShardUnavailableError(f"{names} did not answer in time", retry_after=1)
