"""The queries' exact neighbours, by comparing with every point."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from closeby.index import FlatIndex, SetBatch
from closeby.service.bench.measures import FloatArray

from .datasets import Features, Split, load, load_features, save_features

DEPTH = 100


@dataclass(frozen=True)
class Task:
    """A split with its truth, as files in a folder, ready for any number of subjects.

    Attributes:
        folder: has ``points.npz``, ``queries.npz`` and ``truth.npy``.
        split: points and queries.
        truth: float32 (q, 100), similarities of the true neighbours, falling; NaN after the last.
    """

    folder: Path
    split: Split
    truth: FloatArray


def exact_neighbours(points: Features, queries: Features, metric: str) -> FloatArray:
    """Similarities of the 100 nearest points, float32 (q, 100)."""
    flat = FlatIndex("jaccard" if metric == "jaccard" else "cosine")
    flat.add(points)
    return np.asarray(flat.search(queries, DEPTH)[1], np.float32)


def prepare(
    work: Path, name: str, data: Path | None, limit: int | None, queries: int, seed: int
) -> Task:
    """Read a data set, split it, and find the truth, unless `work` has it from the last time."""
    split = load(name, data, limit, queries, seed)
    folder = work / f"{split.name}-{len(split.points)}-{_digest(split)}"
    truth = folder / "truth.npy"
    if not truth.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_features(folder / "points.npz", split.points)
        save_features(folder / "queries.npz", split.queries)
        np.save(truth, exact_neighbours(split.points, split.queries, split.metric))
    return Task(folder, split, np.load(truth))


def read(folder: Path) -> tuple[Features, Features]:
    """Points and queries of a task's folder."""
    return load_features(folder / "points.npz"), load_features(folder / "queries.npz")


def _digest(split: Split) -> str:
    digest = hashlib.sha256()
    for features in (split.points, split.queries):
        arrays = (
            (features.indptr, features.indices) if isinstance(features, SetBatch) else (features,)
        )
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]
