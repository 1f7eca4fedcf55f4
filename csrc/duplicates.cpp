// All points against all, through LSH tables.
//
//   keys of table t ─ radix sort ─ runs of equal keys ─ pairs ─ shared before? ─ sizes ─ exact
//                                   7 7 7 | 9 9 | …              keys of tables < t
//
// No list of candidates is ever made: a pair that shares keys in several tables is compared in the
// first of them alone, which the keys themselves tell.
#include "duplicates.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "mix.hpp"

namespace closeby {

namespace {

constexpr int kDigitBits = 11;
constexpr int kDigits = 3;  // 3 * 11 bits hold a key of 32
constexpr int64_t kAhead = 8;  // places asked for from memory ahead of time
constexpr int64_t kBuckets = int64_t{1} << kDigitBits;

int64_t point_of(uint64_t entry) { return static_cast<int64_t>(entry & 0xffffffffULL); }
uint64_t key_of(uint64_t entry) { return entry >> 32; }

int64_t size_of(const StoredSets& sets, int64_t i) { return sets.indptr[i + 1] - sets.indptr[i]; }

bool shares_earlier(const Band& band, int64_t a, int64_t b) {
    const uint32_t* of_a = band.keys + a * band.tables;
    const uint32_t* of_b = band.keys + b * band.tables;
    for (int32_t t = 0; t < band.table; ++t) {
        if (of_a[t] == of_b[t]) return true;
    }
    return false;
}

// Elements that two ascending rows share, or -1 once fewer than `need` are certain.
template <typename Element>
int64_t shared_elements(const Element* a, int64_t a_size, const Element* b, int64_t b_size,
                        int64_t need) {
    int64_t shared = 0, i = 0, j = 0;
    // Every step without a match leaves an element of a or of b unmatched: so many may be.
    const int64_t spare_a = a_size - need, spare_b = b_size - need;
    while (i < a_size && j < b_size) {
        // Without branches: which of the two is less is not to be foreseen.
        const Element x = a[i], y = b[j];
        shared += x == y;
        i += x <= y;
        j += y <= x;
        if (i - shared > spare_a || j - shared > spare_b) return -1;
    }
    return shared;
}

// Bits that differ in two parity sketches: SWAR counts of bytes, summed before they are folded.
int64_t differing_bits(const uint64_t* a, const uint64_t* b) {
    constexpr uint64_t k1 = 0x5555555555555555ULL, k2 = 0x3333333333333333ULL;
    constexpr uint64_t k4 = 0x0f0f0f0f0f0f0f0fULL, kOnes = 0x0101010101010101ULL;
    uint64_t bytes = 0;
    for (int w = 0; w < kParityWords; ++w) {
        uint64_t x = a[w] ^ b[w];
        x -= x >> 1 & k1;
        x = (x & k2) + (x >> 2 & k2);
        bytes += (x + (x >> 4)) & k4;
    }
    // All 256 bits read as 0, which only lets a pair through to the exact comparison.
    return static_cast<int64_t>((bytes * kOnes) >> 56);
}

struct SetSimilarity {
    const StoredSets& sets;
    const uint64_t* parities;
    double threshold;

    void prefetch(int64_t i) const { __builtin_prefetch(parities + i * kParityWords); }

    // Whether the two may be near: sizes and parities bound the similarity from above.
    bool plausible(int64_t a, int64_t b) const {
        const int64_t a_size = size_of(sets, a), b_size = size_of(sets, b);
        const int64_t both = a_size + b_size;
        const int64_t need = needed(both);
        // Every bit of the parities that differs takes an element that is in one set alone.
        const int64_t apart = differing_bits(parities + a * kParityWords,
                                             parities + b * kParityWords);
        return need <= a_size && need <= b_size && apart <= both - 2 * need;
    }

    // Shared elements without which two sets of so many elements together are not near: J >= T
    // if they are at least T / (1 + T) of both sizes. A little lower, as the division has the last
    // word.
    int64_t needed(int64_t both) const {
        const double bound = threshold / (1 + threshold) * static_cast<double>(both);
        return static_cast<int64_t>(std::ceil(bound - 1e-6));
    }

    // Jaccard similarity, or a negative number if it is below the threshold.
    double operator()(int64_t a, int64_t b) const {
        const int64_t a_size = size_of(sets, a), b_size = size_of(sets, b);
        const int64_t both = a_size + b_size;
        const int64_t need = needed(both);
        if (need > a_size || need > b_size || both == 0) return -1;
        int64_t shared;
        if (sets.width == 4) {
            const uint32_t* elements = static_cast<const uint32_t*>(sets.elements);
            shared = shared_elements(elements + sets.indptr[a], a_size, elements + sets.indptr[b],
                                     b_size, need);
        } else {
            const uint64_t* elements = static_cast<const uint64_t*>(sets.elements);
            shared = shared_elements(elements + sets.indptr[a], a_size, elements + sets.indptr[b],
                                     b_size, need);
        }
        if (shared < 0) return -1;
        const double score = static_cast<double>(shared) / static_cast<double>(both - shared);
        return score >= threshold ? score : -1;
    }
};

struct VectorSimilarity {
    const Kernels& kernels;
    const float* vectors;
    int64_t dim;
    double threshold;

    void prefetch(int64_t i) const { __builtin_prefetch(vectors + i * dim); }

    bool plausible(int64_t, int64_t) const { return true; }

    double operator()(int64_t a, int64_t b) const {
        float product;
        kernels.inner_products(vectors, dim, &b, 1, vectors + a * dim, &product);
        const double score = std::min(1.0, static_cast<double>(product));
        return score >= threshold ? score : -2;
    }
};

template <typename Similarity>
int64_t join(const Similarity& similarity, double nothing, const Band& band, int64_t effort,
             JoinCursor& cursor, const Pairs& out) {
    int64_t found = 0, first = cursor.first, second = cursor.second;
    while (first < band.count) {
        const uint64_t key = key_of(band.order[first]);
        const int64_t a = point_of(band.order[first]);
        for (; second < band.count && key_of(band.order[second]) == key; ++second) {
            if (found == out.room || effort-- <= 0) {
                cursor = {first, second};
                return found;
            }
            const int64_t b = point_of(band.order[second]);
            if (second + kAhead < band.count) {
                similarity.prefetch(point_of(band.order[second + kAhead]));
            }
            if (!similarity.plausible(a, b) || shares_earlier(band, a, b)) continue;
            const double score = similarity(a, b);
            if (score <= nothing) continue;
            out.a[found] = a;
            out.b[found] = b;
            out.scores[found] = score;
            ++found;
        }
        ++first;
        second = first + 1;
    }
    cursor = {band.count, band.count};
    return found;
}

int64_t root_of(int64_t* parent, int64_t i) {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];  // path halving
        i = parent[i];
    }
    return i;
}

int64_t unite(int64_t* parent, int64_t a, int64_t b) {
    a = root_of(parent, a);
    b = root_of(parent, b);
    if (a > b) std::swap(a, b);
    parent[b] = a;
    return a;
}

// The clusters that the points of one run belong to, as linked lists over places of the run. A
// point is compared with the members of every other cluster until one is near; so a run of near
// duplicates takes a comparison a point, and not one a pair.
struct RunClusters {
    int64_t* next;   // place of the next member, or -1
    int64_t* heads;  // first place of each cluster
    int64_t* tails;  // last place of the cluster with this head
    int64_t count = 0;
};

template <typename Similarity>
void cluster_run(const Similarity& similarity, double nothing, const Band& band,
                 const uint64_t* run, int64_t size, int64_t* scratch, int64_t* parent) {
    RunClusters clusters{scratch, scratch + size, scratch + 2 * size};
    for (int64_t place = 0; place < size; ++place) {
        const int64_t point = point_of(run[place]);
        clusters.next[place] = -1;
        int64_t mine = -1, kept = 0;
        for (int64_t c = 0; c < clusters.count; ++c) {
            const int64_t head = clusters.heads[c];
            bool near = root_of(parent, point_of(run[head])) == root_of(parent, point);
            for (int64_t at = head; at >= 0 && !near; at = clusters.next[at]) {
                const int64_t other = point_of(run[at]);
                // Those that met in an earlier table were compared there, and found far.
                near = similarity.plausible(other, point) && !shares_earlier(band, other, point) &&
                       similarity(other, point) > nothing;
                if (near) unite(parent, other, point);
            }
            if (near && mine >= 0) {  // the point joins two clusters
                clusters.next[clusters.tails[mine]] = head;
                clusters.tails[mine] = clusters.tails[head];
                continue;
            }
            if (near) mine = head;
            clusters.heads[kept++] = head;
        }
        clusters.count = kept;
        if (mine < 0) {
            clusters.heads[clusters.count++] = place;
            clusters.tails[place] = place;
        } else {
            clusters.next[clusters.tails[mine]] = place;
            clusters.tails[mine] = place;
        }
    }
}

template <typename Similarity>
void cluster(const Similarity& similarity, double nothing, const Band& band, int64_t begin,
             int64_t end, int64_t* scratch, int64_t* parent) {
    const auto key_at = [&](int64_t i) { return key_of(band.order[i]); };
    while (begin > 0 && begin < end && key_at(begin) == key_at(begin - 1)) ++begin;
    while (begin < end) {
        int64_t stop = begin + 1;
        while (stop < band.count && key_at(stop) == key_at(begin)) ++stop;
        cluster_run(similarity, nothing, band, band.order + begin, stop - begin, scratch, parent);
        begin = stop;
    }
}

}  // namespace

void content_hashes(const StoredSets& sets, int64_t n, uint64_t seed, uint64_t* out) {
    const uint32_t* narrow = static_cast<const uint32_t*>(sets.elements);
    const uint64_t* wide = static_cast<const uint64_t*>(sets.elements);
    for (int64_t i = 0; i < n; ++i) {
        uint64_t hash = seed ^ static_cast<uint64_t>(size_of(sets, i));
        for (int64_t at = sets.indptr[i]; at < sets.indptr[i + 1]; ++at) {
            hash = (hash ^ (sets.width == 4 ? narrow[at] : wide[at])) * 0x9e3779b97f4a7c15ULL;
            hash ^= hash >> 29;
        }
        out[i] = mix64(hash);
    }
}

void set_parities(const StoredSets& sets, int64_t n, uint64_t* out) {
    const uint32_t* narrow = static_cast<const uint32_t*>(sets.elements);
    const uint64_t* wide = static_cast<const uint64_t*>(sets.elements);
    for (int64_t i = 0; i < n; ++i) {
        uint64_t* parity = out + i * kParityWords;
        std::fill(parity, parity + kParityWords, 0);
        for (int64_t at = sets.indptr[i]; at < sets.indptr[i + 1]; ++at) {
            const uint64_t x = sets.width == 4 ? narrow[at] : wide[at];
            const uint64_t bit = mix64(x) >> 56;
            parity[bit >> 6] ^= uint64_t{1} << (bit & 63);
        }
    }
}

void identical_sets(const StoredSets& sets, const uint64_t* hashes, const int64_t* order,
                    int64_t n, int64_t* first) {
    const uint8_t* bytes = static_cast<const uint8_t*>(sets.elements);
    const auto same = [&](int64_t a, int64_t b) {
        const int64_t size = size_of(sets, a);
        return size == size_of(sets, b) &&
               (size == 0 || std::memcmp(bytes + sets.indptr[a] * sets.width,
                                         bytes + sets.indptr[b] * sets.width,
                                         static_cast<size_t>(size * sets.width)) == 0);
    };
    for (int64_t begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1; end < n && hashes[order[end]] == hashes[order[begin]];) ++end;
        for (int64_t i = begin; i < end; ++i) {
            const int64_t point = order[i];
            first[point] = point;
            // Nearly always the first of the run; others only where two hashes are equal by chance.
            for (int64_t j = begin; j < i; ++j) {
                if (first[order[j]] == order[j] && same(order[j], point)) {
                    first[point] = order[j];
                    break;
                }
            }
        }
    }
}

int64_t band_order(const uint32_t* keys, int64_t points, int32_t tables, int32_t table,
                   uint64_t* scratch, uint64_t* out) {
    // Least digit first, so that points of one key stay in order.
    static_assert(kDigits % 2 == 1, "the sorted numbers end in `scratch`");
    int64_t places[kDigits][kBuckets] = {};
    for (int64_t i = 0; i < points; ++i) {
        const uint32_t key = keys[i * tables + table];
        out[i] = static_cast<uint64_t>(key) << 32 | static_cast<uint64_t>(i);
        for (int d = 0; d < kDigits; ++d) ++places[d][key >> (d * kDigitBits) & (kBuckets - 1)];
    }
    uint64_t *from = out, *to = scratch;
    for (int d = 0; d < kDigits; ++d) {
        int64_t at = 0;
        for (int64_t& place : places[d]) at += std::exchange(place, at);
        for (int64_t i = 0; i < points; ++i) {
            const uint64_t entry = from[i];
            to[places[d][key_of(entry) >> (d * kDigitBits) & (kBuckets - 1)]++] = entry;
        }
        std::swap(from, to);
    }
    int64_t written = 0;
    for (int64_t i = 0; i < points; ++i) {
        const bool as_before = i > 0 && key_of(scratch[i]) == key_of(scratch[i - 1]);
        const bool as_after = i + 1 < points && key_of(scratch[i]) == key_of(scratch[i + 1]);
        if (as_before || as_after) out[written++] = scratch[i];
    }
    return written;
}

int64_t join_sets(const StoredSets& sets, const uint64_t* parities, const Band& band, double threshold, int64_t effort,
                  JoinCursor& cursor, const Pairs& out) {
    return join(SetSimilarity{sets, parities, threshold}, -1, band, effort, cursor, out);
}

int64_t join_vectors(const Kernels& kernels, const float* vectors, int64_t dim, const Band& band,
                     double threshold, int64_t effort, JoinCursor& cursor, const Pairs& out) {
    const VectorSimilarity similarity{kernels, vectors, dim, threshold};
    return join(similarity, -2, band, effort, cursor, out);
}

void cluster_sets(const StoredSets& sets, const uint64_t* parities, const Band& band, double threshold, int64_t begin,
                  int64_t end, int64_t* scratch, int64_t* parent) {
    cluster(SetSimilarity{sets, parities, threshold}, -1, band, begin, end, scratch, parent);
}

void cluster_vectors(const Kernels& kernels, const float* vectors, int64_t dim, const Band& band,
                     double threshold, int64_t begin, int64_t end, int64_t* scratch,
                     int64_t* parent) {
    const VectorSimilarity similarity{kernels, vectors, dim, threshold};
    cluster(similarity, -2, band, begin, end, scratch, parent);
}

int64_t longest_run(const uint64_t* order, int64_t count) {
    int64_t longest = 0;
    for (int64_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && key_of(order[end]) == key_of(order[begin]);) ++end;
        longest = std::max(longest, end - begin);
    }
    return longest;
}

void unite_pairs(const int64_t* a, const int64_t* b, int64_t count, int64_t* parent) {
    for (int64_t i = 0; i < count; ++i) unite(parent, a[i], b[i]);
}

void flatten_clusters(int64_t* parent, int64_t n) {
    // A parent is never later than its child, so one pass from the front is enough.
    for (int64_t i = 0; i < n; ++i) parent[i] = parent[parent[i]];
}

}  // namespace closeby
