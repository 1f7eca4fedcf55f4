"""Segments that workers build: the same answers, and nothing wrong however an order ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.index.abandon import abandonable
from closeby.index.errors import AbandonedError
from closeby.service import build_jobs, build_orders
from closeby.service.build_jobs import MERGE, SEAL
from closeby.service.build_orders import MERGE_KIND, SEAL_KIND, BuildOrders
from closeby.service.feature_keeping import without_features
from closeby.service.job_store import JobStore
from closeby.service.jobs import JobContext, JobRunner, Kind
from closeby.service.presence import Presence, forget_workers, workers_alive
from closeby.service.settings import Settings
from closeby.service.shard import PointBatch, Sealing, Search, Shard
from closeby.service.store import Store

NORMAL = {"target_recall": 0.95, "threshold": 0.5, "seed": 3}
SETS = {"metric": "jaccard", "features": {"kind": "ids"}}
VECTORS = {"metric": "cosine", "features": {"kind": "vector", "dim": 24}}
PRODUCTS = VECTORS | {"metric": "ip"}
SPARSE = {"metric": "cosine", "features": {"kind": "sparse", "dim": 300}, "threshold": 0.9}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open_directory(tmp_path)
    yield opened
    opened.close()


@contextmanager
def worker(tmp_path: Path, *kinds: Kind, lease: float = 5.0) -> Iterator[None]:
    """What builds segments in a worker process, with a store of its own."""
    own = Store.open_directory(tmp_path)
    runner = JobRunner(
        own,
        Settings(data_dir=tmp_path, job_lease=max(1.0, lease)),
        lambda: {kind.name: kind for kind in kinds or (SEAL, MERGE)},
        tmp_path / "jobs",
        owner="worker:here:1:a",
        threads=2,
        idle=0.01,
    )
    presence = Presence(own, "worker:here:1:a")
    runner.start()
    presence.start()
    deadline = time.monotonic() + 10
    while not workers_alive(own):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield
    finally:
        presence.stop()
        runner.stop()
        own.close()


def shard_of(store: Store, tmp_path: Path, config: dict[str, Any], **options: Any) -> Shard:
    whole = NORMAL | config
    record = store.create_collection(f"c{time.time_ns()}", whole)
    shard = Shard(
        store, record, sealing=Sealing(tmp_path / "shards" / str(record.id), 64, **options)
    )
    shard.load()
    return shard


def points(config: dict[str, Any], count: int) -> list[Any]:
    rng = np.random.default_rng(5)
    if config["metric"] == "jaccard":
        return [rng.integers(0, 1 << 40, 12).tolist() for _ in range(count)]
    if config["features"]["kind"] == "sparse":
        rows = [np.sort(rng.choice(300, 12, replace=False)) for _ in range(count)]
        return [{"indices": row, "values": rng.normal(size=12)} for row in rows]
    return rng.normal(size=(count, 24)).astype(np.float32).tolist()


def fill(shard: Shard, inputs: list[Any]) -> None:
    """Points of which some are deleted or replaced, before and after they are sealed."""
    for start in range(0, len(inputs), 40):
        ids = list(range(start, min(start + 40, len(inputs))))
        payloads = [b'{"n":%d}' % i if i % 3 else None for i in ids]
        shard.upsert(PointBatch(ids, [inputs[i] for i in ids], payloads))
        shard.delete([start + 1, start // 2])
        shard.upsert(PointBatch([start // 3], [inputs[-1]]))
        settle(shard)


def settle(shard: Shard) -> None:
    while shard.seal() or shard.merge():
        pass


def answers(shard: Shard, inputs: list[Any]) -> list[list[tuple[Any, float, Any]]]:
    found = shard.search(inputs, Search(limit=5, target_recall=0.9999)).hits
    return [[(hit.id, round(hit.score, 5), hit.payload) for hit in hits] for hits in found]


@pytest.mark.parametrize(
    "config",
    [
        SETS | {"index": "flinng"},
        SETS | {"index": "lsh"},
        SETS | {"index": "flat"},
        VECTORS | {"index": "flinng", "threshold": 0.9},
        PRODUCTS | {"index": "maxip"},
        SPARSE | {"index": "flinng"},
        SPARSE | {"metric": "ip", "index": "flat"},
        *(
            without_features(NORMAL | config)
            for config in (
                SETS | {"index": "flinng"},
                SETS | {"index": "lsh"},
                VECTORS | {"index": "flinng", "threshold": 0.9},
                SPARSE | {"index": "lsh"},
            )
        ),
    ],
    ids=[
        *("flinng-sets", "lsh-sets", "flat-sets", "flinng-vectors", "maxip"),
        *("flinng-sparse", "flat-sparse"),
        *("flinng-set-hashes", "lsh-set-hashes", "flinng-vector-hashes", "lsh-sparse-hashes"),
    ],
)
def test_what_a_worker_builds_answers_as_what_the_server_builds(
    store: Store, tmp_path: Path, config: dict[str, Any]
) -> None:
    inputs = points(config, 260)
    orders = BuildOrders(store, tmp_path / "jobs")
    here = shard_of(store, tmp_path, config)
    fill(here, inputs)
    ordered = shard_of(store, tmp_path, config, builder=orders)
    with worker(tmp_path):
        fill(ordered, inputs)
    assert orders.taken > 3
    assert orders.given_up == 0
    assert len(ordered) == len(here)
    wanted = answers(here, inputs)
    assert answers(ordered, inputs) == wanted
    again = Shard(store, ordered.record, sealing=Sealing(here_folder(ordered), 64))
    again.load()
    assert again.progress.total < 200, "the files were not found again"
    assert answers(again, inputs) == wanted
    assert JobStore(store).ids() == set()
    assert list((tmp_path / "jobs").iterdir()) == []


def here_folder(shard: Shard) -> Path:
    assert shard._sealing is not None
    return shard._sealing.directory


def test_a_segment_of_which_most_is_dead_is_built_without_the_dead(
    store: Store, tmp_path: Path
) -> None:
    inputs = points(SETS, 128)
    orders = BuildOrders(store, tmp_path / "jobs")
    shard = shard_of(store, tmp_path, SETS | {"index": "flinng"}, builder=orders)
    shard.upsert(PointBatch(list(range(128)), inputs))
    with worker(tmp_path):
        settle(shard)
        before = orders.taken
        shard.delete(list(range(100)))
        assert shard.merge()
        assert not shard.merge()
        assert orders.taken == before + 1
        assert len(shard._contents.engine) == 28
        shard.delete(list(range(100, 128)))
        # Nothing is left of it, so there is nothing to take.
        assert shard.merge()
        assert not shard.merge()
    assert answers(shard, inputs) == [[]] * 128


def test_points_that_die_while_a_worker_builds_are_dead_in_what_is_taken(
    store: Store, tmp_path: Path
) -> None:
    inputs = points(SETS, 64)
    building, go_on = threading.Event(), threading.Event()

    def slowly(context: JobContext) -> dict[str, Any]:
        result = SEAL.run(context)
        building.set()
        assert go_on.wait(20)
        return result

    orders = BuildOrders(store, tmp_path / "jobs")
    shard = shard_of(store, tmp_path, SETS | {"index": "lsh"}, builder=orders)
    shard.upsert(PointBatch(list(range(64)), inputs))
    with worker(tmp_path, Kind(SEAL_KIND, "anywhere", slowly, keeps_files=True)):
        thread = threading.Thread(target=shard.seal)
        thread.start()
        assert building.wait(20)
        shard.delete([1, 2])
        shard.upsert(PointBatch([3], [inputs[4]]))
        go_on.set()
        thread.join()
    assert orders.taken == 1
    again = Shard(store, shard.record, sealing=Sealing(here_folder(shard), 64))
    again.load()
    for one in (shard, again):
        assert len(one) == 62
        found = answers(one, [inputs[i] for i in (1, 2, 3)])
        assert [[hit for hit in hits if hit[1] == 1.0] for hits in found] == [[], [], []]
        assert {hit[0] for hit in answers(one, [inputs[4]])[0] if hit[1] == 1.0} == {3, 4}


def seal_one(store: Store, tmp_path: Path, orders: BuildOrders) -> float:
    """Seconds that a seal takes; what it sealed must be right."""
    inputs = points(SETS, 64)
    shard = shard_of(store, tmp_path, SETS | {"index": "flinng"}, builder=orders)
    shard.upsert(PointBatch(list(range(64)), inputs))
    start = time.monotonic()
    assert shard.seal()
    seconds = time.monotonic() - start
    assert shard.describe()["index_stats"]["sealed_segments"] == 1
    assert [hits[0][:2] for hits in answers(shard, inputs)] == [(i, 1.0) for i in range(64)]
    assert JobStore(store).ids() == set()
    assert not any((tmp_path / "jobs").glob("*")), "files of an order stayed"
    return seconds


def test_without_a_worker_the_server_builds_at_once(store: Store, tmp_path: Path) -> None:
    orders = BuildOrders(store, tmp_path / "jobs")
    seal_one(store, tmp_path, orders)
    assert (orders.taken, orders.given_up) == (0, 0)


def test_an_order_that_no_worker_takes_is_withdrawn(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_orders, "CLAIM_SECONDS", 0.2)
    orders = BuildOrders(store, tmp_path / "jobs")
    with worker(tmp_path, Kind("other", "anywhere", lambda _: {})):
        assert seal_one(store, tmp_path, orders) > 0.2
    assert (orders.taken, orders.given_up) == (0, 1)


def test_an_order_whose_worker_died_is_built_by_the_server(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_orders, "CLAIM_SECONDS", 0.2)
    orders = BuildOrders(store, tmp_path / "jobs")
    jobs = JobStore(store)
    ending = threading.Event()
    late: list[Exception] = []

    def die() -> None:
        """Claim the order, say nothing more, and wake up when it is done without us."""
        while (job := jobs.claim("worker:gone:1:b", [SEAL_KIND], 0.3)) is None:
            time.sleep(0.01)
        assert ending.wait(20)
        try:
            jobs.finish(job.id, "worker:gone:1:b", "done", progress={}, result={"points": 64})
        except Exception as error:
            late.append(error)

    thread = threading.Thread(target=die)
    with worker(tmp_path, Kind("other", "anywhere", lambda _: {})):
        thread.start()
        assert seal_one(store, tmp_path, orders) > 0.3
        ending.set()
        thread.join()
    assert (orders.taken, orders.given_up) == (0, 1)
    assert [type(error).__name__ for error in late] == ["LeaseLostError"]


def test_a_worker_that_sleeps_past_its_lease_changes_nothing_when_it_wakes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_orders, "CLAIM_SECONDS", 0.1)
    orders = BuildOrders(store, tmp_path / "jobs")
    sealed = threading.Event()
    run = build_jobs.SEAL.run

    def asleep(context: JobContext) -> dict[str, Any]:
        # Its lease is taken away, as if nobody had renewed it for long.
        JobStore(store).release_owner("worker:here")
        assert sealed.wait(20)
        return run(context)

    with worker(tmp_path, Kind(SEAL_KIND, "anywhere", asleep, keeps_files=True)):
        monkeypatch.setattr(JobContext, "keep_alive", lambda *_: None)
        # The same worker's other thread may claim it again: it sleeps as well, and five times.
        seal_one(store, tmp_path, orders)
        sealed.set()
    assert orders.taken == 0
    assert JobStore(store).ids() == set()


@pytest.mark.parametrize("damage", ["torn", "other points", "nothing"])
def test_files_that_are_not_what_was_ordered_are_refused(
    store: Store, tmp_path: Path, damage: str
) -> None:
    orders = BuildOrders(store, tmp_path / "jobs")

    def wrong(context: JobContext) -> dict[str, Any]:
        if damage == "other points":
            path = context.folder / build_orders.SEQS_FILE
            np.save(path, np.load(path)[:-1])
        result = SEAL.run(context)
        if damage == "torn":
            path = context.folder / build_orders.SEGMENT_FILE
            path.write_bytes(path.read_bytes()[:100])
        return {"points": 0} if damage == "nothing" else result

    with worker(tmp_path, Kind(SEAL_KIND, "anywhere", wrong, keeps_files=True)):
        seal_one(store, tmp_path, orders)


def test_a_worker_that_fails_leaves_the_segment_to_the_server(store: Store, tmp_path: Path) -> None:
    def fail(_: JobContext) -> dict[str, Any]:
        raise OSError("no space left")

    orders = BuildOrders(store, tmp_path / "jobs")
    with worker(tmp_path, Kind(SEAL_KIND, "anywhere", fail)):
        seal_one(store, tmp_path, orders)
    assert (orders.taken, orders.given_up) == (0, 1)


def test_a_server_that_stops_gives_an_order_up(store: Store, tmp_path: Path) -> None:
    going_on, stopped = threading.Event(), threading.Event()

    def long(context: JobContext) -> dict[str, Any]:
        going_on.set()
        try:
            context.wait(60)
        finally:
            stopped.set()
        return {}

    orders = BuildOrders(store, tmp_path / "jobs")
    shard = shard_of(store, tmp_path, SETS | {"index": "flinng"}, builder=orders)
    shard.upsert(PointBatch(list(range(128)), points(SETS, 128)))
    while shard.seal():
        pass
    with worker(tmp_path, Kind(MERGE_KIND, "anywhere", long), lease=1.0):
        with abandonable(going_on.is_set), pytest.raises(AbandonedError):
            shard.merge()
        # The worker hears of it when it renews its lease.
        assert stopped.wait(10)
    assert JobStore(store).ids() == set()
    assert shard.merge(), "what was to be merged is there still"


def test_orders_are_not_shown_and_count_nowhere(store: Store) -> None:
    jobs = JobStore(store)
    hidden = jobs.submit(SEAL_KIND, {}, max_queued=1)
    again = jobs.submit(SEAL_KIND, {}, max_queued=1)
    shown = jobs.submit("import", {}, max_queued=1)
    assert [job.id for job in jobs.page(10)[0]] == [shown.id]
    assert jobs.counts()["queued"] == 1
    jobs.cancel(hidden.id)
    jobs.cancel(shown.id)
    assert jobs.trim(0) == [shown.id]
    assert jobs.withdraw(again.id)
    assert not jobs.withdraw(hidden.id), "it is finished"
    jobs.forget_hidden()
    assert jobs.ids() == set()


def test_workers_are_alive_until_they_say_nothing_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from closeby.service import presence

    monkeypatch.setattr(presence, "ALIVE_SECONDS", 0.3)
    monkeypatch.setattr(presence, "SAY_SECONDS", 0.1)
    assert not workers_alive(store)
    first, second = (presence.Presence(store, f"worker:h:{n}:x") for n in (1, 11))
    first.start()
    deadline = time.monotonic() + 10
    while not workers_alive(store):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)
    assert workers_alive(store), "it says it again"
    first.stop()
    assert not workers_alive(store), "it went, and said so"
    second.start()
    while not workers_alive(store):
        time.sleep(0.01)
    forget_workers(store, "worker:h:1:")
    assert workers_alive(store), "another one was forgotten"
    second._ending.set()  # it dies
    second._thread.join()
    time.sleep(0.4)
    assert not workers_alive(store)
