// One MaxIP query over a segment of lists: rank the lists, scan codes, re-rank exactly.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "maxip.hpp"

namespace closeby {

namespace baseline {
extern const MaxIPKernels maxip_kernels;
}
#if CLOSEBY_HAVE_AVX2
namespace avx2 {
extern const MaxIPKernels maxip_kernels;
}
#endif

const MaxIPKernels* maxip_kernels_by_name(const char* name) {
    if (std::strcmp(name, "baseline") == 0) return &baseline::maxip_kernels;
#if CLOSEBY_HAVE_AVX2
    if (std::strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi2")) {
        return &avx2::maxip_kernels;
    }
#endif
    return nullptr;
}

namespace {

constexpr int64_t kChunk = 64;  // blocks scanned between two looks at the bar
constexpr int64_t kBlock = 32;
constexpr int64_t kListsAhead = 3;
constexpr int64_t kListsAtOnce = 512;  // lists ranked between two looks at the bar
constexpr float kNobody = -1e38f;      // lists without points score below
constexpr float kMaxEntry = 63.0f;  // four table entries fit a byte

// Tables of the 16 signed sums of each four coordinates, shifted and rounded to bytes: a sum of
// entries S stands for S * scale + offset.
CodeQuery make_tables(const float* rotated, int64_t bits, uint8_t* tables) {
    const int64_t groups = bits / 4;
    float widest = 0.0f;
    double total = 0.0, low = 0.0;
    for (int64_t g = 0; g < groups; ++g) {
        const float* x = rotated + g * 4;
        const float half = (std::fabs(x[0]) + std::fabs(x[1])) + (std::fabs(x[2]) + std::fabs(x[3]));
        widest = std::max(widest, 2.0f * half);
        total += 2.0 * half;
        low -= half;
    }
    // Sums are kept in 16 bits.
    const double steps = std::min<double>(kMaxEntry, 65000.0 * widest / std::max(total, 1e-300));
    const double scale = widest > 0.0f ? widest / std::floor(steps) : 1.0;
    for (int64_t g = 0; g < groups; ++g) {
        const float* x = rotated + g * 4;
        const double half = (std::fabs(x[0]) + std::fabs(x[1])) + (std::fabs(x[2]) + std::fabs(x[3]));
        for (int code = 0; code < 16; ++code) {
            double sum = half;
            for (int j = 0; j < 4; ++j) sum += (code >> j & 1) ? -double(x[j]) : double(x[j]);
            tables[g * 16 + code] = static_cast<uint8_t>(std::min(63.0, std::max(0.0, sum / scale + 0.5)));
        }
    }
    CodeQuery query;
    query.tables = tables;
    query.scale = static_cast<float>(scale);
    query.offset = static_cast<float>(low);
    return query;
}

// Higher estimate first, then lower place: a total order, so that answers depend on nothing else.
inline bool before(float a, int64_t place_a, float b, int64_t place_b) {
    return a > b || (a == b && place_a < place_b);
}

// Keeps the best `want` of the candidates, in any order; the bar that a further one must pass.
// A histogram between the extremes settles all but those of one bin without comparing any two.
float keep_best(CandidateBuffer& buffer, int64_t& count, int64_t want, float bar) {
    constexpr int kBins = 256;
    if (count <= want) return bar;
    float low = buffer.estimates[0], high = low;
    for (int64_t i = 1; i < count; ++i) {
        low = std::min(low, buffer.estimates[i]);
        high = std::max(high, buffer.estimates[i]);
    }
    float step = (kBins - 1) / (high - low);
    if (!std::isfinite(step)) step = 0.0f;  // all equal or nearly so: one bin
    int32_t sizes[kBins] = {};
    const auto bin_of = [&](float estimate) {  // 0 is the best; never above kBins - 1
        return std::min(static_cast<int32_t>((high - estimate) * step), kBins - 1);
    };
    for (int64_t i = 0; i < count; ++i) ++sizes[bin_of(buffer.estimates[i])];
    int32_t last = 0;
    int64_t sure = 0;
    while (sure + sizes[last] < want) sure += sizes[last++];
    int64_t kept = 0, doubtful = 0;
    for (int64_t i = 0; i < count; ++i) {
        const Candidate one = {buffer.places[i], buffer.estimates[i]};
        const int32_t bin = bin_of(one.estimate);
        buffer.doubtful[doubtful] = one;
        doubtful += bin == last;
        buffer.estimates[kept] = one.estimate;
        buffer.places[kept] = one.place;
        kept += bin < last;
    }
    Candidate* const least = buffer.doubtful + (want - sure - 1);
    std::nth_element(buffer.doubtful, least, buffer.doubtful + doubtful,
                     [](const Candidate& a, const Candidate& b) {
                         return before(a.estimate, a.place, b.estimate, b.place);
                     });
    for (const Candidate* one = buffer.doubtful; one <= least; ++one) {
        buffer.estimates[kept] = one->estimate;
        buffer.places[kept++] = one->place;
    }
    count = want;
    return least->estimate;
}

// The kept lists, roughly by falling score: early ones raise the bar for the points of later ones.
void roughly_sorted(const CandidateBuffer& lists, int64_t count, int64_t* order) {
    constexpr int kBins = 256;
    float low = std::numeric_limits<float>::infinity(), high = -low;
    for (int64_t i = 0; i < count; ++i) {
        low = std::min(low, lists.estimates[i]);
        high = std::max(high, lists.estimates[i]);
    }
    float step = (kBins - 1) / (high - low);
    if (!std::isfinite(step)) step = 0.0f;
    const auto bin_of = [&](float score) {  // 0 is the best
        return std::min(static_cast<int32_t>((high - score) * step), kBins - 1);
    };
    int64_t starts[kBins + 1] = {};
    for (int64_t i = 0; i < count; ++i) ++starts[bin_of(lists.estimates[i]) + 1];
    for (int bin = 0; bin < kBins; ++bin) starts[bin + 1] += starts[bin];
    for (int64_t i = 0; i < count; ++i) order[starts[bin_of(lists.estimates[i])]++] = lists.places[i];
}

// Asks for the first blocks of a list; code_scan does so for the others.
void fetch_list(const MaxIPLists& lists, int64_t l) {
    const int64_t bytes = lists.codes.bits / 8 * kBlock;
    const int64_t end = std::min(lists.starts[l] + kBlocksAhead, lists.starts[l + 1]);
    for (int64_t b = lists.starts[l]; b < end; ++b) {
        for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(lists.codes.codes + b * bytes + at);
        __builtin_prefetch(lists.codes.factors + b * kBlock);
        __builtin_prefetch(lists.codes.factors + b * kBlock + 16);
    }
}

}  // namespace

int64_t candidate_room(int64_t want) { return 2 * want + kChunk * kBlock; }

int64_t list_room(int64_t want) { return 2 * want + kListsAtOnce; }

ByteQuery round_query(const float* query, int64_t dim, int64_t stride, int16_t* values) {
    float widest = 0.0f;
    for (int64_t j = 0; j < dim; ++j) widest = std::max(widest, std::fabs(query[j]));
    const int64_t most = std::min<int64_t>(32767, 2147483647 / (127 * stride));
    const double scale = widest > 0.0f ? double(widest) / double(most) : 1.0;
    for (int64_t j = 0; j < stride; ++j) {
        const double value = j < dim ? query[j] / scale : 0.0;
        values[j] = static_cast<int16_t>(value + (value < 0 ? -0.5 : 0.5));
    }
    return {values, static_cast<float>(scale)};
}

int64_t maxip_search(const MaxIPKernels& kernels, const MaxIPLists& lists, const float* query,
                     const MaxIPEffort& effort, const MaxIPScratch& scratch, int64_t* hits,
                     float* scores, int64_t* scanned) {
    // 1. Rank the lists: the score of the centre, and what a point of it may lie above that.
    const ByteQuery rounded = round_query(query, lists.dim, lists.bytes.stride, scratch.values);
    kernels.byte_products(lists.centroids, rounded, nullptr, lists.lists, scratch.list_products);
    double square = 0.0;
    for (int64_t j = 0; j < lists.dim; ++j) square += double(query[j]) * query[j];
    const float reach = effort.kappa * static_cast<float>(std::sqrt(square));
    CandidateBuffer ranked = scratch.lists;
    int64_t probes = 0;
    const int64_t wanted = std::min(effort.probes, lists.lists);
    float least = kNobody;
    for (int64_t l = 0; l < lists.lists; l += kListsAtOnce) {
        const int64_t end = std::min(l + kListsAtOnce, lists.lists);
        probes += kernels.list_scan(scratch.list_products, lists.spreads, reach, l, end, least,
                                    ranked.places + probes, ranked.estimates + probes);
        if (probes > 2 * wanted) least = keep_best(ranked, probes, wanted, least);
    }
    keep_best(ranked, probes, wanted, least);
    roughly_sorted(ranked, probes, scratch.list_order);

    // 2. Scan their codes.
    kernels.rotate(query, 1, lists.dim, lists.padded, lists.signs, scratch.rotated);
    const CodeQuery tables = make_tables(scratch.rotated, lists.codes.bits, scratch.tables);
    CandidateBuffer buffer = scratch.candidates;
    int64_t count = 0, touched = 0;
    float bar = -std::numeric_limits<float>::infinity();
    for (int64_t p = 0; p < probes; ++p) {
        // Lists lie anywhere: the beginning of one is fetched while those before it are scanned.
        if (p + kListsAhead < probes) fetch_list(lists, scratch.list_order[p + kListsAhead]);
        const int64_t l = scratch.list_order[p];
        for (int64_t at = lists.starts[l]; at < lists.starts[l + 1]; at += kChunk) {
            const int64_t end = std::min(at + kChunk, lists.starts[l + 1]);
            touched += (end - at) * kBlock;
            count += kernels.code_scan(lists.codes, tables, at, end, scratch.list_products[l], bar,
                                       buffer.places + count, buffer.estimates + count);
            if (count > 2 * effort.candidates) bar = keep_best(buffer, count, effort.candidates, bar);
        }
    }
    keep_best(buffer, count, effort.candidates, bar);
    *scanned = touched;

    // 3. Compare the best by their bytes, and the best of those exactly.
    if (count > effort.finals) {
        kernels.byte_products(lists.bytes, rounded, buffer.places, count, buffer.estimates);
        keep_best(buffer, count, effort.finals, bar);
    }
    constexpr int64_t kAhead = 8;
    const int64_t row_bytes = lists.dim * static_cast<int64_t>(sizeof(float));
    const auto fetch = [&](int64_t i) {
        const char* row = reinterpret_cast<const char*>(lists.vectors + buffer.places[i] * lists.dim);
        for (int64_t b = 0; b < row_bytes && b < 1024; b += 64) __builtin_prefetch(row + b);
    };
    for (int64_t i = 0; i < std::min(kAhead, count); ++i) fetch(i);
    int64_t kept = 0;
    for (int64_t i = 0; i < count; ++i) {
        if (i + kAhead < count) fetch(i + kAhead);
        float score;
        kernels.inner_products(lists.vectors, lists.dim, buffer.places + i, 1, query, &score);
        if (!(score >= effort.min_score)) continue;
        const int64_t id = lists.ids[buffer.places[i]];
        if (kept == effort.k && !before(score, id, scores[kept - 1], hits[kept - 1])) continue;
        int64_t place = kept < effort.k ? kept++ : kept - 1;
        for (; place > 0 && before(score, id, scores[place - 1], hits[place - 1]); --place) {
            scores[place] = scores[place - 1];
            hits[place] = hits[place - 1];
        }
        scores[place] = score;
        hits[place] = id;
    }
    return kept;
}

}  // namespace closeby
