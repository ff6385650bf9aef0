// Statistics of prune.hpp as bytes: to prune again without the model's passes, and to merge what
// several processes found.
//
// The format, all numbers little-endian:
//
//     "pare statistics 2\n"
//     u64 sublayers, then of each
//         least squares  of the units, metric  of gradients, least squares  of the sums,
//         u64 heads, u64 size, of each head  least squares  of its queries, metric  of gradients,
//         u64 batches seen, u64 batches, of each  floats  squares of its tokens
//     u64 FNV-1a of all bytes before
//
//     least squares:  u64 tokens, f64 weight, epsilon and smallest, doubles  shift of x, sums of x,
//                     shift of y, sums of y, squares of y, f64 of x x' (its lower triangle, by
//                     rows), doubles  x y' (by rows)
//     metric:         u64 columns, u64 rows, f64 of its lower triangle by rows
//     doubles:        u64 count, f64 each; floats: u64 count, f32 each
#pragma once

#include "../core/error.hpp"
#include "statistics.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <istream>
#include <limits>
#include <ostream>
#include <string>
#include <type_traits>
#include <vector>

namespace pare {
inline namespace PARE_ISA {

namespace detail {

inline constexpr char statistics_title[] = "pare statistics 2\n";

/// FNV-1a, 64 bits.
struct checksum {
    std::uint64_t value = 0xcbf29ce484222325u;
    void add(const unsigned char* bytes, std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) value = (value ^ bytes[i]) * 0x100000001b3u;
    }
};

/// What a number is in a file.
template <class T>
using stored = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

class statistics_writer {
  public:
    explicit statistics_writer(std::ostream& to) : to_(to) {}

    void text(const std::string& x) { write(x.data(), x.size()); }
    template <class T>
    void numbers(const T* x, std::size_t count) {
        std::vector<char> bytes;
        for (std::size_t first = 0; first < count; first += piece) {
            const std::size_t some = std::min(piece, count - first);
            bytes.clear();
            for (std::size_t i = 0; i < some; ++i) {
                stored<T> bits;
                std::memcpy(&bits, x + first + i, sizeof bits);
                for (std::size_t k = 0; k < sizeof bits; ++k)
                    bytes.push_back(static_cast<char>(bits >> (8 * k) & 255));
            }
            write(bytes.data(), bytes.size());
        }
    }
    void number(double x) { numbers(&x, 1); }
    void count(index_t x) {
        const auto n = static_cast<std::uint64_t>(x);
        numbers(&n, 1);
    }
    template <class T>
    void list(const std::vector<T>& x) {
        count(static_cast<index_t>(x.size()));
        numbers(x.data(), x.size());
    }
    /// The lower triangle of x [n x n].
    void triangle(const std::vector<double>& x, index_t n) {
        for (index_t i = 0; i < n; ++i) numbers(x.data() + i * n, static_cast<std::size_t>(i + 1));
    }
    void end() {
        const std::uint64_t sum = sum_.value;
        numbers(&sum, 1);
        to_.flush();
        if (!to_) fail<value_error>("save", "the stream does not take what is written to it");
    }

    static constexpr std::size_t piece = 1 << 16; ///< numbers at a time

  private:
    void write(const char* bytes, std::size_t count) {
        sum_.add(reinterpret_cast<const unsigned char*>(bytes), count);
        to_.write(bytes, static_cast<std::streamsize>(count));
    }
    std::ostream& to_;
    checksum sum_;
};

/// Takes no more memory than twice what there are bytes for, whatever they say.
class statistics_reader {
  public:
    explicit statistics_reader(std::istream& from) : from_(from) {}

    void text(const std::string& expected) {
        if (read(expected.size()) != expected) bad("it does not begin as such a file does");
    }
    /// Appends.
    template <class T>
    void numbers(std::vector<T>& x, index_t count) {
        for (index_t left = count; left > 0;) {
            const index_t some = std::min<index_t>(left, statistics_writer::piece);
            const std::string bytes = read(static_cast<std::size_t>(some) * sizeof(T));
            for (index_t i = 0; i < some; ++i) {
                stored<T> bits = 0;
                for (std::size_t k = 0; k < sizeof bits; ++k)
                    bits |= static_cast<stored<T>>(static_cast<unsigned char>(
                                bytes[static_cast<std::size_t>(i) * sizeof bits + k]))
                            << (8 * k);
                T number;
                std::memcpy(&number, &bits, sizeof number);
                if constexpr (std::is_floating_point_v<T>)
                    if (!is_finite(number)) bad("it has a number that is not finite");
                x.push_back(number);
            }
            left -= some;
        }
    }
    void number(double& x) {
        std::vector<double> one;
        numbers(one, 1);
        x = one.front();
    }
    void count(index_t& x) {
        std::vector<std::uint64_t> one;
        numbers(one, 1);
        if (one.front() > static_cast<std::uint64_t>(std::numeric_limits<index_t>::max()))
            bad("it has a count of ", one.front());
        x = static_cast<index_t>(one.front());
    }
    template <class T>
    void list(std::vector<T>& x) {
        index_t size = 0;
        count(size);
        x.clear();
        numbers(x, size);
    }
    void triangle(std::vector<double>& x, index_t n) {
        if (n > most_columns) bad("it has a matrix of ", n, " columns");
        std::vector<double> lower;
        numbers(lower, n * (n + 1) / 2);
        x.assign(static_cast<std::size_t>(n * n), 0.0);
        for (index_t i = 0; i < n; ++i)
            std::copy_n(lower.data() + i * (i + 1) / 2, i + 1, x.data() + i * n);
    }
    void end() {
        const std::uint64_t sum = sum_.value;
        std::vector<std::uint64_t> expected;
        numbers(expected, 1);
        if (expected.front() != sum) bad("its bytes are not those that were written");
    }
    template <class... Why>
    [[noreturn]] void bad(const Why&... why) {
        fail<value_error>("load", "this is no file of statistics, or a damaged one: ", why...);
    }

  private:
    std::string read(std::size_t count) {
        std::string bytes(count, '\0');
        from_.read(bytes.data(), static_cast<std::streamsize>(count));
        if (static_cast<std::size_t>(from_.gcount()) != count)
            bad("it ends ", count - static_cast<std::size_t>(from_.gcount()), " bytes early");
        sum_.add(reinterpret_cast<const unsigned char*>(bytes.data()), count);
        return bytes;
    }
    static constexpr index_t most_columns = index_t{1} << (sizeof(index_t) * 4 - 1);
    std::istream& from_;
    checksum sum_;
};

/// The members of accumulators, in the order of the file, for a writer or a reader.
struct saved {
    template <class Archive, class S>
    static void least_squares(Archive& file, S& s) {
        file.count(s.tokens_);
        file.number(s.weight_);
        file.number(s.epsilon_);
        file.number(s.smallest_);
        for (auto* side : {&s.x_, &s.y_}) {
            file.list(side->shift);
            file.list(side->sums);
        }
        file.list(s.y_.squares);
        file.triangle(s.xx_.here(), static_cast<index_t>(s.x_.shift.size()));
        if constexpr (!std::is_const_v<S>) { // those of x are on the diagonal
            s.x_.squares.clear();
            for (std::size_t i = 0; i < s.x_.shift.size(); ++i)
                s.x_.squares.push_back(s.xx_.here()[i * (s.x_.shift.size() + 1)]);
        }
        file.list(s.xy_.here());
    }
    static bool fits(const pare::least_squares& s) {
        const std::size_t inputs = s.x_.shift.size(), outputs = s.y_.shift.size();
        return s.x_.sums.size() == inputs && s.y_.sums.size() == outputs &&
               s.y_.squares.size() == outputs && s.xy_.here().size() == inputs * outputs &&
               s.weight_ >= 0 && s.epsilon_ >= 0 && s.smallest_ >= 0;
    }
    template <class Archive, class S>
    static void gram(Archive& file, S& s) {
        file.count(s.columns_x_);
        if constexpr (!std::is_const_v<S>) s.columns_y_ = s.columns_x_;
        file.count(s.rows_);
        file.triangle(s.sums_.here(), s.columns_x_);
    }
    template <class Archive, class S>
    static void sublayer(Archive& file, S& s) {
        least_squares(file, s.inputs);
        gram(file, s.metric);
        least_squares(file, s.sums);
        queries(file, s.queries);
        file.count(s.batches);
    }
    template <class Archive, class S>
    static void queries(Archive& file, S& s) {
        index_t heads = s.heads();
        file.count(heads);
        file.count(s.size_);
        for (index_t h = 0; h < heads; ++h) {
            const auto at = static_cast<std::size_t>(h);
            if constexpr (!std::is_const_v<S>) {
                s.queries_.emplace_back(0, 0);
                s.gradients_.emplace_back(0);
            }
            least_squares(file, s.queries_[at]);
            gram(file, s.gradients_[at]);
        }
    }
    static bool fits(const query_statistics& s) {
        bool all = true;
        for (std::size_t h = 0; h < s.queries_.size(); ++h)
            all = all && fits(s.queries_[h]) && s.queries_[h].inputs() == s.size_ &&
                  s.queries_[h].outputs() == 0 && s.gradients_[h].columns_x_ == s.size_;
        return all;
    }
};

} // namespace detail

/// Writes what `collect` gave, in the format above: 4 bytes * (inputs^2 + outputs^2) a sublayer, and 4 * tokens. Throws
/// value_error if the stream does not take it.
inline void save(std::ostream& to, const std::vector<sublayer_statistics>& statistics) {
    detail::statistics_writer file(to);
    file.text(detail::statistics_title);
    file.count(static_cast<index_t>(statistics.size()));
    for (const sublayer_statistics& s : statistics) {
        detail::saved::sublayer(file, s);
        file.count(static_cast<index_t>(s.squares.size()));
        for (const auto& squares : s.squares) file.list(squares);
    }
    file.end();
}

/// Reads what `save` wrote, and no byte behind it. Throws value_error for anything else.
inline std::vector<sublayer_statistics> load_statistics(std::istream& from) {
    detail::statistics_reader file(from);
    file.text(detail::statistics_title);
    index_t sublayers = 0;
    file.count(sublayers);
    std::vector<sublayer_statistics> statistics;
    for (index_t i = 0; i < sublayers; ++i) {
        sublayer_statistics s(0, 0);
        detail::saved::sublayer(file, s);
        if (!detail::saved::fits(s.inputs) || !detail::saved::fits(s.sums) ||
            !detail::saved::fits(s.queries))
            file.bad("the sums of sublayer ", i, " are of different extents");
        index_t batches = 0;
        file.count(batches);
        for (index_t b = 0; b < batches; ++b) file.list(s.squares.emplace_back());
        statistics.push_back(std::move(s));
    }
    file.end();
    return statistics;
}

} // namespace PARE_ISA
} // namespace pare
