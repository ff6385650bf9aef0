// What pare::prune asks of a model (pare/prune/model.hpp).
#pragma once

#include "sublayers.hpp"

#include <pare/prune.hpp>

#include <cstdint>
#include <functional>
#include <vector>

namespace language {

/// Sublayer 2 l is the attention of layer l, whose units are heads of keys and values with the query
/// heads that share each; 2 l + 1 its FFN, whose units are filters.
class prunable {
  public:
    /// Calibration text: batches of sequences of `length` tokens, one behind another.
    struct calibration {
        std::vector<std::vector<std::int32_t>> batches;
        index_t length;
    };

    /// Numbers that share a scale in most quantised types.
    static constexpr index_t block = 32;

    /// `equal`: all layers keep as many heads, and as many filters. `multiple`: of filters, or all where
    /// there are fewer.
    prunable(model of, const calibration& text, bool equal, index_t multiple = block)
        : m_(std::move(of)), text_(&text), equal_(equal), multiple_(multiple) {}
    const model& get() const { return m_; }

    index_t sublayers() const { return 2 * static_cast<index_t>(m_.layers.size()); }
    index_t batches() const { return static_cast<index_t>(text_->batches.size()); }
    pare::sublayer<float> describe(index_t s);
    matrix start(index_t batch) const;
    pare::view<float, 2> rows(matrix& x) const { return pare::as_view<2>(x); }
    pare::view<const float, 2> units(index_t s, const matrix& x);
    void add(index_t s, pare::view<const float, 2> units, matrix& x);
    void keep(index_t s, const std::vector<std::uint8_t>& mask);

    using rows_of = pare::view<const float, 2>;
    /// visit(s, units, gradients at them, and at the stream behind them), of a loss without targets.
    void backward(index_t batch,
                  const std::function<void(index_t, rows_of, rows_of, rows_of)>& visit);

  private:
    layer& of(index_t s) { return m_.layers[static_cast<std::size_t>(s / 2)]; }
    linear& reader(index_t s) { return s % 2 ? of(s).down : of(s).projection; }
    index_t inputs_of_unit(index_t s) const;

    model m_;
    const calibration* text_;
    bool equal_;
    index_t multiple_;
    matrix values_; ///< of the units that were asked for last
};

} // namespace language
