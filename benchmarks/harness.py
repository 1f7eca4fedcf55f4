"""One run: every subject of a plan on one task, each in a process of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from closeby.service.bench.measures import recalls, similarities

from . import machine
from .plans import Plan
from .subjects import available
from .truth import Task

# Every library that could start threads is told not to.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "RAYON_NUM_THREADS",
    ),
    "1",
)


@dataclass(frozen=True)
class Conditions:
    """How all subjects of a run are measured.

    Attributes:
        repeats: medians are taken over so many.
        seconds: time allowed for the repeats of one setting; a slower subject is timed on fewer
            queries.
        seed: of data, queries and hashes.
        lock: a file that is locked while a subject is measured, so that two runs take turns.
    """

    repeats: int = 5
    seconds: float = 4.0
    seed: int = 0
    lock: Path | None = None


def run(task: Task, plans: list[Plan], conditions: Conditions) -> dict[str, Any]:
    """Measure all plans; what a result file holds."""
    split = task.split
    result: dict[str, Any] = {
        "dataset": {
            "name": split.name,
            "what": split.what,
            "metric": split.metric,
            "points": len(split.points),
            "queries": len(split.queries),
            "nearness": _nearness(task),
        },
        "machine": machine.describe(),
        "threads": 1,
        "seed": conditions.seed,
        "repeats": conditions.repeats,
        "subjects": [],
        "left_out": [],
    }
    for plan in plans:
        if not available(plan.subject):
            result["left_out"].append(f"{plan.label}: not installed")
            continue
        print(f"  {plan.label} …", end=" ", flush=True)
        with _locked(conditions.lock):
            record, failure = _measure(task, plan, conditions)
        if record is None:
            result["left_out"].append(f"{plan.label}: {failure}")
            print(f"failed: {failure}")
            continue
        result["subjects"].append(record)
        print(_short(record))
    return result


def _measure(
    task: Task, plan: Plan, conditions: Conditions
) -> tuple[dict[str, Any] | None, str | None]:
    with tempfile.TemporaryDirectory() as scratch:
        job = Path(scratch) / "job.json"
        job.write_text(
            json.dumps(
                {
                    "task": str(task.folder),
                    "metric": task.split.metric,
                    "subject": plan.subject,
                    "build": plan.build,
                    "settings": plan.settings,
                    "seed": conditions.seed,
                    "repeats": conditions.repeats,
                    "seconds": conditions.seconds,
                }
            )
        )
        command = [sys.executable, "-m", "benchmarks.worker", str(job)]
        done = subprocess.run(
            command,
            env=os.environ | ONE_THREAD,
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
            return None, last
        record: dict[str, Any] = json.loads(job.with_suffix(".record.json").read_text())
        for number, measured in enumerate(record["settings"]):
            with np.load(job.with_name(f"{job.stem}-{number}.npz")) as answers:
                ten, hundred = (
                    similarities(task.split.points, task.split.queries, answers[name])
                    for name in ("k10", "k100")
                )
            measured |= recalls(task.split.metric, task.truth, ten, hundred)
    build = {name: value for name, value in plan.build.items() if name != "binary"}
    return {"subject": plan.subject, "label": plan.label, "build": build} | record, None


def _nearness(task: Task) -> dict[str, float]:
    """Share of queries whose best neighbour has at least this similarity."""
    best = task.truth[:, 0]
    return {f"{level:g}": round(float(np.mean(best >= level)), 3) for level in (0.3, 0.5, 0.8)}


def _short(record: dict[str, Any]) -> str:
    best = max(record["settings"], key=lambda measured: measured["R10@10"])
    return (
        f"built in {record['build_seconds']:.1f} s; at most R10@10 {best['R10@10']:.3f}, "
        f"near {best['near']:.3f} in {best['us@10']:.0f} µs"
    )


@contextlib.contextmanager
def _locked(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
