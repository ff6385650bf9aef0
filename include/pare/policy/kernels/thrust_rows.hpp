// Rows that blocks of threads scale and move: no sums but those of a row.
#pragma once

#include "../../core/fast_math.hpp"
#include "packs.hpp"
#include "thrust_blocks.hpp"

#include <algorithm>
#include <limits>
#include <tuple>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// A job is done place by place of a grid: load<Whole>(i, j, loaded) reads what store<Whole>(i, j,
/// loaded) writes something of. The first `whole` places of a row may be loaded and stored as whole
/// ones. A thread loads Job::at_once before it stores them, so that memory answers them together; a job
/// that works in place reads nothing from where another place is stored.
template <class Job>
struct map_block {
    static constexpr int most = Job::at_once, blocks_a_processor = 8;
    static constexpr std::size_t shared_bytes = 16;
    using value = typename Job::value;

    Job job;
    index_t rows, columns;
    index_t step_rows, step_columns; // from a thread's place to its next
    int places;                      // `most`, or 1 where that leaves too few threads

    map_block(const Job& of, index_t rows_of, index_t columns_of)
        : job(of), rows(rows_of), columns(columns_of), step_rows(thread_block::size / columns),
          step_columns(thread_block::size % columns) {
        constexpr index_t enough = index_t{1} << 19;
        places = rows * columns >= enough * most ? most : 1;
    }

    index_t blocks() const {
        const index_t in_block = index_t{thread_block::size} * places;
        return (rows * columns + in_block - 1) / in_block;
    }

    PARE_HD void operator()(index_t block, unsigned char*) const {
        const index_t last = job.last(rows);
        thread_block().step([&](int thread) {
            const index_t first = block * (index_t{thread_block::size} * places) + thread;
            index_t i = first / columns, j = first % columns;
            if (places == most && all_whole(i, j, last)) {
                value loaded[most];
                index_t at_i[most], at_j[most];
                for (int u = 0; u < most; ++u, next(i, j)) {
                    job.template load<true>(i, j, loaded[u]);
                    at_i[u] = i;
                    at_j[u] = j;
                }
                for (int u = 0; u < most; ++u)
                    job.template store<true>(at_i[u], at_j[u], loaded[u]);
            } else {
                PARE_ONE_BY_ONE
                for (int u = 0; u < places && i < last; ++u, next(i, j))
                    if (j < job.whole)
                        one<true>(i, j);
                    else
                        one<false>(i, j);
            }
        });
    }

  private:
    PARE_HD void next(index_t& i, index_t& j) const {
        i += step_rows;
        j += step_columns;
        if (j < columns) return;
        j -= columns;
        ++i;
    }
    PARE_HD bool all_whole(index_t i, index_t j, index_t last) const {
        bool all = true;
        for (int u = 0; u < most; ++u, next(i, j)) all = all && i < last && j < job.whole;
        return all;
    }
    template <bool Whole>
    PARE_HD void one(index_t i, index_t j) const {
        value loaded;
        job.template load<Whole>(i, j, loaded);
        job.template store<Whole>(i, j, loaded);
    }
};

template <class Policy, class Job>
void map(const Policy& policy, index_t rows, index_t columns, const Job& job) {
    if (rows <= 0 || columns <= 0) return;
    const map_block<Job> kernel(job, rows, columns);
    policy.for_blocks(kernel.blocks(), kernel);
}

/// How many rows there are: as many as there is room for, or a number in the policy's memory.
struct all_rows {
    constexpr index_t operator()(index_t room) const { return room; }
};
template <class Integer>
struct rows_there {
    const Integer* count;
    constexpr index_t operator()(index_t room) const {
        return std::min(room, static_cast<index_t>(*count));
    }
};

/// out[i] = op(in[i], ...)
template <class Op, class Out, class... Ts>
struct transform_job {
    static constexpr int at_once = 4;
    static constexpr int size = common_size<Out, Ts...>;
    using C = compute_t<Out>;
    using value = std::tuple<pack<Ts>...>;

    Op op;
    view<Out, 1> out;
    std::tuple<view<const Ts, 1>...> in;
    index_t whole;

    PARE_HD index_t last(index_t rows) const { return rows; }
    template <bool Whole>
    PARE_HD void load(index_t, index_t at, value& to) const {
        load_packs(to, in, [&](const auto& x) {
            return load_pack<Whole>(&x(at * size), x.stride(0), count(at));
        });
    }
    template <bool Whole>
    PARE_HD void store(index_t, index_t at, const value& x) const {
        const auto found = apply<C, size>(op, x);
        pack<Out> y;
        for (int e = 0; e < size; ++e) y.of[e] = static_cast<Out>(found.of[e]);
        store_pack<Whole>(y, &out(at * size), out.stride(0), count(at));
    }

  private:
    PARE_HD index_t count(index_t at) const {
        const index_t left = out.extent(0) - at * size;
        return left < size ? left : size;
    }
};

template <class T>
struct scale_rows_job {
    static constexpr int at_once = 4;
    static constexpr int size = pack<T>::size;
    using C = compute_t<T>;
    struct value {
        pack<T> x;
        T scale;
    };

    view<const T, 1> scales;
    view<const T, 2> x;
    view<T, 2> y;
    index_t whole;

    PARE_HD index_t last(index_t rows) const { return rows; }
    template <bool Whole>
    PARE_HD void load(index_t i, index_t at, value& to) const {
        to.x = load_pack<Whole>(&x(i, at * size), x.stride(1), x.extent(1) - at * size);
        to.scale = scales(i);
    }
    template <bool Whole>
    PARE_HD void store(index_t i, index_t at, const value& of) const {
        pack<T> scaled;
        for (int e = 0; e < size; ++e)
            scaled.of[e] = static_cast<T>(static_cast<C>(of.scale) * static_cast<C>(of.x.of[e]));
        store_pack<Whole>(scaled, &y(i, at * size), y.stride(1), y.extent(1) - at * size);
    }
};

/// scale_rows_dot: a row by `lanes` neighbouring threads.
template <class T>
struct scale_rows_dot_block {
    static constexpr int size = pack<T>::size, unroll = 4;
    static constexpr int terms = 256 / size; // packs whose sum is made in C
    static constexpr std::size_t shared_bytes = thread_block::size * sizeof(double);
    using C = compute_t<T>;

    view<const T, 1> scales;
    view<const T, 2> x, y;
    view<T, 2> z;
    view<T, 1> dots;
    int whole; // packs of a row
    int lanes; // a power of two

    index_t blocks() const {
        const index_t rows = thread_block::size / lanes;
        return (x.extent(0) + rows - 1) / rows;
    }

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        const thread_block threads;
        double* const sums = reinterpret_cast<double*>(memory);
        const index_t first = block * (thread_block::size / lanes);
        threads.step([&](int thread) {
            const index_t i = first + thread / lanes;
            sums[thread] = i < x.extent(0) ? dot(i, thread % lanes) : 0.0;
        });
        for (int apart = lanes / 2; apart > 0; apart /= 2)
            threads.step([&](int thread) {
                if (thread % lanes < apart) sums[thread] += sums[thread + apart];
            });
        threads.step([&](int thread) {
            const index_t i = first + thread / lanes;
            if (thread % lanes == 0 && i < x.extent(0)) dots(i) = static_cast<T>(sums[thread]);
        });
    }

  private:
    /// Scales a lane's part of row i, and returns that of its product.
    PARE_HD double dot(index_t i, int lane) const {
        const C scale = static_cast<C>(scales(i));
        const int packs = static_cast<int>(packs_of<T>(x.extent(1)));
        const T *const of_x = &x(i, 0), *const of_y = &y(i, 0);
        T* const of_z = &z(i, 0);
        piecewise_sum<C> sum;
        int at = lane;
        for (; at + (unroll - 1) * lanes < whole; at += unroll * lanes) {
            pack<T> a[unroll], b[unroll];
            for (int u = 0; u < unroll; ++u) {
                const index_t c = index_t{at + u * lanes} * size;
                a[u] = load_pack<true>(of_x + c, 1, size);
                b[u] = load_pack<true>(of_y + c, 1, size);
            }
            for (int u = 0; u < unroll; ++u)
                finish<true>(a[u], b[u], scale, of_z, at + u * lanes, sum.piece);
            sum.add(unroll, terms);
        }
        PARE_ONE_BY_ONE
        for (; at < packs; at += lanes) {
            const index_t c = index_t{at} * size, count = x.extent(1) - c;
            if (at < whole) {
                const pack<T> a = load_pack<true>(of_x + c, 1, size);
                finish<true>(a, load_pack<true>(of_y + c, 1, size), scale, of_z, at, sum.piece);
            } else {
                const pack<T> a = load_pack<false>(of_x + c * x.stride(1), x.stride(1), count);
                finish<false>(a, load_pack<false>(of_y + c * y.stride(1), y.stride(1), count),
                              scale, of_z, at, sum.piece);
            }
            sum.add(1, terms);
        }
        return sum.total();
    }
    template <bool Whole>
    PARE_HD void finish(const pack<T>& a, const pack<T>& b, C scale, T* of_z, int at,
                        C& sum) const {
        pack<T> scaled;
        for (int e = 0; e < size; ++e) {
            const C value = static_cast<C>(b.of[e]);
            add_in_order(sum, static_cast<C>(a.of[e]) * value);
            scaled.of[e] = static_cast<T>(scale * value);
        }
        const index_t c = index_t{at} * size;
        store_pack<Whole>(scaled, of_z + c * (Whole ? 1 : z.stride(1)), z.stride(1),
                          x.extent(1) - c);
    }
};

/// to(i, j) = from(i, j): elements that move, one by one. Both are views, or elements of one:
template <class T, class From, class To, class Rows>
struct move_job {
    static constexpr int at_once = 4;
    using value = T;
    From from;
    To to;
    Rows rows;
    index_t whole = std::numeric_limits<index_t>::max();
    PARE_HD index_t last(index_t room) const { return rows(room); }
    template <bool>
    PARE_HD void load(index_t i, index_t j, T& x) const {
        x = from(i, j);
    }
    template <bool>
    PARE_HD void store(index_t i, index_t j, const T& x) const {
        to(i, j) = x;
    }
};
template <class T, class Index>
struct of_row {
    view<T, 2> x;
    const Index* rows;
    constexpr T& operator()(index_t i, index_t j) const {
        return x(static_cast<index_t>(rows[i]), j);
    }
};
template <class T, class Index>
struct of_column {
    view<T, 2> x;
    const Index* columns;
    constexpr T& operator()(index_t i, index_t j) const {
        return x(i, static_cast<index_t>(columns[j]));
    }
};
template <class T, class Policy, class From, class To, class Rows>
void move_elements(const Policy& policy, index_t rows, index_t columns, const From& from,
                   const To& to, const Rows& count) {
    map(policy, rows, columns, move_job<T, From, To, Rows>{from, to, count});
}

/// Rows of whole packs as rows of such, whatever their elements are.
using bytes16 = pack<std::uint32_t>;
template <class T>
bool moves_in_packs(view<T, 2> x) {
    constexpr auto size = static_cast<index_t>(sizeof(T));
    return reinterpret_cast<std::uintptr_t>(x.data_handle()) % 16 == 0 &&
           x.extent(1) * size % 16 == 0 && (x.extent(1) <= 1 || x.stride(1) == 1) &&
           (x.extent(0) <= 1 || x.stride(0) * size % 16 == 0);
}
template <class T>
auto as_packs(view<T, 2> x) {
    using P = std::conditional_t<std::is_const_v<T>, const bytes16, bytes16>;
    constexpr auto size = static_cast<index_t>(sizeof(T));
    return view<P, 2>(reinterpret_cast<P*>(x.data_handle()), {x.extent(0), x.extent(1) * size / 16},
                      {x.stride(0) * size / 16, 1});
}

/// out[i, :] = in[rows[i], :] for as many rows as `count` says; in place by way of temporary memory.
template <class Policy, class T, class Index, class Rows>
void gather_by_blocks(const Policy& policy, view<const T, 2> in, const Index* rows, view<T, 2> out,
                      const Rows& count) {
    if (out.size() == 0) return;
    if constexpr (!std::is_same_v<T, bytes16>)
        if (moves_in_packs(in) && moves_in_packs(out))
            return gather_by_blocks(policy, as_packs(in), rows, as_packs(out), count);
    gather_from(policy, in, out, of_row<const T, Index>{in, rows}, count);
}
/// out(i, j) = from(i, j), elements of `in`.
template <class Policy, class T, class From, class Rows>
void gather_from(const Policy& policy, view<const T, 2> in, view<T, 2> out, const From& from,
                 const Rows& count) {
    static_assert(std::is_trivially_copyable_v<T>,
                  "pare: this policy moves elements as bytes, so they must be trivially copyable");
    const index_t rows = out.extent(0), columns = out.extent(1);
    if (static_cast<const void*>(in.data_handle()) != out.data_handle())
        return move_elements<T>(policy, rows, columns, from, out, count);
    const auto memory = policy.template temporary<T>(rows * columns);
    const view<T, 2> moved(memory.data(), rows, columns);
    move_elements<T>(policy, rows, columns, from, moved, count);
    move_elements<T>(policy, rows, columns, moved, out, count);
}

template <class Policy, class T, class Index, class Rows>
void scatter_by_blocks(const Policy& policy, view<const T, 2> in, const Index* rows, view<T, 2> out,
                       const Rows& count) {
    if constexpr (!std::is_same_v<T, bytes16>)
        if (moves_in_packs(in) && moves_in_packs(out))
            return scatter_by_blocks(policy, as_packs(in), rows, as_packs(out), count);
    move_elements<T>(policy, in.extent(0), in.extent(1), in, of_row<T, Index>{out, rows}, count);
}

template <class Policy, class Op, class Out, class... Ts>
void transform_by_blocks(const Policy& policy, Op op, view<Out, 1> out, view<const Ts, 1>... in) {
    using job = transform_job<Op, Out, Ts...>;
    const bool packed = same_size<Out, Ts...> && rows_in_packs(out) && (rows_in_packs(in) && ...);
    map(policy, 1, (out.extent(0) + job::size - 1) / job::size,
        job{op, out, std::tuple<view<const Ts, 1>...>(in...),
            packed ? out.extent(0) / job::size : 0});
}

template <class Policy, class T>
void scale_rows_by_blocks(const Policy& policy, view<const T, 1> scales, view<const T, 2> x,
                          view<T, 2> y) {
    const bool packed = rows_in_packs(x) && rows_in_packs(y);
    map(policy, x.extent(0), packs_of<T>(x.extent(1)),
        scale_rows_job<T>{scales, x, y, packed ? x.extent(1) / pack<T>::size : 0});
}

template <class Policy, class T>
void scale_rows_dot_by_blocks(const Policy& policy, view<const T, 1> scales, view<const T, 2> x,
                              view<const T, 2> y, view<T, 2> z, view<T, 1> dots) {
    if (x.extent(0) == 0) return;
    const index_t columns = x.extent(1);
    const bool packed = rows_in_packs(x) && rows_in_packs(y) && rows_in_packs(z);
    int lanes = 1;
    while (lanes < 16 && lanes < packs_of<T>(columns)) lanes *= 2;
    const int whole = packed ? static_cast<int>(columns / pack<T>::size) : 0;
    const scale_rows_dot_block<T> kernel{scales, x, y, z, dots, whole, lanes};
    policy.for_blocks(kernel.blocks(), kernel);
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
