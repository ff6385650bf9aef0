// Normalisation of rows and its adjoint, each row read once: in registers of the threads that share
// it, where it has to be seen as a whole.
#pragma once

#include "device_blocks.hpp"

#include <cmath>

namespace encoder::device {

using pare::detail::per_thread;

/// The sum of one or two arrays of rows, as what normalize() takes.
template <class T, int Arrays>
struct sum_of_rows {
    index_t columns;
    const T* x[Arrays];

    template <int Width>
    PARE_HD void operator()(index_t t, index_t j, float (&to)[Width]) const {
        load(x[0] + t * columns + j, to);
        if constexpr (Arrays == 2) {
            float more[Width];
            load(x[1] + t * columns + j, more);
            PARE_UNROLL
            for (int e = 0; e < Width; ++e) to[e] += more[e];
        }
    }
};

/// Embeddings of tokens, for normalize() too. An id is that of a word plus the type times the
/// vocabulary; types may be null.
template <class T>
struct embeddings {
    const std::int32_t *ids, *places;
    const T *words, *positions, *types;
    std::uint32_t vocabulary;
    index_t columns;

    template <int Width>
    PARE_HD void operator()(index_t t, index_t j, float (&to)[Width]) const {
        const auto id = static_cast<std::uint32_t>(ids[t]);
        float position[Width], type[Width] = {};
        load(words + static_cast<index_t>(id % vocabulary) * columns + j, to);
        load(positions + places[t] * columns + j, position);
        if (types) load(types + static_cast<index_t>(id / vocabulary) * columns + j, type);
        PARE_UNROLL
        for (int e = 0; e < Width; ++e) to[e] += position[e] + type[e];
    }
};
/// A block's rows, each shared by Lanes threads. A thread has parts of Width neighbours, up to Kept of
/// them in registers; if Kept is 0 there may be any number of parts, one of them at a time.
template <int Width, int Lanes, int Kept>
struct rows_of_block {
    static constexpr int width = Width, lanes = Lanes, kept = Kept;
    static constexpr int count = thread_block::size / Lanes;
    struct parts {
        float of[Kept > 0 ? Kept : 1][Width];
    };

    index_t rows, columns;

    /// f(row, column, i) for all Kept parts of a thread, those that are none being others again: what
    /// has no condition can be read at once.
    template <class F>
    PARE_HD void read(index_t block, int thread, const F& f) const {
        const index_t t = block * count + thread / Lanes, row = t < rows ? t : rows - 1;
        PARE_UNROLL
        for (int i = 0; i < Kept; ++i) {
            const index_t j = (thread % Lanes + i * Lanes) * Width;
            f(row, j < columns ? j : columns - Width, i);
        }
    }
    /// f(row, column, i) for the thread's parts.
    template <class F>
    PARE_HD void each(index_t block, int thread, const F& f) const {
        const index_t t = block * count + thread / Lanes;
        if (t >= rows) return;
        if constexpr (Kept > 0) {
            PARE_UNROLL
            for (int i = 0; i < Kept; ++i) {
                const index_t j = (thread % Lanes + i * Lanes) * Width;
                if (j < columns) f(t, j, i);
            }
        } else {
            for (index_t j = thread % Lanes * Width; j < columns; j += Lanes * Width) f(t, j, 0);
        }
    }
    /// The mean over the thread's row, whose threads left their sums in shared memory.
    PARE_HD float mean_of(const float* sums, int thread) const {
        const auto* const from =
            reinterpret_cast<const pack<float>*>(sums + thread / Lanes * Lanes);
        float total[4] = {};
        PARE_UNROLL
        for (int i = 0; i < Lanes / 4; ++i)
            for (int e = 0; e < 4; ++e) total[e] += from[i].of[e];
        return ((total[0] + total[1]) + (total[2] + total[3])) / static_cast<float>(columns);
    }
};
/// f(rows_of_block of rows of T).
template <class T, class F>
void with_rows(index_t rows, index_t columns, const F& f) {
    with_width<T>(columns, [&](auto width) {
        constexpr int wide = width.value, all = thread_block::size;
        if constexpr (wide == 1)
            f(rows_of_block<1, 32, 0>{rows, columns});
        else if (columns <= 4 * 32 * wide)
            f(rows_of_block<wide, 32, 4>{rows, columns});
        else if (columns <= 4 * all * wide)
            f(rows_of_block<wide, all, 4>{rows, columns});
        else
            f(rows_of_block<wide, all, 0>{rows, columns});
    });
}

template <class T, class Rows, class Own>
struct normalization {
    struct shared {
        alignas(16) float sums[thread_block::size], squares[thread_block::size];
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);
    static constexpr int width = Own::width;

    Own at;
    Rows made;
    const float *weight, *bias;
    float epsilon;
    T *sum, *y;

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        shared& m = *reinterpret_cast<shared*>(memory);
        const thread_block together;
        per_thread<typename Own::parts> kept;
        together.step([&](int thread) {
            auto& row = kept[thread].of;
            at.read(block, thread, [&](index_t t, index_t j, int i) { made(t, j, row[i]); });
            float total = 0;
            at.each(block, thread, [&](index_t t, index_t j, int i) {
                if constexpr (Own::kept == 0) made(t, j, row[i]);
                PARE_UNROLL
                for (int e = 0; e < width; ++e) total += row[i][e];
            });
            m.sums[thread] = total;
        });
        together.step([&](int thread) {
            auto& row = kept[thread].of;
            const float mean = at.mean_of(m.sums, thread);
            float total = 0;
            at.each(block, thread, [&](index_t t, index_t j, int i) {
                if constexpr (Own::kept == 0) made(t, j, row[i]);
                PARE_UNROLL
                for (int e = 0; e < width; ++e) total += (row[i][e] - mean) * (row[i][e] - mean);
            });
            m.squares[thread] = total;
        });
        together.step([&](int thread) {
            auto& row = kept[thread].of;
            const float mean = at.mean_of(m.sums, thread),
                        inverse = 1 / std::sqrt(at.mean_of(m.squares, thread) + epsilon);
            at.each(block, thread, [&](index_t t, index_t j, int i) {
                if constexpr (Own::kept == 0) made(t, j, row[i]);
                float by[width], more[width], value[width];
                load(weight + j, by);
                load(bias + j, more);
                PARE_UNROLL
                for (int e = 0; e < width; ++e)
                    value[e] = (row[i][e] - mean) * inverse * by[e] + more[e];
                if (sum) store(row[i], sum + t * at.columns + j);
                store(value, y + t * at.columns + j);
            });
        });
    }
};

/// y = (s - mean) / deviation * weight + bias for the rows s that `made` gives: made(t, j, to) is
/// neighbours from column j on of row t. `sum` [rows x columns] gets s, unless it is null. `made` may
/// read what y holds of the same row, and of what `sum` holds nothing.
template <class Policy, class T, class Rows>
void normalize(const Policy& policy, const norm<Policy>& n, float epsilon, index_t rows,
               index_t columns, const Rows& made, T* sum, T* y) {
    with_rows<T>(rows, columns, [&](auto at) {
        policy.for_blocks((rows + at.count - 1) / at.count,
                          normalization<T, Rows, decltype(at)>{at, made, n.weight.data(),
                                                               n.bias.data(), epsilon, sum, y});
    });
}

/// Replaces the gradient at what normalize() gives of rows `sum` by that at them. If `found` is not
/// null, the gradient stays and `found` [rows x 2] gets each row's mean and the inverse of its
/// deviation.
template <class T, class Own>
struct normalization_backward {
    struct shared {
        alignas(16) float sums[4][thread_block::size];
    };
    static constexpr std::size_t shared_bytes = sizeof(shared);
    static constexpr int width = Own::width;

    Own at;
    const float* weight;
    float epsilon;
    const T* sum;
    T* gradient;
    float* found;

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        shared& m = *reinterpret_cast<shared*>(memory);
        const thread_block together;
        per_thread<typename Own::parts> kept, kept_gradient;
        const auto make = [&](index_t t, index_t j, float(&x)[width], float(&g)[width]) {
            float by[width];
            load(sum + t * at.columns + j, x);
            load(gradient + t * at.columns + j, g);
            load(weight + j, by);
            PARE_UNROLL
            for (int e = 0; e < width; ++e) g[e] *= by[e];
        };
        together.step([&](int thread) {
            auto &x = kept[thread].of, &g = kept_gradient[thread].of;
            at.read(block, thread, [&](index_t t, index_t j, int i) { make(t, j, x[i], g[i]); });
            float total = 0;
            at.each(block, thread, [&](index_t t, index_t j, int i) {
                if constexpr (Own::kept == 0) make(t, j, x[i], g[i]);
                PARE_UNROLL
                for (int e = 0; e < width; ++e) total += x[i][e];
            });
            m.sums[0][thread] = total;
        });
        together.step([&](int thread) {
            auto &x = kept[thread].of, &g = kept_gradient[thread].of;
            const float mean = at.mean_of(m.sums[0], thread);
            float squares = 0, ones = 0, along = 0;
            at.each(block, thread, [&](index_t t, index_t j, int i) {
                if constexpr (Own::kept == 0) make(t, j, x[i], g[i]);
                PARE_UNROLL
                for (int e = 0; e < width; ++e) {
                    const float less = x[i][e] - mean;
                    squares += less * less;
                    ones += g[i][e];
                    along += g[i][e] * less;
                }
            });
            m.sums[1][thread] = squares;
            m.sums[2][thread] = ones;
            m.sums[3][thread] = along;
        });
        together.step([&](int thread) {
            auto &x = kept[thread].of, &g = kept_gradient[thread].of;
            const float mean = at.mean_of(m.sums[0], thread),
                        squared = 1 / (at.mean_of(m.sums[1], thread) + epsilon),
                        inverse = std::sqrt(squared);
            if (found) {
                const index_t t = block * Own::count + thread / Own::lanes;
                if (thread % Own::lanes > 0 || t >= at.rows) return;
                found[2 * t] = mean;
                found[2 * t + 1] = inverse;
                return;
            }
            // What changes the mean or the length of a row has no effect.
            const float along_ones = at.mean_of(m.sums[2], thread),
                        along_row = at.mean_of(m.sums[3], thread) * squared;
            at.each(block, thread, [&](index_t t, index_t j, int i) {
                if constexpr (Own::kept == 0) make(t, j, x[i], g[i]);
                float value[width];
                PARE_UNROLL
                for (int e = 0; e < width; ++e)
                    value[e] = (g[i][e] - along_ones - (x[i][e] - mean) * along_row) * inverse;
                store(value, gradient + t * at.columns + j);
            });
        });
    }
};
/// `found` as above.
template <class Policy, class T>
void normalize_backward(const Policy& policy, const norm<Policy>& n, float epsilon, index_t rows,
                        index_t columns, const T* sum, T* gradient, float* found) {
    with_rows<T>(rows, columns, [&](auto at) {
        policy.for_blocks((rows + at.count - 1) / at.count,
                          normalization_backward<T, decltype(at)>{at, n.weight.data(), epsilon, sum,
                                                                  gradient, found});
    });
}

} // namespace encoder::device
