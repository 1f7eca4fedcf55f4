// The vector kernels, compiled once for each instruction set into a namespace of its own
// (CLOSEBY_ISA = baseline | avx2). Vectors are the compiler's portable 256-bit vectors, so all
// variants are one text and give the same bits: where AVX2 is missing the compiler splits them.
//
// Templates of the standard library must not be used here: the linker keeps one copy of each,
// and could keep the one that needs AVX2.
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>  // one place where portable vectors have no word: shuffles (maxip.inl)
#endif

#include "kernels.hpp"
#include "maxip.hpp"
#include "mix.hpp"

namespace closeby {
namespace CLOSEBY_ISA {

typedef uint32_t u32x8 __attribute__((vector_size(32)));
typedef uint64_t u64x4 __attribute__((vector_size(32)));
typedef float f32x8 __attribute__((vector_size(32)));

#define CLOSEBY_INLINE static inline __attribute__((always_inline))

CLOSEBY_INLINE u32x8 load_u32(const uint32_t* p) {
    u32x8 v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
CLOSEBY_INLINE void store_u32(uint32_t* p, u32x8 v) { std::memcpy(p, &v, sizeof v); }
CLOSEBY_INLINE u64x4 load_u64(const void* p) {
    u64x4 v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
CLOSEBY_INLINE void store_u64(void* p, u64x4 v) { std::memcpy(p, &v, sizeof v); }
CLOSEBY_INLINE f32x8 load_f32(const float* p) {
    f32x8 v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
CLOSEBY_INLINE void store_f32(float* p, f32x8 v) { std::memcpy(p, &v, sizeof v); }
CLOSEBY_INLINE u32x8 broadcast(uint32_t x) { return u32x8{x, x, x, x, x, x, x, x}; }

CLOSEBY_INLINE int popcount(uint64_t x) {
#ifdef __POPCNT__
    return __builtin_popcountll(x);
#else
    x -= (x >> 1) & 0x5555555555555555ULL;
    x = (x & 0x3333333333333333ULL) + ((x >> 2) & 0x3333333333333333ULL);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
    return static_cast<int>((x * 0x0101010101010101ULL) >> 56);
#endif
}

#include "minhash.inl"
#include "projection.inl"
#include "group_test.inl"
#include "scan.inl"
#include "overlap.inl"
#include "maxip.inl"
#include "maxip_build.inl"

#define CLOSEBY_STRING_(x) #x
#define CLOSEBY_STRING(x) CLOSEBY_STRING_(x)

extern const Kernels kernels;
const Kernels kernels = {
    CLOSEBY_STRING(CLOSEBY_ISA), minhash_permutation, minhash_keys, minhash_sketch, srp_bits,
    srp_sparse_bits,             group_count,         group_best,       group_counts,
    sketch_distances,            sketch_best,         inner_products,   jaccard,
};

extern const MaxIPKernels maxip_kernels;
const MaxIPKernels maxip_kernels = {
    CLOSEBY_STRING(CLOSEBY_ISA), code_scan, list_scan, byte_products, rotate, inner_products, row_products,
    encode, round_rows, take_nearer, sum_rows,
};

}  // namespace CLOSEBY_ISA
}  // namespace closeby
