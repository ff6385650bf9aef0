// Dense layers by the Thrust policy, and copies that nobody waits for, on host systems and on memory
// that the host cannot read; and by nvcc on a device, whose layers are cuBLASLt's.
#include "catch.hpp"
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include "far_memory.hpp"
#endif
#include "support.hpp"

#include <pare/policy/thrust.hpp>

#include <cmath>
#include <vector>

namespace thrust_affine_test {

namespace {

template <class F>
void on_systems(const F& f) {
#ifdef __CUDACC__
    f(pare::on(thrust::cuda::par));
#else
    f(pare::on(thrust::cpp::par));
#ifdef _OPENMP
    f(pare::on(thrust::omp::par));
#endif
    f(far::far_policy);
#endif
}

template <class T>
void check_affine(index_t rows, index_t inputs, index_t outputs, double within) {
    CAPTURE(rows, inputs, outputs);
    random_source random;
    // Half types begin at any even address, rows of an even number where kernels like them best.
    const index_t x_stride = inputs + rows % 4, w_stride = inputs + outputs % 8,
                  y_stride = outputs + rows % 3, odd = rows % 2;
    const auto numbers = [&](index_t n) {
        std::vector<T> all(static_cast<std::size_t>(n));
        for (T& v : all) v = static_cast<T>(random.uniform(-1, 1));
        return all;
    };
    const std::vector<T> x = numbers(odd + rows * x_stride), w = numbers(odd + outputs * w_stride),
                         bias = numbers(odd + outputs);
    const auto at = [](const std::vector<T>& v, index_t i) {
        return static_cast<long double>(
            static_cast<pare::compute_t<T>>(v[static_cast<std::size_t>(i)]));
    };
    on_systems([&](const auto& policy) {
        const auto moved = [&](const std::vector<T>& v, const auto& memory) {
            policy.copy_from_host(v.data(), static_cast<index_t>(v.size()), memory.data());
        };
        const auto x_there = policy.template temporary<T>(odd + rows * x_stride);
        const auto w_there = policy.template temporary<T>(odd + outputs * w_stride);
        const auto bias_there = policy.template temporary<T>(odd + outputs);
        const auto y_there = policy.template temporary<T>(odd + rows * y_stride);
        moved(x, x_there);
        moved(w, w_there);
        moved(bias, bias_there);
        std::vector<T> y(static_cast<std::size_t>(odd + rows * y_stride), static_cast<T>(7.f));
        moved(y, y_there);
        policy.affine(
            pare::view<const T, 2>(x_there.data() + odd, {rows, inputs}, {x_stride, 1}),
            pare::view<const T, 2>(w_there.data() + odd, {outputs, inputs}, {w_stride, 1}),
            pare::view<const T, 1>(bias_there.data() + odd, outputs),
            pare::view<T, 2>(y_there.data() + odd, {rows, outputs}, {y_stride, 1}));
        policy.copy_to_host(y_there.data(), odd + rows * y_stride, y.data());
        const auto is_untouched = [&](index_t i) { return at(y, i) == 7; };
        if (odd > 0) CHECK(is_untouched(0));
        for (index_t r = 0; r < rows; ++r) {
            for (index_t c = 0; c < outputs; ++c) {
                long double sum = at(bias, odd + c), all = std::abs(sum);
                for (index_t k = 0; k < inputs; ++k) {
                    const long double term =
                        at(x, odd + r * x_stride + k) * at(w, odd + c * w_stride + k);
                    sum += term;
                    all += std::abs(term);
                }
                CHECK(std::abs(static_cast<double>(at(y, odd + r * y_stride + c) - sum)) <=
                      within * static_cast<double>(all));
            }
            for (index_t c = outputs; c < y_stride; ++c) // between the rows
                CHECK(is_untouched(odd + r * y_stride + c));
        }
    });
}

} // namespace

TEST_CASE("a dense layer is its product and its bias") {
    for (const index_t rows : {0, 1, 5, 12, 33})
        for (const index_t inputs : {0, 1, 8, 37, 64})
            for (const index_t outputs : {0, 1, 8, 19}) {
                check_affine<float>(rows, inputs, outputs, 1e-5);
                check_affine<double>(rows, inputs, outputs, 3e-14);
#ifdef __CUDACC__
                check_affine<__half>(rows, inputs, outputs, 1e-3);
                check_affine<__nv_bfloat16>(rows, inputs, outputs, 8e-3);
#elif defined(__FLT16_MANT_DIG__) && !defined(__clang__)
                check_affine<_Float16>(rows, inputs, outputs, 1e-3);
#endif
            }
}

TEST_CASE("copies by way of staging memory") {
    on_systems([](const auto& policy) {
        constexpr index_t n = 1000;
        const auto there = policy.template temporary<int>(n);
        const auto out = policy.template staging<int>(n), in = policy.template staging<int>(n),
                   none = policy.template staging<int>(0);
        none.send(0, 0, there.data());
        none.wait();
        for (int i = 0; i < n; ++i) out.data()[i] = i;
        out.send(0, n, there.data());
        out.wait();
        in.fetch(there.data() + 500, 500, 0);
        in.fetch(there.data(), 500, 500);
        in.wait();
        for (int i = 0; i < n; ++i) REQUIRE(in.data()[i] == (i + 500) % n);
    });
}

} // namespace thrust_affine_test
