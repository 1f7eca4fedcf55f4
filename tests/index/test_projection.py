"""Signed random projections as a hash family: measured collision rates against the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
import scipy.sparse
from closeby.index import (
    InvalidInputError,
    SignedRandomProjection,
    SparseBatch,
    as_sparse_batch,
)

PAIRS = 400
SIGMAS = 4.5


SEEDS = 20


def pairs_of(cosine: float, dim: int, pairs: int = PAIRS, seed: int = 1) -> Any:
    """Two matrices of unit vectors whose rows have this cosine, in random directions."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((pairs, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = random.standard_normal((pairs, dim))
    y -= (x * y).sum(axis=1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    return x.astype(np.float32), (cosine * x + np.sqrt(1 - cosine**2) * y).astype(np.float32)


@pytest.mark.parametrize("dim", [3, 50, 128, 300])
@pytest.mark.parametrize("cosine", [-0.5, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
def test_bits_of_keys_agree_as_often_as_the_formula_says(dim: int, cosine: float) -> None:
    """Over many seeds: in few dimensions all pairs of one seed meet the same few hyperplanes."""
    agreeing: dict[tuple[int, int], list[np.ndarray]] = {}
    for seed in range(SEEDS):
        left, right = pairs_of(cosine, dim, pairs=40, seed=seed)
        family = SignedRandomProjection(dim, seed, tables=32, sketch_bits=0)
        differ = family.hash(left)[0] ^ family.hash(right)[0]
        for range_bits in (1, 2, 4, 8):
            agree = differ >> np.uint32(32 - range_bits) == 0
            for K in (1, 2, 4):
                together = agree.reshape(40, -1, K).all(axis=2)
                agreeing.setdefault((K, range_bits), []).append(together)
    for (K, range_bits), seen in agreeing.items():
        rows = np.array(seen).reshape(SEEDS, -1)
        expected = float(SignedRandomProjection.collision_probability(cosine, K, range_bits))
        error = rows.mean(axis=1).std(ddof=1) / np.sqrt(SEEDS)
        rare = SIGMAS * np.sqrt(expected / rows.size) + SIGMAS**2 / rows.size
        # Rows of one rotation are orthogonal, not independent: many bits at once agree a little
        # more rarely, by some per cent at 64 dimensions and not to be seen at 300.
        dependence = 0.0 if K * range_bits <= 4 else 0.1 * expected
        assert rows.mean() == pytest.approx(expected, abs=max(SIGMAS * error, rare) + dependence)
        assert error < 0.03, "too few pairs to tell anything"


@pytest.mark.parametrize("cosine", [0.0, 0.5, 0.9])
def test_the_angle_of_sketches_is_unbiased_and_as_sure_as_coin_tosses(cosine: float) -> None:
    left, right = pairs_of(cosine, 200, pairs=600)
    family = SignedRandomProjection(200, 3, tables=0, sketch_bits=512)
    matching = 1 - np.bitwise_count(family.hash(left)[1] ^ family.hash(right)[1]).sum(axis=1) / 512
    expected = 1 - np.arccos(cosine) / np.pi
    error = matching.std(ddof=1) / np.sqrt(600)
    assert matching.mean() == pytest.approx(expected, abs=SIGMAS * error)
    # Rows of one rotation are orthogonal, which can only make the estimate surer.
    tosses = expected * (1 - expected) / 512
    assert matching.var(ddof=1) < tosses * (1 + SIGMAS * np.sqrt(2 / 599))
    estimate = SignedRandomProjection.sketch_similarity(matching)
    assert np.mean(estimate) == pytest.approx(cosine, abs=0.02)


def test_bits_are_those_of_the_definition() -> None:
    """From the seed alone: SplitMix64's bits, lowest first, are the signs; 1 is positive."""
    dim, tables, bits = 40, 5, 64
    family = SignedRandomProjection(dim, 9, tables=tables, sketch_bits=bits)
    rotations = -(-(tables * 16 + bits) // 256)
    count = rotations * 3 * 256
    words = [oracle.stream(9, i) for i in range(count // 64)]
    signs = np.array([1.0 if words[i // 64] >> i % 64 & 1 else -1.0 for i in range(count)])
    # Small whole numbers leave nothing to rounding.
    vectors = np.random.default_rng(1).integers(-3, 4, (10, dim)).astype(np.float32)
    keys, sketches = family.hash(vectors)
    for row, vector in enumerate(vectors):
        negative = oracle.projections(vector, signs.reshape(rotations, 3, 256)) < 0
        expected = [
            sum(int(negative[t * 16 + j]) << 16 + j for j in range(16)) for t in range(tables)
        ]
        assert keys[row].tolist() == expected
        start = tables * 16
        np.testing.assert_array_equal(sketches[row], oracle.pack(negative[start : start + bits]))


def test_length_does_not_matter_and_the_opposite_has_all_other_bits() -> None:
    left, _ = pairs_of(0.5, 64)
    family = SignedRandomProjection(64, 2)
    bits = family.signs(left)
    np.testing.assert_array_equal(bits, family.signs(left * 1024))
    np.testing.assert_array_equal(bits, ~family.signs(-left))


def test_vectors_along_the_axes_are_told_apart() -> None:
    """The hardest input of a structured rotation: without random signs they would all be alike."""
    family = SignedRandomProjection(64, 5, tables=0, sketch_bits=512)
    sketches = family.hash(np.eye(64))[1]
    differ = np.bitwise_count(sketches[:, None] ^ sketches[None]).sum(axis=2)
    apart = differ[np.triu_indices(64, 1)] / 512
    assert apart.mean() == pytest.approx(0.5, abs=0.01)
    assert apart.min() > 0.5 - 6 * 0.5 / np.sqrt(512)


def test_dimensions_of_one_and_of_many_thousands() -> None:
    family = SignedRandomProjection(1, 5, tables=4)
    keys, _ = family.hash([[2.0], [3.0], [-1.0]])
    assert (keys[0] == keys[1]).all()
    assert (keys[0] ^ keys[2] == 0xFFFF0000).all()
    left, right = pairs_of(0.9, 5000, pairs=20)
    family = SignedRandomProjection(5000, 5, tables=0, sketch_bits=512)
    matching = 1 - np.bitwise_count(family.hash(left)[1] ^ family.hash(right)[1]).sum(axis=1) / 512
    assert matching.mean() == pytest.approx(1 - np.arccos(0.9) / np.pi, abs=0.03)


def test_similar_vectors_are_put_side_by_side() -> None:
    random = np.random.default_rng(3)
    centres = random.standard_normal((50, 1, 64))
    vectors = (centres + 0.05 * random.standard_normal((50, 12, 64))).reshape(600, 64)
    shuffled = random.permutation(600)
    keys = SignedRandomProjection(64, 4).similarity_keys(vectors[shuffled].astype(np.float32))
    order = np.lexsort(keys.T[::-1])
    assert sorted(order.tolist()) == list(range(600))
    group = shuffled[order] // 12
    assert (group[1:] == group[:-1]).mean() > 0.6


def test_plausible_similarities_bound_the_true_one() -> None:
    family = SignedRandomProjection(100, 5, tables=0, sketch_bits=256)
    highest = family.highest_plausible
    assert highest.shape == (257,)
    assert (np.diff(highest) <= 0).all()
    exceeded = []
    for cosine in (0.0, 0.5, 0.8, 0.9, 0.99):
        left, right = pairs_of(cosine, 100, pairs=1500)
        differ = np.bitwise_count(family.hash(left)[1] ^ family.hash(right)[1]).sum(axis=1)
        exceeded.append(highest[differ] < cosine)
    assert np.mean(exceeded) < 0.003  # three deviations: once in 740 times
    # Equal vectors may come out a little above 1 in float32, and must not be left out for it.
    left, _ = pairs_of(0.5, 100)
    assert highest[0] >= np.einsum("ij,ij->i", left, left).max()


def test_no_vectors() -> None:
    keys, sketches = SignedRandomProjection(5, tables=3).hash(np.zeros((0, 5)))
    assert keys.shape == (0, 3)
    assert sketches.shape == (0, 64)


@pytest.mark.parametrize(
    "options",
    [
        {"dim": 0},
        {"tables": -1},
        {"sketch_bits": 12},
        {"sketch_bits": -8},
        {"tables": 0, "sketch_bits": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        SignedRandomProjection(**{"dim": 8} | options)


def test_vectors_of_another_dimension_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="8 dimensions, not 9"):
        SignedRandomProjection(8).hash(np.ones((2, 9)))


# --- sparse vectors ------------------------------------------------------------------------------


def sparse_pairs(cosine: float, elements: int, pairs: int, seed: int) -> list[SparseBatch]:
    """Two batches whose rows have this cosine by one dimension that they share.

    Shared and own dimensions are few, or one alone outweighs the rest: what random signs, unlike
    normal coefficients, would not hash by the angle.
    """
    random = np.random.default_rng(seed)
    dimensions = random.integers(0, 1 << 62, (pairs, 2 * elements - 1), dtype=np.uint64)
    batches = []
    for own in (slice(1, elements), slice(elements, 2 * elements - 1)):
        chosen = np.concatenate([dimensions[:, :1], dimensions[:, own]], axis=1)
        order = np.argsort(chosen, axis=1)
        values = np.empty((pairs, elements), np.float32)
        values[:, 0] = np.sqrt(cosine)
        values[:, 1:] = np.sqrt((1 - cosine) / (elements - 1))
        batches.append(
            SparseBatch(
                np.arange(pairs + 1) * elements,
                np.take_along_axis(chosen, order, axis=1).ravel(),
                np.take_along_axis(values, order, axis=1).ravel(),
            )
        )
    return batches


@pytest.mark.parametrize("elements", [2, 5, 60])
@pytest.mark.parametrize("cosine", [0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
def test_sparse_bits_agree_as_often_as_the_formula_says(elements: int, cosine: float) -> None:
    left, right = sparse_pairs(cosine, elements, 600, seed=4)
    family = SignedRandomProjection(None, 7, tables=64, sketch_bits=512)
    (keys, sketches), (others, far) = family.hash(left), family.hash(right)
    for K, range_bits in ((1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 4), (4, 1), (8, 1)):
        agree = (keys ^ others) >> np.uint32(32 - range_bits) == 0
        rows = agree.reshape(600, -1, K).all(axis=2)
        expected = float(SignedRandomProjection.collision_probability(cosine, K, range_bits))
        error = max(SIGMAS * rows.mean(axis=1).std(ddof=1) / np.sqrt(600), 1e-4)
        # The coefficients are near normal, not normal: half of a per cent of a bit, and of 2, 4, 8.
        assert rows.mean() == pytest.approx(expected, abs=error + 0.005 * K * range_bits * expected)
    matching = 1 - np.bitwise_count(sketches ^ far).sum(axis=1) / 512
    assert np.mean(family.sketch_similarity(matching)) == pytest.approx(cosine, abs=0.02)


def test_sparse_bits_depend_on_neither_form_nor_length() -> None:
    matrix = scipy.sparse.random(30, 400, 0.05, "csr", random_state=1, dtype=np.float32)
    family = SignedRandomProjection(None, 3, tables=8, sketch_bits=128)
    bits = family.signs(matrix)
    np.testing.assert_array_equal(bits, family.signs(as_sparse_batch(matrix)))
    np.testing.assert_array_equal(bits, family.signs(matrix * np.float32(1024)))
    empty = np.diff(matrix.indptr) == 0
    np.testing.assert_array_equal(bits[~empty], ~family.signs(-matrix)[~empty])
    assert not bits[empty].any()
    assert (SignedRandomProjection(None, 4, tables=8, sketch_bits=128).signs(matrix) != bits).any()
    assert family.similarity_keys(matrix).shape == (30, 2)
