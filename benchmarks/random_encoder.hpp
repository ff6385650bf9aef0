// Encoders with random weights, to time them.
#pragma once

#include <encoder/pruning/prune.hpp>

#include <algorithm>

namespace bench {

inline encoder::dense random_dense(Eigen::Index out, Eigen::Index in) {
    return {0.05f * encoder::matrix::Random(out, in), 0.05f * encoder::vector::Random(out)};
}

inline encoder::layer_norm unit_norm(Eigen::Index n) {
    return {encoder::vector::Ones(n), encoder::vector::Zero(n)};
}

inline encoder::model random_model(Eigen::Index layers, Eigen::Index hidden, Eigen::Index heads,
                                   Eigen::Index filters) {
    encoder::model m;
    m.config.hidden = hidden;
    m.config.head_size = hidden / heads;
    m.config.vocabulary = 1000;
    m.config.positions = m.config.max_tokens = 512;
    m.config.types = 2;
    m.word_embeddings = encoder::matrix::Random(m.config.vocabulary, hidden);
    m.position_embeddings = encoder::matrix::Random(m.config.positions, hidden);
    m.type_embeddings = encoder::matrix::Random(m.config.types, hidden);
    m.embedding_norm = unit_norm(hidden);
    for (Eigen::Index l = 0; l < layers; ++l)
        m.layers.push_back({heads,
                            random_dense(hidden, hidden),
                            random_dense(hidden, hidden),
                            random_dense(hidden, hidden),
                            random_dense(hidden, hidden),
                            unit_norm(hidden),
                            random_dense(filters, hidden),
                            random_dense(hidden, filters),
                            unit_norm(hidden),
                            {}});
    return m;
}

/// Half of the units, unevenly over the layers, filters in multiples of encoder::filter_multiple.
inline encoder::kept_units half(const encoder::model& m) {
    encoder::kept_units kept;
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        const auto heads = static_cast<std::size_t>(m.layers[l].heads);
        const auto filters = static_cast<std::size_t>(m.layers[l].filters());
        const std::size_t more =
            l % 2; // a quarter more in every second layer, a quarter less in the others
        kept.heads.emplace_back(heads, 0);
        kept.filters.emplace_back(filters, 0);
        std::fill_n(kept.heads.back().begin(), heads / 4 + more * heads / 2, 1);
        std::fill_n(kept.filters.back().begin(), filters / 4 + more * filters / 2, 1);
    }
    return kept;
}

} // namespace bench
