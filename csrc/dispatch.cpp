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

void sparse_products(const Sets& vectors, const float* values, const SparseRow& query, float* out) {
    for (int64_t i = 0; i < vectors.n; ++i) {
        double sum = 0;
        int64_t other = 0;
        for (int64_t at = vectors.indptr[i]; at < vectors.indptr[i + 1]; ++at) {
            const uint64_t dimension = vectors.indices[at];
            while (other < query.size && query.indices[other] < dimension) ++other;
            if (other == query.size) break;
            if (query.indices[other] == dimension) {
                sum += static_cast<double>(values[at]) * static_cast<double>(query.values[other]);
            }
        }
        out[i] = static_cast<float>(sum);
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

// The overflow that is put up with: a look-up of each costs about as much as a few dozen elements.
constexpr int64_t kOverflowShare = 64;
constexpr int kAttempts = 8;

int64_t buckets_for(int64_t elements) {
    int64_t buckets = 16;
    while (buckets < 2 * elements) buckets *= 2;  // of so many hardly any is asked for five times
    return buckets;
}

// Fills the table with this multiplier; how many elements found no place.
template <typename Element>
int64_t fill_buckets(const uint64_t* elements, int64_t n, Element multiplier, int shift,
                     int64_t buckets, Element* places, uint8_t* filled, uint64_t* overflow) {
    // 0 asks bucket 0, and the highest bit alone one of the upper half.
    std::memset(places, 0, static_cast<size_t>(buckets * kBucket) * sizeof(Element));
    for (int64_t i = 0; i < kBucket; ++i) places[i] = Element{1} << (sizeof(Element) * 8 - 1);
    std::memset(filled, 0, static_cast<size_t>(buckets));
    int64_t over = 0;
    for (int64_t i = 0; i < n; ++i) {
        const Element element = static_cast<Element>(elements[i]);
        if (element != elements[i]) continue;  // too large to be in any stored set
        const int64_t bucket = static_cast<int64_t>(static_cast<Element>(element * multiplier) >> shift);
        if (filled[bucket] == kBucket) {
            overflow[over++] = element;
        } else {
            places[bucket * kBucket + filled[bucket]++] = element;
        }
    }
    return over;
}

template <typename Element>
HashSet build_of_width(const uint64_t* elements, int64_t n, uint64_t salt, uint64_t* memory) {
    const int64_t buckets = buckets_for(n);
    int bits = 0;
    while ((int64_t{1} << bits) < buckets) ++bits;
    Element* places = reinterpret_cast<Element*>(memory);
    uint64_t* overflow = memory + buckets * kBucket;
    uint8_t* filled = reinterpret_cast<uint8_t*>(overflow + n);
    HashSet set{places, overflow, 0, salt, static_cast<int>(sizeof(Element)) * 8 - bits, n};
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        set.multiplier = mix64(set.multiplier) | 1;
        set.overflow_count = fill_buckets<Element>(elements, n, static_cast<Element>(set.multiplier),
                                                   set.shift, buckets, places, filled, overflow);
        if (set.overflow_count * kOverflowShare <= n) break;
    }
    return set;
}

}  // namespace

int64_t one_permutation_scratch(int64_t values) { return (values + 63) / 64; }

int64_t hash_set_words(int64_t elements) {
    const int64_t buckets = buckets_for(elements);
    return buckets * kBucket + elements + (buckets + 7) / 8;
}

HashSet hash_set_build(const uint64_t* elements, int64_t n, uint64_t salt, int width,
                       uint64_t* memory) {
    return width == 4 ? build_of_width<uint32_t>(elements, n, salt, memory)
                      : build_of_width<uint64_t>(elements, n, salt, memory);
}

int64_t element_map_slots(int64_t elements) {
    int64_t slots = 32;
    while (slots < 3 * elements) slots *= 2;
    return slots;
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
        if (!(score >= candidates.min_score)) continue;
        // Most candidates are not among the best; their ids are not even read.
        if (kept == candidates.k && score < scores[kept - 1]) continue;
        const int64_t position = candidates.positions[i];
        const int64_t id = candidates.ids == nullptr ? position : candidates.ids[position];
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
    constexpr int64_t kAtOnce = 8, kAhead = 2 * kAtOnce;
    const auto size_at = [&](int64_t begin) {
        const int64_t left = candidates.count - begin;
        return left < kAtOnce ? left : kAtOnce;
    };
    int64_t kept = 0;
    for (int64_t begin = 0; begin < kAhead && begin < candidates.count; begin += kAtOnce) {
        fetch(begin, size_at(begin));
    }
    for (int64_t begin = 0; begin < candidates.count; begin += kAtOnce) {
        const bool full = kept == candidates.k;
        const float bar = full ? scores[kept - 1] : candidates.min_score;
        if (candidates.highest[candidates.distances[begin]] < bar) break;
        const int64_t end = begin + size_at(begin), ahead = begin + kAhead;
        if (ahead < candidates.count) fetch(ahead, size_at(ahead));
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

int64_t rerank_sets(const Kernels& kernels, const StoredSets& sets, const HashSet& query, const Candidates& candidates,
                    int64_t* hits, float* scores) {
    for (int64_t i = 0; i < candidates.count; ++i) {
        __builtin_prefetch(sets.indptr + candidates.positions[i]);
    }
    return rerank(
        candidates, hits, scores,
        [&](int64_t begin, int64_t count) {
            kernels.jaccard(sets, candidates.positions + begin, count, query, scores + begin);
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

namespace {

// Summed in double in the order of the dimensions, as sparse_products does.
template <typename Element>
float sparse_product(const Element* indices, const float* values, int64_t size,
                     const SparseRow& query) {
    double sum = 0;
    int64_t other = 0;
    for (int64_t at = 0; at < size; ++at) {
        const uint64_t dimension = indices[at];
        while (other < query.size && query.indices[other] < dimension) ++other;
        if (other == query.size) break;
        if (query.indices[other] == dimension) {
            sum += static_cast<double>(values[at]) * static_cast<double>(query.values[other]);
        }
    }
    return static_cast<float>(sum);
}

}  // namespace

int64_t rerank_sparse(const StoredSets& sets, const float* values, const SparseRow& query,
                      const Candidates& candidates, int64_t* hits, float* scores) {
    const auto size_of = [&](int64_t i) {
        const int64_t at = candidates.positions[i];
        return sets.indptr[at + 1] - sets.indptr[at];
    };
    return rerank(
        candidates, hits, scores,
        [&](int64_t begin, int64_t count) {
            for (int64_t i = begin; i < begin + count; ++i) {
                const int64_t first = sets.indptr[candidates.positions[i]];
                const float* own = values + first;
                scores[i] =
                    sets.width == 4
                        ? sparse_product(static_cast<const uint32_t*>(sets.elements) + first, own,
                                         size_of(i), query)
                        : sparse_product(static_cast<const uint64_t*>(sets.elements) + first, own,
                                         size_of(i), query);
            }
        },
        [&](int64_t begin, int64_t count) {
            for (int64_t i = begin; i < begin + count; ++i) {
                const int64_t first = sets.indptr[candidates.positions[i]];
                fetch_bytes(static_cast<const char*>(sets.elements) + first * sets.width,
                            size_of(i) * sets.width);
                fetch_bytes(values + first, size_of(i) * static_cast<int64_t>(sizeof(float)));
            }
        });
}

int64_t group_scratch(int64_t stride, int64_t tables) {
    int64_t planes = 4;
    while ((int64_t{1} << planes) <= tables) ++planes;
    return (planes + 2) * stride / 8;
}

}  // namespace closeby
