"""MinHash: the locality-sensitive hash family of Jaccard similarity.

For a random permutation h of all elements, P[min h(A) = min h(B)] = |A ∩ B| / |A ∪ B| = J
(Broder 1997). K values taken together agree with probability J^K.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _native
from .batches import FloatArray, SetBatch, as_set_batch
from .errors import InvalidInputError

UInt8Array: TypeAlias = npt.NDArray[np.uint8]
UInt32Array: TypeAlias = npt.NDArray[np.uint32]
Scheme: TypeAlias = Literal["permutations", "one_permutation"]

SCHEMES: tuple[Scheme, ...] = ("permutations", "one_permutation")
_MASK = (1 << 64) - 1


def splitmix(seed: int, count: int) -> npt.NDArray[np.uint64]:
    """The first `count` numbers of the SplitMix64 stream of this seed, uint64 (count,)."""
    with np.errstate(over="ignore"):
        return mix64(
            np.uint64(seed & _MASK)
            + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        )


def mix64(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser of each number: random bits, different for different numbers."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)


def plausible_matching(bits: int) -> npt.NDArray[np.float64]:
    """Highest plausible probability that a sketch bit agrees, by distance 0 .. bits.

    The upper end of Wilson's score interval (1927) at three standard deviations.
    """
    z = 3.0
    seen = 1 - np.arange(bits + 1) / bits
    spread = z * np.sqrt(seen * (1 - seen) / bits + z * z / (4 * bits * bits))
    return np.minimum(1.0, (seen + z * z / (2 * bits) + spread) / (1 + z * z / bits))


class MinHashFamily:
    """`tables` keys of `K` MinHash values each, and a 1-bit MinHash sketch, of any set.

    Args:
        seed: everything random follows from it; equal seeds give equal hashes for ever.
        tables: number of 32-bit keys.
        K: MinHash values combined into each key.
        sketch_bits: bits of the sketch, a multiple of 8; 0 for none.
        scheme: ``"permutations"`` computes every value from its own permutation, in time
            (elements x values) with vector instructions: best below about 4 elements a value.
            ``"one_permutation"`` hashes every element once into bins and fills empty bins by
            optimal densification (Shrivastava, ICML 2017), in time (elements + values): best for
            large sets. Signatures of the two do not compare, so a family has one scheme.

    Raises:
        InvalidInputError: a number out of range.
    """

    metric = "jaccard"

    def __init__(
        self,
        seed: int = 0,
        *,
        tables: int = 64,
        K: int = 1,
        sketch_bits: int = 512,
        scheme: Scheme = "permutations",
    ) -> None:
        if tables < 0 or K < 1 or sketch_bits < 0 or sketch_bits % 8 or tables + sketch_bits == 0:
            raise InvalidInputError(
                "tables and sketch_bits must not be negative (nor both 0), K at least 1, "
                "sketch_bits a multiple of 8",
                field="tables",
            )
        if scheme not in SCHEMES:
            raise InvalidInputError(f"scheme must be one of {SCHEMES}", field="scheme")
        self.seed = seed
        self.tables = tables
        self.K = K
        self.sketch_bits = sketch_bits
        self.scheme = scheme
        self.values = tables * K + sketch_bits
        stream = splitmix(seed, self.values + 2)
        self._element_seed, self._key_seed = int(stream[-2]), int(stream[-1])
        self._xors = (stream[:-2] & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        self._multipliers = (stream[:-2] >> np.uint64(32)).astype(np.uint32) | np.uint32(1)

    @property
    def spec(self) -> dict[str, Any]:
        """What the hashes depend on, as JSON values."""
        return {
            "metric": self.metric,
            "seed": self.seed,
            "tables": self.tables,
            "K": self.K,
            "sketch_bits": self.sketch_bits,
            "scheme": self.scheme,
        }

    def signatures(self, sets: Any) -> UInt32Array:
        """All MinHash values, uint32 (n, tables * K + sketch_bits); all ones for an empty set."""
        batch = as_set_batch(sets)
        if self.scheme == "one_permutation":
            return _native.minhash_by_one_permutation(
                batch.indptr, batch.indices, self.values, self._element_seed
            )
        return _native.minhash_by_permutations(
            batch.indptr, batch.indices, self._xors, self._multipliers, self._element_seed
        )

    def hash(self, sets: Any) -> tuple[UInt32Array, UInt8Array]:
        """Keys uint32 (n, tables) and sketches uint8 (n, sketch_bits / 8)."""
        signatures = self.signatures(sets)
        n = len(signatures)
        keys = np.zeros((n, 0), np.uint32)
        if self.tables:
            keys = _native.minhash_table_keys(signatures, self.tables, self.K, self._key_seed)
        sketches = np.zeros((n, 0), np.uint8)
        if self.sketch_bits:
            first = self.tables * self.K
            sketches = _native.minhash_sketches(signatures, first, self.sketch_bits)
        return keys, sketches

    def sketch(self, sets: Any) -> UInt8Array:
        """1-bit MinHash sketches, uint8 (n, sketch_bits / 8)."""
        return self.hash(sets)[1]

    @staticmethod
    def collision_probability(
        similarity: npt.ArrayLike, K: int = 1, range_bits: int = 32
    ) -> npt.NDArray[np.float64]:
        """P[two keys agree in their top `range_bits` bits]: s + (1 - s) / 2^range_bits, s = J^K."""
        s = np.asarray(similarity, np.float64) ** K
        return s + (1 - s) / 2.0**range_bits

    @staticmethod
    def sketch_similarity(matching: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Estimate of J from the fraction of sketch bits that agree, (1 + J) / 2 on average."""
        return np.clip(2 * np.asarray(matching, np.float64) - 1, 0, 1)

    @cached_property
    def estimates(self) -> FloatArray:
        """Similarity that each sketch distance stands for, float32 (sketch_bits + 1,)."""
        matching = 1 - np.arange(self.sketch_bits + 1) / self.sketch_bits
        return np.asarray(self.sketch_similarity(matching), np.float32)

    @cached_property
    def highest_plausible(self) -> FloatArray:
        """Highest J that each sketch distance leaves plausible, float32 (sketch_bits + 1,).

        Three standard deviations of the estimate; 1 throughout for one permutation, whose values
        are not independent when a set has few elements.
        """
        if self.scheme == "one_permutation":
            return np.ones(self.sketch_bits + 1, np.float32)
        matching = plausible_matching(self.sketch_bits)
        return np.asarray(self.sketch_similarity(matching), np.float32)

    def similarity_keys(self, sets: SetBatch) -> UInt32Array:
        """Sort keys that put similar sets side by side, uint32 (n, 4), first column first.

        A few MinHash values that no table and no sketch uses, one after another.
        """
        family = MinHashFamily(self._key_seed, tables=0, sketch_bits=8, scheme=self.scheme)
        return np.ascontiguousarray(family.signatures(sets)[:, :4])
