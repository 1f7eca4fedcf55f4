"""Which command makes which result, how long it takes, and what it needs beside closeby."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """Result files of one command.

    Attributes:
        files: patterns of names in ``benchmarks/results``.
        command: behind ``python -m benchmarks``.
        minutes: about, on two cores.
        needs: data that does not come with closeby, or a peer's own Python; empty: nothing.
    """

    files: tuple[str, ...]
    command: str
    minutes: float
    needs: str = ""


OUT = "benchmarks/results"
AUTHORS = "--authors-binary PROGRAM"


def _theorem(name: str) -> str:
    stem = f"{OUT}/maxip-theorem-{name}"
    return f"maxip theorems {name} --out {stem}.json --plot {stem}.png"


FIGURES = (
    Figure(("urls-*",), "compare urls", 8),
    Figure(("genes-*",), "compare genes", 2),
    Figure(("fashion-*",), "compare fashion --data FOLDER", 3, "images"),
    Figure(
        ("smiles-*",), f"compare smiles --limit 800000 --data FOLDER {AUTHORS}", 45,
        "molecules, the authors' code",
    ),
    Figure(
        ("genomes-*", "molecules-*"), f"compare genomes molecules --data FOLDER {AUTHORS}", 25,
        "genomes, molecules, the authors' code",
    ),
    Figure(("tasks.*",), "tasks", 12),
    Figure(("scale-urls*", "scale-streamed*"), "scale --streamed --sizes 1e5,1e6,1e7", 10),
    Figure(("stages-*",), "stages", 1),
    Figure(("paper-curves*",), "paper-curves", 6),
    Figure(("planner.*",), "planner", 1),
    Figure(("predictions.*",), "predictions urls genes", 2),
    Figure(("featurise.*",), "featurise", 2),
    Figure(("dedup-urls*",), "dedup", 3),
    Figure(("dedup-*",), "dedup --lines FILE", 5, "lines of text"),
    Figure(("maxip-theorem-iterations*",), _theorem("iterations"), 2),
    Figure(("maxip-theorem-exponent*",), _theorem("exponent"), 5),
    Figure(("maxip-theorem-adaptive*",), _theorem("adaptive"), 5),
    Figure(("maxip-slope*",), "maxip slope ITEMS.npy", 10, "vectors"),
    Figure(("maxip-frank-wolfe*", "maxip-cond*"), "maxip frank-wolfe ITEMS.npy", 10, "vectors"),
    Figure(("maxip-herding*",), "maxip herding ITEMS.npy", 10, "vectors"),
    Figure(("maxip-policy*",), "maxip policy ITEMS.npy", 10, "vectors"),
    Figure(("maxip-*",), "maxip search ITEMS.npy", 15, "vectors"),
    Figure(("hashing.*",), "hashing", 2),
    Figure(("service-restart*",), "service restart", 5),
    Figure(("service-queries*",), "service queries", 3),
    Figure(("service-ingest*",), "service ingest", 3),
    Figure(("service-imports*",), "service imports", 5),
    Figure(("service-store*",), "service store", 4),
    Figure(("service-cluster*",), "cluster", 15, "the extra cluster"),
    Figure(("service-peers*",), "service peers --peers-python PYTHON", 10, "Chroma, pgvector"),
    Figure(("service-kills*",), f"kills --output {OUT}/service-kills.json", 20),
    Figure(("fanout*",), "fanout", 1),
)  # fmt: skip


def figure_of(name: str) -> Figure | None:
    """What makes a result file; the first that matches."""
    for figure in FIGURES:
        if any(fnmatch.fnmatch(name, pattern) for pattern in figure.files):
            return figure
    return None


def table() -> str:
    """All of them as Markdown."""
    lines = ["| result | `python -m benchmarks …` | minutes | needs |", "|---|---|---:|---|"]
    for figure in FIGURES:
        files = ", ".join(f"`{pattern}`" for pattern in figure.files)
        lines.append(
            f"| {files} | `{figure.command}` | {figure.minutes:g} | {figure.needs or '—'} |"
        )
    return "\n".join(lines) + "\n"
