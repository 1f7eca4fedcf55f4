# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The boundary between Python and the kernels of ``csrc/duplicates.cpp``.

Arrays in, arrays out: each function checks shapes, types and offsets, drops the interpreter lock
and calls a kernel. Nothing here decides anything.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

import numpy as np


cdef extern from "kernels.hpp" namespace "closeby" nogil:
    cdef cppclass StoredSets:
        const int64_t* indptr
        const void* elements
        int width

    cdef cppclass Kernels:
        pass

    const Kernels* best_kernels() noexcept


cdef extern from "duplicates.hpp" namespace "closeby" nogil:
    cdef cppclass Band:
        const uint64_t* order
        int64_t count
        const uint32_t* keys
        int32_t tables
        int32_t table

    cdef cppclass JoinCursor:
        int64_t first
        int64_t second

    cdef cppclass Pairs:
        int64_t* a
        int64_t* b
        double* scores
        int64_t room

    void content_hashes(const StoredSets&, int64_t, uint64_t, uint64_t*) noexcept
    const int kParityWords
    void set_parities(const StoredSets&, int64_t, uint64_t*) noexcept
    void identical_sets(const StoredSets&, const uint64_t*, const int64_t*, int64_t,
                        int64_t*) noexcept
    int64_t band_order(const uint32_t*, int64_t, int32_t, int32_t, uint64_t*, uint64_t*) noexcept
    int64_t longest_run(const uint64_t*, int64_t) noexcept
    int64_t join_sets(const StoredSets&, const uint64_t*, const Band&, double, int64_t, JoinCursor&,
                      const Pairs&) noexcept
    int64_t join_vectors(const Kernels&, const float*, int64_t, const Band&, double, int64_t,
                         JoinCursor&, const Pairs&) noexcept
    void cluster_sets(const StoredSets&, const uint64_t*, const Band&, double, int64_t, int64_t,
                      int64_t*, int64_t*) noexcept
    void cluster_vectors(const Kernels&, const float*, int64_t, const Band&, double, int64_t,
                         int64_t, int64_t*, int64_t*) noexcept
    void unite_pairs(const int64_t*, const int64_t*, int64_t, int64_t*) noexcept
    void flatten_clusters(int64_t*, int64_t) noexcept


cdef class Points:
    """Sets or unit vectors that are compared with one another, checked once.

    sets     (indptr int64 (n + 1,), elements uint32 | uint64, ascending in each set), or None
    vectors  float32 (n, dim), or None
    """

    cdef readonly object arrays  # keeps everything alive
    cdef readonly int64_t count
    cdef const int64_t[::1] indptr
    cdef const uint32_t[::1] elements4
    cdef const uint64_t[::1] elements8
    cdef const float[:, ::1] vectors
    cdef StoredSets stored
    cdef int64_t dim
    cdef const uint64_t[::1] parity

    def __init__(self, sets=None, vectors=None):
        cdef int64_t i
        if (sets is None) == (vectors is None):
            raise ValueError("either sets or vectors")
        self.arrays = (sets, vectors)
        if sets is None:
            self.vectors = vectors
            self.count = self.vectors.shape[0]
            self.dim = self.vectors.shape[1]
            return
        indptr, elements = sets
        self.indptr = indptr
        if self.indptr.shape[0] < 1 or self.indptr[0] != 0:
            raise ValueError("indptr must begin with 0")
        if self.indptr[self.indptr.shape[0] - 1] != len(elements):
            raise ValueError("indptr must end with len(elements)")
        for i in range(self.indptr.shape[0] - 1):
            if self.indptr[i + 1] < self.indptr[i]:
                raise ValueError("indptr must not fall")
        self.count = self.indptr.shape[0] - 1
        self.stored.indptr = &self.indptr[0]
        self.stored.elements = NULL
        if elements.dtype == np.uint32:
            self.elements4 = elements
            self.stored.width = 4
            if self.elements4.shape[0]:
                self.stored.elements = &self.elements4[0]
        else:
            self.elements8 = elements
            self.stored.width = 8
            if self.elements8.shape[0]:
                self.stored.elements = &self.elements8[0]

    def sketch(self):
        """Make the sketches that a join of sets wants; once, before it."""
        parity = np.empty(max(1, self.count) * kParityWords, np.uint64)
        cdef uint64_t[::1] view = parity
        if self.arrays[0] is not None:
            with nogil:
                set_parities(self.stored, self.count, &view[0])
            self.parity = parity

    cdef const uint64_t* parities(self) noexcept nogil:
        return &self.parity[0]

    def hashes(self, uint64_t seed):
        """64-bit hash of the content of each set, uint64 (n,)."""
        out = np.empty(self.count, np.uint64)
        cdef uint64_t[::1] view = out
        if self.arrays[0] is None:
            raise ValueError("only sets have a content hash")
        if self.count:
            with nogil:
                content_hashes(self.stored, self.count, seed, &view[0])
        return out

    def first_of_each(self, const uint64_t[::1] hashes not None,
                      const int64_t[::1] order not None):
        """The first set with the same elements as each set, int64 (n,).

        order: positions by rising hash, then rising position.
        """
        cdef int64_t i
        out = np.empty(self.count, np.int64)
        cdef int64_t[::1] view = out
        if self.arrays[0] is None:
            raise ValueError("only sets are compared element by element")
        if hashes.shape[0] != self.count or order.shape[0] != self.count:
            raise ValueError("a hash and a place for each set")
        for i in range(self.count):
            if order[i] < 0 or order[i] >= self.count:
                raise ValueError("order must be numbers of the sets")
            view[i] = i
        if self.count:
            with nogil:
                identical_sets(self.stored, &hashes[0], &order[0], self.count, &view[0])
        return out


def order_band(const uint32_t[:, ::1] keys not None, int64_t table):
    """key << 32 | point of the points that share a key of this table, rising, uint64."""
    cdef int64_t points = keys.shape[0], written
    if not 0 <= table < keys.shape[1] or points >= 1 << 32:
        raise ValueError("table must be one of the keys', of fewer than 2**32 points")
    scratch = np.empty(max(1, points), np.uint64)
    out = np.empty(max(1, points), np.uint64)
    cdef uint64_t[::1] scratch_view = scratch, view = out
    with nogil:
        written = band_order(&keys[0, 0] if points else NULL, points, <int32_t>keys.shape[1],
                             <int32_t>table, &scratch_view[0], &view[0])
    return out[:written].copy()


cdef int _check_order(const uint64_t[::1] order, int64_t points) except -1:
    cdef int64_t i
    for i in range(order.shape[0]):
        if <int64_t>(order[i] & 0xffffffff) >= points:
            raise ValueError("order must hold numbers of the points")
    return 0


cdef Band _band(const uint64_t[::1] order, const uint32_t[:, ::1] keys, int64_t table,
                int64_t points) except *:
    cdef Band band
    if keys.shape[0] != points or not 0 <= table < keys.shape[1]:
        raise ValueError("keys for each point, and one of their tables")
    band.order = &order[0]
    band.count = order.shape[0]
    band.keys = &keys[0, 0]
    band.tables = <int32_t>keys.shape[1]
    band.table = <int32_t>table
    return band


def join_band(Points points not None, const uint32_t[:, ::1] keys not None, int64_t table,
              const uint64_t[::1] order not None, cursor, double threshold, int64_t room,
              int64_t effort):
    """Pairs of one table from `cursor` (first, second) on: (a, b, scores, cursor or None).

    At most `room` pairs, after about `effort` looks. The cursor is None at the end.
    """
    cdef JoinCursor at
    cdef Pairs pairs
    cdef int64_t found
    if room < 1 or effort < 1:
        raise ValueError("room and effort must be positive")
    if order.shape[0] == 0:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, np.zeros(0, np.float64), None
    _check_order(order, points.count)
    if not points.dim and points.parity is None:
        raise ValueError("the points have no sketches yet")
    cdef Band band = _band(order, keys, table, points.count)
    at.first, at.second = cursor
    if not 0 <= at.first < at.second:
        raise ValueError("cursor must be a pair of places")
    a, b = np.empty(room, np.int64), np.empty(room, np.int64)
    scores = np.empty(room, np.float64)
    cdef int64_t[::1] a_view = a, b_view = b
    cdef double[::1] scores_view = scores
    pairs.a, pairs.b, pairs.scores = &a_view[0], &b_view[0], &scores_view[0]
    pairs.room = room
    with nogil:
        if points.dim:
            found = join_vectors(best_kernels()[0], &points.vectors[0, 0], points.dim, band,
                                 threshold, effort, at, pairs)
        else:
            found = join_sets(points.stored, points.parities(), band, threshold, effort, at, pairs)
    after = None if at.first >= order.shape[0] else (at.first, at.second)
    return a[:found].copy(), b[:found].copy(), scores[:found].copy(), after


def cluster_band(Points points not None, const uint32_t[:, ::1] keys not None, int64_t table,
                 const uint64_t[::1] order not None, double threshold, int64_t begin, int64_t end,
                 int64_t[::1] parent not None):
    """Joins the points of the runs that begin in begin .. end of one table into clusters.

    parent: int64 (n,), written; a point's parent is never later than the point.
    """
    if order.shape[0] == 0:
        return
    _check_order(order, points.count)
    if not points.dim and points.parity is None:
        raise ValueError("the points have no sketches yet")
    _check_parents(parent)
    cdef Band band = _band(order, keys, table, points.count)
    if parent.shape[0] != points.count or not 0 <= begin <= end <= order.shape[0]:
        raise ValueError("a parent for each point, and begin .. end within the order")
    scratch = np.empty(3 * longest_run(&order[0], order.shape[0]), np.int64)
    cdef int64_t[::1] scratch_view = scratch
    with nogil:
        if points.dim:
            cluster_vectors(best_kernels()[0], &points.vectors[0, 0], points.dim, band, threshold,
                            begin, end, &scratch_view[0], &parent[0])
        else:
            cluster_sets(points.stored, points.parities(), band, threshold, begin, end,
                         &scratch_view[0], &parent[0])


cdef int _check_parents(const int64_t[::1] parent) except -1:
    cdef int64_t i
    for i in range(parent.shape[0]):
        if parent[i] < 0 or parent[i] > i:
            raise ValueError("a parent may not be later than its point")
    return 0


def unite(const int64_t[::1] a not None, const int64_t[::1] b not None,
          int64_t[::1] parent not None):
    """Puts a[i] and b[i] into one cluster, for all i."""
    cdef int64_t i
    if a.shape[0] != b.shape[0]:
        raise ValueError("pairs have two sides")
    _check_parents(parent)
    for i in range(a.shape[0]):
        if not (0 <= a[i] < parent.shape[0] and 0 <= b[i] < parent.shape[0]):
            raise ValueError("pairs must be numbers of the points")
    if a.shape[0]:
        with nogil:
            unite_pairs(&a[0], &b[0], a.shape[0], &parent[0])


def flatten(int64_t[::1] parent not None):
    """Makes every parent the root of its cluster, its earliest point."""
    _check_parents(parent)
    if parent.shape[0]:
        with nogil:
            flatten_clusters(&parent[0], parent.shape[0])
