// The Thrust policy: pare::on(exec) runs components by a Thrust execution policy: thrust::cpp::par,
// thrust::omp::par or, in files that nvcc compiles with --extended-lambda and
// --expt-relaxed-constexpr, thrust::cuda::par and par_nosync, with or without a stream and an
// allocator.
//
// On CUDA, views and pointers are of device memory. Calls are queued on the policy's stream and do
// not wait, except for those that return a number: keep_above, keep_top_k, mask_penalty and
// soft_mask_backward; and thrust::cuda::par waits in each of its algorithms, par_nosync does not.
// Contents of memory (offsets, positions, NaN) are checked by calls that wait anyway, but for
// soft_mask_backward; elsewhere they are the caller's to get right. Temporary memory comes from the
// policy's allocator; Thrust's own waits for the device when it gives memory back.
#pragma once

#if defined(__CUDACC__)
#if !defined(__CUDACC_EXTENDED_LAMBDA__) || !defined(__CUDACC_RELAXED_CONSTEXPR__)
#error "pare: nvcc needs --extended-lambda and --expt-relaxed-constexpr for the Thrust policy"
#endif
#elif !defined(THRUST_DEVICE_SYSTEM)
#error                                                                                             \
    "pare: Thrust takes CUDA for its device system, which this compiler does not know; define THRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_CPP or THRUST_DEVICE_SYSTEM_OMP, or link pare::thrust"
#endif

#include "seq.hpp"

#include <thrust/for_each.h>
#include <thrust/functional.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/memory.h>
#include <thrust/reduce.h>
#include <thrust/scan.h>
#include <thrust/sort.h>
#include <thrust/system/cpp/execution_policy.h>
#include <thrust/transform_reduce.h>
#ifdef _OPENMP
#include <thrust/system/omp/execution_policy.h>
#endif
#ifdef __CUDACC__
#include <thrust/system/cuda/execution_policy.h>
#endif

#include <algorithm>
#include <limits>
#include <new>
#include <tuple>
#include <type_traits>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// Where the algorithms of a Thrust execution policy run.
enum class thrust_system { unknown, host, host_threads, device };
template <thrust_system System>
using system_constant = std::integral_constant<thrust_system, System>;

// Thrust's policies of a system derive from its execution_policy, and those of OpenMP from those of
// C++ too.
system_constant<thrust_system::unknown> system_of(...);
template <class Derived>
system_constant<thrust_system::host> system_of(const thrust::cpp::execution_policy<Derived>&);
#ifdef _OPENMP
template <class Derived>
system_constant<thrust_system::host_threads>
system_of(const thrust::omp::execution_policy<Derived>&);
#endif
#ifdef __CUDACC__
template <class Derived>
system_constant<thrust_system::device> system_of(const thrust::cuda::execution_policy<Derived>&);
#endif

/// An executor whose tasks are the elements of thrust::for_each_n, for primitives that have no
/// other form yet.
template <class Exec>
struct thrust_tasks {
    static constexpr thrust_system system = decltype(system_of(std::declval<const Exec&>()))::value;
    static_assert(system != thrust_system::unknown,
                  "pare::on: expected a Thrust execution policy of the C++, OpenMP or CUDA system");

    Exec exec;

    index_t concurrency() const {
#ifdef _OPENMP
        if constexpr (system == thrust_system::host_threads) return omp_get_max_threads();
#endif
        return 1;
    }
    template <class F>
    void run(index_t tasks, const F& f) const {
        static_assert(system != thrust_system::device || always_false<F>,
                      "pare: this call has no form for CUDA yet");
        if constexpr (system != thrust_system::device) {
            if (tasks <= 0) return;
            thrust::for_each_n(exec, thrust::counting_iterator<index_t>(0), tasks, [&f](index_t i) {
                index_t slot = 0;
#ifdef _OPENMP
                if constexpr (system == thrust_system::host_threads) slot = omp_get_thread_num();
#endif
                f(i, slot);
            });
        }
    }
};

/// Memory from the allocator of a Thrust execution policy, which it goes back to.
template <class T, class Exec>
class thrust_memory {
  public:
    thrust_memory(const Exec& exec, index_t count) : exec_(exec), count_(count) {
        if (count == 0) return;
        const auto got = thrust::get_temporary_buffer<T>(exec_, count);
        first_ = thrust::raw_pointer_cast(got.first);
        if (got.second >= count) return;
        give_back();
        throw std::bad_alloc();
    }
    ~thrust_memory() { give_back(); }
    thrust_memory(const thrust_memory&) = delete;
    thrust_memory& operator=(const thrust_memory&) = delete;

    T* data() const { return first_; }

  private:
    using pointer = decltype(thrust::get_temporary_buffer<T>(std::declval<const Exec&>(), 0).first);

    void give_back() {
        if (first_) thrust::return_temporary_buffer(exec_, pointer(first_), count_);
    }

    Exec exec_;
    index_t count_;
    T* first_ = nullptr;
};

/// The logit of query i and key j of the sequence that begins at `begin`.
template <class T, class Offset>
PARE_HD compute_t<T> logit(const attention_call<T, Offset>& c, index_t head, index_t begin,
                           index_t i, index_t j) {
    using C = compute_t<T>;
    C sum = 0;
    for (index_t e = 0; e < c.q.extent(2); ++e)
        sum += static_cast<C>(c.q(begin + i, head, e)) *
               static_cast<C>(c.k(begin + j, c.group(head), e));
    return sum * static_cast<C>(c.scale) + static_cast<C>(c.bias(head, begin, i, j));
}

/// Whether position i comes before j: by segments, then by their order.
template <class Before, class Offset>
struct before_in_segments {
    Before before;
    const Offset* offsets;
    const index_t* segment; // of each position
    constexpr bool operator()(index_t i, index_t j) const {
        if (segment[i] != segment[j]) return segment[i] < segment[j];
        return before(i, j, static_cast<index_t>(offsets[segment[i]]));
    }
};

} // namespace detail

/// Primitives as algorithms of Thrust, made for thousands of threads that read neighbouring
/// numbers. Sums are made in double, in an order that depends on the shapes alone. What has no such
/// form runs as tasks of pare::seq's loops, on systems of the host only.
template <class Exec>
class thrust_policy : public sequential<detail::thrust_tasks<Exec>> {
    using tasks = detail::thrust_tasks<Exec>;
    using base = sequential<tasks>;

  public:
    explicit thrust_policy(const Exec& exec) : base(tasks{exec}) {}

    static constexpr bool on_host = tasks::system != detail::thrust_system::device;

    const Exec& exec() const { return this->executor().exec; }

    /// Throws value_error for memory that the device cannot read.
    void check_memory([[maybe_unused]] const void* p) const {
#ifdef __CUDACC__
        cudaPointerAttributes found;
        int device = 0, reads_all = 0;
        if (p == nullptr || cudaPointerGetAttributes(&found, p) != cudaSuccess ||
            found.type != cudaMemoryTypeUnregistered)
            return;
        if (cudaGetDevice(&device) == cudaSuccess &&
            cudaDeviceGetAttribute(&reads_all, cudaDevAttrPageableMemoryAccess, device) ==
                cudaSuccess &&
            reads_all == 0)
            detail::fail<value_error>("on", p, " is in memory of the host, which device ", device,
                                      " does not read");
#endif
    }

    template <class T>
    detail::thrust_memory<T, Exec> temporary(workspace&, index_t count) const {
        return temporary<T>(count);
    }
    template <class T>
    detail::thrust_memory<T, Exec> temporary(index_t count) const {
        return {exec(), count};
    }
    template <class T>
    T read(const T* p) const {
        return thrust::reduce(exec(), p, p + 1, T(0), thrust::plus<T>());
    }

    /// f(i) for i < n, in any order.
    template <class F>
    void for_each(index_t n, const F& f) const {
        if (n > 0) thrust::for_each_n(exec(), thrust::counting_iterator<index_t>(0), n, f);
    }
    template <class F>
    index_t first(index_t n, const F& f) const {
        const thrust::counting_iterator<index_t> begin(0);
        const index_t at = thrust::transform_reduce(
            exec(), begin, begin + n, [=] PARE_HD(index_t i) { return f(i) ? i : n; }, n,
            thrust::minimum<index_t>());
        return at < n ? at : -1;
    }
    template <class F>
    index_t sum(index_t n, const F& f) const {
        const thrust::counting_iterator<index_t> begin(0);
        return thrust::transform_reduce(
            exec(), begin, begin + n, [=] PARE_HD(index_t i) { return index_t{f(i)}; }, index_t{0},
            thrust::plus<index_t>());
    }
    template <class Offset, class F>
    double sum_segments(const Offset* offsets, index_t segments, index_t rows, const F& f) const {
        return sum_in_double(rows, [=] PARE_HD(index_t i) {
            return f(detail::segment_of(offsets, segments, i), i, i + 1);
        });
    }
    /// The sum of the numbers f(i), i < n.
    template <class F>
    double sum_in_double(index_t n, const F& f) const {
        if (n <= 0) return 0;
        index_t lanes = std::min<index_t>((n + 15) / 16, threads);
        const auto memory = temporary<double>(2 * lanes);
        double* sums = memory.data();
        for_each(lanes, [=] PARE_HD(index_t lane) {
            double total = 0;
            for (index_t i = lane; i < n; i += lanes) total += f(i);
            sums[lane] = total;
        });
        while (lanes > 1) {
            const index_t before = lanes;
            const double* const in = sums;
            lanes = (before + 63) / 64;
            double* const out = sums += before;
            for_each(lanes, [=] PARE_HD(index_t lane) {
                double total = 0;
                for (index_t i = lane; i < before; i += lanes) total += in[i];
                out[lane] = total;
            });
        }
        return read(sums);
    }

    template <class Op, class Offset, class Out, class T, class... Ts>
    void segment_sums(Op op, const Offset* offsets, index_t unit, view<Out, 2> out,
                      view<const T, 2> x, view<const Ts, 2>... others) const {
        using C = compute_t<T>;
        constexpr index_t pieces = 8; // of any segment, so that its sums do not depend on others
        const std::tuple<view<const T, 2>, view<const Ts, 2>...> in(x, others...);
        sum_pieces(
            out.extent(0), pieces, out.extent(1) * unit, unit,
            [=] PARE_HD(index_t s, index_t piece, index_t c) {
                const index_t end = static_cast<index_t>(offsets[s + 1]);
                double total = 0;
                for (index_t t = static_cast<index_t>(offsets[s]) + piece; t < end; t += pieces)
                    total += static_cast<double>(std::apply(
                        [&](const auto&... y) { return op(static_cast<C>(y(t, c))...); }, in));
                return total;
            },
            [=] PARE_HD(index_t s, index_t u, double total) {
                out(s, u) = static_cast<Out>(total);
            });
    }

    template <class T, class Batch>
    void key_sums(view<const T, 4> p, const Batch& batch, const attention_mask& mask,
                  const counted_queries& counted, view<double, 2> sums) const {
        constexpr index_t block = 32; // queries of one head are a piece
        const index_t blocks = (p.extent(2) + block - 1) / block;
        sum_pieces(
            p.extent(0), p.extent(1) * blocks, p.extent(3), 1,
            [=] PARE_HD(index_t b, index_t piece, index_t k) {
                const index_t h = piece / blocks, first = piece % blocks * block;
                const index_t queries = batch.queries(b), keys = batch.keys(b);
                const detail::index_range q = detail::counted(counted, queries);
                double total = 0;
                if (k >= keys) return total;
                for (index_t i = std::max(q.begin, first); i < std::min(q.end, first + block);
                     ++i) {
                    const auto seen = detail::visible_keys(mask, i, queries, keys);
                    if (k >= seen.begin && k < seen.end)
                        total += static_cast<double>(p(b, h, i, k));
                }
                return total;
            },
            [=] PARE_HD(index_t b, index_t k, double total) {
                if (k < batch.keys(b)) sums(b, k) = total;
            });
    }

    template <class T, class Batch>
    void add_to_keys(view<const T, 2> row, const Batch& batch, const attention_mask& mask,
                     const counted_queries& counted, view<T, 4> p) const {
        const index_t heads = p.extent(1), rows = p.extent(2), columns = p.extent(3);
        for_each(p.size(), [=] PARE_HD(index_t at) {
            const index_t k = at % columns, i = at / columns % rows;
            const index_t h = at / (columns * rows) % heads, b = at / (columns * rows * heads);
            const index_t queries = batch.queries(b), keys = batch.keys(b);
            const detail::index_range q = detail::counted(counted, queries);
            const detail::index_range seen = detail::visible_keys(mask, i, queries, keys);
            if (i >= q.begin && i < q.end && k >= seen.begin && k < seen.end)
                p(b, h, i, k) += row(b, k);
        });
    }

    template <class X, class Batch, class Y>
    void scale_keys(view<const X, 2> x, const Batch& batch, index_t heads,
                    const importance_options& options, view<Y, 2> y) const {
        const index_t columns = y.extent(1);
        for_each(y.size(), [=] PARE_HD(index_t at) {
            const index_t b = at / columns, k = at % columns;
            const index_t queries = batch.queries(b), keys = batch.keys(b);
            const double factor = detail::factor_of_key(options, heads, k, queries, keys);
            y(b, k) = k < keys ? static_cast<Y>(static_cast<double>(x(b, k)) * factor) : Y(0);
        });
    }

    template <class X, class Offset, class Y>
    void scale_tokens(view<const X, 1> x, const Offset* offsets, index_t sequences, index_t heads,
                      const importance_options& options, view<Y, 1> y) const {
        for_each(y.extent(0), [=] PARE_HD(index_t i) {
            const index_t s = detail::segment_of(offsets, sequences, i);
            const index_t begin = static_cast<index_t>(offsets[s]);
            const index_t n = static_cast<index_t>(offsets[s + 1]) - begin;
            y(i) = static_cast<Y>(static_cast<double>(x(i)) *
                                  detail::factor_of_key(options, heads, i - begin, n, n));
        });
    }

    /// A thread has a query of one head, and 32 columns of its output; then a key of one head.
    template <class T, class Offset>
    void attention(const detail::attention_call<T, Offset>& call, workspace&) const {
        using C = compute_t<T>;
        constexpr index_t strip = 32;
        const detail::attention_call<T, Offset> c = call;
        const index_t tokens = c.q.extent(0), heads = c.heads(), width = c.v.extent(2);
        const index_t strips = std::max<index_t>(1, (width + strip - 1) / strip);
        const auto memory = temporary<C>(2 * tokens * heads);
        C* const most = memory.data(); // logit of each query and head
        C* const total = most + tokens * heads;
        for_each(tokens * heads * strips, [=] PARE_HD(index_t at) {
            const index_t first = at % strips * strip, t = at / (strips * heads);
            const index_t h = at / strips % heads, g = c.group(h);
            const index_t last = first + strip < width ? first + strip : width;
            const index_t s = detail::segment_of(c.offsets, c.sequences, t);
            const index_t begin = c.begin(s), n = c.length(s);
            const detail::index_range seen = detail::visible_keys(c.mask, t - begin, n, n);
            C highest = std::numeric_limits<C>::lowest(), sum = 0, out[strip] = {};
            for (index_t j = seen.begin; j < seen.end; ++j) {
                const C logit = detail::logit(c, h, begin, t - begin, j);
                if (!(logit <= highest)) { // NaN too
                    const C less = std::exp(highest - logit);
                    sum *= less;
                    for (index_t e = first; e < last; ++e) out[e - first] *= less;
                    highest = logit;
                }
                const C p = std::exp(logit - highest);
                sum += p;
                for (index_t e = first; e < last; ++e)
                    out[e - first] += p * static_cast<C>(c.v(begin + j, g, e));
            }
            for (index_t e = first; e < last; ++e)
                c.out(t, h, e) = static_cast<T>(out[e - first] / sum);
            if (first > 0) return;
            most[t * heads + h] = highest;
            total[t * heads + h] = sum;
        });
        if (c.received.extent(0) == 0) return;
        const auto received_memory = temporary<double>(tokens * heads);
        double* const received = received_memory.data();
        for_each(tokens * heads, [=] PARE_HD(index_t at) {
            const index_t h = at % heads, t = at / heads;
            const index_t s = detail::segment_of(c.offsets, c.sequences, t);
            const index_t begin = c.begin(s), n = c.length(s), j = t - begin;
            const detail::index_range q = detail::counted(c.counted, n);
            double sum = 0;
            for (index_t i = q.begin; i < q.end; ++i) {
                const detail::index_range seen = detail::visible_keys(c.mask, i, n, n);
                if (j < seen.begin || j >= seen.end) continue;
                const index_t query = (begin + i) * heads + h;
                const C p = std::exp(detail::logit(c, h, begin, i, j) - most[query]);
                sum +=
                    static_cast<double>(p * (static_cast<C>(c.weight(begin + i)) / total[query]));
            }
            received[at] = sum;
        });
        for_each(tokens, [=] PARE_HD(index_t t) {
            double sum = 0;
            for (index_t h = 0; h < heads; ++h) sum += received[t * heads + h];
            c.received(t) = sum;
        });
    }

    template <class T>
    index_t first_nan(view<const T, 1> x) const {
        return first(x.extent(0), [=] PARE_HD(index_t i) {
            return detail::is_nan(static_cast<compute_t<T>>(x(i)));
        });
    }

    template <class Op, class Out, class... Ts>
    void transform(Op op, view<Out, 1> out, view<const Ts, 1>... in) const {
        using C = compute_t<Out>;
        const std::tuple<view<const Ts, 1>...> inputs(in...);
        for_each(out.extent(0), [=] PARE_HD(index_t i) {
            out(i) = static_cast<Out>(
                std::apply([&](const auto&... x) { return op(static_cast<C>(x(i))...); }, inputs));
        });
    }
    template <class Op, class Out, class... Ts>
    double transform_sum(Op op, view<Out, 1> out, view<const Ts, 1>... in) const {
        using C = compute_t<Out>;
        const std::tuple<view<const Ts, 1>...> inputs(in...);
        return sum_in_double(out.extent(0), [=] PARE_HD(index_t i) {
            const C value =
                std::apply([&](const auto&... x) { return op(static_cast<C>(x(i))...); }, inputs);
            out(i) = static_cast<Out>(value);
            return static_cast<double>(value);
        });
    }

    template <class T>
    void scale_rows(view<const T, 1> scales, view<const T, 2> x, view<T, 2> y) const {
        using C = compute_t<T>;
        const index_t columns = x.extent(1);
        for_each(x.size(), [=] PARE_HD(index_t at) {
            const index_t i = at / columns, j = at % columns;
            y(i, j) = static_cast<T>(static_cast<C>(scales(i)) * static_cast<C>(x(i, j)));
        });
    }
    template <class T>
    void scale_rows_dot(view<const T, 1> scales, view<const T, 2> x, view<const T, 2> y,
                        view<T, 2> z, view<T, 1> dots) const {
        using C = compute_t<T>;
        const index_t rows = x.extent(0), columns = x.extent(1);
        const index_t lanes = std::min<index_t>(32, std::max<index_t>(1, columns));
        const auto memory = temporary<double>(rows * lanes);
        double* const sums = memory.data();
        for_each(rows * lanes, [=] PARE_HD(index_t at) {
            const index_t i = at / lanes;
            const C scale = static_cast<C>(scales(i));
            double total = 0;
            for (index_t j = at % lanes; j < columns; j += lanes) {
                const C value = static_cast<C>(y(i, j));
                total += static_cast<double>(static_cast<C>(x(i, j)) * value);
                z(i, j) = static_cast<T>(scale * value);
            }
            sums[at] = total;
        });
        for_each(rows, [=] PARE_HD(index_t i) {
            double total = 0;
            for (index_t lane = 0; lane < lanes; ++lane) total += sums[i * lanes + lane];
            dots(i) = static_cast<T>(total);
        });
    }

    template <class Keep, class Offset>
    index_t count_selected(const Keep& keep, index_t always, const Offset* offsets,
                           index_t segments) const {
        const index_t tokens = read(offsets + segments);
        const auto before = temporary<index_t>(tokens + 1);
        const auto alone = temporary<index_t>(segments + 1);
        return count_before(keep, always, offsets, segments, tokens, before.data(), alone.data());
    }

    template <class Keep, class T, class Offset, class Index, class KeptOffset>
    index_t select(const Keep& keep, index_t always, view<const T, 1> scores, const Offset* offsets,
                   index_t segments, index_t, Index* index, KeptOffset* kept_offsets) const {
        const index_t tokens = scores.extent(0);
        const auto before_memory = temporary<index_t>(tokens + 1);
        const auto alone_memory = temporary<index_t>(segments + 1);
        index_t* const before = before_memory.data();
        index_t* const alone = alone_memory.data();
        const index_t kept = count_before(keep, always, offsets, segments, tokens, before, alone);
        for_each(tokens, [=] PARE_HD(index_t i) {
            if (before[i + 1] > before[i])
                index[before[i] + alone[detail::segment_of(offsets, segments, i)]] =
                    static_cast<Index>(i);
        });
        for_each(segments, [=] PARE_HD(index_t s) {
            if (alone[s + 1] == alone[s]) return;
            const index_t begin = static_cast<index_t>(offsets[s]);
            index_t best = begin;
            for (index_t i = begin + 1; i < static_cast<index_t>(offsets[s + 1]); ++i)
                if (scores(i) > scores(best)) best = i;
            index[before[begin] + alone[s]] = static_cast<Index>(best);
        });
        for_each(segments + 1, [=] PARE_HD(index_t s) {
            kept_offsets[s] =
                static_cast<KeptOffset>(before[static_cast<index_t>(offsets[s])] + alone[s]);
        });
        return kept;
    }
    /// before[i]: how many of the tokens before i are kept for their scores or their places;
    /// alone[s]: how many of the segments before s keep one that has neither. Returns all of both.
    template <class Keep, class Offset>
    index_t count_before(const Keep& keep, index_t always, const Offset* offsets, index_t segments,
                         index_t tokens, index_t* before, index_t* alone) const {
        for_each(tokens + 1, [=] PARE_HD(index_t i) {
            before[i] = 0;
            if (i == tokens) return;
            const index_t s = detail::segment_of(offsets, segments, i);
            before[i] = i - static_cast<index_t>(offsets[s]) < always || keep(i);
        });
        thrust::exclusive_scan(exec(), before, before + tokens + 1, before, index_t{0});
        for_each(segments + 1, [=] PARE_HD(index_t s) {
            alone[s] = 0;
            if (s == segments) return;
            const index_t begin = static_cast<index_t>(offsets[s]);
            const index_t end = static_cast<index_t>(offsets[s + 1]);
            alone[s] = begin < end && before[begin] == before[end];
        });
        thrust::exclusive_scan(exec(), alone, alone + segments + 1, alone, index_t{0});
        return sum(1, [=] PARE_HD(index_t) { return before[tokens] + alone[segments]; });
    }

    template <class Before, class Counts, class Offset, class Index, class KeptOffset>
    void select_first(const Before& before, const Counts& counts, const Offset* offsets,
                      index_t segments, index_t tokens, Index* index,
                      KeptOffset* kept_offsets) const {
        const auto segment_memory = temporary<index_t>(tokens);
        const auto order_memory = temporary<index_t>(tokens);
        const auto kept_memory = temporary<index_t>(tokens + 1);
        index_t* const segment = segment_memory.data();
        index_t* const order = order_memory.data();
        index_t* const kept = kept_memory.data(); // 1 or 0; then how many of those before
        for_each(tokens + 1, [=] PARE_HD(index_t i) {
            kept[i] = 0;
            if (i == tokens) return;
            order[i] = i;
            segment[i] = detail::segment_of(offsets, segments, i);
        });
        thrust::sort(exec(), order, order + tokens,
                     detail::before_in_segments<Before, Offset>{before, offsets, segment});
        for_each(tokens, [=] PARE_HD(index_t place) {
            const index_t s = segment[place]; // as many places as positions
            if (place - static_cast<index_t>(offsets[s]) < counts(s)) kept[order[place]] = 1;
        });
        thrust::exclusive_scan(exec(), kept, kept + tokens + 1, kept, index_t{0});
        for_each(tokens, [=] PARE_HD(index_t i) {
            if (kept[i + 1] > kept[i]) index[kept[i]] = static_cast<Index>(i);
        });
        for_each(segments + 1, [=] PARE_HD(index_t s) {
            kept_offsets[s] = static_cast<KeptOffset>(kept[static_cast<index_t>(offsets[s])]);
        });
    }

    template <class T, class Index>
    void gather_rows(view<const T, 2> in, const Index* rows, view<T, 2> out) const {
        gather(in, out, [=] PARE_HD(index_t i, index_t j) -> const T& {
            return in(static_cast<index_t>(rows[i]), j);
        });
    }
    template <class T, class Index>
    void gather_columns(view<const T, 2> in, const Index* columns, view<T, 2> out) const {
        gather(in, out, [=] PARE_HD(index_t i, index_t j) -> const T& {
            return in(i, static_cast<index_t>(columns[j]));
        });
    }
    template <class T, class Index>
    void scatter_rows(view<const T, 2> in, const Index* rows, view<T, 2> out) const {
        const index_t columns = in.extent(1);
        for_each(in.size(), [=] PARE_HD(index_t at) {
            const index_t i = at / columns, j = at % columns;
            out(static_cast<index_t>(rows[i]), j) = in(i, j);
        });
    }
    /// out(i, j) = from(i, j), elements of `in`; in place by way of temporary memory.
    template <class T, class From>
    void gather(view<const T, 2> in, view<T, 2> out, const From& from) const {
        const index_t columns = out.extent(1);
        if (in.data_handle() != out.data_handle())
            return for_each(out.size(), [=] PARE_HD(index_t at) {
                const index_t i = at / columns, j = at % columns;
                out(i, j) = from(i, j);
            });
        const auto memory = temporary<T>(out.size());
        T* const moved = memory.data();
        for_each(out.size(),
                 [=] PARE_HD(index_t at) { moved[at] = from(at / columns, at % columns); });
        for_each(out.size(),
                 [=] PARE_HD(index_t at) { out(at / columns, at % columns) = moved[at]; });
    }

    /// store(g, u, sum over the columns c of unit u and all pieces of some(g, piece, c)), for each
    /// group g and unit.
    template <class Some, class Store>
    void sum_pieces(index_t groups, index_t pieces, index_t columns, index_t unit, const Some& some,
                    const Store& store) const {
        const index_t units = columns / unit;
        const auto memory = temporary<double>(groups * pieces * columns);
        double* const sums = memory.data();
        for_each(groups * pieces * columns, [=] PARE_HD(index_t at) {
            sums[at] = some(at / (pieces * columns), at / columns % pieces, at % columns);
        });
        for_each(groups * units, [=] PARE_HD(index_t at) {
            const index_t g = at / units, u = at % units;
            double total = 0;
            for (index_t piece = 0; piece < pieces; ++piece)
                for (index_t c = u * unit; c < (u + 1) * unit; ++c)
                    total += sums[(g * pieces + piece) * columns + c];
            store(g, u, total);
        });
    }

  private:
    static constexpr index_t threads = index_t{1} << 17; // so many are worth making
};

/// The policy of a Thrust execution policy: pare::importance(pare::on(thrust::omp::par), ...).
template <class Exec>
thrust_policy<Exec> on(const Exec& exec) {
    return thrust_policy<Exec>(exec);
}

} // namespace PARE_ISA
} // namespace pare
