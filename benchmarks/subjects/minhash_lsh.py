"""MinHash LSH tables as libraries for deduplication have them; candidates are re-ranked exactly.

Both take the exact re-rank that closeby ends with: without it they answer with an unordered list.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from closeby.index import SetBatch

from .protocol import Int64Array, Subject, rerank


def _copy(batch: SetBatch) -> SetBatch:
    return SetBatch(batch.indptr.copy(), batch.indices.copy())


def _mixed(batch: SetBatch) -> Any:
    """Elements mixed to 32 bits by one multiplication: much cheaper than the library's own hash."""
    return (batch.indices * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)


class Datasketch(Subject):
    """datasketch's MinHashLSH in memory, its tables laid out for `threshold`."""

    def __init__(self, metric: str, seed: int, threshold: float = 0.5, num_perm: int = 128) -> None:
        assert metric == "jaccard"
        self._options = {"num_perm": num_perm, "seed": seed + 1}
        self._threshold = threshold
        self._points: SetBatch | None = None
        self._lsh: Any = None

    def _signatures(self, batch: SetBatch) -> Any:
        from datasketch import MinHash

        rows = np.split(_mixed(batch), batch.indptr[1:-1])
        return MinHash.generator(rows, hashfunc=int, **self._options)

    def build(self, points: Any) -> None:
        """See :class:`Subject`."""
        from datasketch import MinHashLSH

        self._lsh = MinHashLSH(threshold=self._threshold, num_perm=self._options["num_perm"])
        with self._lsh.insertion_session() as session:
            for number, signature in enumerate(self._signatures(points)):
                session.insert(number, signature, check_duplication=False)
        self._points = _copy(points)

    def search(self, queries: Any, k: int) -> Int64Array:
        """See :class:`Subject`."""
        assert self._points is not None
        found = [self._lsh.query(signature) for signature in self._signatures(queries)]
        return rerank(self._points, queries, found, k)

    def nbytes(self) -> dict[str, int]:
        """See :class:`Subject`."""
        assert self._points is not None
        return {"features": self._points.indptr.nbytes + self._points.indices.nbytes}

    def explain(self) -> dict[str, Any]:
        """The bands and rows that the library chose."""
        return {"bands": self._lsh.b, "rows": self._lsh.r}


class Rensa(Subject):
    """rensa's RMinHashLSH; tokens go in as bytes, and making them is not counted."""

    def __init__(self, metric: str, seed: int, bands: int = 32, num_perm: int = 128) -> None:
        assert metric == "jaccard"
        self._seed = seed + 1
        self._bands = bands
        self._num_perm = num_perm
        self._points: SetBatch | None = None
        self._lsh: Any = None

    def convert(self, features: SetBatch) -> tuple[SetBatch, list[list[bytes]]]:
        """The sets, and each element as eight bytes."""
        data = features.indices.astype("<u8").tobytes()
        tokens = [data[at : at + 8] for at in range(0, len(data), 8)]
        bounds = features.indptr.tolist()
        rows = [tokens[a:b] for a, b in pairwise(bounds)]
        return features, rows

    def head(self, queries: Any, count: int) -> Any:
        """See :class:`Subject`."""
        return queries[0].slice(0, count), queries[1][:count]

    def build(self, points: Any) -> None:
        """See :class:`Subject`."""
        from rensa import RMinHash, RMinHashLSH

        features, tokens = points
        self._lsh = RMinHashLSH(0.5, self._num_perm, self._bands)
        matrix = RMinHash.digest_matrix_from_token_byte_sets(tokens, self._num_perm, self._seed)
        self._lsh.insert_matrix(matrix)
        self._points = _copy(features)

    def search(self, queries: Any, k: int) -> Int64Array:
        """See :class:`Subject`."""
        from rensa import RMinHash

        assert self._points is not None
        features, tokens = queries
        signatures = RMinHash.from_token_sets(tokens, self._num_perm, self._seed)
        return rerank(self._points, features, self._lsh.query_all(signatures), k)

    def nbytes(self) -> dict[str, int]:
        """See :class:`Subject`."""
        assert self._points is not None
        return {"features": self._points.indptr.nbytes + self._points.indices.nbytes}
