// Sums over rows.
#pragma once

#include "registers.hpp"

namespace pare {
inline namespace PARE_ISA {
namespace detail {

/// sums[c] += op(x[t, c], ...) over `rows` rows and `columns` contiguous columns.
template <class Op, class T, class... Strided>
PARE_INLINE void add_rows(Op op, index_t rows, index_t columns, T* sums, Strided... x) {
    using B = batch<T>;
    index_t t = 0;
    for (; t + 8 <= rows; t += 8) {
        index_t c = 0;
        for (; c + lanes<T> <= columns; c += lanes<T>) {
            B even = B::load_unaligned(sums + c), odd(T(0));
            PARE_UNROLL
            for (index_t u = 0; u < 8; u += 2) {
                even += op(B::load_unaligned(x.row(t + u) + c)...);
                odd += op(B::load_unaligned(x.row(t + u + 1) + c)...);
            }
            (even + odd).store_unaligned(sums + c);
        }
        for (; c < columns; ++c)
            for (index_t u = 0; u < 8; ++u) sums[c] += op(x.row(t + u)[c]...);
    }
    for (; t < rows; ++t) {
        index_t c = 0;
        for (; c + lanes<T> <= columns; c += lanes<T>)
            (B::load_unaligned(sums + c) + op(B::load_unaligned(x.row(t) + c)...))
                .store_unaligned(sums + c);
        for (; c < columns; ++c) sums[c] += op(x.row(t)[c]...);
    }
}

template <class T>
struct strided_rows {
    const T* data;
    index_t stride;
    const T* row(index_t t) const { return data + t * stride; }
    strided_rows from(index_t row, index_t column) const {
        return {data + row * stride + column, stride};
    }
};

} // namespace detail
} // namespace PARE_ISA
} // namespace pare
