// Building the lists of a MaxIP segment: nearest centres, sums, codes and bytes, each in one pass.

typedef double f64x4 __attribute__((vector_size(32)));
typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x8 __attribute__((vector_size(32)));

CLOSEBY_INLINE f64x4 widen(const float* p) {
    f32x4 v;
    std::memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, f64x4);
}

CLOSEBY_INLINE f32x8 absolute(f32x8 v) { return v < 0.0f ? -v : v; }

// The bits of a code byte: which of eight coordinates are below zero.
CLOSEBY_INLINE uint8_t negatives(const float* x) {
#if defined(__AVX2__)
    const __m256 below = _mm256_cmp_ps(_mm256_loadu_ps(x), _mm256_setzero_ps(), _CMP_LT_OQ);
    return static_cast<uint8_t>(_mm256_movemask_ps(below));
#else
    uint8_t bits = 0;
    for (int j = 0; j < 8; ++j) bits = static_cast<uint8_t>(bits | (x[j] < 0.0f) << j);
    return bits;
#endif
}

static void encode(const Encoding& job, int64_t begin, int64_t end, float* scratch) {
    constexpr float kNobody = __builtin_nanf("");
    const int64_t rows = job.bits / 8;
    for (int64_t i = begin; i < end; ++i) {
        uint8_t* code = job.codes + i / kPlaces * rows * kPlaces + i % kPlaces;
        job.factors[i] = kNobody;
        job.squares[i] = 0.0;
        if (job.owners[i] < 0) {
            for (int64_t j = 0; j < rows; ++j) code[j * kPlaces] = 0;
            continue;
        }
        const float* x = job.vectors + i * job.dim;
        const float* centre = job.centroids + job.owners[i] * job.dim;
        for (int64_t j = 0; j < job.dim; ++j) scratch[j] = x[j] - centre[j];
        // One vector: rotated where it lies.
        rotate(scratch, 1, job.dim, job.padded, job.signs, scratch);
        f64x4 square = {}, total = {};
        for (int64_t j = 0; j < job.padded; j += 4) {
            const f64x4 y = widen(scratch + j);
            square += y * y;  // a rotation keeps it
            if (j < job.bits) total += y < 0.0 ? -y : y;
        }
        const double whole = (square[0] + square[2]) + (square[1] + square[3]);
        const double sum = (total[0] + total[2]) + (total[1] + total[3]);
        job.squares[i] = whole;
        job.factors[i] = static_cast<float>(sum > 0.0 ? whole / sum : 0.0);
        for (int64_t j = 0; j < rows; ++j) code[j * kPlaces] = negatives(scratch + j * 8);
    }
}

static void round_rows(const float* vectors, int64_t n, int64_t dim, int64_t stride, int8_t* rows,
                       float* scales) {
    // Below it a quotient has no digits left, or no end.
    constexpr float kSmallest = 1e-37f;
    constexpr float kWhole = 12582912.0f;  // 1.5 * 2^23: added and taken away, it rounds to even
    for (int64_t i = 0; i < n; ++i) {
        const float* x = vectors + i * dim;
        int8_t* row = rows + i * stride;
        f32x8 wide = {};
        int64_t j = 0;
        for (; j + 8 <= dim; j += 8) {
            const f32x8 size = absolute(load_f32(x + j));
            wide = size > wide ? size : wide;
        }
        float widest = 0.0f;
        for (int lane = 0; lane < 8; ++lane) widest = wide[lane] > widest ? wide[lane] : widest;
        for (; j < dim; ++j) {
            const float size = x[j] < 0.0f ? -x[j] : x[j];
            widest = size > widest ? size : widest;
        }
        scales[i] = widest / 127.0f;
        const float inverse = scales[i] > kSmallest ? 1.0f / scales[i] : 0.0f;
        for (j = 0; j < dim; ++j) {
            const float whole = (x[j] * inverse + kWhole) - kWhole;
            row[j] = static_cast<int8_t>(whole > 127.0f ? 127.0f : whole < -127.0f ? -127.0f : whole);
        }
        for (; j < stride; ++j) row[j] = 0;
    }
}

static void take_nearer(const float* scores, int64_t n, int64_t count, const float* halves,
                        const int64_t* points, int64_t first, float* best, int64_t* owners) {
    constexpr float kLowest = -__builtin_inff();
    for (int64_t i = 0; i < n; ++i) {
        const float* row = scores + i * count;
        f32x8 high = {kLowest, kLowest, kLowest, kLowest, kLowest, kLowest, kLowest, kLowest};
        i32x8 at = {}, now = {0, 1, 2, 3, 4, 5, 6, 7};
        int64_t j = 0;
        for (; j + 8 <= count; j += 8, now += 8) {
            const f32x8 score = load_f32(row + j) - load_f32(halves + j);
            const i32x8 better = score > high;
            high = better ? score : high;
            at = better ? now : at;
        }
        float most = kLowest;
        int64_t place = 0;
        for (int lane = 0; lane < 8; ++lane) {
            if (high[lane] > most || (high[lane] == most && at[lane] < place)) {
                most = high[lane];
                place = at[lane];
            }
        }
        for (; j < count; ++j) {
            const float score = row[j] - halves[j];
            if (score > most) {
                most = score;
                place = j;
            }
        }
        const int64_t point = points[i];
        if (most > best[point]) {
            best[point] = most;
            owners[point] = first + place;
        }
    }
}

static void sum_rows(const float* vectors, int64_t n, int64_t dim, const int64_t* owners,
                     double* sums) {
    for (int64_t i = 0; i < n; ++i) {
        const float* x = vectors + i * dim;
        double* sum = sums + owners[i] * dim;
        for (int64_t j = 0; j < dim; ++j) sum[j] += double(x[j]);
    }
}
