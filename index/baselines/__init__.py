"""Engines of FAISS behind the protocol of closeby's own, so that a collection can have either.

    hnsw          a graph over vectors (Malkov, Yashunin 2016)
    ivf           k-means lists over vectors: plain, product-quantised, or RaBitQ codes
    binary_flat   a scan of 1-bit MinHash sketches of sets
    binary_hnsw   a graph over those sketches
    binary_ivf    lists of those sketches

What FAISS does not do is done here (``rebuilt``): points that came in last are compared exactly
until they are taken into FAISS's structure, which is replaced as a whole and never changed; removed
points are masked until it is built anew; every hit is compared exactly; and how far a query looks
for a ``target_recall`` is measured on the index's own points (``curve``).
"""

from __future__ import annotations

from .rebuilt import RebuiltIndex, Renewal
from .sketches import BinaryFlatIndex, BinaryHnswIndex, BinaryIvfIndex
from .vectors import HnswIndex, IvfIndex

__all__ = [
    "BinaryFlatIndex",
    "BinaryHnswIndex",
    "BinaryIvfIndex",
    "HnswIndex",
    "IvfIndex",
    "RebuiltIndex",
    "Renewal",
]
