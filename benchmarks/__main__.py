"""``python -m benchmarks``: measure, and write JSON, Markdown and PNG into a folder."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from . import figures, planner, plans, tasks, truth
from .datasets import NAMED
from .harness import Conditions, run

HERE = Path(__file__).parent
# Commands with a command line of their own: module, and what they measure.
OWN = {
    "paper-curves": ("benchmarks.paper_curves", "the paper's trade-offs R, B, m, K"),
    "featurise": ("benchmarks.featurise", "raw text and sequences to features, against peers"),
    "dedup": ("benchmarks.dedup", "near-duplicates of whole files, against peers"),
    "service": ("benchmarks.service.__main__", "restart, ingest, imports, queries, peers, store"),
    "cluster": ("benchmarks.service.cluster", "a cluster of two nodes"),
    "kills": ("tests.durability.kill_many", "points lost in many kill -9"),
    "maxip data": ("benchmarks.maxip.data", "vectors for the others, from your texts"),
    "maxip theorems": ("benchmarks.maxip.theorems", "what the MaxIP paper proves"),
    "maxip": ("benchmarks.maxip.commands", "search, frank-wolfe, slope, herding, policy"),
}
SHIPPED = [name for name, known in NAMED.items() if known.shipped]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    for name, (module, _) in OWN.items():
        words = name.split()
        if given[: len(words)] == words:
            sys.argv = [f"python -m benchmarks {name}", *given[len(words) :]]
            run = import_module(module).main
            return int((run(given[1:]) if name == "maxip" else run()) or 0)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("compare", help="closeby against its peers")
    names = ", ".join(f"{name} ({known.what})" for name, known in NAMED.items())
    compare.add_argument(
        "datasets",
        nargs="*",
        default=SHIPPED,
        help=f"{names}, lines:PATH or planted:N; default: those that come with closeby",
    )
    compare.add_argument("--only", help="subjects to measure, comma-separated; default: all")
    compare.add_argument("--authors-binary", help="the FLINNG authors' code (docs/benchmarks.md)")
    compare.add_argument("--quick", action="store_true", help="few subjects and settings")
    scale = commands.add_parser("scale", help="closeby alone, from few points to many")
    scale.add_argument("dataset", nargs="?", default="urls")
    scale.add_argument("--sizes", type=_sizes, default=[30_000, 60_000, 119_000])
    scale.add_argument(
        "--streamed", action="store_true", help="synthetic sets of any number, never in memory"
    )
    scale.add_argument("--target-recall", type=float, default=0.95)
    stages = commands.add_parser("stages", help="what each step of a query costs")
    stages.add_argument("dataset", nargs="?", default="urls")
    predictions = commands.add_parser(
        "predictions", help="recall and memory as explain() tells them, beside what is measured"
    )
    predictions.add_argument("datasets", nargs="*", help="default: all that --data has")
    hashing = commands.add_parser("hashing", help="what hashes cost, beside naive loops")
    for command in (compare, scale, stages, predictions, hashing):
        command.add_argument("--data", type=Path, help="folder of the data sets not shipped")
        command.add_argument("--limit", type=int, help="at most so many points")
        command.add_argument("--queries", type=int, default=1000)
        command.add_argument("--repeats", type=int, default=5)
        command.add_argument("--seconds", type=float, default=4.0, help="for one setting")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--lock", type=Path, help="file to lock while measuring")
        command.add_argument("--output", type=Path, default=HERE / "results")
        command.add_argument("--work", type=Path, default=HERE.parent / "build" / "benchmarks")
    fanout = commands.add_parser("fanout", help="many shards, simulated from measured latencies")
    fanout.add_argument("--queries", type=int, default=20_000)
    fanout.add_argument("--cores", type=int, default=4, help="of each shard")
    fanout.add_argument("--busy", type=float, default=0.4, help="share of the time")
    fanout.add_argument("--seed", type=int, default=0)
    fanout.add_argument("--results", type=Path, default=HERE / "results", help="what was measured")
    fanout.add_argument("--page", type=Path, help="docs/scaling.md, to write its table anew")
    fanout.add_argument("--output", type=Path, default=HERE / "results")
    tasks.arguments(commands.add_parser("tasks", help="the paper's three tasks"))
    planner.arguments(commands.add_parser("planner", help="what plans predict, and what is so"))
    everything = commands.add_parser("all", help="all figures that need nothing else")
    everything.add_argument("--list", action="store_true", help="name the commands, run none")
    everything.add_argument(
        "--from", dest="first", help="begin with this one of them, after a run that was stopped"
    )
    for name in dict.fromkeys(name.split()[0] for name in OWN):
        told = "; ".join(what for own, (_, what) in OWN.items() if own.split()[0] == name)
        commands.add_parser(name, help=told)
    draw = commands.add_parser("draw", help="write tables and plots of result files anew")
    draw.add_argument("results", nargs="+", type=Path)
    page = commands.add_parser("page", help="write the measured part of docs/benchmarks.md anew")
    page.add_argument("--page", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    page.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args(given)
    try:
        return _COMMANDS[options.command](options)
    except (FileNotFoundError, KeyError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


def _sizes(text: str) -> list[int]:
    return [int(float(size)) for size in text.split(",")]


def _conditions(options: argparse.Namespace) -> Conditions:
    return Conditions(options.repeats, options.seconds, options.seed, options.lock)


def _task(options: argparse.Namespace, name: str, limit: int | None) -> truth.Task:
    print(f"{name}: reading, and comparing {options.queries:,} queries with every point")
    return truth.prepare(options.work, name, options.data, limit, options.queries, options.seed)


def _compare(options: argparse.Namespace) -> int:
    wanted = options.only.split(",") if options.only else None
    for name in options.datasets:
        task = _task(options, name, options.limit)
        points = len(task.split.points)
        if task.split.metric == "jaccard":
            todo = plans.for_sets(points, options.quick, options.authors_binary)
        else:
            todo = plans.for_vectors(options.quick)
        if wanted is not None:
            todo = [plan for plan in todo if plan.subject in wanted]
        result = run(task, todo, _conditions(options))
        options.output.mkdir(parents=True, exist_ok=True)
        path = options.output / f"{task.split.name}-{points}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        _show(result, path)
    return 0


def _show(result: dict[str, Any], path: Path) -> None:
    from . import report

    table = path.with_suffix(".md")
    table.write_text(report.markdown(result))
    written = [path, table]
    if plans.available_plots():
        from . import plots

        written += plots.draw(result, path.with_suffix(""))
    print("wrote", *written, sep="\n  ")


def _scale(options: argparse.Namespace) -> int:
    from . import growth, scale

    if options.streamed:
        return growth.main(options)
    return scale.main(options, _task, _conditions(options))


def _stages(options: argparse.Namespace) -> int:
    from . import stages

    return stages.main(options, _task(options, options.dataset, options.limit))


def _predictions(options: argparse.Namespace) -> int:
    from . import predictions

    return predictions.main(options)


def _fanout(options: argparse.Namespace) -> int:
    from . import fanout

    return fanout.main(options)


def _hashing(options: argparse.Namespace) -> int:
    from . import hashing

    return hashing.main(options)


def _draw(options: argparse.Namespace) -> int:
    for path in options.results:
        _show(json.loads(path.read_text()), path)
    return 0


def _page(options: argparse.Namespace) -> int:
    from . import page

    page.write(options.page, options.results)
    return 0


def _all(options: argparse.Namespace) -> int:
    """Every command whose data is there, each in a process of its own; none stops the others."""
    todo = [figure for figure in figures.FIGURES if not figure.needs]
    if options.first is not None:
        names = [figure.command for figure in todo]
        if options.first not in names:
            raise KeyError(f"there is no command {options.first!r}; see all --list")
        todo = todo[names.index(options.first) :]
    failed = []
    for figure in todo:
        print(f"== {figure.command} (about {figure.minutes:g} minutes)", flush=True)
        if options.list:
            continue
        command = [sys.executable, "-m", "benchmarks", *figure.command.split()]
        try:
            if subprocess.run(command, cwd=HERE.parent, check=False).returncode:
                failed.append(figure.command)
        except KeyboardInterrupt:
            print(f"benchmarks: stopped; all --from {figure.command!r} goes on", file=sys.stderr)
            return 130
    print(f"== {len(todo)} commands, about {sum(figure.minutes for figure in todo):g} minutes")
    for name in failed:
        print(f"benchmarks: failed: python -m benchmarks {name}", file=sys.stderr)
    return 1 if failed else 0


_COMMANDS = {
    "all": _all,
    "tasks": tasks.main,
    "planner": planner.run,
    "compare": _compare,
    "scale": _scale,
    "stages": _stages,
    "predictions": _predictions,
    "hashing": _hashing,
    "draw": _draw,
    "fanout": _fanout,
    "page": _page,
}

if __name__ == "__main__":
    sys.exit(main())
