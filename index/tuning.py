"""Parameters from mathematics: how many tables, which groups, how many cells for which recall.

Words and formulas (docs/algorithm.md derives them):

    m   tables          g   points a cell       r   bits of a key that address a bitmap
    s   probability that query and neighbour share a key: J^K, or (1 - θ/π)^r
    f   share of cells that hold a point with the query's key by chance: 1 - exp(-g / 2^r)
    q   probability that the neighbour's cell passes one test: s + (1 - s) f

A cell without a neighbour passes Binomial(m, f) tests, the neighbour's cell Binomial(m, q). Taking
the best T of N/g cells finds the neighbour with probability target when

    m >= [(z_n sqrt(f(1-f)) + z_m sqrt(q(1-q))) / (s(1-f))]^2,
    z_n = Φ⁻¹(1 - T g / N),  z_m = Φ⁻¹(target)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

from . import _native
from .errors import InvalidInputError

_NORMAL = NormalDist()

# Mean number of points with one key in one cell, λ = g / 2^r. Smaller: purer tests, more memory.
LOAD = 0.25
# What is read of a point's sketch costs this many times a bitmap bit: 16 bytes against 1/8 byte.
SKETCH_COST = 128
# Cells for which the group size is laid out.
TYPICAL_CELLS = 64
# Fewer are not worth their while: half a byte a point each, against real data, where points
# resemble each other more than the formulas know.
LEAST_TABLES = 32
# Below so many points all sketches are scanned: 4 to 5 ns each.
SCAN_BELOW = 8_192
LEAST_RANGE_BITS, MAX_RANGE_BITS = 5, 14
MIN_TARGET, MAX_TARGET = 0.5, 0.9999


@dataclass(frozen=True)
class GroupShape:
    """How the points of one segment are grouped: g points a cell, 2^r bitmaps a table."""

    group_size: int
    range_bits: int

    @property
    def load(self) -> float:
        """λ, the mean number of points with one key in one cell."""
        return float(self.group_size / 2.0**self.range_bits)

    @property
    def chance(self) -> float:
        """f, the probability that a cell passes a test by chance."""
        return 1 - math.exp(-self.load)


@dataclass(frozen=True)
class PostingsShape:
    """How the points of one segment are hashed into LSH tables: 2^r buckets a table."""

    range_bits: int


Shape: TypeAlias = GroupShape | PostingsShape


@dataclass(frozen=True)
class Effort:
    """What one query may look at in one segment.

    Attributes:
        breadth: cells of the group tests, or tables of the postings.
        candidates: points that are compared exactly.
    """

    breadth: int
    candidates: int


def group_shape(points: int, tables: int) -> GroupShape | None:
    """The cheapest groups for a segment of so many points; None to scan all sketches.

    A query reads m N / (8 g) bytes of bitmaps and 16 T g bytes of sketches; the sum is least at
    g = sqrt(m N / (128 T)), and little more at the power of two next to it, with which the load is
    the same for all segments, and the bytes a point are m / (8 load) whatever N.
    """
    if points < SCAN_BELOW:
        return None
    size = math.sqrt(tables * points / (SKETCH_COST * TYPICAL_CELLS))
    range_bits = max(LEAST_RANGE_BITS, round(math.log2(size / LOAD)))
    range_bits = min(MAX_RANGE_BITS, range_bits)
    return GroupShape(round(LOAD * 2**range_bits), range_bits)


def group_bytes(points: int, tables: int) -> float:
    """Bytes of bitmaps for each point of a segment of so many."""
    shape = group_shape(points, tables)
    if shape is None:
        return 0.0
    cells = -(-points // shape.group_size)
    stride = 32 * -(-cells // 256)  # rows are read in vectors of 32 bytes
    return tables * 2.0**shape.range_bits * stride / points


# What the steps of a query cost on one core, ns: measured by ``python -m benchmarks stages`` on the
# machine that its results name. Their proportions matter more than their size.
COUNT_BYTES = 10.0  # of bitmaps, added up in a nanosecond
SCAN_COST, CELL_COST = 1.2, 25.0  # the first 16 bytes of a sketch; a cell, somewhere in memory
SHORTLIST_COST = 9.0  # the rest of a sketch, somewhere in memory
VALUE_ELEMENT_COST = 0.045  # one MinHash value of one element of the query
COMPARED_COST, ELEMENT_COST = 110.0, 0.8  # a point compared exactly; each of its elements
# Candidates that are compared before the rest is plainly too far.
COMPARED_SHARE = 0.75
FIXED_COST = 3_000.0


def query_us(
    points: int, shape: GroupShape, tables: int, effort: Effort, shortlist: int
) -> tuple[float, float]:
    """Expected µs of the group tests, and of the sketch scan, of one query."""
    tests = tables * points / (8 * shape.group_size) / COUNT_BYTES
    scanned = min(points, effort.breadth * shape.group_size)
    scan = (
        scanned * SCAN_COST + effort.breadth * CELL_COST + min(shortlist, scanned) * SHORTLIST_COST
    )
    return tests / 1e3, scan / 1e3


def rerank_ns(effort: Effort, feature_bytes: float) -> float:
    """Expected ns for telling the best candidates by whole sketches, and comparing them exactly.

    feature_bytes: of a point.
    """
    compared = COMPARED_COST + feature_bytes / 4 * ELEMENT_COST
    shortlist = max(_native.SHORTLIST * effort.candidates, _native.LEAST_SHORTLIST)
    return shortlist * SHORTLIST_COST + effort.candidates * COMPARED_SHARE * compared


def neighbour_similarities(threshold: float) -> tuple[float, ...]:
    """Similarities for which recall is averaged: evenly from the threshold to 1.

    What similarities neighbours have depends on the data; recall at the threshold alone would ask
    for several times the work, to find the few that are just near enough.
    """
    return tuple(threshold + (1 - threshold) * step / 4 for step in range(5))


def check_target(target_recall: float) -> float:
    """The target as a float.

    Raises:
        InvalidInputError: it is not a number between .5 and .9999.
    """
    try:
        target = float(target_recall)
    except (TypeError, ValueError):
        target = math.nan
    if not MIN_TARGET <= target <= MAX_TARGET:
        raise InvalidInputError(
            f"target_recall must be between {MIN_TARGET} and {MAX_TARGET}; "
            'use index="flat" for exact answers',
            field="target_recall",
        )
    return target


def cells_for(points: int, shape: GroupShape, tables: int, s: float, target_recall: float) -> int:
    """T: how many of the best cells hold a neighbour of key probability s with this probability."""
    f = shape.chance
    q = s + (1 - s) * f
    need = math.sqrt(tables) * s * (1 - f) - _NORMAL.inv_cdf(target_recall) * math.sqrt(q * (1 - q))
    z_n = need / math.sqrt(f * (1 - f))
    return math.ceil(points / shape.group_size * (1 - _NORMAL.cdf(z_n)))


def recall_of(points: int, shape: GroupShape, tables: int, s: float, cells: int) -> float:
    """Probability that the best `cells` cells hold a neighbour of key probability s."""
    share = cells * shape.group_size / points
    if share >= 1:
        return 1.0
    f = shape.chance
    q = s + (1 - s) * f
    z_n = _NORMAL.inv_cdf(1 - share)
    ahead = math.sqrt(tables) * s * (1 - f) - z_n * math.sqrt(f * (1 - f))
    spread = math.sqrt(q * (1 - q))
    if spread == 0:  # an equal point passes every test
        return 1.0 if ahead > 0 else 0.0
    return _NORMAL.cdf(ahead / spread)


def tables_for(points: int, s: float, target_recall: float) -> int:
    """m: tables that find a neighbour of key probability s in so many points, a multiple of 8."""
    tables = LEAST_TABLES
    for _ in range(8):  # the group size depends on m: a few rounds settle both
        shape = group_shape(max(points, SCAN_BELOW), tables)
        assert shape is not None
        f = shape.chance
        q = s + (1 - s) * f
        z_n = _NORMAL.inv_cdf(1 - min(0.5, TYPICAL_CELLS * shape.group_size / points))
        z_m = _NORMAL.inv_cdf(target_recall)
        root = (z_n * math.sqrt(f * (1 - f)) + z_m * math.sqrt(q * (1 - q))) / (s * (1 - f))
        wanted = max(LEAST_TABLES, 8 * math.ceil(max(1.0, root) ** 2 / 8))
        if wanted == tables:
            break
        tables, before = wanted, tables
    else:
        # Range bits come whole, so two numbers may each ask for the other: the larger is enough.
        tables = max(tables, before)
    return tables


# --- LSH tables ----------------------------------------------------------------------------------
# A neighbour of key probability s shares a bucket with the query in at least one of m tables with
# probability 1 - (1 - s)^m. Larger K makes keys rarer: fewer candidates, more tables. The costs
# below choose between them; they are ns of one core, and only their proportions matter.
TABLE_COST = 25.0  # two places in memory, asked for ahead of time
VALUE_COST = 6.0  # one hash value of the query
CANDIDATE_COST = 8.0  # one sketch, read out of order
# Similarity to the query that most points are taken to have, where no sample tells (fit_lsh): that
# of URLs, and of any random vectors.
BACKGROUND = {"jaccard": 0.05, "cosine": 0.1}
# Points of a bucket, between this and half of it, that agree by chance in the bits that address it.
BUCKET_LOAD = 4
# Below so many points all sketches are scanned: a look at all tables costs as much.
POSTINGS_FROM = 1_024
MAX_HASHES = {"jaccard": 16, "cosine": 32}


@dataclass(frozen=True)
class PostingsPlan:
    """What LSH tables for so many points are to be.

    Attributes:
        K: hashes combined into a key: MinHash values, or sign bits.
        tables: m.
        candidates: points that a query is expected to meet by chance.
        cost: expected ns of a query before its neighbours are ranked.
    """

    K: int
    tables: int
    candidates: float
    cost: float


LEAST_KEY_PROBABILITY = 1e-12


def postings_shape(points: int, most_bits: int = 32) -> PostingsShape | None:
    """Buckets for a segment of so many points, whose keys have so many bits; None to scan all."""
    if points < POSTINGS_FROM:
        return None
    return PostingsShape(min(most_bits, max(1, (points // BUCKET_LOAD).bit_length())))


def postings_tables_for(s: float, target_recall: float) -> int:
    """m: tables of which one holds a neighbour of key probability s with this probability."""
    if s >= 1:
        return 1
    # Nothing smaller can be found by any number of tables, and its logarithm is lost.
    s = max(s, LEAST_KEY_PROBABILITY)
    return max(1, math.ceil(math.log1p(-target_recall) / math.log1p(-s) - 1e-9))


def postings_recall(s: float, tables: int) -> float:
    """Probability that a neighbour of key probability s lies in a bucket of so many tables."""
    return 1 - (1 - s) ** tables


def postings_bytes(points: int, tables: int, most_bits: int = 32) -> float:
    """Bytes of postings for each point of a segment of so many, whose keys have so many bits."""
    shape = postings_shape(points, most_bits)
    return 0.0 if shape is None else tables * 4 * (1 + 2**shape.range_bits / points)


def plan_postings(
    points: int,
    near: float,
    chance: Callable[[int], float],
    target_recall: float,
    *,
    most_hashes: int,
    most_tables: int,
) -> PostingsPlan:
    """K and m with this recall: the fewest tables of about the least cost.

    Args:
        points: expected number of points.
        near: probability that one hash agrees with that of a neighbour at the threshold.
        chance: probability that so many hashes of two points agree.
        target_recall: wanted.
        most_hashes: greatest K.
        most_tables: greatest m.
    """
    plans: list[PostingsPlan] = []
    for K in range(1, most_hashes + 1):
        tables = postings_tables_for(near**K, target_recall)
        if plans and tables > most_tables:
            break
        met = tables * min(points, points * chance(K) + BUCKET_LOAD)
        cost = tables * (TABLE_COST + K * VALUE_COST) + met * CANDIDATE_COST
        plans.append(PostingsPlan(K, tables, met, cost))
    least = min(plan.cost for plan in plans)
    # Memory grows with m: the fewest tables among the plans that cost about the same.
    return next(plan for plan in plans if plan.cost <= 1.5 * least)
