"""Slow, obvious twins of the kernels, written from their documented meaning.

Sets are Python collections of integers, bit arrays are uint8 with bit j in bit j % 8 of byte
j // 8, and integers are Python's, cut to 32 or 64 bits where the definition says so. Nothing here
is shared with the library.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

MASK32 = 2**32 - 1
MASK64 = 2**64 - 1
GOLDEN_RATIO = 0x9E3779B97F4A7C15

# --- mixing --------------------------------------------------------------------------------------


def mix64(x: int) -> int:
    """SplitMix64's finaliser ("Mix13")."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK64
    return x ^ (x >> 31)


def mix32(x: int) -> int:
    """MurmurHash3's 32-bit finaliser."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B & MASK32
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & MASK32
    return x ^ (x >> 16)


def stream(seed: int, i: int) -> int:
    """The i-th number of the SplitMix64 generator with this seed."""
    return mix64((seed + (i + 1) * GOLDEN_RATIO) & MASK64)


def fold(value: int, other: int) -> int:
    """One more value mixed into a running hash."""
    return mix64(((value ^ other) * GOLDEN_RATIO + 0x632BE59BD9B4E019) & MASK64)


def reduce(random: int, n: int) -> int:
    """32 random bits, read as a fraction of 1, times n."""
    return random * n // 2**32


# --- MinHash -------------------------------------------------------------------------------------


def minhash_permutations(
    elements: Iterable[int], xors: Sequence[int], multipliers: Sequence[int], seed: int
) -> list[int]:
    """The least image of the set under each permutation; all ones for the empty set."""
    mixed = [mix64(x ^ seed) >> 32 for x in elements]
    return [
        min(((x ^ xor) * multiplier & MASK32 for x in mixed), default=MASK32)
        for xor, multiplier in zip(xors, multipliers, strict=True)
    ]


def minhash_one_permutation(elements: Iterable[int], values: int, seed: int) -> list[int]:
    """Bin minima of one permutation; an empty bin borrows from a filled one by a walk of its own.

    The walk of a bin depends on the bin alone, so that two sets follow the same one (optimal
    densification).
    """
    bins: dict[int, int] = {}
    for x in elements:
        hashed = mix64(x ^ seed)
        place, value = reduce(hashed >> 32, values), hashed & MASK32
        bins[place] = min(value, bins.get(place, MASK32))
    if not bins:
        return [MASK32] * values
    signature = []
    for place in range(values):
        step, source = 0, place
        while source not in bins:
            source = reduce(stream(fold(seed, place), step) >> 32, values)
            step += 1
        signature.append(bins[source])
    return signature


def table_keys(signature: Sequence[int], tables: int, K: int, seed: int) -> list[int]:
    """The top 32 bits of a hash over each table's K values, numbered by the table."""
    keys = []
    for table in range(tables):
        running = (seed + table) & MASK64
        for value in signature[table * K : table * K + K]:
            running = fold(running, int(value))
        keys.append(running >> 32)
    return keys


def one_bit_sketch(signature: Iterable[int]) -> np.ndarray:
    """The lowest bit of each mixed MinHash value, packed."""
    return pack([mix32(int(value)) & 1 for value in signature])


def pack(bits: Iterable[int]) -> np.ndarray:
    """Bits to bytes, the first bit lowest."""
    return np.packbits(np.array(list(bits), np.uint8), bitorder="little")


# --- signed random projections -------------------------------------------------------------------


def hadamard_matrix(size: int) -> np.ndarray:
    """The Hadamard matrix H(2n) = [[H, H], [H, -H]] of a power of two, float64."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def projections(vector: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """All projections of one vector in float64: for each rotation (signs, then Hadamard) x 3."""
    rotations, rounds, padded = signs.shape
    H = hadamard_matrix(padded)
    out = []
    for rotation in range(rotations):
        x = np.zeros(padded)
        x[: len(vector)] = vector
        for round_ in range(rounds):
            x = H @ (signs[rotation, round_] * x)
        out.append(x)
    return np.concatenate(out)


def sparse_projections(
    features: Sequence[int], values: Sequence[float], seed: int, bits: int
) -> np.ndarray:
    """Projections of one sparse vector on hashed, nearly normal directions: float32 sums."""
    sums = np.zeros(bits, np.float32)
    for feature, value in zip(features, values, strict=True):
        hashed = fold(seed, int(feature))
        words = np.array([stream(hashed, word) for word in range(bits // 8)], "<u8")
        x = words.view(np.int8).astype(np.float32) * np.float32(1 / 128) + np.float32(1 / 256)
        square = x * x
        tail = np.float32(1.2533) + square * np.float32(0.328)
        tail += square * square * (square * square) * np.float32(0.73)
        sums += x * tail * np.float32(value)
    return sums


# --- group tests and ranking ---------------------------------------------------------------------


def cell_counts(
    point_keys: np.ndarray, query_keys: np.ndarray, range_bits: int, group_size: int
) -> list[int]:
    """Tests that each cell passes: a cell passes test t if a point of it has the query's key t."""
    counts = []
    for first in range(0, len(point_keys), group_size):
        cell = point_keys[first : first + group_size]
        count = 0
        for table, key in enumerate(query_keys):
            top = int(key) >> (32 - range_bits)
            count += any(int(point[table]) >> (32 - range_bits) == top for point in cell)
        counts.append(count)
    return counts


def best_cells(counts: Sequence[int], want: int) -> list[int]:
    """The `want` cells with the highest counts, ties by number; as a rising list."""
    ranked = sorted(range(len(counts)), key=lambda cell: (-counts[cell], cell))
    return sorted(ranked[:want])


def cell_places(counts: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """Place of each chosen cell by falling count, then number, from 1 on; 0 for -1."""
    order = sorted(range(len(counts)), key=lambda cell: (-counts[cell], cell))
    return [order.index(cell) + 1 if cell >= 0 else 0 for cell in chosen]


def sketch_scan(
    sketches: np.ndarray,
    query: np.ndarray,
    positions: Iterable[int],
    removed: set[int],
    want: int,
    shortlist: int | None = None,
) -> list[tuple[int, int]]:
    """(distance, position) of the `want` nearest sketches; ties by place in `positions`.

    With a shortlist, of so many nearest by the first 16 bytes.
    """
    present = [position for position in positions if position not in removed]

    def nearest(places: list[int], size: int, count: int | None) -> list[tuple[int, int]]:
        ranked = [
            (int(np.bitwise_count(sketches[present[i], :size] ^ query[:size]).sum()), i)
            for i in places
        ]
        return sorted(ranked)[:count]

    listed = sorted(i for _, i in nearest(list(range(len(present))), 16, shortlist))
    return [(distance, present[i]) for distance, i in nearest(listed, len(query), want)]


def jaccard(a: Iterable[int], b: Iterable[int]) -> np.float32:
    """|A and B| / |A or B| as float32; 0 for two empty sets."""
    a, b = set(map(int, a)), set(map(int, b))
    return np.float32(len(a & b)) / np.float32(len(a | b)) if a | b else np.float32(0)


def top(scores: dict[int, float], k: int, least: float = -np.inf) -> tuple[list[int], list[float]]:
    """The k best of {id: score} that reach `least`: by falling score, then rising id."""
    ranked = sorted((-score, name) for name, score in scores.items() if score >= least)[:k]
    return [name for _, name in ranked], [-score for score, _ in ranked]


# --- features ------------------------------------------------------------------------------------


def hash_bytes(data: bytes) -> int:
    """A byte string folded 8 bytes at a time (little-endian, filled with zeros), the size first."""
    running = 0x2545F4914F6CDD1D ^ len(data)
    for at in range(0, len(data), 8):
        running = fold(running, int.from_bytes(data[at : at + 8], "little"))
    return running


def byte_shingles(text: str, n: int) -> set[int]:
    """n-grams of UTF-8 bytes: up to 4 the bytes themselves (big-endian), above that their hash."""
    data = text.encode()
    if not data:
        return set()
    if len(data) < n:
        return {hash_bytes(data)}
    grams = [data[i : i + n] for i in range(len(data) - n + 1)]
    return {int.from_bytes(gram, "big") if n <= 4 else hash_bytes(gram) for gram in grams}


def char_shingles(text: str, n: int) -> set[int]:
    """Hashes of n-grams of characters; a text shorter than n is one shingle."""
    if not text:
        return set()
    count = max(1, len(text) - n + 1)
    return {hash_bytes(text[i : i + n].encode()) for i in range(count)}


def words(text: str) -> list[bytes]:
    """Maximal runs of ASCII letters and digits and of all bytes from 128 on."""
    return re.findall(rb"[0-9a-zA-Z\x80-\xff]+", text.encode())


def word_shingles(text: str, n: int) -> set[int]:
    """n-grams of words: their hashes folded, beginning with how many they are."""
    return set(ngrams([hash_bytes(word) for word in words(text)], n))


def reverse_complement(sequence: str) -> str:
    """The other strand, read in its direction."""
    return sequence[::-1].translate(str.maketrans("ACGT", "TGCA"))


def kmers(sequence: str, k: int, *, canonical: bool) -> set[int]:
    """k-mers in base 4 (A C G T = 0 1 2 3), case ignored, U as T, none over any other letter."""
    plain = sequence.translate(str.maketrans("acgtuU", "ACGTTT"))
    found = set()
    for i in range(len(plain) - k + 1):
        kmer = plain[i : i + k]
        if not set(kmer) <= set("ACGT"):
            continue
        numbers = [
            int(strand.translate(str.maketrans("ACGT", "0123")), 4)
            for strand in (kmer, reverse_complement(kmer))
        ]
        found.add(min(numbers) if canonical else numbers[0])
    return found


def letter_kmers(sequence: str, k: int, groups: Iterable[str], *, canonical: bool) -> set[int]:
    """Hashes of k letters, each the first of its group; canonical: the smaller of the strands."""
    plain = {letter: group[0] for group in groups for letter in group + group.lower()}
    found = set()
    for i in range(len(sequence) - k + 1):
        if all(letter in plain for letter in sequence[i : i + k]):
            kmer = "".join(plain[letter] for letter in sequence[i : i + k])
            hashes = [hash_bytes(kmer.encode())]
            if canonical:
                hashes.append(hash_bytes(reverse_complement(kmer).encode()))
            found.add(min(hashes))
    return found


def ngrams(values: list[int], n: int) -> list[int]:
    """Windows of n numbers folded, beginning with how many they are; fewer than n are one."""
    window = min(n, len(values))
    found = []
    for i in range(len(values) - window + 1 if window else 0):
        running = 0x2545F4914F6CDD1D + window
        for value in values[i : i + window]:
            running = fold(running, value)
        found.append(running)
    return found


def copies(elements: Iterable[int], most: int) -> set[int]:
    """Elements, and for each repeat up to `most` copies an element of its own."""
    counts: dict[int, int] = {}
    found = set()
    for element in elements:
        number = counts[element] = counts.get(element, -1) + 1
        if number < most:
            first = fold(0xD6E8FEB86659FD93, element)
            found.add(fold(first, number) if number else element)
    return found


# --- merging -------------------------------------------------------------------------------------


def merge_topk(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best real hits of all parts, row by row; -1 and NaN after the last."""
    rows = len(parts[0][0])
    ids, scores = np.full((rows, k), -1, np.int64), np.full((rows, k), np.nan, np.float32)
    for row in range(rows):
        hits = sorted(
            (-float(score), int(name))
            for part_ids, part_scores in parts
            for name, score in zip(part_ids[row], part_scores[row], strict=True)
            if name >= 0
        )
        for place, (score, name) in enumerate(hits[:k]):
            ids[row, place], scores[row, place] = name, -score
    return ids, scores


# --- LSH tables and the paper's decode -----------------------------------------------------------


def bucket_mates(
    point_keys: np.ndarray, query_keys: np.ndarray, range_bits: int, tables: int
) -> list[int]:
    """Points that share the top bits of the query's key in one of the first `tables` tables."""
    return [
        i
        for i, keys in enumerate(point_keys)
        if any(
            int(keys[t]) >> (32 - range_bits) == int(query_keys[t]) >> (32 - range_bits)
            for t in range(tables)
        )
    ]


def paper_decode(
    counts: Sequence[int], members: Sequence[Sequence[int]], rows: int, removed: set[int], k: int
) -> list[tuple[int, int]]:
    """(point, count of its last cell): the first k points that are met in all rows.

    Cells are visited by falling count, then number; those that passed no test are not.
    """
    met: dict[int, int] = {}
    found = []
    for cell in sorted(range(len(counts)), key=lambda c: (-counts[c], c)):
        if counts[cell] == 0:
            break
        for point in members[cell]:
            met[point] = met.get(point, 0) + 1
            if met[point] == rows and point not in removed:
                found.append((point, counts[cell]))
    return found[:k]


# --- maximum inner products ----------------------------------------------------------------------


def scan_codes(
    codes: np.ndarray, factors: np.ndarray, tables: np.ndarray, scale: float, offset: float,
    base: float, bar: float,
) -> tuple[list[int], list[float]]:  # fmt: skip
    """The twin of `code_scan`: one point at a time, float32 in the documented order."""
    places, estimates = [], []
    f4 = np.float32
    for place, factor in enumerate(factors):
        block, i = divmod(place, 32)
        total = 0
        for row in range(codes.shape[1]):
            code = int(codes[block, row, i])
            total += int(tables[2 * row, code & 15]) + int(tables[2 * row + 1, code >> 4])
        estimate = factor * (f4(total) * f4(scale) + f4(offset)) + f4(base)
        if estimate > f4(bar):
            places.append(place)
            estimates.append(float(estimate))
    return places, estimates


def byte_products(
    rows: np.ndarray, scales: np.ndarray, query: np.ndarray, places: np.ndarray | None
) -> np.ndarray:
    """The twin of `byte_products`: the query in 16 bits, whole sums, one rounding each."""
    most = min(32767, (2**31 - 1) // (127 * rows.shape[1]))
    widest = float(np.abs(query).max())
    scale = widest / most if widest > 0 else 1.0
    values = query.astype(np.float64) / scale
    whole = np.trunc(values + np.where(values < 0, -0.5, 0.5)).astype(np.int64)
    chosen = np.arange(len(rows)) if places is None else places
    sums = rows[chosen, : len(query)].astype(np.int64) @ whole
    return sums.astype(np.float32) * (scales[chosen] * np.float32(scale))


def encode(
    rotated: np.ndarray, owners: np.ndarray, bits: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The twin of `encode`, of residuals that are rotated already: codes, factors, squares."""
    squares = np.where(owners >= 0, (rotated.astype(np.float64) ** 2).sum(axis=1), 0)
    total = np.abs(rotated[:, :bits].astype(np.float64)).sum(axis=1)
    factors = np.divide(squares, total, out=np.zeros_like(total), where=total > 0)
    factors[owners < 0] = np.nan
    packed = np.packbits(
        (rotated[:, :bits] < 0) & (owners >= 0)[:, None], axis=1, bitorder="little"
    )
    codes = packed.reshape(-1, 32, bits // 8).transpose(0, 2, 1)
    return codes, factors.astype(np.float32), squares


def round_rows(vectors: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The twin of `round_rows`: to the nearest byte, halves to the even one."""
    scales = np.abs(vectors).max(axis=1) / np.float32(127)
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 1e-37)
    rows = np.zeros((len(vectors), stride), np.int8)
    whole = np.rint(vectors * inverse[:, None])
    rows[:, : vectors.shape[1]] = np.clip(whole, -127, 127)
    return rows, scales


def take_nearer(
    scores: np.ndarray, halves: np.ndarray, points: np.ndarray, first: int, best: np.ndarray,
    owners: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The twin of `take_nearer`: best and owners as they are to be."""
    best, owners = best.copy(), owners.copy()
    for row, point in zip(scores - halves, points, strict=True):
        at = int(row.argmax())
        if row[at] > best[point]:
            best[point], owners[point] = row[at], first + at
    return best, owners
