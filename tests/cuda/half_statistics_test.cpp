// Statistics on a device of rows of float and its half types, with means of a hundred deviations.
#include "../policies.hpp"
#include "../support.hpp"
#include <pare/least_squares.hpp>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <Eigen/Cholesky>
#include <thrust/device_vector.h>

namespace {

/// Rows there, and here as they are there.
template <class T>
struct rows_of {
    matrix<float> here;
    thrust::device_vector<T> there;

    rows_of(index_t rows, index_t columns, random_source& random) : here(rows, columns) {
        std::vector<T> values;
        for (index_t t = 0; t < rows; ++t) {
            const float common = random.uniform<float>();
            for (index_t c = 0; c < columns; ++c) {
                const T x(random.uniform<float>() + common + (c % 2 ? 80.f : -80.f));
                values.push_back(x);
                here(t, c) = static_cast<float>(x);
            }
        }
        there = thrust::device_vector<T>(values.begin(), values.end());
    }
    pare::view<const T, 2> view() const {
        return {thrust::raw_pointer_cast(there.data()), here.height, here.width};
    }
};

} // namespace

TEMPLATE_TEST_CASE("covariances and Gram matrices on a device", "", float, __half, __nv_bfloat16) {
    random_source random;
    CAPTURE(random);
    const index_t rows = 20000, columns = 200, outputs = 8;
    const auto policy = pare::on(thrust::cuda::par);
    const rows_of<TestType> x(rows, columns, random), y(rows, outputs, random);
    const auto weights = random.vector<float>(rows, 0, 2);
    const thrust::device_vector<float> device_weights(weights.begin(), weights.end());
    const pare::view<const float, 1> w(thrust::raw_pointer_cast(device_weights.data()), rows);
    pare::least_squares plain(columns, outputs), weighted = plain, plain_here = plain,
                                                 weighted_here = plain;
    plain.add(policy, x.view(), y.view());
    weighted.add(policy, x.view(), y.view(), w);
    plain_here.add(pare::seq, x.here.view(), y.here.view());
    weighted_here.add(pare::seq, x.here.view(), y.here.view(), weights);
    for (const auto& [found, expected] :
         {std::pair(&plain, &plain_here), {&weighted, &weighted_here}}) {
        const Eigen::MatrixXd c = found->covariance();
        CHECK((c - expected->covariance()).cwiseAbs().maxCoeff() < 1e-5);
        CHECK((found->covariance_xy() - expected->covariance_xy()).cwiseAbs().maxCoeff() < 1e-5);
        CHECK((found->mean_x() - expected->mean_x()).cwiseAbs().maxCoeff() < 1e-5);
        CHECK(Eigen::LLT<Eigen::MatrixXd>(c).info() == Eigen::Success);
    }
    pare::gram<> gram(columns), gram_here(columns);
    gram.add(policy, x.view());
    gram_here.add(pare::seq, x.here.view());
    const auto a = gram.sums(), b = gram_here.sums();
    double off = 0; // of numbers near 6400
    for (index_t i = 0; i < columns; ++i)
        for (index_t j = 0; j < columns; ++j)
            off = std::max(off, std::abs(a(i, j) - b(i, j)) / static_cast<double>(rows));
    CHECK(off < 1e-5);
}
