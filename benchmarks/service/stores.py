"""What a point costs, and what its answers are worth, with its features and with hashes alone.

Each data set is split into points and queries; the points are stored in two collections, durably,
a thousand a request, and everything is sealed and merged. Bytes on disk are those of the store
(after a checkpoint) and of the segments. Answers are judged by exact similarities, whatever their
scores say: `found` is the share of the neighbours at the threshold, among the ten nearest of each
query, that lie in the first ten hits, and in forty.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from closeby.index import FlatIndex, SetBatch
from closeby.service.feature_keeping import without_features
from closeby.service.shard import PointBatch, Sealing, Search, Shard
from closeby.service.store import Store

from benchmarks import datasets

BATCH = 1_000
LIMITS = (10, 40)
THRESHOLD = 0.5
CONFIG: dict[str, Any] = {
    "metric": "jaccard",
    "features": {"kind": "ids"},
    "index": "flinng",
    "target_recall": 0.95,
    "threshold": THRESHOLD,
    "seed": 0,
}
STORES = {"features": CONFIG, "none": without_features(CONFIG)}


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All data sets, each with both."""
    results = []
    for name in options.datasets:
        split = datasets.load(name, options.data, options.points, options.queries, 0)
        if split.metric != "jaccard":
            raise SystemExit(f"{name}: this compares collections of sets")
        flat = FlatIndex("jaccard")
        flat.add(split.points)
        truth = flat.search(split.queries, 10)[1]
        judged = _Judge(split.points, split.queries, truth)
        sizes = split.points.indptr[-1] / len(split.points)
        rows: list[dict[str, Any]] = []
        for repeat in range(options.repeats):  # in turn, so that both meet the same machine
            for kept, config in STORES.items():
                at = folder / f"{split.name}-{kept}-{repeat}"
                rows.append({"store": kept} | _one(at, config, split, judged))
        merged = [_median([row for row in rows if row["store"] == kept]) for kept in STORES]
        results.append(
            {
                "name": split.name,
                "what": split.what,
                "points": len(split.points),
                "queries": len(split.queries),
                "elements_a_point": round(float(sizes), 1),
                "stores": merged,
            }
        )
    return {"threshold": THRESHOLD, "points_a_request": BATCH, "datasets": results}


def _one(folder: Path, config: dict[str, Any], split: Any, judged: _Judge) -> dict[str, Any]:
    folder.mkdir(parents=True)
    store = Store.open_directory(folder)
    record = store.create_collection("points", config)
    shard = Shard(store, record, sealing=Sealing(folder / "shard"))
    shard.load()
    points = split.points
    rows = [points.row(i) for i in range(len(points))]
    start = time.perf_counter()
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        shard.upsert(PointBatch(range(first, first + len(part)), part))
    stored = time.perf_counter() - start
    shard.seal_tail()
    while shard.seal() or shard.merge():
        pass
    found = {f"found_in_{limit}": judged.found(shard, limit) for limit in LIMITS}
    us = _us(shard, split.queries)
    parts = shard.describe()["index_stats"]["bytes"]
    store.close()
    count = len(points)
    log, segments = _log_bytes(folder), _files(folder / "shard")
    in_memory = sum(size for name, size in parts.items() if name not in ("features", "hashes"))
    mapped = parts.get("features", 0) + parts.get("hashes", 0)
    return {
        "disk_bytes_a_point": round((log + segments) / count, 1),
        "log_bytes_a_point": round(log / count, 1),
        "segment_bytes_a_point": round(segments / count, 1),
        "searched_bytes_a_point": round((in_memory + _reranked(parts)) / count, 1),
        "mapped_for_merges_a_point": round((mapped - _reranked(parts)) / count, 1),
        "points_a_second": round(count / stored),
        "us_a_query": round(us, 1),
        **found,
    }


def _reranked(parts: dict[str, int]) -> int:
    """Bytes that queries read beyond bitmaps, sketches and ids: features, for the re-rank."""
    return parts.get("features", 0)


def _us(shard: Shard, queries: SetBatch) -> float:
    """Microseconds of a query for ten points, one by one in one thread, median of five rounds."""
    single = [queries.take([row]) for row in range(min(500, len(queries)))]
    wanted = Search(10, with_payload=False)
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for one in single:
            shard.search_features(one, wanted)
        rounds.append((time.perf_counter() - start) / len(single) * 1e6)
    return statistics.median(rounds)


class _Judge:
    """Knows the exact similarities."""

    def __init__(self, points: SetBatch, queries: SetBatch, truth: Any) -> None:
        self._points = points
        self._queries = queries
        self._near = (truth >= THRESHOLD).sum(axis=1)
        rows = np.arange(len(truth))
        self._last = truth[rows, np.maximum(self._near - 1, 0)]

    def found(self, shard: Shard, limit: int) -> float:
        """Share of the neighbours that lie in so many hits; of equally near ones any will do."""
        asked = [self._queries.row(i) for i in range(len(self._queries))]
        answers = shard.search(asked, Search(limit, with_payload=False)).hits
        hits = 0
        for row, (near, last) in enumerate(zip(self._near, self._last, strict=True)):
            if not near:
                continue
            own = FlatIndex("jaccard")
            own.add(self._points.take([int(hit.id) for hit in answers[row]]))
            scores = own.search(self._queries.take([row]), max(1, len(answers[row])))[1]
            hits += min(int(near), int((scores >= last - 1e-6).sum()))
        return round(hits / max(1, int(self._near.sum())), 4)


def _log_bytes(folder: Path) -> int:
    """The store as it is after a checkpoint."""
    (file,) = folder.glob("*.sqlite3")
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return file.stat().st_size


def _files(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, str) else statistics.median(row[name] for row in rows)
        for name, value in rows[0].items()
    }


def publish(result: dict[str, Any], stem: Path) -> None:
    """Write the table."""
    told = result["machine"]
    lines = [
        "# A collection that keeps no features",
        "",
        f"{told['cpu']}, commit {told['commit']}, {told['date']}. Neighbours have a Jaccard"
        f" similarity of {result['threshold']} or more. Searched bytes are what queries read:"
        " bitmaps, sketches, ids and, for the re-rank, features.",
        "",
        "| data | elements a point | store | disk, B a point | log | segments | searched, B a point"
        " | found in 10 hits | in 40 | µs a query | points/s stored |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for data in result["datasets"]:
        for row in data["stores"]:
            cells = (
                f"{data['name']}, {data['points']:,}",
                f"{data['elements_a_point']:,}",
                f"`{row['store']}`",
                *(row[f"{part}_bytes_a_point"] for part in ("disk", "log", "segment", "searched")),
                *(row[f"found_in_{limit}"] for limit in LIMITS),
                row["us_a_query"],
                f"{row['points_a_second']:,.0f}",
            )
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
