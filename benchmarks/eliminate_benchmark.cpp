// Elimination of all filters in double: limited by multiply-adds, if it were not for the choice
// after each removal. Peer: the same in Eigen, every removal applied at once.
#include "race.hpp"

#include <pare/eliminate.hpp>

#include <Eigen/Cholesky>

#include <limits>

namespace {

using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct problem {
    matrix covariance, metric, weight;
    problem(Eigen::Index filters, Eigen::Index hidden) : weight(random(hidden, filters, 3)) {
        const matrix x = random(2 * filters, filters, 1), g = random(2 * hidden, hidden, 2);
        covariance = x.transpose() * x / static_cast<double>(x.rows());
        metric = g.transpose() * g / static_cast<double>(g.rows());
    }
    static matrix random(Eigen::Index rows, Eigen::Index columns, std::uint64_t seed) {
        return Eigen::Map<const matrix>(bench::random_normal<double>(rows * columns, seed).data(),
                                        rows, columns);
    }
};

std::vector<Eigen::Index> one_by_one(const problem& p) {
    const Eigen::Index n = p.covariance.rows();
    matrix h = p.covariance;
    h.diagonal().array() += 1e-2 * h.diagonal().mean();
    h = Eigen::LLT<matrix>(h).solve(matrix::Identity(n, n));
    matrix v = Eigen::LLT<matrix>(p.metric).matrixU() * p.weight;
    std::vector<Eigen::Index> order;
    Eigen::VectorXd cost(n);
    Eigen::ArrayXd gone = Eigen::ArrayXd::Zero(n);
    for (Eigen::Index k = 0; k < n; ++k) {
        Eigen::Index j;
        cost =
            v.colwise().squaredNorm().transpose().array() / h.diagonal().array().max(1e-30) + gone;
        cost.minCoeff(&j);
        const Eigen::VectorXd column = h.col(j);
        v.noalias() -= v.col(j).eval() / column(j) * column.transpose();
        h.noalias() -= column / column(j) * column.transpose();
        gone(j) = std::numeric_limits<double>::infinity();
        order.push_back(j);
    }
    return order;
}

void eliminate(benchmark::State& state) {
    using namespace bench;
    const int threads = static_cast<int>(state.range(0));
    const index_t filters = state.range(1), hidden = filters / 4;
    const problem p(filters, hidden);
    Eigen::setNbThreads(threads);
    const auto n = static_cast<double>(filters), d = static_cast<double>(hidden);
    const double flops = 2 * (n * n * n * 2 / 3 + n * n * d);
    race(state, "eigen")
        .work(flops, 8 * (n * n / 2 + n * d))
        .run(
            [&] {
                benchmark::DoNotOptimize(pare::eliminate(pare::simd.with(bench::threads{threads}),
                                                         p.covariance, p.metric, p.weight, 1));
            },
            [&] { return flops / peak_flops<double>(threads); },
            [&] { benchmark::DoNotOptimize(one_by_one(p)); });
}
BENCHMARK(eliminate)
    ->ArgNames({"threads", "filters"})
    ->Args({1, 1536})
    ->Args({2, 1536})
    ->UseManualTime()
    ->Iterations(3)
    ->Unit(benchmark::kMillisecond);

} // namespace
