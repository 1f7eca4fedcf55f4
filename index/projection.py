"""Signed random projections: the locality-sensitive hash family of cosine similarity.

A random hyperplane separates two vectors at angle θ with probability θ / π (Charikar 2002), so
one sign bit agrees with probability 1 - θ/π and b bits together with (1 - θ/π)^b.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _native
from .batches import FloatArray, as_dense_batch, as_sparse_batch
from .errors import InvalidInputError
from .minhash import UInt8Array, UInt32Array, plausible_matching, splitmix

_ROUNDS = 3


class SignedRandomProjection:
    """`tables` keys of some sign bits each, and a sketch of further sign bits, of any vector.

    The projections of dense vectors are three rounds of random signs and a fast Hadamard transform
    (Andoni et al. 2015): O(d log d) for d bits. Sparse vectors may have any 64-bit numbers as
    dimensions: the nearly normal coefficients of the hyperplanes are hashed from them, which takes
    O(elements × bits).

    Args:
        dim: dimension of dense vectors; None where the vectors are sparse.
        seed: everything random follows from it; equal seeds give equal hashes for ever.
        tables: number of keys; fewer bits are taken from a key's top.
        sketch_bits: bits of the sketch, a multiple of 8; 0 for none.
        key_bits: 8, 16, 24 or 32 signs in the top of each 32-bit key, zeros below.

    Raises:
        InvalidInputError: a number out of range.
    """

    metric = "cosine"

    def __init__(
        self,
        dim: int | None,
        seed: int = 0,
        *,
        tables: int = 64,
        sketch_bits: int = 512,
        key_bits: int = 16,
    ) -> None:
        sizes = tables >= 0 and sketch_bits >= 0 and tables + sketch_bits > 0
        if (dim is not None and dim < 1) or not sizes or sketch_bits % 8:
            raise InvalidInputError(
                "dim must be positive, tables and sketch_bits not negative (nor both 0), "
                "sketch_bits a multiple of 8",
                field="dim",
            )
        if key_bits not in (8, 16, 24, 32):
            raise InvalidInputError("key_bits must be 8, 16, 24 or 32", field="key_bits")
        self.dim = dim
        self.seed = seed
        self.tables = tables
        self.sketch_bits = sketch_bits
        self.key_bits = key_bits
        self.bits = tables * key_bits + sketch_bits
        self._signs = None if dim is None else self._rotations(dim)

    def _rotations(self, dim: int) -> FloatArray:
        """Signs of the rotations that give all bits, float32 (rotations, 3, padded)."""
        # At least 256: the bits of a rotation of few dimensions depend on each other; at 64 sixteen
        # of them agree 7 % less often than the formula says, at 256 1 %.
        padded = max(256, 1 << (dim - 1).bit_length())
        rotations = -(-self.bits // padded)
        words = splitmix(self.seed, -(-rotations * _ROUNDS * padded // 64))
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        signs = bits[: rotations * _ROUNDS * padded].astype(np.float32) * 2 - 1
        return np.asarray(signs.reshape(rotations, _ROUNDS, padded))

    @property
    def spec(self) -> dict[str, Any]:
        """What the hashes depend on, as JSON values."""
        return {
            "metric": self.metric,
            "dim": self.dim,
            "seed": self.seed,
            "tables": self.tables,
            "sketch_bits": self.sketch_bits,
        }

    def signs(self, vectors: Any) -> UInt8Array:
        """All sign bits, uint8 (n, bits / 8); bit j is bit j % 8 of byte j / 8, 1 for negative."""
        if self._signs is None:
            sparse = as_sparse_batch(vectors)
            return _native.sparse_projections(
                sparse.indptr, sparse.indices, sparse.values, self.seed & (1 << 64) - 1, self.bits
            )
        return _native.signed_projections(as_dense_batch(vectors, self.dim), self._signs, self.bits)

    def hash(self, vectors: Any) -> tuple[UInt32Array, UInt8Array]:
        """Keys uint32 (n, tables) and sketches uint8 (n, sketch_bits / 8)."""
        signs = self.signs(vectors)
        key_bytes = self.key_bits // 8
        split = self.tables * key_bytes
        keys = np.zeros((len(signs), self.tables, 4), np.uint8)
        keys[:, :, 4 - key_bytes :] = signs[:, :split].reshape(len(signs), self.tables, key_bytes)
        words = keys.reshape(len(signs), 4 * self.tables).view("<u4").astype(np.uint32)
        return words, np.ascontiguousarray(signs[:, split:])

    @staticmethod
    def collision_probability(
        similarity: npt.ArrayLike, K: int = 1, range_bits: int = 1
    ) -> npt.NDArray[np.float64]:
        """P[two keys agree in `range_bits` bits, in K keys at once]: (1 - θ/π)^(K range_bits)."""
        angle = np.arccos(np.clip(np.asarray(similarity, np.float64), -1, 1))
        return np.asarray((1 - angle / np.pi) ** (K * range_bits), np.float64)

    @staticmethod
    def sketch_similarity(matching: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Estimate of the cosine from the fraction of agreeing sketch bits, 1 - θ/π on average."""
        return np.cos(np.pi * (1 - np.asarray(matching, np.float64)))

    @cached_property
    def estimates(self) -> FloatArray:
        """Similarity that each sketch distance stands for, float32 (sketch_bits + 1,)."""
        matching = 1 - np.arange(self.sketch_bits + 1) / self.sketch_bits
        return np.asarray(self.sketch_similarity(matching), np.float32)

    @cached_property
    def highest_plausible(self) -> FloatArray:
        """Highest cosine that each sketch distance leaves plausible, float32 (sketch_bits + 1,)."""
        matching = plausible_matching(self.sketch_bits)
        # Rounding lifts some cosines of equal vectors above 1.
        return np.asarray(self.sketch_similarity(matching) + 1e-6, np.float32)

    def similarity_keys(self, vectors: Any) -> UInt32Array:
        """Sort keys that put similar vectors side by side, uint32 (n, 2): 64 further sign bits."""
        family = SignedRandomProjection(self.dim, self.seed ^ 0x5EED, tables=0, sketch_bits=64)
        return family.signs(vectors).view(">u4").astype(np.uint32)
