// LSH tables as postings: for every table and bucket, which points have that key.
//
//   offsets    table 0 |  0  2  2  5 ...          bucket b holds positions[offsets[b] ..
//   positions  table 0 |  7 90 | 3 14 15 | ...    offsets[b + 1]), rising
//
// A bucket is a value of a key's top `range_bits` bits. Positions are 32 bits wide and count the
// points of one segment.
#include <cstring>

#include "kernels.hpp"

namespace closeby {

namespace {

inline int64_t bucket_of(uint32_t key, int32_t range_bits) {
    return static_cast<int64_t>(key) >> (32 - range_bits);
}

// Marks of points: a bit a point, a bit for each word of those, a bit for each word of these. All
// marks are found, in order and each once, without a sort and without reading words of zeros.
struct Marks {
    uint64_t* points;
    uint64_t* words;
    uint64_t* blocks;
    int64_t block_words;

    Marks(uint64_t* memory, int64_t n) {
        const int64_t point_words = (n + 63) / 64, word_words = (point_words + 63) / 64;
        points = memory;
        words = points + point_words;
        blocks = words + word_words;
        block_words = (word_words + 63) / 64;
    }

    void set(int64_t point) {
        uint64_t& word = points[point >> 6];
        if (word == 0) {
            words[point >> 12] |= uint64_t{1} << (point >> 6 & 63);
            blocks[point >> 18] |= uint64_t{1} << (point >> 12 & 63);
        }
        word |= uint64_t{1} << (point & 63);
    }

    // Writes all marked points and clears the marks.
    int64_t take(int64_t* out) {
        int64_t found = 0;
        for (int64_t b = 0; b < block_words; ++b) {
            for (uint64_t block = blocks[b]; block != 0; block &= block - 1) {
                const int64_t w = b * 64 + __builtin_ctzll(block);
                for (uint64_t word = words[w]; word != 0; word &= word - 1) {
                    const int64_t p = w * 64 + __builtin_ctzll(word);
                    for (uint64_t point = points[p]; point != 0; point &= point - 1) {
                        out[found++] = p * 64 + __builtin_ctzll(point);
                    }
                    points[p] = 0;
                }
                words[w] = 0;
            }
            blocks[b] = 0;
        }
        return found;
    }
};

}  // namespace

void postings_sort(uint32_t* positions, uint32_t* offsets, int64_t points, int32_t tables,
                   int32_t range_bits, uint32_t* keys) {
    const int64_t buckets = int64_t{1} << range_bits;
    for (int32_t t = 0; t < tables; ++t) {
        uint32_t* table = positions + t * points;
        uint32_t* ends = offsets + t * (buckets + 1);
        std::memcpy(keys, table, static_cast<size_t>(points) * sizeof(uint32_t));
        // Counting sort; afterwards ends[b + 1] has moved from the bucket's begin to its end.
        std::memset(ends, 0, static_cast<size_t>(buckets + 1) * sizeof(uint32_t));
        for (int64_t i = 0; i < points; ++i) {
            const int64_t bucket = bucket_of(keys[i], range_bits);
            if (bucket + 2 <= buckets) ++ends[bucket + 2];
        }
        for (int64_t b = 1; b < buckets; ++b) ends[b + 1] += ends[b];
        for (int64_t i = 0; i < points; ++i) {
            table[ends[bucket_of(keys[i], range_bits) + 1]++] = static_cast<uint32_t>(i);
        }
    }
}

int64_t postings_marks(int64_t points) {
    const int64_t point_words = (points + 63) / 64, word_words = (point_words + 63) / 64;
    return point_words + word_words + (word_words + 63) / 64;
}

int64_t postings_query(const Postings& postings, const uint32_t* keys, int32_t probed,
                       uint64_t* marks, int64_t* positions_out) {
    const int64_t buckets = int64_t{1} << postings.range_bits;
    const auto bounds = [&](int32_t t) {
        return postings.offsets + t * (buckets + 1) + bucket_of(keys[t], postings.range_bits);
    };
    // Nothing that is read depends on what was read in another table: ask for all of it first.
    for (int32_t t = 0; t < probed; ++t) __builtin_prefetch(bounds(t));
    for (int32_t t = 0; t < probed; ++t) {
        __builtin_prefetch(postings.positions + t * postings.points + *bounds(t));
    }
    Marks marked(marks, postings.points);
    for (int32_t t = 0; t < probed; ++t) {
        const uint32_t* table = postings.positions + t * postings.points;
        const int64_t begin = bounds(t)[0], end = bounds(t)[1];
        for (int64_t at = begin; at < end && at < postings.points; ++at) {
            // Files are mapped, not read: a position that cannot be is passed over here.
            if (table[at] < postings.points) marked.set(table[at]);
        }
    }
    return marked.take(positions_out);
}

}  // namespace closeby
