// All points against all: pairs that share a key of some LSH table, compared exactly.
//
// Plain arrays in, plain arrays out, as in kernels.hpp; the one caller (index/_native.pyx) checks
// shapes before it calls.
#pragma once

#include "kernels.hpp"

namespace closeby {

// 64-bit hash of the elements of each set; equal sets have equal hashes.
void content_hashes(const StoredSets& sets, int64_t n, uint64_t seed, uint64_t* out);
// A sketch of each set of which two tell, for certain, that sets are far: bit h(x) is the parity of
// how many elements x have it. An element that two sets share changes both alike, so their sketches
// differ in no more bits than there are elements in one set alone.
constexpr int kParityWords = 4;
void set_parities(const StoredSets& sets, int64_t n, uint64_t* out);
// first[i]: the first set with the same elements as set i. order: positions by rising hash, then
// rising position.
void identical_sets(const StoredSets& sets, const uint64_t* hashes, const int64_t* order,
                    int64_t n, int64_t* first);

// One table's points by key: key << 32 | point, rising, without the keys that only one point has.
// keys: [points][tables]. scratch: as long as out. Returns how many were written.
int64_t band_order(const uint32_t* keys, int64_t points, int32_t tables, int32_t table,
                   uint64_t* scratch, uint64_t* out);

// What is joined: points in runs of equal keys of one table.
struct Band {
    const uint64_t* order;  // of band_order
    int64_t count;
    const uint32_t* keys;  // [points][tables]
    int32_t tables;
    int32_t table;
};
// Where a join goes on: the pair (order[first], order[second]).
struct JoinCursor {
    int64_t first;
    int64_t second;
};
struct Pairs {
    int64_t* a;  // the earlier point of each pair
    int64_t* b;
    double* scores;
    int64_t room;
};
// Pairs of a band whose similarity reaches the threshold and which share no key of an earlier
// table: over all tables each pair comes once. Stops when the room is filled or about `effort`
// pairs have been looked at; cursor.first == band.count when the band is done.
// parities: of set_parities.
int64_t join_sets(const StoredSets& sets, const uint64_t* parities, const Band& band,
                  double threshold, int64_t effort, JoinCursor& cursor, const Pairs& out);
// The same for unit vectors and their inner products.
int64_t join_vectors(const Kernels& kernels, const float* vectors, int64_t dim, const Band& band,
                     double threshold, int64_t effort, JoinCursor& cursor, const Pairs& out);

// Joins points into clusters by union-find instead of listing pairs: two points that are in one
// cluster already are not compared. parent: of each point, its root has itself; the root is the
// earliest point. Of the runs that begin in begin .. end. scratch: int64[3 * longest run].
void cluster_sets(const StoredSets& sets, const uint64_t* parities, const Band& band,
                  double threshold, int64_t begin, int64_t end, int64_t* scratch, int64_t* parent);
void cluster_vectors(const Kernels& kernels, const float* vectors, int64_t dim, const Band& band,
                     double threshold, int64_t begin, int64_t end, int64_t* scratch,
                     int64_t* parent);
// Points in the longest run.
int64_t longest_run(const uint64_t* order, int64_t count);

// Unites a[i] and b[i] for all i.
void unite_pairs(const int64_t* a, const int64_t* b, int64_t count, int64_t* parent);
// Makes every parent a root.
void flatten_clusters(int64_t* parent, int64_t n);

}  // namespace closeby
