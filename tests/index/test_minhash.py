"""MinHash as a hash family: measured collision rates against the formulas.

Rates are averages over many pairs of random sets of one similarity. Pairs are independent of each
other, so the spread of their rates tells how far the average may be off, whatever the values of
one signature have to do with each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from closeby.index import InvalidInputError, MinHashFamily, SetBatch, as_set_batch
from closeby.index.minhash import SCHEMES, splitmix

SIMILARITIES = (0.1, 0.3, 0.5, 0.7, 0.9, 0.95)
PAIRS = 300
# A right implementation is farther off once in 100,000 tests; and the seeds are fixed.
SIGMAS = 4.5


def pairs_of(shared: int, joint: int, pairs: int = PAIRS, seed: int = 1) -> Any:
    """Two batches: set i of one and set i of the other share `shared` of `joint` elements."""
    random = np.random.default_rng(seed)
    elements = random.integers(0, 2**64 - 1, (pairs, joint), dtype=np.uint64)
    own = (joint - shared) // 2
    left = elements[:, : shared + own]
    right = np.hstack([elements[:, :shared], elements[:, shared + own :]])
    return as_set_batch(list(left)), as_set_batch(list(right))


def assert_rate(rows: np.ndarray, expected: float) -> None:
    """The average is `expected`, as far as the spread of the rows' own averages can tell.

    What is too rare to have a spread counts as a Poisson number of events.
    """
    error = rows.mean(axis=1).std(ddof=1) / np.sqrt(len(rows))
    rare = SIGMAS * np.sqrt(expected / rows.size) + SIGMAS**2 / rows.size
    assert rows.mean() == pytest.approx(expected, abs=max(SIGMAS * error, rare))
    assert error < 0.03, "too few pairs to tell anything"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("K", [1, 2, 4, 8])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_keys_collide_as_often_as_the_formula_says(scheme: Any, K: int, similarity: float) -> None:
    left, right = pairs_of(round(200 * similarity), 200)
    family = MinHashFamily(7, tables=32, K=K, sketch_bits=0, scheme=scheme)
    a, b = family.hash(left)[0], family.hash(right)[0]
    for range_bits in (1, 4, 8, 16, 32):
        agree = (a ^ b) >> np.uint32(32 - range_bits) == 0
        expected = MinHashFamily.collision_probability(similarity, K, range_bits)
        assert_rate(agree, float(expected))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("shared", "joint"), [(1, 9), (2, 8), (3, 7), (4, 6), (1, 3), (4_000, 8_000), (7_200, 8_000)]
)
def test_values_of_small_and_large_sets_agree_with_probability_J(
    scheme: Any, shared: int, joint: int
) -> None:
    """Sets of five elements have far more bins than elements; sets of thousands far fewer."""
    left, right = pairs_of(shared, joint, pairs=PAIRS if joint < 100 else 40)
    family = MinHashFamily(3, tables=64, sketch_bits=0, scheme=scheme)
    agree = family.signatures(left) == family.signatures(right)
    assert_rate(agree, shared / joint)


@pytest.mark.parametrize("similarity", [0.2, 0.5, 0.8])
def test_values_of_permutations_are_independent(similarity: float) -> None:
    """The estimate of J from L values has the variance of L coin tosses."""
    L, pairs = 512, 600
    left, right = pairs_of(round(200 * similarity), 200, pairs=pairs)
    family = MinHashFamily(11, tables=L, sketch_bits=0)
    estimates = (family.signatures(left) == family.signatures(right)).mean(axis=1)
    expected = similarity * (1 - similarity) / L
    # A sample variance has the relative deviation sqrt(2 / (pairs - 1)).
    deviation = np.sqrt(2 / (pairs - 1))
    assert estimates.var(ddof=1) / expected == pytest.approx(1, abs=SIGMAS * deviation)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_densification_does_not_make_the_estimate_much_worse(scheme: Any) -> None:
    """With as many elements as values, one permutation is about as good as many."""
    left, right = pairs_of(256, 512, pairs=400)
    family = MinHashFamily(11, tables=384, sketch_bits=0, scheme=scheme)
    estimates = (family.signatures(left) == family.signatures(right)).mean(axis=1)
    assert estimates.var(ddof=1) < 2 * 0.25 / 384


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("shared", "joint"), [(1, 9), (4, 6), (40, 200), (150, 200), (2000, 4000)])
def test_the_similarity_of_sketches_is_unbiased(scheme: Any, shared: int, joint: int) -> None:
    left, right = pairs_of(shared, joint, pairs=PAIRS if joint < 1000 else 60)
    family = MinHashFamily(5, tables=0, sketch_bits=512, scheme=scheme)
    differ = np.bitwise_count(family.sketch(left) ^ family.sketch(right)).sum(axis=1)
    estimates = 1 - 2 * differ / 512  # not cut off at 0, which would be a bias
    error = estimates.std(ddof=1) / np.sqrt(len(estimates))
    assert error < 0.03
    assert estimates.mean() == pytest.approx(shared / joint, abs=SIGMAS * error)
    np.testing.assert_allclose(
        MinHashFamily.sketch_similarity(1 - differ / 512), np.clip(estimates, 0, 1), atol=1e-12
    )


def test_bits_of_a_sketch_are_fair() -> None:
    left, _ = pairs_of(1, 31, pairs=4000)
    for scheme in SCHEMES:
        sketch = MinHashFamily(5, tables=0, sketch_bits=64, scheme=scheme).sketch(left)
        ones = np.unpackbits(sketch, axis=1).mean(axis=0)
        assert np.abs(ones - 0.5).max() < SIGMAS * 0.5 / np.sqrt(4000)


def test_values_of_keys_are_spread_evenly() -> None:
    """The top bits of a key, which address bitmaps, must not favour a value."""
    left, _ = pairs_of(1, 61, pairs=4000)
    for scheme in SCHEMES:
        keys = MinHashFamily(5, tables=8, sketch_bits=0, scheme=scheme).hash(left)[0]
        for table in range(8):
            counts = np.bincount(keys[:, table] >> 27, minlength=32)
            # Pearson's statistic has mean 31 and deviation sqrt(62).
            assert ((counts - 125) ** 2 / 125).sum() < 31 + SIGMAS * np.sqrt(62)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_signatures_are_those_of_the_definition(scheme: Any) -> None:
    """From the seed alone: SplitMix64 gives the permutations, then seeds of elements and keys."""
    sets = [{1, 2, 3}, set(), {2**64 - 1}, set(range(100))]
    family = MinHashFamily(99, tables=5, K=3, sketch_bits=16, scheme=scheme)
    numbers = [oracle.stream(99, i) for i in range(5 * 3 + 16 + 2)]
    assert splitmix(99, 33).tolist() == numbers
    *random, element_seed, key_seed = numbers
    xors = [number & oracle.MASK32 for number in random]
    multipliers = [number >> 32 | 1 for number in random]
    keys, sketches = family.hash(sets)
    for row, elements in enumerate(sets):
        if scheme == "permutations":
            expected = oracle.minhash_permutations(elements, xors, multipliers, element_seed)
        else:
            expected = oracle.minhash_one_permutation(elements, len(random), element_seed)
        assert family.signatures(sets)[row].tolist() == expected
        assert keys[row].tolist() == oracle.table_keys(expected, 5, 3, key_seed)
        np.testing.assert_array_equal(sketches[row], oracle.one_bit_sketch(expected[15:]))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_order_of_elements_and_of_sets_does_not_matter(scheme: Any) -> None:
    family = MinHashFamily(1, tables=8, scheme=scheme)
    keys, sketches = family.hash([[5, 3, 9], [7], []])
    again, sketches_again = family.hash([[], [7, 7], [9, 3, 5, 3]])
    np.testing.assert_array_equal(keys, again[::-1])
    np.testing.assert_array_equal(sketches, sketches_again[::-1])


def test_seeds_give_different_hashes() -> None:
    sets = [list(range(50))]
    signatures = [MinHashFamily(seed, tables=64).signatures(sets) for seed in (0, 1, 2**64 - 1)]
    for i in range(3):
        for j in range(i):
            assert (signatures[i] != signatures[j]).mean() > 0.99


def test_similar_sets_are_put_side_by_side() -> None:
    """Twelve variants each of fifty sets, shuffled: neighbours in the order are mostly variants."""
    random = np.random.default_rng(2)
    sets = [
        np.append(base, random.integers(0, 2**60, 3, dtype=np.uint64))
        for base in random.integers(0, 2**60, (50, 97), dtype=np.uint64)
        for _ in range(12)
    ]
    shuffled = random.permutation(600)
    batch = as_set_batch([sets[i] for i in shuffled])
    order = np.lexsort(MinHashFamily(4).similarity_keys(batch).T[::-1])
    assert sorted(order.tolist()) == list(range(600))
    group = shuffled[order] // 12
    assert (group[1:] == group[:-1]).mean() > 0.8


@pytest.mark.parametrize("scheme", SCHEMES)
def test_plausible_similarities_bound_the_true_one(scheme: Any) -> None:
    """What lets the exact re-rank stop early: exceeded about once in 1,000 times."""
    family = MinHashFamily(5, tables=0, sketch_bits=256, scheme=scheme)
    highest = family.highest_plausible
    assert highest.shape == (257,)
    assert (np.diff(highest) <= 0).all()
    assert highest[0] == 1
    exceeded = []
    for shared, joint in [(4, 6), (50, 200), (100, 200), (180, 200), (199, 200)]:
        left, right = pairs_of(shared, joint, pairs=1500)
        differ = np.bitwise_count(family.sketch(left) ^ family.sketch(right)).sum(axis=1)
        exceeded.append(highest[differ] < np.float32(shared / joint))
    # Three deviations: once in 740 times; 7,500 trials cannot tell more than about twice that.
    assert np.mean(exceeded) < 0.003


def test_no_sets_and_empty_sets() -> None:
    for scheme in SCHEMES:
        family = MinHashFamily(1, tables=4, scheme=scheme)
        keys, sketches = family.hash(SetBatch.concat([]))
        assert keys.shape == (0, 4)
        assert sketches.shape == (0, 64)
        assert (family.signatures([[], [1]])[0] == 2**32 - 1).all()
    assert MinHashFamily(1, tables=0).hash([[1]])[0].shape == (1, 0)
    assert MinHashFamily(1, sketch_bits=0).hash([[1]])[1].shape == (1, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"tables": -1},
        {"K": 0},
        {"sketch_bits": 12},
        {"sketch_bits": -8},
        {"tables": 0, "sketch_bits": 0},
        {"scheme": "two_permutations"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        MinHashFamily(0, **options)
