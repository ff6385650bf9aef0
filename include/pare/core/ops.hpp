// The element operations that primitives take, on scalars and on vector registers alike.
#pragma once

#include "config.hpp"

namespace pare {
inline namespace PARE_ISA {
namespace ops {

struct identity {
    template <class V>
    V operator()(const V& x) const {
        return x;
    }
};
struct square {
    template <class V>
    V operator()(const V& x) const {
        return x * x;
    }
};
struct product {
    template <class V>
    V operator()(const V& x, const V& y) const {
        return x * y;
    }
};

} // namespace ops
} // namespace PARE_ISA
} // namespace pare
