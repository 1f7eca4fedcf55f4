"""Near-duplicates among the points of a collection, as a job.

    points of one moment ──► all pairs ≥ threshold, compared exactly ──► clusters ──► one to keep
                                  │
                                  └─ pairs on disk ──► result: a row for each pair

Pairs are written down as they are found, 20 bytes each, and become the result when it is known
which point of each cluster is to be kept: memory does not grow with their number. A job that is
resumed begins anew, with the points of that moment.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import orjson
from closeby.index import SetBatch
from closeby.index.duplicates import (
    DuplicateSearch,
    PairBlock,
    SetStore,
    clusters,
    representatives,
)

from .bodies import read_model
from .encoding import decode_features
from .errors import CollectionNotFoundError, ValidationError
from .feature_keeping import require_features
from .jobs import JobContext, Kind
from .log_rows import point_id
from .payload_filter import PayloadFilter
from .schemas import DuplicatesBody
from .shard import Shard

__all__ = ["DUPLICATES", "check_duplicates"]

ROWS_AT_ONCE = 2_000
WRITTEN_PAIRS = 50_000
"""Pairs that are turned into rows of the result at once."""
_PAIR = np.dtype([("a", "<i8"), ("b", "<i8"), ("score", "<f4")])


def check_duplicates(shard: Shard, asked: DuplicatesBody) -> None:
    """Refuse what cannot be done with this collection. Raises ValidationError."""
    require_features(shard, "looking for duplicates")
    if shard.metric == "ip":
        raise ValidationError.of(
            "collection", "is compared by inner product, which says nothing of how alike points are"
        )
    if shard.featurizer.field == "sparse":
        raise ValidationError.of(
            "collection", "holds sparse vectors, of which pairs cannot be found yet"
        )
    if asked.filter is not None:
        PayloadFilter.parse(asked.filter)
    if "parquet" in asked.formats and find_spec("pyarrow") is None:
        raise ValidationError.of(
            "formats", "parquet needs pyarrow on the server: pip install 'closeby[files]'"
        )


def run_duplicates(context: JobContext) -> dict[str, Any]:
    """Find all pairs, cluster them, choose whom to keep; counts, and a file with the pairs."""
    asked = read_model(context.params, DuplicatesBody)
    shard = context.shard()
    check_duplicates(shard, asked)
    ids, points, lengths = _held(context, shard, asked)
    search = DuplicateSearch(
        points,
        asked.threshold,
        target_recall=asked.target_recall,
        threads=max(1, (os.cpu_count() or 1) // 2),
    )
    path = context.folder / "pairs"
    with path.open("w+b") as file:
        labels = clusters(_noted(context, search, file, len(ids)), len(ids))
        kept = representatives(labels, asked.keep, lengths)
        keep_of = np.empty(len(ids), np.int64)
        # Of each point the one that is kept of its cluster.
        keep_of[labels[kept]] = kept
        keep_of = keep_of[labels]
        count = file.tell() // _PAIR.itemsize
        _write_result(context, file, ids, keep_of, asked.formats, count)
    path.unlink()
    sizes = np.bincount(labels, minlength=len(ids))
    return {
        "points": len(ids),
        "pairs": count,
        "clusters": int(np.count_nonzero(sizes > 1)),
        "duplicates": len(ids) - len(kept),
        "threshold": asked.threshold,
        "recall": round(search.plan.recall, 6),
    }


def _held(
    context: JobContext, shard: Shard, asked: DuplicatesBody
) -> tuple[list[int | str], Any, npt.NDArray[np.int64]]:
    """Ids, features and lengths of the points of this moment that match."""
    matching = None if asked.filter is None else PayloadFilter.parse(asked.filter)
    most = context.settings.max_job_bytes
    ids: list[int | str] = []
    sets, vectors, lengths = SetStore(), [], []
    held = read = 0
    with shard.points_now() as points:
        stored = iter(points.rows)
        while rows := list(itertools.islice(stored, ROWS_AT_ONCE)):
            read += len(rows)
            kept = [row for row in rows if matching is None or matching.matches(row.payload)]
            context.progress(read, points.count, phase="reading")
            if not kept:
                continue
            features = decode_features([row.features or b"" for row in kept])
            ids.extend(point_id(row.point) for row in kept)
            if isinstance(features, SetBatch):
                sets.append(features)
                lengths.append(features.sizes)
                held += 4 * len(features.indices)
            else:
                vectors.append(features)
                lengths.append(np.full(len(features), features.shape[1], np.int64))
                held += features.nbytes
            if held > most:
                raise ValidationError.of(
                    "collection",
                    f"takes more than {most} bytes in memory (max_job_bytes); give a filter",
                    most,
                )
        if read < points.count:
            raise CollectionNotFoundError("the collection was deleted")
    if not ids:
        what = "holds no points" if matching is None else "holds no point that matches the filter"
        raise ValidationError.of("collection" if matching is None else "filter", what)
    return ids, np.concatenate(vectors) if vectors else sets, np.concatenate(lengths)


def _noted(
    context: JobContext, search: DuplicateSearch, file: BinaryIO, points: int
) -> Iterator[PairBlock]:
    """The pairs, written down as they pass."""
    found = 0
    context.progress(points, points, phase="comparing", pairs=0)
    for block in search.pairs():
        noted = np.empty(len(block), _PAIR)
        noted["a"], noted["b"], noted["score"] = block.a, block.b, block.scores
        file.write(noted.data)
        found += len(block)
        context.progress(points, points, phase="comparing", pairs=found)
        yield block


def _write_result(
    context: JobContext,
    file: BinaryIO,
    ids: list[int | str],
    keep_of: npt.NDArray[np.int64],
    formats: Sequence[str],
    count: int,
) -> None:
    """A row for each pair: both ids, the similarity, and which point of the cluster to keep."""
    with contextlib.ExitStack() as stack:
        writers = []
        if "ndjson" in formats:
            writers.append(stack.enter_context(_ndjson(context.result_path("ndjson"))))
        if "parquet" in formats:
            writers.append(stack.enter_context(_parquet(context.result_path("parquet"), ids)))
        file.seek(0)
        done = 0
        while data := file.read(WRITTEN_PAIRS * _PAIR.itemsize):
            pairs = np.frombuffer(data, _PAIR)
            first, second = pairs["a"].tolist(), pairs["b"].tolist()
            keep = keep_of[pairs["a"]].tolist()
            rows = {
                "a": [ids[at] for at in first],
                "b": [ids[at] for at in second],
                "score": [round(score, 7) for score in pairs["score"].tolist()],
                "keep": [ids[at] for at in keep],
            }
            for write in writers:
                write(rows)
            done += len(pairs)
            context.progress(done, count, phase="writing", pairs=count)


@contextlib.contextmanager
def _ndjson(path: Path) -> Iterator[Any]:
    with path.open("wb") as file:

        def write(rows: dict[str, list[Any]]) -> None:
            names = list(rows)
            file.writelines(
                orjson.dumps(dict(zip(names, row, strict=True))) + b"\n"
                for row in zip(*rows.values(), strict=True)
            )

        yield write


@contextlib.contextmanager
def _parquet(path: Path, ids: list[int | str]) -> Iterator[Any]:
    """Ids are int64 if all are, else strings as JSON writes them."""
    import pyarrow as pa
    from pyarrow import parquet

    plain = all(isinstance(point, int) for point in ids)
    name = pa.int64() if plain else pa.string()
    schema = pa.schema([("a", name), ("b", name), ("score", pa.float64()), ("keep", name)])
    with parquet.ParquetWriter(path, schema) as writer:

        def write(rows: dict[str, list[Any]]) -> None:
            shown = {
                key: values
                if plain or key == "score"
                else [orjson.dumps(value).decode() for value in values]
                for key, values in rows.items()
            }
            writer.write_table(pa.table(shown, schema=schema))

        yield write


DUPLICATES = Kind("duplicates", "server", run_duplicates)
