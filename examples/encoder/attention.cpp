#include "attention.hpp"

#include "kernel.hpp"

#include <Eigen/Core>
#include <pare/core/executor.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace encoder {
namespace {

using kernel::round_up;
using kernel::simd;
using pare::index_t;

/// Queries [first, last) of one head of one sequence.
struct task {
    std::size_t sequence;
    index_t head, first, last;
};

constexpr index_t longest_strip = 48, strip_scores = 48 * 1024;
static_assert(longest_strip % kernel::tile_rows == 0);

/// Rows of a strip: its scores against n keys stay in the second-level cache together with keys and
/// values, and it is a whole number of tiles.
index_t strip_rows(index_t n) {
    const index_t tile = kernel::tile_rows;
    return std::clamp(strip_scores / n / tile * tile, tile, longest_strip);
}

/// A task for each sequence and head or, where these are too few or too uneven for the threads, for
/// each part of a head's queries.
std::vector<task> split(const std::vector<std::int64_t>& offsets, index_t heads, index_t threads) {
    const auto length = [&](std::size_t s) {
        return static_cast<index_t>(offsets[s + 1] - offsets[s]);
    };
    const std::size_t sequences = offsets.size() - 1;
    index_t work = 0;
    for (std::size_t s = 0; s < sequences; ++s) work += heads * length(s) * length(s);
    const index_t share = work / (4 * threads) + 1;

    std::vector<task> tasks;
    tasks.reserve(sequences * static_cast<std::size_t>(heads));
    for (std::size_t s = 0; s < sequences; ++s) {
        const index_t n = length(s), rows = strip_rows(n), strips = (n + rows - 1) / rows;
        const index_t parts = std::min(strips, 1 + n * n / share);
        for (index_t h = 0; h < heads; ++h)
            for (index_t p = 0; p < parts; ++p)
                tasks.push_back({s, h, strips * p / parts * rows,
                                 std::min(n, strips * (p + 1) / parts * rows)});
    }
    return tasks;
}

index_t longest(const std::vector<std::int64_t>& offsets) {
    std::int64_t n = 0;
    for (std::size_t s = 1; s < offsets.size(); ++s) n = std::max(n, offsets[s] - offsets[s - 1]);
    return static_cast<index_t>(n);
}

/// row = exp(row - max(row)) for n elements, then zeros up to the next whole batch. Returns 1 /
/// sum.
float exponentials(float* row, index_t n) {
    // What follows the last key is made too small to count: all batches are whole.
    const index_t end = round_up(n, kernel::width);
    std::fill(row + n, row + end, std::numeric_limits<float>::lowest());
    simd top = simd::load_unaligned(row);
    for (index_t j = kernel::width; j < end; j += kernel::width)
        top = xsimd::max(top, simd::load_unaligned(row + j));
    const simd shift(kernel::largest(top));
    simd total(0.f);
    for (index_t j = 0; j < end; j += kernel::width) {
        const simd e = xsimd::exp(simd::load_unaligned(row + j) - shift);
        e.store_unaligned(row + j);
        total += e;
    }
    return 1 / kernel::sum(total);
}

void scale(index_t n, const float* x, float factor, float* y) {
    for (index_t i = 0; i < n; ++i) y[i] = x[i] * factor;
}

} // namespace

void attention_forward(const projections<const float>& in, const std::vector<std::int64_t>& offsets,
                       float* context, pare::workspace& scratch) {
    const index_t d = in.head_size, columns = in.heads * d, longest_n = longest(offsets);
    if (columns == 0 || longest_n == 0) return;
    const float factor = 1 / std::sqrt(static_cast<float>(d));
    const pare::openmp threads;
    const std::vector<task> tasks = split(offsets, in.heads, threads.concurrency());

    // Packed keys and values, queries, results, and scores. A strip of a short sequence has more
    // rows, but no more than strip_scores scores without padding.
    const index_t out_stride = round_up(d, kernel::panel_width);
    const index_t padded = round_up(longest_n, kernel::panel_width);
    const index_t scores_size =
        std::max(strip_scores, kernel::tile_rows * padded) + longest_strip * kernel::panel_width;
    const index_t slot_size = round_up(
        padded * d + longest_n * out_stride + longest_strip * (d + out_stride) + scores_size, 16);
    float* const memory = scratch.get<float>(threads.concurrency() * slot_size);

    threads.run(static_cast<index_t>(tasks.size()), [&](index_t index, index_t slot) {
        const task& t = tasks[static_cast<std::size_t>(index)];
        const index_t begin = offsets[t.sequence], n = offsets[t.sequence + 1] - begin;
        const index_t at = begin * in.token_stride + t.head * in.head_stride;
        const index_t strip = strip_rows(n), score_stride = round_up(n, kernel::panel_width);

        float* const keys = memory + slot * slot_size;
        float* const values = keys + d * score_stride;
        float* const queries = values + n * out_stride;
        float* const out = queries + longest_strip * d;
        float* const scores = out + longest_strip * out_stride;
        kernel::pack(d, n, in.k + at, 1, in.token_stride, keys);
        kernel::pack(n, d, in.v + at, in.token_stride, 1, values);

        for (index_t first = t.first; first < t.last; first += strip) {
            const index_t rows = std::min(strip, t.last - first);
            for (index_t r = 0; r < rows; ++r)
                scale(d, in.q + at + (first + r) * in.token_stride, factor, queries + r * d);
            kernel::multiply(rows, d, n, queries, d, keys, scores, score_stride);
            float weights[longest_strip];
            for (index_t r = 0; r < rows; ++r)
                weights[r] = exponentials(scores + r * score_stride, n);
            kernel::multiply(rows, n, d, scores, score_stride, values, out, out_stride);
            for (index_t r = 0; r < rows; ++r)
                scale(d, out + r * out_stride, weights[r],
                      context + (begin + first + r) * columns + t.head * d);
        }
    });
}

void attention_backward(const projections<const float>& in,
                        const std::vector<std::int64_t>& offsets, const float* context,
                        const float* context_gradient, const projections<float>& gradient,
                        pare::workspace& scratch) {
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using stride = Eigen::OuterStride<>;
    const index_t d = in.head_size, columns = in.heads * d, longest_n = longest(offsets);
    const float factor = 1 / std::sqrt(static_cast<float>(d));
    const pare::openmp threads;
    const index_t slot_size = round_up(2 * longest_n * longest_n, 16);
    float* const memory = scratch.get<float>(threads.concurrency() * slot_size);

    threads.run((static_cast<index_t>(offsets.size()) - 1) * in.heads, [&](index_t index,
                                                                           index_t slot) {
        const auto s = static_cast<std::size_t>(index / in.heads);
        const index_t head = index % in.heads, begin = offsets[s], n = offsets[s + 1] - begin;
        const auto input = [&](const float* x) {
            return Eigen::Map<const matrix, 0, stride>(
                x + begin * in.token_stride + head * in.head_stride, n, d, stride(in.token_stride));
        };
        const auto result = [&](float* x) {
            return Eigen::Map<matrix, 0, stride>(x + begin * gradient.token_stride +
                                                     head * gradient.head_stride,
                                                 n, d, stride(gradient.token_stride));
        };
        const auto output = [&](const float* x) {
            return Eigen::Map<const matrix, 0, stride>(x + begin * columns + head * d, n, d,
                                                       stride(columns));
        };
        const auto q = input(in.q), k = input(in.k), v = input(in.v);
        const auto y = output(context), dy = output(context_gradient);

        Eigen::Map<matrix> p(memory + slot * slot_size, n, n), ds(p.data() + n * n, n, n);
        p.noalias() = factor * q * k.transpose();
        p = (p.colwise() - p.rowwise().maxCoeff().eval()).array().exp();
        p.array().colwise() /= p.rowwise().sum().array().eval();

        result(gradient.v).noalias() = p.transpose() * dy;
        // The gradient of the scores is p (dp - sum_j p dp), and that sum is <y, dy>.
        ds.noalias() = dy * v.transpose();
        ds.colwise() -= (y.array() * dy.array()).rowwise().sum().matrix().eval();
        ds.array() *= factor * p.array();
        result(gradient.q).noalias() = ds * k;
        result(gradient.k).noalias() = ds.transpose() * q;
    });
}

} // namespace encoder
