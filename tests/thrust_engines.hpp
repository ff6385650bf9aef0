// Encoders on Thrust's systems and on memory that the host cannot read, or with PARE_TEST_CUDA on a
// GPU, and models for them.
#pragma once

#include "catch.hpp"
#include "encoder_models.hpp"

#include "encoder/files/heads.hpp"
#include "encoder/gpu/device.hpp"

#include <memory>
#include <vector>

#ifdef PARE_TEST_CUDA
inline std::vector<std::unique_ptr<engine>> make_engines(const model& m, precision in) {
    std::vector<std::unique_ptr<engine>> all;
    all.push_back(make_engine(m, device_kind::cuda, in));
    return all;
}
#else
/// One of a model on each of them, none where there are no numbers of that precision.
std::vector<std::unique_ptr<engine>> make_engines(const model& m, precision in);
#endif

/// f(engine) for each.
template <class F>
void on_engines(const model& m, const F& f, precision in = precision::fp32) {
    for (const auto& net : make_engines(m, in)) f(*net);
}

inline double distance(const matrix& a, const matrix& b) {
    REQUIRE(a.rows() == b.rows());
    REQUIRE(a.cols() == b.cols());
    return a.size() > 0 ? static_cast<double>((a - b).cwiseAbs().maxCoeff()) : 0.0;
}

inline void add_random_exits(model& m) {
    random_numbers random(11);
    for (const layer& y : m.layers)
        m.exits.push_back({random.normal(m.config.hidden,
                                         m.config.hidden + y.attention_output.weight.cols(), 0.1f),
                           random.normal_vector(m.config.hidden, 0, 0.1f)});
}

/// Of two layers.
inline void add_head(model& m, head::function between = head::function::tanh, Index outputs = 3) {
    random_numbers random(13);
    const auto some = [&](Index rows) {
        return dense{random.normal(rows, m.config.hidden, 0.3f),
                     random.normal_vector(rows, 0, 0.3f)};
    };
    m.head = head{some(outputs), some(m.config.hidden), between, find_stock_head("bert")};
}

/// On each token.
inline void add_head_on_tokens(model& m, head::subject of) {
    random_numbers random(17);
    const Index outputs = of == head::subject::span ? 2 : 3;
    const stock_head* const stock = find_stock_head("bert", of);
    m.head = head{
        {random.normal(outputs, m.config.hidden, 0.3f), random.normal_vector(outputs, 0, 0.3f)},
        std::nullopt,
        stock->between,
        stock,
        of};
}

inline std::vector<token_pruning> all_rules() {
    using rule = token_pruning::rule;
    return {{rule::threshold, {0.7, 0.9, 1.1}, 1, true},
            {rule::threshold, {0.04, 0.05, 0.07}, 1.1, true, pare::score_scale::per_query},
            {rule::threshold, {1e9, 1e9, 1e9}, 1, true}, // all but the first leave at once
            {rule::threshold, {1, 1, 1}, 0, true},       // none
            {rule::share, {0.5, 1, 0.25}, 1, true},
            {rule::count, {30, 30, 5}, 1, true}};
}

/// What becomes of tokens that leave.
struct way {
    pooling pool;
    bool carried, exits;
};
inline const std::vector<way> ways = {{pooling::mean, true, true},
                                      {pooling::mean, true, false},
                                      {pooling::mean, false, false},
                                      {pooling::cls, true, true},
                                      {pooling::max, true, true}};

/// f(model) where tokens leave by each of the rules, and for each of what may become of them.
template <class F>
void on_pruning_models(const F& f) {
    for (const way w : ways)
        for (const token_pruning& rule : all_rules()) {
            shape s;
            s.pool = w.pool;
            s.distance_buckets = w.exits ? 32 : 0;
            model m = make_model(s);
            m.tokens = rule;
            m.tokens.carried = w.carried;
            if (w.exits) add_random_exits(m);
            CAPTURE(rule.numbers, w.carried, w.exits);
            f(m);
        }
}
