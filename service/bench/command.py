"""`closeby bench` at the terminal: flags to a run, progress, files, exit code."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from closeby.client import Client, ClosebyClientError
from closeby.index import ClosebyError, InvalidInputError, SetBatch, planner
from closeby.loaders import LoaderError
from closeby.service.feature_flags import WrongUseError, named_features
from closeby.service.terminal import FAILED, WRONG_USE, bar, first_line, refuse
from rich.console import Console
from rich.markup import escape

from . import machine, page, plans, report, run
from .errors import BenchError
from .journal import Journal
from .source import Data, Split, of_collection, of_file, split

__all__ = ["BenchFlags", "run_bench"]

PACKAGES = ("closeby", "numpy", "faiss-cpu")
TOLD_LEFT_OUT = 5
"""Lines at the terminal about what was left out; all are in the report."""


@dataclass(frozen=True, slots=True)
class BenchFlags:
    """What the flags say; None: not given."""

    file: Path | None
    collection: str | None
    url: str
    output: Path
    time_limit: float | None
    metric: str | None
    shingles: int | None
    unit: str
    words: int | None
    kmers: int | None
    format: str | None
    columns: str | None
    engines: str | None
    queries: int
    limit: int | None
    threshold: float | None
    target_recall: float
    seed: int
    api_key_file: Path | None


def run_bench(flags: BenchFlags) -> int:
    """Run the command: 0 if the recall was reached, 1 if not or if it failed, 2 for wrong flags."""
    console = Console(stderr=True, highlight=False)
    try:
        return _bench(console, flags)
    except (WrongUseError, BenchError) as error:
        return refuse(str(error), WRONG_USE)
    except InvalidInputError as error:
        return refuse(f"{error.field or 'input'}: {error}", WRONG_USE)
    except (ClosebyClientError, LoaderError, ClosebyError) as error:
        return refuse(str(error), FAILED)
    except OSError as error:
        shown = f"{error.filename}: " if error.filename else ""
        return refuse(f"{shown}{error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return refuse("stopped; the same command goes on where it was", 130)


def _bench(console: Console, flags: BenchFlags) -> int:
    begun = time.monotonic()
    target = plans.check_target(flags.target_recall)
    if flags.file is not None and flags.collection is not None:
        raise WrongUseError("name a FILE or a --collection, not both")
    if flags.file is None and flags.collection is None:
        raise WrongUseError("name a FILE, or a --collection of a server")
    plans.check_names(flags.engines)
    flags.output.mkdir(parents=True, exist_ok=True)
    with bar(console) as shown:
        task = shown.add_task("reading", total=None, rate="")
        data = _data(flags)
        engines = plans.check_engines(flags.engines, data.metric)
        divided = split(data, flags.queries, flags.seed)
        threshold = plans.check_threshold(flags.threshold, data.metric)
        deadline = None if flags.time_limit is None else begun + flags.time_limit
        conditions = run.Conditions(data.metric, threshold, flags.seed, deadline=deadline)
        journal = Journal(flags.output, _described(data, divided, conditions, flags))
        shown.update(task, description="comparing exactly")
        truth = run.exact_neighbours(divided, data.metric)
        shown.update(task, description="planning")
        plan = _plan(divided, conditions, target)
        journal.run["planned"] = " ".join(
            [plan.index, *(f"{name}={value}" for name, value in plan.index_params.items())]
        )
        planned = {option.index: option.index_params for option in plan.options}
        shown.update(task, total=1.0)
        outcome = run.measure(
            divided,
            truth,
            plans.jobs(engines, planned, target),
            conditions,
            journal,
            lambda what, share: shown.update(task, description=what, completed=share),
        )
    if not journal.rows:
        why = "; ".join(outcome.left_out[:3])
        raise BenchError(f"nothing was measured ({why}); give more --time-limit, or --limit rows")
    return _write(console, flags.output, journal, outcome, target)


def _data(flags: BenchFlags) -> Data:
    if flags.collection is not None:
        key = None if flags.api_key_file is None else first_line(flags.api_key_file)
        with Client(flags.url, api_key=key) as db:
            return of_collection(db, flags.collection, flags.limit)
    assert flags.file is not None
    return of_file(
        flags.file,
        metric=flags.metric,
        features=named_features(flags.shingles, flags.unit, flags.words, flags.kmers),
        unit=flags.unit,
        format=flags.format,
        options=_columns(flags.columns),
        limit=flags.limit,
    )


def _columns(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        columns = orjson.loads(text)
    except orjson.JSONDecodeError:
        columns = None
    if not isinstance(columns, dict):
        raise WrongUseError(f"--columns {text} is no JSON object")
    return columns


def _described(
    data: Data, divided: Split, conditions: run.Conditions, flags: BenchFlags
) -> dict[str, Any]:
    """What the journal says of a run; `identity` is what a later one must share to go on."""
    return {
        "identity": {
            "data": data.digest,
            "metric": data.metric,
            "threshold": conditions.threshold,
            "seed": conditions.seed,
            "queries": len(divided.queries),
            "points": len(divided.points),
            "repeats": conditions.repeats,
        },
        "name": data.name,
        "what": data.what,
        "features": orjson.dumps(data.features).decode(),
        "points": len(divided.points),
        "queries": len(divided.queries),
        "bad_rows": data.left_out,
        "repeats": conditions.repeats,
        "planned": None,
        "machine": machine.describe(PACKAGES),
        "command": shlex.join(["closeby", *sys.argv[1:]]),
        "time_limit": flags.time_limit,
    }


def _plan(divided: Split, conditions: run.Conditions, target: float) -> planner.Plan:
    """What `index="auto"` would take for the same points."""
    points = divided.points
    count = min(len(points), planner.SAMPLE)
    rng = np.random.default_rng(conditions.seed)
    places = np.sort(rng.choice(len(points), count, replace=False))
    sample = points.take(places) if isinstance(points, SetBatch) else points[places]
    return planner.plan(
        sample,
        conditions.metric,
        points=len(points),
        target_recall=target,
        threshold=conditions.threshold,
        seed=conditions.seed,
    )


def _write(
    console: Console, folder: Path, journal: Journal, outcome: run.Outcome, target: float
) -> int:
    rows = report.table_rows(journal)
    described = journal.run
    left_out: list[str] = []
    if described["bad_rows"]:
        left_out.append(f"{described['bad_rows']:,} rows of the data that are no points")
    pictures: list[Path] = []
    if find_spec("matplotlib") is None:
        left_out.append("pictures: matplotlib is not installed; pip install 'closeby[bench]'")
    else:
        from . import plots

        pictures = plots.draw(folder, described, rows)
    left_out += outcome.left_out
    (folder / "results.csv").write_text(report.csv_text(rows))
    names = [path.name for path in pictures]
    (folder / "report.md").write_text(report.markdown(described, rows, left_out, target, names))
    (folder / "report.html").write_text(page.page(described, rows, left_out, target, pictures))
    told = report.advice(rows, target, described["planned"]).replace("**", "")
    console.print(escape(told), soft_wrap=True)
    for line in left_out[:TOLD_LEFT_OUT]:
        console.print(escape(f"left out: {line}"), style="yellow", soft_wrap=True)
    if len(left_out) > TOLD_LEFT_OUT:
        more = f"left out: {len(left_out) - TOLD_LEFT_OUT} more, named in report.md"
        console.print(more, style="yellow", soft_wrap=True)
    if outcome.stopped:
        console.print("the time was up; the same command goes on where it was", style="yellow")
    sys.stdout.write(f"{folder / 'report.html'}\n")
    if report.taken(rows, target) is None:
        hint = "name more --engines (flat finds all), lower --target-recall"
        return refuse(f"recall {target:g} was not reached; {hint}", FAILED)
    return 0
