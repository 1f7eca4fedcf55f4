"""Result files to Markdown: a summary at equal recall, and every row."""

from __future__ import annotations

import math
from typing import Any

from closeby.service.bench.measures import BOUNDS

# Columns of the summary: the fastest setting with at least this much of this measure.
GOALS = (
    ("near1@1", 0.99, "us@10"),
    ("near", 0.95, "us@10"),
    ("near", 0.98, "us@10"),
    ("R10@10", 0.9, "us@10"),
    ("R10@10", 0.95, "us@10"),
    ("R10@100", 0.95, "us@100"),
)
MEASURES = ("R1@1", "near1@1", "R10@10", "R10@100", "R100@100", "near", "far")


def markdown(result: dict[str, Any]) -> str:
    """The whole report of one run."""
    data, machine = result["dataset"], result["machine"]
    bounds = BOUNDS[data["metric"]]
    score = "J" if data["metric"] == "jaccard" else "cosine"
    packages = ", ".join(f"{name} {v}" for name, v in machine["packages"].items() if v)
    lines = [
        f"# {data['name']}, {data['points']:,} points",
        "",
        f"{data['what']}; {data['queries']:,} queries that are not among the points. Best "
        + ", ".join(f"neighbour ≥ {at}: {share:.2f}" for at, share in data["nearness"].items())
        + " of the queries.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['ram_gib']} GiB; "
        f"{machine['compiler']}; Python {machine['python']}; {packages}; commit "
        f"{machine['commit']}; {machine['date']}; seed {result['seed']}; one thread; medians of "
        f"{result['repeats']}; load average at the start {machine['load_average']}.",
        "",
        f"*near*: of the ten true neighbours, those with {score} ≥ {bounds.near:g} (*near1@1*: of "
        f"the nearest, likewise); *far*: those with {score} < {bounds.far:g}.",
        "",
        "## Fastest setting that reaches a recall",
        "",
        "µs a query, of processor time, queries asked together; — where no setting reaches it.",
        "",
        *summary(result),
        "",
        "## Every setting",
        "",
        *_rows(result),
    ]
    promises = _promises(result)
    if promises:
        lines += ["", "## What was promised", "", *promises]
    if result["left_out"]:
        lines += ["", "Left out: " + "; ".join(result["left_out"]) + "."]
    return "\n".join(lines) + "\n"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table: the first column to the left, the others to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return ["| " + " | ".join(row) + " |" for row in [head, rule, *rows]]


def _number(value: float | None, digits: int = 0) -> str:
    if value is None or math.isnan(value):
        return "—"
    return f"{value:,.{digits}f}"


def fastest(record: dict[str, Any], measure: str, least: float, time: str) -> float | None:
    """µs of the fastest setting with at least this recall; None if none has."""
    times = [row[time] for row in record["settings"] if row[measure] >= least]
    return min(times) if times else None


def index_bytes(record: dict[str, Any]) -> int | None:
    """Bytes of the index without the features, by the engine's own account; None if it has none."""
    parts = {name: size for name, size in record["own_bytes"].items() if name != "features"}
    return sum(parts.values()) if parts else None


def summary(result: dict[str, Any]) -> list[str]:
    """The table of the fastest settings at equal recall: Markdown lines."""
    head = ["subject", *(f"{measure} ≥ {least:g}" for measure, least, _ in GOALS)]
    head += ["build µs/point", "index B/point", "resident B/point"]
    points = result["dataset"]["points"]
    rows = []
    for record in result["subjects"]:
        row = [record["label"]]
        row += [_number(fastest(record, *goal), 1) for goal in GOALS]
        own = index_bytes(record)
        row += [
            _number(record["build_seconds"] / points * 1e6, 1),
            _number(own / points if own is not None else None),
            _number(record["resident_bytes"] / points),
        ]
        rows.append(row)
    return table(head, rows)


def _rows(result: dict[str, Any]) -> list[str]:
    head = ["subject", "setting", "µs k=10", "µs k=100", "µs single call", *MEASURES]
    rows = []
    for record in result["subjects"]:
        for row in record["settings"]:
            setting = ", ".join(f"{name} {value}" for name, value in row["setting"].items())
            times = [row["us@10"], row["us@100"], row["us_single"]]
            rows.append(
                [record["label"], setting or "—"]
                + [_number(time, 1) for time in times]
                + [_number(row[measure], 3) for measure in MEASURES]
            )
    return table(head, rows)


def _promises(result: dict[str, Any]) -> list[str]:
    """Predicted recall at the threshold against the measured recall of near neighbours."""
    rows = [
        [
            record["label"],
            f"{row['setting']['target_recall']:g}",
            f"{row['promised']:.3f}",
            f"{row['near']:.3f}",
            f"{row['near'] - row['promised']:+.3f}",
        ]
        for record in result["subjects"]
        for row in record["settings"]
        if row.get("promised") is not None
    ]
    return table(["index", "asked for", "promised", "near", "difference"], rows) if rows else []
