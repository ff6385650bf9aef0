// The whole flow over a small network of this file's own, with all other components beside it.
#include "policies.hpp"
#include "support.hpp"
#include <pare/attention_scores.hpp>
#include <pare/pare.hpp>
#include <pare/prune.hpp>
#include <pare/prune/statistics_file.hpp>

#include <numeric>
#include <sstream>

namespace prune_test {

namespace {

/// Sublayers of units tanh(V norm(x)), of which the second half are the first half again, so that
/// half of them are enough.
template <class T>
class network {
  public:
    struct stream {
        matrix<T> x;
    };
    bool norm_of_sums = false, biased = true;
    bool wrong_units = false; // keep() leaves the first ones, whatever it is told
    index_t tied = -1;

    network(random_source& random, index_t count, index_t distinct, index_t unit)
        : hidden_(12), unit_(unit) {
        for (index_t s = 0; s < count; ++s) {
            layer l{matrix<T>(2 * distinct * unit, hidden_, random),
                    matrix<T>(hidden_, 2 * distinct * unit, random), random.vector<T>(hidden_)};
            for (index_t i = 0; i < distinct * unit; ++i)
                for (index_t j = 0; j < hidden_; ++j) l.in(distinct * unit + i, j) = l.in(i, j);
            layers_.push_back(l);
        }
        for (const index_t tokens : {40, 3, 31, 25, 40, 38})
            text_.emplace_back(tokens, hidden_, random);
    }

    index_t sublayers() const { return static_cast<index_t>(layers_.size()); }
    pare::sublayer<T> describe(index_t s) {
        layer& l = at(s);
        const auto bias = biased ? pare::view(l.bias.data(), hidden_) : pare::view<T, 1>();
        return {l.out.view(), bias, unit_, pare::cost_table::linear(l.out.width / unit_, 1.0), 1, 1,
                tied};
    }
    index_t batches() const { return static_cast<index_t>(text_.size()); }
    stream start(index_t b) const { return {text_[static_cast<std::size_t>(b)]}; }
    pare::view<T, 2> rows(stream& x) const { return x.x.view(); }
    pare::view<const T, 2> units(index_t s, const stream& x) {
        const layer& l = at(s);
        values_ = matrix<T>(x.x.height, l.in.height);
        for (index_t t = 0; t < x.x.height; ++t) {
            real square = 0;
            for (index_t j = 0; j < hidden_; ++j)
                square += static_cast<real>(x.x(t, j)) * static_cast<real>(x.x(t, j));
            const real scale = 1 / std::sqrt(square / static_cast<real>(hidden_) + 1e-6L);
            for (index_t i = 0; i < l.in.height; ++i) {
                real sum = 0;
                for (index_t j = 0; j < hidden_; ++j)
                    sum += static_cast<real>(l.in(i, j)) * static_cast<real>(x.x(t, j)) * scale;
                values_(t, i) = static_cast<T>(std::tanh(sum));
            }
        }
        return const_cast<const matrix<T>&>(values_).view();
    }
    void add(index_t s, const pare::view<const T, 2>& u, stream& x) const {
        const layer& l = layers_[static_cast<std::size_t>(s)];
        for (index_t t = 0; t < x.x.height; ++t)
            for (index_t i = 0; i < hidden_; ++i) {
                real sum = static_cast<real>(x.x(t, i));
                if (biased) sum += static_cast<real>(l.bias[static_cast<std::size_t>(i)]);
                for (index_t j = 0; j < l.out.width; ++j)
                    sum += static_cast<real>(l.out(i, j)) * static_cast<real>(u(t, j));
                x.x(t, i) = static_cast<T>(sum);
            }
    }
    void normalize(index_t, stream& x) const {
        if (!norm_of_sums) return;
        for (index_t t = 0; t < x.x.height; ++t) {
            real square = 0;
            for (index_t j = 0; j < hidden_; ++j)
                square += static_cast<real>(x.x(t, j)) * static_cast<real>(x.x(t, j));
            for (index_t j = 0; j < hidden_; ++j)
                x.x(t, j) = static_cast<T>(static_cast<real>(x.x(t, j)) / std::sqrt(square));
        }
    }
    void keep(index_t s, const std::vector<std::uint8_t>& mask) {
        layer& l = at(s);
        auto kept = pare::kept_positions(mask, unit_);
        if (wrong_units) std::iota(kept.begin(), kept.end(), index_t{0});
        const auto n = static_cast<index_t>(kept.size());
        layer small{matrix<T>(n, hidden_), matrix<T>(hidden_, n), l.bias};
        pare::keep_rows(pare::seq, l.in.view(), kept, small.in.view());
        pare::keep_columns(pare::seq, l.out.view(), kept, small.out.view());
        l = small;
    }

    index_t units_left() const {
        index_t left = 0;
        for (const layer& l : layers_) left += l.out.width / unit_;
        return left;
    }
    /// The stream behind the last sublayer.
    matrix<T> run(index_t b) {
        stream x = start(b);
        for (index_t s = 0; s < sublayers(); ++s) {
            add(s, units(s, x), x);
            normalize(s, x);
        }
        return x.x;
    }

  protected:
    struct layer {
        matrix<T> in, out;
        std::vector<T> bias;
    };
    layer& at(index_t s) { return layers_[static_cast<std::size_t>(s)]; }

    index_t hidden_, unit_;
    std::vector<layer> layers_;
    std::vector<matrix<T>> text_;
    matrix<T> values_{0, 0};
};

/// The same with gradients, of a loss of which this file knows as much: random ones.
template <class T>
struct network_with_gradients : network<T> {
    using network<T>::network;
    bool pieces = false;  // shows the batch's first rows and then the others
    bool queries = false; // of odd sublayers, two heads of five numbers

    template <class Visit>
    void backward(index_t b, const Visit& visit) {
        random_source random;
        random.engine.seed(static_cast<unsigned long>(b));
        auto x = this->start(b);
        for (index_t s = 0; s < this->sublayers(); ++s) {
            const auto units = this->units(s, x);
            const matrix<T> at_sum(x.x.height, x.x.width, random);
            const matrix<T> at_units(units.extent(0), units.extent(1), random);
            if (pieces)
                for (const auto& [first, count] :
                     {std::pair<index_t, index_t>{0, 2}, {2, x.x.height - 2}}) {
                    const auto piece = [f = first, n = count](const auto& rows) {
                        return pare::detail::some_rows(pare::view<const T, 2>(rows.data_handle(),
                                                                              rows.extent(0),
                                                                              rows.extent(1)),
                                                       f, n);
                    };
                    visit(s, piece(units), piece(at_units.view()), piece(at_sum.view()));
                }
            else if (queries && s % 2 == 1)
                visit(s, units, at_units.view(), at_sum.view(), queries_of(x.x),
                      queries_of(at_sum));
            else
                visit(s, units, at_units.view(), at_sum.view());
            this->add(s, units, x);
            this->normalize(s, x);
        }
    }
    /// Part of the rows.
    static pare::view<const T, 3> queries_of(const matrix<T>& rows) {
        return {rows.view().data_handle(), {rows.height, 2, 5}, {rows.width, 6, 1}};
    }
    std::vector<index_t> offsets(index_t b) const {
        const index_t tokens = this->text_[static_cast<std::size_t>(b)].height;
        return {0, tokens / 2, tokens};
    }
};

template <class T, class Network>
real difference(Network& a, Network& b) {
    real off = 0, all = 0;
    for (index_t batch = 0; batch < a.batches(); ++batch) {
        const matrix<T> x = a.run(batch), y = b.run(batch);
        for (index_t t = 0; t < x.height; ++t)
            for (index_t j = 0; j < x.width; ++j) {
                off += distance(x(t, j), y(t, j)) * distance(x(t, j), y(t, j));
                all += static_cast<real>(x(t, j)) * static_cast<real>(x(t, j));
            }
    }
    return off / all;
}

template <class Network, class Policy>
void check_flow(const Policy& policy, Network dense) {
    using T = pare::detail::number_of<Network>;
    Network pruned = dense;
    pare::prune_options options;
    options.ridges = {1e-6};
    const index_t all = dense.units_left();
    const pare::prune_report report = pare::prune(policy, pare::seq, dense, pruned, options);
    REQUIRE(report.finished);
    CHECK(pruned.units_left() <= all / 2);
    CHECK(report.plan.cost == static_cast<double>(pruned.units_left()));
    CHECK(report.plan.dense_cost == static_cast<double>(all));
    CHECK(report.plan.loss >= report.plan.bound - 1e-12);
    CHECK(dense.units_left() == all);
    for (const auto& r : report.refits) {
        CHECK(r.fit);
        CHECK(r.fit.error_after <= 1e-4 * r.fit.variance);
    }
    CHECK(difference<T>(dense, pruned) < 1e-4);
}

} // namespace

TEMPLATE_LIST_TEST_CASE("half of the units are enough where the others say the same", "",
                        host_runs) {
    using T = typename TestType::type;
    random_source random;
    CAPTURE(random);
    for (const index_t unit : {1, 3})
        for (const bool norm_of_sums : {false, true})
            for (const bool biased : {true, false}) {
                CAPTURE(unit, norm_of_sums, biased);
                network<T> forward(random, 3, 4, unit);
                network_with_gradients<T> both(random, 2, 4, unit);
                for (network<T>* n : {&forward, static_cast<network<T>*>(&both)}) {
                    n->norm_of_sums = norm_of_sums;
                    n->biased = biased;
                }
                check_flow(TestType::policy(), forward);
                check_flow(TestType::policy(), both);
            }
}

namespace {

/// Gradients behind the last sublayer are `factor` of what they are, and of the first batch 0.
struct quiet_first : network_with_gradients<double> {
    double factor = 1;

    using network_with_gradients<double>::network_with_gradients;
    template <class F>
    void backward(index_t b, const F& visit) {
        network_with_gradients<double>::backward(b, [&](index_t s, const auto& units,
                                                        const auto& at_units, const auto& at_sum,
                                                        const auto&... others) {
            matrix<double> scaled(at_sum.extent(0), at_sum.extent(1));
            for (index_t t = 0; t < scaled.height; ++t)
                for (index_t i = 0; i < scaled.width; ++i)
                    scaled(t, i) = b == 0 ? 0 : factor * at_sum(t, i);
            visit(s, units, at_units, scaled.view(), others...);
        });
    }
    void forget_text() { text_.clear(); }
};

} // namespace

TEST_CASE("a first batch without gradients says nothing of the others' weights") {
    random_source random;
    CAPTURE(random);
    CHECK(pare::detail::token_weight(1.0f, 1e-300) < 1e7f);
    quiet_first network(random, 3, 5, 2);
    const auto expected = pare::collect(pare::seq, network);
    REQUIRE(expected);
    for (const double factor : {1e-12, 1e12}) { // squares of it are floats
        network.factor = factor;
        auto found = pare::collect(pare::seq, network, {1, 2});
        const auto others = pare::collect(pare::seq, network, {0, 2});
        REQUIRE(found);
        REQUIRE(others);
        for (std::size_t s = 0; s < 3; ++s) {
            (*found)[s].merge((*others)[s]);
            CHECK(
                (*found)[s].inputs.covariance().isApprox((*expected)[s].inputs.covariance(), 1e-9));
        }
    }
}

TEST_CASE("a model that has seen no text is not pruned") {
    random_source random;
    quiet_first dense(random, 3, 5, 2), pruned = dense;
    dense.forget_text();
    CHECK_THROWS_WITH(pare::prune(pare::seq, dense, pruned),
                      "pare::prune: the statistics of 3 sublayers are of no tokens: nothing says "
                      "what they can do without");
    CHECK(pruned.units_left() == 30);
}

TEST_CASE("stages of pruning, one by one") {
    random_source random;
    CAPTURE(random);
    network_with_gradients<double> dense(random, 3, 5, 2);
    const auto statistics = pare::collect(pare::seq, dense);
    REQUIRE(statistics);

    SECTION("statistics in parts are those of the whole") {
        auto merged = pare::collect(pare::seq, dense, {2, 3});
        for (const index_t ith : {0, 1}) {
            const auto part = pare::collect(pare::seq, dense, {ith, 3});
            for (std::size_t s = 0; s < 3; ++s) (*merged)[s].merge((*part)[s]);
        }
        const auto whole_curves = *pare::elimination_curves(pare::seq, dense, *statistics);
        const auto curves = *pare::elimination_curves(pare::seq, dense, *merged);
        CHECK_THROWS_AS(pare::collect(pare::seq, dense, {0, 0}), pare::value_error);
        for (std::size_t s = 0; s < 3; ++s) {
            CHECK((*merged)[s].squares == (*statistics)[s].squares);
            CHECK((*merged)[s].inputs.covariance().isApprox((*statistics)[s].inputs.covariance(),
                                                            1e-9));
            CHECK(curves[s].order == whole_curves[s].order);
        }
        CHECK(pare::plan(dense, curves, 0.4).masks == pare::plan(dense, whole_curves, 0.4).masks);
    }
    SECTION("curves of other criteria, and masks that were changed") {
        auto fishers = pare::collect_fisher(pare::seq, dense, {pare::fisher_kind::block});
        REQUIRE(fishers);
        std::vector<pare::loss_curve> curves;
        for (const auto& f : *fishers) {
            CHECK(f.samples() == 12);
            curves.push_back(pare::sorted_losses(f.diagonal()));
        }
        auto chosen = pare::plan(dense, curves, 0.5);
        std::swap(chosen.masks[0].front(), chosen.masks[0].back());
        auto pruned = dense;
        const auto reports = pare::refit(pare::seq, dense, pruned, chosen);
        REQUIRE(reports);
        CHECK(reports->size() == 3);
        for (const auto& r : *reports) CHECK(r.fit.error_after <= r.fit.error_before);
    }
    SECTION("what leaves its mean behind has the Fisher information of what varies") {
        auto found = pare::collect_fisher(pare::seq, dense, {pare::fisher_kind::diagonal, true});
        REQUIRE(found);
        std::vector<std::vector<real>> means(3, std::vector<real>(20, 0));
        real tokens = 0;
        const auto over_text = [&](const auto& f) {
            for (index_t b = 0; b < dense.batches(); ++b)
                dense.backward(b, [&](index_t s, const auto& units, const auto& at_units,
                                      const auto&, const auto&...) { f(b, s, units, at_units); });
        };
        over_text([&](index_t, index_t s, const auto& units, const auto&) {
            if (s == 0) tokens += static_cast<real>(units.extent(0));
            for (index_t t = 0; t < units.extent(0); ++t)
                for (index_t c = 0; c < 20; ++c)
                    means[static_cast<std::size_t>(s)][static_cast<std::size_t>(c)] += units(t, c);
        });
        std::vector<std::vector<real>> squares(3, std::vector<real>(10, 0));
        over_text([&](index_t b, index_t s, const auto& units, const auto& at_units) {
            const auto offsets = dense.offsets(b);
            for (std::size_t sample = 0; sample < 2; ++sample)
                for (index_t u = 0; u < 10; ++u) {
                    real gradient = 0;
                    for (index_t t = offsets[sample]; t < offsets[sample + 1]; ++t)
                        for (index_t c = 2 * u; c < 2 * u + 2; ++c)
                            gradient +=
                                static_cast<real>(at_units(t, c)) *
                                (static_cast<real>(units(t, c)) -
                                 means[static_cast<std::size_t>(s)][static_cast<std::size_t>(c)] /
                                     tokens);
                    squares[static_cast<std::size_t>(s)][static_cast<std::size_t>(u)] +=
                        gradient * gradient / 12;
                }
        });
        for (std::size_t s = 0; s < 3; ++s)
            for (std::size_t u = 0; u < 10; ++u)
                CHECK_THAT((*found)[s].diagonal()[u],
                           WithinRel(static_cast<double>(squares[s][u]), 1e-9));
        pare::prune_options options;
        options.criterion = pare::prune_criterion::fisher;
        auto pruned = dense;
        const auto report = pare::prune(pare::simd, dense, pruned, options);
        CHECK(report.finished);
        CHECK(pruned.units_left() <= 15);
        CHECK_THAT(pare::to_string(report), ContainsSubstring("no choice of this cost below"));
    }
    SECTION("forward passes alone say the same of a model that can run backwards") {
        network<double> forward = dense, pruned = dense;
        pare::prune_options options;
        const auto expected = pare::prune(pare::simd, forward, pruned, options);
        options.criterion = pare::prune_criterion::forward;
        auto also_pruned = dense;
        const auto report = pare::prune(pare::simd, dense, also_pruned, options);
        CHECK(report.finished);
        CHECK(report.plan.masks == expected.plan.masks);
        for (std::size_t s = 0; s < 3; ++s)
            CHECK_THAT(report.plan.losses[s], WithinRel(expected.plan.losses[s], 1e-9));
        auto found = *pare::collect_forward(pare::seq, dense);
        CHECK(found[0].metric.rows() == 0);
        CHECK(found[0].sums.tokens() == found[0].inputs.tokens());
        const auto chosen =
            pare::plan(dense, *pare::elimination_curves(pare::seq, dense, found), 0.5);
        auto again = dense, without_sums = dense;
        const auto fit = *pare::refit(pare::seq, dense, again, chosen, found);
        for (auto& of : found) of.drop_sums();
        const auto same = *pare::refit(pare::seq, dense, without_sums, chosen, found);
        for (std::size_t s = 0; s < fit.size(); ++s)
            CHECK_THAT(fit[s].fit.error_after, WithinRel(same[s].fit.error_after, 1e-9));
    }
    SECTION("text in pieces") {
        auto pieces = dense;
        pieces.pieces = true;
        const auto found = pare::collect(pare::seq, pieces);
        for (std::size_t s = 0; s < 3; ++s) {
            CHECK((*found)[s].squares == (*statistics)[s].squares);
            CHECK((*found)[s].inputs.tokens() == (*statistics)[s].inputs.tokens());
            CHECK((*found)[s].batches == 6);
        }
    }
    SECTION("a part of the statistics is not all, and no part counts twice") {
        auto some = pare::collect(pare::seq, dense, {1, 2});
        auto pruned = dense;
        const auto chosen =
            pare::plan(dense, *pare::elimination_curves(pare::seq, dense, *some), 0.5);
        CHECK_THAT(sentence_of<pare::value_error>(
                       [&] { pare::refit(pare::seq, dense, pruned, chosen, *some); }),
                   ContainsSubstring("3 of 6 batches"));
        auto twice = (*some)[0];
        CHECK_THAT(sentence_of<pare::value_error>([&] { twice.merge((*some)[0]); }),
                   ContainsSubstring("have seen batch 1"));
    }
    SECTION("tokens weigh the same whatever the batches, and those without a weight 1") {
        auto chosen =
            pare::plan(dense, *pare::elimination_curves(pare::seq, dense, *statistics), 0.5);
        auto first = dense, second = dense, third = dense, ones = dense;
        auto other = *statistics; // all batches in one
        for (auto& s : other) {
            std::vector<float> all;
            for (const auto& squares : s.squares)
                all.insert(all.end(), squares.begin(), squares.end());
            s.squares = {all};
            s.batches = 1;
        }
        pare::refit(pare::seq, dense, first, chosen, *statistics);
        pare::refit(pare::seq, dense, second, chosen, other);
        CHECK(difference<double>(first, second) == 0);
        for (auto& s : other) s.squares = {{}};
        pare::refit(pare::seq, dense, third, chosen, other);
        pare::refit(pare::seq, dense, ones, chosen);
        CHECK(difference<double>(ones, third) == 0);
        CHECK(difference<double>(ones, first) > 0);
    }
    SECTION("scales instead of weights") {
        const auto chosen =
            pare::plan(dense, *pare::elimination_curves(pare::seq, dense, *statistics), 0.5);
        auto pruned = dense;
        pare::refit_options options;
        options.scales = true;
        const auto reports = *pare::refit(pare::seq, dense, pruned, chosen, *statistics, options);
        for (const auto& r : reports) {
            CHECK(r.kept == pruned.describe(&r - reports.data()).units());
            CHECK(r.fit.error_after <= r.fit.error_before);
        }
    }
    SECTION("sublayers that are equally wide, multiples, and a budget that is too small") {
        dense.tied = 7;
        const auto curves = *pare::elimination_curves(pare::seq, dense, *statistics);
        const auto chosen = pare::plan(dense, curves, 0.5);
        for (const auto& mask : chosen.masks)
            CHECK(std::accumulate(mask.begin(), mask.end(), 0) == 5);
        CHECK_THAT(sentence_of<pare::value_error>([&] { pare::plan(dense, curves, 0.01); }),
                   ContainsSubstring("the least that sublayers can cost is 3"));
    }
    SECTION("a run that is ended") {
        for (const index_t steps : {0, 3, 7, 10}) {
            CAPTURE(steps);
            index_t seen = 0;
            pare::prune_options options;
            options.callback = [&](const pare::prune_progress& at) {
                CHECK(at.done < at.all);
                return seen++ < steps;
            };
            auto pruned = dense;
            CHECK_FALSE(pare::prune(pare::seq, dense, pruned, options).finished);
            CHECK(seen == steps + 1);
        }
    }
    SECTION("keep that leaves other units is found") {
        auto pruned = dense;
        pruned.wrong_units = true;
        pare::prune_plan chosen =
            pare::plan(dense, *pare::elimination_curves(pare::seq, dense, *statistics), 0.5);
        for (auto& mask : chosen.masks) std::reverse(mask.begin(), mask.end());
        chosen.masks[0] = {0, 1, 1, 1, 0, 0, 1, 0, 1, 0};
        CHECK_THAT(
            sentence_of<pare::value_error>([&] { pare::refit(pare::seq, dense, pruned, chosen); }),
            ContainsSubstring("what keep(0) left gives other values"));
    }
}

TEST_CASE("a pass that shows queries tells what ranks of them lose, tokens weighted") {
    random_source random;
    CAPTURE(random);
    network_with_gradients<float> model(random, 2, 3, 2);
    model.queries = true;
    auto found = *pare::collect(pare::seq, model);
    CHECK(found[0].queries.heads() == 0);
    REQUIRE(found[1].queries.heads() == 2);
    using square = Eigen::Matrix<double, 5, 5>;
    square moments[2] = {square::Zero(), square::Zero()}, metric[2] = {moments[0], moments[0]};
    double weights = 0, tokens = 0, typical = 0;
    for (index_t b = 0; b < model.batches(); ++b) {
        const std::vector<float>& squares = found[1].squares[static_cast<std::size_t>(b)];
        if (b == 0)
            for (const float x : squares)
                typical += static_cast<double>(x) / static_cast<double>(squares.size());
        model.backward(b, [&](index_t s, const auto&, const auto&, const auto&,
                              const auto&... queries) {
            if constexpr (sizeof...(queries) == 2) {
                REQUIRE(s == 1);
                const auto [q, g] = std::tuple(queries...);
                for (index_t t = 0; t < q.extent(0); ++t) {
                    const double w =
                        0.05 +
                        0.95 * static_cast<double>(squares[static_cast<std::size_t>(t)]) / typical;
                    weights += w;
                    ++tokens;
                    for (index_t h = 0; h < 2; ++h)
                        for (index_t i = 0; i < 5; ++i)
                            for (index_t j = 0; j < 5; ++j) {
                                moments[h](i, j) += w * static_cast<double>(q(t, h, i)) *
                                                    static_cast<double>(q(t, h, j));
                                metric[h](i, j) += static_cast<double>(g(t, h, i)) *
                                                   static_cast<double>(g(t, h, j));
                            }
                }
            }
        });
    }
    const auto curves = found[1].queries.projections();
    for (std::size_t h = 0; h < 2; ++h) {
        const auto expected =
            pare::project((moments[h] / weights).eval(), (metric[h] / tokens).eval());
        for (std::size_t k = 0; k <= 5; ++k)
            CHECK_THAT(curves[h].loss[k], WithinRel(expected.loss[k], 1e-5));
    }
}

namespace {

/// Attention whose heads' queries and values have twice the numbers that they need, and filters of which
/// all are needed, in turns.
struct attention_network {
    struct stream {
        matrix<double> x;
        index_t batch;
    };
    struct layer {
        matrix<double> query{0, 0}, key{0, 0}, value{0, 0};
        matrix<double> out{0, 0}; // reads heads, or filters of `value`
        std::vector<double> query_bias, key_bias, value_bias, bias;
        index_t queries, values;
    };
    static constexpr index_t hidden = 10, heads = 3, size = 4, filters = 6;
    index_t tied = -1, multiple = 1, query_multiple = 1, value_multiple = 1;
    bool shows_queries = true, narrows_wrongly = false;
    double price = 1; // of a shape, by what it should be
    std::vector<layer> layers;
    std::vector<matrix<double>> text;
    matrix<double> values{0, 0};

    explicit attention_network(random_source& random) {
        const auto of_half_rank = [&](std::vector<double>& bias) {
            matrix<double> w(heads * size, hidden);
            bias.assign(static_cast<std::size_t>(heads * size), 0);
            for (index_t h = 0; h < heads; ++h) {
                const matrix<double> up(size, size / 2, random), down(size / 2, hidden + 1, random);
                for (index_t i = 0; i < size; ++i)
                    for (index_t j = 0; j <= hidden; ++j) {
                        double sum = 0;
                        for (index_t r = 0; r < size / 2; ++r) sum += up(i, r) * down(r, j);
                        if (j < hidden)
                            w(h * size + i, j) = sum;
                        else
                            bias[static_cast<std::size_t>(h * size + i)] = sum;
                    }
            }
            return w;
        };
        for (index_t s = 0; s < 4; ++s) {
            layer l;
            if (s % 2 == 0) {
                l.query = of_half_rank(l.query_bias);
                l.key = matrix<double>(heads * size, hidden, random);
                l.key_bias = random.vector<double>(heads * size);
                l.value = of_half_rank(l.value_bias);
                l.out = matrix<double>(hidden, heads * size, random);
                l.queries = l.values = size;
            } else {
                l.value = matrix<double>(filters, hidden, random);
                l.value_bias = random.vector<double>(filters);
                l.out = matrix<double>(hidden, filters, random);
                l.queries = 0;
                l.values = 1;
            }
            l.bias = random.vector<double>(hidden);
            layers.push_back(l);
        }
        for (const index_t tokens : {60, 41, 54, 70, 60}) text.emplace_back(tokens, hidden, random);
    }

    layer& at(index_t s) { return layers[static_cast<std::size_t>(s)]; }
    static matrix<double> product(const matrix<double>& w, const std::vector<double>& bias,
                                  const matrix<double>& x) {
        matrix<double> y(x.height, w.height);
        for (index_t t = 0; t < x.height; ++t)
            for (index_t i = 0; i < w.height; ++i) {
                y(t, i) = bias[static_cast<std::size_t>(i)];
                for (index_t j = 0; j < w.width; ++j) y(t, i) += w(i, j) * x(t, j) / 3;
            }
        return y;
    }
    std::vector<index_t> offsets(index_t b) const {
        const index_t tokens = text[static_cast<std::size_t>(b)].height;
        return {0, tokens / 3, tokens};
    }

    index_t sublayers() const { return static_cast<index_t>(layers.size()); }
    index_t batches() const { return static_cast<index_t>(text.size()); }
    pare::sublayer<double> describe(index_t s) {
        layer& l = at(s);
        const auto macs = [this](const pare::head_shape& of) {
            return price * static_cast<double>(of.heads * (of.queries + of.values));
        };
        const double each = s % 2 ? 2 : static_cast<double>(l.queries + l.values);
        pare::sublayer<double> y{l.out.view(),
                                 pare::view(l.bias.data(), hidden),
                                 l.values,
                                 pare::cost_table::linear(l.out.width / l.values, each),
                                 s % 2 ? 1 : multiple,
                                 0,
                                 s % 2 ? -1 : tied,
                                 {}};
        if (s % 2 == 0) y.numbers = {l.queries, query_multiple, value_multiple, macs};
        return y;
    }
    stream start(index_t b) const { return {text[static_cast<std::size_t>(b)], b}; }
    pare::view<const double, 2> rows(const stream& x) const { return x.x.view(); }
    pare::view<const double, 2> units(index_t s, const stream& x) {
        const layer& l = at(s);
        const matrix<double> v = product(l.value, l.value_bias, x.x);
        values = matrix<double>(v.height, v.width);
        if (s % 2) {
            for (index_t t = 0; t < v.height; ++t)
                for (index_t i = 0; i < v.width; ++i) values(t, i) = std::tanh(v(t, i));
        } else {
            const matrix<double> q = product(l.query, l.query_bias, x.x),
                                 k = product(l.key, l.key_bias, x.x);
            const auto of_heads = [](auto&& of, index_t numbers) {
                return pare::view(of.view().data_handle(), of.height, of.width / numbers, numbers);
            };
            if (v.width > 0)
                pare::attention(pare::seq, of_heads(q, l.queries), of_heads(k, l.queries),
                                of_heads(v, l.values), offsets(x.batch),
                                of_heads(values, l.values));
        }
        return const_cast<const matrix<double>&>(values).view();
    }
    void add(index_t s, const pare::view<const double, 2>& u, stream& x) {
        layer& l = at(s);
        for (index_t t = 0; t < x.x.height; ++t)
            for (index_t i = 0; i < hidden; ++i) {
                x.x(t, i) += l.bias[static_cast<std::size_t>(i)];
                for (index_t j = 0; j < l.out.width; ++j) x.x(t, i) += l.out(i, j) * u(t, j);
            }
    }
    template <class Visit>
    void backward(index_t b, const Visit& visit) {
        random_source random;
        random.engine.seed(static_cast<unsigned long>(b));
        stream x = start(b);
        for (index_t s = 0; s < sublayers(); ++s) {
            const auto u = units(s, x);
            const matrix<double> at_sum(x.x.height, hidden, random);
            const matrix<double> at_units(u.extent(0), u.extent(1), random);
            if (s % 2 == 0 && shows_queries) {
                const layer& l = at(s);
                const matrix<double> q = product(l.query, l.query_bias, x.x);
                const matrix<double> g(q.height, q.width, random);
                const auto of_heads = [&](const matrix<double>& of) {
                    return pare::view(of.view().data_handle(), of.height, heads, size);
                };
                visit(s, u, at_units.view(), at_sum.view(), of_heads(q), of_heads(g));
            } else {
                visit(s, u, at_units.view(), at_sum.view());
            }
            add(s, u, x);
        }
    }
    void keep(index_t s, const std::vector<std::uint8_t>& mask) {
        layer& l = at(s);
        const auto rows = [&](matrix<double>& w, std::vector<double>& bias, index_t unit) {
            if (w.height == 0) return;
            const auto kept = pare::kept_positions(mask, unit);
            matrix<double> some(static_cast<index_t>(kept.size()), w.width);
            std::vector<double> biases(kept.size());
            pare::keep_rows(pare::seq, w.view(), kept, some.view());
            pare::keep_entries(pare::seq, bias, kept, biases);
            w = some;
            bias = biases;
        };
        if (s % 2 == 0) {
            rows(l.query, l.query_bias, l.queries);
            rows(l.key, l.key_bias, l.queries);
        }
        rows(l.value, l.value_bias, l.values);
        const auto kept = pare::kept_positions(mask, l.values);
        matrix<double> out(hidden, static_cast<index_t>(kept.size()));
        pare::keep_columns(pare::seq, l.out.view(), kept, out.view());
        l.out = out;
    }
    void narrow(index_t s, const pare::narrow_heads& to) {
        layer& l = at(s);
        const auto rows = [&](const std::vector<pare::head_maps>& maps, pare::head_map which,
                              index_t rank, double factor, matrix<double>& w,
                              std::vector<double>& bias) {
            matrix<double> fewer(to.shape.heads * rank, w.width);
            std::vector<double> biases(static_cast<std::size_t>(fewer.height));
            pare::narrow_rows(maps, which, rank, w.view(), fewer.view(), factor);
            pare::narrow_rows(maps, which, rank,
                              pare::view(bias.data(), static_cast<index_t>(bias.size()), 1),
                              pare::view(biases.data(), fewer.height, 1), factor);
            w = fewer;
            bias = biases;
        };
        if (!to.queries.empty()) {
            const double factor = pare::rank_factor(to.shape.queries, l.queries);
            rows(to.queries, pare::head_map::down, to.shape.queries, factor, l.query, l.query_bias);
            rows(to.queries, pare::head_map::up, to.shape.queries, factor, l.key, l.key_bias);
            l.queries = to.shape.queries;
        }
        if (!to.values.empty() && !narrows_wrongly) {
            rows(to.values, pare::head_map::down, to.shape.values, 1, l.value, l.value_bias);
            matrix<double> out(hidden, to.shape.heads * to.shape.values);
            const auto turned = [](const matrix<double>& of, double* data) {
                return pare::view<double, 2>(data, {of.width, of.height}, {1, of.width});
            };
            pare::narrow_rows(to.values, pare::head_map::up, to.shape.values,
                              turned(l.out, l.out.view().data_handle()),
                              turned(out, out.view().data_handle()));
            l.out = out;
            l.values = to.shape.values;
        }
    }

    double cost() {
        double sum = 0;
        for (index_t s = 0; s < sublayers(); ++s)
            sum += static_cast<double>(at(s).out.width * (s % 2 ? 2 : 1) + at(s).query.height);
        return sum;
    }
    matrix<double> run(index_t b) {
        stream x = start(b);
        for (index_t s = 0; s < sublayers(); ++s) add(s, units(s, x), x);
        return x.x;
    }
};

/// The same without `narrow`.
struct whole_attention_network : attention_network {
    using attention_network::attention_network;
    void narrow() = delete;
};

} // namespace

TEST_CASE("heads are made of as few numbers as they need, of any model that can do that") {
    random_source random;
    CAPTURE(random);
    attention_network dense(random);
    // All filters, and all heads of half as many numbers: nothing that is needed goes.
    const double all = dense.cost(), needed = 2 * 12 + 2 * 12;
    pare::prune_options options;
    options.share = needed / all + 1e-9;
    options.ridges = {1e-10};

    SECTION("to half of them, hardly anything is lost") {
        for (const index_t multiple : {1, 2}) {
            dense.query_multiple = dense.value_multiple = multiple;
            attention_network pruned = dense;
            const auto report = pare::prune(pare::simd, dense, pruned, options);
            REQUIRE(report.finished);
            CHECK(report.plan.dense_cost == all);
            CHECK(report.plan.cost == pruned.cost());
            CHECK(pruned.cost() <= needed);
            attention_network without = dense, whole = dense;
            without.shows_queries = false; // some heads must go
            pare::prune(pare::simd, without, whole, options);
            CHECK(whole.at(0).queries == 4);
            // Not nothing: of a filter or a number that makes little difference, ridges see none.
            CHECK(difference<double>(dense, pruned) < 1e-4);
            CHECK(difference<double>(dense, pruned) < 0.1 * difference<double>(dense, whole));
            CHECK_THAT(pare::to_string(report), ContainsSubstring("numbers, values of"));
        }
    }
    SECTION("any share, as the plan says") {
        for (const double share : {0.1, 0.3, 0.45, 0.6, 0.9, 1.0})
            for (const bool odd : {false, true}) {
                dense.query_multiple = odd ? 2 : 4;
                dense.value_multiple = odd ? 1 : 2;
                dense.multiple = odd ? 2 : 1;
                dense.tied = odd ? 3 : -1;
                CAPTURE(share, odd);
                options.share = share;
                attention_network pruned = dense;
                const auto report = pare::prune(pare::seq, dense, pruned, options);
                REQUIRE(report.finished);
                CHECK_THAT(report.plan.cost, WithinRel(pruned.cost(), 1e-12));
                CHECK(pruned.cost() <= share * all + 1e-9);
                for (index_t s = 0; s < 4; s += 2) {
                    const auto& l = pruned.at(s);
                    const index_t heads = l.out.width / l.values;
                    CHECK(heads % dense.multiple == 0);
                    CHECK(l.queries % dense.query_multiple == 0);
                    CHECK(l.values % dense.value_multiple == 0);
                    CHECK(l.query.height == heads * l.queries);
                    if (odd) CHECK((heads == pruned.at(0).out.width / pruned.at(0).values));
                }
                for (const auto& r : report.refits)
                    CHECK(r.fit.error_after <= r.fit.error_before + 1e-12 * r.fit.variance);
                if (share == 1 && !odd) CHECK(difference<double>(dense, pruned) < 1e-9);
            }
    }
    SECTION("whole, where queries are not shown or the criterion has no gradients") {
        options.share = 0.5;
        dense.shows_queries = false;
        attention_network pruned = dense;
        CHECK(pare::prune(pare::seq, dense, pruned, options).plan.heads.empty());
        CHECK(pruned.at(0).queries == 4);
        dense.shows_queries = true;
        options.criterion = pare::prune_criterion::forward;
        pruned = dense;
        CHECK(pare::prune(pare::seq, dense, pruned, options).plan.heads.empty());
    }
    SECTION("a narrow that leaves what it should have made fewer is found") {
        attention_network pruned = dense;
        pruned.narrows_wrongly = true;
        CHECK_THAT(
            sentence_of<pare::value_error>([&] { pare::prune(pare::seq, dense, pruned, options); }),
            ContainsSubstring("was to be left a weight of 10 x"));
    }
    SECTION("shapes that cost other than heads") {
        attention_network pruned = dense;
        dense.price = 2;
        CHECK_THAT(
            sentence_of<pare::value_error>([&] { pare::prune(pare::seq, dense, pruned, options); }),
            ContainsSubstring("cost 24 by their number and 48 by their shape"));
    }
    SECTION("a plan for a model that cannot do that") {
        auto statistics = *pare::collect(pare::seq, dense);
        const auto curves = *pare::elimination_curves(pare::seq, dense, statistics);
        auto numbers = *pare::number_curves(pare::seq, dense, statistics, curves);
        numbers.queries.assign(4, {}); // values alone
        const auto chosen = pare::plan(dense, curves, 0.6, numbers);
        CHECK(chosen.heads[0].shape.queries == 4);
        CHECK(chosen.heads[0].shape.values < 4);
        whole_attention_network other(random), pruned = other;
        CHECK(pare::number_curves(pare::seq, other, statistics, curves)->values.empty());
        CHECK_THAT(
            sentence_of<pare::value_error>([&] { pare::refit(pare::seq, other, pruned, chosen); }),
            ContainsSubstring("the model has no `narrow`"));
        numbers.queries.resize(3);
        CHECK_THROWS_AS(pare::plan(dense, curves, 0.6, numbers), pare::shape_error);
    }
}

TEST_CASE("statistics in a file") {
    random_source random;
    CAPTURE(random);
    network_with_gradients<float> dense(random, 2, 3, 2);
    dense.queries = true;
    network<float> forward(random, 2, 3, 1);
    const auto written = [](const std::vector<pare::sublayer_statistics>& statistics) {
        std::ostringstream file;
        pare::save(file, statistics);
        return file.str();
    };
    const auto read = [](const std::string& bytes) {
        std::istringstream file(bytes);
        return pare::load_statistics(file);
    };
    const auto plan_of = [](auto& model, const auto& statistics) {
        return pare::plan(model, *pare::elimination_curves(pare::seq, model, statistics), 0.5);
    };
    const auto whole = *pare::collect(pare::seq, dense);

    SECTION("is what was written") {
        const auto check = [&](auto& model) {
            const auto statistics = *pare::collect(pare::seq, model);
            const std::string bytes = written(statistics);
            const auto again = read(bytes);
            CHECK(written(again) == bytes);
            const auto chosen = plan_of(model, statistics), same = plan_of(model, again);
            CHECK(chosen.masks == same.masks);
            CHECK(chosen.losses == same.losses);
            auto pruned = model, other = model;
            pare::refit(pare::seq, model, pruned, chosen, statistics);
            pare::refit(pare::seq, model, other, same, again);
            CHECK(difference<float>(pruned, other) == 0);
        };
        check(dense);
        check(forward);
    }
    SECTION("of several processes, in any order") {
        std::vector<std::string> files;
        for (const index_t ith : {2, 0, 1})
            files.push_back(written(*pare::collect(pare::seq, dense, {ith, 3})));
        auto merged = read(files[0]);
        for (const std::size_t i : {1U, 2U}) {
            const auto part = read(files[i]);
            for (std::size_t s = 0; s < merged.size(); ++s) merged[s].merge(part[s]);
        }
        CHECK(plan_of(dense, merged).masks == plan_of(dense, whole).masks);
        CHECK(merged[0].queries.heads() == 0);
        auto seen = whole[1].queries;
        const auto found = merged[1].queries.projections(), expected = seen.projections();
        REQUIRE(found.size() == 2);
        for (std::size_t h = 0; h < 2; ++h)
            for (std::size_t k = 0; k <= 5; ++k)
                CHECK_THAT(found[h].loss[k], WithinRel(expected[h].loss[k], 1e-6));
    }
    SECTION("that ends early, or has other bytes, is refused") {
        const std::string bytes = written(whole);
        const std::string title = "pare statistics 2\n";
        const auto refused = [&](const std::string& file) {
            return sentence_of<pare::value_error>([&] { read(file); });
        };
        std::size_t wrong = 0;
        for (std::size_t n = 0; n < bytes.size(); n += n < 600 ? 1 : 37)
            wrong += refused(bytes.substr(0, n)).empty();
        for (std::size_t n = 0; n < bytes.size(); n += n < 600 ? 1 : 37)
            for (const int flip : {1, 0x80, 0xff}) {
                std::string other = bytes;
                other[n] = static_cast<char>(other[n] ^ flip);
                wrong += refused(other).empty();
            }
        CHECK(wrong == 0);
        CHECK_THAT(refused("#!/bin/sh\n and more than a title"),
                   ContainsSubstring("does not begin as such a file does"));
        CHECK_THAT(refused(title + std::string(7, '\xff')), ContainsSubstring("1 bytes early"));
        CHECK_THAT(refused(title + std::string(8, '\xff')),
                   ContainsSubstring("a count of 18446744073709551615"));
    }
    SECTION("of another model is refused") {
        network_with_gradients<float> wider(random, 2, 4, 2), deeper(random, 3, 3, 2);
        CHECK_THROWS_AS(plan_of(wider, read(written(whole))), pare::shape_error);
        CHECK_THROWS_AS(plan_of(deeper, read(written(whole))), pare::shape_error);
    }
    SECTION("that cannot be written") {
        std::ostringstream file;
        file.setstate(std::ios::badbit);
        CHECK_THROWS_AS(pare::save(file, whole), pare::value_error);
    }
}

TEST_CASE("statistics that cannot be merged leave those that they would be added to as they are") {
    random_source random;
    CAPTURE(random);
    const auto made = [&](index_t columns, index_t outputs, index_t heads, index_t head,
                          std::size_t batch) {
        pare::sublayer_statistics s(columns, outputs);
        const matrix<float> x(10, columns, random), y(10, outputs, random);
        s.inputs.add(pare::seq, x.view());
        s.metric.add(pare::seq, y.view());
        s.queries = pare::query_statistics(heads, head);
        const auto q = random.vector<float>(5 * heads * head);
        const pare::view<const float, 3> queries(q.data(), 5, heads, head);
        s.queries.add(pare::seq, queries, queries);
        s.squares.resize(batch + 1);
        s.squares[batch] = {1, 2, 3};
        s.batches = 1;
        return s;
    };
    const auto bytes = [](const pare::sublayer_statistics& s) {
        std::ostringstream file;
        pare::save(file, {s});
        return file.str();
    };
    const auto whole = made(6, 4, 2, 3, 0);
    const auto refused = [&](const pare::sublayer_statistics& other) {
        auto to = whole;
        std::string sentence;
        try {
            to.merge(other);
        } catch (const pare::error& e) {
            sentence = e.what();
        }
        CHECK(bytes(to) == bytes(whole));
        CHECK(to.squares.size() == 1);
        return sentence;
    };
    CHECK(refused(made(5, 4, 2, 3, 3)) ==
          "pare::least_squares: merge: 5 inputs and 0 outputs into 6 and 0");
    CHECK(refused(made(6, 3, 2, 3, 3)) == "pare::gram: merge: accumulators of different shapes");
    CHECK(refused(made(6, 4, 3, 2, 3)) == "pare::query_statistics: merge: 3 heads into 2");
    CHECK(refused(made(6, 4, 2, 2, 3)) ==
          "pare::least_squares: merge: 2 inputs and 0 outputs into 3 and 0");
    CHECK(refused(made(6, 4, 2, 3, 0)) == "pare::prune: both statistics have seen batch 0");
    auto longer = made(6, 4, 2, 3, 3);
    longer.squares[0] = {1};
    CHECK(refused(longer) == "pare::prune: both statistics have seen batch 0");
    longer.squares[0].clear();
    auto both = whole;
    both.merge(longer);
    CHECK(both.batches == 2);
    CHECK(both.inputs.tokens() == 20);
    CHECK(both.squares.size() == 4);
}

TEST_CASE("classes are drawn as often as they are probable") {
    const index_t tokens = 40000, classes = 5;
    std::vector<float> logits;
    const std::vector<double> p = {0.5, 0.25, 0.15, 0.1, 0};
    for (index_t t = 0; t < tokens; ++t)
        for (const double x : p)
            logits.push_back(x > 0 ? static_cast<float>(std::log(x)) + 3 : -200);
    std::vector<double> gradients(logits.size());
    pare::draw_class_gradients(pare::view(logits.data(), tokens, classes), 7,
                               pare::view(gradients.data(), tokens, classes));
    std::vector<double> drawn(p.size(), 0.0);
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        const double share = p[i % p.size()];
        const bool is_drawn = gradients[i] < share - 0.5;
        CHECK_THAT(gradients[i], WithinAbs(share - (is_drawn ? 1 : 0), 1e-6));
        drawn[i % p.size()] += is_drawn;
    }
    for (std::size_t c = 0; c < p.size(); ++c)
        CHECK_THAT(drawn[c] / tokens, WithinAbs(p[c], 4 * std::sqrt(p[c] * (1 - p[c]) / tokens)));
}

} // namespace prune_test
