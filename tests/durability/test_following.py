"""What other processes write: found in order by the server, and by servers that only read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from closeby.index.batches import as_set_batch
from closeby.service import clearing as clearing_module
from closeby.service import following_shard as following_module
from closeby.service.encoding import encode_rows
from closeby.service.errors import DataDirError, ReadOnlyError, StoreUnavailableError
from closeby.service.following import Following
from closeby.service.following_shard import FollowingShard
from closeby.service.shard import PointBatch, Sealing, Search, Shard
from closeby.service.store import CollectionRecord, Entry, Op, Store, point_key

CONFIG: dict[str, Any] = {
    "metric": "jaccard",
    "features": {"kind": "ids"},
    "index": "flinng",
    "target_recall": 0.95,
    "threshold": 0.5,
    "seed": 0,
}


def elements(i: int) -> list[int]:
    return [i, i + 1, 2**40 + i]


def put(point: int, version: int) -> Entry:
    return Entry(point_key(point), Op.PUT, encode_rows(as_set_batch([elements(version)]))[0])


def delete(point: int) -> Entry:
    return Entry(point_key(point), Op.DELETE)


def fill(shard: Shard, start: int, stop: int) -> None:
    ids = list(range(start, stop))
    shard.upsert(PointBatch(ids, [elements(i) for i in ids]))


def nearest(shard: Shard, version: int) -> list[int | str]:
    hits = shard.search([elements(version)], Search(limit=1, threshold=0.99)).hits[0]
    return [hit.id for hit in hits]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open_directory(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def record(store: Store) -> CollectionRecord:
    return store.create_collection("a", CONFIG)


@pytest.fixture
def shard(store: Store, record: CollectionRecord, tmp_path: Path) -> Shard:
    opened = Shard(store, record, sealing=Sealing(tmp_path / "shards" / str(record.id), 16))
    opened.load()
    return opened


@pytest.fixture
def other(store: Store, tmp_path: Path) -> Iterator[Store]:
    """The store as another process has it: nothing is shared but the files."""
    opened = Store.open_directory(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def reader(shard: Shard, record: CollectionRecord, tmp_path: Path) -> Iterator[FollowingShard]:
    opened = Store.open_directory(tmp_path, read_only=True)
    sealing = Sealing(tmp_path / "shards" / str(record.id), 16)
    following = FollowingShard(opened, record, sealing=sealing)
    following.load()
    yield following
    opened.close()


# --- rows of other processes beside our own ------------------------------------------------------


def test_rows_of_others_are_applied_before_our_later_ones(
    shard: Shard, other: Store, record: CollectionRecord
) -> None:
    fill(shard, 0, 3)
    other.append(record.id, [put(1, 101), put(7, 107), delete(2)]).result()
    # Applied together with ours, which come later: so ours is the last version of 7.
    shard.upsert(PointBatch([7], [elements(207)]))
    assert [shard.get([i])[0][0].value for i in (0, 1, 7)] == [
        sorted(elements(v)) for v in (0, 101, 207)
    ]
    assert nearest(shard, 101) == [1]
    assert nearest(shard, 1) == nearest(shard, 107) == []
    assert shard.get([2]) == ([], [2])
    assert len(shard) == 3


def test_our_deletion_counts_what_others_put_before(
    shard: Shard, other: Store, record: CollectionRecord
) -> None:
    other.append(record.id, [put(5, 5)]).result()
    shard.catch_up()
    other.append(record.id, [delete(5)]).result()
    assert shard.delete([5]) == 0  # known when asked, gone when it was its turn
    assert len(shard) == 0


def test_caught_up_is_all_that_was_committed(
    shard: Shard, other: Store, record: CollectionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    from closeby.service import applying

    monkeypatch.setattr(applying, "FOLLOWED_CHUNK", 3)
    last = other.append(record.id, [put(i, i) for i in range(40)]).result() + 39
    assert len(shard) == 0
    shard.catch_up()
    assert shard.complete_seq == last
    assert len(shard) == 40
    assert nearest(shard, 39) == [39]
    # They are sealed like our own, and found again.
    while shard.seal() or shard.merge():
        pass
    assert shard.describe()["index_stats"]["sealed_segments"] == 1


def test_many_writers_leave_what_the_log_says(
    shard: Shard, tmp_path: Path, record: CollectionRecord, store: Store
) -> None:
    following = Following(store, lambda: [shard])
    following.start()

    def write(process: int) -> None:
        opened = Store.open_directory(tmp_path)
        for turn in range(30):
            rows = [put(i, 1000 * process + 10 * turn + i) for i in range(5)]
            opened.append(record.id, [*rows, delete(5 + turn % 3)]).result()
        opened.close()

    threads = [threading.Thread(target=write, args=(n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for turn in range(30):
        shard.upsert(PointBatch([*range(8)], [elements(9000 + 10 * turn + i) for i in range(8)]))
    for thread in threads:
        thread.join()
    shard.catch_up()
    following.stop()
    fresh = Shard(store, record)
    fresh.load()
    ids = [*range(8)]
    assert shard.get(ids) == fresh.get(ids)
    assert len(shard) == len(fresh)
    for point in fresh.get(ids)[0]:
        assert [hit.id for hit in shard.search([point.value], Search(limit=1)).hits[0]] == [
            hit.id for hit in fresh.search([point.value], Search(limit=1)).hits[0]
        ]


def test_a_log_that_cannot_be_read_now_is_applied_later(
    shard: Shard,
    store: Store,
    other: Store,
    record: CollectionRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other.append(record.id, [put(1, 1)]).result()
    with monkeypatch.context() as patch:

        def fail(*_: Any) -> Any:
            raise StoreUnavailableError("the store failed: busy")

        patch.setattr(store, "read", fail)
        with pytest.raises(StoreUnavailableError):
            fill(shard, 2, 3)
    assert shard.ready
    shard.catch_up()
    assert nearest(shard, 1) == [1]
    assert nearest(shard, 2) == [2]


def test_damaged_rows_of_others_are_a_fault_and_never_an_answer(
    shard: Shard, other: Store, record: CollectionRecord
) -> None:
    other.append(record.id, [put(1, 1)._replace(features=b"nonsense")]).result()
    shard.catch_up()
    assert not shard.ready
    assert "damaged" in (shard.fault or "")


# --- servers that only read ----------------------------------------------------------------------


def test_a_reader_follows_writes_seals_and_merges(shard: Shard, reader: FollowingShard) -> None:
    for start in range(0, 100, 20):
        fill(shard, start, start + 20)
        shard.delete([start + 1])
        shard.upsert(PointBatch([start + 2], [elements(1000 + start)]))
        while shard.seal() or shard.merge():
            pass
        reader.catch_up()
        reader.renew()
        ids = [*range(100)]
        assert reader.get(ids) == shard.get(ids)
        assert nearest(reader, 1000 + start) == [start + 2]
        assert nearest(reader, start + 1) == nearest(reader, start + 2) == []
        assert len(reader) == len(shard)
    # What the other process sealed is mapped, not held in memory.
    assert reader.describe()["index_stats"]["points"] == len(shard)
    assert reader._manifest.number > 0
    assert reader._contents.tail_rows < 5 * 16


def test_a_reader_that_is_late_misses_no_deletion(
    shard: Shard, reader: FollowingShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clearing_module, "LEAST_GARBAGE", 1)
    monkeypatch.setattr(clearing_module, "GRACE_SECONDS", 0.0)
    fill(shard, 0, 40)
    reader.catch_up()
    # Replaced, deleted, sealed, and the rows that say so removed, before the reader looks again.
    shard.upsert(PointBatch([*range(10)], [elements(500 + i) for i in range(10)]))
    shard.delete([*range(10, 20)])
    shard.seal_tail()
    while shard.seal() or shard.merge():
        pass
    shard.publish_marks()
    assert shard.clear_log(threading.Event())
    assert nearest(reader, 15) == [15]
    # What it knows is replaced, and the rows are gone: it notices, and begins again.
    found, missing = reader.get([3, 15])
    assert [point.value for point in found] == [sorted(elements(503))]
    assert missing == [15]
    reader.catch_up()
    assert len(reader) == len(shard) == 30
    assert nearest(reader, 15) == []
    assert nearest(reader, 503) == [3]


def test_a_reader_begins_while_files_are_superseded(
    shard: Shard, reader: FollowingShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(shard, 0, 32)
    shard.seal()
    opened = following_module.open_files

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(following_module, "open_files", opened)
        while shard.seal() or shard.merge():
            pass
        return opened(*arguments, **options)

    monkeypatch.setattr(following_module, "open_files", late)
    reader.load()
    assert len(reader) == 32
    assert reader.describe()["index_stats"]["points"] == 32


def test_a_reader_takes_no_writes(reader: FollowingShard) -> None:
    with pytest.raises(ReadOnlyError):
        fill(reader, 0, 1)
    assert not reader.seal()
    assert not reader.merge()


def test_there_must_be_something_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataDirError):
        Store.open_directory(tmp_path, read_only=True)
    with pytest.raises(DataDirError):
        Store.open_directory(tmp_path / "nothing", read_only=True)
    assert list(tmp_path.iterdir()) == []
