# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The one boundary between Python and the kernels in ``csrc/``.

Arrays in, arrays out: each function checks shapes and types, drops the interpreter lock and calls
a kernel. Nothing else in closeby touches C++, and nothing here decides anything.
"""

from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool

import numpy as np


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL


cdef extern from "team.hpp" namespace "closeby" nogil:
    cdef cppclass NativeTeam "closeby::Team":
        void help() noexcept
        void end() noexcept


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

    cdef cppclass Postings:
        const uint32_t* offsets
        const uint32_t* positions
        int64_t points
        int32_t tables
        int32_t range_bits

    cdef cppclass HashSet:
        pass

    const int64_t kCoarseBytes
    const int64_t kScanBlock

    cdef cppclass SketchScan:
        const uint8_t* coarse
        const uint8_t* fine
        int64_t fine_bytes
        const uint8_t* dead
        int64_t points
        int64_t group_size
        const int64_t* cells
        int64_t cell_count
        int64_t shortlist
        int64_t want

    cdef cppclass ScanScratch:
        uint8_t* coarse
        int64_t* positions
        uint16_t* distances

    cdef cppclass Kernels:
        const char* name
        void (*minhash_permutation)(const Sets&, const uint32_t*, const uint32_t*, int64_t,
                                    uint64_t, uint32_t*) noexcept
        void (*minhash_keys)(const uint32_t*, int64_t, int64_t, int64_t, int64_t, uint64_t,
                             uint32_t*) noexcept
        void (*minhash_sketch)(const uint32_t*, int64_t, int64_t, int64_t, uint8_t*) noexcept
        void (*srp_bits)(const float*, int64_t, int64_t, int64_t, const float*, int64_t, float*,
                         uint8_t*) noexcept
        void (*srp_sparse_bits)(const Sets&, const float*, uint64_t, int64_t, float*,
                                uint8_t*) noexcept
        void (*group_counts)(const GroupTests&, const uint32_t*, uint64_t*, uint16_t*) noexcept
        void (*inner_products)(const float*, int64_t, const int64_t*, int64_t, const float*,
                               float*) noexcept
        void (*jaccard)(const StoredSets&, const int64_t*, int64_t, const HashSet&,
                        float*) noexcept

    const Kernels* kernels_by_name(const char*) noexcept
    const Kernels* best_kernels() noexcept
    int64_t one_permutation_scratch(int64_t) noexcept
    void minhash_one_permutation(const Sets&, int64_t, uint64_t, uint64_t*, uint32_t*) noexcept
    cdef cppclass SparseRow:
        const uint64_t* indices
        const float* values
        int64_t size
    void sparse_products(const Sets&, const float*, const SparseRow&, float*) noexcept
    void group_insert(uint8_t*, int64_t, int32_t, int32_t, int32_t, const uint32_t*, int64_t,
                      int64_t) noexcept
    int64_t group_scratch(int64_t, int64_t) noexcept
    void postings_sort(uint32_t*, uint32_t*, int64_t, int32_t, int32_t, uint32_t*) noexcept
    int64_t postings_marks(int64_t) noexcept
    cdef cppclass Selection:
        GroupTests tests
        Postings postings
        int64_t breadth
        uint64_t* counts
        int64_t* cells
        uint64_t* marks
    int64_t find_candidates(const Kernels&, const Selection&, SketchScan, const uint32_t*,
                            const uint8_t*, const ScanScratch&, NativeTeam*, int64_t*,
                            uint16_t*) noexcept
    void rank_cells(const Kernels&, const GroupTests&, const uint32_t*, const int64_t*, int64_t,
                    uint64_t*, uint16_t*, int64_t*, uint16_t*, int64_t*) noexcept
    cdef cppclass PaperCells:
        const int64_t* first
        const uint32_t* members
        const uint8_t* dead
        int64_t cells
        int32_t rows
    cdef cppclass PaperScratch:
        int64_t* order
        int64_t* histogram
        uint8_t* met
    void paper_insert(uint8_t*, int64_t, int32_t, int32_t, const uint32_t*, const uint32_t*,
                      int64_t, int64_t) noexcept
    int64_t paper_decode(const PaperCells&, const uint16_t*, int32_t, int64_t,
                         const PaperScratch&, int64_t*, uint16_t*) noexcept
    int64_t hash_set_words(int64_t) noexcept
    HashSet hash_set_build(const uint64_t*, int64_t, uint64_t, int, uint64_t*) noexcept
    int64_t element_map_slots(int64_t) noexcept
    cdef cppclass ElementMap:
        pass
    ElementMap element_map_build(const uint64_t*, int64_t, uint64_t, int64_t, uint64_t*,
                                 int32_t*) noexcept
    void jaccard_scan(const Sets&, const ElementMap&, const int64_t*, const int32_t*,
                      const int64_t*, int64_t, uint32_t*, float*) noexcept
    cdef cppclass Candidates:
        const int64_t* positions
        const uint16_t* distances
        int64_t count
        const int64_t* ids
        const float* highest
        int64_t k
        float min_score
    int64_t rerank_sets(const Kernels&, const StoredSets&, const HashSet&, const Candidates&, int64_t*,
                        float*) noexcept
    int64_t rerank_vectors(const Kernels&, const float*, int64_t, const float*, const Candidates&,
                           int64_t*, float*) noexcept
    int64_t rerank_sparse(const StoredSets&, const float*, const SparseRow&, const Candidates&,
                          int64_t*, float*) noexcept
    int64_t byte_shingles(const uint8_t*, int64_t, int64_t, uint64_t*) noexcept
    int64_t char_shingles(const uint8_t*, int64_t, int64_t, uint64_t*) noexcept
    int64_t word_shingles(const uint8_t*, int64_t, int64_t, uint64_t*) noexcept
    int64_t dna_kmers(const uint8_t*, int64_t, int64_t, cbool, uint64_t*) noexcept
    uint64_t hash_bytes(const uint8_t*, int64_t) noexcept
    void copy_sets(const StoredSets&, const int64_t*, int64_t, uint64_t*) noexcept
    int64_t letter_kmers(const uint8_t*, int64_t, int64_t, const uint8_t*, const uint8_t*,
                         uint8_t*, uint64_t*) noexcept
    int64_t number_ngrams(const uint64_t*, int64_t, int64_t, uint64_t*) noexcept
    int64_t distinct(uint64_t*, int64_t, int64_t, uint64_t*) noexcept
    void sort_unique_rows(const int64_t*, int64_t, uint64_t*, int64_t, uint64_t*,
                          int64_t*) noexcept
    cdef cppclass JsonRows:
        int64_t begin
        int64_t end
        int64_t rows
        int64_t numbers
    cbool find_json_rows(const char*, int64_t, const char*, int64_t, JsonRows*) noexcept
    void copy_json_rows(const char*, const JsonRows&, int64_t*, uint64_t*) noexcept


cdef const Kernels* _kernels = best_kernels()

# Rows of a bitmap are read in vectors of this many bytes.
STRIDE_ALIGNMENT = 32
SKETCH_BYTES = (16, 32, 64)
COARSE_BYTES = kCoarseBytes
# So many points for each candidate wanted are ranked by the whole sketch, the others by its first
# bytes only.
SHORTLIST = 6
LEAST_SHORTLIST = 256
# 512 KiB: a larger table, of a query of more than about 7,000 elements, is not kept for the next.
MOST_WORDS_KEPT = 1 << 16
# Far more than any tuning wants; so small that no product of sizes below can wrap around.
MAX_GROUP_SIZE = 1 << 24


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


cdef StoredSets _stored_sets(const int64_t[::1] indptr, elements) except *:
    """Sets as they lie in a segment; whoever uses them keeps `elements` and checks the offsets."""
    cdef const uint32_t[::1] narrow
    cdef const uint64_t[::1] wide
    cdef StoredSets sets
    if not isinstance(elements, np.ndarray) or elements.ndim != 1:
        raise TypeError("elements must be a 1-d array")
    if indptr.shape[0] < 1:
        raise ValueError("indptr must hold at least one offset")
    sets.indptr = &indptr[0]
    if elements.dtype == np.uint32:
        narrow = elements
        sets.elements = &narrow[0] if elements.shape[0] else NULL
        sets.width = 4
    else:
        wide = elements
        sets.elements = &wide[0] if elements.shape[0] else NULL
        sets.width = 8
    return sets


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
    const int64_t[::1] indptr not None,
    const uint64_t[::1] indices not None,
    const uint32_t[::1] xors not None,
    const uint32_t[::1] multipliers not None,
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
    const int64_t[::1] indptr not None, const uint64_t[::1] indices not None, int64_t values,
    uint64_t seed,
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


def minhash_table_keys(
    const uint32_t[:, ::1] signatures not None, int64_t tables, int64_t K, uint64_t seed
):
    """32-bit keys of `tables` tables from the first tables * K values, uint32 (n, tables)."""
    # By division: the product of two large numbers could wrap around.
    if tables < 1 or K < 1 or tables > signatures.shape[1] // K:
        raise ValueError("tables * K must be from 1 to the number of values")
    out = np.empty((signatures.shape[0], tables), np.uint32)
    cdef uint32_t[:, ::1] view = out
    if signatures.shape[0]:
        with nogil:
            _kernels.minhash_keys(
                &signatures[0, 0], signatures.shape[0], signatures.shape[1], tables, K, seed,
                &view[0, 0])
    return out


def minhash_sketches(const uint32_t[:, ::1] signatures not None, int64_t first, int64_t bits):
    """1-bit MinHash of `bits` values from number `first` on, uint8 (n, bits / 8)."""
    if bits < 8 or bits % 8 or first < 0 or first > signatures.shape[1] - bits:
        raise ValueError("bits must be a multiple of 8 within the values")
    out = np.empty((signatures.shape[0], bits // 8), np.uint8)
    cdef uint8_t[:, ::1] view = out
    if signatures.shape[0]:
        with nogil:
            _kernels.minhash_sketch(
                &signatures[0, first], signatures.shape[0], signatures.shape[1], bits, &view[0, 0])
    return out


def signed_projections(
    const float[:, ::1] vectors not None, const float[:, :, ::1] signs not None, int64_t bits
):
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


def sparse_projections(
    const int64_t[::1] indptr not None, const uint64_t[::1] indices not None,
    const float[::1] values not None, uint64_t seed, int64_t bits,
):
    """Signs of `bits` projections of sparse vectors, uint8 (n, bits / 8)."""
    cdef Sets features = _sets(indptr, indices)
    if values.shape[0] != indices.shape[0]:
        raise ValueError("values must be one for each index")
    if not 8 <= bits <= 1 << 24 or bits % 8:
        raise ValueError("bits must be a multiple of 8, at most 2**24")
    out = np.zeros((features.n, bits // 8), np.uint8)
    sums = np.empty(bits, np.float32)
    cdef uint8_t[:, ::1] view = out
    cdef float[::1] sums_view = sums
    if features.n and indices.shape[0]:
        with nogil:
            _kernels.srp_sparse_bits(features, &values[0], seed, bits, &sums_view[0], &view[0, 0])
    return out


def inner_products_of_sparse(
    const int64_t[::1] indptr not None, const uint64_t[::1] indices not None,
    const float[::1] values not None, const uint64_t[::1] query_indices not None,
    const float[::1] query_values not None,
):
    """Inner products of a sparse vector with all rows, float32 (n,); indices ascend."""
    cdef Sets vectors = _sets(indptr, indices)
    cdef SparseRow query
    if values.shape[0] != indices.shape[0] or query_values.shape[0] != query_indices.shape[0]:
        raise ValueError("values must be one for each index")
    out = np.zeros(vectors.n, np.float32)
    cdef float[::1] view = out
    if vectors.n and indices.shape[0] and query_indices.shape[0]:
        query.indices = &query_indices[0]
        query.values = &query_values[0]
        query.size = query_indices.shape[0]
        with nogil:
            sparse_products(vectors, &values[0], query, &view[0])
    return out


# --- group tests ---------------------------------------------------------------------------------


cdef int32_t _range_bits(Py_ssize_t bitmaps) except -1:
    """r of 2^r bitmaps in a table."""
    if bitmaps < 1 or bitmaps > 65536 or bitmaps & (bitmaps - 1):
        raise ValueError("a table has a power of two of bitmaps, at most 65536")
    return int(bitmaps).bit_length() - 1


def insert_into_groups(
    uint8_t[:, :, ::1] bitmaps not None, const uint32_t[:, ::1] keys not None, int64_t first,
    int64_t group_size,
):
    """Set the bits of points first .. first + n in bitmaps (tables, 1 << range bits, stride)."""
    cdef int32_t range_bits = _range_bits(bitmaps.shape[1])
    if bitmaps.shape[0] != keys.shape[1]:
        raise ValueError("bitmaps must be (tables, power of two up to 65536, stride)")
    if not 1 <= group_size <= MAX_GROUP_SIZE or first < 0:
        raise ValueError("group_size must be from 1 to 2**24 and first not negative")
    if first > bitmaps.shape[2] * 8 * group_size - keys.shape[0]:
        raise ValueError("more points than the bitmaps have cells for")
    if keys.shape[0]:
        with nogil:
            group_insert(
                &bitmaps[0, 0, 0], bitmaps.shape[2], range_bits, <int32_t>group_size,
                <int32_t>bitmaps.shape[0], &keys[0, 0], first, keys.shape[0])


cdef GroupTests _tests(const uint8_t[:, :, ::1] bitmaps, int64_t cells,
                       int64_t keys) except *:
    """Group tests over so many cells, for queries of so many keys."""
    cdef GroupTests tests
    tests.bitmaps = &bitmaps[0, 0, 0]
    tests.stride = bitmaps.shape[2]
    tests.cells = cells
    tests.tables = <int32_t>bitmaps.shape[0]
    tests.range_bits = _range_bits(bitmaps.shape[1])
    tests.group_size = 1
    if tests.stride % STRIDE_ALIGNMENT or not 0 <= cells <= tests.stride * 8:
        raise ValueError("bitmaps must be aligned, with a bit for each cell")
    if not 1 <= tests.tables <= 65535 or keys != tests.tables:
        raise ValueError("one key for each table, at most 65535")
    return tests


def ranked_cells(const uint8_t[:, :, ::1] bitmaps not None, int64_t cells,
                 const uint32_t[:, ::1] keys not None, const int64_t[:, ::1] chosen not None):
    """How the cells of several queries pass their tests. keys: uint32 (q, tables).

    chosen: int64 (q, n), cells, or -1. Returns

        int64 (q, tables + 1), how many cells pass how many tests,
        uint16 (q, n), how many the chosen cells pass, and
        int64 (q, n), their place among all by falling count, ties by number, from 1 on; 0 for -1.
    """
    cdef GroupTests tests = _tests(bitmaps, cells, keys.shape[1])
    cdef int64_t q, i, queries = keys.shape[0], n = chosen.shape[1]
    if chosen.shape[0] != queries:
        raise ValueError("chosen cells for each query")
    for q in range(queries):
        for i in range(n):
            if not -1 <= chosen[q, i] < cells:
                raise ValueError("chosen must be cells, or -1")
    histogram = np.zeros((queries, tests.tables + 1), np.int64)
    passed = np.zeros((queries, n), np.uint16)
    places = np.zeros((queries, n), np.int64)
    if not cells or not n:
        return histogram, passed, places
    cdef int64_t[:, ::1] histogram_view = histogram
    cdef uint16_t[:, ::1] passed_view = passed
    cdef int64_t[:, ::1] places_view = places
    cdef uint64_t[::1] planes = np.empty(1 + group_scratch(tests.stride, tests.tables), np.uint64)
    cdef uint16_t[::1] counts = np.empty(cells, np.uint16)
    with nogil:
        for q in range(queries):
            rank_cells(_kernels[0], tests, &keys[q, 0], &chosen[q, 0], n, &planes[0], &counts[0],
                       &histogram_view[q, 0], &passed_view[q, 0], &places_view[q, 0])
    return histogram, passed, places


def sort_postings(uint32_t[:, ::1] positions not None, uint32_t[:, ::1] offsets not None):
    """Make LSH tables of keys: positions uint32 (tables, points) hold the keys and are replaced.

    offsets: uint32 (tables, (1 << range bits) + 1), written.
    """
    cdef int64_t tables = positions.shape[0], points = positions.shape[1]
    cdef int64_t buckets = offsets.shape[1] - 1
    if tables != offsets.shape[0] or points >= 1 << 32:
        raise ValueError("offsets for each table, and fewer than 2**32 points")
    if buckets < 1 or buckets > 1 << 31 or buckets & (buckets - 1):
        raise ValueError("a table has a power of two of buckets, at most 2**31")
    cdef int32_t range_bits = int(buckets).bit_length() - 1
    cdef uint32_t[::1] keys = np.empty(max(1, points), np.uint32)
    if tables and points:
        with nogil:
            postings_sort(&positions[0, 0], &offsets[0, 0], points, <int32_t>tables, range_bits,
                          &keys[0])
    elif tables:
        np.asarray(offsets)[:] = 0


cdef class Team:
    """Threads that share the cells of a query: give it to a search, and let others `help`."""

    cdef NativeTeam native

    def help(self):
        """Take parts of the work until the search that has this team ends it; any thread may."""
        with nogil:
            self.native.help()

    def end(self):
        """Let all that help return; the team is of no more use."""
        self.native.end()


cdef class SegmentView:
    """What a search reads of one segment: arrays of fixed content, checked once.

    Without bitmaps and postings all points are scanned.

    sketches     uint8 (capacity, 16) and (capacity, 0 | 16 | 48), their first bytes and the rest
    ids          int64 (capacity,), what hits are called; None: by their place
    points       how many places are filled
    dead         uint8 (ceil(capacity / 8),) bit set of removed points, or None
    sets         (indptr int64, elements uint32 | uint64) or None
    vectors      float32 (capacity, dim) or None; without sets and vectors there is nothing to
                 compare exactly, only `candidates`
    values       float32, one for each element where the sets are sparse vectors, or None
    bitmaps      uint8 (tables, 1 << range bits, stride), or None
    group_size   points of a cell of the bitmaps
    postings     (offsets uint32 (tables, (1 << range bits) + 1), positions uint32 (tables, points))
                 or None
    """

    cdef readonly object arrays  # keeps everything alive
    cdef const uint8_t[:, :, ::1] bitmaps
    cdef const uint8_t[:, ::1] coarse
    cdef const uint8_t[:, ::1] fine
    cdef readonly int64_t sketch_bytes
    cdef public bint any_dead  # whether a bit of `dead` is set
    cdef const int64_t[::1] ids
    cdef const uint8_t[::1] dead
    cdef const int64_t[::1] indptr
    cdef const float[:, ::1] vectors
    cdef const float[::1] values
    cdef readonly int64_t points
    cdef readonly int64_t group_size
    cdef const uint32_t[:, ::1] offsets
    cdef const uint32_t[:, ::1] positions
    cdef GroupTests tests
    cdef Postings tables
    cdef StoredSets sets
    cdef list idle  # workspaces of searches that have ended

    def __init__(self, sketches, ids, int64_t points, dead, sets, vectors, *, bitmaps=None,
                 int64_t group_size=1, postings=None, values=None):
        self.arrays = (bitmaps, postings, sketches, ids, dead, sets, vectors, values)
        self.coarse, self.fine = sketches
        self.ids = ids
        self.points = points
        self.dead = dead
        self.any_dead = dead is not None
        self.idle = []
        self.sketch_bytes = self.coarse.shape[1] + self.fine.shape[1]
        if points < 0 or points > self.coarse.shape[0] or points > self.fine.shape[0]:
            raise ValueError("sketches must hold all the points")
        if ids is not None and points > self.ids.shape[0]:
            raise ValueError("ids must hold all the points")
        if self.coarse.shape[1] != COARSE_BYTES or self.sketch_bytes not in SKETCH_BYTES:
            raise ValueError(f"a sketch has {SKETCH_BYTES} bytes")
        if dead is not None and self.dead.shape[0] * 8 < points:
            raise ValueError("dead must hold a bit for each point")
        self.tables.tables = 0
        if postings is not None:
            if bitmaps is not None:
                raise ValueError("a segment has bitmaps or postings")
            self.group_size = 1
            self.tests.cells = points
            self.tests.tables = 0
            self._check_postings(postings)
        elif bitmaps is None:
            self.group_size = points if points else 1
            self.tests.cells = 1 if points else 0
            self.tests.tables = 0
        else:
            self.bitmaps = bitmaps
            self.group_size = group_size
            if not 1 <= group_size <= MAX_GROUP_SIZE or self.bitmaps.shape[2] % STRIDE_ALIGNMENT:
                raise ValueError("bitmaps must be aligned and groups of 1 to 2**24 points")
            self.tests.bitmaps = &self.bitmaps[0, 0, 0]
            self.tests.stride = self.bitmaps.shape[2]
            self.tests.cells = (points + group_size - 1) // group_size
            self.tests.tables = <int32_t>self.bitmaps.shape[0]
            self.tests.range_bits = _range_bits(self.bitmaps.shape[1])
            if self.tests.cells > self.tests.stride * 8:
                raise ValueError("more cells than a bitmap has bits")
        self.tests.group_size = <int32_t>self.group_size
        if sets is not None and vectors is not None:
            raise ValueError("a segment holds sets or vectors")
        self.vectors = vectors
        if sets is not None:
            indptr, elements = sets
            self.indptr = indptr
            self.sets = _stored_sets(self.indptr, elements)
            if self.indptr.shape[0] < points + 1 or self.indptr[points] > elements.shape[0]:
                raise ValueError("indptr must cover all the points within the elements")
        elif vectors is not None and self.vectors.shape[0] < points:
            raise ValueError("vectors must hold all the points")
        self.values = values
        if values is not None and (sets is None or len(values) < self.indptr[points]):
            raise ValueError("values must be one for each element of the sets")

    cdef int _check_postings(self, postings) except -1:
        """Shapes only: the kernel passes over offsets and positions that cannot be."""
        self.offsets, self.positions = postings
        cdef int64_t buckets = self.offsets.shape[1] - 1
        if self.offsets.shape[0] != self.positions.shape[0] or not self.offsets.shape[0]:
            raise ValueError("offsets and positions of at least one table")
        if buckets < 1 or buckets > 1 << 31 or buckets & (buckets - 1):
            raise ValueError("a table has a power of two of buckets, at most 2**31")
        if self.positions.shape[1] != self.points or self.points >= 1 << 32:
            raise ValueError("postings must hold each point once a table")
        self.tables.offsets = &self.offsets[0, 0]
        self.tables.positions = &self.positions[0, 0] if self.points else NULL
        self.tables.points = self.points
        self.tables.tables = <int32_t>self.offsets.shape[0]
        self.tables.range_bits = int(buckets).bit_length() - 1
        return 0

    cdef int _check(self, const uint32_t[:, ::1] keys, const uint8_t[:, ::1] sketches,
                    int64_t breadth, int64_t candidates, int64_t k) except -1:
        if keys.shape[0] != sketches.shape[0]:
            raise ValueError("one row of keys and one sketch for each query")
        if self.tests.tables and keys.shape[1] != self.tests.tables:
            raise ValueError("one key for each table")
        if self.tables.tables and keys.shape[1] != self.tables.tables:
            raise ValueError("one key for each table")
        if sketches.shape[1] != self.sketch_bytes:
            raise ValueError("the query's sketch must be as long as the segment's")
        if breadth < 1 or k < 1 or candidates < k:
            raise ValueError("breadth and k must be positive, candidates at least k")
        return 0

    cdef int _check_highest(self, const float[::1] highest) except -1:
        if highest.shape[0] != self.sketch_bytes * 8 + 1:
            raise ValueError("highest must hold a score for each sketch distance")
        return 0

    def candidates(self, const uint32_t[:, ::1] keys not None,
                   const uint8_t[:, ::1] sketches not None, int64_t breadth, int64_t candidates,
                   Team team=None):
        """Selection and sketch scan only: (positions int64, distances uint16), (q, candidates).

        breadth: so many cells of the bitmaps, or tables of the postings, are looked at.
        Unfilled places are -1 and 65535; order is by distance, then as scanned.
        """
        self._check(keys, sketches, breadth, candidates, 1)
        cdef int64_t q, found, queries = keys.shape[0]
        positions = np.full((queries, candidates), -1, np.int64)
        distances = np.full((queries, candidates), 65535, np.uint16)
        cdef int64_t[:, ::1] positions_view = positions
        cdef uint16_t[:, ::1] distances_view = distances
        cdef Workspace work = _workspace(self, breadth, candidates, team)
        for q in range(queries):
            with nogil:
                found = work.scan(&keys[q, 0], &sketches[q, 0])
            positions[q, :found] = work.positions_array[:found]
            distances[q, :found] = work.distances_array[:found]
        work.done(self)
        return positions, distances

    def estimate(self, const uint32_t[:, ::1] keys not None,
                 const uint8_t[:, ::1] sketches not None, int64_t breadth, int64_t candidates,
                 int64_t k, float min_score, const float[::1] estimates not None, Team team=None):
        """The k best points by what their sketches say: (ids int64, scores float32), (q, k).

        Scores are those of `estimates`, float32 (sketch bits + 1,), not rising, by sketch distance;
        by falling score, then rising id; -1 and NaN after the last of at least min_score.
        """
        self._check(keys, sketches, breadth, candidates, k)
        self._check_highest(estimates)
        cdef int64_t q, i, at, found, kept, point, queries = keys.shape[0]
        cdef float score
        cdef const int64_t* names = NULL  # hits are called by their places where there are no ids
        if self.ids is not None and self.points:
            names = &self.ids[0]
        ids = np.full((queries, k), -1, np.int64)
        scores = np.full((queries, k), np.nan, np.float32)
        cdef int64_t[:, ::1] ids_view = ids
        cdef float[:, ::1] scores_view = scores
        cdef Workspace work = _workspace(self, breadth, candidates, team)
        with nogil:
            for q in range(queries):
                found = work.scan(&keys[q, 0], &sketches[q, 0])
                kept = 0
                for i in range(found):  # nearest first
                    score = estimates[work.distances[i]]
                    if not score >= min_score:
                        break
                    point = work.positions[i]
                    if names != NULL:
                        point = names[point]
                    if kept < k:
                        kept += 1
                    elif score < scores_view[q, k - 1]:
                        break
                    elif point > ids_view[q, k - 1]:
                        continue
                    at = kept - 1
                    while at and scores_view[q, at - 1] == score and ids_view[q, at - 1] > point:
                        ids_view[q, at] = ids_view[q, at - 1]
                        scores_view[q, at] = score
                        at -= 1
                    ids_view[q, at] = point
                    scores_view[q, at] = score
        work.done(self)
        return ids, scores

    def search_sets(self, const uint32_t[:, ::1] keys not None,
                    const uint8_t[:, ::1] sketches not None, const int64_t[::1] indptr not None,
                    const uint64_t[::1] indices not None, uint64_t salt, int64_t breadth,
                    int64_t candidates, int64_t k, float min_score,
                    const float[::1] highest not None, Team team=None):
        """The k best points of each query set: (ids int64, Jaccard float32), (q, k), -1 and NaN.

        Only scores of at least min_score are hits. highest: float32 (sketch bits + 1,), falling,
        the highest score that each sketch distance leaves plausible.
        """
        self._check(keys, sketches, breadth, candidates, k)
        self._check_highest(highest)
        cdef Sets queries = _sets(indptr, indices)
        if queries.n != keys.shape[0] or self.sets.indptr == NULL:
            raise ValueError("one query set for each row of keys, on a segment of sets")
        cdef int64_t q, i, found, kept, size, most = 0
        for q in range(queries.n):
            size = indptr[q + 1] - indptr[q]
            if size > most:
                most = size
        ids = np.full((queries.n, k), -1, np.int64)
        scores = np.full((queries.n, k), np.nan, np.float32)
        cdef int64_t[:, ::1] ids_view = ids
        cdef float[:, ::1] scores_view = scores
        cdef Workspace work = _workspace(self, breadth, candidates, team)
        cdef uint64_t* words = work.query_words(hash_set_words(most))
        cdef HashSet query
        cdef Candidates ranked
        if self.points == 0 or most == 0:
            return ids, scores
        with nogil:
            for q in range(queries.n):
                size = indptr[q + 1] - indptr[q]
                if size == 0:
                    continue
                found = work.scan(&keys[q, 0], &sketches[q, 0])
                query = hash_set_build(&indices[indptr[q]], size, salt, self.sets.width,
                                       words)
                ranked = work.ranked(self, found, highest, k, min_score)
                kept = rerank_sets(_kernels[0], self.sets, query, ranked, work.hits, work.scores)
                for i in range(kept):
                    ids_view[q, i] = work.hits[i]
                    scores_view[q, i] = work.scores[i]
        work.done(self)
        return ids, scores

    def search_sparse(self, const uint32_t[:, ::1] keys not None,
                      const uint8_t[:, ::1] sketches not None, const int64_t[::1] indptr not None,
                      const uint64_t[::1] indices not None, const float[::1] values not None,
                      int64_t breadth, int64_t candidates, int64_t k, float min_score,
                      const float[::1] highest not None, Team team=None):
        """The k best points of each sparse vector: (ids int64, inner products float32), (q, k)."""
        self._check(keys, sketches, breadth, candidates, k)
        self._check_highest(highest)
        cdef Sets queries = _sets(indptr, indices)
        if queries.n != keys.shape[0] or self.sets.indptr == NULL or self.values is None:
            raise ValueError("one query for each row of keys, on a segment of sparse vectors")
        if values.shape[0] != indices.shape[0]:
            raise ValueError("values must be one for each index")
        cdef int64_t q, i, found, kept
        cdef SparseRow query
        cdef Candidates ranked
        cdef const float* stored = &self.values[0] if self.values.shape[0] else NULL
        ids = np.full((queries.n, k), -1, np.int64)
        scores = np.full((queries.n, k), np.nan, np.float32)
        cdef int64_t[:, ::1] ids_view = ids
        cdef float[:, ::1] scores_view = scores
        cdef Workspace work = _workspace(self, breadth, candidates, team)
        if self.points == 0:
            return ids, scores
        with nogil:
            for q in range(queries.n):
                query.size = indptr[q + 1] - indptr[q]
                query.indices = &indices[indptr[q]] if query.size else NULL
                query.values = &values[indptr[q]] if query.size else NULL
                found = work.scan(&keys[q, 0], &sketches[q, 0])
                ranked = work.ranked(self, found, highest, k, min_score)
                kept = rerank_sparse(self.sets, stored, query, ranked, work.hits, work.scores)
                for i in range(kept):
                    ids_view[q, i] = work.hits[i]
                    scores_view[q, i] = work.scores[i]
        work.done(self)
        return ids, scores

    def search_vectors(self, const uint32_t[:, ::1] keys not None,
                       const uint8_t[:, ::1] sketches not None,
                       const float[:, ::1] queries not None, int64_t breadth, int64_t candidates,
                       int64_t k, float min_score, const float[::1] highest not None,
                       Team team=None):
        """The k best points of each query vector: (ids int64, inner products float32), (q, k)."""
        self._check(keys, sketches, breadth, candidates, k)
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
        cdef Workspace work = _workspace(self, breadth, candidates, team)
        cdef Candidates ranked
        if self.points == 0:
            return ids, scores
        with nogil:
            for q in range(n):
                found = work.scan(&keys[q, 0], &sketches[q, 0])
                ranked = work.ranked(self, found, highest, k, min_score)
                kept = rerank_vectors(
                    _kernels[0], &self.vectors[0, 0], queries.shape[1], &queries[q, 0], ranked,
                    work.hits, work.scores)
                for i in range(kept):
                    ids_view[q, i] = work.hits[i]
                    scores_view[q, i] = work.scores[i]
        work.done(self)
        return ids, scores


cdef Workspace _workspace(SegmentView segment, int64_t breadth, int64_t candidates, Team team):
    """A workspace for a search, of an earlier one if that looked as far."""
    cdef Workspace work
    try:
        work = segment.idle.pop()
    except IndexError:
        work = Workspace(segment, breadth, candidates, None)
    if work.asked_breadth != breadth or work.asked_candidates != candidates:
        work = Workspace(segment, breadth, candidates, work.marks_array)
    work.sketches.dead = &segment.dead[0] if segment.any_dead and segment.points else NULL
    if team is None:
        work.team = NULL
    else:
        work.team = &team.native
    return work


cdef class Workspace:
    """Scratch memory of one search on one segment; never shared between threads."""

    cdef readonly object positions_array, distances_array
    cdef list arrays
    cdef int64_t asked_breadth, asked_candidates, wanted
    cdef object words_array
    cdef int64_t* positions
    cdef int64_t* hits
    cdef Selection selection
    cdef NativeTeam* team  # of the search that has the workspace now, or NULL
    cdef SketchScan sketches
    cdef ScanScratch scratch
    cdef uint16_t* distances
    cdef float* scores
    cdef object marks_array

    def __init__(self, SegmentView segment, int64_t breadth, int64_t candidates, marks):
        """marks: of an earlier workspace of the segment, all zero, or None."""
        cdef int64_t[::1] i8
        cdef uint64_t[::1] u8
        cdef uint16_t[::1] u2
        cdef uint8_t[::1] u1
        cdef float[::1] f4
        # With postings, cells are points, and any number of them may share a bucket.
        cdef bint by_postings = segment.tables.tables > 0
        cdef int64_t most = segment.points if by_postings else min(breadth, segment.tests.cells)
        self.asked_breadth, self.asked_candidates = breadth, candidates
        self.selection.tests = segment.tests
        self.selection.postings = segment.tables
        self.selection.breadth = min(breadth, segment.tables.tables) if by_postings else most
        self.wanted = max(1, min(candidates, segment.points))
        cdef int64_t scanned = max(1, min(most * segment.group_size, segment.points))
        self.arrays = []
        if by_postings:
            self.marks_array = marks
            if marks is None:
                self.marks_array = np.zeros(1 + postings_marks(segment.points), np.uint64)
            u8 = self.marks_array; self.selection.marks = &u8[0]
        i8 = self._new(most + 1, np.int64); self.selection.cells = &i8[0]
        i8 = self.positions_array = self._new(self.wanted, np.int64); self.positions = &i8[0]
        i8 = self._new(self.wanted, np.int64); self.hits = &i8[0]
        u8 = self._new(1 + group_scratch(segment.tests.stride, segment.tests.tables), np.uint64)
        self.selection.counts = &u8[0]
        # A cell that holds all points may have room for many more.
        self.sketches.group_size = min(segment.group_size, max(1, segment.points))
        u1 = self._new(most * self.sketches.group_size + kScanBlock, np.uint8); self.scratch.coarse = &u1[0]
        self.sketches.want = self.wanted
        self.sketches.shortlist = self.wanted
        if segment.fine.shape[1]:
            self.sketches.shortlist = min(
                scanned, max(SHORTLIST * self.wanted, <int64_t>LEAST_SHORTLIST))
        i8 = self._new(self.sketches.shortlist, np.int64); self.scratch.positions = &i8[0]
        u2 = self._new(self.sketches.shortlist, np.uint16); self.scratch.distances = &u2[0]
        self.sketches.coarse = &segment.coarse[0, 0] if segment.points else NULL
        self.sketches.fine_bytes = segment.fine.shape[1]
        self.sketches.fine = NULL
        if segment.points and self.sketches.fine_bytes:
            self.sketches.fine = &segment.fine[0, 0]
        self.sketches.dead = &segment.dead[0] if segment.any_dead and segment.points else NULL
        self.sketches.points = segment.points
        u2 = self.distances_array = self._new(self.wanted, np.uint16); self.distances = &u2[0]
        f4 = self._new(self.wanted, np.float32); self.scores = &f4[0]

    def _new(self, int64_t size, dtype):
        array = np.empty(size, dtype)
        self.arrays.append(array)
        return array

    cdef uint64_t* query_words(self, int64_t size) except NULL:
        """Memory for the table of a query set."""
        cdef uint64_t[::1] view
        if self.words_array is None or len(self.words_array) < size:
            self.words_array = np.empty(size, np.uint64)
        view = self.words_array
        return &view[0]

    cdef int64_t scan(self, const uint32_t* keys, const uint8_t* sketch) noexcept nogil:
        """Positions of the best candidates by selector, then sketch; returns how many."""
        return find_candidates(
            _kernels[0], self.selection, self.sketches, keys, sketch, self.scratch, self.team,
            self.positions, self.distances)

    def done(self, SegmentView segment):
        """Leave the workspace, whose marks are clear again, to the next search."""
        self.team = NULL
        if self.words_array is not None and len(self.words_array) > MOST_WORDS_KEPT:
            self.words_array = None
        segment.idle.append(self)

    cdef Candidates ranked(self, SegmentView segment, int64_t found, const float[::1] highest,
                           int64_t k, float min_score) noexcept nogil:
        """What the last scan found, for the re-rank."""
        cdef Candidates candidates
        candidates.positions = self.positions
        candidates.distances = self.distances
        candidates.count = found
        candidates.ids = NULL
        if segment.ids is not None:
            candidates.ids = &segment.ids[0]
        candidates.highest = &highest[0]
        candidates.k = k
        candidates.min_score = min_score
        return candidates


# --- the paper's own decode ----------------------------------------------------------------------


def insert_into_rows(uint8_t[:, :, ::1] bitmaps not None, const uint32_t[:, ::1] keys not None,
                     const uint32_t[:, ::1] cells not None):
    """Set the bits of points with these keys (n, tables) in these cells (n, rows)."""
    cdef int32_t range_bits = _range_bits(bitmaps.shape[1])
    if bitmaps.shape[0] != keys.shape[1] or keys.shape[0] != cells.shape[0]:
        raise ValueError("one key for each table, and cells for each point")
    if np.any(np.asarray(cells) >= bitmaps.shape[2] * 8):
        raise ValueError("a cell that the bitmaps have no bit for")
    if keys.shape[0] and keys.shape[1] and cells.shape[1]:
        with nogil:
            paper_insert(&bitmaps[0, 0, 0], bitmaps.shape[2], range_bits,
                         <int32_t>bitmaps.shape[0], &keys[0, 0], &cells[0, 0], cells.shape[1],
                         keys.shape[0])


def paper_search(const uint8_t[:, :, ::1] bitmaps not None, const uint32_t[:, ::1] keys not None,
                 int32_t rows, const int64_t[::1] first not None,
                 const uint32_t[::1] members not None, const uint8_t[::1] dead not None,
                 int64_t k):
    """Points that are met in all rows, cells visited by falling count: the paper's decode.

    bitmaps      uint8 (tables, 1 << range bits, stride), over the cells of all rows
    keys         uint32 (q, tables)
    first        int64 (cells + 1,); cell c holds members[first[c]:first[c + 1]]
    dead         bit set of removed points

    Returns positions int64 (q, k), -1 after the last, and uint16 (q, k), the tests passed by the
    last cell in which each was met.
    """
    cdef GroupTests tests = _tests(bitmaps, first.shape[0] - 1, keys.shape[1])
    cdef PaperCells cells
    cdef PaperScratch scratch
    cdef int64_t q, i, found, queries = keys.shape[0], points = dead.shape[0] * 8
    cells.cells = tests.cells
    if not 1 <= rows <= 255 or k < 1:
        raise ValueError("rows must be from 1 to 255, k positive")
    if first[0] != 0 or first[tests.cells] != members.shape[0]:
        raise ValueError("first must begin with 0 and end with len(members)")
    if np.any(np.diff(np.asarray(first)) < 0) or np.any(np.asarray(members) >= points):
        raise ValueError("first must not fall, members must be positions within dead")
    cells.first = &first[0]
    cells.members = &members[0] if members.shape[0] else NULL
    cells.dead = &dead[0] if dead.shape[0] else NULL
    cells.rows = rows
    cdef int64_t[::1] order = np.empty(tests.cells + 1, np.int64)
    cdef int64_t[::1] histogram = np.empty(tests.tables + 1, np.int64)
    cdef uint8_t[::1] met = np.zeros(points + 1, np.uint8)
    cdef uint16_t[::1] counts = np.empty(tests.cells + 1, np.uint16)
    cdef uint64_t[::1] planes = np.empty(1 + group_scratch(tests.stride, tests.tables), np.uint64)
    cdef int64_t[::1] hits = np.empty(k, np.int64)
    cdef uint16_t[::1] passed = np.empty(k, np.uint16)
    scratch.order, scratch.histogram, scratch.met = &order[0], &histogram[0], &met[0]
    positions_out = np.full((queries, k), -1, np.int64)
    passed_out = np.zeros((queries, k), np.uint16)
    cdef int64_t[:, ::1] positions_view = positions_out
    cdef uint16_t[:, ::1] passed_view = passed_out
    with nogil:
        for q in range(queries):
            _kernels.group_counts(tests, &keys[q, 0], &planes[0], &counts[0])
            found = paper_decode(cells, &counts[0], tests.tables, k, scratch, &hits[0], &passed[0])
            for i in range(found):
                positions_view[q, i] = hits[i]
                passed_view[q, i] = passed[i]
    return positions_out, passed_out


# --- exact search --------------------------------------------------------------------------------


def jaccard_of_rows(const int64_t[::1] indptr not None, elements,
                    const int64_t[::1] positions not None, const uint64_t[::1] query not None,
                    uint64_t salt):
    """Exact Jaccard similarities of one query set with chosen stored sets, float32."""
    cdef int64_t i, at, rows = indptr.shape[0] - 1
    cdef StoredSets sets = _stored_sets(indptr, elements)
    cdef int64_t size = elements.shape[0]
    for i in range(positions.shape[0]):
        at = positions[i]
        if at < 0 or at >= rows:
            raise ValueError("positions must be rows of the sets")
        if indptr[at] < 0 or indptr[at] > indptr[at + 1] or indptr[at + 1] > size:
            raise ValueError("indptr must not fall, and lie within the elements")
    out = np.empty(positions.shape[0], np.float32)
    words = np.empty(hash_set_words(query.shape[0]), np.uint64)
    cdef float[::1] out_view = out
    cdef uint64_t[::1] words_view = words
    cdef HashSet hashed
    cdef const uint64_t* first = &query[0] if query.shape[0] else NULL
    if positions.shape[0]:
        with nogil:
            hashed = hash_set_build(first, query.shape[0], salt, sets.width, &words_view[0])
            _kernels.jaccard(sets, &positions[0], positions.shape[0], hashed, &out_view[0])
    return out


def jaccard_of_all(const int64_t[::1] indptr not None, const uint64_t[::1] indices not None,
                   const int64_t[::1] query_indptr not None,
                   const uint64_t[::1] query_indices not None, uint64_t salt):
    """Exact Jaccard similarities of query sets with all sets, float32 (queries, sets).

    The sets are read once for all queries: give as many queries as memory has room for answers.
    """
    cdef Sets sets = _sets(indptr, indices)
    cdef Sets queries = _sets(query_indptr, query_indices)
    out = np.zeros((queries.n, sets.n), np.float32)
    if not queries.n or not sets.n or not query_indices.shape[0]:
        return out
    distinct, inverse = np.unique(np.asarray(query_indices), return_inverse=True)
    sizes = np.diff(np.asarray(query_indptr))
    holder_of = np.repeat(np.arange(queries.n, dtype=np.int32), sizes)
    order = np.argsort(inverse, kind="stable")
    cdef const uint64_t[::1] distinct_view = distinct
    cdef const int32_t[::1] holders = holder_of[order]
    cdef const int64_t[::1] first = np.searchsorted(
        inverse[order], np.arange(len(distinct) + 1)).astype(np.int64)
    cdef const int64_t[::1] sizes_view = sizes
    cdef uint64_t[::1] slots = np.empty(element_map_slots(len(distinct)), np.uint64)
    cdef int32_t[::1] numbers = np.empty(slots.shape[0], np.int32)
    cdef uint32_t[::1] shared = np.empty(queries.n, np.uint32)
    cdef float[:, ::1] view = out
    cdef ElementMap element_map
    with nogil:
        element_map = element_map_build(&distinct_view[0], distinct_view.shape[0], salt,
                                        slots.shape[0], &slots[0], &numbers[0])
        jaccard_scan(sets, element_map, &first[0], &holders[0], &sizes_view[0], queries.n,
                     &shared[0], &view[0, 0])
    return out


# --- features ------------------------------------------------------------------------------------


cdef enum Shingle:
    BYTES
    CHARS
    WORDS
    DNA
    LETTERS


cdef class _Texts:
    """Where the bytes of each text lie; `held` keeps them alive."""

    cdef list held
    cdef object starts_array, sizes_array
    cdef size_t[::1] starts
    cdef int64_t[::1] sizes
    cdef int64_t total, longest

    def __init__(self, list texts):
        cdef int64_t i
        cdef Py_ssize_t size
        cdef const char* data
        self.held = list(texts)  # of our own, so that nobody takes one out meanwhile
        self.starts_array = np.zeros(len(self.held) + 1, np.uintp)
        self.sizes_array = np.zeros(len(self.held) + 1, np.int64)
        self.starts = self.starts_array
        self.sizes = self.sizes_array
        for i in range(len(self.held)):
            text = self.held[i]
            if isinstance(text, str):
                data = PyUnicode_AsUTF8AndSize(text, &size)
            elif isinstance(text, bytes):
                data = <const char*>(<bytes>text)
                size = len(<bytes>text)
            else:
                raise TypeError(f"a text is a string, not {type(text).__name__}")
            self.starts[i] = <size_t>data
            self.sizes[i] = size
            self.total += size
            self.longest = max(self.longest, size)


def shingle_batch(str unit, list texts, int64_t n, bint canonical=True, *, int64_t copies=0,
                  const uint8_t[::1] letters=None, const uint8_t[::1] complements=None):
    """Set elements of each text: (indptr int64, elements uint64).

    unit: "byte", "char", "word" (n-grams), "dna" (k-mers up to 32) or "letters" (k-mers by hash of
    what `letters`, uint8 (256,), makes of each letter; 0 breaks a k-mer; with `complements` the
    smaller hash of both strands). texts: strings, or bytes in UTF-8. copies: 0 gives all elements
    in order and with repeats; 1 each once, ascending; more, up to so many repeats as elements of
    their own. Raises TypeError, or UnicodeEncodeError for an unpaired surrogate.
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
    elif unit == "letters":
        kind = LETTERS
    else:
        raise ValueError(f"unknown unit {unit!r}")
    if n < 1 or (kind == DNA and n > 32) or copies < 0:
        raise ValueError("n must be positive, and at most 32 for k-mers")
    if (kind == LETTERS and letters is None) or (letters is not None and letters.shape[0] != 256):
        raise ValueError("letters has 256 entries")
    if complements is not None and complements.shape[0] != 256:
        raise ValueError("complements has 256 entries")
    if texts is None:
        raise TypeError("texts must be a list")
    cdef _Texts found = _Texts(texts)
    cdef int64_t i, size, made, at = 0, count = len(found.held)
    cdef const uint8_t* data
    indptr = np.zeros(count + 1, np.int64)
    elements = np.empty(found.total + 1, np.uint64)
    cdef int64_t[::1] indptr_view = indptr
    cdef uint64_t[::1] elements_view = elements
    cdef uint64_t[::1] scratch = np.empty(found.longest + 1 if copies else 1, np.uint64)
    cdef uint8_t[::1] strands = np.empty(2 * found.longest + 1 if kind == LETTERS else 1, np.uint8)
    cdef const uint8_t* letters_data = NULL
    cdef const uint8_t* complements_data = NULL
    if letters is not None:
        letters_data = &letters[0]
    if complements is not None:
        complements_data = &complements[0]
    with nogil:
        for i in range(count):
            data = <const uint8_t*>found.starts[i]
            size = found.sizes[i]
            if kind == BYTES:
                made = byte_shingles(data, size, n, &elements_view[at])
            elif kind == CHARS:
                made = char_shingles(data, size, n, &elements_view[at])
            elif kind == WORDS:
                made = word_shingles(data, size, n, &elements_view[at])
            elif kind == DNA:
                made = dna_kmers(data, size, n, canonical, &elements_view[at])
            else:
                made = letter_kmers(data, size, n, letters_data, complements_data, &strands[0],
                                    &elements_view[at])
            if copies:
                made = distinct(&elements_view[at], made, copies, &scratch[0])
            at += made
            indptr_view[i + 1] = at
    return indptr, elements[:at]


def ngram_batch(const int64_t[::1] indptr not None, const uint64_t[::1] values not None, int64_t n):
    """n-grams of the numbers of each row, with repeats: (indptr int64, elements uint64)."""
    cdef Sets rows = _sets(indptr, values)
    cdef int64_t i, at = 0
    if n < 1:
        raise ValueError("n must be positive")
    out = np.zeros(rows.n + 1, np.int64)
    elements = np.empty(values.shape[0] + 1, np.uint64)
    cdef int64_t[::1] out_view = out
    cdef uint64_t[::1] elements_view = elements
    if values.shape[0]:
        with nogil:
            for i in range(rows.n):
                at += number_ngrams(&values[0] + indptr[i], indptr[i + 1] - indptr[i], n,
                                    &elements_view[at])
                out_view[i + 1] = at
    return out, elements[:at]


def json_rows(bytes text not None, bytes key not None):
    """Lists of numbers that are the value of a key of a JSON text's outermost object.

    (begin, end, indptr int64, values uint64), with the value's place in the text; None if it is
    not there, not there once, or not of numbers 0 .. 2**64 - 1. The rest is not checked.
    """
    cdef JsonRows found
    cdef const char* data = text
    cdef const char* name = key
    cdef int64_t size = len(text), name_size = len(key)
    cdef cbool there
    with nogil:
        there = find_json_rows(data, size, name, name_size, &found)
    if not there:
        return None
    indptr = np.empty(found.rows + 1, np.int64)
    values = np.empty(found.numbers + 1, np.uint64)
    cdef int64_t[::1] indptr_view = indptr
    cdef uint64_t[::1] values_view = values
    with nogil:
        copy_json_rows(data, found, &indptr_view[0], &values_view[0])
    return found.begin, found.end, indptr, values[: found.numbers]


def sort_unique(const int64_t[::1] indptr not None, uint64_t[::1] elements not None,
                int64_t copies=1):
    """Sort each row of a CSR pair and drop its repeats, in place: (indptr, elements) of the rest.

    copies: up to so many repeats of an element become elements of their own.
    """
    cdef Sets sets = _sets(indptr, elements)
    cdef int64_t i, longest = 0
    if copies < 1:
        raise ValueError("copies must be positive")
    for i in range(sets.n):
        longest = max(longest, indptr[i + 1] - indptr[i])
    out = np.zeros(sets.n + 1, np.int64)
    cdef int64_t[::1] view = out
    cdef uint64_t[::1] scratch = np.empty(longest + 1, np.uint64)
    if sets.n and elements.shape[0]:
        with nogil:
            sort_unique_rows(sets.indptr, sets.n, &elements[0], copies, &scratch[0], &view[0])
    return out, np.asarray(elements)[: out[sets.n]]


def take_sets(const int64_t[::1] indptr not None, elements, const int64_t[::1] rows not None):
    """Chosen stored sets as (indptr int64, elements uint64). elements: uint32 or uint64."""
    cdef int64_t i, begin, end, total = 0, count = rows.shape[0], n = indptr.shape[0] - 1
    cdef StoredSets sets = _stored_sets(indptr, elements)
    offsets = np.zeros(count + 1, np.int64)
    cdef int64_t[::1] offsets_view = offsets
    for i in range(count):
        if rows[i] < 0 or rows[i] >= n:
            raise ValueError("rows must be numbers of the sets")
        begin, end = indptr[rows[i]], indptr[rows[i] + 1]
        if begin < 0 or end < begin or end > elements.shape[0]:
            raise ValueError("indptr must rise and end within the elements")
        total += end - begin
        offsets_view[i + 1] = total
    out = np.empty(total, np.uint64)
    cdef uint64_t[::1] view = out
    if total:
        with nogil:
            copy_sets(sets, &rows[0], count, &view[0])
    return offsets, out


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
