// One query in one segment up to its candidates: group tests or buckets, then the sketch scan.
#include "kernels.hpp"
#include "team.hpp"

namespace closeby {

namespace {

// Parts of a shared query, a few microseconds each: words of the bitmaps (64 cells each, a multiple
// of 4), and points that are scanned.
constexpr int64_t kWordsAPart = 128;
constexpr int64_t kPointsAPart = 2'048;

struct Count {
    const Kernels* kernels;
    const GroupTests* tests;
    const uint32_t* keys;
    uint64_t* scratch;
};

void count_part(const void* context, int64_t part) {
    const Count& count = *static_cast<const Count*>(context);
    const int64_t words = count.tests->stride / 8, first = part * kWordsAPart;
    const int64_t last = first + kWordsAPart < words ? first + kWordsAPart : words;
    count.kernels->group_count(*count.tests, count.keys, first, last, count.scratch);
}

struct Scan {
    const Kernels* kernels;
    const SketchScan* scan;
    const uint8_t* sketch;
    uint8_t* distances;
    int64_t cells_a_part;
};

void scan_part(const void* context, int64_t part) {
    const Scan& scan = *static_cast<const Scan*>(context);
    const int64_t first = part * scan.cells_a_part, all = scan.scan->cell_count;
    const int64_t last = first + scan.cells_a_part < all ? first + scan.cells_a_part : all;
    scan.kernels->sketch_distances(*scan.scan, scan.sketch, first, last, scan.distances);
}

int64_t select_cells(const Kernels& kernels, const Selection& selection, const uint32_t* keys,
                     Team* team) {
    const GroupTests& tests = selection.tests;
    if (selection.breadth < tests.cells) {
        const int64_t words = tests.stride / 8;
        if (team == nullptr || words <= kWordsAPart) {
            kernels.group_count(tests, keys, 0, words, selection.counts);
        } else {
            const Count count{&kernels, &tests, keys, selection.counts};
            team->run(count_part, &count, (words + kWordsAPart - 1) / kWordsAPart);
        }
    }
    return kernels.group_best(tests, selection.breadth, selection.counts, selection.cells);
}

}  // namespace

int64_t find_candidates(const Kernels& kernels, const Selection& selection, SketchScan scan,
                        const uint32_t* keys, const uint8_t* sketch, const ScanScratch& scratch,
                        Team* team, int64_t* positions_out, uint16_t* distances_out) {
    if (scan.points == 0) return 0;
    scan.cells = selection.cells;
    scan.cell_count =
        selection.postings.tables > 0
            ? postings_query(selection.postings, keys, static_cast<int32_t>(selection.breadth),
                             selection.marks, selection.cells)
            : select_cells(kernels, selection, keys, team);
    const int64_t cells_a_part =
        scan.group_size < kPointsAPart ? kPointsAPart / scan.group_size : 1;
    if (team == nullptr || scan.cell_count <= cells_a_part) {
        kernels.sketch_distances(scan, sketch, 0, scan.cell_count, scratch.coarse);
    } else {
        const Scan parts{&kernels, &scan, sketch, scratch.coarse, cells_a_part};
        team->run(scan_part, &parts, (scan.cell_count + cells_a_part - 1) / cells_a_part);
    }
    return kernels.sketch_best(scan, sketch, scratch, positions_out, distances_out);
}

void rank_cells(const Kernels& kernels, const GroupTests& tests, const uint32_t* keys,
                const int64_t* chosen, int64_t n, uint64_t* scratch, uint16_t* counts,
                int64_t* histogram, uint16_t* passed, int64_t* places) {
    kernels.group_counts(tests, keys, scratch, counts);
    for (int64_t t = 0; t <= tests.tables; ++t) histogram[t] = 0;
    for (int64_t c = 0; c < tests.cells; ++c) ++histogram[counts[c]];
    for (int64_t i = 0; i < n; ++i) {
        passed[i] = 0;
        places[i] = 0;
        if (chosen[i] < 0) continue;
        const uint16_t own = counts[chosen[i]];
        int64_t place = 1;
        for (int64_t t = own + 1; t <= tests.tables; ++t) place += histogram[t];
        for (int64_t c = 0; c < chosen[i]; ++c) place += counts[c] == own;
        passed[i] = own;
        places[i] = place;
    }
}

}  // namespace closeby
