// Scanning 1-bit codes for high inner products.
//
// A point x of a list with centre c is stored as the signs o (±1) of its rotated residual R(x - c)
// and one factor f = |x - c|² / Σ|R(x - c)|, so that f ⟨o, R q⟩ is an unbiased estimate of
// ⟨x - c, q⟩ (RaBitQ, Gao and Long, SIGMOD 2024). A query cuts R q into groups of four
// coordinates; each group has 16 possible sums, kept in a table of bytes, so that a code is scanned
// by table look-ups, 32 points at a time (the shuffles of André et al., VLDB 2015).
//
//   block of 32 points:  row j, byte i = groups 2j (low nibble) and 2j+1 (high nibble) of point i

constexpr int kPlaces = 32;

// Sums of the tables over one block, by point. Entries are at most kMaxEntry, so four fit a byte.
#if defined(__AVX2__)
CLOSEBY_INLINE __m256i load_table(const uint8_t* table) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
}

CLOSEBY_INLINE __m256i look_up(const uint8_t* row, const uint8_t* tables) {
    const __m256i mask = _mm256_set1_epi8(15);
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row));
    const __m256i low = _mm256_and_si256(codes, mask);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask);
    return _mm256_add_epi8(_mm256_shuffle_epi8(load_table(tables), low),
                           _mm256_shuffle_epi8(load_table(tables + 16), high));
}

CLOSEBY_INLINE void block_sums(const uint8_t* codes, int64_t rows, const uint8_t* tables,
                               float* out) {
    __m256i sums = _mm256_setzero_si256(), odd = _mm256_setzero_si256();
    for (int64_t j = 0; j < rows; j += 2) {
        const __m256i four = _mm256_add_epi8(look_up(codes + j * kPlaces, tables + j * 32),
                                             look_up(codes + (j + 1) * kPlaces, tables + j * 32 + 32));
        sums = _mm256_add_epi16(sums, four);  // wraps; the odd bytes are taken out below
        odd = _mm256_add_epi16(odd, _mm256_srli_epi16(four, 8));
    }
    const __m256i even = _mm256_sub_epi16(sums, _mm256_slli_epi16(odd, 8));
    const __m256i first = _mm256_unpacklo_epi16(even, odd);   // points 0-7 and 16-23
    const __m256i second = _mm256_unpackhi_epi16(even, odd);  // points 8-15 and 24-31
    const __m128i parts[4] = {_mm256_castsi256_si128(first), _mm256_castsi256_si128(second),
                              _mm256_extracti128_si256(first, 1),
                              _mm256_extracti128_si256(second, 1)};
    for (int p = 0; p < 4; ++p) {
        _mm256_storeu_ps(out + p * 8, _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(parts[p])));
    }
}

CLOSEBY_INLINE uint32_t above(const float* estimates, float bar) {
    uint32_t mask = 0;
    for (int p = 0; p < 4; ++p) {
        const __m256 part = _mm256_cmp_ps(_mm256_loadu_ps(estimates + p * 8), _mm256_set1_ps(bar),
                                          _CMP_GT_OQ);
        mask |= static_cast<uint32_t>(_mm256_movemask_ps(part)) << (p * 8);
    }
    return mask;
}
#else
CLOSEBY_INLINE void block_sums(const uint8_t* codes, int64_t rows, const uint8_t* tables,
                               float* out) {
    uint32_t sums[kPlaces] = {};
    for (int64_t j = 0; j < rows; ++j) {
        const uint8_t* low = tables + j * 32;
        const uint8_t* high = low + 16;
        for (int i = 0; i < kPlaces; ++i) {
            const uint8_t code = codes[j * kPlaces + i];
            sums[i] += static_cast<uint32_t>(low[code & 15] + high[code >> 4]);
        }
    }
    for (int i = 0; i < kPlaces; ++i) out[i] = static_cast<float>(sums[i] & 0xffff);
}

CLOSEBY_INLINE uint32_t above(const float* estimates, float bar) {
    uint32_t mask = 0;
    for (int i = 0; i < kPlaces; ++i) mask |= static_cast<uint32_t>(estimates[i] > bar) << i;
    return mask;
}
#endif

// Estimates base + factor * (sum * scale + offset) of the blocks begin .. end that exceed bar.
// A factor of NaN marks a place without a point: no comparison with its estimate is true.
static int64_t code_scan(const Codes& codes, const CodeQuery& query, int64_t begin, int64_t end,
                         float base, float bar, int64_t* places, float* estimates) {
    const int64_t rows = codes.bits / 8;
    const int64_t bytes = rows * kPlaces;
    int64_t found = 0;
    for (int64_t b = begin; b < end; ++b) {
        float sums[kPlaces];
        const uint8_t* block = codes.codes + b * bytes;
        if (b + kBlocksAhead < end) {
            const uint8_t* ahead = block + kBlocksAhead * bytes;
            for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(ahead + at);
            const float* later = codes.factors + (b + kBlocksAhead) * kPlaces;
            __builtin_prefetch(later);
            __builtin_prefetch(later + 16);
        }
        block_sums(block, rows, query.tables, sums);
        const float* factors = codes.factors + b * kPlaces;
        for (int i = 0; i < kPlaces; i += 8) {
            const f32x8 scaled = load_f32(sums + i) * query.scale + query.offset;
            store_f32(sums + i, load_f32(factors + i) * scaled + base);
        }
        for (uint32_t mask = above(sums, bar); mask != 0; mask &= mask - 1) {
            const int i = __builtin_ctz(mask);
            places[found] = b * kPlaces + i;
            estimates[found++] = sums[i];
        }
    }
    return found;
}

static int64_t list_scan(const float* products, const float* spreads, float reach, int64_t begin,
                         int64_t end, float bar, int64_t* lists, float* scores) {
    int64_t found = 0;
    for (int64_t l = begin; l < end; l += kPlaces) {
        const int64_t size = end - l < kPlaces ? end - l : kPlaces;
        float some[kPlaces];
        if (size == kPlaces) {
            for (int i = 0; i < kPlaces; i += 8) {
                store_f32(some + i, load_f32(products + l + i) + reach * load_f32(spreads + l + i));
            }
        } else {
            for (int64_t i = 0; i < kPlaces; ++i) {
                some[i] = i < size ? products[l + i] + reach * spreads[l + i] : -__builtin_inff();
            }
        }
        for (uint32_t mask = above(some, bar); mask != 0; mask &= mask - 1) {
            const int i = __builtin_ctz(mask);
            lists[found] = l + i;
            scores[found++] = some[i];
        }
    }
    return found;
}

// Sums of the products of a row of bytes with the query, exact in 32 bits.
#if defined(__AVX2__)
CLOSEBY_INLINE __m256i byte_sums(const int8_t* row, const int16_t* query, int64_t stride) {
    __m256i sums = _mm256_setzero_si256();
    for (int64_t j = 0; j < stride; j += 16) {
        const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + j)));
        const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(query + j));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(wide, values));
    }
    return sums;
}

CLOSEBY_INLINE void four_byte_sums(const int8_t* const rows[4], const int16_t* query,
                                   int64_t stride, int32_t sums[4]) {
    const __m256i a = byte_sums(rows[0], query, stride), b = byte_sums(rows[1], query, stride);
    const __m256i c = byte_sums(rows[2], query, stride), d = byte_sums(rows[3], query, stride);
    const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums),
                     _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)));
}
#else
CLOSEBY_INLINE void four_byte_sums(const int8_t* const rows[4], const int16_t* query,
                                   int64_t stride, int32_t sums[4]) {
    for (int i = 0; i < 4; ++i) {
        int32_t sum = 0;
        for (int64_t j = 0; j < stride; ++j) sum += int32_t(rows[i][j]) * query[j];
        sums[i] = sum;
    }
}
#endif

static void byte_products(const ByteRows& rows, const ByteQuery& query, const int64_t* places,
                          int64_t count, float* out) {
    constexpr int64_t kAhead = 16;
    const auto row_of = [&](int64_t i) { return places == nullptr ? i : places[i]; };
    const auto fetch = [&](int64_t i) {
        const int64_t row = places[i];
        for (int64_t b = 0; b < rows.stride; b += 64) {
            __builtin_prefetch(rows.rows + row * rows.stride + b);
        }
        __builtin_prefetch(rows.scales + row);
    };
    if (places != nullptr) {
        for (int64_t i = 0; i < (kAhead < count ? kAhead : count); ++i) fetch(i);
    }
    for (int64_t i = 0; i < count; i += 4) {
        const int8_t* four[4];
        int64_t row[4];
        int32_t sums[4];
        for (int64_t j = 0; j < 4; ++j) {
            if (places != nullptr && i + j + kAhead < count) fetch(i + j + kAhead);
            row[j] = row_of(i + j < count ? i + j : count - 1);
            four[j] = rows.rows + row[j] * rows.stride;
        }
        four_byte_sums(four, query.values, rows.stride, sums);
        for (int64_t j = 0; j < 4 && i + j < count; ++j) {
            out[i + j] = static_cast<float>(sums[j]) * (rows.scales[row[j]] * query.scale);
        }
    }
}

// Three rounds of random signs and a fast Hadamard transform: a random rotation of the padded
// vector. signs: [3][padded].
static void rotate(const float* vectors, int64_t n, int64_t dim, int64_t padded,
                   const float* signs, float* out) {
    // Each transform lengthens by √padded; powers of two lie in even exponents or not, so divide
    // once by the exact product as a double.
    double length = 1.0;
    for (int64_t p = padded; p > 1; p /= 2) length *= 2.0;
    const float shrink = static_cast<float>(1.0 / (length * __builtin_sqrt(length)));
    for (int64_t i = 0; i < n; ++i) {
        float* x = out + i * padded;
        std::memmove(x, vectors + i * dim, static_cast<size_t>(dim) * sizeof(float));
        std::memset(x + dim, 0, static_cast<size_t>(padded - dim) * sizeof(float));
        for (int round = 0; round < kRounds; ++round) {
            hadamard(x, signs + round * padded, padded);
        }
        for (int64_t j = 0; j < padded; j += 8) store_f32(x + j, load_f32(x + j) * shrink);
    }
}

// Inner products of one query with consecutive rows, in the summation order of inner_products.
static void row_products(const float* rows, int64_t dim, int64_t count, const float* query,
                         float* out) {
    constexpr int64_t kAtOnce = 64;
    int64_t positions[kAtOnce];
    for (int64_t i = 0; i < kAtOnce; ++i) positions[i] = i;
    for (int64_t begin = 0; begin < count; begin += kAtOnce) {
        const int64_t size = count - begin < kAtOnce ? count - begin : kAtOnce;
        inner_products(rows + begin * dim, dim, positions, size, query, out + begin);
    }
}
