"""FAISS's binary engines for sets: over the same 1-bit MinHash sketches as closeby's own.

A sketch alone cannot tell near from nearest (512 bits leave a deviation of about .04), so the best
by sketch are compared exactly.
"""

from __future__ import annotations

from typing import Any, ClassVar

import faiss
import numpy as np
import numpy.typing as npt
from closeby.index.batches import Batch, SetBatch
from closeby.index.engine import Metric
from closeby.index.errors import InvalidInputError
from closeby.index.minhash import SCHEMES, MinHashFamily, Scheme

from .choices import whole
from .rebuilt import RebuiltIndex
from .structure import Structure
from .vectors import graph_bytes, lists_for, powers, train_gently

# One-permutation hashing is faster from so many elements a sketch bit on.
LARGE_SET = 4


class _SketchIndex(RebuiltIndex):
    """What the binary engines share."""

    metrics: ClassVar[tuple[Metric, ...]] = ("jaccard",)
    options: ClassVar[tuple[str, ...]] = ("sketch_bits", "scheme")

    def __init__(
        self,
        metric: Metric,
        seed: int,
        *,
        target_recall: float,
        threshold: float | None,
        sketch_bits: int,
        scheme: Scheme | None,
        threads: int,
        settle: bool,
    ) -> None:
        super().__init__(
            metric,
            seed,
            target_recall=target_recall,
            threshold=threshold,
            threads=threads,
            settle=settle,
        )
        if sketch_bits not in (128, 256, 512):
            raise InvalidInputError("sketch_bits must be 128, 256 or 512", field="sketch_bits")
        self.sketch_bits = int(sketch_bits)
        self.scheme = check_scheme(scheme)

    _clone = staticmethod(faiss.clone_binary_index)

    def _check_first(self, features: Batch) -> None:
        assert isinstance(features, SetBatch)
        if self.scheme is None:
            large = int(features.sizes[0]) > LARGE_SET * self.sketch_bits
            self.scheme = "one_permutation" if large else "permutations"

    def _adopt(self, parameters: dict[str, Any]) -> None:
        self.scheme = check_scheme(parameters["scheme"])

    def _codes(self, features: Batch) -> npt.NDArray[Any]:
        assert isinstance(features, SetBatch)
        assert self.scheme is not None
        family = MinHashFamily(
            self.seed, tables=0, sketch_bits=self.sketch_bits, scheme=self.scheme
        )
        return np.ascontiguousarray(family.sketch(features))


class BinaryFlatIndex(_SketchIndex):
    """A scan of all sketches; the best by sketch are compared exactly.

    Args:
        metric: ``"jaccard"``.
        sketch_bits: 128, 256 or 512.
        scheme: MinHash scheme; chosen by the size of the first set unless given.
        others: see :class:`RebuiltIndex`.
    """

    kind = "binary_flat"
    part = "sketches"

    def __init__(
        self,
        metric: Metric = "jaccard",
        seed: int = 0,
        *,
        target_recall: float = 0.95,
        threshold: float | None = None,
        sketch_bits: int = 512,
        scheme: Scheme | None = None,
        threads: int = 1,
        settle: bool = True,
    ) -> None:
        super().__init__(
            metric,
            seed,
            target_recall=target_recall,
            threshold=threshold,
            sketch_bits=sketch_bits,
            scheme=scheme,
            threads=threads,
            settle=settle,
        )

    def _empty(self, codes: npt.NDArray[Any]) -> Any:
        return faiss.IndexBinaryFlat(codes.shape[1] * 8)

    def _faiss_type(self) -> str:
        return "IndexBinaryFlat"

    def _breadths(self, points: int) -> tuple[int, ...]:
        return powers(16, min(4096, points))

    def _least_breadth(self, k: int) -> int:
        return k

    def _candidates(self, breadth: int, k: int) -> int:
        return max(breadth, k)

    def _how(self, breadth: int, selector: Any) -> Any:  # noqa: ARG002
        return faiss.SearchParameters(sel=selector)

    def _structure_bytes(self, faiss_index: Any) -> int:
        return int(faiss_index.ntotal * faiss_index.code_size)

    def _why(self) -> str:
        return (
            f"all {self.sketch_bits}-bit sketches are scanned and the best compared exactly; how "
            "many, was measured"
        )


class BinaryHnswIndex(_SketchIndex):
    """A graph over sketches (HNSW, Malkov and Yashunin 2016); what it leads to is compared exactly.

    Args:
        metric: ``"jaccard"``.
        sketch_bits: 128, 256 or 512.
        scheme: MinHash scheme; chosen by the size of the first set unless given.
        M: links of a point (twice as many in the lowest layer), 4 to 128.
        ef_construction: points in view while one is added.
        rerank: candidates that are compared exactly, times the hits wanted.
        others: see :class:`RebuiltIndex`.
    """

    kind = "binary_hnsw"
    part = "graph"
    options: ClassVar[tuple[str, ...]] = ("sketch_bits", "scheme", "M", "ef_construction", "rerank")

    def __init__(
        self,
        metric: Metric = "jaccard",
        seed: int = 0,
        *,
        target_recall: float = 0.95,
        threshold: float | None = None,
        sketch_bits: int = 512,
        scheme: Scheme | None = None,
        M: int = 16,
        ef_construction: int = 100,
        rerank: int = 10,
        threads: int = 1,
        settle: bool = True,
    ) -> None:
        super().__init__(
            metric,
            seed,
            target_recall=target_recall,
            threshold=threshold,
            sketch_bits=sketch_bits,
            scheme=scheme,
            threads=threads,
            settle=settle,
        )
        self.M = whole("M", M, 4, 128)
        self.ef_construction = whole("ef_construction", ef_construction, 8, 4096)
        self.rerank = whole("rerank", rerank, 1, 1000)

    def _empty(self, codes: npt.NDArray[Any]) -> Any:
        made = faiss.IndexBinaryHNSW(codes.shape[1] * 8, self.M)
        made.hnsw.efConstruction = self.ef_construction
        return made

    def _faiss_type(self) -> str:
        return "IndexBinaryHNSW"

    def _breadths(self, points: int) -> tuple[int, ...]:
        return powers(16, min(2048, points))

    def _least_breadth(self, k: int) -> int:
        return k

    def _candidates(self, breadth: int, k: int) -> int:
        return max(k, min(breadth, self.rerank * max(k, 10)))

    def _how(self, breadth: int, selector: Any) -> Any:
        return faiss.SearchParametersHNSW(efSearch=breadth, sel=selector)

    def _structure_bytes(self, faiss_index: Any) -> int:
        return graph_bytes(faiss_index.hnsw) + int(faiss_index.ntotal * faiss_index.d // 8)

    def _why(self) -> str:
        return (
            f"a graph over {self.sketch_bits}-bit sketches with {2 * self.M} links a point is "
            "walked towards the query's, and what it leads to compared exactly; how far, was "
            "measured on points that the graph did not hold"
        )


class BinaryIvfIndex(_SketchIndex):
    """Lists of sketches around k-means centres; the best by sketch are compared exactly.

    Args:
        metric: ``"jaccard"``.
        sketch_bits: 128, 256 or 512.
        scheme: MinHash scheme; chosen by the size of the first set unless given.
        lists: how many; about 2 √n unless given.
        rerank: candidates that are compared exactly, times the hits wanted.
        others: see :class:`RebuiltIndex`.
    """

    kind = "binary_ivf"
    part = "lists"
    options: ClassVar[tuple[str, ...]] = ("sketch_bits", "scheme", "lists", "rerank")
    masks = False  # FAISS's binary lists take no selector

    def __init__(
        self,
        metric: Metric = "jaccard",
        seed: int = 0,
        *,
        target_recall: float = 0.95,
        threshold: float | None = None,
        sketch_bits: int = 512,
        scheme: Scheme | None = None,
        lists: int | None = None,
        rerank: int = 10,
        threads: int = 1,
        settle: bool = True,
    ) -> None:
        super().__init__(
            metric,
            seed,
            target_recall=target_recall,
            threshold=threshold,
            sketch_bits=sketch_bits,
            scheme=scheme,
            threads=threads,
            settle=settle,
        )
        self.lists = None if lists is None else whole("lists", lists, 1, 65_536)
        self.rerank = whole("rerank", rerank, 1, 1000)

    def _empty(self, codes: npt.NDArray[Any]) -> Any:
        bits = codes.shape[1] * 8
        made = faiss.IndexBinaryIVF(
            faiss.IndexBinaryFlat(bits), bits, lists_for(len(codes), self.lists)
        )
        train_gently(made.cp, self.seed)
        made.train(codes)
        return made

    def _faiss_type(self) -> str:
        return "IndexBinaryIVF"

    def _must_retrain(self, structure: Structure, points: int) -> bool:
        return points >= 2 * structure.trained_at

    def _breadths(self, points: int) -> tuple[int, ...]:
        return powers(1, lists_for(points, self.lists))

    def _candidates(self, breadth: int, k: int) -> int:  # noqa: ARG002
        return self.rerank * max(k, 10)

    def _how(self, breadth: int, selector: Any) -> Any:  # noqa: ARG002
        return faiss.SearchParametersIVF(nprobe=breadth)

    def _structure_bytes(self, faiss_index: Any) -> int:
        entries = faiss_index.ntotal * (faiss_index.code_size + 8)
        return int(entries + faiss_index.nlist * faiss_index.d // 8)

    def _why(self) -> str:
        return (
            f"the {self.sketch_bits}-bit sketches of the nearest lists are scanned and the best "
            "compared exactly; how many lists, was measured on points that they did not hold"
        )


def check_scheme(scheme: Any) -> Scheme | None:
    """A MinHash scheme, or None: the first set decides.

    Raises:
        InvalidInputError: there is no such scheme.
    """
    for known in SCHEMES:
        if scheme == known:
            return known
    if scheme is None:
        return None
    raise InvalidInputError(f"scheme must be one of {', '.join(SCHEMES)}", field="scheme")
