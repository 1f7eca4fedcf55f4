from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from closeby.index.errors import InvalidInputError
from closeby.index.points import PointsView
from closeby.service.errors import CollectionNotFoundError, NotReadyError
from closeby.service.shard import PointBatch, Search, Shard
from closeby.service.store import Entry, Op, Store
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

IDS = {"kind": "ids"}
Config = Callable[..., dict[str, Any]]


def make(store: Store, config: dict[str, Any], name: str = "a") -> Shard:
    shard = Shard(store, store.create_collection(name, config))
    shard.load()
    return shard


def again(store: Store, shard: Shard) -> Shard:
    fresh = Shard(store, shard.record)
    fresh.load()
    return fresh


@pytest.fixture
def texts(store: Store, config: Config) -> Iterator[Shard]:
    return make(store, config({"kind": "shingles", "unit": "byte", "n": 4}))


def hits(shard: Shard, query: Any, **options: Any) -> list[tuple[int | str, float]]:
    answer = shard.search([query], Search(**options))
    return [(hit.id, round(hit.score, 6)) for hit in answer.hits[0]]


def test_a_point_is_found_at_once_and_gone_at_once(texts: Shard) -> None:
    assert texts.upsert(PointBatch([1, "1"], ["abcdefgh", "abcdefgx"], [b'{"n":1}', None])) == 2
    answer = texts.search(["abcdefgh"], Search())
    assert [(h.id, h.payload) for h in answer.hits[0]] == [(1, b'{"n":1}'), ("1", None)]
    assert answer.hits[0][0].score == 1
    assert answer.recall_estimate == 1
    assert texts.delete([1, 1, "none"]) == 1
    assert hits(texts, "abcdefgh") == [("1", round(4 / 6, 6))]
    assert texts.delete([1]) == 0


def test_an_overwritten_version_is_never_found(texts: Shard) -> None:
    texts.upsert(PointBatch([1], ["first version"], [b'{"v":1}']))
    texts.upsert(PointBatch([1], ["something else"], [b'{"v":2}']))
    assert hits(texts, "first version") == []
    assert texts.search(["something else"], Search()).hits[0][0].payload == b'{"v":2}'
    assert len(texts) == 1


def test_the_last_of_an_id_given_twice_wins(texts: Shard) -> None:
    batch = PointBatch([1, 2, 1], ["abcdefgh", "other", "stuvwxyz"], [b"{}", None, None])
    assert texts.upsert(batch) == 2
    assert [p.value for p in texts.get([1])[0]] == ["stuvwxyz"]
    assert texts.get([1])[0][0].payload is None
    assert hits(texts, "abcdefgh") == []


@pytest.mark.parametrize(
    ("features", "given", "kept"),
    [
        ({"kind": "shingles", "unit": "char", "n": 2}, "späße\x00 \U0001f600", None),
        ({"kind": "kmers", "k": 4, "canonical": True}, "ACGTACGTNN", None),
        ({"kind": "tokens"}, ["b", "a", "b"], None),
        ({"kind": "kmers", "alphabet": "protein", "k": 3}, "MKVLA", None),
        ({"kind": "ids", "counts": True}, [3, 1, 3, 2**64 - 1], None),
        ({"kind": "ngrams", "unit": "id", "n": 2}, [3, 1, 3], None),
        ({"kind": "ngrams", "unit": "token", "n": 2}, ["b", "a", "b"], None),
        ({"kind": "sketch"}, [9, 1, 9], [1, 9]),
        ({"kind": "sketch", "positions": True}, [9, 1, 9], None),
        ({"kind": "ids"}, [2**64 - 1, 3, 3], [3, 2**64 - 1]),
        ({"kind": "vector", "dim": 3}, [3.0, 0.5, 4], [3.0, 0.5, 4.0]),
    ],
)
def test_get_gives_the_input_back_also_after_a_restart(
    store: Store, config: Config, features: dict[str, Any], given: Any, kept: Any
) -> None:
    shard = make(store, config(features))
    shard.upsert(PointBatch(["x"], [given], [b'{"a":[1]}']))
    for each in (shard, again(store, shard)):
        found, missing = each.get(["y", "x", "x"])
        assert [tuple(point) for point in found] == [
            ("x", given if kept is None else kept, b'{"a":[1]}')
        ]
        assert missing == ["y"]


@pytest.mark.parametrize(
    ("features", "good", "bad"),
    [
        ({"kind": "shingles", "unit": "byte", "n": 4}, "text", ""),
        ({"kind": "shingles", "unit": "word", "n": 2}, "two words", "!?"),
        ({"kind": "kmers", "k": 4, "canonical": True}, "ACGT", "NNNNNN"),
        ({"kind": "ids"}, [1], []),
        ({"kind": "ids"}, [1], list(range(200))),
        ({"kind": "vector", "dim": 2}, [1.0, 0.0], [0.0, 0.0]),
        ({"kind": "vector", "dim": 2}, [1.0, 0.0], [1.0]),
        ({"kind": "vector", "dim": 2}, [1.0, 0.0], [1e300, 1.0]),
    ],
)
def test_one_bad_row_is_named_and_nothing_is_stored(
    store: Store, config: Config, features: dict[str, Any], good: Any, bad: Any
) -> None:
    shard = Shard(store, store.create_collection("a", config(features)), max_set_elements=100)
    shard.load()
    with pytest.raises(InvalidInputError) as refused:
        shard.upsert(PointBatch([1, 2, 3], [good, bad, good]))
    assert refused.value.row == 1
    assert len(shard) == 0
    assert store.count_rows(shard.record.id) == 0
    with pytest.raises(InvalidInputError):
        shard.search([bad], Search())


@pytest.mark.parametrize("index", ["flat", "flinng", "auto"])
@pytest.mark.parametrize("features", [IDS, {"kind": "vector", "dim": 8}])
def test_every_engine_finds_what_it_holds(
    store: Store, config: Config, index: str, features: dict[str, Any]
) -> None:
    shard = make(store, config(features, index=index, threshold=0.8))
    rng = np.random.default_rng(0)
    if features == IDS:
        inputs: Any = [rng.integers(0, 2**64, 20, np.uint64) for _ in range(300)]
    else:
        inputs = rng.normal(size=(300, 8)).astype(np.float32)
    shard.upsert(PointBatch(list(range(300)), inputs))
    shard.delete(list(range(0, 300, 3)))
    for each in (shard, again(store, shard)):
        answer = each.search(inputs, Search(limit=1, threshold=0.99))
        found = [[hit.id for hit in row] for row in answer.hits]
        assert found == [[] if i % 3 == 0 else [i] for i in range(300)]
    assert shard.describe()["count"] == 200


def test_a_point_replaced_between_search_and_lookup_is_never_mixed(texts: Shard) -> None:
    texts.upsert(PointBatch([1], ["old old old"], [b'{"v":"old"}']))
    search = texts.search_features

    def replaced_meanwhile(*arguments: Any) -> Any:
        found = search(*arguments)
        texts.upsert(PointBatch([1], ["new new new"], [b'{"v":"new"}']))
        return found

    texts.search_features = replaced_meanwhile  # type: ignore[method-assign]
    row = texts.search(["old old old"], Search()).hits[0]
    assert [(h.id, h.score, h.payload) for h in row] == [(1, 1.0, b'{"v":"old"}')]


def test_writes_of_many_threads_on_the_same_ids_end_as_the_log_says(
    store: Store, config: Config
) -> None:
    shard = make(store, config(IDS))

    def work(worker: int) -> None:
        rng = np.random.default_rng(worker)
        for turn in range(15):
            ids = rng.integers(0, 12, 4).tolist()
            if turn % 4 == 3:
                shard.delete(ids)
            else:
                shard.upsert(PointBatch(ids, [[worker * 1000 + turn, i + 10**6] for i in ids]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fresh = again(store, shard)
    everything = list(range(12))
    assert shard.get(everything) == fresh.get(everything)
    assert len(shard) == len(fresh) == shard.describe()["index_stats"]["points"]


def test_readers_see_whole_versions_while_writers_write(store: Store, config: Config) -> None:
    shard = make(store, config(IDS))
    shard.upsert(PointBatch([7], [[1, 2]], [b'{"v":0}']))
    stop = threading.Event()
    faults: list[Any] = []

    def read() -> None:
        while not stop.is_set():
            row = shard.search([[1, 2]], Search()).hits[0]
            if [(h.id, h.score) for h in row] != [(7, 1.0)] or row[0].payload is None:
                faults.append(row)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for version in range(60):
        shard.upsert(PointBatch([7, 8], [[1, 2], [5, 10 + version]], [b'{"v":%d}' % version, None]))
    stop.set()
    for reader in readers:
        reader.join()
    assert faults == []


@pytest.mark.parametrize("replacements", [1, 10])
def test_a_point_that_is_replaced_during_a_search_is_found(
    store: Store, config: Config, monkeypatch: pytest.MonkeyPatch, replacements: int
) -> None:
    shard = make(store, config(IDS))
    shard.upsert(PointBatch([7], [[1, 2]]))
    search = PointsView.search
    replaced = 0

    def late(view: PointsView, *asked: Any) -> Any:
        """What is searched was chosen; a new version comes, and the old one goes."""
        nonlocal replaced
        if replaced < replacements and not shard._applying.lock.locked():
            replaced += 1
            shard.upsert(PointBatch([7], [[1, 2]]))
        return search(view, *asked)

    monkeypatch.setattr(PointsView, "search", late)
    assert [hit.id for hit in shard.search([[1, 2]], Search()).hits[0]] == [7]
    assert replaced == min(replacements, 3)


def test_a_search_beside_new_points_runs_once(
    store: Store, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New points replace nothing: nothing can be missed, and a full ingest must not slow it."""
    shard = make(store, config(IDS))
    shard.upsert(PointBatch([7], [[1, 2]]))
    search = PointsView.search
    searches = 0

    def late(view: PointsView, *asked: Any) -> Any:
        nonlocal searches
        searches += 1
        assert not shard._applying.lock.locked()
        shard.upsert(PointBatch([100 + searches], [[3, 4]]))
        return search(view, *asked)

    monkeypatch.setattr(PointsView, "search", late)
    assert [hit.id for hit in shard.search([[1, 2]], Search()).hits[0]] == [7]
    assert searches == 1


def test_a_shard_is_not_ready_before_it_is_loaded(store: Store, config: Config) -> None:
    shard = Shard(store, store.create_collection("a", config(IDS)))
    assert not shard.ready
    with pytest.raises(NotReadyError, match="being loaded"):
        shard.search([[1]], Search())
    store.append(shard.record.id, [Entry("1", Op.DELETE)]).result()
    stop = threading.Event()
    stop.set()
    shard.load(stop)
    assert not shard.ready
    shard.load()
    assert shard.ready


def test_a_failed_engine_is_no_silent_loss(
    store: Store, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = make(store, config(IDS))

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("no memory")

    monkeypatch.setattr(shard._contents.engine, "add", fail)
    with pytest.raises(NotReadyError, match="stored"):
        shard.upsert(PointBatch([1], [[1]]))
    assert not shard.ready
    with pytest.raises(NotReadyError, match="no memory"):
        shard.search([[1]], Search())
    assert hits(again(store, shard), [1]) == [(1, 1.0)]


def test_a_deleted_collection_takes_no_writes(store: Store, config: Config) -> None:
    shard = make(store, config(IDS))
    store.delete_collection(shard.record.id)
    with pytest.raises(CollectionNotFoundError):
        shard.upsert(PointBatch([1], [[1]]))


point_ids = st.one_of(st.integers(0, 5), st.sampled_from(["0", "1", "a", "ü"]))
small_sets = st.frozensets(st.integers(0, 12), min_size=1, max_size=5)


class ShardAgainstDict(RuleBasedStateMachine):
    """A shard holds what a dict holds, and finds what exact search over the dict finds."""

    index = "flat"

    @initialize()
    def start(self) -> None:
        self.folder = TemporaryDirectory()
        self.store = Store.open_directory(Path(self.folder.name))
        config = {"metric": "jaccard", "features": IDS, "index": self.index}
        config |= {"target_recall": 0.95, "threshold": 0.5, "seed": 0}
        self.shard = make(self.store, config)
        self.model: dict[int | str, tuple[frozenset[int], bytes | None]] = {}
        self.version = 0

    @rule(points=st.lists(st.tuples(point_ids, small_sets, st.booleans()), max_size=6))
    def upsert(self, points: list[tuple[int | str, frozenset[int], bool]]) -> None:
        payloads: list[bytes | None] = []
        for point, elements, has_payload in points:
            self.version += 1
            payload = b'{"v":%d}' % self.version if has_payload else None
            payloads.append(payload)
            self.model[point] = (elements, payload)
        count = self.shard.upsert(
            PointBatch([p for p, _, _ in points], [list(e) for _, e, _ in points], payloads)
        )
        assert count == len({p for p, _, _ in points})

    @rule(ids=st.lists(point_ids, min_size=1, max_size=4))
    def delete(self, ids: list[int | str]) -> None:
        present = {point for point in ids if point in self.model}
        assert self.shard.delete(ids) == len(present)
        for point in present:
            del self.model[point]

    @rule(ids=st.lists(point_ids, min_size=1, max_size=6))
    def get(self, ids: list[int | str]) -> None:
        found, missing = self.shard.get(ids)
        wanted = list(dict.fromkeys(ids))
        assert missing == [point for point in wanted if point not in self.model]
        assert [(p.id, frozenset(p.value), p.payload) for p in found] == [
            (point, *self.model[point]) for point in wanted if point in self.model
        ]

    @rule(query=small_sets, limit=st.integers(1, 6), threshold=st.sampled_from([None, 0.3, 0.5]))
    def search(self, query: frozenset[int], limit: int, threshold: float | None) -> None:
        wanted = Search(limit=limit, threshold=threshold)
        row = self.shard.search([list(query)], wanted).hits[0]
        exact = {
            point: len(query & elements) / len(query | elements)
            for point, (elements, _) in self.model.items()
        }
        near = {p: s for p, s in exact.items() if s > 0 and s >= (threshold or 0) - 1e-6}
        assert len({hit.id for hit in row}) == len(row)
        for hit in row:
            assert hit.score == pytest.approx(exact[hit.id], abs=1e-6)
            assert hit.payload == self.model[hit.id][1]
        self.check_completeness([hit.score for hit in row], sorted(near.values())[::-1], limit)

    def check_completeness(self, found: list[float], exact: list[float], limit: int) -> None:
        assert found == pytest.approx(exact[:limit], abs=1e-6)

    @precondition(lambda self: self.version > 0)
    @rule()
    def restart(self) -> None:
        record = self.shard.record
        self.store.close()
        self.store = Store.open_directory(Path(self.folder.name))
        assert self.store.list_collections() == [record]
        self.shard = Shard(self.store, record)
        self.shard.load()

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "model"):
            assert len(self.shard) == len(self.model)
            assert self.shard.describe()["index_stats"]["points"] == len(self.model)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


class FlinngAgainstDict(ShardAgainstDict):
    """FLINNG promises near points only: equal ones are always found, others are right if found."""

    index = "flinng"

    def check_completeness(self, found: list[float], exact: list[float], limit: int) -> None:
        assert found == sorted(found, reverse=True)
        assert len(found) <= limit
        assert found.count(1.0) == min(exact.count(1.0), limit)


_often = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    # No shrinking: each step opens stores on disk, so it would take many minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
TestFlatShard = ShardAgainstDict.TestCase
TestFlatShard.settings = _often
TestFlinngShard = FlinngAgainstDict.TestCase
TestFlinngShard.settings = _often
