// Products of matrices in a Thrust policy's memory: on CUDA by cuBLAS.
#pragma once

#include "../../core/ops.hpp"
#include "../../core/view.hpp"
#include "../../core/workspace.hpp"
#include "thrust_system.hpp"
#ifdef __CUDACC__
#include "cuda_matrix.hpp"
#endif

#include <algorithm>

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// thrust_policy::multiply, a number a thread.
template <class Policy, class T, class Out>
void multiply_by_threads(const Policy& policy, view<const T, 3> a, view<const T, 3> b,
                         view<Out, 3> out, bool add) {
    using C = compute_t<T>;
    const index_t rows = out.extent(1), columns = out.extent(2), terms = a.extent(2);
    policy.for_each(out.size(), [=] PARE_HD(index_t at) {
        const index_t i = at / (rows * columns), r = at / columns % rows, c = at % columns;
        C sum = add ? static_cast<C>(out(i, r, c)) : C(0);
        for (index_t k = 0; k < terms; ++k)
            sum += static_cast<C>(a(i, r, k)) * static_cast<C>(b(i, k, c));
        out(i, r, c) = static_cast<Out>(sum);
    });
}

/// Whether elements of a row are neighbours.
template <class T>
bool in_rows(view<const T, 2> x) {
    return (x.extent(1) <= 1 || x.stride(1) == 1) &&
           (x.extent(0) <= 1 || x.stride(0) >= x.extent(1));
}
/// x if they are, or a copy in `memory` in which they are.
template <class Policy, class T>
view<const T, 2> to_rows(const Policy& policy, view<const T, 2> x, T* memory) {
    if (in_rows(x)) return x;
    const index_t columns = x.extent(1);
    policy.for_each(x.size(),
                    [=] PARE_HD(index_t at) { memory[at] = x(at / columns, at % columns); });
    return {memory, x.extent(0), columns};
}

/// g += alpha x' y, x and y in the policy's memory, g in the host's. Temporary memory: 12 bytes for
/// each element of g, for rows of float.
template <class Policy, class T, class Acc>
void gram_by_products(const Policy& policy, double alpha, view<const T, 2> x, view<const T, 2> y,
                      view<Acc, 2> g, bool lower, workspace& scratch) {
    using C = compute_t<T>;
    constexpr index_t chunk = 2048; // rows whose products are summed in C
    const index_t rows = x.extent(0), columns = g.extent(1), n = g.size();
    if (rows == 0 || n == 0) return;
    const auto x_memory = policy.template temporary<T>(in_rows(x) ? 0 : x.size());
    const auto y_memory = policy.template temporary<T>(in_rows(y) ? 0 : y.size());
    x = to_rows(policy, x, x_memory.data());
    y = to_rows(policy, y, y_memory.data());
    const auto part_memory = policy.template temporary<C>(n);
    const auto sums_memory = policy.template temporary<double>(n);
    C* const part = part_memory.data();
    double* const sums = sums_memory.data();
    for (index_t t = 0; t < rows; t += chunk) {
        const index_t some = std::min(chunk, rows - t);
        const T *const of_x = x.data_handle() + t * x.stride(0), *const of_y = y.data_handle() +
                                                                               t * y.stride(0);
        policy.multiply(
            view<const T, 3>(of_x, {1, x.extent(1), some}, {0, x.stride(1), x.stride(0)}),
            view<const T, 3>(of_y, {1, some, y.extent(1)}, {0, y.stride(0), y.stride(1)}),
            view<C, 3>(part, 1, g.extent(0), columns));
        policy.for_each(n, [=] PARE_HD(index_t at) {
            sums[at] = (t == 0 ? 0 : sums[at]) + static_cast<double>(part[at]);
        });
    }
    double* const here = scratch.get<double>(n);
    policy.copy_to_host(sums, n, here);
    for (index_t i = 0; i < g.extent(0); ++i)
        for (index_t j = 0; j < (lower ? i + 1 : columns); ++j)
            g(i, j) += static_cast<Acc>(alpha * here[i * columns + j]);
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
