// Lists of whole numbers in a JSON text: the value of one key of the outermost object.
//
//   {"ids": […], "sets": [[3, 17], [], [5]], "payloads": […]}
//                        begin ───────────► end
//
// Only what is plain is read: whoever gets false asks a whole JSON parser, which says what is wrong.
// What lies outside the value is only skipped, and left to that parser.
#include "kernels.hpp"

namespace closeby {
namespace {

class Reader {
  public:
    Reader(const char* at, const char* end) : at_(at), end_(end) {}

    const char* at() const { return at_; }
    bool ended() const { return at_ == end_; }

    void space() {
        while (!ended() && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
    }

    bool take(char wanted) {
        space();
        if (ended() || *at_ != wanted) return false;
        ++at_;
        return true;
    }

    // From its first quotation mark to behind its last one; plain: it has no backslash.
    bool string(bool* plain) {
        *plain = true;
        if (!take('"')) return false;
        for (; !ended(); ++at_) {
            if (*at_ == '"') {
                ++at_;
                return true;
            }
            if (*at_ == '\\') {
                *plain = false;
                if (++at_ == end_) return false;
            }
        }
        return false;
    }

    // To the comma or brace that ends a value of the outermost object.
    bool skip_value() {
        int64_t depth = 0;
        bool plain;
        for (;;) {
            if (ended()) return false;
            const char c = *at_;
            if (c == '"') {
                if (!string(&plain)) return false;
                continue;
            }
            if (depth == 0 && (c == ',' || c == '}')) return true;
            if (c == '[' || c == '{') ++depth;
            if ((c == ']' || c == '}') && --depth < 0) return false;
            ++at_;
        }
    }

    // 0 .. 2^64 - 1 as JSON writes it: no sign, fraction, exponent or leading zero.
    bool number(uint64_t* value) {
        space();
        const char* first = at_;
        uint64_t found = 0;
        for (; !ended() && *at_ >= '0' && *at_ <= '9'; ++at_) {
            const uint64_t digit = static_cast<uint64_t>(*at_ - '0');
            if (found > (UINT64_MAX - digit) / 10) return false;
            found = found * 10 + digit;
        }
        if (at_ == first || (*first == '0' && at_ - first > 1)) return false;
        *value = found;
        return true;
    }

  private:
    const char* at_;
    const char* end_;
};

// Calls number(value) for every number and row() behind every row.
template <class Number, class Row>
bool read_rows(Reader& reader, Number number, Row row) {
    if (!reader.take('[')) return false;
    if (reader.take(']')) return true;
    do {
        if (!reader.take('[')) return false;
        if (!reader.take(']')) {
            do {
                uint64_t value;
                if (!reader.number(&value)) return false;
                number(value);
            } while (reader.take(','));
            if (!reader.take(']')) return false;
        }
        row();
    } while (reader.take(','));
    return reader.take(']');
}

}  // namespace

bool find_json_rows(const char* text, int64_t size, const char* key, int64_t key_size,
                    JsonRows* found) {
    Reader reader(text, text + size);
    *found = {-1, -1, 0, 0};
    if (!reader.take('{')) return false;
    do {
        reader.space();
        if (reader.ended()) return false;
        const char* name = reader.at() + 1;
        bool plain;
        if (!reader.string(&plain) || !plain) return false;
        const int64_t name_size = reader.at() - 1 - name;
        if (!reader.take(':')) return false;
        reader.space();
        bool same = name_size == key_size;
        for (int64_t i = 0; same && i < key_size; ++i) same = name[i] == key[i];
        if (!same) {
            if (!reader.skip_value()) return false;
            continue;
        }
        if (found->begin >= 0) return false;  // twice
        found->begin = reader.at() - text;
        if (!read_rows(reader, [&](uint64_t) { ++found->numbers; }, [&] { ++found->rows; })) return false;
        found->end = reader.at() - text;
        reader.space();
    } while (reader.take(','));
    return reader.take('}') && found->begin >= 0;
}

void copy_json_rows(const char* text, const JsonRows& found, int64_t* indptr, uint64_t* values) {
    Reader reader(text + found.begin, text + found.end);
    int64_t numbers = 0;
    int64_t rows = 0;
    indptr[0] = 0;
    read_rows(
        reader, [&](uint64_t value) { values[numbers++] = value; }, [&] { indptr[++rows] = numbers; });
}

}  // namespace closeby
