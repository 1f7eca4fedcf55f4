// Choice of instruction set, and the kernels that gain nothing from vectors.
#include <cstring>

#include "kernels.hpp"
#include "mix.hpp"

namespace closeby {

namespace baseline {
extern const Kernels kernels;
}
#if CLOSEBY_HAVE_AVX2
namespace avx2 {
extern const Kernels kernels;
}
static bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") &&
           __builtin_cpu_supports("bmi2");
}
#endif

const Kernels* kernels_by_name(const char* name) {
    if (std::strcmp(name, "baseline") == 0) return &baseline::kernels;
#if CLOSEBY_HAVE_AVX2
    if (std::strcmp(name, "avx2") == 0 && has_avx2()) return &avx2::kernels;
#endif
    return nullptr;
}

const Kernels* best_kernels() {
    const Kernels* avx2_kernels = kernels_by_name("avx2");
    return avx2_kernels != nullptr ? avx2_kernels : &baseline::kernels;
}

void minhash_one_permutation(const Sets& sets, int64_t values, uint64_t seed, uint64_t* occupied,
                             uint32_t* out) {
    const uint32_t bins = static_cast<uint32_t>(values);
    const size_t words = static_cast<size_t>(one_permutation_scratch(values));
    for (int64_t i = 0; i < sets.n; ++i) {
        uint32_t* minima = out + i * values;
        std::memset(minima, 0xff, static_cast<size_t>(values) * sizeof(uint32_t));
        if (sets.indptr[i] == sets.indptr[i + 1]) continue;
        std::memset(occupied, 0, words * sizeof(uint64_t));
        for (int64_t at = sets.indptr[i]; at < sets.indptr[i + 1]; ++at) {
            const uint64_t hash = mix64(sets.indices[at] ^ seed);
            const uint32_t bin = reduce(static_cast<uint32_t>(hash >> 32), bins);
            const uint32_t value = static_cast<uint32_t>(hash);
            if (value < minima[bin]) minima[bin] = value;
            occupied[bin >> 6] |= uint64_t{1} << (bin & 63);
        }
        for (uint32_t bin = 0; bin < bins; ++bin) {
            if (occupied[bin >> 6] >> (bin & 63) & 1) continue;
            // Each empty bin walks a random sequence of its own, the same for every set, to the
            // first bin that the set itself filled: so two sets agree with probability J here too.
            const uint64_t walk = fold(seed, bin);
            uint32_t source = bin;
            for (uint64_t step = 0; !(occupied[source >> 6] >> (source & 63) & 1); ++step) {
                source = reduce(static_cast<uint32_t>(stream(walk, step) >> 32), bins);
            }
            minima[bin] = minima[source];
        }
    }
}

void group_insert(uint8_t* bitmaps, int64_t stride, int32_t range_bits, int32_t group_size,
                  int32_t tables, const uint32_t* keys, int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const int64_t cell = (first + i) / group_size;
        const uint8_t bit = static_cast<uint8_t>(1U << (cell & 7));
        for (int64_t t = 0; t < tables; ++t) {
            const int64_t value = static_cast<int64_t>(keys[i * tables + t]) >> (32 - range_bits);
            bitmaps[((t << range_bits) + value) * stride + (cell >> 3)] |= bit;
        }
    }
}

namespace {

// Marks a free slot; a set that holds this very number carries it in a flag beside the slots.
constexpr uint64_t kFree = ~uint64_t{0};

// Cuckoo hashing (Pagh, Rodler 2001): an element lies in one of two slots, both from one random
// multiplication, so that a probe is two loads and no branch.
inline void slots_of(uint64_t element, const HashSet& set, int64_t* first, int64_t* second) {
    // Both halves of the product: of elements that end in many zero bits the lower half has too
    // few values for two independent slots, and no multiplier would place them all.
    const unsigned __int128 product =
        static_cast<unsigned __int128>(element ^ ~set.multiplier) * set.multiplier;
    const uint64_t mixed = static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
    *first = static_cast<int64_t>(mixed >> set.shift);
    const uint64_t half = uint64_t{1} << (64 - set.shift);
    *second = static_cast<int64_t>(half + (mixed & (half - 1)));
}

// False if the element, or one that it displaced, found no place.
bool cuckoo_insert(uint64_t element, const HashSet& set, uint64_t* slots) {
    constexpr int kMostMoves = 200;
    int64_t came_from = -1;
    for (int move = 0; move < kMostMoves; ++move) {
        int64_t first, second;
        slots_of(element, set, &first, &second);
        if (slots[first] == element || slots[second] == element) return true;
        const int64_t slot = slots[first] == kFree || second == came_from ? first : second;
        const uint64_t evicted = slots[slot];
        slots[slot] = element;
        if (evicted == kFree) return true;
        element = evicted;
        came_from = slot;
    }
    return false;
}

template <typename Element>
int64_t overlap(const Element* elements, int64_t n, const HashSet& set) {
    int64_t shared = 0;
    for (int64_t i = 0; i < n; ++i) {
        const uint64_t element = elements[i];
        int64_t first, second;
        slots_of(element, set, &first, &second);
        int64_t here = (set.slots[first] == element) | (set.slots[second] == element);
        if (sizeof(Element) == 8 && __builtin_expect(element == kFree, 0)) {
            here = set.has_free_marker;
        }
        shared += here;
    }
    return shared;
}

template <typename Element>
void jaccard_of_width(const StoredSets& sets, const int64_t* positions, int64_t count,
                      const HashSet& query, float* out) {
    const Element* elements = static_cast<const Element*>(sets.elements);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t begin = sets.indptr[positions[i]];
        const int64_t size = sets.indptr[positions[i] + 1] - begin;
        const int64_t shared = overlap(elements + begin, size, query);
        const int64_t joint = size + query.size - shared;
        out[i] = joint == 0 ? 0.0f : static_cast<float>(shared) / static_cast<float>(joint);
    }
}

}  // namespace

int64_t one_permutation_scratch(int64_t values) { return (values + 63) / 64; }

int64_t hash_set_slots(int64_t elements) {
    int64_t half = 16;
    while (2 * half < 3 * elements) half *= 2;  // a third full: insertion hardly ever fails
    return 2 * half;
}

HashSet hash_set_build(const uint64_t* elements, int64_t n, uint64_t salt, int64_t slot_count,
                       uint64_t* slots) {
    int bits = 0;
    while ((int64_t{2} << bits) < slot_count) ++bits;
    HashSet set{slots, slot_count, mix64(salt) | 1, 64 - bits, n, false};
    for (bool placed = false; !placed; set.multiplier = mix64(set.multiplier) | 1) {
        std::memset(slots, 0xff, static_cast<size_t>(slot_count) * sizeof(uint64_t));
        placed = true;
        for (int64_t i = 0; i < n && placed; ++i) {
            set.has_free_marker |= elements[i] == kFree;
            placed = elements[i] == kFree || cuckoo_insert(elements[i], set, slots);
        }
        if (placed) break;
    }
    return set;
}

void jaccard(const StoredSets& sets, const int64_t* positions, int64_t count, const HashSet& query,
             float* out) {
    if (sets.width == 4) {
        jaccard_of_width<uint32_t>(sets, positions, count, query, out);
    } else {
        jaccard_of_width<uint64_t>(sets, positions, count, query, out);
    }
}

ElementMap element_map_build(const uint64_t* elements, int64_t n, uint64_t salt,
                             int64_t slot_count, uint64_t* slots, int32_t* numbers) {
    int bits = 0;
    while ((int64_t{1} << bits) < slot_count) ++bits;
    ElementMap map{slots, numbers, slot_count, mix64(salt) | 1, 64 - bits, -1};
    std::memset(slots, 0xff, static_cast<size_t>(slot_count) * sizeof(uint64_t));
    for (int64_t e = 0; e < n; ++e) {
        if (elements[e] == kFree) {
            map.marker_number = static_cast<int32_t>(e);
            continue;
        }
        int64_t slot = static_cast<int64_t>((elements[e] * map.multiplier) >> map.shift);
        while (slots[slot] != kFree) slot = (slot + 1) & (slot_count - 1);
        slots[slot] = elements[e];
        numbers[slot] = static_cast<int32_t>(e);
    }
    return map;
}

namespace {

inline int32_t number_of(const ElementMap& map, uint64_t element) {
    if (element == kFree) return map.marker_number;
    int64_t slot = static_cast<int64_t>((element * map.multiplier) >> map.shift);
    for (;; slot = (slot + 1) & (map.slot_count - 1)) {
        if (map.slots[slot] == element) return map.numbers[slot];
        if (map.slots[slot] == kFree) return -1;
    }
}

}  // namespace

void jaccard_scan(const Sets& sets, const ElementMap& map, const int64_t* first,
                  const int32_t* holders, const int64_t* sizes, int64_t queries, uint32_t* shared,
                  float* out) {
    for (int64_t i = 0; i < sets.n; ++i) {
        std::memset(shared, 0, static_cast<size_t>(queries) * sizeof(uint32_t));
        for (int64_t at = sets.indptr[i]; at < sets.indptr[i + 1]; ++at) {
            const int32_t element = number_of(map, sets.indices[at]);
            if (element < 0) continue;
            for (int64_t h = first[element]; h < first[element + 1]; ++h) ++shared[holders[h]];
        }
        const int64_t size = sets.indptr[i + 1] - sets.indptr[i];
        for (int64_t q = 0; q < queries; ++q) {
            const int64_t both = shared[q];
            const int64_t joint = size + sizes[q] - both;
            out[q * sets.n + i] =
                both == 0 ? 0.0f : static_cast<float>(both) / static_cast<float>(joint);
        }
    }
}

namespace {

// Inserts candidates begin .. end, whose scores are known, into the best `kept` at the front.
int64_t insert_hits(const Candidates& candidates, int64_t begin, int64_t end, int64_t kept,
                    int64_t* hits, float* scores) {
    for (int64_t i = begin; i < end; ++i) {
        const float score = scores[i];
        const int64_t id = candidates.ids[candidates.positions[i]];
        if (!(score >= candidates.min_score)) continue;
        const auto precedes = [&](int64_t at) {
            return score > scores[at] || (score == scores[at] && id < hits[at]);
        };
        if (kept == candidates.k && !precedes(kept - 1)) continue;
        int64_t at = kept < candidates.k ? kept++ : kept - 1;
        for (; at > 0 && precedes(at - 1); --at) {
            scores[at] = scores[at - 1];
            hits[at] = hits[at - 1];
        }
        scores[at] = score;
        hits[at] = id;
    }
    return kept;
}

// score(begin, count) writes the exact scores of candidates begin .. begin + count;
// fetch(begin, count) asks the memory for what it will read.
template <typename Score, typename Fetch>
int64_t rerank(const Candidates& candidates, int64_t* hits, float* scores, const Score& score,
               const Fetch& fetch) {
    constexpr int64_t kAtOnce = 8;
    const auto size_at = [&](int64_t begin) {
        const int64_t left = candidates.count - begin;
        return left < kAtOnce ? left : kAtOnce;
    };
    int64_t kept = 0;
    fetch(0, size_at(0));
    for (int64_t begin = 0; begin < candidates.count; begin += kAtOnce) {
        const bool full = kept == candidates.k;
        const float bar = full ? scores[kept - 1] : candidates.min_score;
        if (candidates.highest[candidates.distances[begin]] < bar) break;
        const int64_t end = begin + size_at(begin);
        if (end < candidates.count) fetch(end, size_at(end));
        score(begin, end - begin);
        kept = insert_hits(candidates, begin, end, kept, hits, scores);
    }
    return kept;
}

// At most this much of a candidate is fetched ahead; the hardware follows a longer run itself.
constexpr int64_t kFetchBytes = 512;

inline void fetch_bytes(const void* data, int64_t bytes) {
    const char* at = static_cast<const char*>(data);
    for (int64_t b = 0; b < bytes && b < kFetchBytes; b += 64) __builtin_prefetch(at + b);
}

}  // namespace

int64_t rerank_sets(const StoredSets& sets, const HashSet& query, const Candidates& candidates,
                    int64_t* hits, float* scores) {
    for (int64_t i = 0; i < candidates.count; ++i) {
        __builtin_prefetch(sets.indptr + candidates.positions[i]);
    }
    return rerank(
        candidates, hits, scores,
        [&](int64_t begin, int64_t count) {
            jaccard(sets, candidates.positions + begin, count, query, scores + begin);
        },
        [&](int64_t begin, int64_t count) {
            for (int64_t i = begin; i < begin + count; ++i) {
                const int64_t first = sets.indptr[candidates.positions[i]];
                const int64_t last = sets.indptr[candidates.positions[i] + 1];
                fetch_bytes(static_cast<const char*>(sets.elements) + first * sets.width,
                            (last - first) * sets.width);
            }
        });
}

int64_t rerank_vectors(const Kernels& kernels, const float* vectors, int64_t dim,
                       const float* query, const Candidates& candidates, int64_t* hits,
                       float* scores) {
    return rerank(
        candidates, hits, scores,
        [&](int64_t begin, int64_t count) {
            kernels.inner_products(vectors, dim, candidates.positions + begin, count, query,
                                   scores + begin);
        },
        [&](int64_t begin, int64_t count) {
            for (int64_t i = begin; i < begin + count; ++i) {
                fetch_bytes(vectors + candidates.positions[i] * dim,
                            dim * static_cast<int64_t>(sizeof(float)));
            }
        });
}

int64_t group_scratch(int64_t stride, int64_t tables) {
    int64_t planes = 4;
    while ((int64_t{1} << planes) <= tables) ++planes;
    return (planes + 2) * stride / 8;
}

}  // namespace closeby
