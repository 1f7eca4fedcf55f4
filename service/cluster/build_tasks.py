"""What the tasks of a bulk build do, each on whatever machine it runs.

    read    one file: its points, some at a time, as they are
    store   some points: features of them, log rows, in one transaction
    survey  one shard: which of its points are given twice, and what its segments will be
    seal    one segment: built from log rows, uploaded

Each takes and gives plain values (numbers, strings, bytes, lists and dictionaries of them), so
that whatever spreads tasks over machines can carry them. Each may be done twice: what the first
time left behind is not published.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from closeby.index import Engine
from closeby.index.errors import InvalidInputError
from closeby.loaders import BadRowError, open_points
from closeby.service.encoding import decode_rows
from closeby.service.engines import make_engine
from closeby.service.errors import CollectionNotFoundError, ImportFileError
from closeby.service.import_urls import fetched, is_url
from closeby.service.inputs import Inputs, PointBatch
from closeby.service.manifest import FileEntry, SegmentEntry
from closeby.service.partitions import partition_of
from closeby.service.points_file import Names, PointsFile, Seqs
from closeby.service.sealing import Sealing, SealingEngine

from .build_log import BuildLog, Interval
from .segment_store import SegmentStore, download
from .stored_files import prefix_of

__all__ = ["Job", "read", "seal", "store", "survey"]

BATCH_POINTS = 2_000
OBJECT_STORES = ("s3://", "s3a://", "gs://", "az://", "abfs://", "abfss://")
"""Protocols of files that are read as segments are written; others are fsspec's own."""
TOLD_ROWS = 5
"""Bad rows of a file, and of a batch, whose reason is told."""


@dataclass(frozen=True, slots=True)
class Job:
    """What all tasks of a build know."""

    store: str
    segments: str
    number: int
    name: str
    config: dict[str, Any]
    shards: dict[str, list[int]]
    """The partitions of each."""
    keys: dict[str, str]
    """What the files of each are called by."""
    segment_points: int
    max_set_elements: int
    format: str | None = None
    columns: dict[str, Any] | None = None
    on_error: str = "skip"
    prefix_ids: bool = False

    def log(self) -> BuildLog:
        """The log of the collection that is built."""
        return BuildLog(self.store, self.number, self.name)


def read(job: Job, file: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The points of a file, given as {"file": its place among all, "path"}.

    Raises what `closeby.loaders` raises, ImportFileError if an object cannot be fetched.
    """
    prefix = f"{_stem(file['path'])}:" if job.prefix_ids else None
    with _local(file["path"]) as path:
        reader = open_points(
            path,
            format=job.format,
            options=job.columns,
            defaults={"values": job.config["features"]["kind"] == "sparse"},
            on_error="stop" if job.on_error == "stop" else "skip",
            batch_size=BATCH_POINTS,
        )
        told = {"file": file["file"], "path": file["path"]}
        with contextlib.closing(reader):
            for batch in reader:
                ids = batch.ids if prefix is None else [f"{prefix}{given}" for given in batch.ids]
                body = {
                    "ids": ids,
                    "values": batch.values,
                    "payloads": batch.payloads,
                    "lines": batch.lines,
                    "field": batch.field,
                }
                yield told | {
                    "first": batch.lines[0],
                    "points": orjson.dumps(body),
                    "bad": 0,
                    "reasons": b"",
                }
            rows = [f"line {row.line}: {row.reason}" for row in reader.report.samples[:TOLD_ROWS]]
            bad = {"points": b"", "bad": reader.report.bad, "first": 0}
            yield told | bad | {"reasons": orjson.dumps(rows)}


def store(job: Job, given: dict[str, Any]) -> dict[str, Any]:
    """Write points that `read` gave to the log; of each shard's the interval of their seqs.

    Raises BadRowError if a row is bad and that ends the build, ImportFileError if the file holds
    points of another kind than the collection.
    """
    told = {"file": given["file"], "path": given["path"], "first": given["first"]}
    if not given["points"]:
        reasons = orjson.loads(given["reasons"])
        return _stored(told, {}, 0, given["bad"], reasons)
    body = orjson.loads(given["points"])
    inputs = Inputs(job.config, job.max_set_elements)
    engine = make_engine(job.config, None)
    strings = {"text", "sequence"}
    if body["field"] != inputs.featurizer.field and not (
        {body["field"], inputs.featurizer.field} <= strings
    ):
        raise ImportFileError(
            f"{given['path']} holds points with a {body['field']}, the collection points with a"
            f" {inputs.featurizer.field}"
        )
    bad: list[tuple[int, str]] = []
    rows = _usable(inputs, engine, body["values"], [*range(len(body["ids"]))], bad)
    if bad and job.on_error == "stop":
        raise BadRowError(given["path"], body["lines"][bad[0][0]], bad[0][1])
    reasons = [f"line {body['lines'][row]}: {why}" for row, why in bad[:TOLD_ROWS]]
    if not rows:
        return _stored(told, {}, 0, len(bad), reasons)
    batch = PointBatch(
        [body["ids"][row] for row in rows],
        [body["values"][row] for row in rows],
        [None if (p := body["payloads"][row]) is None else orjson.dumps(p) for row in rows],
    )
    entries, _, _ = inputs.entries(batch, engine)
    shard_of = {part: shard for shard, held in job.shards.items() for part in held}
    by_shard: dict[str, list[Any]] = {}
    for entry in entries:
        by_shard.setdefault(shard_of[partition_of(entry.point)], []).append(entry)
    with job.log() as log:
        seq = log.append([entry for shard in by_shard for entry in by_shard[shard]])
    intervals = {}
    for shard, mine in by_shard.items():
        intervals[shard] = (seq, seq + len(mine) - 1)
        seq += len(mine)
    return _stored(told, intervals, len(entries), len(bad), reasons, len(rows) - len(entries))


def survey(job: Job, asked: dict[str, Any]) -> dict[str, Any]:
    """What the segments of a shard will be.

    `asked` has "shard", and "intervals": the seqs of its points, in the order of the files and of
    their rows. Of points with one id the last stays; the others are removed from the log.
    """
    parts: list[Seqs] = []
    hashes = []
    with job.log() as log:
        for first, last in asked["intervals"]:
            found, keys = log.keys(Interval(first, last))
            parts.append(found)
            hashes.append(keys)
        seqs = np.concatenate(parts)
        replaced = _replaced(seqs, np.concatenate(hashes), log)
        if replaced:
            log.delete(replaced)
        seqs = np.sort(seqs[~np.isin(seqs, np.array(replaced, np.int64))])
        if not len(seqs):
            raise CollectionNotFoundError("the collection is not being built any more")
        (first_rows,) = log.rows([Interval(int(seqs[0]), int(seqs[0]))])
        parameters = _parameters(job, [row.features or b"" for row in first_rows])
    segments: list[dict[str, Any]] = []
    at = 0
    # As if the points had come in one by one: nothing is to be merged afterwards.
    for chunks in [] if parameters is None else _digits(-(-len(seqs) // job.segment_points)):
        part = seqs[at : at + chunks * job.segment_points]
        at += len(part)
        within = _within(asked["intervals"], int(part[0]), int(part[-1]))
        segments.append({"number": len(segments), "chunks": chunks, "intervals": within})
    return {
        "shard": asked["shard"],
        "points": len(seqs),
        "parameters": parameters,
        "segments": segments,
    }


def seal(job: Job, asked: dict[str, Any]) -> dict[str, Any]:
    """Build one segment of a shard, as `survey` wants it, and upload its files.

    Memory holds the names of its points, and the points of `segment_points` at a time.
    """
    chunks = int(asked["chunks"])
    with tempfile.TemporaryDirectory(prefix="closeby-build-") as folder, job.log() as log:
        directory = Path(folder)
        own = {"capacity": job.segment_points, "next_id": 0}
        empty = make_engine(job.config, Sealing(directory, job.segment_points))
        assert isinstance(empty, SealingEngine)
        engine: Any = empty.restored(asked["parameters"] | own, settle=False)
        files = directory / "files"
        files.mkdir()
        names = _sealed_pieces(log, engine, asked["intervals"], directory)
        merge = engine.next_tier()
        path = files / f"segment-{2 * asked['number'] + 1:08}"
        if merge is None:
            (piece,) = directory.glob("piece-*")
            piece.rename(path)
        else:
            merge.build(path)
        points = PointsFile.write(
            files / f"points-{2 * asked['number'] + 2:08}", names.seqs, [names]
        )
        entry = SegmentEntry(asked["number"], chunks, FileEntry.of(path), FileEntry.of(points.path))
        objects = SegmentStore(job.segments)
        for file in (entry.segment, entry.points):
            objects.put(prefix_of(job.number, job.keys[asked["shard"]]), files, file)
    return {"shard": asked["shard"], "entry": asdict(entry)}


def entry_of(found: dict[str, Any]) -> SegmentEntry:
    """What `seal` gave."""
    files = {name: FileEntry(**found[name]) for name in ("segment", "points")}
    return SegmentEntry(found["number"], found["chunks"], **files)


# --- parts ---------------------------------------------------------------------------------------


def _sealed_pieces(
    log: BuildLog, engine: Any, intervals: Sequence[Sequence[int]], directory: Path
) -> Names:
    """Fill an engine with sealed pieces in `directory`; the names of all points."""
    seqs: list[int] = []
    keys: list[str] = []
    payloads: list[bool] = []
    pieces = 0

    def seal_pieces() -> None:
        nonlocal pieces
        while (merge := engine.next_seal()) is not None:
            engine.finish(merge, merge.build(directory / f"piece-{pieces:08}"))
            pieces += 1

    with contextlib.closing(log.rows([Interval(*interval) for interval in intervals])) as blocks:
        for rows in blocks:
            features = decode_rows([row.features or b"" for row in rows])
            engine.add(features, np.array([row.seq for row in rows], np.int64))
            seqs += [row.seq for row in rows]
            keys += [row.point for row in rows]
            payloads += [row.has_payload for row in rows]
            seal_pieces()
    engine.freeze()
    seal_pieces()
    return Names.of(np.array(seqs, np.int64), keys, payloads)


def _parameters(job: Job, encoded: list[bytes]) -> dict[str, Any] | None:
    """Of an engine that begins with this point; None if its segments are not sealed."""
    with tempfile.TemporaryDirectory() as folder:
        engine = make_engine(job.config, Sealing(Path(folder), job.segment_points))
    if not isinstance(engine, SealingEngine):
        return None
    engine.add(decode_rows(encoded))
    return engine.parameters


def _replaced(seqs: Seqs, hashes: np.ndarray[Any, Any], log: BuildLog) -> list[int]:
    """Of points with the same key all but the last; `seqs` are in the order that counts."""
    order = np.argsort(hashes, kind="stable")
    same = hashes[order][1:] == hashes[order][:-1]
    suspect = np.unique(np.concatenate([order[1:][same], order[:-1][same]]))
    keys = log.points(seqs[suspect].tolist()) if len(suspect) else {}
    last = {keys[seq]: seq for seq in seqs[suspect].tolist()}
    return [seq for seq in seqs[suspect].tolist() if last[keys[seq]] != seq]


def _within(intervals: Sequence[Sequence[int]], first: int, last: int) -> list[list[int]]:
    """The parts of intervals from `first` to `last`, rising."""
    clipped = [[max(first, a), min(last, b)] for a, b in sorted(map(tuple, intervals))]
    return [[a, b] for a, b in clipped if a <= b]


def _digits(total: int) -> list[int]:
    """The powers of two whose sum is `total`, largest first."""
    return [1 << bit for bit in reversed(range(math.frexp(total)[1])) if total >> bit & 1]


def _usable(
    inputs: Inputs, engine: Engine, values: list[Any], rows: list[int], bad: list[tuple[int, str]]
) -> list[int]:
    """Those of `rows` that the collection takes; the others go to `bad`, with the reason."""
    if not rows:
        return []
    try:
        inputs.features([values[row] for row in rows], engine)
    except InvalidInputError as error:
        if len(rows) == 1:
            bad.append((rows[0], str(error)))
            return []
        middle = len(rows) // 2
        return [
            *_usable(inputs, engine, values, rows[:middle], bad),
            *_usable(inputs, engine, values, rows[middle:], bad),
        ]
    return rows


def _stored(
    told: dict[str, Any],
    intervals: dict[str, tuple[int, int]],
    points: int,
    bad: int,
    reasons: list[str],
    replaced: int = 0,
) -> dict[str, Any]:
    counts = {"points": points, "bad": bad, "replaced": replaced}
    return told | counts | {"detail": orjson.dumps({"intervals": intervals, "reasons": reasons})}


@contextlib.contextmanager
def _local(path: str) -> Iterator[Path]:
    if not is_url(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="closeby-build-") as folder:
        if path.startswith(OBJECT_STORES):
            # With the credentials that segments are stored with.
            yield download(path, Path(folder))
        else:
            yield fetched(path, Path(folder), 1 << 62, lambda: None)


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[-1].split(".", 1)[0]
