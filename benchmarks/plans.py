"""Which subjects a run measures, with which parameters: peers are swept, not left at defaults."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

# Above it, nmslib takes many minutes to build.
NMSLIB_POINTS = 250_000
# Above it, the larger half of the authors' grid does not fit an ordinary machine's memory.
AUTHORS_POINTS = 500_000
SKETCH_BITS = (128, 256, 512)
TARGETS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)


@dataclass(frozen=True)
class Plan:
    """One build of one subject, and the settings that it is searched with."""

    subject: str
    build: dict[str, Any] = field(default_factory=dict)
    settings: list[dict[str, Any]] = field(default_factory=lambda: [{}])

    @property
    def label(self) -> str:
        """Subject and build parameters in one line."""
        told = (f"{name} {value}" for name, value in self.build.items() if name != "binary")
        return ", ".join([self.subject, *told])


def _sweep(**values: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]


def _ours(quick: bool) -> list[Plan]:
    targets = (0.95,) if quick else (0.9, 0.95, 0.99)
    settings = _sweep(target_recall=(0.8, 0.95) if quick else TARGETS)
    plans = [Plan("closeby", {"target_recall": target}, settings) for target in targets]
    return plans if quick else [*plans, Plan("closeby LSH", {"target_recall": 0.95}, settings)]


def for_sets(points: int, quick: bool, authors: str | None) -> list[Plan]:
    """Subjects for Jaccard similarity of so many sets."""
    lists = 1 << max(2, round(math.log2(4 * math.sqrt(points))))
    rerank = (0, 100)
    plans = [*_ours(quick), Plan("closeby exact")]
    if quick:
        return [
            *plans,
            Plan("FAISS binary flat", {}, _sweep(candidates=rerank)),
            Plan("FAISS binary HNSW", {}, _sweep(ef=(128,), candidates=rerank)),
        ]
    plans += [
        Plan("closeby sketches", {"sketch_bits": bits}, _sweep(target_recall=(0.95, 0.999)))
        for bits in SKETCH_BITS
    ]
    plans += [
        Plan("closeby", {"target_recall": 0.95, "sketch_bits": bits}, _sweep(target_recall=TARGETS))
        for bits in SKETCH_BITS[:-1]
    ]
    plans += [
        Plan("FAISS binary flat", {}, _sweep(candidates=(0, 100, 400))),
        Plan(
            "FAISS binary IVF", {"lists": lists}, _sweep(nprobe=(1, 4, 16, 64), candidates=rerank)
        ),
        Plan("FAISS binary HNSW", {"M": 16}, _sweep(ef=(32, 128, 512), candidates=rerank)),
        Plan(
            "FAISS binary HNSW",
            {"M": 32, "ef_construction": 200},
            _sweep(ef=(128, 512, 2048), candidates=rerank),
        ),
        Plan("datasketch LSH", {"threshold": 0.5, "num_perm": 128}),
        Plan("datasketch LSH", {"threshold": 0.4, "num_perm": 128}),
        Plan("rensa LSH", {"bands": 25, "num_perm": 125}),
        Plan("rensa LSH", {"bands": 42, "num_perm": 126}),
    ]
    if points <= NMSLIB_POINTS:
        plans += [
            Plan("nmslib HNSW", {"M": M, "ef_construction": ef}, _sweep(ef=(20, 50, 100, 200, 400)))
            for M, ef in ((16, 100), (32, 200))
        ]
    if authors is not None:
        plans += _authors(points, authors)
    return plans


def _authors(points: int, binary: str) -> list[Plan]:
    """From the grid of the paper what suits so many points: B about 12 √N cells a row.

    Their range of 17 bits costs 24 B × 2^17 × m of empty vectors alone, so fewer bits are granted.
    """
    cells = 1 << round(math.log2(12 * math.sqrt(points)))
    grid = [(2, cells, 256, 14), (3, cells, 256, 12), (3, cells, 256, 14), (3, cells, 512, 14)]
    if points > AUTHORS_POINTS:
        grid = grid[:2]
    return [
        Plan(
            "FLINNG authors",
            {"binary": binary, "rows": R, "cells": B, "tables": m, "K": 1, "range": r},
            _sweep(candidates=(0, 100, 400)),
        )
        for R, B, m, r in grid
    ]


def for_vectors(quick: bool) -> list[Plan]:
    """Subjects for cosine similarity of dense vectors."""
    plans = [*_ours(quick), Plan("closeby exact"), Plan("exact BLAS")]
    ef = (32, 128) if quick else (16, 32, 64, 128, 256, 512)
    shapes: list[dict[str, Any]] = [{"M": 16, "ef_construction": 100}]
    if not quick:
        shapes.append({"M": 32, "ef_construction": 200})
    plans += [Plan("FAISS HNSW", shape, _sweep(ef=ef)) for shape in shapes]
    plans += [Plan("hnswlib", shape, _sweep(ef=ef)) for shape in shapes]
    return plans


def available_plots() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    return bool(mpl.__version__)
