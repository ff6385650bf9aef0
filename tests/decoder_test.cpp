// The examples' small decoders against a slow reference in double, and their gradients against
// differences of it.
#include "catch.hpp"

#include "gpt/gpt.hpp"
#include "llama/llama.hpp"
#include <pare/shrink.hpp>

#include <cmath>
#include <complex>

namespace {

using decoder::tokens;
using pare::index_t;
using numbers = Eigen::MatrixXd; // a row a token
using row = Eigen::RowVectorXd;

numbers times(const numbers& x, const decoder::matrix& weight) {
    return x * weight.cast<double>().transpose();
}
numbers times(const numbers& x, const gpt::linear& l) {
    return times(x, l.weight).rowwise() + l.bias.cast<double>();
}

numbers normalized(const numbers& x, const decoder::vector& gain) {
    numbers y = x;
    for (index_t t = 0; t < x.rows(); ++t) {
        const double square = x.row(t).squaredNorm() / static_cast<double>(x.cols());
        y.row(t) = x.row(t).cwiseProduct(gain.cast<double>()) / std::sqrt(square + 1e-5);
    }
    return y;
}
numbers normalized(numbers x, const gpt::norm& n) {
    for (index_t t = 0; t < x.rows(); ++t) x.row(t).array() -= x.row(t).mean();
    return normalized(x, n.gain).rowwise() + n.bias.cast<double>();
}

/// Of one sequence; as many query heads in a row as `group` says have one head of k and v.
numbers contexts(const numbers& q, const numbers& k, const numbers& v, index_t size,
                 index_t group) {
    numbers out(q.rows(), q.cols());
    for (index_t head = 0; head < q.cols() / size; ++head)
        for (index_t t = 0; t < q.rows(); ++t) {
            const index_t from = head / group * size;
            row p(t + 1);
            for (index_t u = 0; u <= t; ++u)
                p(u) =
                    std::exp(q.row(t).segment(head * size, size).dot(k.row(u).segment(from, size)) /
                             std::sqrt(static_cast<double>(size)));
            out.row(t).segment(head * size, size) =
                p / p.sum() * v.topRows(t + 1).middleCols(from, size);
        }
    return out;
}

numbers words_of(const decoder::matrix& table, const tokens& ids) {
    numbers x(static_cast<index_t>(ids.size()), table.cols());
    for (index_t t = 0; t < x.rows(); ++t)
        x.row(t) = table.row(ids[static_cast<std::size_t>(t)]).cast<double>();
    return x;
}

/// Logits of one sequence.
numbers reference(const gpt::model& m, const tokens& ids) {
    numbers x = words_of(m.words, ids) + m.positions.cast<double>();
    for (const gpt::layer& l : m.layers) {
        const numbers qkv = times(normalized(x, l.before_attention), l.qkv);
        const index_t width = qkv.cols() / 3;
        x += times(contexts(qkv.leftCols(width), qkv.middleCols(width, width), qkv.rightCols(width),
                            m.config.head_size(), 1),
                   l.projection);
        const numbers up = times(normalized(x, l.before_filters), l.up);
        x += times(up.unaryExpr([](double z) {
            return z / 2 *
                   (1 + std::tanh(std::sqrt(2 / std::acos(-1.)) * (z + 0.044715 * z * z * z)));
        }),
                   l.down);
    }
    return times(normalized(x, m.last), m.words);
}
numbers rotated(numbers x, index_t size) {
    for (index_t t = 0; t < x.rows(); ++t)
        for (index_t j = 0; j < x.cols(); j += 2) {
            const double share = static_cast<double>(j % size) / static_cast<double>(size);
            const std::complex<double> turned =
                std::complex<double>(x(t, j), x(t, j + 1)) *
                std::polar(1., static_cast<double>(t) / std::pow(10000., share));
            x(t, j) = turned.real();
            x(t, j + 1) = turned.imag();
        }
    return x;
}
numbers reference(const llama::model& m, const tokens& ids) {
    const index_t size = m.config.head_size();
    numbers x = words_of(m.words, ids);
    for (const llama::layer& l : m.layers) {
        numbers h = normalized(x, l.before_attention);
        x += times(contexts(rotated(times(h, l.query), size), rotated(times(h, l.key), size),
                            times(h, l.value), size, m.config.group()),
                   l.projection);
        h = normalized(x, l.before_filters);
        const numbers gate =
            times(h, l.gate).unaryExpr([](double z) { return z / (1 + std::exp(-z)); });
        x += times(gate.cwiseProduct(times(h, l.up)), l.down);
    }
    return times(normalized(x, m.last), m.head);
}

template <class Model>
double reference_loss(const Model& m, const tokens& ids, const tokens& next) {
    double sum = 0;
    const auto length = static_cast<std::size_t>(m.config.length);
    for (std::size_t first = 0; first < ids.size(); first += length) {
        const numbers logits = reference(m, decoder::part(ids, first, length));
        for (index_t t = 0; t < logits.rows(); ++t)
            sum += std::log(logits.row(t).array().exp().sum()) -
                   logits(t, next[first + static_cast<std::size_t>(t)]);
    }
    return sum / static_cast<double>(ids.size());
}

// Models with numbers everywhere, of which the first layer has lost units.
template <class Model>
Model some_model();
template <class Model>
Model with_random_weights(Model m) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal(0, 0.4f);
    for (auto& x : weights(m))
        for (float& w : x.values) w = normal(random);
    return m;
}
void keep_first(decoder::matrix& x, index_t rows) {
    x.conservativeResize(rows, Eigen::NoChange);
}
template <>
gpt::model some_model() {
    gpt::shape shape;
    shape.vocabulary = 11, shape.length = 5, shape.layers = 2, shape.hidden = 8, shape.heads = 4,
    shape.filters = 12;
    gpt::model m = gpt::make_model(shape, 1);
    gpt::layer& l = m.layers[0];
    const auto rows = pare::kept_positions(std::vector<int>{1, 0, 1, 1}, 2, 3);
    l.qkv = {gpt::matrix(l.qkv.weight(rows, Eigen::all)), gpt::vector(l.qkv.bias(rows))};
    l.projection.weight.conservativeResize(8, 6);
    keep_first(l.up.weight, 7);
    l.up.bias.conservativeResize(7);
    l.down.weight.conservativeResize(8, 7);
    return with_random_weights(m);
}
template <>
llama::model some_model() {
    llama::shape shape;
    shape.vocabulary = 11, shape.length = 5, shape.layers = 2, shape.hidden = 24, shape.heads = 6,
    shape.key_heads = 2, shape.filters = 10;
    llama::model m = llama::make_model(shape, 1);
    llama::layer& l = m.layers[0];
    keep_first(l.query, 12);
    keep_first(l.key, 4);
    keep_first(l.value, 4);
    l.projection.conservativeResize(24, 12);
    keep_first(l.gate, 7);
    keep_first(l.up, 7);
    l.down.conservativeResize(24, 7);
    return with_random_weights(m);
}

const tokens ids{3, 1, 4, 1, 5, 9, 2, 6, 5, 3}, next{1, 4, 1, 5, 9, 2, 6, 5, 3, 10};

decoder::matrix at_logits(decoder::matrix p) {
    decoder::softmax(p, next);
    for (index_t t = 0; t < p.rows(); ++t) p(t, next[static_cast<std::size_t>(t)]) -= 1;
    return p / static_cast<float>(p.rows());
}
template <class Model>
Model gradient_of(const Model& m, const decoder::visitor& visit = nullptr) {
    Model found = m;
    for (auto& x : weights(found)) x.values.setZero();
    backward_pass(m, ids, at_logits, &found, visit);
    return found;
}

const gpt::matrix& weight(const gpt::linear& l) {
    return l.weight;
}
const llama::matrix& weight(const llama::matrix& w) {
    return w;
}

} // namespace

TEMPLATE_TEST_CASE("a small decoder has the loss of a reference in double", "", gpt::model,
                   llama::model) {
    const auto m = some_model<TestType>();
    CHECK_THAT(decoder::loss(m, ids, next), WithinRel(reference_loss(m, ids, next), 1e-5));
}

TEMPLATE_TEST_CASE("gradients of a small decoder are differences of the reference's loss", "",
                   gpt::model, llama::model) {
    auto m = some_model<TestType>();
    auto gradient = gradient_of(m);
    const std::vector<decoder::weight_array> found = weights(gradient);
    std::vector<decoder::weight_array> all = weights(m);
    REQUIRE(found.size() == all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
        Eigen::VectorXd expected(all[i].values.size());
        for (index_t j = 0; j < expected.size(); ++j) {
            float& w = all[i].values(j);
            const float was = w, above = was + 0x1p-13f, below = was - 0x1p-13f;
            w = above;
            expected(j) = reference_loss(m, ids, next);
            w = below;
            expected(j) -= reference_loss(m, ids, next);
            expected(j) /= static_cast<double>(above) - static_cast<double>(below);
            w = was;
        }
        CAPTURE(i, expected.size());
        const double largest = expected.cwiseAbs().maxCoeff();
        CHECK(largest > 1e-4);
        CHECK((found[i].values.cast<double>() - expected).cwiseAbs().maxCoeff() < 1e-4 * largest);
    }
}

TEMPLATE_TEST_CASE("a backward pass shows each sublayer's units and gradients once", "", gpt::model,
                   llama::model) {
    const auto m = some_model<TestType>();
    std::vector<decoder::matrix> units, at_units, at_sums;
    std::vector<index_t> order;
    const auto show = [&](index_t s, const auto& x, const auto& at_x, const auto& at_sum) {
        order.push_back(s);
        units.push_back(x);
        at_units.push_back(at_x);
        at_sums.push_back(at_sum);
    };
    const auto gradient = gradient_of(m, show);
    REQUIRE(order == std::vector<index_t>{3, 2, 1, 0});
    auto x = embed(m, ids);
    for (std::size_t s = 0; s < order.size(); ++s) {
        CAPTURE(s);
        const auto &l = m.layers[s / 2], &of = gradient.layers[s / 2];
        const auto& reader = s % 2 ? l.down : l.projection;
        const decoder::matrix expected = s % 2 ? activate(l, x) : attend(m, l, x);
        const auto same = [](const decoder::matrix& found, const decoder::matrix& as) {
            CHECK((found - as).cwiseAbs().maxCoeff() < 1e-5f);
        };
        const decoder::matrix& at_sum = at_sums[3 - s];
        same(units[3 - s], expected);
        same(at_units[3 - s], at_sum * weight(reader));
        same(at_sum.transpose() * expected, weight(s % 2 ? of.down : of.projection));
        using decoder::add;
        add(reader, expected, x);
    }
}
