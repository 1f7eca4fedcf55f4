"""One build in a process of its own, with one thread: built or loaded, asked, timed.

`python -m closeby.service.bench.worker JOB.json` writes a JSON line to standard output for the
build and for each setting as it is done; the answers lie beside the job, `<number>.npz`. Times are
processor time of the process: what the clock shows on an idle machine, and steadier on a busy one.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from closeby.index import Engine, SetBatch
from closeby.index.batches import Batch
from closeby.service.engines import make_engine

DEPTHS = (10, 100)
SINGLES, SINGLE_SECONDS = 100, 1.0


def write_batch(path: Path, batch: Batch) -> None:
    """Write features for :func:`read_batch`."""
    if isinstance(batch, SetBatch):
        np.savez(path, indptr=batch.indptr, indices=batch.indices)
    else:
        np.savez(path, vectors=batch)


def read_batch(path: Path) -> Batch:
    """Features that :func:`write_batch` wrote."""
    with np.load(path) as arrays:
        if "vectors" in arrays:
            return np.asarray(arrays["vectors"])
        return SetBatch(arrays["indptr"], arrays["indices"])


def main() -> None:
    """Do the job that the command line names."""
    path = Path(sys.argv[1])
    job = orjson.loads(path.read_bytes())
    engine = _load(job) or _build(job, path.with_name("points.npz"))
    queries = read_batch(path.with_name("queries.npz"))
    for number, target in enumerate(job["targets"]):
        answers, record = _ask(engine, queries, target, job)
        np.savez(path.with_name(f"{number}.npz"), **answers)
        _tell(record | {"number": number})


def _build(job: dict[str, Any], points_path: Path) -> Engine:
    points = read_batch(points_path)
    engine = make_engine(job["config"], None)
    start, start_cpu = time.perf_counter(), time.process_time()
    engine.add(points)
    # Those that keep points in segments, or a structure beside what came last, put all in one.
    compact: Callable[[], None] | None = getattr(engine, "compact", None)
    if compact is not None:
        compact()
    built = {
        "build_s": time.process_time() - start_cpu,
        "build_wall_s": time.perf_counter() - start,
        "bytes": {name: int(size) for name, size in engine.nbytes.items()},
    }
    engine.save(job["index"])
    _tell({"built": built})
    return engine


def _load(job: dict[str, Any]) -> Engine | None:
    path = Path(job["index"])
    if not job["is_built"] or not path.exists():
        return None
    return type(make_engine(job["config"], None)).load(path)


def _ask(
    engine: Engine, queries: Batch, target: float, job: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    answers: dict[str, Any] = {}
    record: dict[str, Any] = {
        "target_recall": target,
        "recall_estimate": float(engine.recall_estimate(target)),
    }
    for k in DEPTHS:
        start = time.perf_counter()
        answers[f"k{k}"] = engine.search(queries, k, target_recall=target)[0]
        first = time.perf_counter() - start
        # A slow engine is timed on its first queries only: all repeats within the time allowed.
        share = min(1.0, job["seconds"] / (job["repeats"] * max(first, 1e-9)))
        asked = min(len(queries), max(20, int(len(queries) * share)))
        part = _slice(queries, 0, asked)
        times = [_cpu(engine, part, k, target) for _ in range(job["repeats"])]
        record[f"us@{k}"] = statistics.median(times) / asked * 1e6
    record["us_single"] = _single(engine, queries, target)
    return answers, record


def _single(engine: Engine, queries: Batch, target: float) -> float:
    """Median µs of a call with one query and ten hits."""
    times: list[float] = []
    begun = time.perf_counter()
    for row in range(min(SINGLES, len(queries))):
        times.append(_cpu(engine, _slice(queries, row, row + 1), 10, target))
        if time.perf_counter() - begun > SINGLE_SECONDS:
            break
    return statistics.median(times) * 1e6


def _cpu(engine: Engine, queries: Batch, k: int, target: float) -> float:
    start = time.process_time()
    engine.search(queries, k, target_recall=target)
    return time.process_time() - start


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    return batch.slice(start, stop) if isinstance(batch, SetBatch) else batch[start:stop]


def _tell(message: dict[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(message).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
