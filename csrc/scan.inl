// Ranking the points of the best cells: by a part of the sketch, by all of it, then exactly.

// A sketch lies in two parts. The first 16 bytes of all points lie together, and are all that is
// read of most points: they tell the points that are far from the query well enough. The rest is
// read of the shortlist only.

CLOSEBY_INLINE int hamming(const uint8_t* a, const uint64_t* query, int64_t words) {
    int distance = 0;
    for (int64_t w = 0; w < words; ++w) {
        uint64_t word;
        std::memcpy(&word, a + w * 8, 8);
        distance += popcount(word ^ query[w]);
    }
    return distance;
}

constexpr int64_t kMaxSketchWords = 8;
constexpr int64_t kCoarseWords = kCoarseBytes / 8;
constexpr int64_t kCoarseBits = kCoarseBytes * 8;
constexpr uint8_t kDead = 0xff;  // farther than any
typedef uint8_t u8x32 __attribute__((vector_size(32)));
// Memory answers in about the time that it takes to scan this many points.
constexpr int64_t kPointsAhead = 96;
constexpr int64_t kFineAhead = 24;

// Coarse distances of the points of some of the cells, in order; the last cell of the segment
// counts as full, and points that are not there as dead.
static void sketch_distances(const SketchScan& scan, const uint8_t* query, int64_t first_cell,
                             int64_t last_cell, uint8_t* out) {
    const int64_t size = scan.group_size, far = 1 + kPointsAhead / size;
    const int64_t cell_bytes = size * kCoarseBytes;
    uint64_t first, second;
    std::memcpy(&first, query, 8);
    std::memcpy(&second, query + 8, 8);
    out += first_cell * size;
    for (int64_t c = first_cell; c < last_cell; ++c, out += size) {
        if (c + far < last_cell) {
            const uint8_t* ahead = scan.coarse + scan.cells[c + far] * cell_bytes;
            for (int64_t b = 0; b < cell_bytes && b < 2048; b += 64) __builtin_prefetch(ahead + b);
        }
        const int64_t begin = scan.cells[c] * size;
        const int64_t here = scan.points - begin < size ? scan.points - begin : size;
        const uint8_t* at = scan.coarse + begin * kCoarseBytes;
        for (int64_t i = 0; i < here; ++i) {
            uint64_t words[2];
            std::memcpy(words, at + i * kCoarseBytes, sizeof words);
            out[i] = static_cast<uint8_t>(popcount(words[0] ^ first) + popcount(words[1] ^ second));
        }
        for (int64_t i = here; i < size; ++i) out[i] = kDead;
        if (scan.dead == nullptr) continue;
        for (int64_t i = 0; i < here; ++i) {
            const int64_t position = begin + i;
            if (scan.dead[position >> 3] >> (position & 7) & 1) out[i] = kDead;
        }
    }
}

// The coarse distance at which `want` points are reached; *ties: how many of those at it fit.
static int coarse_cut(const uint8_t* distances, int64_t scanned, int64_t want, int64_t* ties) {
    // Neighbouring points are often equally far: counting in turns, no count waits for the last.
    uint32_t histogram[4][256] = {};
    int64_t i = 0;
    for (; i + 4 <= scanned; i += 4) {
        ++histogram[0][distances[i]];
        ++histogram[1][distances[i + 1]];
        ++histogram[2][distances[i + 2]];
        ++histogram[3][distances[i + 3]];
    }
    for (; i < scanned; ++i) ++histogram[0][distances[i]];
    int64_t below = 0;
    for (int cut = 0; cut <= kCoarseBits; ++cut) {
        const int64_t here = int64_t{histogram[0][cut]} + histogram[1][cut] + histogram[2][cut] +
                             histogram[3][cut];
        *ties = want - below;
        if (here >= *ties) return cut;
        below += here;
    }
    return kCoarseBits;  // all but the dead
}

// The positions of the `want` nearest by coarse distance, in the order of the scan; of those that
// tie for the last places, the first. Returns how many there are.
static int64_t coarse_select(const SketchScan& scan, int64_t scanned, const uint8_t* distances,
                             int64_t want, int64_t* positions, uint16_t* kept_distances) {
    int64_t ties = 0, found = 0, cell = 0, cell_end = scan.group_size;
    const int cut = coarse_cut(distances, scanned, want, &ties);
    const u8x32 bar = u8x32{} + static_cast<uint8_t>(cut);
    for (int64_t block = 0; block < scanned; block += kScanBlock) {
        u8x32 here;
        std::memcpy(&here, distances + block, sizeof here);
        const auto near = here <= bar;
        uint64_t words[kScanBlock / 8];
        std::memcpy(words, &near, sizeof near);
        if ((words[0] | words[1] | words[2] | words[3]) == 0) continue;
        for (int64_t w = 0; w < kScanBlock / 8; ++w) {
            for (uint64_t left = words[w] & 0x8080808080808080ULL; left != 0; left &= left - 1) {
                const int64_t at = block + w * 8 + (__builtin_ctzll(left) >> 3);
                if (distances[at] == cut && ties-- <= 0) continue;
                while (at >= cell_end) {
                    ++cell;
                    cell_end += scan.group_size;
                }
                positions[found] = scan.cells[cell] * scan.group_size +
                                   (at - cell_end + scan.group_size);
                kept_distances[found++] = distances[at];
            }
        }
    }
    return found;
}

static int64_t sketch_best(const SketchScan& scan, const uint8_t* query, const ScanScratch& scratch,
                           int64_t* positions_out, uint16_t* distances_out) {
    uint64_t words[kMaxSketchWords] = {};
    std::memcpy(words, query, static_cast<size_t>(kCoarseBytes + scan.fine_bytes));
    const int64_t scanned = scan.cell_count * scan.group_size;
    std::memset(scratch.coarse + scanned, kDead, kScanBlock);  // it is looked through in blocks
    const int64_t kept = coarse_select(scan, scanned, scratch.coarse, scan.shortlist,
                                       scratch.positions, scratch.distances);
    const int64_t fine_words = scan.fine_bytes / 8;
    if (fine_words > 0) {
        const auto fetch = [&](int64_t i) {
            const uint8_t* at = scan.fine + scratch.positions[i] * scan.fine_bytes;
            __builtin_prefetch(at);
            __builtin_prefetch(at + scan.fine_bytes - 1);
        };
        for (int64_t i = 0; i < kFineAhead && i < kept; ++i) fetch(i);
        for (int64_t i = 0; i < kept; ++i) {
            if (i + kFineAhead < kept) fetch(i + kFineAhead);
            const uint8_t* at = scan.fine + scratch.positions[i] * scan.fine_bytes;
            const int rest = fine_words == 6 ? hamming(at, words + kCoarseWords, 6)
                                             : hamming(at, words + kCoarseWords, fine_words);
            scratch.distances[i] = static_cast<uint16_t>(scratch.distances[i] + rest);
        }
    }
    // By counting: the largest distance that still fits, and where those of each distance go.
    uint32_t histogram[kMaxSketchWords * 64 + 1] = {};
    for (int64_t i = 0; i < kept; ++i) ++histogram[scratch.distances[i]];
    int64_t before = 0;
    for (uint32_t& entry : histogram) {
        const uint32_t here = entry;
        entry = static_cast<uint32_t>(before);
        before += here;
    }
    for (int64_t i = 0; i < kept; ++i) {
        const int64_t place = histogram[scratch.distances[i]]++;
        if (place >= scan.want) continue;
        positions_out[place] = scratch.positions[i];
        distances_out[place] = scratch.distances[i];
    }
    return kept < scan.want ? kept : scan.want;
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
