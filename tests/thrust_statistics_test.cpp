// Statistics of rows that the host cannot read, with means of many deviations and in half types.
#include "far_memory.hpp"
#include "half_types.hpp"
#include "policies.hpp"
#include "support.hpp"
#include <pare/least_squares.hpp>

#include <algorithm>

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

} // namespace

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
