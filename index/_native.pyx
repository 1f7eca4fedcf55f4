# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The one boundary between Python and the kernels in ``csrc/``.

Arrays in, arrays out: each function checks shapes and types, drops the interpreter lock and calls
a kernel. Nothing else in closeby touches C++, and nothing here decides anything.
"""

from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool

import numpy as np


cdef extern from "kernels.hpp" namespace "closeby" nogil:
    cdef cppclass Sets:
        const int64_t* indptr
        const uint64_t* indices
        int64_t n

    cdef cppclass StoredSets:
        const int64_t* indptr
        const void* elements
        int width

    cdef cppclass GroupTests:
        const uint8_t* bitmaps
        int64_t stride
        int64_t cells
        int32_t tables
        int32_t range_bits
        int32_t group_size

    cdef cppclass HashSet:
        pass

    cdef cppclass Kernels:
        const char* name
        void (*minhash_permutation)(const Sets&, const uint32_t*, const uint32_t*, int64_t,
                                    uint64_t, uint32_t*) noexcept
        void (*minhash_keys)(const uint32_t*, int64_t, int64_t, int64_t, int64_t, uint64_t,
                             uint16_t*) noexcept
        void (*minhash_sketch)(const uint32_t*, int64_t, int64_t, int64_t, uint8_t*) noexcept
        void (*srp_bits)(const float*, int64_t, int64_t, int64_t, const float*, int64_t, float*,
                         uint8_t*) noexcept
        int64_t (*group_query)(const GroupTests&, const uint16_t*, int64_t, uint64_t*,
                               int64_t*) noexcept
        int64_t (*sketch_scan)(const uint8_t*, int64_t, const uint8_t*, const int64_t*, int64_t,
                               int64_t, int64_t, const uint8_t*, int64_t, uint16_t*, int64_t*,
                               uint16_t*) noexcept
        void (*inner_products)(const float*, int64_t, const int64_t*, int64_t, const float*,
                               float*) noexcept

    const Kernels* kernels_by_name(const char*) noexcept
    const Kernels* best_kernels() noexcept
    int64_t one_permutation_scratch(int64_t) noexcept
    void minhash_one_permutation(const Sets&, int64_t, uint64_t, uint64_t*, uint32_t*) noexcept
    void group_insert(uint8_t*, int64_t, int32_t, int32_t, int32_t, const uint16_t*, int64_t,
                      int64_t) noexcept
    int64_t group_scratch(int64_t, int64_t) noexcept
    int64_t hash_set_slots(int64_t) noexcept
    HashSet hash_set_build(const uint64_t*, int64_t, uint64_t, int64_t, uint64_t*) noexcept
    void jaccard(const StoredSets&, const int64_t*, int64_t, const HashSet&, float*) noexcept
    cdef cppclass Candidates:
        const int64_t* positions
        const uint16_t* distances
        int64_t count
        const int64_t* ids
        const float* highest
        int64_t k
        float min_score
    int64_t rerank_sets(const StoredSets&, const HashSet&, const Candidates&, int64_t*,
                        float*) noexcept
    int64_t rerank_vectors(const Kernels&, const float*, int64_t, const float*, const Candidates&,
                           int64_t*, float*) noexcept
    int64_t byte_shingles(const uint8_t*, int64_t, int64_t, uint64_t*) noexcept
    int64_t char_shingles(const uint8_t*, int64_t, int64_t, uint64_t*) noexcept
    int64_t word_shingles(const uint8_t*, int64_t, int64_t, uint64_t*) noexcept
    int64_t dna_kmers(const uint8_t*, int64_t, int64_t, cbool, uint64_t*) noexcept
    uint64_t hash_bytes(const uint8_t*, int64_t) noexcept
    void sort_unique_rows(const int64_t*, int64_t, uint64_t*, int64_t*) noexcept


cdef const Kernels* _kernels = best_kernels()

# Rows of a bitmap are read in vectors of this many bytes.
STRIDE_ALIGNMENT = 32
SKETCH_BYTES = (16, 32, 64)


def instruction_set():
    """Name of the instruction set in use: ``"avx2"`` or ``"baseline"``."""
    return _kernels.name.decode()


def instruction_sets():
    """Names of the instruction sets that this machine runs, plainest first."""
    return [name for name in ("baseline", "avx2") if kernels_by_name(name.encode()) != NULL]


def use_instruction_set(str name):
    """Choose the kernels by name, for tests; ``"best"`` goes back to the default."""
    global _kernels
    cdef bytes encoded = name.encode()
    cdef const Kernels* chosen = best_kernels() if name == "best" else kernels_by_name(encoded)
    if chosen == NULL:
        raise ValueError(f"this machine or build has no kernels for {name!r}")
    _kernels = chosen


cdef Sets _sets(const int64_t[::1] indptr, const uint64_t[::1] indices) except *:
    """Checks a CSR pair; offsets must rise from 0 to the number of elements."""
    cdef Sets sets
    cdef int64_t i
    if indptr.shape[0] < 1 or indptr[0] != 0 or indptr[indptr.shape[0] - 1] != indices.shape[0]:
        raise ValueError("indptr must begin with 0 and end with len(indices)")
    for i in range(indptr.shape[0] - 1):
        if indptr[i + 1] < indptr[i]:
            raise ValueError("indptr must not fall")
    sets.indptr = &indptr[0]
    sets.indices = &indices[0] if indices.shape[0] else NULL
    sets.n = indptr.shape[0] - 1
    return sets


# --- hashing -------------------------------------------------------------------------------------


def minhash_by_permutations(
    const int64_t[::1] indptr,
    const uint64_t[::1] indices,
    const uint32_t[::1] xors,
    const uint32_t[::1] multipliers,
    uint64_t seed,
):
    """MinHash values, uint32 (n, len(xors)); all ones for an empty set."""
    cdef Sets sets = _sets(indptr, indices)
    cdef int64_t values = xors.shape[0]
    if multipliers.shape[0] != values:
        raise ValueError("one multiplier for each xor")
    out = np.empty((sets.n, values), np.uint32)
    cdef uint32_t[:, ::1] view = out
    if sets.n and values:
        with nogil:
            _kernels.minhash_permutation(sets, &xors[0], &multipliers[0], values, seed, &view[0, 0])
    return out


def minhash_by_one_permutation(
    const int64_t[::1] indptr, const uint64_t[::1] indices, int64_t values, uint64_t seed
):
    """Densified one-permutation MinHash values, uint32 (n, values); all ones for an empty set."""
    cdef Sets sets = _sets(indptr, indices)
    if not 0 < values < 1 << 30:
        raise ValueError("values must be from 1 to 2**30 - 1")
    out = np.empty((sets.n, values), np.uint32)
    occupied = np.empty(one_permutation_scratch(values), np.uint64)
    cdef uint32_t[:, ::1] view = out
    cdef uint64_t[::1] occupied_view = occupied
    if sets.n:
        with nogil:
            minhash_one_permutation(sets, values, seed, &occupied_view[0], &view[0, 0])
    return out


def minhash_table_keys(const uint32_t[:, ::1] signatures, int64_t tables, int64_t K, uint64_t seed):
    """16-bit keys of `tables` tables from the first tables * K values, uint16 (n, tables)."""
    if tables < 1 or K < 1 or tables * K > signatures.shape[1]:
        raise ValueError("tables * K must be from 1 to the number of values")
    out = np.empty((signatures.shape[0], tables), np.uint16)
    cdef uint16_t[:, ::1] view = out
    if signatures.shape[0]:
        with nogil:
            _kernels.minhash_keys(
                &signatures[0, 0], signatures.shape[0], signatures.shape[1], tables, K, seed,
                &view[0, 0])
    return out


def minhash_sketches(const uint32_t[:, ::1] signatures, int64_t first, int64_t bits):
    """1-bit MinHash of `bits` values from number `first` on, uint8 (n, bits / 8)."""
    if bits < 8 or bits % 8 or first < 0 or first + bits > signatures.shape[1]:
        raise ValueError("bits must be a multiple of 8 within the values")
    out = np.empty((signatures.shape[0], bits // 8), np.uint8)
    cdef uint8_t[:, ::1] view = out
    if signatures.shape[0]:
        with nogil:
            _kernels.minhash_sketch(
                &signatures[0, first], signatures.shape[0], signatures.shape[1], bits, &view[0, 0])
    return out


def signed_projections(const float[:, ::1] vectors, const float[:, :, ::1] signs, int64_t bits):
    """Signs of `bits` projections, uint8 (n, bits / 8). signs: (rotations, 3, padded)."""
    cdef int64_t padded = signs.shape[2]
    if padded < 8 or padded & (padded - 1) or vectors.shape[1] > padded:
        raise ValueError("padded must be a power of two, at least 8 and at least dim")
    if signs.shape[1] != 3 or bits < 8 or bits % 8 or signs.shape[0] * padded < bits:
        raise ValueError("signs must be (rotations, 3, padded) for all the bits")
    out = np.empty((vectors.shape[0], bits // 8), np.uint8)
    scratch = np.empty(padded, np.float32)
    cdef uint8_t[:, ::1] view = out
    cdef float[::1] scratch_view = scratch
    if vectors.shape[0] and vectors.shape[1]:
        with nogil:
            _kernels.srp_bits(
                &vectors[0, 0], vectors.shape[0], vectors.shape[1], padded, &signs[0, 0, 0], bits,
                &scratch_view[0], &view[0, 0])
    return out


# --- group tests ---------------------------------------------------------------------------------


def insert_into_groups(
    uint8_t[:, :, ::1] bitmaps, const uint16_t[:, ::1] keys, int64_t first, int64_t group_size
):
    """Set the bits of points first .. first + n in bitmaps (tables, 1 << range bits, stride)."""
    cdef int32_t range_bits = int(bitmaps.shape[1]).bit_length() - 1
    if bitmaps.shape[0] != keys.shape[1] or bitmaps.shape[1] != 1 << range_bits or range_bits > 16:
        raise ValueError("bitmaps must be (tables, power of two up to 65536, stride)")
    if group_size < 1 or first < 0:
        raise ValueError("group_size must be positive and first not negative")
    if first + keys.shape[0] > bitmaps.shape[2] * 8 * group_size:
        raise ValueError("more points than the bitmaps have cells for")
    if keys.shape[0]:
        with nogil:
            group_insert(
                &bitmaps[0, 0, 0], bitmaps.shape[2], range_bits, <int32_t>group_size,
                <int32_t>bitmaps.shape[0], &keys[0, 0], first, keys.shape[0])


cdef class SegmentView:
    """What a search reads of one segment: arrays of fixed content, checked once.

    bitmaps      uint8 (tables, 1 << range bits, stride), or None: then all points are scanned
    sketches     uint8 (capacity, 16 | 32 | 64)
    ids          int64 (capacity,), what hits are called
    points       how many places are filled
    dead         uint8 (ceil(capacity / 8),) bit set of removed points, or None
    sets         (indptr int64, elements uint32 | uint64) or None
    vectors      float32 (capacity, dim) or None
    """

    cdef readonly object arrays  # keeps everything alive
    cdef const uint8_t[:, :, ::1] bitmaps
    cdef const uint8_t[:, ::1] sketches
    cdef const int64_t[::1] ids
    cdef const uint8_t[::1] dead
    cdef const int64_t[::1] indptr
    cdef const uint32_t[::1] elements4
    cdef const uint64_t[::1] elements8
    cdef const float[:, ::1] vectors
    cdef readonly int64_t points
    cdef readonly int64_t group_size
    cdef GroupTests tests
    cdef StoredSets sets

    def __init__(self, bitmaps, int64_t group_size, sketches, ids, int64_t points, dead, sets,
                 vectors):
        self.arrays = (bitmaps, sketches, ids, dead, sets, vectors)
        self.sketches = sketches
        self.ids = ids
        self.points = points
        self.dead = dead
        if points < 0 or points > self.sketches.shape[0] or points > self.ids.shape[0]:
            raise ValueError("sketches and ids must hold all the points")
        if self.sketches.shape[1] not in SKETCH_BYTES:
            raise ValueError(f"a sketch has {SKETCH_BYTES} bytes")
        if dead is not None and self.dead.shape[0] * 8 < points:
            raise ValueError("dead must hold a bit for each point")
        if bitmaps is None:
            self.group_size = points if points else 1
            self.tests.cells = 1 if points else 0
            self.tests.tables = 0
        else:
            self.bitmaps = bitmaps
            self.group_size = group_size
            if group_size < 1 or self.bitmaps.shape[2] % STRIDE_ALIGNMENT:
                raise ValueError("bitmaps must be aligned and groups not empty")
            self.tests.bitmaps = &self.bitmaps[0, 0, 0]
            self.tests.stride = self.bitmaps.shape[2]
            self.tests.cells = (points + group_size - 1) // group_size
            self.tests.tables = <int32_t>self.bitmaps.shape[0]
            self.tests.range_bits = int(self.bitmaps.shape[1]).bit_length() - 1
            if self.bitmaps.shape[1] != 1 << self.tests.range_bits or self.tests.range_bits > 16:
                raise ValueError("a table has a power of two of bitmaps, at most 65536")
            if self.tests.cells > self.tests.stride * 8:
                raise ValueError("more cells than a bitmap has bits")
        self.tests.group_size = <int32_t>self.group_size
        if (sets is None) == (vectors is None):
            raise ValueError("a segment holds sets or vectors")
        if sets is not None:
            indptr, elements = sets
            self.indptr = indptr
            if self.indptr.shape[0] < points + 1 or self.indptr[points] > elements.shape[0]:
                raise ValueError("indptr must cover all the points within the elements")
            if elements.dtype == np.uint32:
                self.elements4 = elements
                self.sets.elements = &self.elements4[0] if elements.shape[0] else NULL
                self.sets.width = 4
            else:
                self.elements8 = elements
                self.sets.elements = &self.elements8[0] if elements.shape[0] else NULL
                self.sets.width = 8
            self.sets.indptr = &self.indptr[0]
        else:
            self.vectors = vectors
            if self.vectors.shape[0] < points:
                raise ValueError("vectors must hold all the points")

    cdef int _check(self, const uint16_t[:, ::1] keys, const uint8_t[:, ::1] sketches,
                    int64_t cells, int64_t candidates, int64_t k) except -1:
        if keys.shape[0] != sketches.shape[0]:
            raise ValueError("one row of keys and one sketch for each query")
        if self.tests.tables and keys.shape[1] != self.tests.tables:
            raise ValueError("one key for each table")
        if sketches.shape[1] != self.sketches.shape[1]:
            raise ValueError("the query's sketch must be as long as the segment's")
        if cells < 1 or k < 1 or candidates < k:
            raise ValueError("cells and k must be positive, candidates at least k")
        return 0

    cdef int _check_highest(self, const float[::1] highest) except -1:
        if highest.shape[0] != self.sketches.shape[1] * 8 + 1:
            raise ValueError("highest must hold a score for each sketch distance")
        return 0

    def candidates(self, const uint16_t[:, ::1] keys, const uint8_t[:, ::1] sketches,
                   int64_t cells, int64_t candidates):
        """Group test and sketch scan only: (positions int64, distances uint16), (q, candidates).

        Unfilled places are -1 and 65535; order is by distance, then position.
        """
        self._check(keys, sketches, cells, candidates, 1)
        cdef int64_t q, found, queries = keys.shape[0]
        positions = np.full((queries, candidates), -1, np.int64)
        distances = np.full((queries, candidates), 65535, np.uint16)
        cdef int64_t[:, ::1] positions_view = positions
        cdef uint16_t[:, ::1] distances_view = distances
        cdef Workspace work = Workspace(self, cells, candidates)
        for q in range(queries):
            with nogil:
                found = work.scan(self, &keys[q, 0], &sketches[q, 0])
            positions[q, :found] = work.positions_array[:found]
            distances[q, :found] = work.distances_array[:found]
        return positions, distances

    def search_sets(self, const uint16_t[:, ::1] keys, const uint8_t[:, ::1] sketches,
                    const int64_t[::1] indptr, const uint64_t[::1] indices, uint64_t salt,
                    int64_t cells, int64_t candidates, int64_t k, float min_score,
                    const float[::1] highest):
        """The k best points of each query set: (ids int64, Jaccard float32), (q, k), -1 and NaN.

        Only scores of at least min_score are hits. highest: float32 (sketch bits + 1,), falling,
        the highest score that each sketch distance leaves plausible.
        """
        self._check(keys, sketches, cells, candidates, k)
        self._check_highest(highest)
        cdef Sets queries = _sets(indptr, indices)
        if queries.n != keys.shape[0] or self.sets.indptr == NULL:
            raise ValueError("one query set for each row of keys, on a segment of sets")
        cdef int64_t q, i, found, kept, size, slot_count, most = 0
        for q in range(queries.n):
            size = indptr[q + 1] - indptr[q]
            if size > most:
                most = size
        slots = np.empty(hash_set_slots(most), np.uint64)
        ids = np.full((queries.n, k), -1, np.int64)
        scores = np.full((queries.n, k), np.nan, np.float32)
        cdef uint64_t[::1] slots_view = slots
        cdef int64_t[:, ::1] ids_view = ids
        cdef float[:, ::1] scores_view = scores
        cdef Workspace work = Workspace(self, cells, candidates)
        cdef HashSet query
        cdef Candidates ranked
        if self.points == 0 or most == 0:
            return ids, scores
        with nogil:
            for q in range(queries.n):
                size = indptr[q + 1] - indptr[q]
                if size == 0:
                    continue
                found = work.scan(self, &keys[q, 0], &sketches[q, 0])
                slot_count = hash_set_slots(size)
                query = hash_set_build(&indices[indptr[q]], size, salt, slot_count, &slots_view[0])
                ranked = work.ranked(self, found, highest, k, min_score)
                kept = rerank_sets(self.sets, query, ranked, work.hits, work.scores)
                for i in range(kept):
                    ids_view[q, i] = work.hits[i]
                    scores_view[q, i] = work.scores[i]
        return ids, scores

    def search_vectors(self, const uint16_t[:, ::1] keys, const uint8_t[:, ::1] sketches,
                       const float[:, ::1] queries, int64_t cells, int64_t candidates, int64_t k,
                       float min_score, const float[::1] highest):
        """The k best points of each query vector: (ids int64, inner products float32), (q, k)."""
        self._check(keys, sketches, cells, candidates, k)
        self._check_highest(highest)
        if self.vectors is None or queries.shape[0] != keys.shape[0]:
            raise ValueError("one query vector for each row of keys, on a segment of vectors")
        if queries.shape[1] != self.vectors.shape[1]:
            raise ValueError("queries must have the dimension of the vectors")
        cdef int64_t q, i, found, kept, n = queries.shape[0]
        ids = np.full((n, k), -1, np.int64)
        scores = np.full((n, k), np.nan, np.float32)
        cdef int64_t[:, ::1] ids_view = ids
        cdef float[:, ::1] scores_view = scores
        cdef Workspace work = Workspace(self, cells, candidates)
        cdef Candidates ranked
        if self.points == 0:
            return ids, scores
        with nogil:
            for q in range(n):
                found = work.scan(self, &keys[q, 0], &sketches[q, 0])
                ranked = work.ranked(self, found, highest, k, min_score)
                kept = rerank_vectors(
                    _kernels[0], &self.vectors[0, 0], queries.shape[1], &queries[q, 0], ranked,
                    work.hits, work.scores)
                for i in range(kept):
                    ids_view[q, i] = work.hits[i]
                    scores_view[q, i] = work.scores[i]
        return ids, scores


cdef class Workspace:
    """Scratch memory of one search on one segment; never shared between threads."""

    cdef readonly object positions_array, distances_array
    cdef list arrays
    cdef int64_t wanted_cells, wanted
    cdef int64_t* cells
    cdef int64_t* positions
    cdef int64_t* hits
    cdef uint64_t* counts
    cdef uint16_t* all_distances
    cdef uint16_t* distances
    cdef float* scores

    def __init__(self, SegmentView segment, int64_t cells, int64_t candidates):
        cdef int64_t[::1] i8
        cdef uint64_t[::1] u8
        cdef uint16_t[::1] u2
        cdef float[::1] f4
        self.wanted_cells = min(cells, segment.tests.cells)
        self.wanted = max(1, min(candidates, segment.points))
        cdef int64_t scanned = max(1, min(self.wanted_cells * segment.group_size, segment.points))
        self.arrays = []
        i8 = self._new(self.wanted_cells + 1, np.int64); self.cells = &i8[0]
        i8 = self.positions_array = self._new(self.wanted, np.int64); self.positions = &i8[0]
        i8 = self._new(self.wanted, np.int64); self.hits = &i8[0]
        u8 = self._new(1 + group_scratch(segment.tests.stride, segment.tests.tables), np.uint64)
        self.counts = &u8[0]
        u2 = self._new(scanned, np.uint16); self.all_distances = &u2[0]
        u2 = self.distances_array = self._new(self.wanted, np.uint16); self.distances = &u2[0]
        f4 = self._new(self.wanted, np.float32); self.scores = &f4[0]

    def _new(self, int64_t size, dtype):
        array = np.empty(size, dtype)
        self.arrays.append(array)
        return array

    cdef int64_t scan(self, SegmentView segment, const uint16_t* keys,
                      const uint8_t* sketch) noexcept nogil:
        """Positions of the best candidates by group test, then sketch; returns how many."""
        cdef int64_t cells
        if segment.points == 0:
            return 0
        cells = _kernels.group_query(segment.tests, keys, self.wanted_cells, self.counts, self.cells)
        return _kernels.sketch_scan(
            &segment.sketches[0, 0], segment.sketches.shape[1], sketch, self.cells, cells,
            segment.group_size, segment.points,
            &segment.dead[0] if segment.dead is not None else NULL, self.wanted,
            self.all_distances, self.positions, self.distances)

    cdef Candidates ranked(self, SegmentView segment, int64_t found, const float[::1] highest,
                           int64_t k, float min_score) noexcept nogil:
        """What the last scan found, for the re-rank."""
        cdef Candidates candidates
        candidates.positions = self.positions
        candidates.distances = self.distances
        candidates.count = found
        candidates.ids = &segment.ids[0]
        candidates.highest = &highest[0]
        candidates.k = k
        candidates.min_score = min_score
        return candidates


# --- exact search --------------------------------------------------------------------------------


def jaccard_of_rows(const int64_t[::1] indptr, elements, const int64_t[::1] positions,
                    const uint64_t[::1] query, uint64_t salt):
    """Exact Jaccard similarities of one query set with chosen stored sets, float32."""
    cdef const uint32_t[::1] elements4
    cdef const uint64_t[::1] elements8
    cdef StoredSets sets
    cdef int64_t i, rows = indptr.shape[0] - 1
    for i in range(positions.shape[0]):
        if positions[i] < 0 or positions[i] >= rows:
            raise ValueError("positions must be rows of the sets")
    sets.indptr = &indptr[0]
    if indptr[rows] > elements.shape[0]:
        raise ValueError("indptr must end within the elements")
    if elements.dtype == np.uint32:
        elements4 = elements
        sets.elements = &elements4[0] if elements.shape[0] else NULL
        sets.width = 4
    else:
        elements8 = elements
        sets.elements = &elements8[0] if elements.shape[0] else NULL
        sets.width = 8
    out = np.empty(positions.shape[0], np.float32)
    slots = np.empty(hash_set_slots(query.shape[0]), np.uint64)
    cdef float[::1] out_view = out
    cdef uint64_t[::1] slots_view = slots
    cdef HashSet hashed
    cdef const uint64_t* first = &query[0] if query.shape[0] else NULL
    if positions.shape[0]:
        with nogil:
            hashed = hash_set_build(first, query.shape[0], salt, slots_view.shape[0], &slots_view[0])
            jaccard(sets, &positions[0], positions.shape[0], hashed, &out_view[0])
    return out


# --- features ------------------------------------------------------------------------------------


cdef enum Shingle:
    BYTES
    CHARS
    WORDS
    DNA


def shingle_batch(str unit, list texts, int64_t n, bint canonical=True):
    """Set elements of each text, with repeats: (indptr int64, elements uint64).

    unit: "byte", "char", "word" (n-grams) or "dna" (k-mers). texts: UTF-8 bytes.
    """
    cdef Shingle kind
    if unit == "byte":
        kind = BYTES
    elif unit == "char":
        kind = CHARS
    elif unit == "word":
        kind = WORDS
    elif unit == "dna":
        kind = DNA
    else:
        raise ValueError(f"unknown unit {unit!r}")
    if n < 1 or (kind == DNA and n > 32):
        raise ValueError("n must be positive, and at most 32 for k-mers")
    cdef int64_t i, size, at = 0, total = 0
    cdef bytes text
    cdef const uint8_t* data
    for text in texts:
        total += len(text)
    indptr = np.zeros(len(texts) + 1, np.int64)
    elements = np.empty(total + 1, np.uint64)
    cdef int64_t[::1] indptr_view = indptr
    cdef uint64_t[::1] elements_view = elements
    for i in range(len(texts)):
        text = texts[i]
        data = <const uint8_t*>(<const char*>text)
        size = len(text)
        with nogil:
            if kind == BYTES:
                at += byte_shingles(data, size, n, &elements_view[at])
            elif kind == CHARS:
                at += char_shingles(data, size, n, &elements_view[at])
            elif kind == WORDS:
                at += word_shingles(data, size, n, &elements_view[at])
            else:
                at += dna_kmers(data, size, n, canonical, &elements_view[at])
        indptr_view[i + 1] = at
    return indptr, elements[:at]


def sort_unique(const int64_t[::1] indptr, uint64_t[::1] elements):
    """Sort each row of a CSR pair and drop its repeats, in place: (indptr, elements) of the rest."""
    cdef Sets sets = _sets(indptr, elements)
    out = np.zeros(sets.n + 1, np.int64)
    cdef int64_t[::1] view = out
    if sets.n and elements.shape[0]:
        with nogil:
            sort_unique_rows(sets.indptr, sets.n, &elements[0], &view[0])
    return out, np.asarray(elements)[: out[sets.n]]


def hash_tokens(list tokens):
    """64-bit hashes of byte strings, uint64 (len(tokens),)."""
    cdef int64_t i
    cdef bytes token
    out = np.empty(len(tokens), np.uint64)
    cdef uint64_t[::1] view = out
    for i in range(len(tokens)):
        token = tokens[i]
        view[i] = hash_bytes(<const uint8_t*>(<const char*>token), len(token))
    return out
