"""What an index says of itself, beside what new queries find: recall, and bytes a point.

Each data set is split into points and queries. An index over the points, all sealed, is asked for
several recalls: `predicted` is its ``recall_estimate``, `found` the share of the neighbours at the
threshold, among the ten nearest of each query, that its answers hold. Bytes are ``explain()``'s for
as many points as there are, beside what is held without the features. Counts, not times: a busy
machine does not change them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from . import machine, truth

TARGETS = (0.8, 0.9, 0.95, 0.99)
# What matters in each: least similarity of a neighbour.
THRESHOLDS = {
    "urls": 0.5,
    "genes": 0.5,
    "glosses": 0.3,
    "genomes": 0.5,
    "amplicons": 0.8,
    "molecules": 0.5,
    "fashion": 0.8,
    "glove": 0.7,
}


def measure(task: truth.Task, engine: Any, threshold: float) -> dict[str, Any]:
    """One index over a data set: predicted and found."""
    points, queries = task.split.points, task.split.queries
    index = engine(task.split.metric, threshold=threshold, expected_points=len(points))
    index.add(points)
    index.compact()
    nearest = task.truth[:, :10]
    near = (nearest >= threshold).sum(axis=1)
    last = nearest[np.arange(len(nearest)), np.maximum(near - 1, 0)]
    rows = []
    for target in TARGETS:
        _, scores = index.search(queries, 10, target_recall=target)
        hits = np.minimum((scores >= last[:, None] - 1e-6).sum(axis=1), near)
        rows.append(
            {
                "target": target,
                "predicted": round(index.recall_estimate(target), 4),
                "found": round(float(hits.sum() / near.sum()), 4),
            }
        )
    told = index.explain()
    held = sum(size for part, size in index.nbytes.items() if part != "features")
    segment = told["segments"][0]
    return {
        "index": index.kind,
        "points": len(points),
        "threshold": threshold,
        "neighbours": int(near.sum()),
        "measured_on": segment["neighbours_found"],
        "recall": rows,
        "bytes_predicted": told["predicted_bytes_per_point"],
        "bytes_held": round(held / len(points), 1),
    }


def table(results: list[dict[str, Any]]) -> str:
    """As Markdown."""
    heads = "".join(f" asked {target:g}: predicted, found |" for target in TARGETS)
    lines = [
        f"| data | index | points | at | neighbours |{heads} B/point predicted, held |",
        "| --- | --- | ---: | ---: | ---: |" + " ---: |" * (len(TARGETS) + 1),
    ]
    for row in results:
        recalls = "".join(
            f" {r['predicted']:.3f}, {r['found']:.3f}{_mark(r)} |" for r in row["recall"]
        )
        lines.append(
            f"| {row['data']} | {row['index']} | {row['points']:,} | {row['threshold']:g} "
            f"| {row['neighbours']:,} |{recalls} {row['bytes_predicted']}, {row['bytes_held']} |"
        )
    return "\n".join(lines) + "\n"


def _mark(row: dict[str, Any]) -> str:
    return " (!)" if abs(row["predicted"] - row["found"]) > 0.02 else ""


def main(options: argparse.Namespace) -> int:
    """Measure, and write JSON and a table."""
    from closeby.index import FlinngIndex, LshIndex

    results = []
    for name in options.datasets or THRESHOLDS:
        threshold = THRESHOLDS[name]
        task = truth.prepare(
            options.work, name, options.data, options.limit, options.queries, options.seed
        )
        for engine in (FlinngIndex, LshIndex):
            results.append({"data": name, **measure(task, engine, threshold)})
            print(table(results[-1:]).splitlines()[-1], flush=True)
    worst = max(abs(r["predicted"] - r["found"]) for row in results for r in row["recall"])
    off = max(abs(row["bytes_predicted"] / row["bytes_held"] - 1) for row in results)
    summary = {"worst_recall_error": round(worst, 4), "worst_bytes_error": round(off, 4)}
    head = (
        "# What an index says of itself\n\n"
        f"Recall and bytes a point (without features) as `explain()` tells them, beside what "
        f"{options.queries:,} new queries find and what is held; (!) where they are more than .02 "
        f"apart. Most: {worst:.3f}, and {off:.1%} of the bytes. Commit "
        f"{machine.describe().get('commit', '')}, seed {options.seed}.\n\n"
    )
    options.output.mkdir(parents=True, exist_ok=True)
    path = Path(options.output) / "predictions.json"
    told = {"machine": machine.describe(), "summary": summary, "results": results}
    path.write_text(json.dumps(told, indent=1) + "\n")
    path.with_suffix(".md").write_text(head + table(results))
    print("wrote", path, path.with_suffix(".md"), sep="\n  ")
    return 0
