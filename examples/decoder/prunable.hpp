// What pare::prune asks of a model, for small decoders, but `describe` and `keep`: models differ in
// these.
#pragma once

#include "decoder.hpp"

#include <pare/prune.hpp>

namespace decoder {

/// What a token of a decoder sees.
inline constexpr pare::attention_mask causal{true, 0};

template <class Model>
struct prunable {
    Model m;
    std::vector<tokens> text; ///< batches of calibration text
    matrix values;            ///< of the units that were asked for last

    auto& layer(pare::index_t s) { return m.layers[static_cast<std::size_t>(s / 2)]; }
    auto& reader(pare::index_t s) { return s % 2 ? layer(s).down : layer(s).projection; }

    pare::index_t sublayers() const { return 2 * m.config.layers; }
    pare::index_t batches() const { return static_cast<pare::index_t>(text.size()); }
    matrix start(pare::index_t b) const { return embed(m, text[static_cast<std::size_t>(b)]); }
    pare::view<float, 2> rows(matrix& x) const { return pare::as_view<2>(x); }
    pare::view<const float, 2> units(pare::index_t s, const matrix& x) {
        values = s % 2 ? activate(layer(s), x) : attend(m, layer(s), x);
        return pare::as_input<2>(values);
    }
    void add(pare::index_t s, pare::view<const float, 2>, matrix& x) {
        using decoder::add;
        add(reader(s), values, x);
    }
    /// Of the sequences, for Fisher information.
    std::vector<pare::index_t> offsets(pare::index_t b) const {
        const auto end = static_cast<pare::index_t>(text[static_cast<std::size_t>(b)].size());
        std::vector<pare::index_t> all;
        for (pare::index_t t = 0; t <= end; t += m.config.length) all.push_back(t);
        return all;
    }
    template <class Visit>
    void backward(pare::index_t b, const Visit& visit) {
        const auto draw = [&](matrix x) {
            pare::draw_class_gradients(x, static_cast<std::uint64_t>(b), x);
            return x;
        };
        const auto show = [&](index s, const matrix& units, const matrix& at_units,
                              const matrix& at_sum) {
            visit(s, pare::as_input<2>(units), pare::as_input<2>(at_units),
                  pare::as_input<2>(at_sum));
        };
        backward_pass(m, text[static_cast<std::size_t>(b)], draw, nullptr, show);
    }
};

} // namespace decoder
