"""What the demo measures: answers against the exact ones, and times.

A query is a point of the collection; the point itself is left out of every answer. So engines are
asked for one hit more than the ten that count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from closeby.client import Collection
from closeby.index import FlatIndex, FlinngIndex, SetBatch
from closeby.index.baselines import BinaryHnswIndex

from .data import DataSet

Int64Array = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int], object]

NEIGHBOURS = 10
SIMILARITY = 0.5
REPEATS = 3
EXACT_BLOCK = 50  # queries between two steps of the progress bar
# Scores are float32 on one side and float64 on the other.
_TOLERANCE = 1e-6


class Searchable(Protocol):
    """The part of an engine that answers."""

    def search(self, batch: Any, k: int) -> tuple[Int64Array, npt.NDArray[np.float32]]:
        """The ids and scores of the k best points for each query."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of one query without the query's own point: ids and exact scores, best first."""

    ids: Int64Array
    scores: FloatArray


@dataclass(frozen=True, slots=True)
class Recall:
    """Shares of what was to be found: all of the exact top 10, and those of them with J ≥ .5.

    A hit counts if its exact score is at least that of the last neighbour wanted, so that among
    equally near points any will do. `near` is a share of neighbours, `at_10` the mean over queries.
    """

    at_10: float
    near: float
    near_wanted: int


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """One engine on one data set, in this process and on one thread.

    build_seconds, query_us: hashing included; the second is the median of 3 rounds, but for the
        exact scan, which runs once.
    index_bytes, set_bytes: a point; the second are the sets kept for exact comparison.
    """

    engine: str
    recall: Recall
    build_seconds: float
    query_us: float
    index_bytes: float
    set_bytes: float


@dataclass(frozen=True, slots=True)
class HttpFigures:
    """The service on one data set, through the SDK: each query a request of its own."""

    recall: Recall
    points_a_second: float
    median_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Questions:
    """Which points are asked for, with the features of all points and the exact answers."""

    rows: Int64Array
    sets: SetBatch
    exact: list[Answer]

    @property
    def queries(self) -> SetBatch:
        """The features of the query points."""
        return self.sets.take(self.rows)

    def answers(self, ids: Int64Array) -> list[Answer]:
        """Hits (q, k) of an engine, with scores counted anew: none is taken at its word."""
        answers = []
        for row, hits in zip(self.rows, ids, strict=True):
            kept = hits[(hits >= 0) & (hits != row)][:NEIGHBOURS]
            scores = np.array([jaccard(self.sets.row(row), self.sets.row(hit)) for hit in kept])
            order = np.argsort(-scores, kind="stable")
            answers.append(Answer(kept[order], scores[order]))
        return answers

    def recall(self, answers: list[Answer]) -> Recall:
        """How much of the exact answers these hold."""
        at_10, near_found, near_wanted = [], 0, 0
        for answer, exact in zip(answers, self.exact, strict=True):
            wanted, found = counted(answer.scores, exact.scores, 0.0)
            if wanted:
                at_10.append(found / wanted)
            wanted, found = counted(answer.scores, exact.scores, SIMILARITY)
            near_wanted += wanted
            near_found += found
        return Recall(
            at_10=float(np.mean(at_10)) if at_10 else 1.0,
            near=near_found / near_wanted if near_wanted else 1.0,
            near_wanted=near_wanted,
        )


def jaccard(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> float:
    """Exact similarity of two sets, each without repeats."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    joint = len(one) + len(other) - shared
    return shared / joint if joint else 0.0


def counted(scores: FloatArray, exact: FloatArray, threshold: float) -> tuple[int, int]:
    """How many of the exact top 10 reach the threshold, and how many hits are as good as they."""
    wanted = exact[:NEIGHBOURS][exact[:NEIGHBOURS] >= threshold]
    if not len(wanted):
        return 0, 0
    as_good = np.count_nonzero(scores >= wanted.min() - _TOLERANCE)
    return len(wanted), min(len(wanted), int(as_good))


def ask_exactly(
    sets: SetBatch, rows: Int64Array, progress: Progress
) -> tuple[Questions, EngineFigures]:
    """The exact answers, and what it takes to compare with every point."""
    index = FlatIndex()
    started = time.perf_counter()
    index.add(sets)
    build_seconds = time.perf_counter() - started
    found = []
    query_seconds = 0.0
    for start in range(0, len(rows), EXACT_BLOCK):
        block = sets.take(rows[start : start + EXACT_BLOCK])
        started = time.perf_counter()
        found.append(index.search(block, NEIGHBOURS + 1)[0])
        query_seconds += time.perf_counter() - started
        progress(len(block))
    unanswered = Questions(rows, sets, [])
    questions = replace(unanswered, exact=unanswered.answers(np.concatenate(found)))
    query_us = query_seconds / len(rows) * 1e6
    figures = _figures("exact scan", questions, questions.exact, build_seconds, query_us, index)
    return questions, figures


def measure_flinng(questions: Questions) -> EngineFigures:
    """Closeby's own engine, with the parameters that a collection has by default."""
    index = FlinngIndex()
    started = time.perf_counter()
    index.add(questions.sets)
    build_seconds = time.perf_counter() - started
    ids, query_us = _timed_search(index, questions)
    answers = questions.answers(ids)
    return _figures("closeby FLINNG", questions, answers, build_seconds, query_us, index)


def measure_hnsw(questions: Questions) -> EngineFigures:
    """FAISS binary HNSW over the same 512-bit sketches, re-ranked exactly, at the same target."""
    index = BinaryHnswIndex(threshold=SIMILARITY)
    started = time.perf_counter()
    index.add(questions.sets)
    build_seconds = time.perf_counter() - started
    ids, query_us = _timed_search(index, questions)
    answers = questions.answers(ids)
    return _figures("FAISS binary HNSW", questions, answers, build_seconds, query_us, index)


def ask_over_http(
    collection: Collection, data: DataSet, questions: Questions, progress: Progress
) -> tuple[list[Answer], FloatArray]:
    """The answers of the service, and the milliseconds that each request took."""
    ids = np.full((len(questions.rows), NEIGHBOURS + 1), -1, np.int64)
    took_ms = np.zeros(len(questions.rows))
    for number, row in enumerate(questions.rows.tolist()):
        started = time.perf_counter()
        result = collection.query(**{data.field: data.inputs[row]}, limit=NEIGHBOURS + 1)
        took_ms[number] = (time.perf_counter() - started) * 1e3
        hits = [int(hit.id) for hit in result.hits]
        ids[number, : len(hits)] = hits
        progress(1)
    return questions.answers(ids), took_ms


def _timed_search(index: Searchable, questions: Questions) -> tuple[Int64Array, float]:
    queries = questions.queries
    index.search(queries, NEIGHBOURS + 1)  # once to warm the caches, as a server's are
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        ids, _ = index.search(queries, NEIGHBOURS + 1)
        times.append((time.perf_counter() - started) / len(queries) * 1e6)
    return ids, median(times)


def _figures(
    name: str,
    questions: Questions,
    answers: list[Answer],
    build_seconds: float,
    query_us: float,
    index: FlatIndex | FlinngIndex | BinaryHnswIndex,
) -> EngineFigures:
    parts = dict(index.nbytes)
    points = len(questions.sets)
    set_bytes = parts.pop("features") / points
    return EngineFigures(
        engine=name,
        recall=questions.recall(answers),
        build_seconds=build_seconds,
        query_us=query_us,
        index_bytes=sum(parts.values()) / points,
        set_bytes=set_bytes,
    )
