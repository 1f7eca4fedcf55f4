// Signed random projections (Charikar 2002): P[bits agree] = 1 - angle / pi.
//
// A random rotation is imitated by three rounds of random signs and a fast Hadamard transform
// (Andoni et al. 2015, "Practical and Optimal LSH for Angular Distance"): padded * log2(padded)
// additions for `padded` bits instead of dim * padded multiplications. More bits than `padded`
// come from further, independently signed rotations.

constexpr int kRounds = 3;

#if defined(__clang__)
#define CLOSEBY_SWAP(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#else
typedef int32_t i32x8_lanes __attribute__((vector_size(32)));
#define CLOSEBY_SWAP(v, ...) __builtin_shuffle(v, i32x8_lanes{__VA_ARGS__})
#endif

// The first three levels of the transform, within eight lanes: x + y at one of two lanes, x - y at
// the other, as the levels above have them. Products with 1 and -1 are exact.
CLOSEBY_INLINE f32x8 hadamard_of_eight(f32x8 v) {
    const f32x8 ones = {1, -1, 1, -1, 1, -1, 1, -1};
    const f32x8 twos = {1, 1, -1, -1, 1, 1, -1, -1};
    const f32x8 fours = {1, 1, 1, 1, -1, -1, -1, -1};
    v = CLOSEBY_SWAP(v, 1, 0, 3, 2, 5, 4, 7, 6) + v * ones;
    v = CLOSEBY_SWAP(v, 2, 3, 0, 1, 6, 7, 4, 5) + v * twos;
    return CLOSEBY_SWAP(v, 4, 5, 6, 7, 0, 1, 2, 3) + v * fours;
}

// x times signs, transformed, in place; size a power of two >= 8. Each sum has the same two terms
// however many levels one pass takes, so results do not depend on that.
static void hadamard(float* x, const float* signs, int64_t size) {
    for (int64_t i = 0; i < size; i += 8) {
        store_f32(x + i, hadamard_of_eight(load_f32(x + i) * load_f32(signs + i)));
    }
    int64_t h = 8;
    // Three levels at a time: a third of the passes over memory.
    for (; h * 8 <= size; h *= 8) {
        for (int64_t j = 0; j < size; j += 8 * h) {
            for (int64_t k = j; k < j + h; k += 8) {
                f32x8 a[8], b[8];
                for (int i = 0; i < 8; ++i) a[i] = load_f32(x + k + i * h);
                for (int i = 0; i < 8; i += 2) {
                    b[i] = a[i] + a[i + 1];
                    b[i + 1] = a[i] - a[i + 1];
                }
                for (int i = 0; i < 8; i += 4) {
                    for (int l = i; l < i + 2; ++l) {
                        a[l] = b[l] + b[l + 2];
                        a[l + 2] = b[l] - b[l + 2];
                    }
                }
                for (int i = 0; i < 4; ++i) {
                    store_f32(x + k + i * h, a[i] + a[i + 4]);
                    store_f32(x + k + (i + 4) * h, a[i] - a[i + 4]);
                }
            }
        }
    }
    for (; h * 4 <= size; h *= 4) {
        for (int64_t j = 0; j < size; j += 4 * h) {
            for (int64_t k = j; k < j + h; k += 8) {
                const f32x8 a = load_f32(x + k), b = load_f32(x + k + h);
                const f32x8 c = load_f32(x + k + 2 * h), d = load_f32(x + k + 3 * h);
                const f32x8 ab = a + b, a_b = a - b, cd = c + d, c_d = c - d;
                store_f32(x + k, ab + cd);
                store_f32(x + k + h, a_b + c_d);
                store_f32(x + k + 2 * h, ab - cd);
                store_f32(x + k + 3 * h, a_b - c_d);
            }
        }
    }
    for (; h < size; h *= 2) {
        for (int64_t j = 0; j < size; j += 2 * h) {
            for (int64_t k = j; k < j + h; k += 8) {
                const f32x8 a = load_f32(x + k), b = load_f32(x + k + h);
                store_f32(x + k, a + b);
                store_f32(x + k + h, a - b);
            }
        }
    }
}

// Bit j is set where lane j is negative.
CLOSEBY_INLINE uint8_t negative_lanes(const float* x) {
#if defined(__AVX2__)
    const __m256 below = _mm256_cmp_ps(_mm256_loadu_ps(x), _mm256_setzero_ps(), _CMP_LT_OQ);
    return static_cast<uint8_t>(_mm256_movemask_ps(below));
#else
    uint32_t byte = 0;
    for (int j = 0; j < 8; ++j) byte |= static_cast<uint32_t>(x[j] < 0.0f) << j;
    return static_cast<uint8_t>(byte);
#endif
}

// signs: [rotations][kRounds][padded] of +1 or -1, rotations = ceil(bits / padded).
static void srp_bits(const float* vectors, int64_t n, int64_t dim, int64_t padded,
                     const float* signs, int64_t bits, float* scratch, uint8_t* out) {
    const int64_t bytes = bits / 8;
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t first = 0; first < bits; first += padded) {
            const float* rotation = signs + first / padded * kRounds * padded;
            std::memcpy(scratch, vectors + i * dim, static_cast<size_t>(dim) * sizeof(float));
            std::memset(scratch + dim, 0, static_cast<size_t>(padded - dim) * sizeof(float));
            for (int round = 0; round < kRounds; ++round) {
                hadamard(scratch, rotation + round * padded, padded);
            }
            const int64_t take = bits - first < padded ? bits - first : padded;
            for (int64_t b = 0; b < take / 8; ++b) {
                out[i * bytes + first / 8 + b] = negative_lanes(scratch + b * 8);
            }
        }
    }
}

// Signed random projections of sparse vectors, whose dimensions are any 64-bit numbers.
//
// The hyperplanes' coefficients are hashed from feature and seed when they are needed: a byte u of
// the stream, x = (2u + 1) / 256 of [-1, 1), and a polynomial near the normal quantile of
// (1 + x) / 2. Normal coefficients make P[bits agree] = 1 - angle / pi for any vectors; random
// signs alone would not where one feature outweighs the others, as rare words do in TF-IDF.
typedef int8_t i8x8 __attribute__((vector_size(8)));

CLOSEBY_INLINE f32x8 nearly_normal(uint64_t random) {
    i8x8 bytes;
    std::memcpy(&bytes, &random, sizeof bytes);
    const f32x8 x = __builtin_convertvector(bytes, f32x8) * (1.0f / 128) + (1.0f / 256);
    const f32x8 square = x * x;
    const f32x8 eighth = square * square * (square * square);
    return x * (1.2533f + square * 0.328f + eighth * 0.73f);
}

// values: one for each element of `features`. sums: float[bits], bits a multiple of 8.
static void srp_sparse_bits(const Sets& features, const float* values, uint64_t seed, int64_t bits,
                            float* sums, uint8_t* out) {
    const int64_t bytes = bits / 8;
    for (int64_t i = 0; i < features.n; ++i) {
        std::memset(sums, 0, static_cast<size_t>(bits) * sizeof(float));
        for (int64_t at = features.indptr[i]; at < features.indptr[i + 1]; ++at) {
            const uint64_t feature = fold(seed, features.indices[at]);
            const float value = values[at];
            for (int64_t b = 0; b < bytes; ++b) {
                const f32x8 normal = nearly_normal(stream(feature, static_cast<uint64_t>(b)));
                store_f32(sums + 8 * b, load_f32(sums + 8 * b) + normal * value);
            }
        }
        for (int64_t b = 0; b < bytes; ++b) {
            out[i * bytes + b] = negative_lanes(sums + 8 * b);
        }
    }
}
