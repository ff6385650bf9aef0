#include "optimizer.hpp"

#include <pare/core/executor.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace encoder {
namespace {

using Eigen::Index;
using floats = Eigen::Map<Eigen::ArrayXf>;

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

floats part_of(const weight& w, const stretch& s) {
    return {w.data + s.first * w.columns, s.rows * w.columns};
}

} // namespace

step_factors::step_factors(const step_size& size, std::int64_t steps, double length)
    : b1(static_cast<float>(size.beta1)), b2(static_cast<float>(size.beta2)),
      clip(static_cast<float>(std::min(1., size.longest / std::max(length, 1e-30)))),
      rate(static_cast<float>(size.rate / (1 - std::pow(size.beta1, static_cast<double>(steps))))),
      root(static_cast<float>(1 / std::sqrt(1 - std::pow(size.beta2, static_cast<double>(steps))))),
      epsilon(static_cast<float>(size.epsilon)),
      kept_of_matrices(static_cast<float>(1 - size.rate * size.decay)) {}

void step_thresholds(moments& state, std::vector<double>& thresholds,
                     std::vector<double>& gradients, const step_size& size) {
    const auto steps = static_cast<double>(state.steps);
    const double first_bias = 1 - std::pow(size.beta1, steps),
                 second_bias = 1 - std::pow(size.beta2, steps);
    state.first_of_thresholds.resize(thresholds.size());
    state.second_of_thresholds.resize(thresholds.size());
    for (std::size_t l = 0; l < thresholds.size() && l < gradients.size(); ++l) {
        double &first = state.first_of_thresholds[l], &second = state.second_of_thresholds[l];
        const double dx = gradients[l];
        first = size.beta1 * first + (1 - size.beta1) * dx;
        second = size.beta2 * second + (1 - size.beta2) * dx * dx;
        const double step = first / first_bias / (std::sqrt(second / second_bias) + size.epsilon);
        thresholds[l] = std::max(0., thresholds[l] - size.threshold_rate * step);
    }
    std::fill(gradients.begin(), gradients.end(), 0.);
}

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

    const step_factors by(size, ++state.steps, length);
    for_parts([&](const stretch& s, Index) {
        const float keep = by.kept(w[s.weight].columns > 1);
        const auto change = [&](const stretch& some) {
            floats x = part_of(w[s.weight], some), dx = part_of(g[s.weight], some);
            floats first = part_of(m[s.weight], some), second = part_of(v[s.weight], some);
            first = by.b1 * first + (1 - by.b1) * by.clip * dx;
            second = by.b2 * second + (1 - by.b2) * by.clip * by.clip * dx.square();
            x = keep * x - by.rate * first / (second.sqrt() * by.root + by.epsilon);
            dx.setZero();
        };
        if (w[s.weight].data != weights.word_embeddings.data()) return change(s);
        for (Index i = s.first; i < s.first + s.rows; ++i)
            if (stretch one{s.weight, i, 1}; (part_of(g[s.weight], one) != 0).any()) change(one);
    });
    step_thresholds(state, thresholds, found.thresholds, size);
}

namespace {

class network_learner : public learner {
  public:
    explicit network_learner(network& net)
        : net_(net), optimizer_(net.model()), found_{{}, zeros_like(net.model())} {}

    void learn(const batch& b, const engine::loss_gradient& loss, const learning& how) override {
        net_.learn(b, loss, how, found_);
    }
    token_gradients& found() override { return found_; }
    void step(std::vector<double>& thresholds, const step_size& size) override {
        net_.update([&](model& m) { optimizer_.step(m, thresholds, found_, size); });
    }
    void update(const std::function<void(moments&)>& change) override { change(optimizer_.state); }

  private:
    network& net_;
    adamw optimizer_;
    gradients found_;
};

} // namespace

std::unique_ptr<learner> network::make_learner() {
    return std::make_unique<network_learner>(*this);
}

} // namespace encoder
