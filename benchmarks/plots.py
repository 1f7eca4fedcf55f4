"""Result files to pictures: recall against time, memory, build time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from closeby.service.bench.measures import pareto
from matplotlib import pyplot as plt

from .report import index_bytes

PANELS = (
    ("R1@1", "us@10", "nearest neighbour first (R1@1)"),
    ("near", "us@10", "near neighbours among the first ten"),
    ("R10@10", "us@10", "ten nearest in ten answers (R10@10)"),
    ("R10@100", "us@100", "ten nearest in 100 answers (R10@100)"),
)
COLOURS = {
    "closeby": "#d62728",
    "closeby LSH": "#17becf",
    "closeby exact": "#555555",
    "closeby sketches": "#ff9896",
    "FAISS binary flat": "#8c564b",
    "FAISS binary IVF": "#e377c2",
    "FAISS binary HNSW": "#1f77b4",
    "nmslib HNSW": "#2ca02c",
    "datasketch LSH": "#ff7f0e",
    "rensa LSH": "#bcbd22",
    "FLINNG authors": "#9467bd",
    "FLINNG paper mode": "#7f7f7f",
    "FAISS HNSW": "#1f77b4",
    "hnswlib": "#2ca02c",
    "exact BLAS": "#000000",
}


def draw(result: dict[str, Any], stem: Path) -> list[Path]:
    """Write ``STEM-recall.png``, ``STEM-memory.png`` and ``STEM-build.png``."""
    return [
        _recall(result, stem.with_name(f"{stem.name}-recall.png")),
        _bars(
            result,
            stem.with_name(f"{stem.name}-memory.png"),
            "bytes a point",
            [("index without features", _own), ("resident, all included", _resident)],
        ),
        _bars(
            result,
            stem.with_name(f"{stem.name}-build.png"),
            "build, µs a point (hashing included)",
            [("build", _build)],
        ),
    ]


def draw_tasks(results: dict[str, Any], path: Path) -> None:
    """The paper's measures against milliseconds: a row of panels for each task."""
    measures = (
        ("R1@1", "us@10"),
        ("R1@10", "us@10"),
        ("R10@100", "us@100"),
        ("R100@100", "us@100"),
    )
    figure, grid = plt.subplots(
        len(results), len(measures), figsize=(15, 3.6 * len(results)), squeeze=False
    )
    for row, (name, result) in zip(grid, results.items(), strict=True):
        for axes, (measure, time) in zip(row, measures, strict=True):
            for record in result["subjects"]:
                points = [(one[measure], one[time] / 1e3) for one in record["settings"]]
                front = pareto([point for point in points if point[0] > 0]) or points
                axes.plot(
                    *zip(*front, strict=True), marker="o", markersize=3, linewidth=1,
                    color=COLOURS.get(record["subject"]),
                )  # fmt: skip
            axes.set_yscale("log")
            axes.set_xlabel(measure)
            axes.grid(alpha=0.3)
        row[0].set_ylabel(f"{name}, {result['dataset']['points']:,} points\nms a query")
    names = dict.fromkeys(r["subject"] for result in results.values() for r in result["subjects"])
    handles = [
        plt.Line2D([], [], color=COLOURS.get(name), marker="o", label=name) for name in names
    ]
    figure.legend(handles=handles, loc="lower center", ncols=6, fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _title(result: dict[str, Any]) -> str:
    data, machine = result["dataset"], result["machine"]
    return f"{data['name']}: {data['points']:,} points, one thread, {machine['cpu']}"


def _recall(result: dict[str, Any], path: Path) -> Path:
    figure, axes = plt.subplots(2, 2, figsize=(13, 10))
    for axis, (measure, time, title) in zip(axes.flat, PANELS, strict=True):
        everything = []
        for subject in dict.fromkeys(record["subject"] for record in result["subjects"]):
            rows = [
                (row[measure], row[time])
                for record in result["subjects"]
                if record["subject"] == subject
                for row in record["settings"]
                if row[measure] == row[measure]
            ]
            colour = COLOURS.get(subject, "#999999")
            axis.plot(*zip(*rows, strict=True), ".", color=colour, alpha=0.35) if rows else None
            front = pareto(rows)
            if front:
                axis.plot(*zip(*front, strict=True), "o-", color=colour, label=subject, ms=4)
            everything += rows
        best = pareto(everything)
        if best:
            xs, ys = zip(*best, strict=True)
            axis.plot(xs, ys, "o", mfc="none", mec="black", ms=11, label="Pareto front of all")
        axis.set(title=title, xlabel="recall", ylabel="µs a query", yscale="log")
        axis.grid(alpha=0.3, which="both")
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles |= {
            label: line for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
    figure.suptitle(_title(result))
    figure.legend(handles.values(), handles, loc="lower center", ncols=5, fontsize=9)
    return _save(figure, path, bottom=0.07)


def _own(record: dict[str, Any], points: int) -> float | None:
    own = index_bytes(record)
    return own / points if own is not None else None


def _resident(record: dict[str, Any], points: int) -> float | None:
    return float(record["resident_bytes"]) / points


def _build(record: dict[str, Any], points: int) -> float | None:
    return float(record["build_seconds"]) / points * 1e6


def _bars(result: dict[str, Any], path: Path, label: str, series: list[Any]) -> Path:
    records = result["subjects"]
    points = result["dataset"]["points"]
    figure, axis = plt.subplots(figsize=(11, 1.5 + 0.45 * len(records)))
    height = 0.8 / len(series)
    for number, (name, value_of) in enumerate(series):
        values = [value_of(record, points) or 0 for record in records]
        places = [row + number * height for row in range(len(records))]
        colours = [COLOURS.get(record["subject"], "#999999") for record in records]
        bars = axis.barh(places, values, height * 0.9, color=colours, alpha=1 - 0.5 * number)
        axis.bar_label(bars, [f"{v:,.4g}  {name}" if v else "" for v in values], fontsize=7)
    middle = [row + (len(series) - 1) * height / 2 for row in range(len(records))]
    axis.set_yticks(middle, [record["label"] for record in records], fontsize=8)
    axis.set(xscale="log", xlabel=label, title=_title(result))
    axis.set_xlim(right=axis.get_xlim()[1] * 6)
    axis.invert_yaxis()
    return _save(figure, path)


def curve(rows: list[dict[str, Any]], path: Path, title: str) -> Path:
    """µs a query and bytes a point against n, of one engine, with √n for comparison."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5))
    for axis, key, label in zip(
        axes, ("us", "bytes"), ("µs a query", "index bytes a point"), strict=True
    ):
        for name in dict.fromkeys(row["name"] for row in rows):
            mine = [row for row in rows if row["name"] == name]
            axis.plot([r["points"] for r in mine], [r[key] for r in mine], "o-", label=name)
        axis.set(xscale="log", xlabel="points", ylabel=label)
        axis.grid(alpha=0.3, which="both")
    first = rows[0]
    sizes = sorted({row["points"] for row in rows})
    root = [first["us"] * (n / first["points"]) ** 0.5 for n in sizes]
    axes[0].plot(sizes, root, "k:", label="√n")
    axes[0].set(yscale="log")
    axes[0].legend(fontsize=8)
    figure.suptitle(title)
    return _save(figure, path)


def _save(figure: Any, path: Path, bottom: float = 0.0) -> Path:
    figure.tight_layout(rect=(0, bottom, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
