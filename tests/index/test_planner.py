import itertools

import numpy as np
import pytest
from closeby.index import as_set_batch
from closeby.index.errors import InvalidInputError
from closeby.index.planner import PLAN_FROM, Option, Plan, due_at, is_worth_changing, plan


@pytest.fixture(scope="module")
def families():
    """2,500 sets in families of five at a Jaccard similarity of about .6."""
    rng = np.random.default_rng(2)
    rows = []
    for _ in range(500):
        first = rng.integers(0, 2**63, 40, dtype=np.uint64)
        own = rng.integers(0, 2**63, (5, 10), dtype=np.uint64)
        rows += [np.concatenate((first[:30], each)) for each in own]
    return as_set_batch(rows)


@pytest.fixture(scope="module")
def strangers():
    """Vectors of which no two are near."""
    return np.random.default_rng(2).standard_normal((2_500, 48)).astype(np.float32)


@pytest.fixture(scope="module")
def clusters():
    rng = np.random.default_rng(2)
    centres = np.repeat(rng.standard_normal((250, 48)), 10, axis=0)
    return (centres + 0.2 * rng.standard_normal(centres.shape)).astype(np.float32)


def test_few_points_are_compared(families, clusters):
    for sample, metric in ((clusters, "cosine"), (clusters, "ip")):
        found = plan(sample, metric, points=2_500, threshold=0.8)
        assert found.index == "flat"
        assert "answers are exact" in found.why
    assert plan(families.slice(0, 100), "jaccard", points=100, threshold=0.5).index == "flat"


def test_long_vectors_by_inner_product_take_maxip():
    """Norms that differ much, in 400 dimensions: comparing all reads 32 MB."""
    rng = np.random.default_rng(2)
    factors = rng.standard_normal((4_000, 400)) * rng.lognormal(0, 0.6, (4_000, 1))
    found = plan(factors.astype(np.float32), "ip", points=1_000_000)
    assert next(option.index for option in found.options if option.eligible) == found.index
    own, flat = found.option("maxip"), found.option("flat")
    assert own.recall >= 0.9
    assert own.us < flat.us
    assert {option.index for option in found.options} == {"flat", "maxip", "hnsw", "ivf"}


def test_near_sets_in_great_number_take_an_engine_of_closeby(families):
    found = plan(families, "jaccard", points=2_000_000, threshold=0.5)
    assert found.index in ("flinng", "lsh")
    assert found.profile.near > 0.9
    best, flat = found.options[0], found.option("flat")
    assert (best.index, best.eligible) == (found.index, True)
    assert best.recall >= 0.94
    assert best.us * 100 < flat.us
    assert {option.index for option in found.options} == {
        "flat", "flinng", "lsh", "binary_hnsw", "binary_ivf",
    }  # fmt: skip


def test_far_neighbours_take_no_group_tests(strangers):
    found = plan(strangers, "cosine", points=1_000_000, threshold=0.8)
    assert found.profile.near == 0
    assert found.index in ("hnsw", "ivf", "flat")
    for own in ("flinng", "lsh"):
        assert not found.option(own).eligible
        assert "is below the 0.95 wanted" in found.option(own).why


def test_a_threshold_that_is_too_far_is_named(clusters):
    found = plan(clusters, "cosine", points=1_000_000, threshold=0.3)
    assert "too far for group tests" in found.option("flinng").why
    assert found.index in ("hnsw", "ivf", "lsh")


def test_memory_decides(clusters):
    free = plan(clusters, "cosine", points=1_000_000, threshold=0.8)
    features = 1_000_000 * 48 * 4
    tight = plan(
        clusters, "cosine", points=1_000_000, threshold=0.8, memory_bytes=features + 20_000_000
    )
    assert tight.index == "flat"
    assert free.index != "flat"
    assert "allowed" in tight.option("hnsw").why
    hopeless = plan(clusters, "cosine", points=1_000_000, threshold=0.8, memory_bytes=1_000)
    assert "nothing meets" in hopeless.why


def test_a_plan_is_the_same_again_by_the_same_clock_and_is_json(families):
    asked = {"points": 50_000, "threshold": 0.5, "seed": 4}
    one, other = (
        plan(families, "jaccard", **asked, clock=itertools.count().__next__) for _ in range(2)
    )
    assert one.as_json() == other.as_json()
    told = one.as_json()
    assert told["options"][0]["index"] == one.index
    assert told["profile"]["sampled"] == 2_500


def test_time_grows_with_the_points(families):
    small, large = (
        plan(families, "jaccard", points=n, threshold=0.5) for n in (20_000, 20_000_000)
    )
    for name in ("flat", "flinng", "binary_hnsw"):
        assert small.option(name).us < large.option(name).us


def test_a_collection_is_planned_again_when_it_has_grown_fourfold():
    assert due_at(None) == due_at(100) == PLAN_FROM
    assert due_at(PLAN_FROM) == 4 * PLAN_FROM
    assert due_at(None, first=50) == 50
    assert due_at(51, first=50, growth=1.5) == 77


def test_an_engine_is_left_only_for_a_clearly_better_one(families):
    profile = plan(families.slice(0, 50), "jaccard", points=50).profile

    def found(**present):
        best = Option("lsh", us=50.0, recall=0.99)
        return Plan("lsh", {}, "", 0.95, 0.5, None, profile, (best, Option("flinng", **present)))

    assert not is_worth_changing(found(us=60.0), "flinng")
    assert is_worth_changing(found(us=100.0), "flinng")
    assert is_worth_changing(found(us=60.0, eligible=False), "flinng")
    assert not is_worth_changing(found(us=60.0), "lsh")
    assert not is_worth_changing(found(us=60.0), "maxip")


def test_wrong_input(families):
    with pytest.raises(InvalidInputError, match="at least two points"):
        plan(families.slice(0, 1), "jaccard", points=1)
    with pytest.raises(InvalidInputError, match="target_recall"):
        plan(families, "jaccard", points=10, target_recall=2)
