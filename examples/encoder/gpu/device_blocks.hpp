// Elements of arrays in the memory of a Thrust policy, 16 bytes at a time. T is the type that they are
// stored in, float or a half type; they are worked with in float.
#pragma once

#include "device_memory.hpp"

#include <cstdint>
#include <type_traits>

namespace encoder::device {

using pare::detail::pack;
using pare::detail::thread_block;

/// Width neighbours; 16 bytes at a time, unless Width is 1.
template <int Width, class T>
PARE_HD void load(const T* from, float (&to)[Width]) {
    if constexpr (Width == 1) {
        to[0] = static_cast<float>(*from);
    } else {
        constexpr int size = pack<T>::size;
        static_assert(Width % size == 0);
        PARE_UNROLL
        for (int first = 0; first < Width; first += size) {
            const pack<T> some = *reinterpret_cast<const pack<T>*>(from + first);
            PARE_UNROLL
            for (int e = 0; e < size; ++e) to[first + e] = static_cast<float>(some.of[e]);
        }
    }
}
template <int Width, class T>
PARE_HD void store(const float (&from)[Width], T* to) {
    if constexpr (Width == 1) {
        *to = static_cast<T>(from[0]);
    } else {
        constexpr int size = pack<T>::size;
        static_assert(Width == size);
        pack<T> some;
        PARE_UNROLL
        for (int e = 0; e < size; ++e) some.of[e] = static_cast<T>(from[e]);
        *reinterpret_cast<pack<T>*>(to) = some;
    }
}
/// f(width): of what is loaded at once from rows of so many columns, as a constant.
template <class T, class F>
void with_width(index_t columns, const F& f) {
    constexpr int size = pack<T>::size;
    if (columns % size == 0)
        f(std::integral_constant<int, size>());
    else
        f(std::integral_constant<int, 1>());
}

template <class T, int Inputs, class F>
struct mapped {
    F f;
    index_t count;
    T* y;
    const T* x[Inputs];

    PARE_HD void operator()(index_t at) const {
        constexpr int width = pack<T>::size;
        const index_t first = at * width;
        if (first + width <= count) {
            float in[Inputs][width], out[width];
            PARE_UNROLL
            for (int i = 0; i < Inputs; ++i) load(x[i] + first, in[i]);
            PARE_UNROLL
            for (int e = 0; e < width; ++e) out[e] = value(in, e);
            store(out, y + first);
            return;
        }
        for (index_t at_end = first; at_end < count; ++at_end) {
            float in[Inputs][1];
            for (int i = 0; i < Inputs; ++i) load(x[i] + at_end, in[i]);
            y[at_end] = static_cast<T>(value(in, 0));
        }
    }

  private:
    template <int Width>
    PARE_HD float value(const float (&in)[Inputs][Width], int e) const {
        if constexpr (Inputs == 1)
            return f(in[0][e]);
        else
            return f(in[0][e], in[1][e]);
    }
};
/// y[i] = f(x[i]...), in float, of one or two arrays that begin where memory was given; y may be one
/// of them.
template <class Policy, class F, class T, class... More>
void map(const Policy& policy, index_t count, const F& f, T* y, const T* x, const More*... more) {
    constexpr index_t width = pack<T>::size;
    policy.for_each((count + width - 1) / width,
                    mapped<T, 1 + static_cast<int>(sizeof...(More)), F>{f, count, y, {x, more...}});
}

struct same {
    PARE_HD float operator()(float x) const { return x; }
};
template <class Policy, class T>
void copy(const Policy& policy, index_t count, const T* x, T* y) {
    map(policy, count, same(), y, x);
}
struct plus {
    PARE_HD float operator()(float x, float y) const { return x + y; }
};
struct times {
    float by;
    PARE_HD float operator()(float x) const { return by * x; }
};

template <class T, int Width>
struct scaled_columns {
    std::uint32_t in_row; // parts of Width
    const float* by;
    T* x;

    PARE_HD void operator()(index_t at) const {
        const index_t part = at < index_t{1} << 32 ? static_cast<std::uint32_t>(at) % in_row
                                                   : at % static_cast<index_t>(in_row);
        float values[Width], factors[Width];
        load(x + at * Width, values);
        load(by + part * Width, factors);
        PARE_UNROLL
        for (int e = 0; e < Width; ++e) values[e] *= factors[e];
        store(values, x + at * Width);
    }
};
/// x[t, j] *= by[j], for x [rows x columns].
template <class Policy, class T>
void scale_columns(const Policy& policy, index_t rows, index_t columns, const float* by, T* x) {
    with_width<T>(columns, [&](auto width) {
        const index_t in_row = columns / width.value;
        policy.for_each(rows * in_row,
                        scaled_columns<T, width.value>{static_cast<std::uint32_t>(in_row), by, x});
    });
}

} // namespace encoder::device
