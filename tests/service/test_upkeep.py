"""What upkeep does when the server stops while segments are being merged."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from closeby.index.abandon import checkpoint
from closeby.index.errors import AbandonedError
from closeby.service.shard import PointBatch, Sealing, Search, Shard
from closeby.service.store import Store
from closeby.service.upkeep import Upkeep

from .conftest import configuration

CONFIG = configuration({"kind": "ids"}, index="flinng")


class _MergedLate:
    """A shard whose merge begins only when it is not wanted any more."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.merging = threading.Event()

    def seal(self) -> bool:
        return self.shard.seal()

    def bound_tail(self) -> None:
        self.shard.bound_tail()

    def merge(self) -> bool:
        self.merging.set()
        try:
            while True:
                checkpoint()
                time.sleep(0.001)
        except AbandonedError:
            return self.shard.merge()

    def clear_log(self, stop: threading.Event) -> bool:
        return self.shard.clear_log(stop)


def _sets(ids: range) -> PointBatch:
    return PointBatch(list(ids), [[i, i + 1, 2**40 + i] for i in ids])


def _found(shard: Shard, count: int) -> bool:
    asked = [[i, i + 1, 2**40 + i] for i in range(count)]
    answer = shard.search(asked, Search(limit=1))
    return [row[0].id for row in answer.hits] == list(range(count))


def test_a_merge_is_given_up_when_the_server_stops(tmp_path: Path) -> None:
    store = Store.open_directory(tmp_path)
    record = store.create_collection("a", CONFIG)
    sealing = Sealing(tmp_path / "1", 16)
    shard = Shard(store, record, sealing=sealing)
    shard.load()
    shard.upsert(_sets(range(64)))
    while shard.seal():
        pass
    before = sorted(path.name for path in (tmp_path / "1").iterdir())
    late = _MergedLate(shard)
    upkeep = Upkeep(lambda: [late])
    upkeep.start()
    assert late.merging.wait(10)
    upkeep.stop()
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == before
    assert shard.fault is None
    shard.upsert(_sets(range(64, 80)))
    assert _found(shard, 80)
    shard.seal_tail()

    again = Shard(store, record, sealing=sealing)
    again.load()
    assert again.describe()["index_stats"]["sealed_segments"] > 1
    while again.merge() or again.seal():
        pass
    assert again.describe()["index_stats"]["sealed_segments"] <= 2
    assert _found(again, 80)
    store.close()
