// Raw text and sequences to set elements. The same code serves ingest and query.
#include <algorithm>
#include <cstring>

#include "kernels.hpp"
#include "mix.hpp"

namespace closeby {

namespace {

constexpr uint64_t kBytesSeed = 0x2545f4914f6cdd1dULL;
constexpr int64_t kPackedBytes = 4;

struct WordBytes {
    bool part[256];
    constexpr WordBytes() : part() {
        for (int c = 0; c < 256; ++c) {
            part[c] = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                      c >= 128;
        }
    }
};
constexpr WordBytes kWordBytes;

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

uint64_t load_word(const uint8_t* p) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    return word;
}

// The first `size` (1 .. 7) bytes at p, filled with zeros; reads no byte from `end` on.
uint64_t load_part(const uint8_t* p, int64_t size, const uint8_t* end) {
    if (end - p >= 8) return load_word(p) & ((uint64_t{1} << (8 * size)) - 1);
    uint64_t word = 0;
    for (int64_t i = 0; i < size; ++i) word |= uint64_t{p[i]} << (8 * i);
    return word;
}

// hash_bytes of bytes in a text that goes on to `end`: a whole word can be read in most places.
uint64_t hash_within(const uint8_t* data, int64_t size, const uint8_t* end) {
    uint64_t hash = kBytesSeed ^ static_cast<uint64_t>(size);
    int64_t at = 0;
    for (; at + 8 <= size; at += 8) hash = fold(hash, load_word(data + at));
    if (at < size) hash = fold(hash, load_part(data + at, size - at, end));
    return hash;
}

// Hashes of all windows of n bytes.
int64_t hashed_windows(const uint8_t* text, int64_t size, int64_t n, uint64_t* out) {
    const int64_t count = size - n + 1;
    const uint8_t* end = text + size;
    int64_t i = 0;
    if (n <= 8) {  // one word, so one fold; written out because it is the common case
        const uint64_t mask = n == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * n)) - 1;
        const uint64_t seed = kBytesSeed ^ static_cast<uint64_t>(n);
        for (; i + 8 <= size; ++i) out[i] = fold(seed, load_word(text + i) & mask);
    }
    for (; i < count; ++i) out[i] = hash_within(text + i, n, end);
    return count;
}

bool is_ascii(const uint8_t* text, int64_t size) {
    uint64_t any = 0;
    int64_t i = 0;
    for (; i + 8 <= size; i += 8) any |= load_word(text + i);
    for (; i < size; ++i) any |= text[i];
    return (any & 0x8080808080808080ULL) == 0;
}

// n-grams of numbers, in place: out[i] needs values i .. i + n - 1. Fewer than n are one n-gram.
int64_t folded_windows(uint64_t* values, int64_t size, int64_t n) {
    const int64_t window = size < n ? size : n;
    if (window == 0) return 0;
    const int64_t count = size - window + 1;
    for (int64_t i = 0; i < count; ++i) {
        uint64_t hash = kBytesSeed + static_cast<uint64_t>(window);
        for (int64_t w = 0; w < window; ++w) hash = fold(hash, values[i + w]);
        values[i] = hash;
    }
    return count;
}

template <bool canonical>
int64_t packed_kmers(const uint8_t* sequence, int64_t size, int64_t k, uint64_t* out) {
    const uint64_t mask = k == 32 ? ~uint64_t{0} : (uint64_t{1} << (2 * k)) - 1;
    const int shift = static_cast<int>(2 * (k - 1));
    int64_t count = 0;
    for (int64_t at = 0; at + k <= size;) {
        uint64_t forward = 0, reverse = 0;
        const int64_t first = at + k - 1;  // the letter that completes the first k-mer of this run
        for (; at < size; ++at) {
            const uint64_t code = kLetters.code[sequence[at]];
            if (code == 4) break;
            forward = (forward << 2 | code) & mask;
            if (canonical) reverse = reverse >> 2 | (3 - code) << shift;
            // Written always and counted only where k letters are there: no branch to mispredict.
            out[count] = canonical && reverse < forward ? reverse : forward;
            count += at >= first;
        }
        ++at;
    }
    return count;
}

}  // namespace

uint64_t hash_bytes(const uint8_t* data, int64_t size) {
    return hash_within(data, size, data + size);
}

int64_t byte_shingles(const uint8_t* text, int64_t size, int64_t n, uint64_t* out) {
    if (size == 0) return 0;
    if (size < n) {  // a text shorter than the shingle is one shingle
        out[0] = hash_bytes(text, size);
        return 1;
    }
    if (n > kPackedBytes) return hashed_windows(text, size, n, out);
    // First byte in the highest place: neighbouring numbers are neighbouring strings.
    const int64_t count = size - n + 1;
    const uint64_t mask = (uint64_t{1} << (8 * n)) - 1;
    uint64_t window = 0;
    for (int64_t i = 0; i < n - 1; ++i) window = window << 8 | text[i];
    for (int64_t i = 0; i < count; ++i) {
        window = (window << 8 | text[i + n - 1]) & mask;
        out[i] = window;
    }
    return count;
}

int64_t char_shingles(const uint8_t* text, int64_t size, int64_t n, uint64_t* out) {
    if (size >= n && is_ascii(text, size)) return hashed_windows(text, size, n, out);
    const uint8_t* text_end = text + size;
    int64_t count = 0, begin = 0, held = 0;
    for (int64_t at = 0; at < size;) {
        int64_t end = at + 1;
        while (end < size && !starts_character(text[end])) ++end;
        if (++held > n) {
            do ++begin;
            while (!starts_character(text[begin]));
            --held;
        }
        if (held == n) out[count++] = hash_within(text + begin, end - begin, text_end);
        at = end;
    }
    if (count == 0 && size > 0) out[count++] = hash_bytes(text, size);
    return count;
}

int64_t word_shingles(const uint8_t* text, int64_t size, int64_t n, uint64_t* out) {
    int64_t words = 0;
    for (int64_t at = 0; at < size;) {
        while (at < size && !kWordBytes.part[text[at]]) ++at;
        const int64_t begin = at;
        while (at < size && kWordBytes.part[text[at]]) ++at;
        if (at > begin) out[words++] = hash_within(text + begin, at - begin, text + size);
    }
    return folded_windows(out, words, n);
}

int64_t number_ngrams(const uint64_t* values, int64_t size, int64_t n, uint64_t* out) {
    if (size) std::memcpy(out, values, static_cast<size_t>(size) * sizeof(uint64_t));
    return folded_windows(out, size, n);
}

int64_t dna_kmers(const uint8_t* sequence, int64_t size, int64_t k, bool canonical, uint64_t* out) {
    return canonical ? packed_kmers<true>(sequence, size, k, out)
                     : packed_kmers<false>(sequence, size, k, out);
}

int64_t letter_kmers(const uint8_t* sequence, int64_t size, int64_t k, const uint8_t* letters,
                     const uint8_t* complements, uint8_t* scratch, uint64_t* out) {
    uint8_t* forward = scratch;
    uint8_t* reverse = scratch + size;
    for (int64_t i = 0; i < size; ++i) {
        const uint8_t letter = letters[sequence[i]];
        forward[i] = letter;
        if (complements) reverse[size - 1 - i] = complements[letter];
    }
    int64_t count = 0, valid = 0;
    for (int64_t i = 0; i < size; ++i) {
        valid = forward[i] ? valid + 1 : 0;
        if (valid < k) continue;
        uint64_t hash = hash_within(forward + i + 1 - k, k, forward + size);
        if (complements) {
            const uint64_t other = hash_within(reverse + size - 1 - i, k, reverse + size);
            hash = other < hash ? other : hash;
        }
        out[count++] = hash;
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

// --- sorting -----------------------------------------------------------------------------------

namespace {

constexpr int kDigit = 11;               // bits of a radix sort's digit: 8 KiB of counts
constexpr int64_t kInsertion = 24;       // rows this short are sorted by insertion alone
constexpr int64_t kShiftsAnElement = 8;  // more of them, and insertion is given up

// Sorts nearly sorted numbers; false if that takes more than `budget` shifts.
bool insertion_sort(uint64_t* a, int64_t n, int64_t budget) {
    for (int64_t i = 1; i < n; ++i) {
        const uint64_t x = a[i];
        int64_t j = i;
        for (; j > 0 && a[j - 1] > x; --j) a[j] = a[j - 1];
        a[j] = x;
        budget -= i - j;
        if (budget < 0) return false;
    }
    return true;
}

// Stable counting sort by `bits` (up to kDigit) bits from `shift` on, from a to b.
void sort_by_digit(const uint64_t* a, int64_t n, int shift, int bits, uint64_t* b) {
    uint32_t places[1 << kDigit];
    std::memset(places, 0, sizeof places[0] << bits);
    const uint64_t mask = (uint64_t{1} << bits) - 1;
    for (int64_t i = 0; i < n; ++i) ++places[a[i] >> shift & mask];
    uint32_t place = 0;
    for (uint64_t d = 0; d <= mask; ++d) {
        const uint32_t count = places[d];
        places[d] = place;
        place += count;
    }
    for (int64_t i = 0; i < n; ++i) b[places[a[i] >> shift & mask]++] = a[i];
}

// By the digits from bit `low` to below bit `high`, the lowest first.
void sort_by_bits(uint64_t* a, int64_t n, int low, int high, int bits, uint64_t* scratch) {
    uint64_t* from = a;
    uint64_t* to = scratch;
    for (int shift = low; shift < high; shift += bits) {
        sort_by_digit(from, n, shift, std::min(bits, high - shift), to);
        std::swap(from, to);
    }
    if (from != a) std::memcpy(a, from, static_cast<size_t>(n) * sizeof(uint64_t));
}

// Ascending. A radix sort by as many of the highest bits as tell most elements of a row apart;
// insertion does the rest, and where elements share these bits too often all bits are taken.
void sort_row(uint64_t* a, int64_t n, uint64_t* scratch) {
    uint64_t any = 0, all = ~uint64_t{0}, falls = 0;
    for (int64_t i = 0; i < n; ++i) {
        any |= a[i];
        all &= a[i];
        falls |= i > 0 && a[i] < a[i - 1];
    }
    if (!falls) return;
    if (n <= kInsertion) {
        insertion_sort(a, n, n * n);
        return;
    }
    // Positions are counted in 32 bits: rows are far shorter (MAX_ELEMENTS in index/features.py
    // bounds sets, not texts, so longer ones are left to the library).
    if (n > INT32_MAX) {
        std::sort(a, a + n);
        return;
    }
    const int high = 64 - __builtin_clzll(any ^ all);
    const int bits = n <= 256 ? 8 : kDigit;
    // Hashes are told apart by few bits; the letters of packed shingles lie close together.
    const int digits = n <= 256 ? 1 : n <= 4096 ? 1 + (high <= 32) : n <= 1 << 20 ? 2 : 3;
    const int low = std::max(0, high - bits * digits);
    sort_by_bits(a, n, low, high, bits, scratch);
    if (low > 0 && !insertion_sort(a, n, kShiftsAnElement * n)) {
        sort_by_bits(a, n, 0, high, kDigit, scratch);
    }
}

constexpr uint64_t kCopySeed = 0xd6e8feb86659fd93ULL;

// Each copy of an element but the first becomes an element of its own, by its number; copies
// from number `most` on are left as they are, and so count once.
void number_copies(uint64_t* a, int64_t n, int64_t most) {
    int64_t copy = 0;
    uint64_t element = 0;
    for (int64_t i = 0; i < n; ++i) {
        copy = i > 0 && a[i] == element ? copy + 1 : 0;
        element = a[i];
        if (copy > 0 && copy < most) {
            a[i] = fold(fold(kCopySeed, element), static_cast<uint64_t>(copy));
        }
    }
}

}  // namespace

int64_t distinct(uint64_t* elements, int64_t n, int64_t copies, uint64_t* scratch) {
    sort_row(elements, n, scratch);
    if (copies > 1) {
        number_copies(elements, n, copies);
        sort_row(elements, n, scratch);
    }
    return std::unique(elements, elements + n) - elements;
}

void sort_unique_rows(const int64_t* indptr, int64_t n, uint64_t* elements, int64_t copies,
                      uint64_t* scratch, int64_t* indptr_out) {
    int64_t at = 0;
    indptr_out[0] = 0;
    for (int64_t i = 0; i < n; ++i) {
        uint64_t* row = elements + indptr[i];
        const int64_t kept = distinct(row, indptr[i + 1] - indptr[i], copies, scratch);
        std::memmove(elements + at, row, static_cast<size_t>(kept) * sizeof(uint64_t));
        at += kept;
        indptr_out[i + 1] = at;
    }
}

}  // namespace closeby
