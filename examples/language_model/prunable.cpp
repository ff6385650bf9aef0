#include "prunable.hpp"

#include "layers.hpp"

#include <memory>
#include <utility>

namespace language {
namespace {

void keep_rows_of(linear& x, const std::vector<index_t>& kept) {
    x.weight = matrix(x.weight(kept, Eigen::all));
    if (x.bias.size() > 0) x.bias = vector(x.bias(kept));
}

} // namespace

index_t prunable::inputs_of_unit(index_t s) const {
    return s % 2 ? 1 : m_.config.heads_of_group() * m_.config.head_size;
}

pare::sublayer<float> prunable::describe(index_t s) {
    const shape& c = m_.config;
    linear& w = reader(s);
    const pare::attention_mask causal{true, 0};
    const auto n = pare::moments_of_lengths(std::vector{text_->length}, causal);
    const double cost = s % 2 ? pare::filter_macs(n, c.hidden, /*matrices=*/3)
                              : pare::head_macs(n, c.hidden, c.head_size, c.heads_of_group());
    const index_t units = w.weight.cols() / inputs_of_unit(s), multiple = s % 2 ? multiple_ : 1;
    return {pare::as_view<2>(w.weight), {w.bias.data(), w.bias.size()},
            inputs_of_unit(s),          pare::cost_table::linear(units, cost),
            std::min(multiple, units),  1,
            equal_ ? s % 2 : -1};
}

matrix prunable::start(index_t batch) const {
    const auto& ids = text_->batches[static_cast<std::size_t>(batch)];
    matrix x(static_cast<index_t>(ids.size()), m_.config.hidden);
    for (index_t t = 0; t < x.rows(); ++t)
        x.row(t) = m_.words.row(ids[static_cast<std::size_t>(t)]);
    return x;
}

pare::view<const float, 2> prunable::units(index_t s, const matrix& x) {
    values_ = s % 2 ? ffn_sublayer(m_, of(s), x).units()
                    : attention_sublayer(m_, of(s), x, text_->length).units();
    return pare::as_input<2>(values_);
}

void prunable::add(index_t s, pare::view<const float, 2> units, matrix& x) {
    const Eigen::Map<const matrix> values(units.data_handle(), units.extent(0), units.extent(1));
    x += times(values, reader(s));
}

void prunable::keep(index_t s, const std::vector<std::uint8_t>& mask) {
    layer& l = of(s);
    const std::vector<index_t> columns = pare::kept_positions(mask, inputs_of_unit(s));
    reader(s).weight = matrix(reader(s).weight(Eigen::all, columns));
    if (s % 2) {
        for (linear* x : {&l.gate, &l.up}) keep_rows_of(*x, columns);
    } else {
        keep_rows_of(l.query, columns);
        for (linear* x : {&l.key, &l.value})
            keep_rows_of(*x, pare::kept_positions(mask, m_.config.head_size));
    }
}

void prunable::backward(index_t batch,
                        const std::function<void(index_t, rows_of, rows_of, rows_of)>& visit) {
    matrix x = start(batch);
    struct passed {
        std::unique_ptr<attention_sublayer> attention;
        std::unique_ptr<ffn_sublayer> ffn;
    };
    std::vector<passed> layers;
    for (const layer& l : m_.layers) {
        passed& p = layers.emplace_back();
        p.attention = std::make_unique<attention_sublayer>(m_, l, x, text_->length);
        x += times(p.attention->units(), l.projection);
        p.ffn = std::make_unique<ffn_sublayer>(m_, l, x);
        x += times(p.ffn->units(), l.down);
    }
    const norm last(x, m_.last, m_.config.epsilon);
    matrix at = last.out() * m_.to_logits().transpose();
    pare::draw_class_gradients(at, static_cast<std::uint64_t>(batch), at);
    matrix at_x = last.backward(at * m_.to_logits());
    const auto step = [&](index_t s, const auto& sublayer) {
        const matrix at_units = at_x * reader(s).weight;
        visit(s, pare::as_input<2>(sublayer.units()), pare::as_input<2>(at_units),
              pare::as_input<2>(at_x));
        at_x += sublayer.backward(at_units);
    };
    for (index_t l = static_cast<index_t>(layers.size()); l-- > 0; layers.pop_back()) {
        step(2 * l + 1, *layers.back().ffn);
        step(2 * l, *layers.back().attention);
    }
}

} // namespace language
