// What pare::prune asks of a model, for this one.
#pragma once

#include "decoder/prunable.hpp"
#include "gpt.hpp"

namespace gpt {

/// With what all decoders say alike.
struct prunable : decoder::prunable<model> {
    pare::sublayer<float> describe(pare::index_t s) {
        linear& w = reader(s);
        const auto lengths =
            pare::moments_of_lengths(std::vector<index>{m.config.length}, decoder::causal);
        const pare::index_t unit = s % 2 ? 1 : m.config.head_size();
        const double each = s % 2 ? pare::filter_macs(lengths, m.config.hidden)
                                  : pare::head_macs(lengths, m.config.hidden, unit);
        return {pare::as_view<2>(w.weight), pare::as_view<1>(w.bias), unit,
                pare::cost_table::linear(w.weight.cols() / unit, each)};
    }
    void keep(pare::index_t s, const std::vector<std::uint8_t>& mask) {
        linear& maker = s % 2 ? layer(s).up : layer(s).qkv;
        const pare::index_t unit = s % 2 ? 1 : m.config.head_size();
        const auto rows = pare::kept_positions(mask, unit, s % 2 ? 1 : 3);
        const auto columns = pare::kept_positions(mask, unit);
        maker.weight = matrix(maker.weight(rows, Eigen::all));
        maker.bias = vector(maker.bias(rows));
        reader(s).weight = matrix(reader(s).weight(Eigen::all, columns));
    }
};

} // namespace gpt
