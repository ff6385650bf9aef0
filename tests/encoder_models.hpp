// Small random encoders of any shape, and batches for them.
#pragma once

#include "encoder_distance_bias.hpp"

#include <random>
#include <vector>

using namespace encoder;
using Eigen::Index;

struct shape {
    Index hidden = 24, head_size = 8;
    std::vector<Index> heads = {3, 1, 2}, filters = {20, 33, 17};
    activation f = activation::gelu;
    pooling pool = pooling::mean;
    Index positions = 80, types = 2;
    Index first_position = 0, narrow_embeddings = 0, distance_buckets = 0;

    /// Of a head in layer l: narrower than the head size in the third layer, and in the second one.
    Index queries(std::size_t l) const { return l == 2 ? (head_size + 1) / 2 : head_size; }
    Index values(std::size_t l) const { return l == 1 ? (head_size + 2) / 3 : head_size; }
};

class random_numbers {
  public:
    explicit random_numbers(unsigned seed) : engine_(seed) {}
    matrix normal(Index rows, Index columns, float deviation) {
        std::normal_distribution<float> draw(0, deviation);
        return matrix::NullaryExpr(rows, columns, [&] { return draw(engine_); });
    }
    vector normal_vector(Index n, float mean, float deviation) {
        return normal(n, 1, deviation).array() + mean;
    }
    Index below(Index n) { return std::uniform_int_distribution<Index>(0, n - 1)(engine_); }

  private:
    std::mt19937 engine_;
};

inline model make_model(const shape& s, unsigned seed = 1) {
    random_numbers random(seed);
    const auto make_dense = [&](Index out, Index in) {
        return dense{random.normal(out, in, 0.3f), random.normal_vector(out, 0, 0.1f)};
    };
    const auto make_norm = [&](Index size) {
        return layer_norm{random.normal_vector(size, 1, 0.2f), random.normal_vector(size, 0, 0.2f)};
    };
    model m;
    m.config.hidden = s.hidden;
    m.config.head_size = s.head_size;
    m.config.vocabulary = 50;
    m.config.positions = s.positions;
    m.config.types = s.types;
    m.config.first_position = s.first_position;
    m.config.narrow_embeddings = s.narrow_embeddings;
    m.config.distance_buckets = s.distance_buckets;
    m.config.activation = s.f;
    m.config.pooling = s.pool;
    const Index columns_before = m.config.embedding_columns();
    m.word_embeddings = random.normal(50, columns_before, 1);
    m.position_embeddings = random.normal(s.positions, columns_before, 0.5f);
    m.type_embeddings = random.normal(s.types, columns_before, 0.5f);
    m.embedding_norm = make_norm(columns_before);
    if (s.narrow_embeddings > 0) {
        m.config.family = find_family("electra");
        m.embedding_projection = make_dense(s.hidden, s.narrow_embeddings);
    }
    for (std::size_t l = 0; l < s.heads.size(); ++l) {
        const Index columns = s.heads[l] * s.values(l);
        layer y;
        y.heads = s.heads[l];
        for (dense* d : {&y.query, &y.key}) *d = make_dense(s.heads[l] * s.queries(l), s.hidden);
        y.value = make_dense(columns, s.hidden);
        y.attention_output = make_dense(s.hidden, columns);
        y.attention_norm = make_norm(s.hidden);
        y.intermediate = make_dense(s.filters[l], s.hidden);
        y.output = make_dense(s.hidden, s.filters[l]);
        y.output_norm = make_norm(s.hidden);
        if (s.distance_buckets > 0)
            y.distance_bias = random.normal(s.distance_buckets, s.heads[l], 1);
        m.layers.push_back(y);
    }
    return m;
}

inline batch make_batch(const std::vector<Index>& lengths, unsigned seed = 2) {
    random_numbers random(seed);
    batch b;
    for (const Index n : lengths) {
        std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
        for (auto& id : ids) id = static_cast<std::int32_t>(random.below(50));
        b.append(ids);
    }
    return b;
}

inline const std::vector<Index> ragged = {1, 2, 7, 17, 33, 48, 49, 64, 70};
