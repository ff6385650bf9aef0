// What an encoder on Thrust does with rows, one kernel at a time, on host systems and on memory that
// the host cannot read.
#include "catch.hpp"
#include "far_memory.hpp"
#include "support.hpp"

#include "encoder/gpu/device_rows.hpp"

#include <pare/compact.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace thrust_kernels_test {

namespace {

using encoder::device::place;

template <class F>
void on_systems(const F& f) {
    f(pare::on(thrust::cpp::par));
#ifdef _OPENMP
    f(pare::on(thrust::omp::par));
#endif
    f(far::far_policy);
}

template <class T, class Policy>
auto move(const Policy& policy, const std::vector<T>& x) {
    auto memory = std::make_unique<encoder::device::buffer<T, Policy>>();
    const auto count = static_cast<index_t>(x.size());
    policy.copy_from_host(x.data(), count, memory->get(policy, count));
    return memory;
}
template <class T, class Policy>
std::vector<T> back(const Policy& policy, const T* x, index_t count) {
    std::vector<T> all(static_cast<std::size_t>(count));
    policy.copy_to_host(x, count, all.data());
    return all;
}
template <class Policy>
encoder::device::norm<Policy> make_norm(const Policy& policy, const std::vector<float>& weight,
                                        const std::vector<float>& bias) {
    encoder::device::norm<Policy> n;
    const auto count = static_cast<index_t>(weight.size());
    policy.copy_from_host(weight.data(), count, n.weight.get(policy, count));
    policy.copy_from_host(bias.data(), count, n.bias.get(policy, count));
    return n;
}
std::size_t at(index_t i) {
    return static_cast<std::size_t>(i);
}

/// Random rows whose mean is not small beside their deviation.
template <class T>
std::vector<T> some_rows(random_source& random, index_t count) {
    std::vector<T> x;
    for (index_t i = 0; i < count; ++i) x.push_back(static_cast<T>(random.uniform<float>(1, 5)));
    return x;
}

template <class T>
void check_normalize(index_t rows, index_t columns, real within) {
    CAPTURE(rows, columns);
    random_source random;
    CAPTURE(random);
    const std::vector<T> x = some_rows<T>(random, rows * columns),
                         more = some_rows<T>(random, rows * columns);
    const auto weight = random.vector<float>(columns), bias = random.vector<float>(columns);
    constexpr float epsilon = 1e-3f;
    on_systems([&](const auto& policy) {
        const auto x_there = move(policy, x), more_there = move(policy, more);
        const auto n = make_norm(policy, weight, bias);
        encoder::device::buffer<T, std::decay_t<decltype(policy)>> sum_there;
        T* const sum = sum_there.get(policy, rows * columns);
        T* const y = x_there->data(); // in place
        encoder::device::normalize(
            policy, n, epsilon, rows, columns,
            encoder::device::sum_of_rows<T, 2>{columns, {x_there->data(), more_there->data()}}, sum,
            y);
        const auto found = back(policy, y, rows * columns),
                   sums = back(policy, sum, rows * columns);
        for (index_t t = 0; t < rows; ++t) {
            std::vector<real> s;
            real mean = 0, variance = 0;
            for (index_t j = 0; j < columns; ++j) {
                const std::size_t i = at(t * columns + j);
                s.push_back(static_cast<real>(x[i]) + static_cast<real>(more[i]));
                mean += s.back() / static_cast<real>(columns);
                CHECK(distance(sums[i], s.back()) <= within * s.back());
            }
            for (const real v : s) variance += (v - mean) * (v - mean) / static_cast<real>(columns);
            for (index_t j = 0; j < columns; ++j) {
                const real expected =
                    (s[at(j)] - mean) / std::sqrt(variance + real(epsilon)) * real(weight[at(j)]) +
                    real(bias[at(j)]);
                CHECK(distance(found[at(t * columns + j)], expected) <= 8 * within);
            }
        }
    });
}

const std::vector<index_t> widths = {1, 5, 8, 24, 384, 512, 516, 1031, 2048, 4096, 4104};

} // namespace

TEST_CASE("rows are added and normalised") {
    for (const index_t columns : widths)
        for (const index_t rows : {0, 1, 5}) check_normalize<float>(rows, columns, 1e-6L);
#if defined(__FLT16_MANT_DIG__) && !defined(__clang__)
    for (const index_t columns : widths) check_normalize<_Float16>(3, columns, 5e-4L);
#endif
}

TEST_CASE("gradients through normalised rows") {
    for (const index_t columns : widths) {
        CAPTURE(columns);
        random_source random;
        CAPTURE(random);
        constexpr index_t rows = 5;
        const auto x = some_rows<float>(random, rows * columns);
        const auto gradient = random.vector<float>(rows * columns);
        const auto weight = random.vector<float>(columns), bias = random.vector<float>(columns);
        constexpr float epsilon = 1e-3f;
        on_systems([&](const auto& policy) {
            const auto x_there = move(policy, x), g_there = move(policy, gradient);
            const auto n = make_norm(policy, weight, bias);
            encoder::device::buffer<float, std::decay_t<decltype(policy)>> moments;
            float* const found = moments.get(policy, 2 * rows);
            encoder::device::normalize_backward(policy, n, epsilon, rows, columns, x_there->data(),
                                                g_there->data(), found);
            CHECK(back(policy, g_there->data(), rows * columns) == gradient);
            encoder::device::normalize_backward(policy, n, epsilon, rows, columns, x_there->data(),
                                                g_there->data(), static_cast<float*>(nullptr));
            const auto result = back(policy, g_there->data(), rows * columns),
                       means = back(policy, found, 2 * rows);
            for (index_t t = 0; t < rows; ++t) {
                real mean = 0, variance = 0, ones = 0, along = 0;
                const auto share = 1 / static_cast<real>(columns);
                for (index_t j = 0; j < columns; ++j) mean += share * real(x[at(t * columns + j)]);
                for (index_t j = 0; j < columns; ++j) {
                    const real less = real(x[at(t * columns + j)]) - mean;
                    const real g = real(gradient[at(t * columns + j)]) * real(weight[at(j)]);
                    variance += share * less * less;
                    ones += share * g;
                    along += share * g * less;
                }
                const real inverse = 1 / std::sqrt(variance + real(epsilon));
                CHECK(distance(means[at(2 * t)], mean) <= 1e-6L * mean);
                CHECK(distance(means[at(2 * t + 1)], inverse) <= 1e-5L * inverse);
                for (index_t j = 0; j < columns; ++j) {
                    const real g = real(gradient[at(t * columns + j)]) * real(weight[at(j)]);
                    const real less = real(x[at(t * columns + j)]) - mean;
                    CHECK(distance(result[at(t * columns + j)],
                                   (g - ones - less * along * inverse * inverse) * inverse) <=
                          1e-5L * inverse);
                }
            }
        });
    }
}

TEST_CASE("elements are mapped, also behind the last 16 bytes, and columns scaled") {
    for (const index_t columns : {index_t{1}, index_t{7}, index_t{8}, index_t{19}, index_t{24}}) {
        constexpr index_t rows = 3;
        random_source random;
        const auto x = random.vector<float>(rows * columns),
                   y = random.vector<float>(rows * columns), by = random.vector<float>(columns);
        on_systems([&](const auto& policy) {
            const auto x_there = move(policy, x), y_there = move(policy, y),
                       by_there = move(policy, by);
            const float* const before = y_there->data();
            encoder::device::map(policy, rows * columns, encoder::device::plus(), y_there->data(),
                                 before, x_there->data());
            encoder::device::scale_columns(policy, rows, columns, by_there->data(),
                                           y_there->data());
            const auto found = back(policy, y_there->data(), rows * columns);
            for (index_t i = 0; i < rows * columns; ++i)
                CHECK(found[at(i)] == (y[at(i)] + x[at(i)]) * by[at(i % columns)]);
        });
    }
}

TEST_CASE("activations are as exact as the type that they are stored in") {
    using encoder::device::gelu;
    using encoder::device::gelu_tanh;
    const auto check = [](auto f, real x, real value, real slope, real within) {
        CAPTURE(x);
        const auto y = static_cast<float>(x);
        CHECK(distance(decltype(f)::value(y), value) <= within * (1 + std::abs(value)));
        CHECK(distance(decltype(f)::slope(y), slope) <= within * (1 + std::abs(slope)));
    };
    const real root = std::sqrt(real(2)), pi = std::acos(real(-1));
    for (int i = -1000; i <= 1000; ++i) {
        const real x = real(i) / 64;
        const real gate = std::erfc(-x / root) / 2, bell = std::exp(-x * x / 2) / std::sqrt(2 * pi);
        check(gelu<float>(), x, x * gate, gate + x * bell, 2e-7L);
        check(gelu<std::int16_t>(), x, x * gate, gate + x * bell, 4e-7L); // any short type
        const real u = std::sqrt(2 / pi) * (x + real(0.044715) * x * x * x), t = std::tanh(u);
        const real slope = (1 + t) / 2 + x * (1 - t * t) / 2 * std::sqrt(2 / pi) *
                                             (1 + 3 * real(0.044715) * x * x);
        check(gelu_tanh<float>(), x, x * (1 + t) / 2, slope, 1e-6L);
        check(gelu_tanh<std::int16_t>(), x, x * (1 + t) / 2, slope, 1e-6L);
    }
}

namespace {

struct packed {
    std::vector<place> offsets = {0};
    explicit packed(const std::vector<index_t>& lengths) {
        for (const index_t n : lengths) offsets.push_back(offsets.back() + static_cast<place>(n));
    }
    index_t count() const { return static_cast<index_t>(offsets.size()) - 1; }
};

const std::vector<index_t> lengths = {1, 2, 130, 7, 300, 128, 1, 33};

/// Positions that stay, offsets of them, and whether each token leaves.
struct chosen {
    std::vector<place> positions, offsets;
    std::vector<float> leaving;
};

template <class Policy>
chosen choose(const Policy& policy, const packed& p, const std::vector<float>& scores, bool by_rank,
              float threshold, std::vector<place> behind) {
    const auto offsets = move(policy, p.offsets), there = move(policy, behind);
    const auto scores_there = move(policy, scores);
    const auto tokens = static_cast<index_t>(scores.size());
    encoder::device::buffer<place, Policy> counts, positions;
    encoder::device::buffer<float, Policy> leaving;
    encoder::device::choose_tokens(policy, {p.offsets.data(), offsets->data(), p.count()},
                                   scores_there->data(), by_rank, threshold,
                                   counts.get(policy, p.count()), there->data(),
                                   positions.get(policy, tokens), leaving.get(policy, tokens));
    chosen found{
        {}, back(policy, there->data(), p.count() + 1), back(policy, leaving.data(), tokens)};
    found.positions = back(policy, positions.data(), found.offsets.back());
    return found;
}

} // namespace

TEST_CASE("tokens are chosen on Thrust as the components choose them") {
    const packed p(lengths);
    const auto tokens = static_cast<index_t>(p.offsets.back());
    random_source random;
    CAPTURE(random);
    std::vector<float> scores;
    for (index_t t = 0; t < tokens; ++t) // many are equal, and some are zeros of both signs
        scores.push_back(static_cast<float>(random.integer(-3, 9)) *
                         (random.integer(0, 1) ? 1 : -1));
    std::vector<place> index(at(tokens)), offsets(p.offsets.size());
    const auto check = [&](index_t stay, bool by_rank, float threshold) {
        const std::vector<place> expected(index.begin(), index.begin() + stay);
        on_systems([&](const auto& policy) {
            const chosen found = choose(policy, p, scores, by_rank, threshold,
                                        by_rank ? offsets : std::vector<place>(offsets.size(), -1));
            CHECK(found.positions == expected);
            CHECK(found.offsets == offsets);
            std::vector<float> leaving(at(tokens), 1.f);
            for (const place i : expected) leaving[static_cast<std::size_t>(i)] = 0;
            CHECK(found.leaving == leaving);
        });
    };
    for (const float threshold : {-100.f, -2.f, 0.f, 3.f, 100.f})
        check(pare::keep_above(pare::seq, scores, static_cast<double>(threshold), p.offsets, index,
                               offsets, pare::pins{1}),
              false, threshold);
    for (const double share : {0., 0.3, 0.5, 1.}) {
        std::vector<index_t> k;
        for (const index_t n : lengths)
            k.push_back(std::max<index_t>(1, std::llround(share * static_cast<double>(n))));
        check(pare::keep_top_k(pare::seq, scores, k, p.offsets, index, offsets, pare::pins{1}),
              true, 0);
    }
}

TEST_CASE("tokens that have NaN for a score leave or stay, and nothing else happens") {
    const packed p({40, 5});
    std::vector<float> scores(45, 1.f);
    for (std::size_t i = 0; i < scores.size(); i += 3) scores[i] = not_a_number<float>();
    on_systems([&](const auto& policy) {
        const chosen above = choose(policy, p, scores, false, 0.5f, {-1, -1, -1});
        CHECK(above.offsets.back() == static_cast<place>(above.positions.size()));
        const chosen best = choose(policy, p, scores, true, 0, {0, 20, 22});
        for (const chosen* c : {&above, &best})
            for (std::size_t i = 0; i < c->positions.size(); ++i) {
                CHECK(c->positions[i] < 45);
                CHECK((i == 0 || c->positions[i] > c->positions[i - 1]));
            }
    });
}

TEST_CASE("sums over sequences do not read what has no weight") {
    const packed p({1, 2, 130, 7, 1100, 33});
    const auto tokens = static_cast<index_t>(p.offsets.back());
    for (const index_t columns : {1, 5, 8, 136})
        for (const index_t more : {0, 3, 12}) {
            CAPTURE(columns, more);
            random_source random;
            CAPTURE(random);
            const index_t all_columns = columns + more;
            auto x = random.vector<float>(tokens * columns),
                 y = random.vector<float>(tokens * more), weights = random.vector<float>(tokens);
            for (index_t t = 0; t < tokens; t += 4) {
                weights[at(t)] = 0;
                for (index_t j = 0; j < columns; ++j)
                    x[at(t * columns + j)] = not_a_number<float>();
                for (index_t j = 0; j < more; ++j) y[at(t * more + j)] = not_a_number<float>();
            }
            on_systems([&](const auto& policy) {
                const auto offsets = move(policy, p.offsets);
                const auto x_there = move(policy, x), y_there = move(policy, y),
                           weights_there = move(policy, weights);
                using memory = encoder::device::buffer<float, std::decay_t<decltype(policy)>>;
                memory of_sums, of_many;
                float *const sums = of_sums.get(policy, p.count() * all_columns),
                             *const many = of_many.get(policy, p.count());
                encoder::device::weighted_sums(
                    policy, {p.offsets.data(), offsets->data(), p.count()},
                    encoder::device::token_rows<float>{x_there->data(), columns},
                    {y_there->data(), more}, weights_there->data(),
                    [=](index_t s, index_t j, float sum, float weight) {
                        sums[s * all_columns + j] = sum;
                        if (j == all_columns - 1) many[s] = weight;
                    });
                const auto found = back(policy, sums, p.count() * all_columns),
                           counts = back(policy, many, p.count());
                for (index_t s = 0; s < p.count(); ++s)
                    for (index_t j = 0; j <= all_columns; ++j) {
                        real sum = 0, all = 0;
                        for (index_t t = p.offsets[at(s)]; t < p.offsets[at(s) + 1]; ++t) {
                            if (t % 4 == 0) continue;
                            const float value = j < columns       ? x[at(t * columns + j)]
                                                : j < all_columns ? y[at(t * more + j - columns)]
                                                                  : 1.f;
                            const real term = real(weights[at(t)]) * real(value);
                            sum += term;
                            all += std::abs(term);
                        }
                        const float mine =
                            j < all_columns ? found[at(s * all_columns + j)] : counts[at(s)];
                        CHECK(distance(mine, sum) <= 1e-5L * all);
                    }
            });
        }
}

TEST_CASE("rows of two arrays are gathered") {
    for (const index_t columns : {index_t{1}, index_t{8}, index_t{19}, index_t{700}}) {
        random_source random;
        const auto x = random.vector<float>(40 * columns), y = random.vector<float>(40 * 5);
        const std::vector<place> index = {0, 3, 4, 17, 38, 39}, count = {5};
        on_systems([&](const auto& policy) {
            const auto x_there = move(policy, x), y_there = move(policy, y);
            const auto index_there = move(policy, index), count_there = move(policy, count);
            const auto x_to = move(policy, std::vector<float>(at(40 * columns), 7.f)),
                       y_to = move(policy, std::vector<float>(40 * 5, 7.f));
            encoder::device::gather_rows<float>(
                policy, 40, index_there->data(), count_there->data(),
                {x_there->data(), x_to->data(), columns}, {y_there->data(), y_to->data(), 5});
            const auto check = [&](const std::vector<float>& from, const float* to, index_t width) {
                const auto found = back(policy, to, 40 * width);
                for (index_t i = 0; i < 40; ++i)
                    for (index_t j = 0; j < width; ++j)
                        CHECK(found[at(i * width + j)] ==
                              (i < 5 ? from[at(index[at(i)] * width + j)] : 7.f));
            };
            check(x, x_to->data(), columns);
            check(y, y_to->data(), 5);
        });
    }
}

} // namespace thrust_kernels_test
