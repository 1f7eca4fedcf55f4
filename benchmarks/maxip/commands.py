"""``python -m benchmarks maxip``: one command for each figure of MaxIP and conditional gradients.

Each writes OUTPUT/maxip-NAME-DATA.json, .md and, where matplotlib is installed, .png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.machine import describe

from . import choosing, conditional, search

Found = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """How one figure is measured, told and drawn."""

    what: str
    run: Callable[[np.ndarray, argparse.Namespace], Found]
    table: Callable[[Found], str]
    draw: Callable[[Found, Any], None]


def _search(items: np.ndarray, options: argparse.Namespace) -> Found:
    source = np.load(options.queries, mmap_mode="r") if options.queries else items
    return search.main(items, source, options.only, options.rounds)


COMMANDS = {
    "search": Command("closeby, BLAS, FAISS and ScaNN", _search, search.markdown, search.plot),
    "frank-wolfe": Command(
        "time to the objective of exact Frank-Wolfe",
        lambda items, options: conditional.main_frank_wolfe(items, options.target),
        conditional.frank_wolfe_table,
        conditional.plot_frank_wolfe,
    ),
    "slope": Command(
        "time to the objective of exact Frank-Wolfe, by atoms",
        lambda items, _: conditional.main_slope(items),
        conditional.slope_table,
        conditional.plot_slope,
    ),
    "herding": Command(
        "herding: points whose mean is that of all",
        lambda items, options: choosing.main_herding(items, options.choose),
        choosing.herding_table,
        choosing.plot_herding,
    ),
    "policy": Command(
        "policy gradient over half of the items as actions",
        lambda items, _: choosing.main_policy(items),
        choosing.policy_table,
        choosing.plot_policy,
    ),
}


def main(arguments: list[str]) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    faiss.omp_set_num_threads(1)
    command = COMMANDS[options.command]
    items = np.ascontiguousarray(np.load(options.items, mmap_mode="r")[: options.n], np.float32)
    data = f"{options.items.parent.name}, {items.shape[0]:,} x {items.shape[1]}"
    found = {"data": data, "machine": describe()} | command.run(items, options)
    name = options.command + ("-outside" if getattr(options, "target", "") == "outside" else "")
    path = options.output / f"maxip-{name}-{options.items.parent.name}"
    _write(path, command, found)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks maxip", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.what)
        one.add_argument("items", type=Path, help="float32 (n, d), see benchmarks/maxip/data.py")
        one.add_argument("--n", type=int, default=1_000_000, help="at most so many items")
        one.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
        if name == "search":
            one.add_argument("--queries", type=Path, help="of a file of their own; else items")
            one.add_argument("--only", action="append", default=[], help="subjects to measure")
            one.add_argument("--rounds", type=int, default=search.REPEATS)
        if name == "frank-wolfe":
            one.add_argument("--target", choices=("mixture", "outside"), default="mixture")
        if name == "herding":
            one.add_argument("--choose", type=int, default=10_000)
    return parser


def _write(path: Path, command: Command, found: Found) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(".md")]
    machine = found["machine"]
    written[0].write_text(
        f"# {command.what}: {found['data']}\n\n{command.table(found)}\n\n"
        f"{machine['cpu']}, one thread, load {machine['load_average']}, {machine['date']}, commit "
        f"{machine['commit']}.\n"
    )
    try:
        written.append(_draw(path.with_suffix(".png"), command, found))
    except ImportError as missing:
        print(f"no picture: {missing}")
    for row in found.get("frank_wolfe", []):
        row.pop("curve", None)  # thousands of steps, which the picture shows
    found.pop("curves", None)
    written.append(path.with_suffix(".json"))
    written[-1].write_text(json.dumps(found, indent=1) + "\n")
    print("wrote", *written, sep="\n  ")


def _draw(path: Path, command: Command, found: Found) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    command.draw(found, axes)
    axes.set_title(f"{command.what}: {found['data']}", fontsize=10)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
