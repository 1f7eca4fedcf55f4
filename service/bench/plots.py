"""The measurements as pictures: recall against queries a second, memory, build time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from .measures import pareto
from .report import Row, main_measure

__all__ = ["draw"]

NAMES = {
    "near": "of neighbours above the threshold, share found",
    "R1@1": "nearest neighbour first (R1@1)",
    "R10@10": "ten nearest in ten answers (R10@10)",
    "R10@100": "ten nearest in 100 answers (R10@100)",
}


def draw(folder: Path, run: dict[str, Any], rows: list[Row]) -> list[Path]:
    """Write recall.png, memory.png and build.png; their paths."""
    colours = {
        engine: f"C{number % 10}"
        for number, engine in enumerate(dict.fromkeys(row["engine"] for row in rows))
    }
    title = f"{run['name']}: {run['points']:,} points, one thread"
    builds = list({row["label"]: row for row in rows}.values())
    return [
        _recall(folder / "recall.png", title, rows, colours),
        _bars(
            folder / "memory.png",
            title,
            "bytes a point, features included (pale: index alone)",
            builds,
            ("bytes_per_point", "index_bytes_per_point"),
            colours,
        ),
        _bars(
            folder / "build.png",
            title,
            "build, seconds (hashing included)",
            builds,
            ("build_s",),
            colours,
        ),
    ]


def _recall(path: Path, title: str, rows: list[Row], colours: dict[str, str]) -> Path:
    first = main_measure(rows)
    shown = [first, *(name for name in ("R1@1", "R10@10", "R10@100") if name != first)]
    figure, axes = plt.subplots(2, 2, figsize=(12, 9))
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    for axis, measure in zip(axes.flat, shown, strict=False):
        time = "us@100" if measure == "R10@100" else "us@10"
        everything = []
        for engine, colour in colours.items():
            pairs = [
                (row[measure], row[time])
                for row in rows
                if row["engine"] == engine and row[measure] is not None
            ]
            everything += pairs
            axis.plot([at for at, _ in pairs], [1e6 / us for _, us in pairs], ".", color=colour)
            front = pareto(pairs)
            xs, ys = [at for at, _ in front], [1e6 / us for _, us in front]
            axis.plot(xs, ys, "o-", ms=4, color=colour, label=engine)
        best = pareto(everything)
        xs, ys = [at for at, _ in best], [1e6 / us for _, us in best]
        axis.plot(xs, ys, "o", mfc="none", mec="black", ms=11, label="Pareto front of all")
        axis.set(title=NAMES[measure], xlabel="recall", ylabel="queries/s", yscale="log")
        axis.grid(alpha=0.3, which="both")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.suptitle(title)
    figure.legend(handles, labels, loc="lower center", ncols=6, fontsize=9)
    return _save(figure, path, 0.06)


def _bars(
    path: Path,
    title: str,
    label: str,
    builds: list[Row],
    keys: tuple[str, ...],
    colours: dict[str, str],
) -> Path:
    figure, axis = plt.subplots(figsize=(10, 1.4 + 0.4 * len(builds)))
    names = [row["label"] for row in builds]
    places = range(len(builds))
    for number, key in enumerate(keys):
        values = [max(row[key], 1e-9) for row in builds]
        shift = [place + 0.4 * number - 0.2 * (len(keys) - 1) for place in places]
        bars = axis.barh(
            shift,
            values,
            0.8 / len(keys),
            color=[colours[row["engine"]] for row in builds],
            alpha=1 - 0.5 * number,
        )
        axis.bar_label(bars, [f" {row[key]:,.3g}" for row in builds], fontsize=8)
    axis.set_yticks(list(places), names, fontsize=8)
    axis.set(xlabel=label, title=title)
    axis.margins(x=0.12)
    axis.invert_yaxis()
    return _save(figure, path, 0.0)


def _save(figure: Any, path: Path, bottom: float) -> Path:
    figure.tight_layout(rect=(0, bottom, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
