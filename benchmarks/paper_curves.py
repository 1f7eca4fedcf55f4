"""The paper's own trade-offs (R, B, m, K) on real URLs, against one row with sketches.

    python -m benchmarks.paper_curves [--queries 500] [--limit N] [--lock FILE] [--output FOLDER]

Every row of the result is one index: ``PaperFlinngIndex`` around a centre in which one of R, B, m
and K is swept, ``FlinngIndex`` and ``LshIndex`` over ``target_recall``. All use the same hashes and
kernels, so what differs is the structure. Measured as the paper does: the share of the ten nearest
in 100 answers (R10@100), one thread, queries asked together, hashing included.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from closeby.index import FlinngIndex, LshIndex, SetBatch
from closeby.index.paper import PaperFlinngIndex
from closeby.service.bench.measures import pareto, recall, similarities

from . import machine
from .report import table
from .truth import prepare

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
ANSWERS = 100
LOAD = 0.25  # points with one key in one cell, as FlinngIndex has it
ROWS, HASHES = (1, 2, 3, 4), (1, 2, 4)
CELLS = (1024, 2048, 4096, 8192, 16384)
TABLES = (16, 32, 64, 128, 256)
TARGETS = (0.5, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Grid:
    """One index of the paper: R rows of B cells, m tables of K hashes."""

    R: int = 3
    B: int = 4096
    m: int = 64
    K: int = 1

    def index(self, points: int) -> PaperFlinngIndex:
        """An empty index, its range as large as keeps a cell's arrays a quarter full."""
        range_bits = max(1, min(12, round(math.log2(points / self.B / LOAD))))
        return PaperFlinngIndex(
            rows=self.R, cells=self.B, tables=self.m, K=self.K, range_bits=range_bits
        )


def sweeps() -> list[tuple[str, str, list[Grid]]]:
    """(panel, line, indexes along the line)."""
    centre = Grid()
    return [
        *(("R", f"R = {R}", [replace(centre, R=R, m=m) for m in TABLES]) for R in ROWS),
        *(("B", f"B = {B}", [replace(centre, B=B, m=m) for m in TABLES[1:]]) for B in CELLS),
        *(("m", f"m = {m}", [replace(centre, m=m, R=R) for R in ROWS]) for m in TABLES),
        *(("K", f"K = {K}", [replace(centre, K=K, m=m) for m in TABLES]) for K in HASHES),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write ``paper-curves.json``, ``.md`` and ``.png``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--limit", type=int, help="at most so many points")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lock", type=Path, help="file to lock while measuring")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--work", type=Path, default=HERE.parent / "build" / "benchmarks")
    options = parser.parse_args(arguments)
    task = prepare(options.work, "urls", None, options.limit, options.queries, 0)
    points, queries = task.split.points, task.split.queries
    assert isinstance(points, SetBatch)
    assert isinstance(queries, SetBatch)

    def measure(search: Callable[[], Any], own_bytes: dict[str, int]) -> dict[str, float]:
        times = []
        for _ in range(options.repeats):
            start = time.process_time()
            ids, _ = search()
            times.append((time.process_time() - start) / len(queries) * 1e6)
        found = similarities(points, queries, ids)
        size = sum(part for name, part in own_bytes.items() if name != "features")
        return {
            "us": float(np.median(times)),
            "R1@100": recall(task.truth, found, 1),
            "R10@100": recall(task.truth, found, 10),
            "near": recall(task.truth, found, 10, 0.5),
            "bytes": size / len(points),
        }

    with _locked(options.lock):
        described = machine.describe()
        paper = {grid: _paper(grid, points, queries, measure) for grid in _distinct()}
        ours = _ours(points, queries, measure)
    result = {
        "machine": described,
        "points": len(points),
        "queries": len(queries),
        "repeats": options.repeats,
        "paper": [vars(grid) | row for grid, row in paper.items()],
        "closeby": ours,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "paper-curves"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    stem.with_suffix(".md").write_text(_markdown(result))
    _draw(result, paper, stem.with_suffix(".png"))
    print("wrote", *(stem.with_suffix(end) for end in (".json", ".md", ".png")), sep="\n  ")
    return 0


@contextmanager
def _locked(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    with path.open("a") as file:
        flock(file, LOCK_EX)
        yield


def _distinct() -> list[Grid]:
    return list(dict.fromkeys(grid for _, _, line in sweeps() for grid in line))


def _paper(
    grid: Grid, points: SetBatch, queries: SetBatch, measure: Callable[..., dict[str, float]]
) -> dict[str, float]:
    index = grid.index(len(points))
    start = time.process_time()
    index.add(points)
    build = (time.process_time() - start) / len(points) * 1e6
    index.search(queries.slice(0, 1), 1)  # gathers the members of the cells
    row = measure(lambda: index.search(queries, ANSWERS), index.nbytes)
    return row | {"range_bits": index.range_bits, "build": build}


def _ours(
    points: SetBatch, queries: SetBatch, measure: Callable[..., dict[str, float]]
) -> list[dict[str, Any]]:
    indexes: list[tuple[str, FlinngIndex | LshIndex]] = [
        (f"FlinngIndex, m = {m}", FlinngIndex(tables=m)) for m in (64, 128)
    ]
    indexes.append(("LshIndex", LshIndex(expected_points=len(points))))
    rows: list[dict[str, Any]] = []
    for name, index in indexes:
        start = time.process_time()
        index.add(points)
        index.compact()
        build = (time.process_time() - start) / len(points) * 1e6
        for target in TARGETS:

            def search(index: Any = index, target: float = target) -> Any:
                return index.search(queries, ANSWERS, target_recall=target)

            row = measure(search, index.nbytes)
            rows.append({"name": name, "target_recall": target} | row | {"build": build})
    return rows


def _markdown(result: dict[str, Any]) -> str:
    described = result["machine"]
    numbers = ("us", "R1@100", "R10@100", "near", "bytes", "build")

    def cells(row: dict[str, Any]) -> list[str]:
        return [f"{row[name]:.3f}" if name[0] in "Rn" else f"{row[name]:,.1f}" for name in numbers]

    head = ["µs a query", "R1@100", "R10@100", "J ≥ .5", "B/point", "build µs/point"]
    paper = [
        [f"{row['R']}, {row['B']:,}, {row['m']}, {row['K']}, {row['range_bits']}", *cells(row)]
        for row in sorted(result["paper"], key=lambda row: row["R10@100"])
    ]
    ours = [[f"{row['name']}, {row['target_recall']}", *cells(row)] for row in result["closeby"]]
    lines = [
        "# The paper's decode and one row with sketches",
        "",
        f"{result['points']:,} URLs as byte 4-grams, {result['queries']} queries that are not "
        f"among them, 100 answers asked for; {described['cpu']}; commit {described['commit']}; "
        f"{described['date']}; one thread, median of {result['repeats']}, processor time; load "
        f"average at the start {described['load_average']}. *J ≥ .5*: of the ten nearest, those "
        "that near. B/point without features.",
        "",
        "![](paper-curves.png)",
        "",
        "## closeby: one row, sketches, exact re-rank",
        "",
        *table(["index, target_recall", *head], ours),
        "",
        "## The paper's structure and decode",
        "",
        *table(["R, B, m, K, range bits", *head], paper),
    ]
    return "\n".join(lines) + "\n"


def _draw(result: dict[str, Any], paper: dict[Grid, dict[str, float]], path: Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(13, 10), sharex=True, sharey=True)
    panels = {"R": "rows R", "B": "cells B", "m": "tables m", "K": "hashes K"}
    for axis, (panel, title) in zip(axes.flat, panels.items(), strict=True):
        lines = [(label, grids) for name, label, grids in sweeps() if name == panel]
        for number, (label, grids) in enumerate(lines):
            rows = [(paper[grid]["R10@100"], paper[grid]["us"]) for grid in grids]
            colour = plt.get_cmap("viridis")(number / len(lines))
            axis.plot(*zip(*rows, strict=True), "o-", ms=3, color=colour, label=label)
        for name, colour in (("FlinngIndex", "#d62728"), ("LshIndex", "#ff7f0e")):
            mine = [r for r in result["closeby"] if r["name"].startswith(name)]
            front = pareto([(row["R10@100"], row["us"]) for row in mine])
            axis.plot(*zip(*front, strict=True), "s-", color=colour, label=f"closeby: {name}")
        axis.set(yscale="log", title=f"{title} (others: R 3, B 4096, K 1)")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    for axis in axes[1]:
        axis.set_xlabel("R10@100")
    for axis in axes[:, 0]:
        axis.set_ylabel("µs a query, one thread")
    commit = result["machine"]["commit"]
    figure.suptitle(f"{result['points']:,} URLs, {result['machine']['cpu']}, commit {commit}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
