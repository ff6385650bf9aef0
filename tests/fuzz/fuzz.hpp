// What the fuzz targets share: values out of a fuzzer's bytes, and outputs with poison
// around them.
#pragma once

#include <pare/core/error.hpp>
#include <pare/core/view.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

/// Stops where `condition` does not hold; the fuzzer keeps the input.
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #condition);          \
            __builtin_trap();                                                                      \
        }                                                                                          \
    } while (false)

namespace fuzz {

using pare::index_t;

/// Reads values one after another; behind the end all are 0.
class bytes {
  public:
    bytes(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}

    template <class T>
    T raw() {
        static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
        T value{};
        const std::size_t n = std::min(sizeof value, left_);
        if (n > 0) std::memcpy(&value, data_, n);
        data_ += n;
        left_ -= n;
        return value;
    }
    bool flag() { return raw<std::uint8_t>() % 2 != 0; }
    /// 0 <= i <= most
    index_t up_to(index_t most) { return raw<std::uint8_t>() % (most + 1); }

    /// A number as users give it: mostly small, sometimes any.
    template <class T>
    T number() {
        const T value = draw<T>();
        if constexpr (std::is_floating_point_v<T>) moderate_ &= value > T(-1e4) && value < T(1e4);
        return value;
    }
    /// Whether all numbers with a fraction so far are such that sums of them can be compared.
    bool moderate() const { return moderate_; }

    template <class T>
    std::vector<T> numbers(index_t count) {
        std::vector<T> all(static_cast<std::size_t>(count));
        all.reserve(1); // so that elements of none have an address
        for (T& x : all) x = number<T>();
        return all;
    }
    /// Offsets of up to `most` sequences and the number of tokens that they end with; sometimes one
    /// of the offsets is any number.
    template <class T>
    std::vector<T> offsets(index_t most, index_t& tokens) {
        std::vector<T> all = {0};
        for (index_t s = up_to(most); s > 0; --s)
            all.push_back(static_cast<T>(all.back() + up_to(7)));
        tokens = static_cast<index_t>(all.back());
        if (up_to(15) == 1) all[static_cast<std::size_t>(up_to(most)) % all.size()] = number<T>();
        return all;
    }
    /// Positions that ascend, up to `extent` of them; sometimes one is any number.
    template <class T>
    std::vector<T> positions(index_t extent) {
        std::vector<T> all;
        for (index_t i = up_to(2); i < extent; i += 1 + up_to(2)) all.push_back(static_cast<T>(i));
        if (!all.empty() && up_to(15) == 1)
            all[static_cast<std::size_t>(up_to(extent)) % all.size()] = number<T>();
        return all;
    }
    /// Mostly n, so that calls get past their checks; sometimes a little more or less.
    index_t about(index_t n) {
        const index_t kind = up_to(31);
        return std::max<index_t>(0, kind < 29 ? n : kind < 30 ? n - 1 : kind == 30 ? n + 1 : 0);
    }

    std::string_view rest() const { return {reinterpret_cast<const char*>(data_), left_}; }

  private:
    template <class T>
    T draw() {
        constexpr T least = std::numeric_limits<T>::lowest(), most = std::numeric_limits<T>::max();
        const std::uint8_t kind = raw<std::uint8_t>();
        if (kind == 0xff) return raw<T>();
        if (kind == 0xfe) return most;
        if (kind == 0xfd) return least;
        if constexpr (std::is_floating_point_v<T>) {
            if (kind == 0xfc) return std::numeric_limits<T>::quiet_NaN();
            if (kind == 0xfb) return std::numeric_limits<T>::infinity();
            if (kind == 0xfa) return -std::numeric_limits<T>::infinity();
            if (kind == 0xf9) return std::numeric_limits<T>::denorm_min();
            return static_cast<T>(kind) / 16 - 2;
        } else {
            return static_cast<T>(kind < 0xf0 ? kind % 16 : kind - 0xf9); // 0 .. 15, or -9 .. 3
        }
    }

    const std::uint8_t* data_;
    std::size_t left_;
    bool moderate_ = true;
};

/// What a call writes to: an array of any strides, in memory that holds poison everywhere else.
template <class T, int Rank>
class output {
  public:
    output(bytes& in, const std::array<index_t, Rank>& extents, bool contiguous = false) {
        std::array<index_t, Rank> strides{};
        index_t step = contiguous ? 1 : 1 + in.up_to(1);
        for (int d = Rank; d-- > 0;) {
            strides[static_cast<std::size_t>(d)] = step;
            step *= std::max<index_t>(1, extents[static_cast<std::size_t>(d)]);
            if (!contiguous) step += in.up_to(2);
        }
        memory_.resize(static_cast<std::size_t>(step + 2 * around));
        std::memset(memory_.data(), poison, memory_.size() * sizeof(T));
        view_ = {memory_.data() + around, extents, strides};
    }
    output(const output&) = delete;
    output& operator=(const output&) = delete;

    pare::view<T, Rank> view() { return view_; }
    /// Whether nothing was written but, perhaps, elements (i, ...) with i < rows.
    bool intact_but(index_t rows) const {
        std::vector<bool> inside(memory_.size(), false);
        index_t inner = 1;
        for (int d = 1; d < Rank; ++d) inner *= view_.extent(d);
        for (index_t i = 0; i < std::min(rows, view_.extent(0)); ++i)
            for (index_t j = 0; j < inner; ++j) {
                index_t at = around + i * view_.stride(0);
                for (index_t d = Rank - 1, left = j; d > 0;
                     left /= view_.extent(static_cast<int>(d--)))
                    at += left % view_.extent(static_cast<int>(d)) *
                          view_.stride(static_cast<int>(d));
                inside[static_cast<std::size_t>(at)] = true;
            }
        for (std::size_t e = 0; e < memory_.size(); ++e) {
            unsigned char as_bytes[sizeof(T)];
            std::memcpy(as_bytes, &memory_[e], sizeof(T));
            if (!inside[e] && std::any_of(as_bytes, as_bytes + sizeof(T),
                                          [](unsigned char b) { return b != poison; }))
                return false;
        }
        return true;
    }
    bool intact() const { return intact_but(view_.extent(0)); }
    /// The elements, one after another.
    std::vector<T> values() const {
        std::vector<T> all;
        for (index_t i = 0; i < view_.extent(0); ++i)
            if constexpr (Rank == 1)
                all.push_back(view_(i));
            else
                for (index_t j = 0; j < view_.extent(1); ++j) all.push_back(view_(i, j));
        return all;
    }

  private:
    static constexpr unsigned char poison = 0x5a;
    static constexpr index_t around = 4;
    std::vector<T> memory_;
    pare::view<T, Rank> view_;
};

/// Whether `call` throws what pare throws. Anything else is a fault.
template <class Call>
bool refused(const Call& call) {
    try {
        call();
    } catch (const pare::error& e) {
        EXPECT(*e.what() != '\0');
        return true;
    }
    return false;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() &&
           (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

} // namespace fuzz
