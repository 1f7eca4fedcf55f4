"""The workers' side of segments that they build for the server; see `build_orders`.

A worker has no shard in memory. For a seal it reads the ordered rows from the log and adds them to
an empty engine of the same parameters, for a merge it maps the sources and removes what is dead;
the engine then says what is to be built, as it does in the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from closeby.index.abandon import abandonable

from .build_orders import MERGE_KIND, POINTS_FILE, SEAL_KIND, SEGMENT_FILE, SEQS_FILE
from .durable_files import checksum
from .encoding import decode_rows
from .engines import ENGINES
from .errors import StoreUnavailableError
from .jobs import JobContext, Kind
from .log_rows import LogRow, Op
from .points_file import Names, PointsFile, Seqs, Source
from .segment_building import MergeLike

__all__ = ["MERGE", "SEAL"]

ROWS_AT_ONCE = 2_000


def _seal(context: JobContext) -> dict[str, Any]:
    """A segment of log rows."""
    seqs = _seqs(context)
    engine = _engine(context, capacity=max(1, len(seqs)))
    keys: list[str] = []
    payloads: list[bool] = []
    for rows in _rows(context, seqs):
        context.check()
        features = decode_rows([row.features or b"" for row in rows])
        engine.add(features, ids=np.array([row.seq for row in rows], np.int64))
        keys.extend(row.point for row in rows)
        payloads.extend(row.has_payload for row in rows)
    if len(keys) != len(seqs):
        raise StoreUnavailableError(f"the log has {len(keys)} of {len(seqs)} rows")
    engine.freeze()
    return _build(context, engine.next_seal(), [Names.of(seqs, keys, payloads)])


def _merge(context: JobContext) -> dict[str, Any]:
    """A segment of sealed ones."""
    shard = context.settings.shards_dir / context.params["folder"]
    sources = context.params["sources"]
    engine = _engine(
        context, capacity=1, segments=[(chunks, shard / name) for chunks, name, _ in sources]
    )
    dead = _seqs(context)
    if len(dead):
        engine.remove(dead)
    merge = engine.next_tier()
    chosen = [] if merge is None else [source.segment.path.name for source in merge.sources]
    if chosen != [name for _, name, _ in sources]:
        raise StoreUnavailableError("the segments that are to be merged have changed")
    return _build(context, merge, [PointsFile.open(shard / name) for _, _, name in sources])


def _build(context: JobContext, merge: MergeLike, names: list[Source]) -> dict[str, Any]:
    segment_path, points_path = (context.folder / name for name in (SEGMENT_FILE, POINTS_FILE))

    def unwanted() -> bool:
        context.check()  # raises
        return False

    with abandonable(unwanted):
        segment = merge.build(segment_path)
        if not len(segment):
            return {"points": 0}
        PointsFile.write(points_path, np.sort(segment.ids), names)
    return {
        "points": len(segment),
        SEGMENT_FILE: checksum(segment_path),
        POINTS_FILE: checksum(points_path),
    }


def _engine(
    context: JobContext, *, capacity: int, segments: list[tuple[int, Path]] | None = None
) -> Any:
    """An engine of the server's parameters over these files."""
    parameters = context.params["parameters"] | {"capacity": capacity, "next_id": 0}
    made = ENGINES[context.params["engine"]].make
    return made.restored(parameters, segments or [], verify=False, settle=False)


def _seqs(context: JobContext) -> Seqs:
    found: Seqs = np.load(context.folder / SEQS_FILE, allow_pickle=False)
    return found


def _rows(context: JobContext, seqs: Seqs) -> Iterator[list[LogRow]]:
    """The log rows of `seqs`, in order."""
    wanted = set(seqs.tolist())
    after, last = int(seqs[0]) - 1, int(seqs[-1])
    assert context.job.collection is not None
    while after < last:
        rows = context.store.read(context.job.collection, after, last, ROWS_AT_ONCE)
        if not rows:
            return
        after = rows[-1].seq
        found = [row for row in rows if row.seq in wanted and row.op == Op.PUT]
        if found:
            yield found


SEAL = Kind(SEAL_KIND, "anywhere", _seal, keeps_files=True)
MERGE = Kind(MERGE_KIND, "anywhere", _merge, keeps_files=True)
