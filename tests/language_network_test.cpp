// The language model's passes against a slow one in double, with all keys and with some; and its
// cache's rules against what they say.
#include "catch.hpp"
#include "support.hpp"

#include "language_model/eviction.hpp"

#include <complex>
#include <numeric>
#include <set>

namespace {

using namespace language;
using numbers = Eigen::MatrixXd;
using row = Eigen::RowVectorXd;
using ids = std::vector<std::int32_t>;

model some_model(random_source& random, index_t groups = 2) {
    model m;
    m.config = {13, 24, 4, groups, 20, 64, 500, 1e-5};
    const index_t keys = groups * m.config.head_size();
    const auto some = [&](index_t rows, index_t columns, double scale) -> language::matrix {
        return language::matrix::NullaryExpr(rows, columns,
                                             [&] { return random.uniform<float>(-scale, scale); });
    };
    const auto gain = [&]() -> language::vector { return some(1, 24, 1).array() + 1.5f; };
    m.words = some(13, 24, 1);
    for (int l = 0; l < 3; ++l)
        m.layers.push_back({gain(), some(24, 24, 0.5), some(keys, 24, 0.5), some(keys, 24, 0.5),
                            some(24, 24, 0.3), gain(), some(20, 24, 0.3), some(20, 24, 0.3),
                            some(24, 20, 0.3)});
    m.last = gain();
    return m;
}

numbers times(const numbers& x, const language::matrix& w) {
    return x * w.cast<double>().transpose();
}
numbers normed(numbers x, const vector& gain, double epsilon) {
    for (index_t t = 0; t < x.rows(); ++t)
        x.row(t) = x.row(t).cwiseProduct(gain.cast<double>()) /
                   std::sqrt(x.row(t).squaredNorm() / static_cast<double>(x.cols()) + epsilon);
    return x;
}
numbers rotated(numbers x, const shape& c) {
    for (index_t t = 0; t < x.rows(); ++t)
        for (index_t j = 0; j < x.cols(); j += 2) {
            const double share =
                static_cast<double>(j % c.head_size()) / static_cast<double>(c.head_size());
            const std::complex<double> turned =
                std::complex<double>(x(t, j), x(t, j + 1)) *
                std::polar(1., static_cast<double>(t) / std::pow(c.rotary_base, share));
            x(t, j) = turned.real();
            x(t, j + 1) = turned.imag();
        }
    return x;
}

/// seen(layer, group, query, key): besides no key behind the query.
template <class Seen>
numbers reference(const model& m, const ids& text, const Seen& seen) {
    const shape& c = m.config;
    const auto n = static_cast<index_t>(text.size()), size = c.head_size();
    numbers x(n, c.hidden);
    for (index_t t = 0; t < n; ++t)
        x.row(t) = m.words.row(text[static_cast<std::size_t>(t)]).cast<double>();
    for (std::size_t i = 0; i < m.layers.size(); ++i) {
        const layer& l = m.layers[i];
        const numbers h = normed(x, l.before_attention, c.epsilon);
        const numbers q = rotated(times(h, l.query), c), k = rotated(times(h, l.key), c),
                      v = times(h, l.value);
        numbers context = numbers::Zero(n, c.hidden);
        for (index_t head = 0; head < c.heads; ++head)
            for (index_t t = 0; t < n; ++t) {
                const index_t g = head / c.heads_of_group();
                row p = row::Zero(t + 1);
                for (index_t u = 0; u <= t; ++u)
                    if (seen(i, g, t, u))
                        p(u) = std::exp(q.row(t)
                                            .segment(head * size, size)
                                            .dot(k.row(u).segment(g * size, size)) /
                                        std::sqrt(static_cast<double>(size)));
                context.row(t).segment(head * size, size) =
                    p / p.sum() * v.topRows(t + 1).middleCols(g * size, size);
            }
        x += times(context, l.projection);
        const numbers f = normed(x, l.before_filters, c.epsilon);
        const numbers gate =
            times(f, l.gate).unaryExpr([](double z) { return z / (1 + std::exp(-z)); });
        x += times(gate.cwiseProduct(times(f, l.up)), l.down);
    }
    return normed(x, m.last, c.epsilon);
}

ids some_text(random_source& random, index_t n) {
    ids text;
    for (index_t t = 0; t < n; ++t)
        text.push_back(static_cast<std::int32_t>(random.integer(0, 12)));
    return text;
}

/// A pass for each of some pieces; `after` may make the cache smaller.
numbers in_passes(const model& m, const ids& text, const std::vector<index_t>& pieces, index_t room,
                  const scoring& scores, const observer& after) {
    cache c;
    for (std::size_t l = 0; l < m.layers.size(); ++l) c.emplace_back(m.config, room);
    numbers all(static_cast<index_t>(text.size()), m.config.hidden);
    index_t at = 0;
    for (const index_t n : pieces) {
        all.middleRows(at, n) =
            forward(m, {text.begin() + at, text.begin() + at + n}, at, c, scores, after)
                .cast<double>();
        at += n;
    }
    return all;
}

bool close(const numbers& a, const numbers& b) {
    return a.rows() == b.rows() && (a - b).cwiseAbs().maxCoeff() < 2e-4;
}

} // namespace

TEST_CASE("passes of any length are one") {
    random_source random;
    CAPTURE(random);
    for (const index_t groups : {1, 2, 4}) {
        const model m = some_model(random, groups);
        const ids text = some_text(random, 40);
        const auto all =
            reference(m, text, [](std::size_t, index_t, index_t, index_t) { return true; });
        for (const std::vector<index_t>& pieces :
             {std::vector<index_t>{40}, {1, 39}, {7, 20, 1, 1, 11}, std::vector<index_t>(40, 1)})
            CHECK(close(in_passes(m, text, pieces, 40, {}, {}), all));
        // The loss, and the likeliest token.
        const language::matrix rows = all.cast<float>();
        const numbers logits = times(all, m.words);
        const ids next(text.begin() + 1, text.end());
        const auto found = losses(m, rows, next);
        REQUIRE(found.size() == 39);
        for (index_t t = 0; t < 39; ++t)
            CHECK(std::abs(found[static_cast<std::size_t>(t)] -
                           (std::log(logits.row(t).array().exp().sum()) -
                            logits(t, next[static_cast<std::size_t>(t)]))) < 1e-4);
        index_t best = 0;
        logits.row(39).maxCoeff(&best);
        CHECK(likeliest(m, rows) == best);
    }
}

TEST_CASE("a cache that has lost keys is attention that does not see them") {
    random_source random;
    CAPTURE(random);
    const model m = some_model(random);
    const ids text = some_text(random, 60);
    // Some keys leave at random behind each pass, of each group others.
    std::map<std::pair<index_t, index_t>, std::set<std::int32_t>> gone;
    std::map<std::tuple<std::size_t, index_t, index_t>, std::set<std::int32_t>> gone_before;
    index_t passes = 0;
    const std::vector<index_t> pieces = {12, 1, 1, 16, 1, 9, 20};
    const auto found = in_passes(
        m, text, pieces, 60, {},
        [&](index_t l, layer_cache& c, const language::matrix&, const pare::view<const float, 2>&) {
            for (index_t g = 0; g < c.groups(); ++g) {
                gone_before[{static_cast<std::size_t>(l), g, passes}] = gone[{l, g}];
                std::vector<std::int32_t> kept;
                for (index_t j = 0; j < c.length(g); ++j)
                    if (random.integer(0, 3) > 0 || j == 0)
                        kept.push_back(static_cast<std::int32_t>(j));
                    else
                        gone[{l, g}].insert(c.places(g)[j]);
                c.keep(g, pare::view(kept.data(), static_cast<index_t>(kept.size())));
            }
            if (l + 1 == static_cast<index_t>(m.layers.size())) ++passes;
        });
    std::vector<index_t> pass_of;
    for (std::size_t p = 0; p < pieces.size(); ++p)
        pass_of.insert(pass_of.end(), static_cast<std::size_t>(pieces[p]), static_cast<index_t>(p));
    const auto expected = reference(m, text, [&](std::size_t l, index_t g, index_t t, index_t u) {
        return gone_before[{l, g, pass_of[static_cast<std::size_t>(t)]}].count(
                   static_cast<std::int32_t>(u)) == 0;
    });
    CHECK(close(found, expected));
}

TEST_CASE("rules keep as many keys as they are told, and which") {
    random_source random;
    CAPTURE(random);
    const model m = some_model(random);
    const ids text = some_text(random, 60);
    const budget b{14, 2, 5};
    struct named {
        const char* name;
        std::unique_ptr<eviction> rule;
    };
    std::vector<named> rules;
    rules.push_back({"window", keep_window({14, 0, 14})});
    rules.push_back({"sinks", keep_window(b)});
    rules.push_back({"heavy", keep_heavy(b)});
    rules.push_back({"snap", keep_snap(b, 5)});
    rules.push_back({"shared", keep_shared(b, 5)});
    rules.push_back({"all", keep_all()});
    for (const auto& [name, rule] : rules) {
        CAPTURE(name);
        const std::string is = name;
        index_t seen = 0;
        in_passes(m, text, {10, 10, 1, 1, 18, 20}, 100, rule->scores(),
                  [&, &of = *rule](index_t l, layer_cache& c, const language::matrix& normed,
                                   const pare::view<const float, 2>& received) {
                      CHECK((received.extent(0) == c.groups()) ==
                            (is != "window" && is != "sinks" && is != "all"));
                      of.after(l, c, normed, received);
                      if (l == 0) seen += normed.rows();
                      index_t all = 0;
                      for (index_t g = 0; g < c.groups(); ++g) {
                          const auto* const places = c.places(g);
                          const index_t n = c.length(g);
                          all += n;
                          if (is != "shared" && is != "all")
                              CHECK(n == std::min<index_t>(seen, 14));
                          CHECK(std::is_sorted(places, places + n));
                          if (is == "window") {
                              CHECK(places[0] == seen - n);
                              continue;
                          }
                          for (index_t j = 0; j < 2; ++j) CHECK(places[j] == j);
                          for (index_t j = 1; j <= 5; ++j) CHECK(places[n - j] == seen - j);
                      }
                      if (is == "shared") CHECK(all == std::min<index_t>(seen, 14) * c.groups());
                      if (is == "all") CHECK(all == seen * c.groups());
                  });
    }
}
