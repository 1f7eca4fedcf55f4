"""The FLINNG authors' code: an external program, which closeby neither ships nor builds.

The program is called as ``PROGRAM SETS QUERIES ANSWERS rows=R cells=B tables=m K=K range=r
repeats=N k=K1,K2``. SETS and QUERIES hold, as little-endian 64-bit integers: n, the n + 1 offsets,
and the elements. It must write to ANSWERS, for each k in order, q * k little-endian int64 point
numbers, and print one JSON object: ``build_seconds`` (hashing included), ``resident_bytes`` (growth
by the build) and ``query_seconds``, for each k the median over the repeats of the processor time to
hash and answer all queries with one thread.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from closeby.index import SetBatch

from .protocol import Int64Array, Subject, rerank

DEPTHS = (10, 100, 400)


class Authors(Subject):
    """Rows, cells, tables, K and range bits as their code has them; one thread.

    Their code has no exact re-rank; ``candidates`` grants one from outside, which is timed here
    and added.
    """

    singles: ClassVar[bool] = False
    keeps_points: ClassVar[bool] = True

    def __init__(self, metric: str, seed: int, binary: str, **parameters: int) -> None:
        assert metric == "jaccard"
        del seed
        self._binary = binary
        self._parameters = parameters
        self._points: SetBatch | None = None
        self._report: dict[str, Any] = {}
        self._answers: dict[int, Int64Array] = {}
        self._seconds: float | None = None

    def build(self, points: Any) -> None:
        """Nothing yet: the program builds and answers in one go at the first search."""
        self._points = points

    def search(self, queries: Any, k: int, candidates: int = 0) -> Int64Array:
        """See :class:`Subject`."""
        assert self._points is not None
        if not self._answers:
            self._run(queries)
        depth = max(k, candidates)
        found = self._answers[depth]
        self._seconds = self._report["query_seconds"][DEPTHS.index(depth)]
        if not candidates:
            return found[:, :k]
        start = time.process_time()
        best = rerank(self._points, queries, found, k)
        assert self._seconds is not None
        self._seconds += time.process_time() - start
        return best

    def _run(self, queries: SetBatch) -> None:
        assert self._points is not None
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("sets", "queries", "answers")]
            for path, batch in zip(paths, (self._points, queries), strict=False):
                with path.open("wb") as file:
                    np.array([len(batch)], "<u8").tofile(file)
                    batch.indptr.astype("<u8").tofile(file)
                    batch.indices.astype("<u8").tofile(file)
            options = [f"{name}={value}" for name, value in self._parameters.items()]
            options += ["repeats=5", "k=" + ",".join(map(str, DEPTHS))]
            command = [self._binary, *map(str, paths), *options]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            self._report = json.loads(output)
            flat = np.fromfile(paths[2], "<i8")
        for depth in DEPTHS:
            self._answers[depth] = flat[: len(queries) * depth].reshape(-1, depth)
            flat = flat[len(queries) * depth :]

    def explain(self) -> dict[str, Any]:
        """The program's own report."""
        return self._report

    def reported(self) -> dict[str, Any]:
        """See :class:`Subject`."""
        seconds, resident = self._report["build_seconds"], self._report["resident_bytes"]
        return {
            "build_seconds": seconds,
            "build_wall_seconds": seconds,
            "resident_bytes": resident,
            "peak_bytes": None,
        }

    def reported_seconds(self) -> float | None:
        """See :class:`Subject`."""
        return self._seconds
