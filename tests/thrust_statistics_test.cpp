// Statistics of rows that the host cannot read, with means of many deviations and in half types.
#include "far_memory.hpp"
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/fisher.hpp>
#include <pare/gram.hpp>
#include <pare/least_squares.hpp>

#include <algorithm>
#include <memory>

namespace thrust_statistics_test {

namespace {

using far::device;
using far::far_policy;

/// A copy there.
template <class T>
class distant {
  public:
    explicit distant(const std::vector<T>& values) {
        const far::open_device now;
        there_ = static_cast<T*>(device.allocate(values.size() * sizeof(T)));
        std::copy(values.begin(), values.end(), there_);
    }
    distant(const distant&) = delete;
    ~distant() { device.give_back(there_); }
    const T* data() const { return there_; }

  private:
    T* there_;
};

template <class T>
matrix<T> rows_with_means(index_t rows, index_t columns, double ratio, layout l,
                          random_source& random) {
    matrix<T> x(rows, columns, l);
    for (index_t t = 0; t < rows; ++t)
        for (index_t c = 0; c < columns; ++c)
            x(t, c) = T(random.uniform<pare::compute_t<T>>() +
                        static_cast<pare::compute_t<T>>(ratio * static_cast<double>(c % 3 - 1)));
    return x;
}

/// Counts what waits on CUDA: copies, and numbers of many. Kernels do not.
struct waiting_policy : far::policy {
    using far::policy::policy;
    template <class T>
    void copy_from_host(const T* from, index_t count, T* to) const {
        *waits += count > 0;
        far::policy::copy_from_host(from, count, to);
    }
    template <class T>
    void copy_to_host(const T* from, index_t count, T* to) const {
        *waits += count > 0;
        far::policy::copy_to_host(from, count, to);
    }
    template <class F>
    index_t first(index_t n, const F& f) const {
        *waits += n > 0;
        return far::policy::first(n, f);
    }
    std::shared_ptr<int> waits = std::make_shared<int>(0);
};

} // namespace

TEST_CASE("statistics wait once a call, to see whether the rows are finite") {
    random_source random;
    CAPTURE(random);
    const index_t rows = 3000, columns = 9, others = 4;
    const auto x = random.vector<float>(rows * columns), y = random.vector<float>(rows * others);
    const auto weights = random.vector<float>(rows, 0, 2);
    std::vector<float> wrong = x;
    wrong[static_cast<std::size_t>(7 * columns + 3)] = not_a_number<float>();
    const distant<float> far_x(x), far_y(y), far_weights(weights), far_wrong(wrong);
    const auto there = [](const distant<float>& memory, index_t width) {
        return pare::view<const float, 2>(memory.data(), rows, width);
    };
    const auto vx = there(far_x, columns), vy = there(far_y, others);
    const pare::view<const float, 1> w(far_weights.data(), rows);
    const waiting_policy policy(far::system{});
    const auto waits_of = [&](const auto& call) {
        *policy.waits = 0;
        call();
        return *policy.waits;
    };

    pare::least_squares plain(columns, others), weighted = plain, inputs(columns);
    const auto add = [&] { plain.add(policy, vx, vy); };
    CHECK(waits_of(add) == 3); // twice to find what rows are less
    CHECK(waits_of(add) == 1);
    CHECK(waits_of([&] { inputs.add(policy, vx); }) == 3);
    CHECK(waits_of([&] { inputs.add(policy, vx); }) == 1);
    const auto add_weighted = [&] { weighted.add(policy, vx, vy, w); };
    CHECK(waits_of(add_weighted) == 5); // and for the first weight that is not 0
    CHECK(waits_of(add_weighted) == 2); // for wrong weights, too
    CHECK(waits_of([&] { pare::gram<>(columns).add(policy, vx); }) == 1);
    CHECK(waits_of([&] { pare::gram<>(columns, others).add(policy, vx, vy); }) == 1);
    pare::fisher<> fisher(columns);
    CHECK(waits_of([&] { fisher.add(policy, vx); }) == 1);

    // Of what is wrong with both, x's comes first; and nothing is added.
    const auto bad = there(far_wrong, columns);
    pare::least_squares both(columns, columns);
    both.add(policy, vx, vx);
    const Eigen::MatrixXd before = both.covariance_xy();
    const auto sentence = [&](const auto& left, const auto& right) {
        return sentence_of<pare::value_error>([&] { both.add(policy, left, right); });
    };
    CHECK(sentence(bad, bad) ==
          "pare::least_squares: x has NaN, infinity or overflowing squares in "
          "column 3 of 3000 rows");
    CHECK(sentence(vx, bad) == "pare::least_squares: y has NaN, infinity or overflowing squares in "
                               "column 3 of 3000 rows");
    CHECK(both.tokens() == rows);
    CHECK(both.covariance_xy() == before);
    pare::gram<> cross(columns, columns);
    CHECK(sentence_of<pare::value_error>([&] { cross.add(policy, bad, bad); }) ==
          "pare::gram: x has NaN, infinity or overflowing squares in column 3 of 3000 rows");
}

TEMPLATE_TEST_CASE("statistics far away are those of the host, whatever the means", "", float,
                   double, fp16_like, bf16_like) {
    using T = TestType;
    random_source random;
    CAPTURE(random);
    // Chunks of 2,048 rows and what is left; next to no rows.
    for (const index_t rows : {1, 7, 2 * 2048 + 100}) {
        const index_t columns = 9, others = 4;
        const auto x = rows_with_means<T>(rows, columns, 100, layout::interleaved, random);
        const auto y = rows_with_means<T>(rows, others, 100, layout::rows, random);
        const auto weights = random.vector<float>(rows, 0, 2);
        const distant<T> far_x(x.data), far_y(y.data);
        const distant<float> far_weights(weights);
        const auto there = [](const matrix<T>& m, const distant<T>& memory) {
            return pare::view<const T, 2>(memory.data(), {m.height, m.width},
                                          {m.row_stride, m.column_stride});
        };
        const auto vx = there(x, far_x), vy = there(y, far_y);
        pare::least_squares plain(columns, others), weighted = plain, far_plain = plain,
                                                    far_weighted = plain;
        pare::gram<> xx(columns), xy(columns, others), far_xx = xx, far_xy = xy;
        plain.add(pare::seq, x.view(), y.view());
        weighted.add(pare::seq, x.view(), y.view(), weights);
        xx.add(pare::seq, x.view());
        xy.add(pare::seq, x.view(), y.view());
        far_plain.add(far_policy, vx, vy);
        far_weighted.add(far_policy, vx, vy, pare::view<const float, 1>(far_weights.data(), rows));
        far_xx.add(far_policy, vx);
        far_xy.add(far_policy, vx, vy);

        const double within = tolerance<pare::compute_t<T>>;
        for (const auto& [here, found] :
             {std::pair(&plain, &far_plain), {&weighted, &far_weighted}}) {
            CHECK(found->tokens() == rows);
            CHECK((here->covariance() - found->covariance()).cwiseAbs().maxCoeff() < within);
            CHECK((here->covariance_xy() - found->covariance_xy()).cwiseAbs().maxCoeff() < within);
            CHECK((here->mean_x() - found->mean_x()).cwiseAbs().maxCoeff() < within);
            CHECK((here->mean_y() - found->mean_y()).cwiseAbs().maxCoeff() < within);
            CHECK_THAT(found->variance_y(), WithinAbs(here->variance_y(), within));
        }
        // Sums of numbers 1e4 times as large as those of deviations: of few rows rounded as they are.
        const auto n = static_cast<double>(rows);
        const double of_sums = rows < 8 ? 1e4 * within : within + 1e-11;
        const auto same = [&](pare::gram<>& a, pare::gram<>& b) {
            const auto here = a.sums(), found = b.sums();
            for (index_t i = 0; i < here.extent(0); ++i)
                for (index_t j = 0; j < here.extent(1); ++j)
                    CHECK_THAT(found(i, j) / n, WithinAbs(here(i, j) / n, of_sums));
        };
        same(xx, far_xx);
        same(xy, far_xy);
    }
    CHECK(device.held == 0);
}

} // namespace thrust_statistics_test
