"""``python -m benchmarks.planner``: what the planner predicts of each engine, beside what it does.

The planner sees a sample, as a server's does; then each engine that it predicts is built over all
points and asked the held-out queries one at a time (ten hits; the median of the repeats). Times are
the thread's own processor time, since other processes may run. Recall counts neighbours at the
threshold, or the ten nearest where the plan does so; bytes are the engine's own, without the
features. Data that is not shipped lies in ``--data``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SETS = (("urls", 0.5), ("molecules", 0.5), ("glove", 0.7))
LIMIT = 10
REPEATS = 3
# Whose bytes the plan leaves out, since every engine has them.
FEATURES = ("features", "vectors", "sets", "elements", "points")


def recall(truth: Any, found: Any, threshold: float | None) -> float | None:
    """Share of the neighbours that were found; of equally near ones any will do."""
    hit = wanted = 0
    for best, got in zip(truth, found, strict=True):
        best, got = best[best == best], got[got == got]
        if threshold is not None:
            best = best[best >= threshold]
        if len(best):
            hit += min(len(best), int((got >= best[-1] - 1e-5).sum()))
            wanted += len(best)
    return hit / wanted if wanted else None


def measure(index: Any, queries: Any, truth: Any, threshold: float | None) -> dict[str, Any]:
    """Microseconds of processor time for a call with one query, and recall."""
    from closeby.index.segment import rows_of

    rows = [rows_of(queries, [i]) for i in range(len(queries))]
    passes, found = [], []
    for _ in range(REPEATS):
        found, start = [], time.thread_time()
        for row in rows:
            found.append(index.search(row, LIMIT)[1][0])
        passes.append((time.thread_time() - start) / len(rows) * 1e6)
    share = recall(truth, found, threshold)
    return {"us": round(statistics.median(passes), 1), "recall": share and round(share, 4)}


def compare(name: str, threshold: float, data: Path, limit: int, queries: int) -> dict[str, Any]:
    """Prediction and measurement of every engine on one data set."""
    import numpy as np
    from closeby.index import FlatIndex
    from closeby.index.planner import FEW_NEAR, SAMPLE, plan
    from closeby.index.segment import rows_of
    from closeby.service.engines import make_engine

    from . import datasets

    split = datasets.load(name, data, limit, queries, 0)
    points = split.points
    flat = FlatIndex(split.metric)
    flat.add(points)
    truth = flat.search(split.queries, LIMIT)[1]
    chosen = np.random.default_rng(0).choice(len(points), min(SAMPLE, len(points)), replace=False)
    made = plan(
        rows_of(points, np.sort(chosen)), split.metric, points=len(points), threshold=threshold
    )
    counted = threshold if made.profile.near >= FEW_NEAR else None
    own: dict[str, Any] = {}
    for option in made.options:
        told = {"predicted": {k: getattr(option, k) for k in ("us", "bytes_per_point", "recall")}}
        own[option.index] = told | {"eligible": option.eligible}
        if option.us == float("inf"):
            own[option.index] = {"why": option.why, "eligible": False}
            continue
        config = {
            "index": option.index, "index_params": option.index_params, "metric": split.metric,
            "threshold": threshold, "target_recall": made.target_recall, "seed": 0, "features": {},
        }  # fmt: skip
        index = make_engine(config, None)
        index.add(points)
        measured = measure(index, split.queries, truth, counted)
        sizes = {part: int(size) for part, size in index.nbytes.items()}
        beside = sum(size for part, size in sizes.items() if part not in FEATURES)
        measured["bytes_per_point"] = round(beside / len(points), 1)
        own[option.index] |= {"measured": measured, "bytes": sizes}
        print(name, option.index, told["predicted"], measured, flush=True)
    return {"metric": split.metric, "threshold": threshold, "points": len(points),
            "counted": counted, "chosen": made.index, "engines": own}  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """The results as Markdown: a row for each data set and engine, predicted / measured."""
    lines = [
        "| data | engine | µs predicted | measured | ratio | bytes predicted | measured |"
        " recall predicted | measured |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, result in results.items():
        for engine, told in result["engines"].items():
            if "measured" not in told:
                continue
            said, had = told["predicted"], told["measured"]
            mark = " (chosen)" if engine == result["chosen"] else ""
            share = "—" if had["recall"] is None else f"{had['recall']:.3f}"
            lines.append(
                f"| {name}, {result['points']:,} | {engine}{mark} | {said['us']:,.0f} |"
                f" {had['us']:,.0f} | {said['us'] / had['us']:.2f} |"
                f" {said['bytes_per_point']:.0f} | {had['bytes_per_point']:.0f} |"
                f" {said['recall']:.3f} | {share} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, and write a JSON file and a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the data that is not shipped")
    parser.add_argument("--only", nargs="*", help="some of the data sets")
    parser.add_argument("--limit", type=int, default=50_000, help="points of each at most")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # before NumPy is there
    import faiss

    from . import machine

    faiss.omp_set_num_threads(1)
    path = options.output / "planner.json"
    results = json.loads(path.read_text())["results"] if options.only and path.exists() else {}
    for name, threshold in SETS:
        if options.only and name not in options.only:
            continue
        results[name] = compare(name, threshold, options.data, options.limit, options.queries)
        head = {
            "what": "planner: predicted and measured, one thread",
            "machine": machine.describe(),
        }
        path.write_text(json.dumps(head | {"results": results}, indent=1) + "\n")
        (options.output / "planner.md").write_text(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
