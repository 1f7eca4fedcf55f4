"""A shard against a dict with exact search, through seals, merges, restarts and crashes."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from closeby.index import FlinngIndex, SetBatch
from closeby.index.batches import as_set_batch
from closeby.service import clearing as clearing_module
from closeby.service import sealing as sealing_module
from closeby.service.encoding import encode_rows
from closeby.service.feature_keeping import without_features
from closeby.service.following_shard import FollowingShard
from closeby.service.shard import Point, PointBatch, Sealing, Search, Shard
from closeby.service.snapshots import Snapshots, read_rows, verify
from closeby.service.store import CollectionRecord, Durability, Entry, Op, Store, point_key
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

CONFIG: dict[str, Any] = {
    "metric": "jaccard",
    "features": {"kind": "ids"},
    "index": "flinng",
    "target_recall": 0.95,
    "threshold": 0.5,
    "seed": 0,
}
point_ids = st.one_of(st.integers(0, 30), st.sampled_from(["0", "1", "a", "ü", "x" * 300]))
small_sets = st.frozensets(st.integers(0, 12), min_size=1, max_size=5)
durabilities = st.sampled_from([Durability.FSYNC, Durability.INDEXED])
Model = dict[int | str, tuple[frozenset[int], bytes | None]]


class ShardMachine(RuleBasedStateMachine):
    """Segments of 4 points, so that a few steps fill several tiers."""

    segment_points = 4
    config = CONFIG

    @initialize()
    def start(self) -> None:
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.store = Store.open_directory(self.path)
        self.record = self.store.create_collection("a", self.config)
        self.model: Model = {}
        self.version = 0
        self.snapshots = Snapshots(self.path / "snapshots")
        self.taken: list[tuple[str, Model]] = []
        self.reader: FollowingShard | None = None
        self.open()

    def open(self) -> None:
        self.shard = Shard(self.store, self.record, sealing=self.sealing(self.record))
        self.shard.load()

    def sealing(self, record: CollectionRecord) -> Sealing:
        return Sealing(self.path / str(record.id), self.segment_points)

    @rule(
        points=st.lists(st.tuples(point_ids, small_sets, st.booleans()), max_size=9),
        durability=durabilities,
    )
    def upsert(
        self, points: list[tuple[int | str, frozenset[int], bool]], durability: Durability
    ) -> None:
        self.write(points, durability)

    def write(
        self, points: list[tuple[int | str, frozenset[int], bool]], durability: Durability
    ) -> None:
        payloads: list[bytes | None] = []
        for point, elements, has_payload in points:
            self.version += 1
            payload = b'{"v":%d}' % self.version if has_payload else None
            payloads.append(payload)
            self.model[point] = (elements, payload)
        batch = PointBatch([p for p, _, _ in points], [list(e) for _, e, _ in points], payloads)
        assert self.shard.upsert(batch, durability) == len({p for p, _, _ in points})

    @rule(
        points=st.lists(st.tuples(point_ids, small_sets, st.booleans()), min_size=5, max_size=12),
    )
    def upsert_many(self, points: list[tuple[int | str, frozenset[int], bool]]) -> None:
        self.write(points, Durability.FSYNC)

    @rule(seals=st.integers(1, 4))
    def seal_some_and_crash(self, seals: int) -> None:
        for _ in range(seals):
            self.shard.seal()
        self.crash()

    @rule(
        points=st.lists(st.tuples(point_ids, small_sets), min_size=1, max_size=9),
        deleted=st.lists(point_ids, max_size=3),
        own=st.one_of(st.none(), st.tuples(point_ids, small_sets, st.booleans())),
    )
    def another_process_writes(
        self,
        points: list[tuple[int | str, frozenset[int]]],
        deleted: list[int | str],
        own: tuple[int | str, frozenset[int], bool] | None,
    ) -> None:
        """Its rows are found before ours that follow, or when it is asked for them."""
        other = Store.open_directory(self.path)
        features = self.encoded(as_set_batch([sorted(elements) for _, elements in points]))
        rows = [
            Entry(point_key(point), Op.PUT, row)
            for (point, _), row in zip(points, features, strict=True)
        ]
        rows += [Entry(point_key(point), Op.DELETE) for point in deleted]
        other.append(self.record.id, rows).result()
        other.close()
        self.model.update({point: (elements, None) for point, elements in points})
        for point in deleted:
            self.model.pop(point, None)
        if own is None:
            self.shard.catch_up()
        else:
            self.write([own], Durability.FSYNC)

    def encoded(self, sets: SetBatch) -> list[bytes]:
        """Sets as the log keeps them."""
        return encode_rows(sets)

    @rule(anew=st.booleans())
    def read_elsewhere(self, anew: bool) -> None:
        """A server that only reads finds the same, however late it looks."""
        self.store.sync()
        if self.reader is None or self.reader.record != self.record:
            self.close_reader()
            self.reading = Store.open_directory(self.path, read_only=True)
            self.reader = FollowingShard(
                self.reading, self.record, sealing=self.sealing(self.record)
            )
            self.reader.load()
        elif anew:
            self.reader.load()
        self.reader.catch_up()
        self.check_points([*self.model, 0, "a"], self.reader)
        assert len(self.reader) == len(self.model)

    def close_reader(self) -> None:
        if self.reader is not None:
            self.reader = None
            self.reading.close()

    @rule()
    def take_snapshot(self) -> None:
        with self.shard.points_now() as points:
            info = self.snapshots.create("a", self.config, points)
        self.taken.append((info.name, dict(self.model)))

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        """In the place of what there is, as `Registry.restore` does it."""
        name, model = data.draw(st.sampled_from(self.taken))
        hidden = self.store.create_collection("~hidden", self.config)
        shard = Shard(self.store, hidden, sealing=self.sealing(hidden))
        shard.load()
        with self.snapshots.open("a", name) as file:
            assert verify(file)["config"] == self.config
            file.seek(0)
            for entries in read_rows(file):
                shard.put_rows(entries, Durability.INDEXED)
        self.shard.close()
        self.record = self.store.rename_collection(hidden.id, "a", self.record.id)
        shard.record = self.record
        self.shard, self.model = shard, dict(model)
        self.check_points([*self.model])

    @rule(seals=st.booleans())
    def die_while_building(self, seals: bool) -> None:
        """The files of a seal or a merge are there, but no manifest lists them yet."""

        class Died(BaseException):
            pass

        def die(*_: Any) -> None:
            raise Died

        sealer = self.shard._sealer
        assert sealer is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sealer._files, "publish", die)
            # Who is dead does not tidy up.
            patch.setattr(sealer._files, "may_list", lambda _: True)
            with contextlib.suppress(Died):
                if not (seals and self.shard.seal()):
                    self.shard.merge()
        self.crash()

    @rule(ids=st.lists(point_ids, min_size=1, max_size=8), durability=durabilities)
    def delete(self, ids: list[int | str], durability: Durability) -> None:
        present = {point for point in ids if point in self.model}
        assert self.shard.delete(ids, durability) == len(present)
        for point in present:
            del self.model[point]

    @rule(ids=st.lists(point_ids, min_size=1, max_size=6))
    def get(self, ids: list[int | str]) -> None:
        self.check_points(ids)

    @rule(query=small_sets, limit=st.integers(1, 6), threshold=st.sampled_from([None, 0.5]))
    def search(self, query: frozenset[int], limit: int, threshold: float | None) -> None:
        row = self.shard.search([list(query)], Search(limit=limit, threshold=threshold)).hits[0]
        exact = self.scores(query)
        for hit in row:
            assert hit.score == pytest.approx(exact[hit.id], abs=1e-6)
            assert hit.payload == self.model[hit.id][1]
        assert len({hit.id for hit in row}) == len(row) <= limit
        scores = [hit.score for hit in row]
        assert scores == sorted(scores, reverse=True)
        # Group tests promise near points only, and equal ones always.
        assert scores.count(1.0) == min([*exact.values()].count(1.0), limit)

    def scores(self, query: frozenset[int]) -> dict[int | str, float]:
        """What each point scores."""
        return {
            point: len(query & elements) / len(query | elements)
            for point, (elements, _) in self.model.items()
        }

    @rule()
    def seal(self) -> None:
        self.shard.seal()

    @rule()
    def merge(self) -> None:
        self.shard.merge()

    @rule()
    def publish_marks(self) -> None:
        self.shard.publish_marks()

    @rule()
    def clear_log(self) -> None:
        self.shard.clear_log(threading.Event())

    @rule()
    def settle(self) -> None:
        while self.shard.seal() or self.shard.merge():
            pass

    @rule()
    def restart(self) -> None:
        self.shard.seal_tail()
        self.store.close()
        self.store = Store.open_directory(self.path)
        self.open()

    @rule()
    def die(self) -> None:
        self.crash()

    def crash(self) -> None:
        """The process forgets everything; files are as they are."""
        self.store.sync()
        self.store.close()
        self.store = Store.open_directory(self.path)
        assert self.store.list_collections() == [self.record]
        self.open()
        self.check_points([*self.model])

    @rule()
    def lose_files(self) -> None:
        """The log is the truth: without its files a shard is the same."""
        self.store.sync()
        for file in self.sealing(self.record).directory.iterdir():
            file.unlink()
        self.open()
        self.check_points([*self.model])

    def check_points(self, ids: list[int | str], shard: Shard | None = None) -> None:
        found, missing = (shard or self.shard).get(ids)
        wanted = list(dict.fromkeys(ids))
        assert missing == [point for point in wanted if point not in self.model]
        assert [(p.id, frozenset(p.value), p.payload) for p in found] == [
            (point, *self.model[point]) for point in wanted if point in self.model
        ]

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "model"):
            assert len(self.shard) == len(self.model)
            assert self.shard.describe()["index_stats"]["points"] == len(self.model)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            if hasattr(self, "shard"):
                self.check_points([*self.model])
                self.close_reader()
            self.store.close()
            self.folder.cleanup()


@pytest.fixture(autouse=True)
def _everything_is_worth_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing_module, "SMALL_TAIL", 3)
    monkeypatch.setattr(clearing_module, "LEAST_GARBAGE", 1)
    monkeypatch.setattr(clearing_module, "GRACE_SECONDS", 0.0)


def _settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        # No shrinking: each step opens stores on disk, so it would take many minutes.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[*HealthCheck],
    )


TestShardMachine = ShardMachine.TestCase
TestShardMachine.settings = _settings(15, 30)


class LongShardMachine(ShardMachine):
    """The same with larger segments and more steps."""

    segment_points = 7


TestLongShardMachine = pytest.mark.slow(LongShardMachine.TestCase)
TestLongShardMachine.settings = _settings(25, 50)


class FlatShardMachine(ShardMachine):
    """The same with an engine that compares every point."""

    config = CONFIG | {"index": "flat"}


TestFlatShardMachine = FlatShardMachine.TestCase
TestFlatShardMachine.settings = _settings(5, 30)


class HashesMachine(ShardMachine):
    """The same where hashes are all that is kept: scores are those of sketches, at every moment."""

    config = without_features(CONFIG)
    twin = FlinngIndex(keep_features=False, scheme="permutations")

    def encoded(self, sets: SetBatch) -> list[bytes]:
        return encode_rows(self.twin.hashed(sets))

    def sketches(self, sets: list[frozenset[int]]) -> Any:
        return self.twin.hashed(as_set_batch([sorted(one) for one in sets])).sketches

    def scores(self, query: frozenset[int]) -> dict[int | str, float]:
        if not self.model:
            return {}
        stored = self.sketches([elements for elements, _ in self.model.values()])
        differing = np.bitwise_count(stored ^ self.sketches([query])).sum(axis=1)
        return dict(zip(self.model, (1 - 2 * differing / 512).clip(0).tolist(), strict=True))

    @rule(query=small_sets, limit=st.integers(1, 6))
    def search_as_if_nothing_had_happened(self, query: frozenset[int], limit: int) -> None:
        """Few points are all compared: the answer is the best of them, whatever came before."""
        answer = self.shard.search([list(query)], Search(limit=limit))
        best = sorted((score for score in self.scores(query).values() if score), reverse=True)
        assert answer.estimated
        assert [hit.score for hit in answer.hits[0]] == pytest.approx(best[:limit], abs=1e-6)

    def check_points(self, ids: list[int | str], shard: Shard | None = None) -> None:
        found, missing = (shard or self.shard).get(ids)
        wanted = list(dict.fromkeys(ids))
        assert missing == [point for point in wanted if point not in self.model]
        there = [point for point in wanted if point in self.model]
        assert found == [Point(point, None, self.model[point][1]) for point in there]
        if there:
            sets = [sorted(self.model[point][0]) for point in there]
            rows = (shard or self.shard).search(sets, Search(limit=100)).hits
            for point, row in zip(there, rows, strict=True):
                assert 1.0 in [hit.score for hit in row if hit.id == point]


TestHashesMachine = HashesMachine.TestCase
TestHashesMachine.settings = _settings(10, 30)


def test_keys_of_equal_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from closeby.service import points_file

    seqs = np.arange(5, 12)
    keys = [f'"{name}"' for name in "abcdefg"]
    names = points_file.Names.of(seqs, keys, [i % 2 == 0 for i in range(7)])
    monkeypatch.setattr(points_file.xxhash, "xxh3_64_intdigest", lambda _: 77)
    file = points_file.PointsFile.write(tmp_path / "p", seqs, [names])
    assert file.find(points_file.key_hashes(['"c"', '"x"']), ['"c"', '"x"']) == {'"c"': 7}
    assert file.find(points_file.key_hashes(keys), keys) == dict(
        zip(keys, range(5, 12), strict=True)
    )
    file.mark_dead(np.array([7, 99]))
    assert file.find(points_file.key_hashes(['"c"']), ['"c"']) == {}
    assert file.alive == 6
    assert [file.has_payload(i) for i in range(7)] == [i % 2 == 0 for i in range(7)]
