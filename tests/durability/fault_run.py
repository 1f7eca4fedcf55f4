"""Run by `test_faults` in a process of its own, under ``LD_PRELOAD`` of `faults.c`.

For one kind of fault: a shard is written to, sealed, merged, cleared and kept in a snapshot, while
the nth file operation and all after it fail; for n = 1, 2, … until nothing fails any more. After
each: what was acknowledged before is read without a fault, nothing but errors of the documented
kinds was seen, and when the cause is gone the same steps succeed and everything acknowledged is
there, before and after a restart.
"""

from __future__ import annotations

import ctypes
import json
import logging
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import structlog
from closeby.service import clearing as clearing_module
from closeby.service.errors import StoreUnavailableError
from closeby.service.shard import PointBatch, Sealing, Search, Shard
from closeby.service.snapshots import Snapshots
from closeby.service.store import Store

CONFIG: dict[str, Any] = {
    "metric": "jaccard",
    "features": {"kind": "ids"},
    "index": "flinng",
    "target_recall": 0.95,
    "threshold": 0.5,
    "seed": 0,
}
EXPECTED = (StoreUnavailableError, OSError)
MOST = 150


class Run:
    """A shard, what it must hold, and what it may hold besides."""

    def __init__(self, folder: Path, kind: int, libc: ctypes.CDLL) -> None:
        self.folder, self.kind, self.libc = folder, kind, libc
        self.store = Store.open_directory(folder)
        self.record = self.store.create_collection("a", CONFIG)
        self.known: dict[int, list[int]] = {}
        self.doubtful: dict[int, list[int]] = {}
        self.turn = 0
        self.errors = 0
        self.load()

    def load(self) -> None:
        self.shard = Shard(self.store, self.record, sealing=Sealing(self.folder / "1", 8))
        self.shard.load()

    def upsert(self, ids: list[int]) -> None:
        self.turn += 1
        change = {i: [self.turn * 100, self.turn * 100 + 1 + i] for i in ids}
        self.doubtful |= change
        self.shard.upsert(PointBatch(ids, [*change.values()], [b"{}"] * len(ids)))
        self.known |= change
        for i in ids:
            self.doubtful.pop(i, None)

    def steps(self) -> list[Any]:
        return [
            lambda: self.upsert([*range(self.turn % 5, self.turn % 5 + 9)]),
            self.shard.seal,
            lambda: self.upsert([*range(8)]),
            self.shard.seal,
            self.shard.merge,
            lambda: self.shard.clear_log(threading.Event()),
            self.snapshot,
        ]

    def snapshot(self) -> None:
        snapshots = Snapshots(self.folder / "snapshots")
        with self.shard.points_now() as points:
            info = snapshots.create("a", CONFIG, points)
        snapshots.delete("a", info.name)

    def with_faults(self, nth: int) -> int:
        """Every step, with faults from the nth operation on; how many operations there were."""
        self.libc.fault_arm(str(self.folder).encode(), self.kind, nth)
        try:
            for step in self.steps():
                try:
                    step()
                except EXPECTED:
                    self.errors += 1
                # Reading goes on: what is found is what was acknowledged.
                if self.kind not in (4, 7):
                    self.check_reads()
        finally:
            seen: int = self.libc.fault_disarm()
        return seen

    def check_reads(self) -> None:
        for i in list(self.known)[:2]:
            hits = self.shard.search([self.known[i]], Search(limit=50)).hits[0]
            ids = [hit.id for hit in hits if hit.score == 1]
            assert i in ids or i in self.doubtful, (i, hits)

    def check_all(self) -> None:
        found, missing = self.shard.get([*self.known])
        assert set(missing) <= set(), missing
        for point in found:
            allowed = [self.known[int(point.id)]]
            if int(point.id) in self.doubtful:
                allowed.append(self.doubtful[int(point.id)])
            assert point.value in allowed, (point, allowed)
            self.known[int(point.id)] = point.value
            hits = self.shard.search([point.value], Search(limit=50)).hits[0]
            assert point.id in [hit.id for hit in hits if hit.score == 1]
        self.doubtful = {}

    def after(self) -> None:
        """The cause is gone: everything works, and everything is there, also after a restart."""
        self.check_all()
        for step in self.steps():
            step()
        self.check_all()
        self.store.close()
        self.store = Store.open_directory(self.folder)
        self.load()
        self.check_all()
        left = [path.name for path in self.folder.rglob("*.partial")]
        assert left == [], left


def main() -> None:
    """``fault_run.py LIBRARY KIND STEP``: every STEPth operation fails in turn."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    libc = ctypes.CDLL(sys.argv[1])
    libc.fault_disarm.restype = ctypes.c_long
    libc.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long]
    kind, step = int(sys.argv[2]), int(sys.argv[3])
    clearing_module.LEAST_GARBAGE = 1
    clearing_module.GRACE_SECONDS = 0.0
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder).resolve(), kind, libc)
        run.upsert([*range(20)])
        tried = struck = 0
        for nth in range(1, MOST, step):
            seen = run.with_faults(nth)
            run.after()
            tried += 1
            struck += seen >= nth
            if seen < nth:
                break
        run.store.close()
    sys.stdout.write(json.dumps({"tried": tried, "struck": struck, "errors": run.errors}))


if __name__ == "__main__":
    main()
