"""closeby alone from few points to many: how time and memory grow, and whether predictions hold."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from . import plans, report
from .harness import Conditions, run
from .truth import Task


def main(
    options: argparse.Namespace,
    task_of: Callable[[argparse.Namespace, str, int | None], Task],
    conditions: Conditions,
) -> int:
    """Measure every size, and write ``scale-NAME.json``, ``.md`` and ``.png``."""
    rows: list[dict[str, Any]] = []
    results = []
    for size in options.sizes:
        name = f"planted:{size + options.queries}" if options.dataset == "planted" else None
        task = task_of(options, name or options.dataset, size)
        plan = plans.Plan(
            "closeby",
            {"target_recall": options.target_recall},
            [{"target_recall": target} for target in (0.8, 0.95, 0.99)],
        )
        result = run(task, [plan], conditions)
        results.append(result)
        if result["subjects"]:
            rows += _rows(result)
    stem = options.output / f"scale-{options.dataset.split(':')[0]}"
    options.output.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps({"runs": results}, indent=1) + "\n")
    stem.with_suffix(".md").write_text(_markdown(results, rows))
    written = [stem.with_suffix(".json"), stem.with_suffix(".md")]
    try:
        from . import plots
    except ImportError:
        pass
    else:
        data = results[0]["dataset"]
        written.append(plots.curve(rows, stem.with_suffix(".png"), data["what"]))
    print("wrote", *written, sep="\n  ")
    return 0


def _rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    record = result["subjects"][0]
    points = result["dataset"]["points"]
    return [
        {
            "name": f"target_recall {row['setting']['target_recall']}",
            "points": points,
            "us": row["us@10"],
            "bytes": (report.index_bytes(record) or 0) / points,
            "build": record["build_seconds"] / points * 1e6,
            "peak": record["peak_bytes"] / points,
            "near": row["near"],
            "R10@10": row["R10@10"],
        }
        for row in record["settings"]
    ]


def _markdown(results: list[dict[str, Any]], rows: list[dict[str, Any]]) -> str:
    first = results[0]
    machine = first["machine"]
    head = [
        "points", "asked for", "near", "R10@10", "µs a query", "index B/point", "build µs/point",
        "peak B/point",
    ]  # fmt: skip
    table = [
        [
            f"{row['points']:,}",
            row["name"].removeprefix("target_recall "),
            f"{row['near']:.3f}",
            f"{row['R10@10']:.3f}",
            f"{row['us']:.1f}",
            f"{row['bytes']:.1f}",
            f"{row['build']:.1f}",
            f"{row['peak']:,.0f}",
        ]
        for row in rows
    ]
    lines = [
        f"# How closeby grows: {first['dataset']['name']}",
        "",
        f"{first['dataset']['what']}; {first['dataset']['queries']:,} queries, k = 10. "
        f"{machine['cpu']}, commit {machine['commit']}, {machine['date']}, seed {first['seed']}, "
        f"one thread, medians of {first['repeats']}.",
        "",
        *report.table(head, table),
    ]
    return "\n".join(lines) + "\n"
