// Integer mixing: the only source of randomness of every hash in closeby.
//
// The functions below are part of the file format: changing one changes every stored hash
// (docs/format.md, tests/golden). They are written from the published constants of
// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014; finaliser by D. Stafford, "Mix13") and of
// MurmurHash3's 32-bit finaliser (A. Appleby, public domain).
#pragma once

#include <cstdint>

namespace closeby {

// A bijection of 64 bits whose outputs on any two inputs look independent.
constexpr uint64_t mix64(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebULL;
    x ^= x >> 31;
    return x;
}

// The i-th value of the SplitMix64 stream with this seed.
constexpr uint64_t stream(uint64_t seed, uint64_t i) {
    return mix64(seed + (i + 1) * 0x9e3779b97f4a7c15ULL);
}

// Folds one more value into a running hash.
constexpr uint64_t fold(uint64_t hash, uint64_t value) {
    return mix64((hash ^ value) * 0x9e3779b97f4a7c15ULL + 0x632be59bd9b4e019ULL);
}

constexpr uint32_t mix32(uint32_t x) {
    x ^= x >> 16;
    x *= 0x85ebca6bU;
    x ^= x >> 13;
    x *= 0xc2b2ae35U;
    x ^= x >> 16;
    return x;
}

// Maps 32 random bits onto 0 .. n-1 without a division (Lemire 2019).
constexpr uint32_t reduce(uint32_t random, uint32_t n) {
    return static_cast<uint32_t>((static_cast<uint64_t>(random) * n) >> 32);
}

}  // namespace closeby
