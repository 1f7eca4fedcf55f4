"""What each step of a query costs, and how far it is from what the memory could deliver.

The kernels are called step by step: hash; group tests alone (one cell is scanned); group tests
with the sketch scan; all with the exact re-rank. Differences are the steps.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from closeby.index import FlinngIndex, SetBatch
from closeby.index._native import LEAST_SHORTLIST, SHORTLIST
from closeby.index.crew import Crew
from closeby.index.segment import Segment
from closeby.index.selectors import GroupTests
from closeby.index.tuning import Effort
from closeby.index.views import SALT, HashedQueries

from . import machine, report
from .truth import Task

K = 10
# Cells that a query looks into, beside those that its index chooses, alone and with a helper.
SHARED_CELLS = (512, 2_048, 8_192)


def main(options: argparse.Namespace, task: Task) -> int:
    """Measure, and write ``stages-NAME.json`` and ``.md``."""
    split = task.split
    assert isinstance(split.points, SetBatch), "stages are measured on sets"
    index = FlinngIndex(seed=options.seed, expected_points=len(split.points))
    index.add(split.points)
    index.compact()
    (segment,) = index._searchable()  # the steps are not part of the public interface
    assert isinstance(segment, Segment)
    rows = _stages(index, segment, split.queries, options.repeats)
    result = {
        "dataset": split.name,
        "points": len(split.points),
        "queries": len(split.queries),
        "machine": machine.describe(),
        "repeats": options.repeats,
        "read_gb_per_s": {
            "memory": bandwidth(1 << 29, options.repeats),
            "cache": bandwidth(1 << 18, options.repeats),
        },
        "explain": index.explain(),
        "stages": rows,
        "shared": _shared(index, segment, split.queries, options.repeats),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    stem: Path = options.output / f"stages-{split.name}"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1, default=str) + "\n")
    stem.with_suffix(".md").write_text(markdown(result))
    print("wrote", stem.with_suffix(".json"), stem.with_suffix(".md"), sep="\n  ")
    return 0


def _stages(
    index: FlinngIndex, segment: Segment, queries: SetBatch, repeats: int
) -> list[dict[str, Any]]:
    hashed = index.hash(queries)
    effort = index._effort(segment, index.target_recall, K)
    selector = segment.selector
    if not isinstance(selector, GroupTests):
        raise SystemExit("benchmarks: too few points for group tests, a larger --limit may do")
    view = segment._view
    asked = len(queries)

    def find(cells: int, candidates: int) -> Callable[[], Any]:
        return lambda: view.candidates(hashed.keys, hashed.sketches, cells, candidates)

    hashing = _median(lambda: index.hash(queries), repeats) / asked
    tests = _median(find(1, 1), repeats) / asked
    scanned = _median(find(effort.breadth, effort.candidates), repeats) / asked
    look = partial(_search, view, hashed, effort.breadth, effort.candidates)
    whole = _median(look, repeats) / asked
    public = _median(lambda: index.search(queries, K), repeats) / asked
    positions = [len(row) for row in view.candidates(
        hashed.keys, hashed.sketches, effort.breadth, effort.candidates)[0]]  # fmt: skip
    element_bytes = segment.sets[1].nbytes / len(segment) if segment.sets is not None else 0.0
    return [
        _row("hash", hashing, float(np.mean(queries.sizes)) * 8),
        _row("group tests", tests, float(selector.bitmaps.shape[0] * selector.bitmaps.shape[2])),
        _row(
            "sketch scan",
            scanned - tests,
            float(_sketch_bytes(segment, selector.shape.group_size, effort)),
        ),
        _row("exact re-rank", whole - scanned, float(np.mean(positions)) * element_bytes),
        _row("all, called from Python", public, None),
    ]


def _shared(
    index: FlinngIndex, segment: Segment, queries: SetBatch, repeats: int
) -> list[dict[str, float]]:
    """µs of the clock for a call with one query, its cells scanned by one thread and by two."""
    chosen = index._effort(segment, index.target_recall, K)
    asked = [index.hash(queries.slice(i, i + 1)) for i in range(min(200, len(queries)))]
    crew, rows = Crew(), []

    def ask(query: HashedQueries, effort: Effort, helpers: int) -> float:
        began = time.perf_counter()
        if helpers:
            with crew.team(helpers) as team:
                segment.search(query, effort, K, 0.0, team)
        else:
            segment.search(query, effort, K, 0.0)
        return time.perf_counter() - began

    for cells in sorted({chosen.breadth, *SHARED_CELLS}):
        effort = Effort(cells, chosen.candidates)
        row: dict[str, float] = {"cells": cells}
        for helpers in (0, 1):
            times = [ask(query, effort, helpers) for _ in range(repeats) for query in asked]
            row["helped" if helpers else "alone"] = float(np.median(times)) * 1e6
        rows.append(row)
    return rows


def _sketch_bytes(segment: Segment, group_size: int, effort: Effort) -> int:
    """The first parts of the sketches in the cells, and the rest of the shortlist's."""
    scanned = min(len(segment), effort.breadth * group_size)
    listed = min(scanned, max(SHORTLIST * effort.candidates, LEAST_SHORTLIST))
    return int(scanned * segment.coarse.shape[1] + listed * segment.fine.shape[1])


def _search(view: Any, hashed: HashedQueries, cells: int, candidates: int) -> Any:
    sets = hashed.features
    assert isinstance(sets, SetBatch)
    return view.search_sets(
        hashed.keys,
        hashed.sketches,
        sets.indptr,
        sets.indices,
        SALT,
        cells,
        candidates,
        K,
        float(np.finfo(np.float32).tiny),
        hashed.highest,
    )


def _row(stage: str, seconds: float, read: float | None) -> dict[str, Any]:
    rate = read / seconds / 1e9 if read is not None and seconds > 0 else None
    return {"stage": stage, "us": seconds * 1e6, "bytes": read, "gb_per_s": rate}


def _median(call: Callable[[], Any], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return float(np.median(times))


def bandwidth(size: int, repeats: int) -> float:
    """GB/s at which one thread reads an array of `size` bytes in order."""
    array = np.ones(size // 8, np.int64)
    rounds = max(1, (1 << 28) // size)

    def read() -> None:
        for _ in range(rounds):
            array.max()

    return size * rounds / _median(read, repeats) / 1e9


def markdown(result: dict[str, Any]) -> str:
    """The table of one run."""
    machine_, read = result["machine"], result["read_gb_per_s"]
    rows = []
    for row in result["stages"]:
        kib = f"{row['bytes'] / 1024:,.1f}" if row["bytes"] is not None else "—"
        rate = row["gb_per_s"]
        rows.append(
            [
                row["stage"],
                f"{row['us']:.1f}",
                kib,
                f"{rate:.2f}" if rate else "—",
                f"{rate / read['memory']:.0%}" if rate else "—",
            ]
        )
    segment = result["explain"]["segments"][0]
    lines = [
        f"# What a query costs: {result['dataset']}, {result['points']:,} points",
        "",
        f"m = {result['explain']['tables']} tables, g = {segment['group_size']} points a cell, "
        f"r = {segment['range_bits']} bits, T = {segment['cells']} cells, "
        f"{segment['candidates']} candidates, k = {K}; one thread, {result['queries']:,} queries "
        f"in one call, medians of {result['repeats']}. {machine_['cpu']}, commit "
        f"{machine_['commit']}, {machine_['date']}. One thread reads memory in order at "
        f"{read['memory']:.1f} GB/s, the second-level cache at {read['cache']:.1f} GB/s. Load "
        f"{machine_['load_average']}; predicted {result['explain']['predicted_us']} µs a query and "
        f"{result['explain']['predicted_bytes_per_point']} bytes a point without features.",
        "",
        *report.table(
            ["stage", "µs a query", "KiB that it may read", "GB/s", "of memory speed"], rows
        ),
    ]
    if "shared" in result:
        lines += [
            "",
            "A call with one query, in µs of the clock, its cells shared by two threads or not:",
            "",
            *report.table(
                ["cells", "one thread", "two threads"],
                [
                    [f"{row['cells']:,}", f"{row['alone']:.0f}", f"{row['helped']:.0f}"]
                    for row in result["shared"]
                ],
            ),
        ]
    return "\n".join(lines) + "\n"
