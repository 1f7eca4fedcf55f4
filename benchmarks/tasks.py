"""``python -m benchmarks tasks``: the paper's three tasks, with its measures, against its rivals.

    genomes     sets of k-mers: RefSeq sketches with --data, else the resistance genes
    urls        sets of 4-grams: the URLs that come with closeby
    embeddings  dense vectors: images with --data, else 4-grams of URLs folded into 256 dimensions

Engels, Coleman and Shrivastava (NeurIPS 2021) tell recall as R1@1, R1@10, R10@100 and R100@100, the
milliseconds of a query, the time of the build and the memory. So do these tables, for every
setting of every subject; what loses stays in. Each subject runs in a process of its own with one
thread; how, is in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from . import plans, truth
from .harness import Conditions, run
from .plans import Plan
from .report import index_bytes, table

HERE = Path(__file__).parent
MEASURES = ("R1@1", "R1@10", "R10@100", "R100@100")
# More URLs take the slowest peers longer than the three tasks together may.
LIMIT = 60_000
# Data by task: of the folder that --data names, and of closeby's own.
DATA = {
    "genomes": ("genomes", "genes"),
    "urls": ("urls", "urls"),
    "embeddings": ("fashion", "url-vectors"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("tasks", nargs="*", help=f"of {', '.join(DATA)}; default: all")
    parser.add_argument("--data", type=Path, help="folder of the data sets not shipped")
    parser.add_argument("--limit", type=int, default=LIMIT, help="points of each at most")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for one setting")
    parser.add_argument("--only", help="subjects to measure, comma-separated; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lock", type=Path, help="file to lock while measuring")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--work", type=Path, default=HERE.parent / "build" / "benchmarks")


def main(options: argparse.Namespace) -> int:
    """Measure, and write ``tasks.json``, ``tasks.md`` and ``tasks.png``."""
    conditions = Conditions(options.repeats, options.seconds, options.seed, options.lock)
    wanted = options.only.split(",") if options.only else None
    results: dict[str, Any] = {}
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "tasks"
    for name in options.tasks or DATA:
        dataset = DATA[name][0 if options.data else 1]
        print(f"{name}: {dataset}", flush=True)
        task = truth.prepare(
            options.work, dataset, options.data, options.limit, options.queries, options.seed
        )
        todo = subjects(task.split.metric, len(task.split.points))
        if wanted is not None:
            todo = [plan for plan in todo if plan.subject in wanted]
        results[name] = run(task, todo, conditions)
        stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        stem.with_suffix(".md").write_text(markdown(results))
    if plans.available_plots():
        from .plots import draw_tasks

        draw_tasks(results, stem.with_suffix(".png"))
    print("wrote", f"{stem}.json", f"{stem}.md", sep="\n  ")
    return 0


def subjects(metric: str, points: int) -> list[Plan]:
    """What is measured: the paper's rivals, and what one would take today."""
    planned = (
        plans.for_sets(points, False, None) if metric == "jaccard" else plans.for_vectors(False)
    )
    own = [{"candidates": count} for count in (0, 100, 400)]
    cells = max(64, 1 << round(points**0.5 * 2).bit_length())
    shape = {"rows": 3, "cells": min(4_096, cells), "tables": 64, "range_bits": 8}
    return [*planned, Plan("FLINNG paper mode", shape, own)]


def markdown(results: dict[str, Any]) -> str:
    """A table for each task, a row for each setting."""
    lines = ["# The paper's three tasks", ""]
    for name, result in results.items():
        data, machine = result["dataset"], result["machine"]
        lines += [
            f"## {name}: {data['points']:,} points",
            "",
            f"{data['what']}; {data['queries']:,} queries that are not among them. "
            f"{machine['cpu']}, commit {machine['commit']}, {machine['date']}, load "
            f"{machine['load_average']}, seed {result['seed']}, one thread, processor time, "
            f"medians of {result['repeats']}; ms for 100 answers (*1@1*: for ten).",
            "",
            *table(
                ["subject", "setting", *MEASURES, "ms 1@1", "ms", "build s", "index MB", "MB"],
                [row for record in result["subjects"] for row in _rows(record)],
            ),
            "",
        ]
        if result["left_out"]:
            lines += ["Left out: " + "; ".join(result["left_out"]) + ".", ""]
    return "\n".join(lines)


def _rows(record: dict[str, Any]) -> list[list[str]]:
    own = index_bytes(record)
    size = "—" if own is None else f"{own / 1e6:,.1f}"
    rows = []
    for row in record["settings"]:
        setting = ", ".join(f"{name} {value}" for name, value in row["setting"].items()) or "—"
        rows.append(
            [record["label"], setting]
            + [f"{row[measure]:.3f}" for measure in MEASURES]
            + [f"{row[time] / 1e3:.3f}" for time in ("us@10", "us@100")]
            + [f"{record['build_seconds']:.2f}", size, f"{record['resident_bytes'] / 1e6:,.1f}"]
        )
    return rows
