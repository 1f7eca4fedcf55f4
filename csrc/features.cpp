// Raw text and sequences to set elements. The same code serves ingest and query.
#include <algorithm>
#include <cstring>

#include "kernels.hpp"
#include "mix.hpp"

namespace closeby {

namespace {

constexpr uint64_t kBytesSeed = 0x2545f4914f6cdd1dULL;
constexpr int64_t kPackedBytes = 4;

bool is_word_byte(uint8_t c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 128;
}

bool starts_character(uint8_t c) { return (c & 0xc0) != 0x80; }

// 0..3 for A, C, G, T; 4 for anything else.
struct Letters {
    uint8_t code[256];
    constexpr Letters() : code() {
        for (int i = 0; i < 256; ++i) code[i] = 4;
        code['A'] = code['a'] = 0;
        code['C'] = code['c'] = 1;
        code['G'] = code['g'] = 2;
        code['T'] = code['t'] = code['U'] = code['u'] = 3;
    }
};
constexpr Letters kLetters;

}  // namespace

uint64_t hash_bytes(const uint8_t* data, int64_t size) {
    uint64_t hash = kBytesSeed ^ static_cast<uint64_t>(size);
    int64_t at = 0;
    for (; at + 8 <= size; at += 8) {
        uint64_t word;
        std::memcpy(&word, data + at, 8);
        hash = fold(hash, word);
    }
    if (at < size) {
        uint64_t word = 0;
        std::memcpy(&word, data + at, static_cast<size_t>(size - at));
        hash = fold(hash, word);
    }
    return hash;
}

int64_t byte_shingles(const uint8_t* text, int64_t size, int64_t n, uint64_t* out) {
    if (size == 0) return 0;
    if (size < n) {  // a text shorter than the shingle is one shingle
        out[0] = hash_bytes(text, size);
        return 1;
    }
    const int64_t count = size - n + 1;
    if (n <= kPackedBytes) {
        // First byte in the highest place: neighbouring numbers are neighbouring strings.
        const uint64_t mask = (uint64_t{1} << (8 * n)) - 1;
        uint64_t window = 0;
        for (int64_t i = 0; i < n - 1; ++i) window = window << 8 | text[i];
        for (int64_t i = 0; i < count; ++i) {
            window = (window << 8 | text[i + n - 1]) & mask;
            out[i] = window;
        }
    } else {
        for (int64_t i = 0; i < count; ++i) out[i] = hash_bytes(text + i, n);
    }
    return count;
}

int64_t char_shingles(const uint8_t* text, int64_t size, int64_t n, uint64_t* out) {
    int64_t count = 0, begin = 0, held = 0;
    for (int64_t at = 0; at < size;) {
        int64_t end = at + 1;
        while (end < size && !starts_character(text[end])) ++end;
        if (++held > n) {
            do ++begin;
            while (!starts_character(text[begin]));
            --held;
        }
        if (held == n) out[count++] = hash_bytes(text + begin, end - begin);
        at = end;
    }
    if (count == 0 && size > 0) out[count++] = hash_bytes(text, size);
    return count;
}

int64_t word_shingles(const uint8_t* text, int64_t size, int64_t n, uint64_t* out) {
    // Word hashes first, then windows over them, in place: out[i] needs words i .. i + n - 1.
    int64_t words = 0;
    for (int64_t at = 0; at < size;) {
        while (at < size && !is_word_byte(text[at])) ++at;
        const int64_t begin = at;
        while (at < size && is_word_byte(text[at])) ++at;
        if (at > begin) out[words++] = hash_bytes(text + begin, at - begin);
    }
    const int64_t window = words < n ? words : n;
    if (window == 0) return 0;
    const int64_t count = words - window + 1;
    for (int64_t i = 0; i < count; ++i) {
        uint64_t hash = kBytesSeed + static_cast<uint64_t>(window);
        for (int64_t w = 0; w < window; ++w) hash = fold(hash, out[i + w]);
        out[i] = hash;
    }
    return count;
}

int64_t dna_kmers(const uint8_t* sequence, int64_t size, int64_t k, bool canonical, uint64_t* out) {
    const uint64_t mask = k == 32 ? ~uint64_t{0} : (uint64_t{1} << (2 * k)) - 1;
    const int shift = static_cast<int>(2 * (k - 1));
    uint64_t forward = 0, reverse = 0;
    int64_t valid = 0, count = 0;
    for (int64_t i = 0; i < size; ++i) {
        const uint64_t code = kLetters.code[sequence[i]];
        if (code == 4) {
            valid = 0;
            continue;
        }
        forward = (forward << 2 | code) & mask;
        reverse = reverse >> 2 | (3 - code) << shift;
        if (++valid >= k) out[count++] = canonical && reverse < forward ? reverse : forward;
    }
    return count;
}

void copy_sets(const StoredSets& sets, const int64_t* rows, int64_t n, uint64_t* out) {
    const uint32_t* narrow = static_cast<const uint32_t*>(sets.elements);
    const uint64_t* wide = static_cast<const uint64_t*>(sets.elements);
    for (int64_t i = 0; i < n; ++i) {
        const int64_t end = sets.indptr[rows[i] + 1];
        for (int64_t at = sets.indptr[rows[i]]; at < end; ++at) {
            *out++ = sets.width == 4 ? narrow[at] : wide[at];
        }
    }
}

void sort_unique_rows(const int64_t* indptr, int64_t n, uint64_t* elements, int64_t* indptr_out) {
    int64_t at = 0;
    indptr_out[0] = 0;
    for (int64_t i = 0; i < n; ++i) {
        uint64_t* begin = elements + indptr[i];
        uint64_t* end = elements + indptr[i + 1];
        if (!std::is_sorted(begin, end)) std::sort(begin, end);
        end = std::unique(begin, end);
        std::memmove(elements + at, begin, static_cast<size_t>(end - begin) * sizeof(uint64_t));
        at += end - begin;
        indptr_out[i + 1] = at;
    }
}

}  // namespace closeby
