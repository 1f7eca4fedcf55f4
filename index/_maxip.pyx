# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The boundary between Python and the MaxIP kernels in ``csrc/maxip.*``; a sibling of ``_native``.

Arrays in, arrays out: shapes and types are checked, the interpreter lock is dropped, a kernel runs.
"""

from libc.stdint cimport int8_t, int16_t, int64_t, uint8_t, uint64_t

import numpy as np


cdef extern from "maxip.hpp" namespace "closeby" nogil:
    cdef cppclass Codes:
        const uint8_t* codes
        const float* factors
        int64_t bits

    cdef cppclass CodeQuery:
        const uint8_t* tables
        float scale
        float offset

    cdef cppclass ByteRows:
        const int8_t* rows
        const float* scales
        int64_t stride

    cdef cppclass ByteQuery:
        const int16_t* values
        float scale

    cdef cppclass MaxIPKernels:
        const char* name
        void (*byte_products)(const ByteRows&, const ByteQuery&, const int64_t*, int64_t,
                              float*) noexcept
        int64_t (*code_scan)(const Codes&, const CodeQuery&, int64_t, int64_t, float, float,
                             int64_t*, float*) noexcept
        void (*rotate)(const float*, int64_t, int64_t, int64_t, const float*, float*) noexcept
        void (*row_products)(const float*, int64_t, int64_t, const float*, float*) noexcept

    const MaxIPKernels* maxip_kernels_by_name(const char*) noexcept

    cdef cppclass MaxIPLists:
        ByteRows centroids
        const float* spreads
        const int64_t* starts
        int64_t lists
        int64_t dim
        int64_t padded
        const float* signs
        Codes codes
        ByteRows bytes
        const float* vectors
        const int64_t* ids

    cdef cppclass MaxIPEffort:
        int64_t probes
        int64_t candidates
        int64_t finals
        int64_t k
        float kappa
        float min_score

    cdef cppclass Candidate:
        int64_t place
        float estimate

    cdef cppclass CandidateBuffer:
        int64_t* places
        float* estimates
        Candidate* doubtful

    cdef cppclass MaxIPScratch:
        float* list_products
        float* list_scores
        uint64_t* list_keys
        int16_t* values
        float* rotated
        uint8_t* tables
        CandidateBuffer candidates

    int64_t candidate_room(int64_t) noexcept
    ByteQuery round_query(const float*, int64_t, int64_t, int16_t*) noexcept
    int64_t maxip_search(const MaxIPKernels&, const MaxIPLists&, const float*, const MaxIPEffort&,
                         const MaxIPScratch&, int64_t*, float*, int64_t*) noexcept


BLOCK = 32  # points of one block of codes
MAX_CANDIDATES = 1 << 24


cdef const MaxIPKernels* _best():
    cdef const MaxIPKernels* avx2 = maxip_kernels_by_name(b"avx2")
    return avx2 if avx2 != NULL else maxip_kernels_by_name(b"baseline")


cdef const MaxIPKernels* _kernels = _best()


def instruction_set():
    """Name of the instruction set in use: ``"avx2"`` or ``"baseline"``."""
    return _kernels.name.decode()


def instruction_sets():
    """Names of the instruction sets that this machine runs, plainest first."""
    return [n for n in ("baseline", "avx2") if maxip_kernels_by_name(n.encode()) != NULL]


def use_instruction_set(str name):
    """Choose the kernels by name, for tests; ``"best"`` goes back to the default."""
    global _kernels
    cdef bytes encoded = name.encode()
    cdef const MaxIPKernels* chosen
    chosen = _best() if name == "best" else maxip_kernels_by_name(encoded)
    if chosen == NULL:
        raise ValueError(f"this machine or build has no kernels for {name!r}")
    _kernels = chosen


cdef int _check_signs(const float[:, ::1] signs, int64_t dim) except -1:
    cdef int64_t padded = signs.shape[1]
    if signs.shape[0] != 3 or padded < 8 or padded & (padded - 1) or dim < 1 or dim > padded:
        raise ValueError("signs must be (3, a power of two of at least 8 and dim)")
    return 0


def rotate(const float[:, ::1] vectors not None, const float[:, ::1] signs not None):
    """Random rotation of vectors padded with zeros, float32 (n, padded). signs: (3, padded)."""
    _check_signs(signs, vectors.shape[1])
    out = np.empty((vectors.shape[0], signs.shape[1]), np.float32)
    cdef float[:, ::1] view = out
    if vectors.shape[0]:
        with nogil:
            _kernels.rotate(&vectors[0, 0], vectors.shape[0], vectors.shape[1], signs.shape[1],
                            &signs[0, 0], &view[0, 0])
    return out


def products(const float[:, ::1] rows not None, const float[:, ::1] queries not None):
    """Inner products of queries with all rows, float32 (q, n), summed as a search sums them."""
    if rows.shape[1] != queries.shape[1]:
        raise ValueError("queries must have the dimension of the rows")
    out = np.empty((queries.shape[0], rows.shape[0]), np.float32)
    cdef float[:, ::1] view = out
    cdef int64_t q
    if rows.shape[0] and rows.shape[1]:
        with nogil:
            for q in range(queries.shape[0]):
                _kernels.row_products(&rows[0, 0], rows.shape[1], rows.shape[0], &queries[q, 0],
                                      &view[q, 0])
    else:
        out[:] = 0
    return out


def byte_products(const int8_t[:, ::1] rows not None, const float[::1] scales not None,
                  const float[::1] query not None, places=None):
    """Inner products of one query with vectors in bytes, float32 (n,).

    rows: int8 (n, stride), a multiple of 16; places: int64 (count,), which rows; all unless given.
    """
    cdef int64_t stride = rows.shape[1], n = rows.shape[0], i
    if stride % 16 or not 0 < query.shape[0] <= stride or scales.shape[0] != n:
        raise ValueError("rows must be (n, a multiple of 16), a scale each, and fit the query")
    cdef const int64_t[::1] chosen = places if places is not None else np.zeros(0, np.int64)
    for i in range(chosen.shape[0]):
        if not 0 <= chosen[i] < n:
            raise ValueError("places must be rows")
    cdef int64_t count = n if places is None else chosen.shape[0]
    out = np.empty(count, np.float32)
    values = np.empty(stride, np.int16)
    cdef float[::1] out_view = out
    cdef int16_t[::1] values_view = values
    cdef ByteRows stored
    cdef const int64_t* which = NULL
    if places is not None and count:
        which = &chosen[0]
    if count:
        stored.rows = &rows[0, 0]
        stored.scales = &scales[0]
        stored.stride = stride
        with nogil:
            _kernels.byte_products(
                stored, round_query(&query[0], query.shape[0], stride, &values_view[0]),
                which, count, &out_view[0])
    return out


def scan_codes(const uint8_t[:, :, ::1] codes not None, const float[::1] factors not None,
               const uint8_t[:, ::1] tables not None, float scale, float offset, float base,
               float bar):
    """Places and estimates above `bar` of all blocks: (int64, float32). tables: (bits / 4, 16)."""
    cdef Codes stored
    cdef CodeQuery query
    cdef int64_t found = 0
    if codes.shape[1] % 4 or codes.shape[2] != BLOCK or factors.shape[0] != codes.shape[0] * BLOCK:
        raise ValueError("codes must be (blocks, bits / 8, 32) with a factor for each place")
    if tables.shape[0] != codes.shape[1] * 2 or tables.shape[1] != 16:
        raise ValueError("tables must be (bits / 4, 16)")
    places = np.empty(factors.shape[0], np.int64)
    estimates = np.empty(factors.shape[0], np.float32)
    cdef int64_t[::1] places_view = places
    cdef float[::1] estimates_view = estimates
    if codes.shape[0] and codes.shape[1]:
        stored.codes = &codes[0, 0, 0]
        stored.factors = &factors[0]
        stored.bits = codes.shape[1] * 8
        query.tables = &tables[0, 0]
        query.scale = scale
        query.offset = offset
        with nogil:
            found = _kernels.code_scan(stored, query, 0, codes.shape[0], base, bar,
                                       &places_view[0], &estimates_view[0])
    return places[:found], estimates[:found]


cdef class ListsView:
    """What a search reads of one segment: arrays of fixed shape, checked once.

    centroids        int8 (lists, stride), with centroid_scales float32 (lists,)
    spreads          float32 (lists,), root mean square distance of a list's points to its centre
    starts           int64 (lists + 1,), first block of each list
    signs            float32 (3, padded), the rotation
    codes            uint8 (blocks, bits / 8, 32)
    factors          float32 (blocks * 32,); NaN where there is no point, or no more
    rounded          int8 (blocks * 32, stride), the vectors in bytes, with scales float32
    vectors          float32 (blocks * 32, dim)
    ids              int64 (blocks * 32,)
    """

    cdef readonly object arrays  # keeps everything alive
    cdef const int8_t[:, ::1] centroids
    cdef const float[::1] centroid_scales
    cdef const float[::1] spreads
    cdef const int64_t[::1] starts
    cdef const float[:, ::1] signs
    cdef const uint8_t[:, :, ::1] codes
    cdef const float[::1] factors
    cdef const int8_t[:, ::1] rounded
    cdef const float[::1] scales
    cdef const float[:, ::1] vectors
    cdef const int64_t[::1] ids
    cdef MaxIPLists lists

    def __init__(self, centroids, centroid_scales, spreads, starts, signs, codes, factors, rounded,
                 scales, vectors, ids):
        self.arrays = (centroids, centroid_scales, spreads, starts, signs, codes, factors, rounded,
                       scales, vectors, ids)
        self.centroids = centroids
        self.centroid_scales = centroid_scales
        self.spreads = spreads
        self.starts = starts
        self.signs = signs
        self.codes = codes
        self.factors = factors
        self.rounded = rounded
        self.scales = scales
        self.vectors = vectors
        self.ids = ids
        self._check()
        self.lists.centroids.rows = &self.centroids[0, 0]
        self.lists.centroids.scales = &self.centroid_scales[0]
        self.lists.centroids.stride = self.centroids.shape[1]
        self.lists.spreads = &self.spreads[0]
        self.lists.starts = &self.starts[0]
        self.lists.lists = self.centroids.shape[0]
        self.lists.dim = self.vectors.shape[1]
        self.lists.padded = self.signs.shape[1]
        self.lists.signs = &self.signs[0, 0]
        self.lists.codes.codes = &self.codes[0, 0, 0]
        self.lists.codes.factors = &self.factors[0]
        self.lists.codes.bits = self.codes.shape[1] * 8
        self.lists.bytes.rows = &self.rounded[0, 0]
        self.lists.bytes.scales = &self.scales[0]
        self.lists.bytes.stride = self.rounded.shape[1]
        self.lists.vectors = &self.vectors[0, 0]
        self.lists.ids = &self.ids[0]

    cdef int _check(self) except -1:
        """Nothing that a search reads lies outside the arrays."""
        cdef int64_t blocks = self.codes.shape[0], count = self.centroids.shape[0], i
        cdef int64_t dim = self.vectors.shape[1], stride = self.rounded.shape[1]
        if count < 1 or blocks < 1 or self.codes.shape[1] < 4 or self.codes.shape[1] % 4:
            raise ValueError("at least one list and block; bits must be a multiple of 32")
        if self.codes.shape[2] != BLOCK:
            raise ValueError("a block has 32 points")
        if count > 1 << 30 or self.spreads.shape[0] != count or self.starts.shape[0] != count + 1:
            raise ValueError("spreads and starts must fit the centroids")
        if self.starts[0] != 0 or self.starts[count] != blocks:
            raise ValueError("starts must begin with 0 and end with the number of blocks")
        for i in range(count):
            if self.starts[i + 1] < self.starts[i]:
                raise ValueError("starts must not fall")
        if (self.factors.shape[0] != blocks * BLOCK or self.vectors.shape[0] != blocks * BLOCK
                or self.ids.shape[0] != blocks * BLOCK or self.rounded.shape[0] != blocks * BLOCK
                or self.scales.shape[0] != blocks * BLOCK or self.centroid_scales.shape[0] != count):
            raise ValueError("all arrays of places and of lists must have a row for each place")
        if dim < 1 or stride < dim or stride % 16 or self.centroids.shape[1] != stride:
            raise ValueError("vectors and centroids must have one dimension")
        _check_signs(self.signs, dim)
        if self.codes.shape[1] * 8 > self.signs.shape[1]:
            raise ValueError("no more bits than rotated coordinates")
        return 0

    def search(self, const float[:, ::1] queries not None, int64_t k, int64_t probes,
               int64_t candidates, int64_t finals, float kappa, float min_score):
        """The k best points found of each query: (ids int64, scores float32, scanned int64).

        ids and scores are (q, k) with -1 and NaN after the last hit; scanned (q,) is the number of
        places whose codes were read.
        """
        if queries.shape[1] != self.lists.dim:
            raise ValueError("queries must have the dimension of the vectors")
        if k < 1 or probes < 1 or not k <= finals <= candidates <= MAX_CANDIDATES:
            raise ValueError("k and probes must be positive, k <= finals <= candidates <= 2**24")
        cdef int64_t q, n = queries.shape[0], count = self.lists.lists
        # A search never keeps more candidates than there are places.
        candidates = min(candidates, max(k, self.factors.shape[0]))
        cdef int64_t room = candidate_room(candidates)
        ids = np.full((n, k), -1, np.int64)
        scores = np.full((n, k), np.nan, np.float32)
        scanned = np.zeros(n, np.int64)
        floats = np.empty(2 * count + room + self.lists.padded, np.float32)
        # Keys of lists, then places, then candidates of two words each.
        longs = np.empty(count + 3 * room, np.int64)
        values = np.empty(self.lists.bytes.stride, np.int16)
        tables = np.empty(self.lists.codes.bits * 4, np.uint8)
        cdef int64_t[:, ::1] ids_view = ids
        cdef float[:, ::1] scores_view = scores
        cdef int64_t[::1] scanned_view = scanned
        cdef float[::1] floats_view = floats
        cdef int64_t[::1] longs_view = longs
        cdef int16_t[::1] values_view = values
        cdef uint8_t[::1] tables_view = tables
        cdef MaxIPScratch scratch
        cdef MaxIPEffort effort
        scratch.list_products = &floats_view[0]
        scratch.list_scores = &floats_view[count]
        scratch.rotated = &floats_view[2 * count]
        scratch.candidates.estimates = &floats_view[2 * count + self.lists.padded]
        scratch.list_keys = <uint64_t*>&longs_view[0]
        scratch.candidates.places = &longs_view[count]
        scratch.candidates.doubtful = <Candidate*>&longs_view[count + room]
        scratch.values = &values_view[0]
        scratch.tables = &tables_view[0]
        effort.probes = probes
        effort.candidates = candidates
        effort.finals = min(finals, candidates)
        effort.k = k
        effort.kappa = kappa
        effort.min_score = min_score
        if n:
            with nogil:
                for q in range(n):
                    maxip_search(_kernels[0], self.lists, &queries[q, 0], effort, scratch,
                                 &ids_view[q, 0], &scores_view[q, 0], &scanned_view[q])
        return ids, scores, scanned
