// Dense layers in a Thrust policy's memory: on CUDA by cuBLASLt.
#pragma once

#include "thrust_matrix.hpp"
#ifdef __CUDACC__
#include "cuda_affine.hpp"
#endif

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// thrust_policy::affine, a number a thread.
template <class Policy, class T>
void affine_by_threads(const Policy& policy, view<const T, 2> x, view<const T, 2> weight,
                       view<const T, 1> bias, view<T, 2> out) {
    using C = compute_t<T>;
    const index_t columns = out.extent(1), terms = x.extent(1);
    policy.for_each(out.size(), [=] PARE_HD(index_t at) {
        const index_t r = at / columns, c = at % columns;
        C sum = 0;
        for (index_t k = 0; k < terms; ++k)
            sum += static_cast<C>(x(r, k)) * static_cast<C>(weight(c, k));
        out(r, c) = static_cast<T>(sum + static_cast<C>(bias(c)));
    });
}
/// By a product whose sums are rounded to T before the bias is added, for at least one input.
template <class Policy, class T>
void affine_by_product(const Policy& policy, view<const T, 2> x, view<const T, 2> weight,
                       view<const T, 1> bias, view<T, 2> out) {
    using C = compute_t<T>;
    const index_t rows = x.extent(0), terms = x.extent(1), columns = out.extent(1);
    policy.multiply(
        view<const T, 3>(x.data_handle(), {1, rows, terms}, {0, x.stride(0), 1}),
        view<const T, 3>(weight.data_handle(), {1, terms, columns}, {0, 1, weight.stride(0)}),
        view<T, 3>(out.data_handle(), {1, rows, columns}, {0, out.stride(0), 1}));
    policy.for_each(out.size(), [=] PARE_HD(index_t at) {
        T& y = out(at / columns, at % columns);
        y = static_cast<T>(static_cast<C>(y) + static_cast<C>(bias(at % columns)));
    });
}

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
