#include "check.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace encoder {

using Eigen::Index;

namespace {

std::string text(Index n) {
    return std::to_string(n);
}

void check_norm(const std::string& name, const layer_norm& norm, Index size) {
    check_size(name + " weight", norm.weight, size);
    check_size(name + " bias", norm.bias, size);
}

} // namespace

void fail(const std::string& what) {
    throw std::invalid_argument("encoder::network: " + what);
}

void check_shape(const std::string& name, const matrix& m, Index rows, Index columns) {
    if (m.rows() != rows || m.cols() != columns)
        fail(name + " is " + text(m.rows()) + " x " + text(m.cols()) + ", expected " + text(rows) +
             " x " + text(columns));
}

void check_shape(const std::string& name, const dense& d, Index rows, Index columns) {
    check_shape(name + " weight", d.weight, rows, columns);
    check_size(name + " bias", d.bias, rows);
}

void check_size(const std::string& name, const vector& v, Index size) {
    if (v.size() != size) fail(name + " has " + text(v.size()) + " values, expected " + text(size));
}

void check(const model& m) {
    const config& c = m.config;
    if (c.hidden <= 0 || c.head_size <= 0)
        fail("hidden size " + text(c.hidden) + ", head size " + text(c.head_size) +
             ", expected positive ones");
    const Index columns_before = c.embedding_columns();
    check_shape("word embeddings", m.word_embeddings, c.vocabulary, columns_before);
    check_shape("position embeddings", m.position_embeddings, c.positions, columns_before);
    if (c.types > 0) check_shape("type embeddings", m.type_embeddings, c.types, columns_before);
    check_norm("embedding norm", m.embedding_norm, columns_before);
    if (c.narrow_embeddings > 0)
        check_shape("embedding projection", m.embedding_projection, c.hidden, columns_before);
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        const layer& y = m.layers[l];
        const std::string name = "layer " + std::to_string(l) + ": ";
        const Index heads = y.heads, queries = y.queries(), values = y.values();
        const Index filters = y.filters();
        if (heads < 0 || (heads > 0 && (queries == 0 || values == 0)))
            fail(name + text(heads) + " heads with queries of " + text(queries) +
                 " numbers and values of " + text(values));
        check_shape(name + "query", y.query, heads * queries, c.hidden);
        check_shape(name + "key", y.key, heads * queries, c.hidden);
        check_shape(name + "value", y.value, heads * values, c.hidden);
        check_shape(name + "distance bias", y.distance_bias, c.distance_buckets,
                    c.distance_buckets > 0 ? heads : 0);
        check_shape(name + "attention output", y.attention_output, c.hidden, heads * values);
        check_norm(name + "attention norm", y.attention_norm, c.hidden);
        check_shape(name + "intermediate", y.intermediate, filters, c.hidden);
        check_shape(name + "output", y.output, c.hidden, filters);
        check_norm(name + "output norm", y.output_norm, c.hidden);
    }
    if (m.head) {
        const Index outputs = m.head->output.weight.rows();
        if (outputs < 1) fail("a head without outputs");
        check_shape("head output", m.head->output, outputs, c.hidden);
        if (m.head->before) {
            check_shape("head", *m.head->before, c.hidden, c.hidden);
            if (!m.head->stock) fail("a head of two layers without names for their tensors");
        }
        if (m.head->of == head::subject::span && outputs != 2)
            fail("a head for answers has " + text(outputs) + " outputs, expected 2");
    }
    if (m.projection) {
        const Index columns = m.projection->layer.weight.rows();
        if (columns < 1) fail("a projection to no columns");
        check_shape("projection", m.projection->layer, columns, c.hidden);
    }
    if (!m.exits.empty() && m.exits.size() != m.layers.size())
        fail(std::to_string(m.exits.size()) + " exits for " + std::to_string(m.layers.size()) +
             " layers");
    for (std::size_t l = 0; l < m.exits.size(); ++l)
        check_shape("exit " + std::to_string(l), m.exits[l], c.hidden,
                    c.hidden + m.layers[l].value.weight.rows());
    check(m.tokens, m.layers.size());
}

void check(const token_pruning& p, std::size_t layers) {
    if (!p.numbers.empty() && p.numbers.size() != layers)
        fail("token pruning for " + std::to_string(p.numbers.size()) + " layers of " +
             std::to_string(layers));
    for (const double t : p.numbers)
        if (!std::isfinite(t) || t < 0) fail("a number of token pruning is " + std::to_string(t));
    if (!std::isfinite(p.alpha) || p.alpha < 0) fail("alpha is " + std::to_string(p.alpha));
    if (p.scores == pare::score_scale::fixed) fail("scores are fixed, not relative or per query");
}

void check(const learning& how, std::size_t layers) {
    if (!std::isfinite(how.temperature) || how.temperature < 0)
        fail("the temperature is " + std::to_string(how.temperature));
    if (!how.weights.empty() && how.weights.size() != layers)
        fail("weights of " + std::to_string(how.weights.size()) + " layers of " +
             std::to_string(layers));
}

void check(const batch& b, const config& c) {
    const auto ids = static_cast<std::int64_t>(b.ids.size());
    if (b.offsets.empty() || b.offsets.front() != 0 || b.tokens() != ids)
        fail("offsets do not run from 0 to the number of ids, " + text(ids));
    for (std::size_t s = 1; s < b.offsets.size(); ++s) {
        const std::int64_t n = b.offsets[s] - b.offsets[s - 1];
        if (n < 1 || n > c.longest())
            fail("sequence " + std::to_string(s - 1) + " has " + text(n) +
                 " tokens, expected 1 to " + text(c.longest()));
    }
    if (!b.pins.empty() && b.pins.size() != b.ids.size())
        fail(std::to_string(b.pins.size()) + " pins for " + text(ids) + " tokens");
    const Index end = c.vocabulary * std::max<Index>(c.types, 1);
    for (std::size_t t = 0; t < b.ids.size(); ++t)
        if (b.ids[t] < 0 || b.ids[t] >= end)
            fail("token " + std::to_string(t) + " has id " + text(b.ids[t]) + ", expected 0 to " +
                 text(end - 1));
}

void complete(network::masks& masks, const model& m) {
    const std::size_t depth = m.layers.size();
    if (!masks.heads.empty() && masks.heads.size() != depth)
        fail("head masks for " + std::to_string(masks.heads.size()) + " layers of " +
             std::to_string(depth));
    if (!masks.filters.empty() && masks.filters.size() != depth)
        fail("filter masks for " + std::to_string(masks.filters.size()) + " layers of " +
             std::to_string(depth));
    masks.heads.resize(depth);
    masks.filters.resize(depth);
    for (std::size_t l = 0; l < depth; ++l) {
        const std::string name = "layer " + std::to_string(l) + ": ";
        if (masks.heads[l].size() > 0)
            check_size(name + "head mask", masks.heads[l], m.layers[l].heads);
        if (masks.filters[l].size() > 0)
            check_size(name + "filter mask", masks.filters[l], m.layers[l].filters());
    }
}

void check_gradients(model& gradients, model& of) {
    const std::vector<weight> g = weights(gradients), w = weights(of);
    if (g.size() != w.size())
        fail("gradients of " + std::to_string(g.size()) + " weights, the model has " +
             std::to_string(w.size()));
    for (std::size_t i = 0; i < w.size(); ++i)
        if (g[i].rows != w[i].rows || g[i].columns != w[i].columns)
            fail("gradient of " + w[i].name + " is " + text(g[i].rows) + " x " +
                 text(g[i].columns) + ", expected " + text(w[i].rows) + " x " + text(w[i].columns));
}

} // namespace encoder
