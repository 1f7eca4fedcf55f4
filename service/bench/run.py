"""One run: the order of measurements, the clock, and what is left out."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from closeby.index import FlatIndex
from closeby.index.engine import Metric

from .journal import Journal
from .measures import FloatArray, recall, similarities
from .plans import Build, Job
from .source import Split
from .worker import DEPTHS, write_batch

__all__ = ["Conditions", "Outcome", "exact_neighbours", "measure"]

TRUTH_DEPTH = max(DEPTHS)
# Every library that could start threads is told not to.
_THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "RAYON")
ONE_THREAD = tuple(f"{library}_NUM_THREADS=1" for library in _THREADS)

Step = Callable[[str, float], None]
"""Told what is measured, and which share of all is done."""


@dataclass(frozen=True)
class Conditions:
    """How everything is measured.

    Attributes:
        metric, threshold: of the collection that the engines stand for; threshold None: no
            similarity counts as near.
        seed: of queries and hashes.
        repeats: medians are taken over so many.
        seconds: for the repeats of one setting; slower ones are timed on fewer queries.
        deadline: `time.monotonic()` at which measuring stops; None: never.
    """

    metric: Metric
    threshold: float | None
    seed: int = 0
    repeats: int = 5
    seconds: float = 0.5
    deadline: float | None = None

    def left(self) -> float | None:
        """Seconds until the deadline, None for no end."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


@dataclass
class Outcome:
    """What was not measured, one line each, and whether the time was up."""

    left_out: list[str] = field(default_factory=list)
    stopped: bool = False


def exact_neighbours(split: Split, metric: Metric) -> FloatArray:
    """Similarities of each query's 100 nearest, float32 (q, 100), falling; NaN after the last."""
    flat = FlatIndex(metric)
    flat.add(split.points)
    return np.asarray(flat.search(split.queries, TRUTH_DEPTH)[1], np.float32)


def measure(
    split: Split,
    truth: FloatArray,
    jobs: list[Job],
    conditions: Conditions,
    journal: Journal,
    step: Step,
) -> Outcome:
    """Measure what the journal does not have yet, until the deadline."""
    outcome = Outcome()
    total = sum(len(job.targets) for job in jobs)
    done = 0
    with tempfile.TemporaryDirectory(prefix="closeby-bench-") as scratch:
        folder = Path(scratch)
        write_batch(folder / "points.npz", split.points)
        write_batch(folder / "queries.npz", split.queries)
        for job in jobs:
            todo = [at for at in job.targets if (job.build.label, at) not in journal.done]
            done += len(job.targets) - len(todo)
            if not todo:
                continue
            if conditions.left() == 0:
                outcome.stopped = True
                outcome.left_out.append(_missing(job.build, todo))
                continue
            step(job.build.label, done / total)
            worker = _Worker(folder, job.build, todo, split, truth, conditions, journal)
            share = partial(_share, step, job.build.label, done, total)
            failure = worker.run(share)
            done += len(todo)
            if worker.out_of_time:
                outcome.stopped = True
                missing = [at for at in todo if (job.build.label, at) not in journal.done]
                if missing:
                    outcome.left_out.append(_missing(job.build, missing))
            elif failure is not None:
                outcome.left_out.append(f"{job.build.label}: {failure}")
    return outcome


def _share(step: Step, label: str, done: int, total: int, measured: int) -> None:
    step(label, (done + measured) / total)


def _missing(build: Build, targets: list[float]) -> str:
    return f"{build.label} at target_recall {', '.join(f'{at:g}' for at in targets)}: out of time"


class _Worker:
    """The process of one job, and what is made of its answers."""

    def __init__(
        self,
        folder: Path,
        build: Build,
        targets: list[float],
        split: Split,
        truth: FloatArray,
        conditions: Conditions,
        journal: Journal,
    ) -> None:
        self.out_of_time = False
        self._folder, self._build, self._targets = folder, build, targets
        self._split, self._truth = split, truth
        self._conditions, self._journal = conditions, journal

    def run(self, measured: Callable[[int], None]) -> str | None:
        """Measure all; None, or why that failed."""
        job = self._folder / "job.json"
        job.write_bytes(orjson.dumps(self._job()))
        module = "closeby.service.bench.worker"
        command = ["env", *ONE_THREAD, sys.executable, "-m", module, str(job)]
        with (self._folder / "stderr").open("w+") as errors:
            process = subprocess.Popen(  # noqa: S603 (our own module)
                command, stdout=subprocess.PIPE, stderr=errors
            )
            timer = self._timer(process)
            try:
                assert process.stdout is not None
                for number, line in enumerate(process.stdout):
                    self._hear(orjson.loads(line))
                    measured(number)
            finally:
                if timer is not None:
                    timer.cancel()
                process.kill()
                code = process.wait()
                if process.stdout is not None:
                    process.stdout.close()
            if not code or self.out_of_time:
                return None
            errors.seek(0)
            told = errors.read().strip().splitlines()
            return told[-1] if told else f"its process ended with {code}"

    def _job(self) -> dict[str, Any]:
        conditions, label = self._conditions, self._build.label
        parameters = dict(self._build.parameters)
        target = parameters.pop("target_recall", 0.95)
        if self._build.engine in ("flinng", "lsh"):
            parameters.setdefault("expected_points", len(self._split.points))
        return {
            "config": {
                "index": self._build.engine,
                "index_params": parameters,
                "metric": conditions.metric,
                "seed": conditions.seed,
                "target_recall": target,
                "threshold": conditions.threshold,
            },
            "index": str(self._folder / f"{label.replace('/', '_')}.index"),
            "is_built": label in self._journal.builds,
            "targets": self._targets,
            "repeats": conditions.repeats,
            "seconds": conditions.seconds,
        }

    def _timer(self, process: subprocess.Popen[bytes]) -> threading.Timer | None:
        left = self._conditions.left()
        if left is None:
            return None

        def stop() -> None:
            self.out_of_time = True
            process.kill()

        timer = threading.Timer(left, stop)
        timer.daemon = True
        timer.start()
        return timer

    def _hear(self, message: dict[str, Any]) -> None:
        label = self._build.label
        if "built" in message:
            if label not in self._journal.builds:
                self._journal.add_build(label, message["built"])
            return
        number = message.pop("number")
        with np.load(self._folder / f"{number}.npz") as answers:
            ten, hundred = (
                similarities(self._split.points, self._split.queries, answers[f"k{k}"])
                for k in DEPTHS
            )
        row = {"label": label, "engine": self._build.engine, **message}
        self._journal.add_row(row | self._recalls(ten, hundred))

    def _recalls(self, ten: FloatArray, hundred: FloatArray) -> dict[str, float | None]:
        truth, near = self._truth, self._conditions.threshold
        found = {
            "R1@1": recall(truth, ten[:, :1], 1),
            "R1@10": recall(truth, ten, 1),
            "R10@10": recall(truth, ten, 10),
            "R10@100": recall(truth, hundred, 10),
            "near": float("nan") if near is None else recall(truth, ten, 10, near),
        }
        return {name: None if np.isnan(at) else at for name, at in found.items()}
