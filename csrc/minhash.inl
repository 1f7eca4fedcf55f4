// MinHash (Broder 1997) by k permutations: for sets with fewer than a few hundred elements.
//
// An element is first mixed to 32 random bits x; the j-th permutation of the 32-bit numbers is
// h_j(x) = (x ^ xors[j]) * multipliers[j] mod 2^32 with an odd multiplier. Both steps are
// bijections, so equal minima mean the same element (up to the 2^-32 of the first step).

constexpr int kLanes = 8;
constexpr int kBlock = 4 * kLanes;  // permutations held in registers at a time
constexpr int64_t kMixedChunk = 512;

CLOSEBY_INLINE u32x8 min_u32(u32x8 a, u32x8 b) { return a < b ? a : b; }

static void minhash_set(const uint32_t* mixed, int64_t count, const uint32_t* xors,
                        const uint32_t* multipliers, int64_t values, uint32_t* minima) {
    int64_t j = 0;
    for (; j + kBlock <= values; j += kBlock) {
        const u32x8 x0 = load_u32(xors + j), x1 = load_u32(xors + j + 8);
        const u32x8 x2 = load_u32(xors + j + 16), x3 = load_u32(xors + j + 24);
        const u32x8 m0 = load_u32(multipliers + j), m1 = load_u32(multipliers + j + 8);
        const u32x8 m2 = load_u32(multipliers + j + 16), m3 = load_u32(multipliers + j + 24);
        u32x8 a0 = load_u32(minima + j), a1 = load_u32(minima + j + 8);
        u32x8 a2 = load_u32(minima + j + 16), a3 = load_u32(minima + j + 24);
        for (int64_t i = 0; i < count; ++i) {
            const u32x8 x = broadcast(mixed[i]);
            a0 = min_u32(a0, (x ^ x0) * m0);
            a1 = min_u32(a1, (x ^ x1) * m1);
            a2 = min_u32(a2, (x ^ x2) * m2);
            a3 = min_u32(a3, (x ^ x3) * m3);
        }
        store_u32(minima + j, a0);
        store_u32(minima + j + 8, a1);
        store_u32(minima + j + 16, a2);
        store_u32(minima + j + 24, a3);
    }
    for (; j < values; ++j) {
        uint32_t least = minima[j];
        for (int64_t i = 0; i < count; ++i) {
            const uint32_t h = (mixed[i] ^ xors[j]) * multipliers[j];
            least = h < least ? h : least;
        }
        minima[j] = least;
    }
}

static void minhash_permutation(const Sets& sets, const uint32_t* xors,
                                const uint32_t* multipliers, int64_t values, uint64_t seed,
                                uint32_t* out) {
    uint32_t mixed[kMixedChunk];
    for (int64_t i = 0; i < sets.n; ++i) {
        uint32_t* minima = out + i * values;
        std::memset(minima, 0xff, static_cast<size_t>(values) * sizeof(uint32_t));
        for (int64_t at = sets.indptr[i]; at < sets.indptr[i + 1]; at += kMixedChunk) {
            const int64_t left = sets.indptr[i + 1] - at;
            const int64_t count = left < kMixedChunk ? left : kMixedChunk;
            for (int64_t e = 0; e < count; ++e) {
                mixed[e] = static_cast<uint32_t>(mix64(sets.indices[at + e] ^ seed) >> 32);
            }
            minhash_set(mixed, count, xors, multipliers, values, minima);
        }
    }
}

// Table t's key: 32 bits of a hash over all K values of the table, so that any range of up to
// 32 bits can be cut from its top. P[equal keys] = J^K + (1 - J^K) 2^-32.
static void minhash_keys(const uint32_t* signatures, int64_t n, int64_t signature_stride,
                         int64_t tables, int64_t K, uint64_t seed, uint32_t* out) {
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t* signature = signatures + i * signature_stride;
        for (int64_t t = 0; t < tables; ++t) {
            uint64_t hash = seed + static_cast<uint64_t>(t);
            for (int64_t k = 0; k < K; ++k) hash = fold(hash, signature[t * K + k]);
            out[i * tables + t] = static_cast<uint32_t>(hash >> 32);
        }
    }
}

// 1-bit MinHash (Li, Koenig, WWW 2010): bit j is the lowest bit of the mixed j-th minimum; two
// sets agree in a bit with probability (1 + J) / 2. Bit j is bit j % 8 of byte j / 8.
static void minhash_sketch(const uint32_t* signatures, int64_t n, int64_t signature_stride,
                           int64_t bits, uint8_t* out) {
    const int64_t bytes = bits / 8;
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t* signature = signatures + i * signature_stride;
        for (int64_t b = 0; b < bytes; ++b) {
            uint32_t byte = 0;
            for (int j = 0; j < 8; ++j) byte |= (mix32(signature[b * 8 + j]) & 1U) << j;
            out[i * bytes + b] = static_cast<uint8_t>(byte);
        }
    }
}
