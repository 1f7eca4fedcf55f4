// The group test (Engels, Coleman, Shrivastava 2021), bit-sliced.
//
// Points lie in cells of `group_size` consecutive positions. For every table and every key value
// there is one bitmap over the cells: bit c says that cell c holds a point with that key. This is
// the paper's array of Bloom filters, stored by value instead of by cell, so that a query reads
// one bitmap for each table and adds them up vertically:
//
//   count of cell c = number of tables whose bitmap at the query's key has bit c
//
//            cells 0 1 2 3 4 5 ...
//   table 0        1 0 0 1 0 0        bitmaps at the query's keys
//   table 1        1 0 0 0 0 1
//   table 2        1 0 1 1 0 0
//   ---------------------------- vertical sum, kept as bit-planes
//   plane 0 (1)    1 0 1 0 0 1
//   plane 1 (2)    1 0 0 1 0 0        cell 0 passed 3 tests, cell 3 passed 2
//
// Then a radix descent over the planes finds the cells with the highest counts: the paper's
// decoding for one row, without a sort and without touching a cell twice.

// Adds three bits of one weight: sum stays, carry has twice the weight.
#define CLOSEBY_FULL_ADD(carry, sum, a, b, c)  \
    do {                                       \
        const u64x4 half_ = (a) ^ (b);         \
        const u64x4 third_ = (c);              \
        (carry) = ((a) & (b)) | (half_ & third_); \
        (sum) = half_ ^ third_;                \
    } while (0)

static int plane_count(int64_t tables) {
    int planes = 0;
    while ((int64_t{1} << planes) <= tables) ++planes;
    return planes < 4 ? 4 : planes;  // eight rows at a time fill four planes
}

CLOSEBY_INLINE const uint8_t* bitmap_row(const GroupTests& tests, int64_t table, uint32_t key) {
    const int64_t value = static_cast<int64_t>(key) >> (32 - tests.range_bits);
    return tests.bitmaps + ((table << tests.range_bits) + value) * tests.stride;
}

CLOSEBY_INLINE void prefetch_rows(const uint8_t* const* rows, int64_t count, int64_t first,
                                  int64_t last) {
    for (int64_t r = 0; r < count; ++r) {
        for (int64_t b = first * 8; b < last * 8; b += 64) __builtin_prefetch(rows[r] + b);
    }
}

// plane[p][word]: bit-plane p of the counts. Rows are added eight at a time with a tree of
// carry-save adders, so that most rows cost about five operations for 256 cells.
static void group_count(const GroupTests& tests, const uint32_t* keys, int64_t first, int64_t last,
                        uint64_t* plane) {
    const int planes = plane_count(tests.tables);
    const int64_t words = tests.stride / 8;
    for (int p = 0; p < planes; ++p) {
        std::memset(plane + p * words + first, 0, static_cast<size_t>(last - first) * 8);
    }
    const uint8_t* rows[16];
    const uint8_t* next[8];
    int64_t t = 0;
    for (; t < 8 && t < tests.tables; ++t) next[t] = bitmap_row(tests, t, keys[t]);
    prefetch_rows(next, t, first, last);
    for (t = 0; t + 8 <= tests.tables; t += 8) {
        for (int r = 0; r < 8; ++r) rows[r] = next[r];
        int64_t ahead = 0;
        for (; ahead < 8 && t + 8 + ahead < tests.tables; ++ahead) {
            next[ahead] = bitmap_row(tests, t + 8 + ahead, keys[t + 8 + ahead]);
        }
        prefetch_rows(next, ahead, first, last);
        for (int64_t w = first; w < last; w += 4) {
            const int64_t b = w * 8;
            u64x4 ones = load_u64(plane + w), twos = load_u64(plane + words + w);
            u64x4 fours = load_u64(plane + 2 * words + w);
            u64x4 two_a, two_b, two_c, two_d, four_a, four_b, eight;
            CLOSEBY_FULL_ADD(two_a, ones, ones, load_u64(rows[0] + b), load_u64(rows[1] + b));
            CLOSEBY_FULL_ADD(two_b, ones, ones, load_u64(rows[2] + b), load_u64(rows[3] + b));
            CLOSEBY_FULL_ADD(two_c, ones, ones, load_u64(rows[4] + b), load_u64(rows[5] + b));
            CLOSEBY_FULL_ADD(two_d, ones, ones, load_u64(rows[6] + b), load_u64(rows[7] + b));
            CLOSEBY_FULL_ADD(four_a, twos, twos, two_a, two_b);
            CLOSEBY_FULL_ADD(four_b, twos, twos, two_c, two_d);
            CLOSEBY_FULL_ADD(eight, fours, fours, four_a, four_b);
            store_u64(plane + w, ones);
            store_u64(plane + words + w, twos);
            store_u64(plane + 2 * words + w, fours);
            for (int p = 3; p < planes; ++p) {
                const u64x4 old = load_u64(plane + p * words + w);
                store_u64(plane + p * words + w, old ^ eight);
                eight = old & eight;
            }
        }
    }
    for (int64_t r = 0; t < tests.tables; ++t, ++r) {
        const uint8_t* row = next[r];
        for (int64_t w = first; w < last; w += 4) {
            u64x4 carry = load_u64(row + w * 8);
            for (int p = 0; p < planes; ++p) {
                const u64x4 old = load_u64(plane + p * words + w);
                store_u64(plane + p * words + w, old ^ carry);
                carry = old & carry;
            }
        }
    }
}

static int64_t emit_cells(const uint64_t* bits, int64_t words, int64_t want, int64_t* out) {
    int64_t found = 0;
    for (int64_t w = 0; w < words && found < want; ++w) {
        for (uint64_t left = bits[w]; left != 0 && found < want; left &= left - 1) {
            out[found++] = w * 64 + __builtin_ctzll(left);
        }
    }
    return found;
}

static int64_t group_best(const GroupTests& tests, int64_t want, uint64_t* scratch,
                          int64_t* cells_out) {
    if (want >= tests.cells) {
        for (int64_t c = 0; c < tests.cells; ++c) cells_out[c] = c;
        return tests.cells;
    }
    const int planes = plane_count(tests.tables);
    const int64_t words = tests.stride / 8;
    const uint64_t* plane = scratch;
    uint64_t* above = scratch + planes * words;  // cells whose count exceeds the threshold
    uint64_t* equal = above + words;             // cells that agree with it so far

    for (int64_t w = 0; w < words; ++w) {
        above[w] = 0;
        const int64_t cells_left = tests.cells - w * 64;
        equal[w] = cells_left >= 64  ? ~uint64_t{0}
                   : cells_left <= 0 ? 0
                                     : (uint64_t{1} << cells_left) - 1;
    }
    // Highest threshold that at least `want` cells reach, bit by bit from the top.
    int64_t surely = 0;
    for (int p = planes - 1; p >= 0; --p) {
        const uint64_t* bits = plane + p * words;
        int64_t here = 0;
        for (int64_t w = 0; w < words; ++w) here += popcount(equal[w] & bits[w]);
        if (surely + here >= want) {
            for (int64_t w = 0; w < words; ++w) equal[w] &= bits[w];
        } else {
            surely += here;
            for (int64_t w = 0; w < words; ++w) {
                above[w] |= equal[w] & bits[w];
                equal[w] &= ~bits[w];
            }
        }
    }
    const int64_t found = emit_cells(above, words, want, cells_out);
    return found + emit_cells(equal, words, want - found, cells_out + found);
}

typedef uint16_t u16x16 __attribute__((vector_size(32)));

static void group_counts(const GroupTests& tests, const uint32_t* keys, uint64_t* scratch,
                         uint16_t* counts) {
    const int planes = plane_count(tests.tables);
    const int64_t words = tests.stride / 8;
    group_count(tests, keys, 0, words, scratch);
    const u16x16 lane = {1,     1 << 1, 1 << 2,  1 << 3,  1 << 4,  1 << 5,  1 << 6,  1 << 7,
                         1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};
    for (int64_t first = 0; first < tests.cells; first += 16) {
        u16x16 sums = {};
        for (int p = 0; p < planes; ++p) {
            const uint64_t word = scratch[p * words + first / 64];
            const uint16_t bits = static_cast<uint16_t>(word >> (first & 63));
            const u16x16 all = u16x16{} + bits;
            // Named before it is used: under sanitizers, gcc takes the expression for a wider int.
            const uint16_t weight = static_cast<uint16_t>(1U << p);
            sums |= reinterpret_cast<u16x16>((all & lane) != 0) & weight;
        }
        uint16_t lanes[16];
        std::memcpy(lanes, &sums, sizeof sums);
        const int64_t here = tests.cells - first < 16 ? tests.cells - first : 16;
        std::memcpy(counts + first, lanes, static_cast<size_t>(here) * sizeof(uint16_t));
    }
}
