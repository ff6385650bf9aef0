// Components on memory that the host cannot read.
#include "far_memory.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/attention.hpp>
#include <pare/compact.hpp>
#include <pare/fisher.hpp>
#include <pare/importance.hpp>
#include <pare/least_squares.hpp>
#include <pare/shrink.hpp>
#include <pare/soft_mask.hpp>

#include <algorithm>

namespace {

using far::device;
using far::far_policy;
using far::open_device;

/// An array there, and one here for the same call by pare::seq.
template <class T>
class both {
  public:
    explicit both(std::vector<T> values) : here_(std::move(values)) {
        const open_device now;
        there_ = static_cast<T*>(device.allocate((here_.size() + 1) * sizeof(T)));
        std::copy(here_.begin(), here_.end(), there_);
    }
    both(const both&) = delete;
    ~both() { device.give_back(there_); }

    T* data(const pare::sequential<>&) { return here_.data(); }
    template <class Policy>
    T* data(const Policy&) {
        return there_;
    }
    template <class Policy>
    pare::view<T, 1> view(const Policy& policy) {
        return {data(policy), static_cast<index_t>(here_.size())};
    }
    template <class Policy>
    pare::view<T, 2> view(const Policy& policy, index_t rows) {
        return {data(policy), rows, static_cast<index_t>(here_.size()) / rows};
    }
    bool same(double within = 0) const {
        const open_device now;
        for (std::size_t i = 0; i < here_.size(); ++i)
            if (!(std::abs(static_cast<double>(here_[i]) - static_cast<double>(there_[i])) <=
                  within))
                return false;
        return true;
    }

  private:
    std::vector<T> here_;
    T* there_;
};

/// f(policy) for pare::seq and for the system far away, whose results are the same.
template <class F>
void on_both(const F& f) {
    if constexpr (std::is_void_v<decltype(f(pare::seq))>) {
        f(pare::seq);
        f(far_policy);
    } else {
        const double here = static_cast<double>(f(pare::seq));
        CHECK_THAT(static_cast<double>(f(far_policy)), WithinAbs(here, 1e-9));
    }
}

const index_t tokens = 90, columns = 12;

/// Sequences of 40, 0, 1 and 49 tokens.
std::vector<int> four_sequences() {
    return {0, 40, 40, 41, 90};
}

} // namespace

TEST_CASE("components leave memory to the policy") {
    random_source random;
    CAPTURE(random);
    both<double> scores(random.vector<double>(tokens)), mask(random.vector<double>(tokens, 0, 1)),
        gradient(random.vector<double>(tokens)), out(std::vector<double>(90, 7.0)),
        rows(random.vector<double>(tokens * columns)),
        other(random.vector<double>(tokens * columns));
    both<int> offsets(four_sequences()), new_offsets(std::vector<int>(5, 7)),
        index(std::vector<int>(90, 7)), counts({3, 1, 4, 60});

    SECTION("soft masks") {
        on_both([&](const auto& p) {
            pare::soft_mask(p, scores.view(p), 0.1, 0.3, out.view(p));
            pare::scale_rows(p, mask.view(p), rows.view(p, tokens), other.view(p, tokens));
        });
        CHECK(out.same(1e-15));
        CHECK(other.same(1e-15));
        on_both([&](const auto& p) {
            pare::scale_rows_backward(p, mask.view(p), rows.view(p, tokens), other.view(p, tokens),
                                      other.view(p, tokens), out.view(p));
            return pare::soft_mask_backward(p, mask.view(p), gradient.view(p), 0.3, out.view(p));
        });
        CHECK(out.same(1e-13));
        CHECK(other.same(1e-13));
        on_both([&](const auto& p) {
            return pare::mask_penalty(p, mask.view(p), offsets.view(p), 0.4, gradient.view(p));
        });
        CHECK(gradient.same(1e-15));
    }
    SECTION("tokens are kept and their rows move") {
        on_both([&](const auto& p) {
            const index_t kept = pare::keep_above(p, scores.view(p), 0.2, offsets.view(p),
                                                  index.view(p), new_offsets.view(p));
            const pare::view<const int, 1> some(index.data(p), kept);
            pare::gather_rows(p, some, rows.view(p, tokens), scores.view(p));
            pare::restore(p, some,
                          pare::from_to(pare::view<const double, 2>(rows.data(p), kept, columns),
                                        other.view(p, tokens)));
            return kept;
        });
        CHECK((index.same() && new_offsets.same() && rows.same() && scores.same() && other.same()));
        on_both([&](const auto& p) {
            return pare::keep_top_k(p, gradient.view(p), counts.view(p), offsets.view(p),
                                    index.view(p), offsets.view(p), pare::pins{1});
        });
        CHECK((index.same() && offsets.same()));
        on_both([&](const auto& p) {
            return 100 * pare::keep_above(p, mask.view(p), 0.5, index.view(p)) +
                   pare::keep_top_k(p, mask.view(p), 7, index.view(p));
        });
        CHECK(index.same());
    }
    SECTION("importance") {
        const index_t heads = 3, n = 15;
        both<double> p4(random.vector<double>(2 * heads * n * n, 0, 1));
        both<int> lengths({15, 9});
        for (const bool causal : {false, true}) {
            pare::importance_options options;
            options.mask.causal = causal;
            on_both([&](const auto& p) {
                const pare::view<double, 4> four(p4.data(p), 2, heads, n, n);
                const pare::view<double, 2> result(out.data(p), 2, n);
                pare::importance(p, four, lengths.view(p), result, options);
                pare::importance_backward(p, result, lengths.view(p), four, options);
            });
            CHECK(out.same(1e-12));
            CHECK(p4.same(1e-10));
            both<int> packed({0, 4, 4, 15, 16});
            on_both([&](const auto& p) {
                const pare::view<const double, 1> some(p4.data(p), heads * (16 + 121 + 1));
                pare::importance_packed(p, some, heads, packed.view(p),
                                        pare::view<double, 1>(out.data(p), index_t{16}), options);
            });
            CHECK(out.same(1e-12));
        }
    }
    SECTION("attention") {
        const index_t heads = 2, size = 5;
        both<double> qkv(random.vector<double>(3 * tokens * heads * size)),
            context(std::vector<double>(tokens * heads * size, 7.0));
        for (const bool causal : {false, true})
            on_both([&](const auto& p) {
                pare::attention_options<double> options;
                options.mask.causal = causal;
                options.key_bias = mask.view(p);
                options.query_weights = gradient.view(p);
                const auto part = [&](index_t which) {
                    return pare::view<const double, 3>(qkv.data(p) + which * heads * size,
                                                       {tokens, heads, size},
                                                       {3 * heads * size, size, 1});
                };
                pare::workspace scratch;
                pare::attention(p, part(0), part(1), part(2), offsets.view(p),
                                pare::view<double, 3>(context.data(p), tokens, heads, size),
                                out.view(p), options, scratch);
            });
        CHECK(context.same(1e-13));
        CHECK(out.same(1e-12));
    }
    SECTION("statistics") {
        const auto numbers_of = [](auto view) {
            return std::vector<double>(view.data_handle(), view.data_handle() + view.size());
        };
        // Rows of many chunks, and columns that stand apart.
        const index_t many = 2 * 2048 + 7;
        both<double> tall(random.vector<double>(many * 3)), y(random.vector<double>(2 * many * 2));
        both<double> weights(random.vector<double>(many, 0, 2));
        std::vector<std::vector<double>> found;
        on_both([&](const auto& p) {
            pare::fisher<> block(columns, pare::fisher_kind::block);
            block.add(p, rows.view(p, tokens));
            pare::least_squares squares(3, 2), weighted(3, 2);
            const pare::view<const double, 2> outputs(y.data(p), {many, 2}, {4, 2});
            squares.add(p, tall.view(p, many), outputs);
            weighted.add(p, tall.view(p, many), outputs, weights.view(p));
            found.push_back(block.diagonal());
            found.push_back(numbers_of(block.block_sums()));
            for (const auto* s : {&squares, &weighted})
                for (const auto& moment : {s->covariance(), s->moment_xy()})
                    found.emplace_back(moment.data(), moment.data() + moment.size());
            found.push_back({weighted.mean_x()(2), weighted.mean_y()(1), weighted.mean_square_y()});
        });
        REQUIRE(found.size() == 14);
        for (std::size_t i = 0; i < 7; ++i)
            for (std::size_t j = 0; j < found[i].size(); ++j) {
                CAPTURE(i, j);
                CHECK_THAT(found[7 + i][j], WithinAbs(found[i][j], 1e-11));
            }
    }
    SECTION("sums a sample and smaller weights") {
        on_both([&](const auto& p) {
            pare::mask_gradients(p, rows.view(p, tokens), other.view(p, tokens), offsets.view(p), 4,
                                 pare::view<double, 2>(out.data(p), 4, columns / 4));
            pare::sample_sums(p, rows.view(p, tokens), offsets.view(p),
                              pare::view<double, 2>(out.data(p) + columns, 4, columns));
        });
        CHECK(out.same(1e-12));
        both<int> positions({0, 3, 4, 11});
        on_both([&](const auto& p) {
            pare::keep_columns(p, rows.view(p, tokens), positions.view(p),
                               pare::view<double, 2>(other.data(p), tokens, index_t{4}));
            pare::keep_rows(p, rows.view(p, tokens), positions.view(p),
                            pare::view<double, 2>(rows.data(p), index_t{4}, columns));
        });
        CHECK((other.same() && rows.same()));
    }
}

TEST_CASE("calls that wait for a number check what they read far away") {
    both<float> scores({1, 2, not_a_number<float>(), 4});
    both<int> offsets({0, 1, 4}), wrong({0, 3, 2, 4}), short_of({0, 1, 3}), counts({1, 0}),
        index(std::vector<int>(4));
    const auto sentence = [&](both<int>& from, auto&& call) {
        return sentence_of<pare::error>([&] { call(from.view(far_policy)); });
    };
    const auto above = [&](auto o) {
        pare::keep_above(far_policy, scores.view(far_policy), 0, o, index.view(far_policy), o);
    };
    CHECK(sentence(offsets, above) == "pare::keep_above: score 1 of sequence 1 is NaN");
    CHECK(sentence(wrong, above) == "pare::keep_above: offset 2 is 2 after 3");
    CHECK(sentence(short_of, above) ==
          "pare::keep_above: offsets go from 0 to 3, there are 4 tokens");
    both<float> good({1, 2, 3, 4});
    CHECK(sentence(offsets, [&](auto o) {
              pare::keep_top_k(far_policy, good.view(far_policy), counts.view(far_policy), o,
                               index.view(far_policy), o);
          }) == "pare::keep_top_k: k is 0 for sequence 1 of 3 tokens");
    pare::fisher<> diagonal(2);
    CHECK_THAT(sentence_of<pare::value_error>(
                   [&] { diagonal.add(far_policy, scores.view(far_policy, 2)); }),
               ContainsSubstring("the gradients of unit 0 in samples 0 to 1 have NaN"));
    both<double> rows({1, 2, 3, 4}), weights({1, -1});
    pare::least_squares squares(2, 2);
    CHECK(sentence_of<pare::value_error>([&] {
              squares.add(far_policy, rows.view(far_policy, 2), rows.view(far_policy, 2),
                          weights.view(far_policy));
          }) == "pare::least_squares: the weight of token 1 is -1");
    CHECK(sentence(wrong, [&](auto o) {
              pare::mask_penalty(far_policy, good.view(far_policy), o, 1, good.view(far_policy));
          }) == "pare::mask_penalty: offset 2 is 2 after 3");
}

TEST_CASE("where temporary memory ends, calls throw and give back what they had") {
    random_source random;
    both<double> scores(random.vector<double>(tokens)), gradient(random.vector<double>(tokens)),
        rows(random.vector<double>(tokens * columns));
    both<int> offsets(four_sequences()), new_offsets(std::vector<int>(5)),
        index(std::vector<int>(90));
    const long held = device.held;
    const auto call = [&] {
        const auto& p = far_policy;
        pare::mask_penalty(p, scores.view(p), offsets.view(p), 1, gradient.view(p));
        pare::keep_top_k(p, scores.view(p), 5, offsets.view(p), index.view(p), new_offsets.view(p));
        const index_t kept = pare::keep_above(p, scores.view(p), 0, index.view(p));
        pare::gather_rows(p, pare::view<const int, 1>(index.data(p), kept), rows.view(p, tokens));
        pare::fisher<> block(columns, pare::fisher_kind::block);
        block.add(p, rows.view(p, tokens));
    };
    int failures = 0;
    for (long allowed = 0;; ++allowed) {
        device.allowed = allowed;
        bool done = true;
        try {
            call();
        } catch (const std::bad_alloc&) {
            done = false;
            ++failures;
        }
        device.allowed = -1;
        REQUIRE(device.held == held);
        if (done) break;
    }
    CHECK(failures > 5);
}
