"""closeby alone, from few points to many, built from a stream: neither points nor index in memory.

Sets are drawn batch by batch, so that any number of them is never held. Each query is a point of
which a share of the elements was drawn anew: its neighbour and their similarity are known, so no
exact search is needed. All other sets share next to nothing with it.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from closeby.index import FlinngIndex, SetBatch

from . import machine, report

BATCH = 250_000
SIZE = 56
K = 10
LEAST, MOST = 0.5, 0.95


def main(options: argparse.Namespace) -> int:
    """Measure every size, and write ``scale-streamed.json``, ``.md`` and ``.png``."""
    options.work.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            rows += measure(size, options, Path(folder))
    result = {
        "machine": machine.describe(),
        "seed": options.seed,
        "queries": options.queries,
        "repeats": options.repeats,
        "rows": rows,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "scale-streamed"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(result))
    written = [stem.with_suffix(".json"), stem.with_suffix(".md")]
    try:
        from . import plots
    except ImportError:
        pass
    else:
        what = f"synthetic sets of {SIZE} elements, streamed"
        written.append(plots.curve(rows, stem.with_suffix(".png"), what))
    print("wrote", *written, sep="\n  ")
    return 0


def stream(points: int, seed: int) -> Iterator[np.ndarray[Any, Any]]:
    """Sets of `SIZE` random elements, uint64 (BATCH, SIZE), rising in each row."""
    for start in range(0, points, BATCH):
        rng = np.random.default_rng((seed, start))
        rows = rng.integers(0, 1 << 32, (min(BATCH, points - start), SIZE), np.uint64)
        rows.sort(axis=1)
        yield rows


def turned(row: np.ndarray[Any, Any], similarity: float, rng: Any) -> np.ndarray[Any, Any]:
    """A set of as many elements that has about this Jaccard similarity with the row."""
    kept = round(2 * SIZE * similarity / (1 + similarity))
    query = row.copy()
    changed = rng.permutation(SIZE)[: SIZE - kept]
    query[changed] = rng.integers(0, 1 << 32, len(changed), np.uint64)
    query.sort()
    return query


def measure(points: int, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Build an index of so many points in a folder, and search it: a row for each target."""
    rng = np.random.default_rng(options.seed)
    asked = np.sort(rng.choice(points, options.queries, replace=False))
    similarities = rng.uniform(LEAST, MOST, len(asked))
    index = FlinngIndex(
        expected_points=points, directory=folder, capacity=4 * BATCH, seed=options.seed
    )
    queries = []
    start, seconds, peak = 0, 0.0, 0
    for rows in stream(points, options.seed + 1):
        for number in np.flatnonzero((asked >= start) & (asked < start + len(rows))):
            queries.append(turned(rows[asked[number] - start], similarities[number], rng))
        began = time.process_time()
        index.add(SetBatch(np.arange(len(rows) + 1) * SIZE, rows.reshape(-1)))
        seconds += time.process_time() - began
        peak = max(peak, anonymous_bytes())
        start += len(rows)
        print(f"  {start:,} of {points:,}: {seconds:.0f} s", flush=True)
    began = time.process_time()
    index.compact()
    seconds += time.process_time() - began
    peak = max(peak, anonymous_bytes())
    batch = SetBatch(np.arange(len(queries) + 1) * SIZE, np.concatenate(queries))
    held = sum(size for part, size in index.nbytes.items() if part != "features")
    rows_out = []
    for target in (0.8, 0.95, 0.99):
        times = []
        for _ in range(options.repeats + 1):
            began = time.thread_time()
            ids, _ = index.search(batch, K, target_recall=target)
            times.append(time.thread_time() - began)
        found = (ids == asked[:, None]).any(axis=1)
        rows_out.append(
            {
                "name": f"target_recall {target}",
                "points": points,
                "us": float(np.median(times[1:])) / len(asked) * 1e6,
                "near": float(found.mean()),
                "near_half": float(found[similarities < 0.6].mean()),
                "promised": index.recall_estimate(target),
                "bytes": held / points,
                "predicted_bytes": index.explain()["predicted_bytes_per_point"],
                "build": seconds / points * 1e6,
                "peak": peak / points,
                "peak_bytes": peak,
                "segments": index.explain()["segments"],
                "nbytes": index.nbytes,
            }
        )
    return rows_out


def anonymous_bytes() -> int:
    """Memory of this process that is not mapped from files."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def markdown(result: dict[str, Any]) -> str:
    """The table of one run."""
    rows, described = result["rows"], result["machine"]
    slope = _slope(rows)
    head = [
        "points", "asked for", "recall, J .5 to .95", "recall, J < .6", "µs a query", "B/point",
        "build µs/point", "peak MB while building",
    ]  # fmt: skip
    table = [
        [
            f"{row['points']:,}",
            row["name"].removeprefix("target_recall "),
            f"{row['near']:.3f}",
            f"{row['near_half']:.3f}",
            f"{row['us']:.1f}",
            f"{row['bytes']:.1f}",
            f"{row['build']:.1f}",
            f"{row['peak_bytes'] / 1e6:,.0f}",
        ]
        for row in rows
    ]
    lines = [
        "# How closeby grows: a stream of synthetic sets",
        "",
        f"Sets of {SIZE} random elements, and {result['queries']:,} queries, each with one "
        f"neighbour at a Jaccard similarity of {LEAST} to {MOST}; k = {K}. Segments lie in mapped "
        f"files; B/point is all but the features. {described['cpu']}, commit "
        f"{described['commit']}, {described['date']}, load {described['load_average']}, seed "
        f"{result['seed']}, one thread, processor time, medians of {result['repeats']}.",
        "",
        *report.table(head, table),
        "",
        f"Time grows like N^{slope:.2f} at target_recall .95.",
    ]
    return "\n".join(lines) + "\n"


def _slope(rows: list[dict[str, Any]]) -> float:
    chosen = [row for row in rows if row["name"] == "target_recall 0.95"]
    if len(chosen) < 2:
        return math.nan
    points = np.log([row["points"] for row in chosen])
    return float(np.polyfit(points, np.log([row["us"] for row in chosen]), 1)[0])
