"""One subject in a process of its own: build it, ask it, measure time and memory.

Time is processor time of the process, which has one thread: what the wall clock shows on an idle
machine, and steadier than it on a busy one. Wall time is recorded too.

``python -m benchmarks.worker JOB.json`` reads the job, and writes its record and answers beside it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import truth
from .subjects import Subject, subject_from

SINGLES = 200  # queries that are also asked one at a time, in at most
SINGLES_SECONDS = 2


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
        measured: dict[str, Any] = {"setting": setting, "promised": subject.promise(**setting)}
        answers = {}
        for k in (10, 100):
            answers[f"k{k}"], times = _timed(subject, prepared, k, setting, job)
            measured[f"us@{k}"], measured[f"wall_us@{k}"] = times
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
        "build_seconds": cpu,
        "build_wall_seconds": seconds,
        "resident_bytes": _resident("VmRSS") - before,
        "peak_bytes": peak,
        "own_bytes": subject.nbytes(),
    }


def _timed(
    subject: Subject, queries: Any, k: int, setting: dict[str, Any], job: dict[str, Any]
) -> tuple[np.ndarray[Any, Any], tuple[float, float]]:
    """Answers to all queries; median µs a query over the repeats, of processor and wall time."""
    start = time.perf_counter()
    answers = subject.search(queries, k, **setting)
    first = time.perf_counter() - start
    reported = subject.reported_seconds()
    if reported is not None:  # another program, which timed its own repeats
        return answers, (reported / len(answers) * 1e6, reported / len(answers) * 1e6)
    # A slow subject is timed on its first queries only: all repeats within the time allowed.
    share = min(1.0, job["seconds"] / (job["repeats"] * max(first, 1e-9)))
    asked = max(min(20, len(answers)), int(len(answers) * share))
    part = queries if asked >= len(answers) else subject.head(queries, asked)
    cpus, walls = [], []
    for _ in range(job["repeats"]):
        start, start_cpu = time.perf_counter(), time.process_time()
        subject.search(part, k, **setting)
        cpus.append(time.process_time() - start_cpu)
        walls.append(time.perf_counter() - start)
    return answers, (_per_query(cpus, asked), _per_query(walls, asked))


def _per_query(seconds: list[float], queries: int) -> float:
    return float(np.median(seconds)) / queries * 1e6


def _median_single(subject: Subject, singles: list[Any], setting: dict[str, Any]) -> float | None:
    """Median µs of processor time of a call with one query and k = 10."""
    if not subject.singles:
        return None
    times = []
    begun = time.perf_counter()
    for query in singles:
        start = time.process_time()
        subject.search(query, 10, **setting)
        times.append(time.process_time() - start)
        if time.perf_counter() - begun > SINGLES_SECONDS:
            break
    return _per_query(times, 1)


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
