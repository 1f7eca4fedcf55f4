"""The user's own file, or a collection of a server, as points and queries."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from closeby.client import Client
from closeby.index import InvalidInputError, SetBatch, featurizer_from
from closeby.index.batches import Batch
from closeby.index.engine import Metric, check_batch
from closeby.loaders import PointBatch, open_points
from closeby.service.encoding import decode_features
from closeby.service.feature_flags import features_for
from closeby.service.snapshots import read_rows

from .errors import BenchError

__all__ = ["Data", "Split", "of_collection", "of_file", "split"]

LEAST_POINTS = 2
MOST_HELD_OUT = 0.2


@dataclass(frozen=True)
class Data:
    """All features that were read.

    Attributes:
        name, what: of the source, for people.
        metric: that they are compared by; vectors of cosine have length 1.
        features: what they were made by, as a collection takes it.
        rows: the features, none empty.
        left_out: rows that are no points, or points without any element.
    """

    name: str
    what: str
    metric: Metric
    features: dict[str, Any]
    rows: Batch
    left_out: int

    @property
    def digest(self) -> str:
        """xxh3 of metric and features: the same for the same data."""
        digest = xxhash.xxh3_128(self.metric.encode())
        rows = self.rows
        for array in (rows.indptr, rows.indices) if isinstance(rows, SetBatch) else (rows,):
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """Points to be indexed, and queries that are not among them."""

    points: Batch
    queries: Batch


def of_file(
    path: Path,
    *,
    metric: str | None,
    features: dict[str, Any] | None,
    unit: str,
    format: str | None,  # noqa: A002
    options: dict[str, Any] | None,
    limit: int | None,
) -> Data:
    """The points of a file: all, or the first `limit`.

    Raises:
        LoaderError, OSError: it cannot be read.
        BenchError: it holds too few points, of several dimensions, or none of that metric.
    """
    if limit is not None and limit < LEAST_POINTS:
        raise BenchError(f"--limit must be at least {LEAST_POINTS}: one point, and one query")
    reader = open_points(path, format=format, options=options)
    parts: list[Batch] = []
    count = dropped = 0
    for batch in reader:
        if features is None:
            if batch.field == "sparse":
                raise BenchError(
                    f"{path.name} holds sparse vectors, which are not compared here yet"
                )
            features = features_for(batch, unit)
        known = _metric_of(features, metric, path.name)
        part, empty = _featurised(path.name, batch, features, known)
        dropped += empty
        parts.append(part)
        count += len(part)
        if limit is not None and count >= limit:
            break
    bad = reader.report.bad + dropped
    if features is None or not count:
        first = reader.report.samples[0] if reader.report.samples else None
        why = f"; line {first.line}: {first.reason}" if first else ""
        raise BenchError(f"{path} holds no point{why}. Name its --format or --columns?")
    rows = _joined(parts)
    known = _metric_of(features, metric, path.name)
    rows = _rows(rows, np.arange(min(len(rows), limit or len(rows))))
    return _enough(Data(path.name, f"the file {path.name}", known, features, rows, bad))


def of_collection(db: Client, name: str, limit: int | None) -> Data:
    """The points of a collection, by way of a snapshot that is removed again.

    Raises:
        ClosebyClientError: the server refuses, or cannot be reached.
        BenchError: it holds too few points.
    """
    collection = db.collection(name)
    config = collection.info().config
    if config.get("store") == "none":
        raise BenchError(f"the collection {name} keeps no features (store none) to compare")
    snapshot = collection.snapshot()
    try:
        content = collection.download_snapshot(snapshot.name)
    finally:
        collection.delete_snapshot(snapshot.name)
    parts: list[Batch] = []
    with tempfile.TemporaryFile() as file:
        file.write(content)
        del content
        file.seek(0)
        for entries in read_rows(file):
            if entries:
                parts.append(decode_features([entry.features or b"" for entry in entries]))
    if not parts:
        raise BenchError(f"the collection {name} is empty; import points first")
    metric: Any = config["metric"]
    rows = _joined(parts)
    whole = check_batch(rows, metric, None if isinstance(rows, SetBatch) else rows.shape[1])
    sizes = np.arange(len(whole)) if not isinstance(whole, SetBatch) else whole.sizes.nonzero()[0]
    picked = _rows(whole, sizes[:limit])
    left_out = len(whole) - len(sizes)
    what = f"the collection {name}"
    return _enough(Data(name, what, metric, dict(config["features"]), picked, left_out))


def split(data: Data, queries: int, seed: int) -> Split:
    """Random rows are taken out as queries: so many, but at most a fifth of all."""
    count = max(1, min(queries, int(len(data.rows) * MOST_HELD_OUT)))
    order = np.random.default_rng(seed).permutation(len(data.rows))
    return Split(_rows(data.rows, np.sort(order[count:])), _rows(data.rows, order[:count]))


def _metric_of(features: dict[str, Any], wanted: str | None, name: str) -> Metric:
    vectors = features["kind"] == "vector"
    fit: tuple[Metric, ...] = ("cosine", "ip") if vectors else ("jaccard",)
    if wanted is None:
        return fit[0]
    for metric in fit:
        if wanted == metric:
            return metric
    kind = "vectors" if vectors else "sets"
    raise BenchError(f"{name} gives {kind}; --metric can be {' or '.join(fit)}, not {wanted}")


def _featurised(
    name: str, batch: PointBatch, features: dict[str, Any], metric: Metric
) -> tuple[Batch, int]:
    """Features of a batch, and how many points had none."""
    featurizer = featurizer_from(features)
    if batch.field != featurizer.field:
        raise BenchError(
            f"{name} holds the field {batch.field}, and {features['kind']} are made of the field "
            f"{featurizer.field}; leave the flag away to take what suits the file"
        )
    try:
        made = featurizer.features(batch.values)
        empty = featurizer.empty_rows(made)
        if len(empty):
            made = _rows(made, np.setdiff1d(np.arange(len(made)), empty))
        return check_batch(made, metric, features.get("dim")), len(empty)
    except InvalidInputError as error:
        at = "" if error.row is None else f", line {batch.lines[error.row]}"
        raise BenchError(f"{name}{at}: {error}; repair or remove that row") from error


def _joined(parts: list[Batch]) -> Batch:
    sets = [part for part in parts if isinstance(part, SetBatch)]
    if sets:
        return SetBatch.concat(sets)
    return np.concatenate([part for part in parts if not isinstance(part, SetBatch)])


def _rows(rows: Batch, places: Any) -> Batch:
    return rows.take(places) if isinstance(rows, SetBatch) else rows[places]


def _enough(data: Data) -> Data:
    if len(data.rows) < LEAST_POINTS:
        raise BenchError(
            f"{data.what} holds {len(data.rows)} point; a benchmark needs at least {LEAST_POINTS}, "
            "one to find and one to ask for (and some thousands to tell engines apart)"
        )
    return data
