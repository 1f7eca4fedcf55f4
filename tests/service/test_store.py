from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from closeby.service.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    DataDirError,
    LeaseLostError,
    StoreUnavailableError,
    TooManyRequestsError,
)
from closeby.service.partitions import PARTITIONS, partition_of
from closeby.service.store import Entry, Op, Store, point_id, point_key


def entry(point: int | str, payload: bytes | None = None) -> Entry:
    return Entry(point_key(point), Op.PUT, b"features", b"source", payload)


OpenStore = Callable[..., Store]


class Gate:
    """Holds the writer's thread inside `on_commit` until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, _first: int, _own_since: int) -> None:
        self.reached.set()
        assert self.open.wait(10)


@pytest.fixture
def collection(store: Store) -> int:
    return store.create_collection("a", {"any": "config"}).id


def held(store: Store, collection: int) -> Gate:
    """A gate at which the writer's thread waits, so that writes pile up behind it."""
    gate = Gate()
    store.append(collection, [entry("gate")], gate)
    assert gate.reached.wait(10)
    return gate


def points(store: Store, collection: int) -> list[int | str]:
    return [point_id(row.point) for rows in store.read_from(collection, 0) for row in rows]


def test_rows_come_back_in_order_and_survive_a_restart(open_store: OpenStore) -> None:
    store = open_store()
    a = store.create_collection("a", {"k": [1]}).id
    first = store.append(a, [entry(5, b"{}"), entry("5")]).result()
    second = store.append(a, [Entry(point_key(5), Op.DELETE)]).result()
    assert second == first + 2
    store.close()

    store = open_store()
    assert [(r.name, r.config) for r in store.list_collections()] == [("a", {"k": [1]})]
    rows = [row for chunk in store.read_from(a, 0, chunk=2) for row in chunk]
    assert [(point_id(r.point), r.op, r.features, r.has_payload) for r in rows] == [
        (5, Op.PUT, b"features", True),
        ("5", Op.PUT, b"features", False),
        (5, Op.DELETE, None, False),
    ]
    assert [r.seq for r in rows] == [first, first + 1, second]
    assert store.append(a, [entry(1)]).result() > second
    store.close()


def test_reading_goes_on_after_a_seq_and_keeps_collections_apart(store: Store) -> None:
    a, b = (store.create_collection(name, {}).id for name in "ab")
    for i in range(10):
        store.append(a, [entry(i)]).result()
        last = store.append(b, [entry(100 + i)]).result()
    chunks = list(store.read_from(b, last - 6, chunk=2))
    assert [[point_id(row.point) for row in chunk] for chunk in chunks] == [[107, 108], [109]]


def test_lookup_by_seq(store: Store, collection: int) -> None:
    many = [entry(i, b"%d" % i if i % 2 else None) for i in range(1200)]
    first = store.append(collection, many).result()
    seqs = [first + i for i in range(1200)]
    found = store.get([*seqs, 10**9])
    assert sorted(found) == seqs
    assert found[first + 3] == (first + 3, "3", b"features", b"source", b"3")
    assert store.get_payloads(seqs) == {first + i: b"%d" % i for i in range(1, 1200, 2)}
    assert store.get([]) == {}


def test_concurrent_writes_share_commits(store: Store, collection: int) -> None:
    gate = held(store, collection)
    futures = [store.append(collection, [entry(i)]) for i in range(50)]
    before = store.commits
    gate.open.set()
    seqs = [future.result(10) for future in futures]
    assert store.commits - before == 1
    assert seqs == sorted(seqs)
    assert points(store, collection) == ["gate", *range(50)]


def test_threads_that_wait_for_each_write_share_commits(store: Store, collection: int) -> None:
    def work(worker: int) -> None:
        for i in range(20):
            store.append(collection, [entry(worker * 100 + i)]).result(30)

    before = store.commits
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.commits - before < 160
    written = {worker * 100 + i for worker in range(8) for i in range(20)}
    assert {*points(store, collection)} == written


def test_a_write_that_cannot_be_done_fails_alone(store: Store, collection: int) -> None:
    gate = held(store, collection)
    good = store.append(collection, [entry(1)])
    no_op: Any = None
    bad = store.append(collection, [entry(2), Entry(point_key(0), no_op), entry(3)])
    also_good = store.append(collection, [entry(4)])
    gate.open.set()
    assert good.result(10) < also_good.result(10)
    with pytest.raises(StoreUnavailableError, match=r"(?i)not.null"):
        bad.result(10)
    assert points(store, collection) == ["gate", 1, 4]


def test_a_commit_that_fails_leaves_no_trace(
    store: Store, collection: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts: list[int] = []

    def called(first: int, _own_since: int) -> None:
        firsts.append(first)

    with monkeypatch.context() as patch:

        def fail(*_: Any) -> None:
            raise sa.exc.OperationalError("COMMIT", None, OSError("disk full"))

        patch.setattr(store._engine.dialect, "do_commit", fail)
        future = store.append(collection, [entry(1), entry(2)], called)
        with pytest.raises(StoreUnavailableError, match="disk full"):
            future.result(10)
    assert points(store, collection) == []
    assert firsts == []
    assert store.append(collection, [entry(3)], called).result(10) == firsts[0]
    assert points(store, collection) == [3]


def test_too_much_waiting_is_refused(open_store: OpenStore) -> None:
    store = open_store(max_queued_rows=10)
    collection = store.create_collection("a", {}).id
    gate = held(store, collection)
    waiting = store.append(collection, [entry(i) for i in range(8)])
    with pytest.raises(TooManyRequestsError) as refused:
        store.append(collection, [entry(i) for i in range(8)])
    assert refused.value.retry_after
    gate.open.set()
    waiting.result(10)
    # More than the bound passes through an empty queue: it could never be written otherwise.
    store.append(collection, [entry(i) for i in range(20)]).result(10)
    store.close()


def test_collections(store: Store) -> None:
    record = store.create_collection("b", {})
    store.create_collection("a", {})
    with pytest.raises(CollectionExistsError):
        store.create_collection("b", {})
    assert [r.name for r in store.list_collections()] == ["a", "b"]
    store.append(record.id, [entry(1)]).result()
    store.delete_collection(record.id)
    with pytest.raises(CollectionNotFoundError):
        store.delete_collection(record.id)
    with pytest.raises(CollectionNotFoundError):
        store.append(record.id, [entry(2)]).result(10)
    again = store.create_collection("b", {})
    assert again.id > record.id
    assert points(store, again.id) == []


def test_rows_of_a_deleted_collection_are_removed(store: Store, collection: int) -> None:
    store.append(collection, [entry(i) for i in range(6000)]).result()
    other = store.create_collection("other", {}).id
    store.append(other, [entry(1)]).result()
    store.delete_collection(collection)
    for _ in range(500):
        if store.count_rows(collection) == 0:
            break
        threading.Event().wait(0.01)
    assert store.count_rows(collection) == 0
    assert points(store, other) == [1]


def test_closing_finishes_what_is_queued(open_store: OpenStore) -> None:
    store = open_store()
    collection = store.create_collection("a", {}).id
    gate = held(store, collection)
    futures: list[Future[int]] = [store.append(collection, [entry(i)]) for i in range(5)]
    gate.open.set()
    store.close()
    assert all(future.done() for future in futures)
    with pytest.raises(StoreUnavailableError, match="closed"):
        store.append(collection, [entry(9)])


def test_a_store_of_another_version_is_refused(open_store: OpenStore) -> None:
    store = open_store()
    with store._engine.begin() as connection:
        connection.execute(sa.text("UPDATE meta SET value = '99'"))
    store.close()
    with pytest.raises(DataDirError, match="version 99"):
        open_store()


def test_a_file_which_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").write_bytes(b"not a database at all" * 100)
    with pytest.raises(DataDirError, match="not a database"):
        Store.open_directory(tmp_path)


def test_the_log_is_made_of_portable_types(store: Store) -> None:
    from closeby.service.schema import log_table
    from sqlalchemy.dialects import postgresql

    for table in log_table.metadata.sorted_tables:
        ddl = str(sa.schema.CreateTable(table).compile(dialect=postgresql.dialect()))
        assert "CREATE TABLE" in ddl
    insert = log_table.insert().compile(dialect=postgresql.dialect())
    assert not insert.dialect.positional


def test_a_store_of_the_first_schema_is_brought_up_to_date(open_store: OpenStore) -> None:
    store = open_store()
    collection = store.create_collection("a", {}).id
    store.append(collection, [entry(1)]).result()
    with store._engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE log DROP COLUMN partition"))
        connection.execute(sa.text("UPDATE meta SET value = '1' WHERE key = 'schema_version'"))
    store.close()

    store = open_store()
    store.append(collection, [entry(2)]).result()
    assert points(store, collection) == [1, 2]
    store.close()
    store = open_store()
    assert points(store, collection) == [1, 2]
    store.close()


@pytest.mark.cluster
def test_processes_that_start_at_once_make_one_schema(new_database: Callable[[], str]) -> None:
    open_store = partial(Store, new_database())
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: open_store(), range(4)))
    names = [store.create_collection(f"c{i}", {}).name for i, store in enumerate(stores)]
    assert [record.name for record in stores[0].list_collections()] == names
    for store in stores:
        store.close()


def test_a_store_may_read_some_partitions_alone(open_store: OpenStore) -> None:
    everything = open_store()
    collection = everything.create_collection("a", {}).id
    everything.append(collection, [entry(i) for i in range(500)]).result()
    some = [frozenset(range(PARTITIONS)[k::3]) for k in range(3)]
    parts = [open_store(partitions=mine) for mine in some]
    found = [points(part, collection) for part in parts]
    assert sorted(point for part in found for point in part) == list(range(500))
    for part, mine, got in zip(parts, some, found, strict=True):
        assert {partition_of(point_key(point)) for point in got} <= mine
        assert part.count_rows(collection) == len(got) > 100
        assert sum(map(len, part.seqs(collection, 0, 10**6))) == len(got)
    for part in parts:
        # A write may be of any partition, and a row is found by its seq wherever it belongs.
        first = part.append(collection, [entry(1000)]).result()
        assert part.get([first])[first].point == "1000"
    assert len(points(everything, collection)) == 503
    for store in (everything, *parts):
        store.close()


def test_several_processes_commit_in_the_order_of_their_seqs(open_store: OpenStore) -> None:
    """A reader that follows by "seq greater than the last one" misses nothing."""
    writers = [open_store() for _ in range(3)]
    reader = open_store()
    collection = reader.create_collection("a", {}).id

    def write(index: int) -> None:
        for i in range(40):
            writers[index].append(collection, [entry(index * 1000 + i)]).result(30)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    followed: list[int] = []
    deadline = time.monotonic() + 30
    while len(followed) < 120 and time.monotonic() < deadline:
        rows = reader.read(collection, followed[-1] if followed else 0, None, 1000)
        followed.extend(row.seq for row in rows)
    for thread in threads:
        thread.join()
    assert len(followed) == 120
    assert followed == sorted(followed)
    for store in (*writers, reader):
        store.close()


def test_what_goes_with_a_write_stands_or_falls_with_it(store: Store) -> None:
    collection = store.create_collection("c", {}).id

    def refuse(_connection: sa.Connection) -> None:
        raise LeaseLostError("not ours")

    kept: list[str] = []

    def note(_connection: sa.Connection) -> None:
        kept.append("noted")

    good = store.append(collection, [Entry("1", Op.PUT, b"")], also=note)
    bad = store.append(collection, [Entry("2", Op.PUT, b"")], also=refuse)
    other = store.append(collection, [Entry("3", Op.PUT, b"")])
    assert good.result() < other.result()
    with pytest.raises(LeaseLostError):
        bad.result()
    rows = [row.point for chunk in store.read_from(collection, 0) for row in chunk]
    assert rows == ["1", "3"]
    # Once, or once more when a write of the same group had to be separated.
    assert 1 <= len(kept) <= 2
