"""One subject in a process of its own: build it, ask it, measure time and memory.

``python -m benchmarks.worker JOB.json`` reads the job, and writes its record and answers beside it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import truth
from .subjects import Subject, subject_from

SINGLES = 200  # queries that are also asked one at a time


def main() -> None:
    """Do the job that the command line names."""
    job_path = Path(sys.argv[1])
    job = json.loads(job_path.read_text())
    points, queries = truth.read(Path(job["task"]))
    subject = subject_from(job["subject"], job["metric"], job["seed"], job["build"])
    native = subject.convert(points)
    record: dict[str, Any] = _build(subject, native)
    del native
    if not subject.keeps_points:
        del points
    prepared = subject.convert(queries)
    singles = [subject.convert(part) for part in _rows(queries, min(SINGLES, len(queries)))]
    record["settings"] = []
    for number, setting in enumerate(job["settings"]):
        measured: dict[str, Any] = {"setting": setting}
        answers = {}
        for k in (10, 100):
            answers[f"k{k}"], times = _timed(subject, prepared, k, setting, job)
            measured[f"us@{k}"], measured[f"cpu_us@{k}"], measured[f"repeats@{k}"] = times
        measured["us_single"] = _median_single(subject, singles, setting)
        np.savez(job_path.with_name(f"{job_path.stem}-{number}.npz"), **answers)
        record["settings"].append(measured)
    record["explain"] = subject.explain()
    record |= subject.reported()
    job_path.with_suffix(".record.json").write_text(json.dumps(record, default=str))


def _build(subject: Subject, native: Any) -> dict[str, Any]:
    _trim()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory begins here
    before = _resident("VmRSS")
    start, start_cpu = time.perf_counter(), time.process_time()
    subject.build(native)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak = _resident("VmHWM") - before
    _trim()
    return {
        "build_seconds": seconds,
        "build_cpu_seconds": cpu,
        "resident_bytes": _resident("VmRSS") - before,
        "peak_bytes": peak,
        "own_bytes": subject.nbytes(),
    }


def _timed(
    subject: Subject, queries: Any, k: int, setting: dict[str, Any], job: dict[str, Any]
) -> tuple[np.ndarray[Any, Any], tuple[float, float, int]]:
    """Answers to all queries, and the median time for one over the repeats."""
    start = time.perf_counter()
    answers = subject.search(queries, k, **setting)
    first = time.perf_counter() - start
    reported = subject.reported_seconds()
    if reported is not None:  # another program, which timed its own repeats
        return answers, (reported / len(answers) * 1e6, reported / len(answers) * 1e6, 5)
    # A slow subject is timed on its first queries only: all repeats within the time allowed.
    share = min(1.0, job["seconds"] / (job["repeats"] * max(first, 1e-9)))
    asked = max(min(20, len(answers)), int(len(answers) * share))
    part = queries if asked >= len(answers) else subject.head(queries, asked)
    walls, cpus = [], []
    for _ in range(job["repeats"]):
        start, start_cpu = time.perf_counter(), time.process_time()
        subject.search(part, k, **setting)
        walls.append(time.perf_counter() - start)
        cpus.append(time.process_time() - start_cpu)
    scale = 1e6 / asked
    return answers, (float(np.median(walls)) * scale, float(np.median(cpus)) * scale, len(walls))


def _median_single(subject: Subject, singles: list[Any], setting: dict[str, Any]) -> float | None:
    """Median microseconds of a call with one query and k = 10."""
    if not subject.singles:
        return None
    return _median_of(lambda query: subject.search(query, 10, **setting), singles)


def _median_of(call: Callable[[Any], Any], queries: list[Any]) -> float:
    times = []
    begun = time.perf_counter()
    for query in queries:
        start = time.perf_counter()
        call(query)
        times.append(time.perf_counter() - start)
        if time.perf_counter() - begun > 2:
            break
    return float(np.median(times)) * 1e6


def _rows(features: Any, count: int) -> list[Any]:
    if isinstance(features, np.ndarray):
        return [features[row : row + 1] for row in range(count)]
    return [features.slice(row, row + 1) for row in range(count)]


def _trim() -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _resident(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


if __name__ == "__main__":
    main()
