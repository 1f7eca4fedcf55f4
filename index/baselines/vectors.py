"""FAISS's engines for vectors: a graph, and k-means lists."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import faiss
import numpy as np
import numpy.typing as npt
from closeby.index.batches import Batch, SetBatch
from closeby.index.engine import Metric
from closeby.index.errors import InvalidInputError

from .choices import whole
from .rebuilt import RebuiltIndex
from .structure import Structure

Codes: TypeAlias = Literal["flat", "pq", "rabitq"]

# k-means of FAISS looks at so many points a list, so often: enough for lists, and not for ever.
POINTS_A_LIST, ROUNDS = 64, 10


class HnswIndex(RebuiltIndex):
    """FAISS's graph (HNSW, Malkov and Yashunin 2016) over vectors, for cosine or inner product.

    For inner product the graph is built on the products themselves. Lifting the points to a sphere
    first, so that the nearest is the one with the largest product, was tried: where norms differ
    it finds a fraction of what the plain graph finds. But products are no distance, and on factors
    with a long tail of norms the graph finds less than asked for however far it looks; the measured
    curve says so. ``MaxIPIndex`` is made for them.

    Args:
        metric: ``"cosine"`` or ``"ip"``.
        M: links of a point (twice as many in the lowest layer), 4 to 128.
        ef_construction: points in view while one is added.
        others: see :class:`RebuiltIndex`.
    """

    kind = "hnsw"
    metrics: ClassVar[tuple[Metric, ...]] = ("cosine", "ip")
    part = "graph"
    options: ClassVar[tuple[str, ...]] = ("M", "ef_construction")

    def __init__(
        self,
        metric: Metric = "cosine",
        seed: int = 0,
        *,
        target_recall: float = 0.95,
        threshold: float | None = None,
        M: int = 16,
        ef_construction: int = 100,
        threads: int = 1,
        settle: bool = True,
    ) -> None:
        super().__init__(
            metric,
            seed,
            target_recall=target_recall,
            threshold=threshold,
            threads=threads,
            settle=settle,
        )
        self.M = whole("M", M, 4, 128)
        self.ef_construction = whole("ef_construction", ef_construction, 8, 4096)

    def _codes(self, features: Batch) -> npt.NDArray[Any]:
        return np.ascontiguousarray(features, np.float32)

    def _empty(self, codes: npt.NDArray[Any]) -> Any:
        made = faiss.IndexHNSWFlat(codes.shape[1], self.M, faiss.METRIC_INNER_PRODUCT)
        made.hnsw.efConstruction = self.ef_construction
        return made

    def _faiss_type(self) -> str:
        return "IndexHNSWFlat"

    def _breadths(self, points: int) -> tuple[int, ...]:
        return powers(8, min(1024, points))

    def _least_breadth(self, k: int) -> int:
        return k

    def _candidates(self, breadth: int, k: int) -> int:  # noqa: ARG002
        return k

    def _how(self, breadth: int, selector: Any) -> Any:
        return faiss.SearchParametersHNSW(efSearch=breadth, sel=selector)

    def _structure_bytes(self, faiss_index: Any) -> int:
        return graph_bytes(faiss_index.hnsw) + int(faiss_index.ntotal * faiss_index.d * 4)

    def _why(self) -> str:
        return (
            f"a graph with {2 * self.M} links a point is walked towards the query; how far, was "
            "measured on points that the graph did not hold"
        )


class IvfIndex(RebuiltIndex):
    """FAISS's k-means lists of vectors, for cosine or inner product.

    Args:
        metric: ``"cosine"`` or ``"ip"``.
        codes: what the lists hold: ``"flat"`` the vectors; ``"pq"`` a product quantiser's codes
            (Jégou et al. 2011); ``"rabitq"`` one bit a dimension (Gao and Long 2024). Answers from
            codes are compared exactly.
        lists: how many; about 2 √n unless given.
        pq_bytes: bytes of a code for ``"pq"``, a divisor of the dimension; about a sixteenth of
            the vector unless given.
        rerank: candidates from codes that are compared exactly, times the hits wanted.
        others: see :class:`RebuiltIndex`.
    """

    kind = "ivf"
    metrics: ClassVar[tuple[Metric, ...]] = ("cosine", "ip")
    part = "lists"
    options: ClassVar[tuple[str, ...]] = ("codes", "lists", "pq_bytes", "rerank")

    def __init__(
        self,
        metric: Metric = "cosine",
        seed: int = 0,
        *,
        target_recall: float = 0.95,
        threshold: float | None = None,
        codes: Codes = "flat",
        lists: int | None = None,
        pq_bytes: int | None = None,
        rerank: int = 20,
        threads: int = 1,
        settle: bool = True,
    ) -> None:
        super().__init__(
            metric,
            seed,
            target_recall=target_recall,
            threshold=threshold,
            threads=threads,
            settle=settle,
        )
        if codes not in get_args(Codes):
            raise InvalidInputError(
                f"codes must be one of {', '.join(get_args(Codes))}", field="codes"
            )
        self.codes: Codes = codes
        self.lists = None if lists is None else whole("lists", lists, 1, 65_536)
        self.pq_bytes = None if pq_bytes is None else whole("pq_bytes", pq_bytes, 1, 4096)
        self.rerank = whole("rerank", rerank, 1, 1000)

    def _check_first(self, features: Batch) -> None:
        assert not isinstance(features, SetBatch)
        dim = features.shape[1]
        if self.codes == "pq" and self.pq_bytes is not None and dim % self.pq_bytes:
            raise InvalidInputError(
                f"pq_bytes must divide the dimension {dim}", field="pq_bytes", limit=dim
            )

    def _codes(self, features: Batch) -> npt.NDArray[Any]:
        return np.ascontiguousarray(features, np.float32)

    def _empty(self, codes: npt.NDArray[Any]) -> Any:
        dim, lists = codes.shape[1], lists_for(len(codes), self.lists)
        coarse = faiss.IndexFlatIP(dim)
        if self.codes == "pq":
            made = faiss.IndexIVFPQ(
                coarse, dim, lists, self._code_bytes(dim), 8, faiss.METRIC_INNER_PRODUCT
            )
            train_gently(made.pq.cp, self.seed)
        elif self.codes == "rabitq":
            made = faiss.IndexIVFRaBitQ(coarse, dim, lists, faiss.METRIC_INNER_PRODUCT)
        else:
            made = faiss.IndexIVFFlat(coarse, dim, lists, faiss.METRIC_INNER_PRODUCT)
        train_gently(made.cp, self.seed)
        made.cp.spherical = self.metric == "cosine"
        made.train(codes)
        return made

    def _faiss_type(self) -> str:
        return {"flat": "IndexIVFFlat", "pq": "IndexIVFPQ", "rabitq": "IndexIVFRaBitQ"}[self.codes]

    def _code_bytes(self, dim: int) -> int:
        if self.pq_bytes is not None:
            return self.pq_bytes
        most = max(1, dim // 4)
        return next(size for size in range(most, 0, -1) if dim % size == 0)

    def _must_retrain(self, structure: Structure, points: int) -> bool:
        return points >= 2 * structure.trained_at

    def _breadths(self, points: int) -> tuple[int, ...]:
        return powers(1, lists_for(points, self.lists))

    def _candidates(self, breadth: int, k: int) -> int:  # noqa: ARG002
        return k if self.codes == "flat" else self.rerank * k

    def _how(self, breadth: int, selector: Any) -> Any:
        return faiss.SearchParametersIVF(nprobe=breadth, sel=selector)

    def _structure_bytes(self, faiss_index: Any) -> int:
        entries = faiss_index.ntotal * (faiss_index.code_size + 8)
        return int(entries + faiss_index.nlist * faiss_index.d * 4)

    def _why(self) -> str:
        held = {"flat": "vectors", "pq": "product codes", "rabitq": "1-bit codes"}[self.codes]
        return (
            f"the {held} of the nearest k-means lists are compared; how many lists, was measured "
            "on points that they did not hold"
        )


def graph_bytes(graph: Any) -> int:
    """Memory of the links of FAISS's graph."""
    return int(graph.neighbors.size() * 4 + graph.offsets.size() * 8 + graph.levels.size() * 4)


def lists_for(points: int, wanted: int | None) -> int:
    """Number of k-means lists for so many points: about 2 √n, a power of two, unless given."""
    most = max(1, points // 8)
    return min(most, wanted or 1 << max(1, round(math.log2(2 * math.sqrt(max(1, points))))))


def train_gently(parameters: Any, seed: int) -> None:
    """Bound what k-means takes, and make it repeatable."""
    parameters.min_points_per_centroid = 1
    parameters.max_points_per_centroid = POINTS_A_LIST
    parameters.niter = ROUNDS
    parameters.seed = seed % (1 << 31)


def powers(least: int, most: int) -> tuple[int, ...]:
    """Powers of two from `least`, and `most` as the last."""
    rising = []
    while least < most:
        rising.append(least)
        least *= 2
    return (*rising, most)
