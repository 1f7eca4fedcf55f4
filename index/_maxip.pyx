# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The boundary between Python and the MaxIP kernels in ``csrc/maxip.*``; a sibling of ``_native``.

Arrays in, arrays out: shapes and types are checked, the interpreter lock is dropped, a kernel runs.
"""

from libc.stdint cimport int8_t, int16_t, int64_t, uint8_t

from libc.math cimport NAN

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

    cdef cppclass Encoding:
        const float* vectors
        const int64_t* owners
        const float* centroids
        int64_t dim
        int64_t padded
        const float* signs
        int64_t bits
        uint8_t* codes
        float* factors
        double* squares

    cdef cppclass MaxIPKernels:
        const char* name
        void (*byte_products)(const ByteRows&, const ByteQuery&, const int64_t*, int64_t,
                              float*) noexcept
        int64_t (*list_scan)(const float*, const float*, float, int64_t, int64_t, float, int64_t*,
                             float*) noexcept
        int64_t (*code_scan)(const Codes&, const CodeQuery&, int64_t, int64_t, float, float,
                             int64_t*, float*) noexcept
        void (*rotate)(const float*, int64_t, int64_t, int64_t, const float*, float*) noexcept
        void (*row_products)(const float*, int64_t, int64_t, const float*, float*) noexcept
        void (*encode)(const Encoding&, int64_t, int64_t, float*) noexcept
        void (*round_rows)(const float*, int64_t, int64_t, int64_t, int8_t*, float*) noexcept
        void (*take_nearer)(const float*, int64_t, int64_t, const float*, const int64_t*, int64_t,
                            float*, int64_t*) noexcept
        void (*sum_rows)(const float*, int64_t, int64_t, const int64_t*, double*) noexcept

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
        int64_t* list_order
        CandidateBuffer lists
        int16_t* values
        float* rotated
        uint8_t* tables
        CandidateBuffer candidates

    int64_t candidate_room(int64_t) noexcept
    int64_t list_room(int64_t) noexcept
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


def encode(const float[:, ::1] vectors not None, const int64_t[::1] owners not None,
           const float[:, ::1] centroids not None, const float[:, ::1] signs not None,
           int64_t bits, uint8_t[:, :, ::1] codes not None, float[::1] factors not None,
           double[::1] squares not None):
    """Write codes, factors and squared distances to their centres of the points at all places.

    vectors: (places, dim); owners: int64 (places,), a row of centroids (lists, dim), or -1 where
    there is no point; signs: (3, padded); codes: uint8 (places / 32, bits / 8, 32); factors and
    squares: (places,). A factor is |r|² / Σ|R r|, NaN without a point.
    """
    cdef int64_t places = vectors.shape[0], dim = vectors.shape[1], i
    _check_signs(signs, dim)
    if bits % 32 or not 0 < bits <= signs.shape[1] or places % BLOCK:
        raise ValueError("bits must be a multiple of 32 within the rotation, places one of 32")
    if (owners.shape[0] != places or factors.shape[0] != places or squares.shape[0] != places
            or codes.shape[0] != places // BLOCK or codes.shape[1] != bits // 8
            or codes.shape[2] != BLOCK or centroids.shape[1] != dim):
        raise ValueError("all arrays must have a row for each place, and one dimension")
    for i in range(places):
        if not -1 <= owners[i] < centroids.shape[0]:
            raise ValueError("owners must be rows of the centroids, or -1")
    scratch = np.empty(signs.shape[1], np.float32)
    cdef float[::1] scratch_view = scratch
    cdef Encoding job
    if places and centroids.shape[0]:
        job.vectors = &vectors[0, 0]
        job.owners = &owners[0]
        job.centroids = &centroids[0, 0]
        job.dim = dim
        job.padded = signs.shape[1]
        job.signs = &signs[0, 0]
        job.bits = bits
        job.codes = &codes[0, 0, 0]
        job.factors = &factors[0]
        job.squares = &squares[0]
        with nogil:
            _kernels.encode(job, 0, places, &scratch_view[0])


def round_rows(const float[:, ::1] vectors not None, int8_t[:, ::1] rows not None,
               float[::1] scales not None):
    """Write vectors (n, dim) rounded to bytes: rows (n, stride) times scales (n,)."""
    cdef int64_t n = vectors.shape[0]
    if rows.shape[0] != n or scales.shape[0] != n or rows.shape[1] < vectors.shape[1]:
        raise ValueError("rows and scales must have a row for each vector")
    if n and vectors.shape[1]:
        with nogil:
            _kernels.round_rows(&vectors[0, 0], n, vectors.shape[1], rows.shape[1], &rows[0, 0],
                                &scales[0])


def take_nearer(const float[:, ::1] scores not None, const float[::1] halves not None,
                const int64_t[::1] points not None, int64_t first, float[::1] best not None,
                int64_t[::1] owners not None):
    """Where a row's best of scores - halves is above best, write it there and its list to owners.

    scores: (n, count); halves: (count,); points: (n,), which of best and owners a row is; a list is
    called first + its column, of equal ones the lowest.
    """
    cdef int64_t n = scores.shape[0], i
    if halves.shape[0] != scores.shape[1] or points.shape[0] != n or not scores.shape[1]:
        raise ValueError("halves must fit the columns, points the rows of the scores")
    if best.shape[0] != owners.shape[0] or scores.shape[1] > 1 << 30:
        raise ValueError("best and owners must have one length")
    for i in range(n):
        if not 0 <= points[i] < best.shape[0]:
            raise ValueError("points must be rows of best")
    if n:
        with nogil:
            _kernels.take_nearer(&scores[0, 0], n, scores.shape[1], &halves[0], &points[0], first,
                                 &best[0], &owners[0])


def sum_rows(const float[:, ::1] vectors not None, const int64_t[::1] owners not None,
             int64_t lists):
    """Sums of the vectors of each list, float64 (lists, dim). owners: int64 (n,), 0 .. lists."""
    cdef int64_t n = vectors.shape[0], i
    if owners.shape[0] != n or lists < 0:
        raise ValueError("owners must have a list for each vector")
    for i in range(n):
        if not 0 <= owners[i] < lists:
            raise ValueError("owners must be from 0 to lists")
    out = np.zeros((lists, vectors.shape[1]), np.float64)
    cdef double[:, ::1] view = out
    if n and vectors.shape[1]:
        with nogil:
            _kernels.sum_rows(&vectors[0, 0], n, vectors.shape[1], &owners[0], &view[0, 0])
    return out


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
        cdef int64_t q, i, n = queries.shape[0], count = self.lists.lists
        # A search never keeps more candidates than there are places.
        candidates = min(candidates, max(k, self.factors.shape[0]))
        probes = min(probes, count)
        cdef int64_t room = candidate_room(candidates), ranks = list_room(probes)
        ids = np.empty((n, k), np.int64)
        scores = np.empty((n, k), np.float32)
        scanned = np.empty(n, np.int64)
        floats = np.empty(count + self.lists.padded + ranks + room, np.float32)
        # The order of lists, then of lists and of points: numbers, and doubtful ones of two words.
        longs = np.empty(probes + 3 * (ranks + room), np.int64)
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
        scratch.rotated = &floats_view[count]
        scratch.lists.estimates = &floats_view[count + self.lists.padded]
        scratch.candidates.estimates = &floats_view[count + self.lists.padded + ranks]
        scratch.list_order = &longs_view[0]
        scratch.lists.places = &longs_view[probes]
        scratch.lists.doubtful = <Candidate*>&longs_view[probes + ranks]
        scratch.candidates.places = &longs_view[probes + 3 * ranks]
        scratch.candidates.doubtful = <Candidate*>&longs_view[probes + 3 * ranks + room]
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
                    i = maxip_search(_kernels[0], self.lists, &queries[q, 0], effort, scratch,
                                     &ids_view[q, 0], &scores_view[q, 0], &scanned_view[q])
                    for i in range(i, k):
                        ids_view[q, i] = -1
                        scores_view[q, i] = NAN
        return ids, scores, scanned
