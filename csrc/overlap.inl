// Exact Jaccard similarities of one query set with stored sets.
//
// The query's elements lie in a table of buckets of four. An element of a stored set asks one
// bucket, all four places at once: a multiplication, a load and a comparison, without a branch.
// Places that are free hold a number that asks another bucket, so nothing marks them. The few
// elements that found their bucket full are looked up in the stored set, which ascends.

typedef uint32_t u32x4 __attribute__((vector_size(16)));

CLOSEBY_INLINE u32x4 load_bucket(const uint32_t* p) {
    u32x4 v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
CLOSEBY_INLINE u64x4 load_bucket(const uint64_t* p) { return load_u64(p); }
CLOSEBY_INLINE u32x4 four_of(uint32_t x) { return u32x4{x, x, x, x}; }
CLOSEBY_INLINE u64x4 four_of(uint64_t x) { return u64x4{x, x, x, x}; }

template <typename Element>
static int64_t overlap(const Element* elements, int64_t n, const HashSet& set) {
    const Element* places = static_cast<const Element*>(set.places);
    const Element multiplier = static_cast<Element>(set.multiplier);
    const int shift = set.shift;
    auto first = four_of(Element{0}), second = first;  // minus the matches, by place
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {
        const Element x = elements[i], y = elements[i + 1];
        const Element* of_x = places + (static_cast<Element>(x * multiplier) >> shift) * kBucket;
        const Element* of_y = places + (static_cast<Element>(y * multiplier) >> shift) * kBucket;
        first += static_cast<decltype(first)>(load_bucket(of_x) == four_of(x));
        second += static_cast<decltype(second)>(load_bucket(of_y) == four_of(y));
    }
    for (; i < n; ++i) {
        const Element x = elements[i];
        const Element* of_x = places + (static_cast<Element>(x * multiplier) >> shift) * kBucket;
        first += static_cast<decltype(first)>(load_bucket(of_x) == four_of(x));
    }
    first += second;
    Element shared = static_cast<Element>(Element{0} - (first[0] + first[1] + first[2] + first[3]));
    for (int64_t o = 0; o < set.overflow_count; ++o) {
        int64_t low = 0, high = n;
        while (low < high) {
            const int64_t middle = low + (high - low) / 2;
            if (elements[middle] < set.overflow[o]) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        shared += low < n && elements[low] == set.overflow[o];
    }
    return static_cast<int64_t>(shared);
}

static void jaccard(const StoredSets& sets, const int64_t* positions, int64_t count,
                    const HashSet& query, float* out) {
    for (int64_t i = 0; i < count; ++i) {
        const int64_t begin = sets.indptr[positions[i]];
        const int64_t size = sets.indptr[positions[i] + 1] - begin;
        const int64_t shared =
            sets.width == 4
                ? overlap(static_cast<const uint32_t*>(sets.elements) + begin, size, query)
                : overlap(static_cast<const uint64_t*>(sets.elements) + begin, size, query);
        const int64_t joint = size + query.size - shared;
        out[i] = joint == 0 ? 0.0f : static_cast<float>(shared) / static_cast<float>(joint);
    }
}
