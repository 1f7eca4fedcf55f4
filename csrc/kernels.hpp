// The kernels of closeby: hashing, group tests, sketch scans, exact re-rank.
//
// Plain arrays in, plain arrays out. No Python, no I/O, no clock, no global state; nothing here
// throws or allocates, so the caller may drop the interpreter lock. Sizes are trusted: the one
// caller (index/_native.pyx) checks shapes before it calls.
//
// Every function exists once for each instruction set (isa.cpp) and gives the same bits in all.
#pragma once

#include <cstddef>
#include <cstdint>

namespace closeby {

// n sets in CSR form: the elements of set i are indices[indptr[i] .. indptr[i+1]), ascending.
struct Sets {
    const int64_t* indptr;
    const uint64_t* indices;
    int64_t n;
};

// The same as stored in a segment: elements are 4 or 8 bytes wide, offsets count elements.
struct StoredSets {
    const int64_t* indptr;
    const void* elements;
    int width;  // 4 or 8
};

// One segment's bit-sliced group tests (see group_test.inl).
struct GroupTests {
    const uint8_t* bitmaps;  // [tables][1 << range_bits][stride]
    int64_t stride;          // bytes of one bitmap, a multiple of 32
    int64_t cells;
    int32_t tables;
    int32_t range_bits;
    int32_t group_size;
};

// One segment's LSH tables (see postings.cpp).
struct Postings {
    const uint32_t* offsets;    // [tables][(1 << range_bits) + 1]
    const uint32_t* positions;  // [tables][points]
    int64_t points;
    int32_t tables;
    int32_t range_bits;
};

// A query set as a table of buckets (see overlap.inl). The multiplier comes from a random salt and
// decides only where elements lie, so that nobody can choose elements that collide; answers do not
// depend on it.
constexpr int64_t kBucket = 4;
struct HashSet {
    const void* places;  // [buckets][kBucket] elements as wide as those of the stored sets
    const uint64_t* overflow;  // elements whose bucket is full, rising
    int64_t overflow_count;
    uint64_t multiplier;
    int shift;
    int64_t size;
};

// The first bytes of a sketch, which lie apart from the rest (see scan.inl).
constexpr int64_t kCoarseBytes = 16;
// Coarse distances are looked through so many at a time.
constexpr int64_t kScanBlock = 32;

// What one query scans.
struct SketchScan {
    const uint8_t* coarse;  // [points][kCoarseBytes]
    const uint8_t* fine;    // [points][fine_bytes]
    int64_t fine_bytes;     // 0, 16 or 48
    const uint8_t* dead;    // bit set of removed points, or null
    int64_t points;
    int64_t group_size;
    const int64_t* cells;
    int64_t cell_count;
    int64_t shortlist;  // how many by coarse distance are ranked by all of the sketch, >= want
    int64_t want;
};
struct ScanScratch {
    uint8_t* coarse;      // [cell_count * group_size + kScanBlock]
    int64_t* positions;   // [shortlist]
    uint16_t* distances;  // [shortlist]
};

struct Kernels {
    const char* name;

    // MinHash by k-permutation. out[i][j] = min over x in set i of h_j(x); all ones if empty.
    void (*minhash_permutation)(const Sets& sets, const uint32_t* xors, const uint32_t* multipliers,
                                int64_t values, uint64_t seed, uint32_t* out);
    // 32-bit table keys from `K` consecutive MinHash values each, and 1-bit MinHash sketches.
    void (*minhash_keys)(const uint32_t* signatures, int64_t n, int64_t signature_stride,
                         int64_t tables, int64_t K, uint64_t seed, uint32_t* out);
    void (*minhash_sketch)(const uint32_t* signatures, int64_t n, int64_t signature_stride,
                           int64_t bits, uint8_t* out);
    // Signed random projections: `bits` signs a vector. scratch: float[padded].
    void (*srp_bits)(const float* vectors, int64_t n, int64_t dim, int64_t padded,
                     const float* signs, int64_t bits, float* scratch, uint8_t* out);
    // The same of sparse vectors, values[i] at dimension features.indices[i]. sums: float[bits].
    void (*srp_sparse_bits)(const Sets& features, const float* values, uint64_t seed, int64_t bits,
                            float* sums, uint8_t* out);

    // Counts the tests that cells pass, for the 64 cells of each word first .. last of a bitmap,
    // both multiples of 4. scratch: uint64[(planes + 2) * stride / 8] (group_scratch).
    void (*group_count)(const GroupTests& tests, const uint32_t* keys, int64_t first, int64_t last,
                        uint64_t* scratch);
    // The `want` cells with the highest counts, all of them having been counted; ties by cell
    // number. Where `want` is all or more, nothing need be counted. Returns how many were written.
    int64_t (*group_best)(const GroupTests& tests, int64_t want, uint64_t* scratch,
                          int64_t* cells_out);
    // How many tests each cell passes, counts[cells]: what the paper's own decode walks.
    void (*group_counts)(const GroupTests& tests, const uint32_t* keys, uint64_t* scratch,
                         uint16_t* counts);
    // Distances by the first bytes of the sketches, of the points of cells first .. last of those
    // that are scanned. out: as `coarse` of the scratch.
    void (*sketch_distances)(const SketchScan& scan, const uint8_t* query, int64_t first,
                             int64_t last, uint8_t* out);
    // The best `want` points of the cells by sketch, by rising distance (bits that differ), then in
    // the order of the scan; after sketch_distances of all cells. Returns how many were written.
    int64_t (*sketch_best)(const SketchScan& scan, const uint8_t* query, const ScanScratch& scratch,
                           int64_t* positions_out, uint16_t* distances_out);
    // Inner products of one query with chosen rows, summed in a fixed order.
    void (*inner_products)(const float* vectors, int64_t dim, const int64_t* positions,
                           int64_t count, const float* query, float* out);
    // Exact Jaccard similarity of the query with chosen stored sets; 0 where both are empty. The
    // query's table must be made for elements of the width of the stored ones.
    void (*jaccard)(const StoredSets& sets, const int64_t* positions, int64_t count,
                    const HashSet& query, float* out);
};

// nullptr if this machine or build lacks it. Names: "baseline", "avx2".
const Kernels* kernels_by_name(const char* name);
// The best that this machine runs.
const Kernels* best_kernels();

// --- the same for every instruction set (dispatch.cpp) ---------------------------------------

// MinHash by one permutation with optimal densification (Shrivastava, ICML 2017).
// occupied: uint64[one_permutation_scratch(values)].
int64_t one_permutation_scratch(int64_t values);
void minhash_one_permutation(const Sets& sets, int64_t values, uint64_t seed, uint64_t* occupied,
                             uint32_t* out);

// Inner products of one sparse vector with all rows, out[vectors.n]: summed in double in the order
// of the dimensions, which are ascending in both.
struct SparseRow {
    const uint64_t* indices;
    const float* values;
    int64_t size;
};
void sparse_products(const Sets& vectors, const float* values, const SparseRow& query, float* out);

// Sets the bit (table, key of the point, cell of the point) for points first .. first + n.
void group_insert(uint8_t* bitmaps, int64_t stride, int32_t range_bits, int32_t group_size,
                  int32_t tables, const uint32_t* keys, int64_t first, int64_t n);
// uint64 words of scratch that group_count needs.
int64_t group_scratch(int64_t stride, int64_t tables);

// --- postings.cpp -----------------------------------------------------------------------------

// Makes the tables: positions[t][i] is the key of point i at first, what the query reads at last.
// keys: scratch of `points`.
void postings_sort(uint32_t* positions, uint32_t* offsets, int64_t points, int32_t tables,
                   int32_t range_bits, uint32_t* keys);
// uint64 words of marks that postings_query needs, all zero; it leaves them zero.
int64_t postings_marks(int64_t points);
// Points that share the query's bucket in any of the first `probed` tables, rising, each once.
// positions_out has room for all points. Returns how many were written.
int64_t postings_query(const Postings& postings, const uint32_t* keys, int32_t probed,
                       uint64_t* marks, int64_t* positions_out);

// --- candidates.cpp ---------------------------------------------------------------------------

// What selects the points of one segment that a query's sketch is compared with.
struct Selection {
    GroupTests tests;
    Postings postings;  // used if it has tables
    int64_t breadth;    // cells of the tests, or tables of the postings
    uint64_t* counts;   // [group_scratch]
    int64_t* cells;     // [cells that may be selected]
    uint64_t* marks;    // [postings_marks]
};

class Team;

// The best candidates of a query: selection, then sketch_best. With a team, cells are counted and
// scanned by several threads; the answer is the same.
int64_t find_candidates(const Kernels& kernels, const Selection& selection, SketchScan scan,
                        const uint32_t* keys, const uint8_t* sketch, const ScanScratch& scratch,
                        Team* team, int64_t* positions_out, uint16_t* distances_out);

// How many cells pass how many tests, histogram[tables + 1]; and of n chosen cells how many each
// passes, and its place among all, by falling count, then rising number, from 1 on. A chosen cell
// below 0 is none: 0 and 0. scratch: as for group_count; counts[cells].
void rank_cells(const Kernels& kernels, const GroupTests& tests, const uint32_t* keys,
                const int64_t* chosen, int64_t n, uint64_t* scratch, uint16_t* counts,
                int64_t* histogram, uint16_t* passed, int64_t* places);

// --- paper.cpp --------------------------------------------------------------------------------

// The cells of all rows: cell c holds members[first[c] .. first[c + 1]), positions of points.
struct PaperCells {
    const int64_t* first;
    const uint32_t* members;
    const uint8_t* dead;  // bit set of removed points
    int64_t cells;
    int32_t rows;
};
struct PaperScratch {
    int64_t* order;      // [cells]
    int64_t* histogram;  // [tables + 1]
    uint8_t* met;        // [points], all zero; left so
};
// Sets the bits of n points whose cells are cells[i][row].
void paper_insert(uint8_t* bitmaps, int64_t stride, int32_t range_bits, int32_t tables,
                  const uint32_t* keys, const uint32_t* cells, int64_t rows, int64_t n);
// The first k points that are met in all rows, visiting cells by falling count; ties by number of
// the cell, then as they lie in it. passed: count of the last cell in which a point was met.
// Returns how many were found.
int64_t paper_decode(const PaperCells& cells, const uint16_t* counts, int32_t tables, int64_t k,
                     const PaperScratch& scratch, int64_t* hits, uint16_t* passed);

// --- exact re-rank (dispatch.cpp) -------------------------------------------------------------

// uint64 words that the table of a set of so many elements needs, whatever their width.
int64_t hash_set_words(int64_t elements);
// width: 4 or 8, of the elements of the stored sets. memory: hash_set_words(n) words, aligned to
// 32 bytes is fastest.
HashSet hash_set_build(const uint64_t* elements, int64_t n, uint64_t salt, int width,
                       uint64_t* memory);

// The distinct elements of several query sets, and which queries hold each: query numbers
// holders[first[e] .. first[e + 1]) of the e-th element. Made by element_map_build.
struct ElementMap {
    const uint64_t* slots;
    const int32_t* numbers;  // by slot, which element
    int64_t slot_count;
    uint64_t multiplier;
    int shift;
    int32_t marker_number;  // the element that marks free slots, or -1
};
int64_t element_map_slots(int64_t elements);
ElementMap element_map_build(const uint64_t* elements, int64_t n, uint64_t salt,
                             int64_t slot_count, uint64_t* slots, int32_t* numbers);
// Exact Jaccard similarity of every set with every query, each set read once: out[query][set].
// shared: uint32[queries] scratch. sizes: of the query sets.
void jaccard_scan(const Sets& sets, const ElementMap& map, const int64_t* first,
                  const int32_t* holders, const int64_t* sizes, int64_t queries, uint32_t* shared,
                  float* out);

// Candidates in the order of sketch_best, and what the exact scores are wanted for.
struct Candidates {
    const int64_t* positions;
    const uint16_t* distances;
    int64_t count;
    const int64_t* ids;  // by position
    // highest[d]: the highest score that a candidate at sketch distance d can plausibly have,
    // falling in d. Once it is below the k-th best score, the rest is not compared.
    const float* highest;
    int64_t k;
    float min_score;
};
// The k best candidates by exact score: falling score, then rising id. hits and scores have room
// for all candidates; returns how many of the first k places are hits.
int64_t rerank_sets(const Kernels& kernels, const StoredSets& sets, const HashSet& query, const Candidates& candidates,
                    int64_t* hits, float* scores);
int64_t rerank_vectors(const Kernels& kernels, const float* vectors, int64_t dim,
                       const float* query, const Candidates& candidates, int64_t* hits,
                       float* scores);
// values: one for each stored element, which ascend within each row, as the query's do.
int64_t rerank_sparse(const StoredSets& sets, const float* values, const SparseRow& query,
                      const Candidates& candidates, int64_t* hits, float* scores);

// --- features.cpp: raw input to set elements --------------------------------------------------
// Each writes the elements of one input, in order of occurrence and with repeats, and returns how
// many; `out` has room for one element for each input byte.

// n-grams of bytes. Up to 4 bytes an element is the bytes themselves, above it a 64-bit hash.
int64_t byte_shingles(const uint8_t* text, int64_t size, int64_t n, uint64_t* out);
// n-grams of UTF-8 characters: hash of the characters' bytes.
int64_t char_shingles(const uint8_t* text, int64_t size, int64_t n, uint64_t* out);
// n-grams of words: maximal runs of letters and digits (ASCII) and of all bytes >= 128.
int64_t word_shingles(const uint8_t* text, int64_t size, int64_t n, uint64_t* out);
// k-mers of A, C, G, T/U (either case), 2 bits a letter, k <= 32; a k-mer with any other letter is
// left out. Canonical: the smaller of the k-mer and its reverse complement.
int64_t dna_kmers(const uint8_t* sequence, int64_t size, int64_t k, bool canonical, uint64_t* out);
// k-mers of other alphabets or lengths: the hash of k letters, each as `letters` has it, where 0 is
// no letter and breaks the k-mer. With complements: the smaller of the hashes of the k-mer and its
// reverse complement. scratch: 2 * size bytes.
int64_t letter_kmers(const uint8_t* sequence, int64_t size, int64_t k, const uint8_t* letters,
                     const uint8_t* complements, uint8_t* scratch, uint64_t* out);
// n-grams of numbers; fewer than n are one n-gram. `out` has room for `size`.
int64_t number_ngrams(const uint64_t* values, int64_t size, int64_t n, uint64_t* out);

// Sorts elements and drops repeats, in place; returns how many are left. With copies > 1 up to so
// many repeats become elements of their own: the Jaccard similarity of what comes out is that of
// the multisets, sum of minima over sum of maxima. scratch: n elements.
int64_t distinct(uint64_t* elements, int64_t n, int64_t copies, uint64_t* scratch);
// The same for each row, one after the other without gaps; writes the new offsets. scratch: as
// many elements as the longest row.
void sort_unique_rows(const int64_t* indptr, int64_t n, uint64_t* elements, int64_t copies,
                      uint64_t* scratch, int64_t* indptr_out);
// --- json_rows.cpp: lists of whole numbers in a JSON text ----------------------------------------
// Where the value of a key of the outermost object lies, and what is in it.
struct JsonRows {
    int64_t begin, end;
    int64_t rows, numbers;
};
// Whether the key is there once, and its value a list of lists of numbers 0 .. 2^64 - 1; what else
// is in the text is not checked.
bool find_json_rows(const char* text, int64_t size, const char* key, int64_t key_size,
                    JsonRows* found);
// indptr: found.rows + 1; values: found.numbers, of the rows one after another.
void copy_json_rows(const char* text, const JsonRows& found, int64_t* indptr, uint64_t* values);

// Copies chosen stored sets one after another, widened; `out` has room for their elements.
void copy_sets(const StoredSets& sets, const int64_t* rows, int64_t n, uint64_t* out);
// The 64-bit hash of a byte string: what a token becomes.
uint64_t hash_bytes(const uint8_t* data, int64_t size);

}  // namespace closeby
