// What an engine does with rows, on the CPU.
#include "network.hpp"
#include "prunable.hpp"

#include <pare/policy/simd.hpp>

namespace encoder {
namespace {

const matrix& matrix_of(const rows& x) {
    return *static_cast<const matrix*>(x.memory.get());
}
/// f(matrix) of x, in its own memory where nobody shares it.
template <class F>
void write(rows& x, const F& f) {
    if (!x.memory || x.memory.use_count() > 1) x.memory = std::make_shared<matrix>();
    matrix& to = *static_cast<matrix*>(x.memory.get());
    f(to);
    x.data = to.data();
    x.count = to.rows();
    x.columns = to.cols();
}

} // namespace

void network::embed(const batch& b, rows& x) {
    write(x, [&](matrix& to) { embed(b, to); });
}

void network::units(std::size_t l, unit_kind kind, const rows& x, const batch& b, rows& values) {
    write(values, [&](matrix& to) {
        kind == unit_kind::head ? attention(l, matrix_of(x), b, to)
                                : activation(l, matrix_of(x), to);
    });
}

void network::add_units(std::size_t l, unit_kind kind, const rows& values, const rows& x,
                        rows& sum) {
    write(sum, [&](matrix& to) { add_units(l, kind, matrix_of(values), matrix_of(x), to); });
}

void network::normalize(std::size_t l, unit_kind kind, const rows& sum, rows& x) {
    write(x, [&](matrix& to) { normalize(l, kind, matrix_of(sum), to); });
}

std::unique_ptr<pruner> network::make_pruner() {
    return std::make_unique<pruner_of<pare::vectorised<>, float>>(pare::simd, *this);
}

} // namespace encoder
