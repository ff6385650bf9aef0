// One number of many, by blocks of threads, whose own numbers the host puts together: a kernel and a
// copy. Terms are added up in compute_t, at most 256 of them, and in double from there on, in an
// order that depends on their number alone.
#pragma once

#include "../../core/attention.hpp"
#include "../../core/fast_math.hpp"
#include "packs.hpp"
#include "thrust_blocks.hpp"

#include <algorithm>
#include <tuple>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// What a source has of its places, put together: source.of(at, step, places) of the places at, at +
/// step, ... by a thread, source.join(a, b) of neighbours.
template <class Source>
struct fold_block {
    using value = typename Source::value;
    static constexpr int threads = 256;
    static constexpr index_t most = 1024; ///< blocks, whose values the host puts together
    static constexpr std::size_t shared_bytes = threads * sizeof(value);

    Source source;
    index_t places, count; ///< of blocks
    value* values;

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        value* const of_threads = reinterpret_cast<value*>(memory);
        const block_of<threads> all;
        all.step([&](int thread) {
            of_threads[thread] = source.of(block * threads + thread, count * threads, places);
        });
        fold(all,
             [&](int i, int j) { of_threads[i] = Source::join(of_threads[i], of_threads[j]); });
        all.step([&](int thread) {
            if (thread == 0) values[block] = of_threads[0];
        });
    }
};
/// Waits for the value.
template <class Policy, class Source>
typename Source::value fold_by_blocks(const Policy& policy, index_t places, const Source& source) {
    using kernel = fold_block<Source>;
    using value = typename Source::value;
    const index_t count =
        std::clamp<index_t>((places + kernel::threads - 1) / kernel::threads, 1, kernel::most);
    const auto memory = policy.template temporary<value>(count);
    policy.for_blocks(count, kernel{source, places, count, memory.data()});
    value here[kernel::most];
    policy.copy_to_host(memory.data(), count, here);
    for (index_t i = 1; i < count; ++i) here[0] = Source::join(here[0], here[i]);
    return here[0];
}

/// The first place where f holds; there are fewer than this where there is none.
template <class F>
struct first_where {
    using value = index_t;
    F f;
    PARE_HD index_t of(index_t at, index_t step, index_t places) const {
        while (at < places && !f(at)) at += step;
        return at;
    }
    PARE_HD static index_t join(index_t a, index_t b) { return a < b ? a : b; }
};
/// The sum of the integers f(i).
template <class F>
struct sum_of_integers {
    using value = index_t;
    F f;
    PARE_HD index_t of(index_t at, index_t step, index_t places) const {
        index_t total = 0;
        for (; at < places; at += step) total += static_cast<index_t>(f(at));
        return total;
    }
    PARE_HD static index_t join(index_t a, index_t b) { return a + b; }
};

struct added_up {
    using value = double;
    PARE_HD static double join(double a, double b) { return opaque(a + b); }
};

/// The numbers f(i).
template <class F>
struct sum_of_numbers : added_up {
    F f;
    explicit sum_of_numbers(const F& of_place) : f(of_place) {}
    PARE_HD double of(index_t at, index_t step, index_t places) const {
        double total = 0;
        for (; at < places; at += step) add_in_order(total, static_cast<double>(f(at)));
        return total;
    }
};

struct checked_sum {
    double sum;
    int wrong;
};
/// The sum of make(count)(s, i, i + 1) over all rows i, each of its segment s: `count` is that of the
/// segments that are not empty, which each block finds for itself, as it does what is wrong.
template <class Offset, class Make>
struct sum_segments_block {
    static constexpr int threads = 256;
    static constexpr index_t most = 1024; ///< blocks
    static constexpr std::size_t shared_bytes = threads * sizeof(double);

    const Offset* offsets;
    index_t segments, rows, count;
    Make make;
    checked_sum* sums;

    PARE_HD void operator()(index_t block, unsigned char* memory) const {
        const block_of<threads> all;
        constexpr index_t wrong = index_t{1} << 34; // more than there are segments
        index_t* const found = reinterpret_cast<index_t*>(memory);
        all.step([&](int thread) {
            index_t sum = 0;
            for (index_t s = thread; s <= segments; s += threads) {
                const auto at = static_cast<index_t>(offsets[s]);
                const index_t before = s > 0 ? static_cast<index_t>(offsets[s - 1]) : 0;
                if (at < before || (s == 0 && at != 0) || (s == segments && at != rows))
                    sum += wrong;
                sum += at > before;
            }
            found[thread] = sum;
        });
        add_up(all, found);
        const index_t some = found[0];
        all.step([](int) {}); // the memory is used again
        double* const parts = reinterpret_cast<double*>(memory);
        if (some < wrong) {
            const auto f = make(static_cast<double>(some));
            all.step([&](int thread) {
                double sum = 0;
                for (index_t i = block * threads + thread; i < rows; i += count * threads)
                    add_in_order(sum, f(segment_of(offsets, segments, i), i, i + 1));
                parts[thread] = sum;
            });
            add_up(all, parts);
        }
        all.step([&](int thread) {
            if (thread == 0) sums[block] = {some < wrong ? parts[0] : 0, some >= wrong};
        });
    }
};
template <class Policy, class Offset, class Make>
checked_sum sum_segments_by_blocks(const Policy& policy, const Offset* offsets, index_t segments,
                                   index_t rows, const Make& make) {
    using kernel = sum_segments_block<Offset, Make>;
    const index_t count =
        std::clamp<index_t>((rows + kernel::threads - 1) / kernel::threads, 1, kernel::most);
    const auto memory = policy.template temporary<checked_sum>(count);
    policy.for_blocks(count, kernel{offsets, segments, rows, count, make, memory.data()});
    checked_sum here[kernel::most];
    policy.copy_to_host(memory.data(), count, here);
    for (index_t i = 1; i < count; ++i) add_in_order(here[0].sum, here[i].sum);
    return here[0];
}

/// sequential::transform_sum in packs.
template <class Op, class Out, class... Ts>
struct sum_of_transformed : added_up {
    static constexpr int size = common_size<Out, Ts...>, unroll = 4;
    static constexpr int terms = 256 / size; // packs whose sum is made in C
    using C = compute_t<Out>;
    using packs = std::tuple<pack<Ts>...>;

    Op op;
    view<Out, 1> out;
    std::tuple<view<const Ts, 1>...> in;
    index_t whole; // packs

    sum_of_transformed(Op o, view<Out, 1> to, view<const Ts, 1>... from)
        : op(o), out(to), in(from...), whole(0) {
        if (same_size<Out, Ts...> && rows_in_packs(to) && (rows_in_packs(from) && ...))
            whole = to.extent(0) / size;
    }

    PARE_HD double of(index_t at, index_t step, index_t places) const {
        piecewise_sum<C> sum;
        for (; at + (unroll - 1) * step < whole; at += unroll * step) {
            packs x[unroll];
            for (int u = 0; u < unroll; ++u) load<true>(at + u * step, x[u]);
            for (int u = 0; u < unroll; ++u) store<true>(at + u * step, x[u], sum.piece);
            sum.add(unroll, terms);
        }
        PARE_ONE_BY_ONE
        for (; at < places; at += step) {
            packs x;
            if (at < whole) {
                load<true>(at, x);
                store<true>(at, x, sum.piece);
            } else {
                load<false>(at, x);
                store<false>(at, x, sum.piece);
            }
            sum.add(1, terms);
        }
        return sum.total();
    }

  private:
    PARE_HD index_t count(index_t at) const {
        const index_t left = out.extent(0) - at * size;
        return left < size ? left : size;
    }
    template <bool Whole>
    PARE_HD void load(index_t at, packs& to) const {
        load_packs(to, in, [&](const auto& x) {
            return load_pack<Whole>(&x(at * size), x.stride(0), count(at));
        });
    }
    template <bool Whole>
    PARE_HD void store(index_t at, const packs& x, C& sum) const {
        pack<Out> y;
        const auto found = apply<C, size>(op, x);
        for (int e = 0; e < size; ++e) {
            y.of[e] = static_cast<Out>(found.of[e]);
            if (Whole || e < count(at)) add_in_order(sum, found.of[e]);
        }
        store_pack<Whole>(y, &out(at * size), out.stride(0), count(at));
    }
};
template <class Policy, class Op, class Out, class... Ts>
double transform_sum_by_blocks(const Policy& policy, Op op, view<Out, 1> out,
                               view<const Ts, 1>... in) {
    using source = sum_of_transformed<Op, Out, Ts...>;
    return fold_by_blocks(policy, (out.extent(0) + source::size - 1) / source::size,
                          source(op, out, in...));
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
