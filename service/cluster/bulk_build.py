"""A bulk build: files into a collection at once, by tasks on all machines of a cluster.

    files ──read──► points ──store──► log in PostgreSQL, under a hidden name
                                       └──survey──► segments ──seal──► object storage
    one transaction ◄──────────────────────────────────────┘
      a manifest for each shard, and the collection's name

Until that transaction nobody sees anything of it, afterwards everybody sees all of it: shards find
a collection whose manifests are there, fetch the files, and have nothing to replay. A build that
fails leaves the collection as it was.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import orjson
import sqlalchemy as sa
import structlog
from closeby.index.errors import ClosebyError
from closeby.service.errors import (
    CollectionExistsError,
    CollectionNotFoundError,
    NotReadyError,
)
from closeby.service.manifest import Manifest
from closeby.service.schema import collections, discarded, log_table, manifests, touch
from closeby.service.schema import placement as placement_table
from closeby.service.store import CollectionRecord, Store

from . import build_tasks
from .build_log import BUILDING, Interval
from .build_tasks import Job, entry_of
from .placement import Placement, files_key, read_placement
from .segment_store import SegmentStore
from .stored_files import forget_files

__all__ = ["Built", "Spread", "build", "job_for"]

OWNER = "build"
"""Owner of a manifest that no shard has opened yet."""
TOLD_ROWS = 20

log = structlog.get_logger(__name__)
Row = dict[str, Any]


class Spread(Protocol):
    """What runs tasks beside each other."""

    def flow(
        self,
        files: Sequence[Row],
        read: Callable[[Row], Iterator[Row]],
        store: Callable[[Row], Row],
    ) -> Iterable[Row]:
        """What `store` gives for all that `read` gives for each file, in any order."""
        ...

    def each(self, asked: Sequence[Row], work: Callable[[Row], Row]) -> Iterable[Row]:
        """What `work` gives for each, in any order."""
        ...


@dataclass(slots=True)
class Built:
    """What became of the rows of all files. `replaced`: points whose id came again later."""

    points: int = 0
    replaced: int = 0
    bad: int = 0
    files: int = 0
    segments: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each step."""
    reasons: list[str] = field(default_factory=list)
    """Why rows are bad; of the first ones."""


def job_for(store: Store, name: str, *, store_url: str, segments: str, **options: Any) -> Job:
    """What the tasks of a build of the collection `name` need; `options` are fields of `Job`.

    Raises CollectionNotFoundError, and NotReadyError while a shard joins or leaves.
    """
    record = _record(store, name)
    placement = read_placement(store)
    if placement is None or placement.joining:
        raise NotReadyError("the cluster has no shards yet, or is changing them; build afterwards")
    return Job(
        store_url,
        segments,
        0,
        "",
        record.config,
        {shard: sorted(held) for shard, held in placement.shards.items()},
        {shard: files_key(shard, placement, record.config) for shard in placement.shards},
        **options,
    )


def build(
    store: Store, spread: Spread, job: Job, name: str, paths: Sequence[str], *, replace_points: bool
) -> Built:
    """Fill the collection `name` with the points of files.

    The collection is there and empty; with `replace_points` what it holds when the build is
    published is deleted. Raises CollectionExistsError if it holds points otherwise,
    CollectionNotFoundError, NotReadyError if shards came or went meanwhile, and what the tasks
    raise; then all is as it was.
    """
    before = _record(store, name)
    if not replace_points:
        _check_empty(store, before)
    hidden = f"{BUILDING}{secrets.token_hex(8)}"
    target = store.create_collection(hidden, job.config)
    job = replace(job, number=target.id, name=hidden)
    try:
        return _run(store, spread, job, before, paths, replace_points=replace_points)
    except BaseException:
        _abandon(store, job)
        raise


def _run(
    store: Store,
    spread: Spread,
    job: Job,
    before: CollectionRecord,
    paths: Sequence[str],
    *,
    replace_points: bool,
) -> Built:
    built = Built(files=len(paths))
    clock = _Clock(built)
    ordered = _store_all(spread, job, paths, built)
    clock.note("store")
    everything = [interval for mine in ordered.values() for interval in mine]
    rows = sum(last - first + 1 for first, last in everything)
    with job.log() as written:
        if written.count() != rows:
            strays = written.keep([Interval(*interval) for interval in everything])
            log.info("build_repeated", rows=strays)
    asked = [{"shard": shard, "intervals": mine} for shard, mine in ordered.items()]
    surveys = list(spread.each(asked, partial(build_tasks.survey, job)))
    built.points = sum(found["points"] for found in surveys)
    built.replaced += rows - built.points
    clock.note("survey")
    segments = [
        {"shard": found["shard"], "parameters": found["parameters"], **segment}
        for found in surveys
        for segment in found["segments"]
    ]
    sealed = list(spread.each(segments, partial(build_tasks.seal, job)))
    built.segments = len(sealed)
    clock.note("seal")
    last = max((last for _, last in everything), default=0)
    bodies = {
        found["shard"]: Manifest(
            job.number,
            max(1, 2 * len(found["segments"])),
            last,
            found["parameters"],
            tuple(
                sorted(
                    (entry_of(one["entry"]) for one in sealed if one["shard"] == found["shard"]),
                    key=lambda entry: entry.number,
                )
            ),
            None,
        )
        for found in surveys
        if found["segments"]
    }
    _publish(store, job, before, bodies, replace_points=replace_points)
    clock.note("publish")
    return built


def _store_all(
    spread: Spread, job: Job, paths: Sequence[str], built: Built
) -> dict[str, list[tuple[int, int]]]:
    """Write all points to the log; of each shard the intervals, in the order of files and rows."""
    files = [{"file": place, "path": path} for place, path in enumerate(paths)]
    stored = spread.flow(files, partial(build_tasks.read, job), partial(build_tasks.store, job))
    ordered: dict[str, list[tuple[int, int, tuple[int, int]]]] = {}
    for one in stored:
        built.bad += one["bad"]
        built.replaced += one["replaced"]
        detail = orjson.loads(one["detail"])
        built.reasons += [f"{one['path']}: {why}" for why in detail["reasons"]]
        for shard, (first, last) in detail["intervals"].items():
            ordered.setdefault(shard, []).append((one["file"], one["first"], (first, last)))
    del built.reasons[TOLD_ROWS:]
    return {shard: [interval for *_, interval in sorted(mine)] for shard, mine in ordered.items()}


def _publish(
    store: Store,
    job: Job,
    before: CollectionRecord,
    bodies: dict[str, Manifest],
    *,
    replace_points: bool,
) -> None:
    """Let the collection be what was built: all manifests and the name, in one transaction."""
    mine, old = collections.c.id == job.number, collections.c.id == before.id

    def run(connection: sa.Connection) -> None:
        # Whoever writes to the collection waits for this, or has written before.
        touch(connection)
        found = connection.execute(sa.select(placement_table).with_for_update()).one()
        now = Placement.of_json(found.epoch, found.body)
        held = {shard: sorted(parts) for shard, parts in now.shards.items()}
        keys = {shard: files_key(shard, now, job.config) for shard in held}
        if now.joining or (held, keys) != (job.shards, job.keys):
            raise NotReadyError("shards came or went during the build; build again")
        if connection.execute(sa.select(collections.c.id).where(old)).first() is None:
            raise CollectionNotFoundError("the collection was deleted during the build")
        if not replace_points and _has_rows(connection, before.id):
            raise _not_empty(before.name)
        for shard, manifest in bodies.items():
            values = {"collection": job.number, "shard": job.keys[shard], "owner": OWNER}
            values |= {"number": manifest.number, "body": manifest.dump()}
            connection.execute(manifests.insert().values(values))
        connection.execute(collections.delete().where(old))
        connection.execute(discarded.insert().values(collection=before.id))
        renamed = connection.execute(collections.update().where(mine).values(name=before.name))
        if renamed.rowcount != 1:
            raise CollectionNotFoundError("the collection is not being built any more")

    store.transact(run)


def _abandon(store: Store, job: Job) -> None:
    """Remove what a build left; whatever cannot be removed now is no part of any collection."""
    try:
        store.delete_collection(job.number)
        objects = SegmentStore(job.segments)
        for key in job.keys.values():
            forget_files(store, objects, job.number, key)
    except (ClosebyError, OSError) as error:
        log.warning("build_not_removed", collection=job.number, error=str(error))


def _record(store: Store, name: str) -> CollectionRecord:
    for record in store.list_collections():
        if record.name == name:
            return record
    raise CollectionNotFoundError(f"there is no collection {name!r}; create it, then build")


def _check_empty(store: Store, record: CollectionRecord) -> None:
    with store.reading() as connection:
        if _has_rows(connection, record.id):
            raise _not_empty(record.name)


def _has_rows(connection: sa.Connection, collection: int) -> bool:
    rows = sa.select(log_table.c.seq).where(log_table.c.collection == collection).limit(1)
    return connection.execute(rows).first() is not None


def _not_empty(name: str) -> CollectionExistsError:
    return CollectionExistsError(
        f"collection {name!r} holds points: import into it, or build with --replace, which deletes"
        " what it holds"
    )


class _Clock:
    """Notes how long each step took."""

    def __init__(self, built: Built) -> None:
        self._built = built
        self._begun = time.perf_counter()

    def note(self, step: str) -> None:
        """`step` ended now."""
        now = time.perf_counter()
        self._built.seconds[step] = round(now - self._begun, 3)
        self._begun = now
        log.info("build", step=step, seconds=self._built.seconds[step])
