"""The journal as a table: results.csv and report.md, and what to take."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

from .journal import Journal
from .measures import pareto

__all__ = ["FRONT", "best_reached", "csv_text", "main_measure", "markdown", "table_rows", "taken"]

RECALLS = ("R1@1", "R1@10", "R10@10", "R10@100", "near")
FRONT = "★"
Row = dict[str, Any]

_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("", lambda row: FRONT if row["pareto"] else ""),
    ("engine", lambda row: str(row["label"])),
    ("target_recall", lambda row: f"{row['target_recall']:g}"),
    *(
        (name, lambda row, name=name: "—" if row[name] is None else f"{row[name]:.3f}")
        for name in RECALLS
    ),
    ("estimate", lambda row: f"{row['recall_estimate']:.3f}"),
    ("µs/query", lambda row: f"{row['us']:,.1f}"),
    ("queries/s", lambda row: f"{row['queries_per_s']:,.0f}"),
    ("µs one call", lambda row: f"{row['us_single']:,.1f}"),
    ("build s", lambda row: f"{row['build_s']:,.2f}"),
    ("bytes/point", lambda row: f"{row['bytes_per_point']:,.0f}"),
    ("of them index", lambda row: f"{row['index_bytes_per_point']:,.0f}"),
)


def main_measure(rows: list[Row]) -> str:
    """What recall is told by: of neighbours above the threshold, of all ten if there are none."""
    return "near" if any(row["near"] is not None for row in rows) else "R10@10"


def table_rows(journal: Journal) -> list[Row]:
    """All measurements, by engine and rising recall, with what their builds took."""
    points = journal.run["points"]
    rows = []
    for measured in journal.rows:
        built = journal.builds[measured["label"]]
        parts = built["bytes"]
        own = sum(size for name, size in parts.items() if name != "features")
        us = measured["us@10"]
        rows.append(
            measured
            | {
                "us": us,
                "queries_per_s": 1e6 / us if us else float("inf"),
                "build_s": built["build_s"],
                "bytes_per_point": sum(parts.values()) / points,
                "index_bytes_per_point": own / points,
            }
        )
    measure = main_measure(rows)
    front = set(pareto([(row[measure], row["us"]) for row in rows if row[measure] is not None]))
    for row in rows:
        row["pareto"] = (row[measure], row["us"]) in front
    order = {name: place for place, name in enumerate(dict.fromkeys(r["label"] for r in rows))}
    return sorted(rows, key=lambda row: (order[row["label"]], row["target_recall"]))


def taken(rows: list[Row], target: float) -> Row | None:
    """The fastest measurement with at least this recall; None if there is none."""
    measure = main_measure(rows)
    reached = [row for row in rows if row[measure] is not None and row[measure] >= target]
    return min(reached, key=lambda row: float(row["us"])) if reached else None


def best_reached(rows: list[Row]) -> Row:
    """The measurement of the highest recall, the fastest of several."""
    measure = main_measure(rows)
    return max(rows, key=lambda row: (row[measure] or 0.0, -row["us"]))


def csv_text(rows: list[Row]) -> str:
    """results.csv."""
    names = ["label", "engine", "target_recall", *RECALLS, "recall_estimate", "us"]
    names += ["queries_per_s", "us@100", "us_single", "build_s", "bytes_per_point"]
    names += ["index_bytes_per_point", "pareto"]
    file = io.StringIO()
    writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def facts(run: dict[str, Any]) -> list[str]:
    """What was measured, how and where: one sentence each."""
    machine, identity = run["machine"], run["identity"]
    versions = ", ".join(f"{name} {v}" for name, v in machine["packages"].items() if v)
    least = identity["threshold"]
    near = "" if least is None else f" *near*: of the ten nearest, those of at least {least:g}."
    return [
        f"Data: {run['what']}, {run['points']:,} points by {identity['metric']} "
        f"({run['features']}), {run['queries']:,} queries that are not among them; data digest "
        f"{identity['data'][:12]}, seed {identity['seed']}.",
        "Columns: *engine*, with what it was built with where that is not its default, as a "
        "collection's `index` and `index_params`; *target_recall*, what it was asked for; "
        "*R1@10*: the nearest neighbour is among ten answers, *R10@100*: the share of the ten "
        "nearest in 100; *estimate*: the recall that the engine itself promises.",
        f"Truth: every query compared with every point; ties count for either.{near}",
        f"Time: processor time of one thread, medians of {run['repeats']}, all queries in one "
        "call of k = 10 (*one call*: a query at a time); hashing of queries and points included, "
        "making features from the input not.",
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['ram_gib']} GiB, "
        f"kernel {machine['kernel']}, load {machine['load_average']}"
        f" at the start; Python {machine['python']}, {versions}; {machine['date']}.",
        f"Command: `{run['command']}`",
    ]


def advice(rows: list[Row], target: float, planned: str | None) -> str:
    """What to take, in a sentence."""
    measure = main_measure(rows)
    recall = {"near": "recall of near neighbours", "R10@10": "recall of the ten nearest"}[measure]
    best = taken(rows, target)
    plan = f' The planner (`index="auto"`) takes {planned}.' if planned else ""
    if best is None:
        top = best_reached(rows)
        return (
            f"No measured engine reaches a {recall} of {target:g}; the highest is "
            f"{top[measure]:.3f}, {top['label']} asked for {top['target_recall']:g}.{plan}"
        )
    return (
        f"For a {recall} of {target:g} take **{best['label']}**, asked for "
        f"{best['target_recall']:g}: {best[measure]:.3f} in {best['us']:,.1f} µs a query, "
        f"{best['bytes_per_point']:,.0f} bytes a point, built in {best['build_s']:,.2f} s.{plan}"
    )


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and cells."""
    return [name for name, _ in _COLUMNS], [[show(row) for _, show in _COLUMNS] for row in rows]


def markdown(
    run: dict[str, Any], rows: list[Row], left_out: list[str], target: float, pictures: list[str]
) -> str:
    """report.md."""
    head, cells = table(rows)
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    lines = [f"# closeby bench: {run['name']}", "", advice(rows, target, run["planned"]), ""]
    lines += ["| " + " | ".join(row) + " |" for row in [head, rule, *cells]]
    lines += ["", f"{FRONT}: no other has more {main_measure(rows)} in less time.", ""]
    lines += [f"![{name}]({name})\n" for name in pictures]
    lines += [f"- {fact}" for fact in facts(run)]
    if left_out:
        lines += ["", "## Left out", "", *(f"- {line}" for line in left_out)]
    return "\n".join(lines) + "\n"
