// The kernels of maximum inner product search: codes of rotated residuals, scanned by shuffles.
//
// As in kernels.hpp: plain arrays in and out, nothing allocated, nothing thrown, sizes trusted (the
// one caller is index/_maxip.pyx), and the same bits from every instruction set.
#pragma once

#include <cstdint>

namespace closeby {

// 1-bit codes of points in blocks of 32 (see maxip.inl).
struct Codes {
    const uint8_t* codes;  // [blocks][bits / 8][32]
    const float* factors;  // [blocks * 32], NaN where there is no point
    int64_t bits;          // a multiple of 32
};

// Vectors rounded to bytes: row i stands for rows[i] * scales[i].
struct ByteRows {
    const int8_t* rows;   // [n][stride]
    const float* scales;  // [n]
    int64_t stride;       // a multiple of 16, at least the dimension; zeros behind it
};

// A query rounded to 16 bits: values[j] * scale stands for coordinate j.
struct ByteQuery {
    const int16_t* values;  // [stride]
    float scale;
};

// A query as tables over groups of four coordinates: a sum S stands for S * scale + offset.
struct CodeQuery {
    const uint8_t* tables;  // [bits / 4][16]
    float scale;
    float offset;
};

// Blocks of a list that are asked for before they are scanned.
constexpr int64_t kBlocksAhead = 3;

// Points at their places, and what is made of them.
struct Encoding {
    const float* vectors;    // [places][dim]
    const int64_t* owners;   // [places]
    const float* centroids;  // [lists][dim]
    int64_t dim;
    int64_t padded;
    const float* signs;  // [3][padded]
    int64_t bits;
    uint8_t* codes;   // as in Codes
    float* factors;   // [places]
    double* squares;  // [places]
};

struct MaxIPKernels {
    const char* name;

    // Places of blocks begin .. end whose estimate base + factor * (S * scale + offset) is above
    // bar, and the estimates; room for all places. Returns how many.
    int64_t (*code_scan)(const Codes& codes, const CodeQuery& query, int64_t begin, int64_t end,
                         float base, float bar, int64_t* places, float* estimates);
    // Lists begin .. end whose score product + reach * spread is above bar, and the scores; room
    // for all. Returns how many.
    int64_t (*list_scan)(const float* products, const float* spreads, float reach, int64_t begin,
                         int64_t end, float bar, int64_t* lists, float* scores);
    // Inner products with the rows at `places`, or with rows 0 .. count if places is null. The
    // values of the query are so small that no sum leaves 32 bits.
    void (*byte_products)(const ByteRows& rows, const ByteQuery& query, const int64_t* places,
                          int64_t count, float* out);
    // Random rotation of vectors padded with zeros: float[n][padded]. signs: [3][padded].
    void (*rotate)(const float* vectors, int64_t n, int64_t dim, int64_t padded,
                   const float* signs, float* out);
    // Inner products of one query with the rows at `positions`, or with the rows 0 .. count; both
    // are summed in the same order.
    void (*inner_products)(const float* vectors, int64_t dim, const int64_t* positions,
                           int64_t count, const float* query, float* out);
    void (*row_products)(const float* rows, int64_t dim, int64_t count, const float* query,
                         float* out);

    // Building (maxip_build.inl).
    // Codes, factors and squared distances to their centres of places begin .. end, whole blocks.
    // owners: the list of each, -1 where there is no point. scratch: [padded].
    void (*encode)(const Encoding& encoding, int64_t begin, int64_t end, float* scratch);
    // Vectors rounded to bytes: [n][stride] and a scale each.
    void (*round_rows)(const float* vectors, int64_t n, int64_t dim, int64_t stride, int8_t* rows,
                       float* scales);
    // Where the best of a row of scores less half a square each beats the one known for the row's
    // point, it takes its place. scores: [n][count]; points: which of best and owners a row is.
    void (*take_nearer)(const float* scores, int64_t n, int64_t count, const float* halves,
                        const int64_t* points, int64_t first, float* best, int64_t* owners);
    // Adds each vector to the sum of its list.
    void (*sum_rows)(const float* vectors, int64_t n, int64_t dim, const int64_t* owners,
                     double* sums);
};

// nullptr if this machine or build lacks it. Names: "baseline", "avx2".
const MaxIPKernels* maxip_kernels_by_name(const char* name);

// Points grouped into lists around centres; the places of list l are those of the blocks
// starts[l] .. starts[l + 1].
struct MaxIPLists {
    ByteRows centroids;      // of the lists
    const float* spreads;    // [lists], root mean square distance to the centre
    const int64_t* starts;   // [lists + 1]
    int64_t lists;
    int64_t dim;
    int64_t padded;       // a power of two, at least dim and bits
    const float* signs;   // [3][padded]
    Codes codes;
    ByteRows bytes;        // of the places
    const float* vectors;  // [places][dim]
    const int64_t* ids;    // [places]
};

struct MaxIPEffort {
    int64_t probes;      // lists scanned
    int64_t candidates;  // best by code, compared by their bytes; at least `finals`
    int64_t finals;      // best by bytes, compared exactly; at least k
    int64_t k;
    float kappa;  // spreads above its centre that a list is credited with
    float min_score;
};

struct Candidate {
    int64_t place;
    float estimate;
};

// Room for candidate_room(candidates) entries each, or list_room(probes).
struct CandidateBuffer {
    int64_t* places;
    float* estimates;
    Candidate* doubtful;
};

struct MaxIPScratch {
    float* list_products;  // [lists]
    int64_t* list_order;   // [probes]
    CandidateBuffer lists;  // of list_room(probes)
    int16_t* values;       // [stride]
    float* rotated;        // [padded]
    uint8_t* tables;       // [bits / 4][16]
    CandidateBuffer candidates;
};

int64_t candidate_room(int64_t candidates);
int64_t list_room(int64_t probes);
// Rounds a query to 16 bits: `values` has room for `stride`.
ByteQuery round_query(const float* query, int64_t dim, int64_t stride, int16_t* values);
// The k points with the highest inner products found: ids and scores by falling score, then rising
// id. Returns how many; *scanned is the number of places whose codes were read.
int64_t maxip_search(const MaxIPKernels& kernels, const MaxIPLists& lists, const float* query,
                     const MaxIPEffort& effort, const MaxIPScratch& scratch, int64_t* hits,
                     float* scores, int64_t* scanned);

}  // namespace closeby
