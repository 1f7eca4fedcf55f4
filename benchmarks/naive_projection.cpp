// Signed random projections as they are written first: for every bit a loop over the dimensions,
// adding or subtracting. What benchmarks/hashing.py compares closeby's with; no part of closeby.
#include <cstdint>

extern "C" void by_branch(const float* x, int64_t dim, const int8_t* signs, int64_t bits,
                          uint8_t* out) {
    for (int64_t b = 0; b < bits; ++b) {
        float sum = 0;
        for (int64_t j = 0; j < dim; ++j) {
            if (signs[b * dim + j] > 0) {
                sum += x[j];
            } else {
                sum -= x[j];
            }
        }
        out[b] = sum < 0;
    }
}

extern "C" void by_product(const float* x, int64_t dim, const float* signs, int64_t bits,
                           uint8_t* out) {
    for (int64_t b = 0; b < bits; ++b) {
        float sum = 0;
        for (int64_t j = 0; j < dim; ++j) sum += signs[b * dim + j] * x[j];
        out[b] = sum < 0;
    }
}
