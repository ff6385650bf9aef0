#include "optimizer.hpp"

#include <pare/core/executor.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace encoder {
namespace {

using Eigen::Index;
using row = Eigen::Map<Eigen::ArrayXf>;

/// A stretch of one weight: whole rows, so that rows can be left out.
struct stretch {
    std::size_t weight;
    Index first, rows;
};

std::vector<stretch> cut(const std::vector<weight>& all) {
    constexpr Index numbers = 1 << 14;
    std::vector<stretch> parts;
    for (std::size_t w = 0; w < all.size(); ++w) {
        const Index rows = std::max<Index>(1, numbers / std::max<Index>(1, all[w].columns));
        for (Index first = 0; first < all[w].rows; first += rows)
            parts.push_back({w, first, std::min(rows, all[w].rows - first)});
    }
    return parts;
}

row part_of(const weight& w, const stretch& s) {
    return {w.data + s.first * w.columns, s.rows * w.columns};
}

} // namespace

adamw::adamw(const model& shape) : state{zeros_like(shape), zeros_like(shape), {}, {}, 0} {}

void adamw::step(model& weights, std::vector<double>& thresholds, gradients& found,
                 const step_size& size) {
    const std::vector<weight> w = encoder::weights(weights), g = encoder::weights(found.weights),
                              m = encoder::weights(state.first), v = encoder::weights(state.second);
    const std::vector<stretch> parts = cut(w);
    const pare::openmp threads;
    const auto for_parts = [&](const auto& f) {
        threads.run(static_cast<Index>(parts.size()),
                    [&](Index i, Index) { f(parts[static_cast<std::size_t>(i)], i); });
    };

    std::vector<double> squares(parts.size());
    for_parts([&](const stretch& s, Index i) {
        squares[static_cast<std::size_t>(i)] =
            static_cast<double>(part_of(g[s.weight], s).square().sum());
    });
    const double length = std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.));
    const auto clip = static_cast<float>(std::min(1., size.longest / std::max(length, 1e-30)));

    ++state.steps;
    const auto steps = static_cast<double>(state.steps);
    const double first_bias = 1 - std::pow(size.beta1, steps),
                 second_bias = 1 - std::pow(size.beta2, steps);
    const auto b1 = static_cast<float>(size.beta1), b2 = static_cast<float>(size.beta2);
    const auto rate = static_cast<float>(size.rate / first_bias);
    const auto root = static_cast<float>(1 / std::sqrt(second_bias));
    const auto epsilon = static_cast<float>(size.epsilon);
    for_parts([&](const stretch& s, Index) {
        const bool decays = w[s.weight].columns > 1;
        const auto keep = static_cast<float>(1 - (decays ? size.rate * size.decay : 0));
        const auto change = [&](const stretch& some) {
            row x = part_of(w[s.weight], some), dx = part_of(g[s.weight], some);
            row first = part_of(m[s.weight], some), second = part_of(v[s.weight], some);
            first = b1 * first + (1 - b1) * clip * dx;
            second = b2 * second + (1 - b2) * clip * clip * dx.square();
            x = keep * x - rate * first / (second.sqrt() * root + epsilon);
            dx.setZero();
        };
        if (w[s.weight].data != weights.word_embeddings.data()) return change(s);
        for (Index i = s.first; i < s.first + s.rows; ++i)
            if (stretch one{s.weight, i, 1}; (part_of(g[s.weight], one) != 0).any()) change(one);
    });

    state.first_of_thresholds.resize(thresholds.size());
    state.second_of_thresholds.resize(thresholds.size());
    for (std::size_t l = 0; l < thresholds.size() && l < found.thresholds.size(); ++l) {
        double &first = state.first_of_thresholds[l], &second = state.second_of_thresholds[l];
        const double dx = found.thresholds[l];
        first = size.beta1 * first + (1 - size.beta1) * dx;
        second = size.beta2 * second + (1 - size.beta2) * dx * dx;
        const double step = first / first_bias / (std::sqrt(second / second_bias) + size.epsilon);
        thresholds[l] = std::max(0., thresholds[l] - size.threshold_rate * step);
    }
    std::fill(found.thresholds.begin(), found.thresholds.end(), 0.);
}

} // namespace encoder
