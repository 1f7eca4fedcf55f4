"""``python -m benchmarks planner``: what the planner predicts of each engine, beside what it does.

The planner sees a sample, as a server's does; then each engine that it predicts is laid out over
all points as a server has it (segments of 16,384 points; of FAISS's engines half of the points that
may wait for the structure do) and asked the held-out queries one at a time, ten hits. Times are the
thread's own processor time, of each query the least of five, since whatever else runs only adds.
Recall counts neighbours at the threshold, or the ten nearest where the plan does so; bytes are the
engine's own, without the features. Data that is not shipped lies in ``--data``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SHIPPED = ("urls", "genes")
THRESHOLDS = {"jaccard": 0.5, "cosine": 0.8, "ip": None}
SETS = (
    *SHIPPED, "genomes", "amplicons", "glosses", "molecules", "fashion", "glove", "glove-products",
)  # fmt: skip
LIMIT = 10
# An engine reaches the target from here on: what 200 queries leave open.
REACHED = 0.02
REPEATS = 5
SECONDS = 1.0  # of a repeat but the first
BATCH = 2_048  # points that come in together
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
    from closeby.index.alive_points import rows_of

    rows = [rows_of(queries, [i]) for i in range(len(queries))]
    least = [float("inf")] * len(rows)
    for passed in range(REPEATS):
        begun = time.thread_time()
        for place, row in enumerate(rows):
            start = time.thread_time()
            if place and passed and start - begun > SECONDS:
                break
            index.search(row, LIMIT)
            least[place] = min(least[place], time.thread_time() - start)
    share = recall(truth, index.search(queries, LIMIT)[1], threshold)
    return {"us": round(statistics.mean(least) * 1e6, 1), "recall": share and round(share, 4)}


def laid_out(option: Any, points: Any, config: dict[str, Any]) -> Any:
    """An engine over all points, as a server would have it."""
    import numpy as np
    from closeby.index.alive_points import rows_of
    from closeby.index.baselines import RebuiltIndex
    from closeby.index.predictions import SEGMENT_POINTS, waiting
    from closeby.service.engines import ENGINES

    kind = ENGINES[option.index]
    own = {**option.index_params}
    if option.index != "flat":
        own |= {"seed": config["seed"], "target_recall": config["target_recall"]}
    if option.index not in ("flat", "maxip"):
        own["threshold"] = config["threshold"]
    if option.index != "maxip":
        own["metric"] = config["metric"]
    if kind.seals:
        own["capacity"] = SEGMENT_POINTS
    index = kind.make(**own)
    n = len(points)
    stops = [*range(0, n, BATCH), n]
    if isinstance(index, RebuiltIndex):
        stops = sorted({0, n - waiting(n) // 2, n})
    for start, stop in pairwise(stops):
        index.add(rows_of(points, np.arange(start, stop)))
    return index


def compare(name: str, data: Path, limit: int, queries: int) -> dict[str, Any]:
    """Prediction and measurement of every engine on one data set."""
    import numpy as np
    from closeby.index import FlatIndex
    from closeby.index.alive_points import rows_of
    from closeby.index.planner import SAMPLE, plan
    from closeby.index.predictions import FEW_NEAR

    from . import datasets

    split = datasets.load(name, data, limit, queries, 0)
    points = split.points
    threshold = THRESHOLDS[split.metric]
    flat = FlatIndex(split.metric)
    flat.add(points)
    truth = flat.search(split.queries, LIMIT)[1]
    chosen = np.random.default_rng(0).choice(len(points), min(SAMPLE, len(points)), replace=False)
    begun = time.thread_time()
    made = plan(
        rows_of(points, np.sort(chosen)), split.metric, points=len(points), threshold=threshold
    )
    took = time.thread_time() - begun
    near_only = threshold is not None and made.profile.near >= FEW_NEAR
    counted = threshold if near_only else None
    own: dict[str, Any] = {}
    for option in made.options:
        told = {"predicted": {k: getattr(option, k) for k in ("us", "bytes_per_point", "recall")}}
        own[option.index] = told | {"eligible": option.eligible}
        if option.us == float("inf"):
            own[option.index] = {"why": option.why, "eligible": False}
            continue
        config = {
            "metric": split.metric, "threshold": threshold, "seed": 0,
            "target_recall": made.target_recall,
        }  # fmt: skip
        index = laid_out(option, points, config)
        measured = measure(index, split.queries, truth, counted)
        sizes = {part: int(size) for part, size in index.nbytes.items()}
        beside = sum(size for part, size in sizes.items() if part not in FEATURES)
        measured["bytes_per_point"] = round(beside / len(points), 1)
        own[option.index] |= {"measured": measured, "bytes": sizes}
        print(name, option.index, told["predicted"], measured, flush=True)
    return {"metric": split.metric, "threshold": threshold, "points": len(points),
            "counted": counted, "chosen": made.index, "engines": own,
            "target_recall": made.target_recall, "plan_seconds": round(took, 2)}  # fmt: skip


def verdict(result: dict[str, Any]) -> dict[str, Any]:
    """How far the prediction of the chosen engine is off, and the choice from the fastest."""
    engines = {name: told for name, told in result["engines"].items() if "measured" in told}
    chosen = engines[result["chosen"]]
    said, had = chosen["predicted"], chosen["measured"]
    fit = {
        name: told["measured"]["us"]
        for name, told in engines.items()
        if (told["measured"]["recall"] or 1.0) >= result["target_recall"] - REACHED
    }
    fastest = min(fit, key=lambda name: fit[name]) if fit else result["chosen"]
    return {
        "chosen": result["chosen"],
        "time": round(said["us"] / had["us"], 2),
        "bytes": round(said["bytes_per_point"] / had["bytes_per_point"], 3),
        "recall": round(said["recall"] - (had["recall"] or 1.0), 3),
        "fastest": fastest,
        "slower": round(had["us"] / fit.get(fastest, had["us"]), 2),
    }


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
    lines += [
        "",
        "Of the engine that the plan takes: predicted / measured, and its time beside that of the "
        "fastest engine that reaches the target.",
        "",
        "| data | taken | time | bytes | recall | fastest | times its time | plan, s |",
        "|---|---|---:|---:|---:|---|---:|---:|",
    ]
    for name, result in results.items():
        told = verdict(result)
        lines.append(
            f"| {name}, {result['points']:,} | {told['chosen']} | {told['time']:.2f} |"
            f" {told['bytes']:.2f} | {told['recall']:+.3f} | {told['fastest']} |"
            f" {told['slower']:.2f} | {result['plan_seconds']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes beside folders."""
    parser.add_argument("datasets", nargs="*", help=f"of {', '.join(SETS)}; default: all there are")
    parser.add_argument("--limit", type=int, default=150_000, help="points of each at most")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--data", type=Path, help="folder of the data that is not shipped")
    parser.add_argument("--output", type=Path, default=HERE / "results")


def run(options: argparse.Namespace) -> int:
    """Measure, and write a JSON file and a table."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    import faiss

    from . import machine

    faiss.omp_set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "planner.json"
    known = path.exists() and options.datasets
    results = json.loads(path.read_text())["results"] if known else {}
    for name in options.datasets or (SETS if options.data else SHIPPED):
        results[name] = compare(name, options.data, options.limit, options.queries)
        head = {
            "what": "planner: predicted and measured, one thread",
            "machine": machine.describe(),
        }
        path.write_text(json.dumps(head | {"results": results}, indent=1) + "\n")
        (options.output / "planner.md").write_text(table(results))
    return 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks planner", description=__doc__)
    arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
