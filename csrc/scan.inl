// Ranking the points of the best cells: first by sketch, then exactly.

template <int kWords>
CLOSEBY_INLINE int hamming(const uint8_t* a, const uint64_t* query) {
    int distance = 0;
    for (int w = 0; w < kWords; ++w) {
        uint64_t word;
        std::memcpy(&word, a + w * 8, 8);
        distance += popcount(word ^ query[w]);
    }
    return distance;
}

constexpr int64_t kMaxSketchWords = 8;
constexpr uint16_t kDead = 0xffff;
constexpr int64_t kPointsAhead = 16;

template <int kWords>
static void scan_words(const uint8_t* sketches, const uint64_t* query, const int64_t* cells,
                          int64_t cell_count, int64_t group_size, int64_t points,
                          const uint8_t* dead, uint16_t* distances, int64_t* histogram) {
    constexpr int64_t bytes = kWords * 8;
    // Memory answers in about the time that it takes to scan this many points.
    const int64_t far = 1 + kPointsAhead / group_size;
    int64_t scanned = 0;
    for (int64_t c = 0; c < cell_count; ++c) {
        const int64_t begin = cells[c] * group_size;
        const int64_t end = begin + group_size < points ? begin + group_size : points;
        if (c + far < cell_count) {
            const uint8_t* ahead = sketches + cells[c + far] * group_size * bytes;
            for (int64_t b = 0; b < group_size * bytes && b < 1024; b += 64) {
                __builtin_prefetch(ahead + b);
            }
        }
        for (int64_t at = begin; at < end; ++at) {
            const int distance = hamming<kWords>(sketches + at * bytes, query);
            const bool gone = dead != nullptr && (dead[at >> 3] >> (at & 7) & 1);
            distances[scanned++] = gone ? kDead : static_cast<uint16_t>(distance);
            histogram[distance] += !gone;
        }
    }
}

static int64_t sketch_scan(const uint8_t* sketches, int64_t sketch_bytes, const uint8_t* query,
                           const int64_t* cells, int64_t cell_count, int64_t group_size,
                           int64_t points, const uint8_t* dead, int64_t want,
                           uint16_t* distances, int64_t* positions_out, uint16_t* distances_out) {
    uint64_t words[kMaxSketchWords] = {};
    std::memcpy(words, query, static_cast<size_t>(sketch_bytes));
    int64_t histogram[kMaxSketchWords * 64 + 1] = {};
    switch (sketch_bytes) {
        case 16:
            scan_words<2>(sketches, words, cells, cell_count, group_size, points, dead,
                          distances, histogram);
            break;
        case 32:
            scan_words<4>(sketches, words, cells, cell_count, group_size, points, dead,
                          distances, histogram);
            break;
        default:
            scan_words<8>(sketches, words, cells, cell_count, group_size, points, dead,
                          distances, histogram);
    }
    // The largest distance that still fits, and where the candidates of each distance go.
    int64_t offsets[kMaxSketchWords * 64 + 1];
    int64_t before = 0;
    int cut = 0;
    const int last = static_cast<int>(sketch_bytes * 8);
    for (;; ++cut) {
        offsets[cut] = before;
        before += histogram[cut];
        if (before >= want || cut == last) break;
    }
    const int64_t found = before < want ? before : want;

    int64_t seen = 0;
    for (int64_t c = 0; c < cell_count; ++c) {
        const int64_t begin = cells[c] * group_size;
        const int64_t end = begin + group_size < points ? begin + group_size : points;
        for (int64_t at = begin; at < end; ++at) {
            const uint16_t distance = distances[seen++];
            if (distance > cut) continue;
            const int64_t place = offsets[distance]++;
            if (place >= want) continue;
            positions_out[place] = at;
            distances_out[place] = distance;
        }
    }
    return found;
}

static void inner_products(const float* vectors, int64_t dim, const int64_t* positions,
                           int64_t count, const float* query, float* out) {
    for (int64_t i = 0; i < count; ++i) {
        const float* x = vectors + positions[i] * dim;
        f32x8 sum0 = {}, sum1 = {};
        int64_t j = 0;
        for (; j + 16 <= dim; j += 16) {
            sum0 += load_f32(x + j) * load_f32(query + j);
            sum1 += load_f32(x + j + 8) * load_f32(query + j + 8);
        }
        float lanes[8];
        store_f32(lanes, sum0 + sum1);
        float total = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
                      ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
        for (; j < dim; ++j) total += x[j] * query[j];
        out[i] = total;
    }
}
