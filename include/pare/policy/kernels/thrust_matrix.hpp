// Products of matrices in a Thrust policy's memory: on CUDA by cuBLAS.
#pragma once

#include "../../core/ops.hpp"
#include "../../core/view.hpp"
#include "thrust_system.hpp"
#ifdef __CUDACC__
#include "cuda_matrix.hpp"
#endif

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

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
