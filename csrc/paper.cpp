// The paper's own structure and decode (Engels, Coleman, Shrivastava 2021): R rows, each a random
// partition of the points into B cells; a point is an answer when a cell of it has been met in
// every row. Cell c of row r has the number r B + c.
#include <cstring>

#include "kernels.hpp"

namespace closeby {

void paper_insert(uint8_t* bitmaps, int64_t stride, int32_t range_bits, int32_t tables,
                  const uint32_t* keys, const uint32_t* cells, int64_t rows, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        for (int32_t t = 0; t < tables; ++t) {
            const int64_t value = static_cast<int64_t>(keys[i * tables + t]) >> (32 - range_bits);
            uint8_t* bitmap = bitmaps + ((static_cast<int64_t>(t) << range_bits) + value) * stride;
            for (int64_t r = 0; r < rows; ++r) {
                const uint32_t cell = cells[i * rows + r];
                bitmap[cell >> 3] |= static_cast<uint8_t>(1U << (cell & 7));
            }
        }
    }
}

int64_t paper_decode(const PaperCells& cells, const uint16_t* counts, int32_t tables, int64_t k,
                     const PaperScratch& scratch, int64_t* hits, uint16_t* passed) {
    // Counting sort of the cells by falling count, ties by number.
    int64_t* place = scratch.histogram;
    std::memset(place, 0, static_cast<size_t>(tables + 1) * sizeof(int64_t));
    for (int64_t c = 0; c < cells.cells; ++c) ++place[counts[c]];
    int64_t before = 0;
    for (int32_t count = tables; count >= 0; --count) {
        const int64_t here = place[count];
        place[count] = before;
        before += here;
    }
    for (int64_t c = 0; c < cells.cells; ++c) scratch.order[place[counts[c]]++] = c;

    int64_t found = 0, visited = 0;
    for (; visited < cells.cells && found < k; ++visited) {
        const int64_t cell = scratch.order[visited];
        if (counts[cell] == 0) break;  // a cell that passed no test says nothing
        for (int64_t at = cells.first[cell]; at < cells.first[cell + 1]; ++at) {
            const uint32_t point = cells.members[at];
            const bool everywhere = ++scratch.met[point] == cells.rows;
            const bool dead = cells.dead[point >> 3] >> (point & 7) & 1;
            if (!everywhere || dead || found == k) continue;
            hits[found] = point;
            passed[found++] = counts[cell];
        }
    }
    for (int64_t v = 0; v < visited; ++v) {
        const int64_t cell = scratch.order[v];
        for (int64_t at = cells.first[cell]; at < cells.first[cell + 1]; ++at) {
            scratch.met[cells.members[at]] = 0;
        }
    }
    return found;
}

}  // namespace closeby
