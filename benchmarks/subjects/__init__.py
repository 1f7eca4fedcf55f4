"""What is measured: closeby and its peers behind one small protocol.

Engines that are not installed are left out of a run; ``available`` says which are.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .protocol import Subject

# Name in results: module and class here, and the package that must be there.
_SUBJECTS = {
    "closeby": ("ours", "Flinng", "closeby"),
    "closeby LSH": ("ours", "Lsh", "closeby.index.lsh"),
    "closeby sketches": ("ours", "Sketches", "closeby"),
    "closeby exact": ("ours", "Flat", "closeby"),
    "FAISS binary flat": ("faiss_binary", "BinaryFlat", "faiss"),
    "FAISS binary IVF": ("faiss_binary", "BinaryIvf", "faiss"),
    "FAISS binary HNSW": ("faiss_binary", "BinaryHnsw", "faiss"),
    "nmslib HNSW": ("nmslib_graph", "SparseJaccardHnsw", "nmslib"),
    "datasketch LSH": ("minhash_lsh", "Datasketch", "datasketch"),
    "rensa LSH": ("minhash_lsh", "Rensa", "rensa"),
    "FLINNG paper mode": ("paper_mode", "PaperFlinng", "closeby"),
    "FLINNG authors": ("authors", "Authors", "closeby"),
    "FAISS HNSW": ("dense", "FaissHnsw", "faiss"),
    "hnswlib": ("dense", "Hnswlib", "hnswlib"),
    "exact BLAS": ("dense", "Blas", "numpy"),
}


def available(name: str) -> bool:
    """Whether the package that a subject needs is installed."""
    return find_spec(_SUBJECTS[name][2]) is not None


def subject_from(name: str, metric: str, seed: int, build: dict[str, Any]) -> Subject:
    """A subject that is not built yet.

    Raises:
        KeyError: no such subject.
    """
    module, cls, _ = _SUBJECTS[name]
    subject: Subject = getattr(import_module(f"{__name__}.{module}"), cls)(metric, seed, **build)
    return subject


__all__ = ["Subject", "available", "subject_from"]
