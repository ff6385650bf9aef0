// The ridge solve in double: limited by multiply-adds. Peers: Eigen's LLT, and LAPACK's potrf +
// potrs where one was found.
#include "race.hpp"

#include <pare/ridge.hpp>

#include <Eigen/Cholesky>

#ifdef PARE_BENCHMARK_LAPACK
extern "C" {
void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* info);
void dpotrs_(const char* uplo, const int* n, const int* nrhs, const double* a, const int* lda,
             double* b, const int* ldb, int* info);
__attribute__((weak)) void openblas_set_num_threads(int threads); // where LAPACK is OpenBLAS
}
#endif

namespace {

using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct problem {
    matrix g, right;
    explicit problem(Eigen::Index n) {
        const matrix x =
            Eigen::Map<const matrix>(bench::random_normal<double>(n * n / 2).data(), n / 2, n);
        g = x.transpose() * x;
        g.diagonal().array() += 1e-2 * g.diagonal().mean();
        right = Eigen::Map<const matrix>(bench::random_normal<double>(n * 64).data(), n, 64);
    }
};

template <class Peer>
void solve(benchmark::State& state, const char* name, const Peer& peer) {
    using namespace bench;
    const int threads = static_cast<int>(state.range(0));
    const index_t n = state.range(1);
    const problem p(n);
    matrix g, right;
    Eigen::setNbThreads(threads);
    const auto cubed = static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
    const double flops = cubed / 3 + 2 * 64 * static_cast<double>(n) * static_cast<double>(n) * 2;
    race(state, name)
        .work(flops, 8 * static_cast<double>(n * n / 2 + 2 * 64 * n))
        .run(
            [&] {
                g = p.g;
                right = p.right;
                pare::ridge_solve(pare::simd.with(bench::threads{threads}), g, 0.0, right);
            },
            [&] { return flops / peak_flops<double>(threads); }, [&] { peer(p, g, right); });
}

void ridge_solve_eigen(benchmark::State& state) {
    solve(state, "eigen", [](const problem& p, matrix& g, matrix& right) {
        g = p.g;
        right = p.right;
        Eigen::LLT<Eigen::Ref<matrix>> factor(g);
        factor.solveInPlace(right);
    });
}
BENCHMARK(ridge_solve_eigen)
    ->ArgNames({"threads", "n"})
    ->Args({1, 1536})
    ->Args({2, 1536})
    ->Args({1, 3072})
    ->Args({2, 3072})
    ->UseManualTime()
    ->MinTime(2)
    ->Unit(benchmark::kMillisecond);

#ifdef PARE_BENCHMARK_LAPACK
void ridge_solve_lapack(benchmark::State& state) {
    if (openblas_set_num_threads) openblas_set_num_threads(static_cast<int>(state.range(0)));
    solve(state, "lapack", [](const problem& p, matrix& g, matrix& right) {
        g = p.g;
        right = p.right;
        matrix columns = right.transpose(); // LAPACK's right-hand sides are stored by columns
        const int n = static_cast<int>(g.rows()), m = static_cast<int>(right.cols());
        int info = 0;
        dpotrf_("U", &n, g.data(), &n, &info);
        dpotrs_("U", &n, &m, g.data(), &n, columns.data(), &n, &info);
        right = columns.transpose();
    });
}
BENCHMARK(ridge_solve_lapack)
    ->ArgNames({"threads", "n"})
    ->Args({1, 1536})
    ->Args({2, 1536})
    ->Args({1, 3072})
    ->Args({2, 3072})
    ->UseManualTime()
    ->MinTime(2)
    ->Unit(benchmark::kMillisecond);
#endif

} // namespace
