// Signed random projections (Charikar 2002): P[bits agree] = 1 - angle / pi.
//
// A random rotation is imitated by three rounds of random signs and a fast Hadamard transform
// (Andoni et al. 2015, "Practical and Optimal LSH for Angular Distance"): padded * log2(padded)
// additions for `padded` bits instead of dim * padded multiplications. More bits than `padded`
// come from further, independently signed rotations.

constexpr int kRounds = 3;

// In place, size a power of two >= 8. Order of additions is fixed, so results are too.
static void hadamard(float* x, int64_t size) {
    for (int64_t i = 0; i < size; i += 8) {
        float* p = x + i;
        for (int h = 1; h < 8; h *= 2) {
            for (int j = 0; j < 8; j += 2 * h) {
                for (int k = j; k < j + h; ++k) {
                    const float a = p[k], b = p[k + h];
                    p[k] = a + b;
                    p[k + h] = a - b;
                }
            }
        }
    }
    int64_t h = 8;
    // Two levels at a time: half the passes over memory.
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

static void apply_signs(float* x, const float* signs, int64_t size) {
    for (int64_t i = 0; i < size; i += 8) store_f32(x + i, load_f32(x + i) * load_f32(signs + i));
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
                apply_signs(scratch, rotation + round * padded, padded);
                hadamard(scratch, padded);
            }
            const int64_t take = bits - first < padded ? bits - first : padded;
            for (int64_t b = 0; b < take / 8; ++b) {
                uint32_t byte = 0;
                for (int j = 0; j < 8; ++j) {
                    byte |= static_cast<uint32_t>(scratch[b * 8 + j] < 0.0f) << j;
                }
                out[i * bytes + first / 8 + b] = static_cast<uint8_t>(byte);
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
            uint32_t byte = 0;
            for (int j = 0; j < 8; ++j) {
                byte |= static_cast<uint32_t>(sums[8 * b + j] < 0.0f) << j;
            }
            out[i * bytes + b] = static_cast<uint8_t>(byte);
        }
    }
}
